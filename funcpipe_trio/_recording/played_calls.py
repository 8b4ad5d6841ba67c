"""A call that is played: how long does it take, and how does it end, attempt by attempt?

Sleeping is virtual. A runner of the user's is never started; a played call takes one of as many places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf
from sys import maxsize
from typing import Any, NoReturn

import trio

from .._base.functions import AnyFunction
from .._runtime.core.call_context import CallContext, Layered
from .._runtime.runners.active_runner import ActiveRunner, Admit, admitted
from .._runtime.runners.runners import Threads
from .tapes import FailureKind
from .tokens import Reader, Token, origin_of

_JUST = 1e-6
"""Seconds after it was cut off in which something is done: later than whatever cut it off."""
_OPEN = 4096
"""Calls whose next attempt may still come."""


class SimulatedError(Exception):
    """Stands for an error of the recorded run; each type of those has a subclass of its name."""

    kind: FailureKind
    """How the recorded call failed."""


async def live(segment: Any) -> None:
    """Take as long as an attempt took, and fail if it failed; one that was cut off is done right after that.

    What took no time does not wait at all.
    """
    seconds, *how = segment if isinstance(segment, list) else (segment, None)
    if not how:
        seconds += _JUST
    if seconds:
        await trio.sleep(seconds)
    if how and how[0] is not None:
        raise_recorded(how[0])


_kinds: dict[str, type[SimulatedError]] = {}
"""The types of simulated errors, by name."""


def raise_recorded(kind: FailureKind) -> NoReturn:
    """Raise the error of a recorded failure."""
    if kind.type_name not in _kinds:
        _kinds[kind.type_name] = type(kind.type_name, (SimulatedError,), {})
    error = _kinds[kind.type_name]("simulated")
    error.kind = kind
    raise error


class PlayedAttempts:
    """Plays the attempts of calls that carry a number."""

    def __init__(
        self, reader: Reader, make_further: Callable[[int], PlayedAttempts] | None = None, *, is_any: bool = False
    ) -> None:
        self._reader = reader  # of the calls
        self._make_further = make_further  # makes what plays the further calls of a hedge; None for those
        self._further: dict[int, PlayedAttempts] = {}  # what it made, by their number
        self._is_any = is_any  # none was recorded: each is like any of the first calls
        self._open: dict[int, tuple[list[Any], int]] = {}  # samples of calls that failed, and attempts, by number

    def of(self, context: CallContext) -> PlayedAttempts:
        """Return what plays the attempts of a call."""
        if not context.further or self._make_further is None:
            return self
        if context.further not in self._further:
            self._further[context.further] = self._make_further(context.further)
        return self._further[context.further]

    def next(self, number: int, item: Any) -> Any:
        """Return how the next attempt of a call ends; past those recorded, as the last did."""
        attempts, done = self._open.pop(number, (None, 0)) if self._open else (None, 0)
        if attempts is None:
            sample = self._reader.next(None, maxsize) if self._is_any else self._reader.next(item, number)
            if not isinstance(sample, list):
                return sample
            attempts = sample
        segment = attempts[min(done, len(attempts) - 1)]
        if isinstance(segment, list):
            while len(self._open) >= _OPEN:
                del self._open[next(iter(self._open))]
            self._open[number] = attempts, done + 1
        return segment


def played_call(attempts: PlayedAttempts) -> Layered:
    """Return a call that is played."""

    async def played(item: Any, context: CallContext) -> Any:
        await live(attempts.of(context).next(context.number, item))
        return item

    return played


class PlayedRunner:
    """A runner that only has places."""

    def __init__(self, runner: Any, attempts: PlayedAttempts) -> None:
        self._runner = runner  # the user's, which is never started
        self._attempts = attempts  # what is played
        self.place: str = runner.place

    def describe(self) -> str:
        return self._runner.describe()  # type: ignore[no-any-return]

    def problem(self, fn: AnyFunction) -> str | None:
        return None

    def start(self) -> ActiveRunner:
        limit = getattr(self._runner, "limit", None)
        waits = isinstance(self._runner, Threads) and not self._runner.abandon_on_cancel
        return _PlayedPlaces(inf if limit is None else limit, self._attempts, is_waited_for=waits)


class _PlayedPlaces:
    def __init__(self, limit: float, attempts: PlayedAttempts, *, is_waited_for: bool) -> None:
        self._places = trio.CapacityLimiter(limit)  # calls at once
        self._attempts = attempts  # what is played
        self._is_waited_for = is_waited_for  # a call that is cancelled goes on to its end, as in a thread

    async def call(self, fn: AnyFunction, item: Any, context: CallContext, admit: Admit | None) -> Any:
        borrower = object()
        await self._places.acquire_on_behalf_of(borrower)
        try:
            await admitted(item, context, admit)
            with trio.CancelScope(shield=self._is_waited_for):
                await live(self._attempts.of(context).next(context.number, item))
        finally:
            self._places.release_on_behalf_of(borrower)
        return item


def expanded(reader: Reader, item: Any) -> Iterator[Any]:
    """Return as many children of an item as there were; they tell when no more come, if those did."""
    count = reader.next(item)
    number = count[0] if isinstance(count, list) else count
    if isinstance(item, list | tuple) and len(item) == number:
        children = item
    else:
        children = [Token((*(origin_of(item) or ()), child)) for child in range(number)]
    return _found_out(children, count[1]) if isinstance(count, list) else iter(children)


def _found_out(children: Sequence[Any], kind: FailureKind | None) -> Iterator[Any]:
    yield from children
    if kind is not None:
        raise_recorded(kind)
