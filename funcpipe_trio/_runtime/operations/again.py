"""At the end of a loop's body: what new work does each result give, and what if there is no room for it?

The result is held until all of its new work is in line, and then continues. Putting work in line never waits, so the
body can always go on: a loop cannot block itself. The work for which there is no room is a failure at the result; or a
step gets it (`Spilling`), which is to wait, so then the operation is a stage with calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Any, Protocol

import trio

from ..._base.errors import BufferOverflow
from ..._base.shown import kind_of, named
from ..._plan.loops import Again
from ...policies.on_error import Failure
from ..core.call_context import CallContext, Layered
from ..core.failures import add_note, failure_of
from ..core.signals import BEHIND_FAILURE, END, NO_ITEM, PENDING
from ..core.step_counters import StepCounters
from ..core.turn import BURST
from ..core.user_code import interruptibly, not_awaitable
from .base import FusedOperation


class Line(Protocol):
    """The queue of what goes round, as far as an `Again` knows it."""

    def add(self, work: Any) -> bool:
        """Take new work; return False if it cannot go round."""

    def refusal(self) -> Exception:
        """Return the error that there is no room, or that the loop is over."""


class AgainOp(FusedOperation):
    """Each result gives new work, and continues."""

    may_keep = True  # a result, while its new work is being put in line

    def __init__(self, operation: Again, line: Line) -> None:
        super().__init__(operation)
        self._fn = operation.fn  # gives the new work of a result
        self._line = line  # where that goes
        self._result: Any = NO_ITEM  # the one whose new work is being put in line

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        fn, add, turn, number, vetted = self._fn, self._line.add, self.chain.turn, 0, None
        for value in values:
            if value is PENDING:
                yield PENDING
                continue
            self._result, works, left = value, None, BURST
            try:
                given = fn(value)
                if type(given) is not vetted:
                    vetted = vet(self.name, given)
                works = iter(given)
                for work in works:
                    if not add(work):
                        self._give_up(work)
                    left -= 1
                    if not left or perf_counter() > turn.ends_at:  # there may be much work: others must run, or stop it
                        left = BURST
                        yield PENDING
            except GeneratorExit:
                self.chain.close_stream(works)
                raise
            except BaseException as error:  # noqa: ASYNC103  # `failing` raises
                self._result = NO_ITEM
                self.chain.close_stream(works)
                self.chain.failing(error, self.name, number, value)
            number += 1
            self._result = NO_ITEM
            yield value

    @trio.lowlevel.enable_ki_protection
    def _give_up(self, work: Any) -> None:
        self.created += 1
        self.chain.discard(work, BEHIND_FAILURE)
        raise self._line.refusal()

    @property
    def has_more(self) -> bool:
        return self._result is not NO_ITEM

    def held(self) -> list[Any]:
        """Return the result whose new work was being put in line."""
        result, self._result = self._result, NO_ITEM
        return [] if result is NO_ITEM else [result]


class PoolOfSpilling(Protocol):
    """The stage with calls, as far as `Spilling` knows it."""

    chain: Any

    def reason(self) -> str:
        """Why an item of this stage is given up now."""


class Spilling:
    """The same as a call of a stage: new work for which there is no room goes to a step."""

    def __init__(self, operation: Again, line: Line, divert: Layered, counters: StepCounters) -> None:
        self.pool: PoolOfSpilling  # what calls it; set when that is made
        self._operation = operation  # whose function gives the new work
        self._line = line  # where that goes
        self._divert = divert  # the step
        self._counters = counters  # what the policies of the step count
        self._spilled = 0  # how much work it got

    async def call(self, result: Any) -> Any:
        """Put the new work of a result in line; return the result."""
        given = interruptibly(self._operation.fn, result)
        vet(self._operation.name, given)
        works = interruptibly(iter, given)
        turn = BURST
        try:
            while (work := interruptibly(next, works, END)) is not END:
                if not self._line.add(work):
                    await self._spill(work)
                turn -= 1
                if not turn:  # a checkpoint, or much work would keep others from running
                    await trio.lowlevel.checkpoint()
                    turn = BURST
        finally:
            interruptibly(self.pool.chain.close_stream, works)
        return result

    async def _spill(self, work: Any) -> None:
        chain, name = self.pool.chain, self._operation.name
        chain.created += 1
        overflow, reason = self._line.refusal(), None
        try:
            if not isinstance(overflow, BufferOverflow):
                raise overflow
            await self._divert(Failure(work, overflow, name, 0), CallContext(self._counters, self._spilled))
        except BaseException as raised:  # noqa: ASYNC103  # raised again
            error = failure_of(raised)
            if error is not None:
                add_note(error, "diverting a BufferOverflow")
                reason = BEHIND_FAILURE
            chain.discard(work, reason or self.pool.reason())
            raise
        self._spilled += 1
        chain.failed += 1
        chain.failures[BufferOverflow.__name__] += 1


def vet(name: str, given: Any) -> type:
    """Refuse what gives no new work; return its type: others of that need not be vetted."""
    if not isinstance(not_awaitable(name, given), Iterable):
        raise TypeError(f"{named(name)} gave {kind_of(given)}; again must give an iterable of new work, empty for none")
    return type(given)
