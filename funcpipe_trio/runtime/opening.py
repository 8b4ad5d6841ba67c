"""The block of a run: what leaves it when the caller's body, the tasks, and the world outside all have a say?

the body raised        its exception passes, unchanged
a task was killed      (KeyboardInterrupt, SystemExit, ...) that wins, bare, once
cancelled from outside the body's Cancelled, or if the body had ended, the tasks': a cancelled run never looks complete
user code raised while it was cancelled: kept in the report, and nothing else
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

import trio

from ..plan.check import claim_sources
from ..plan.nodes import Plan
from .engine import Engine
from .inlet import CANCELLED, NOT_NEEDED
from .ledger import Ledger, OnDiscard
from .run import Consumer, Run
from .sink import Sink

__all__ = ["Opening", "killer_of"]

T = TypeVar("T")


class Opening(Generic[T]):
    """Open a run for the length of an ``async with`` block; all its tasks have ended when the block is left."""

    __slots__ = ("_cleanup_timeout", "_consumer", "_manager", "_on_discard", "_plan", "_sink")

    def __init__(
        self, plan: Plan, *, on_discard: OnDiscard | None, cleanup_timeout: float, sink: Sink | None = None
    ) -> None:
        self._plan = plan
        self._on_discard = on_discard
        self._cleanup_timeout = cleanup_timeout
        self._sink = sink
        self._manager: Any = None
        self._consumer: Consumer | None = None

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> Run[T]:
        await trio.lowlevel.checkpoint()
        if self._consumer is not None:
            raise trio.BusyResourceError("one `pipeline.open()` opens one run; call `open` again for another")
        claim_sources(self._plan)
        engine = Engine(self._plan, self._on_discard, self._cleanup_timeout, self._sink)
        engine.open_inner = self._inner
        self._consumer = Consumer(engine)
        self._manager = trio.open_nursery()
        nursery = await self._manager.__aenter__()
        try:
            engine.begin(nursery, self._consumer)
        except BaseException:  # a nursery that was entered must be left, whatever happens
            nursery.cancel_scope.cancel()
            await self._manager.__aexit__(None, None, None)  # noqa: ASYNC102, ASYNC120  # it cannot be cancelled
            raise
        return Run(self._consumer)

    def _inner(self, plan: Plan, on_discard: OnDiscard) -> Opening[Any]:
        """Open a run inside this one."""
        return Opening(plan, on_discard=on_discard, cleanup_timeout=self._cleanup_timeout)

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        assert self._consumer is not None
        engine = self._consumer.engine
        if engine.sink is None or error is not None:
            self._consumer.leave(CANCELLED if _is_cancellation(error) else NOT_NEEDED)
        from_tasks: BaseException | None = None
        try:
            # Without the body's exception: that passes by itself.
            await self._manager.__aexit__(None, None, None)  # noqa: ASYNC102  # a nursery's exit cannot be cancelled
        except BaseException as met:  # noqa: ASYNC103  # sorted and raised below
            from_tasks = met
        cancelled, fatal = _sort(from_tasks, engine.ledger)
        fatal = fatal or engine.ledger.fatal
        engine.finish(cancelled=cancelled is not None or _is_cancellation(error))
        if fatal is not None and _wins(fatal, error):
            raise fatal
        if error is None and cancelled is not None:
            raise cancelled
        return False


def _wins(fatal: BaseException, error: BaseException | None) -> bool:
    """Whether what killed a task is raised in place of the body's exception: only the strongest are."""
    if error is None or _is_cancellation(error):
        return True
    return isinstance(fatal, KeyboardInterrupt | SystemExit) and not isinstance(error, KeyboardInterrupt | SystemExit)


def _is_cancellation(error: BaseException | None) -> bool:
    return any(isinstance(leaf, trio.Cancelled) for leaf in _leaves(error))


def _sort(error: BaseException | None, ledger: Ledger) -> tuple[BaseException | None, BaseException | None]:
    """Sort what the tasks raised: a cancellation, and what must end the program; errors of cleanup go to the ledger."""
    leaves = list(_leaves(error))
    cancelled = next((leaf for leaf in leaves if isinstance(leaf, trio.Cancelled)), None)
    fatal = killer_of(error)
    errors = [leaf for leaf in leaves if isinstance(leaf, Exception)]
    if errors and cancelled is None and fatal is None:
        return None, error  # user code's errors never come this way: a defect of this package, shown as it is
    ledger.cleanup_errors.extend(errors)
    return cancelled, fatal


def killer_of(error: BaseException | None) -> BaseException | None:
    """Give what must end the program, out of what a nursery raised, in no group if there is one such; None for none."""
    fatal = [leaf for leaf in _leaves(error) if not isinstance(leaf, trio.Cancelled | Exception)]
    interrupts = [leaf for leaf in fatal if isinstance(leaf, KeyboardInterrupt | SystemExit)]
    if interrupts or len(fatal) < 2:
        return next(iter(interrupts or fatal), None)
    return BaseExceptionGroup("several tasks of a run were killed", fatal)


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    elif error is not None:
        yield error
