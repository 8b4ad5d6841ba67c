"""Calls in any `concurrent.futures.Executor`: which executor takes them, and what happens when it breaks?

No thread waits for a call: the executor's future wakes the task. A cancellation withdraws a call that has not begun,
and leaves behind one that has.

An executor that is made by a function is made when the first call needs it, and again when a call needs one and the
last has broken: once for each break, however many calls met it. A call that the broken executor refused has not begun,
and goes to the new one.

It shuts no executor down.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import trio

from ..._base import checks
from ..._base.errors import WorkerDied
from ..._base.frozen import dataclass
from ..._base.functions import AnyFunction, function_name, is_async
from ..._base.shown import named
from ..core.call_context import CallContext
from ..core.log import INFO, log
from ..core.parking import WOKEN
from ..core.user_code import not_awaitable
from .active_runner import ActiveRunner, Admit, admitted
from .outside import outside

if TYPE_CHECKING:
    from concurrent.futures import Executor

Kinds: TypeAlias = type[Exception] | tuple[type[Exception], ...]


def executor(
    executor: Executor | Callable[[], Executor], *, limit: int | None = None, broken: Kinds | None = None
) -> InExecutor:
    """Run a step's sync function in a `concurrent.futures.Executor`: a pool of processes, loky's, dask's, ...

    No thread waits for it. A cancellation withdraws a call that has not begun; one that has is left behind, and counts
    as ``outcome unknown``. The executor is yours: it is not shut down.

    With an executor that broke, as one of processes does when a worker dies, every call raises `WorkerDied`. A function
    that makes executors is called at the first call, and again at the first call after a `WorkerDied`: so a retry gets
    a working one. It is called once for each start of the step, and once for each break; what it made is its own to
    shut down.

    Args:
      executor: any object with ``submit(fn, item)`` that returns a `concurrent.futures.Future`; or a sync function
        without arguments that returns such an object. It is called in the event loop, so it should be quick.
      limit: calls that it has at once, an int >= 1. Use the number of its workers when the step has a rate limit or a
        timeout: a call begins when the executor gets it, and what then waits inside the executor starts later. None:
        as many as the stage has.
      broken: exception types that mean that it broke, or that one of its workers died, raised by ``submit`` or by a
        call. None: `concurrent.futures.BrokenExecutor`.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if `limit` is below 1.
    """
    return InExecutor(executor, limit, broken)


@dataclass(frozen=True, slots=True)
class InExecutor:
    """See `executor`."""

    place: ClassVar[str] = "executor"
    """What its calls wait for, as reports say it."""

    executor: Executor | Callable[[], Executor] = field(hash=False)
    """The executor, or a function that makes one."""
    limit: int | None = None
    """Calls that it has at once; None: as many as the stage has."""
    broken: Kinds | None = None
    """What it raises when it is broken; None: `BrokenExecutor`."""

    def __post_init__(self) -> None:
        if self.limit is not None:
            checks.integer("executor", "limit", self.limit, at_least=1)
        if not _submits(self.executor) and (not callable(self.executor) or is_async(self.executor)):
            rule = "be a concurrent.futures.Executor, or a sync function that makes one"
            raise checks.refuse(TypeError, "executor", "executor", rule, self.executor)
        kinds = self.broken if isinstance(self.broken, tuple) else () if self.broken is None else (self.broken,)
        if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
            rule = "be an exception type, or a tuple of them"
            raise checks.refuse(TypeError, "executor", "broken", rule, self.broken)

    def describe(self) -> str:
        """Return a one-line description, for plans."""
        most = "" if self.limit is None else f", at most {self.limit} calls at once"
        executor: Any = self.executor
        made = type(executor).__name__ if _submits(executor) else f"an executor made by {function_name(executor)}"
        return f"{made}{most}"

    def problem(self, fn: AnyFunction) -> str | None:
        """Accept any function: only the executor knows what it can run."""
        return None

    def start(self) -> ActiveRunner:
        """Make a runner with places of its own."""
        return _ExecutorRunner(self)


def _submits(value: object) -> bool:
    return callable(getattr(value, "submit", None)) and not isinstance(value, type)


class _ExecutorRunner:
    def __init__(self, plan: InExecutor) -> None:
        from concurrent.futures import BrokenExecutor

        self._make: Any = None if _submits(plan.executor) else plan.executor  # makes executors; None if it was given
        self._executor: Any = None if self._make else plan.executor  # the present one; None until a call needs it
        self._buried: Any = None  # the last one that broke, of which the log was told; None before
        self._broken = BrokenExecutor if plan.broken is None else plan.broken  # what it raises when it is broken
        self._places = trio.CapacityLimiter(math.inf if plan.limit is None else plan.limit)  # calls in it at once

    async def call(self, fn: AnyFunction, item: Any, context: CallContext, admit: Admit | None) -> Any:
        borrower = object()
        await self._places.acquire_on_behalf_of(borrower)
        try:
            self._at_hand()  # before the call is admitted, because making an executor may take a while
            await admitted(item, context, admit)
            return await self._call(fn, item, context)
        finally:
            self._places.release_on_behalf_of(borrower)

    async def _call(self, fn: AnyFunction, item: Any, context: CallContext) -> Any:
        executor = self._at_hand()
        try:
            try:
                future = executor.submit(fn, item)
            except self._broken:
                if self._make is None:
                    raise
                self._forget(executor, fn)
                executor = self._at_hand()
                future = executor.submit(fn, item)  # the first call has not begun, so this is not a second one
            await outside(self._done(future, context))
            return future.result()
        except self._broken as error:
            self._forget(executor, fn)
            raise WorkerDied(self._said(fn, error)) from error

    def _said(self, fn: AnyFunction, error: Exception) -> str:
        from concurrent.futures import BrokenExecutor

        worker = "" if isinstance(error, BrokenExecutor) else ", or a worker of it died"
        use = "" if self._make else "\nUse executor(lambda: ...), which makes a new one then."
        return f"the executor of {function_name(fn)} is broken{worker}{use}"

    def _at_hand(self) -> Any:
        if self._executor is None:
            self._executor = self._made()
        return self._executor

    @trio.lowlevel.disable_ki_protection
    def _made(self) -> Any:
        name = function_name(self._make)
        made = not_awaitable(name, self._make(), "Use a sync function that returns an executor.")
        if not _submits(made):
            raise checks.refuse(TypeError, "executor", f"what {name} gives", "be a concurrent.futures.Executor", made)
        return made

    def _forget(self, executor: Any, fn: AnyFunction) -> None:
        """Have a new executor made for the next call, unless another call that met the break has done so."""
        if executor is self._executor and executor is not self._buried:
            self._buried = executor
            another = "" if self._make is None else "; another is made for the next call"
            log(INFO, "the executor of %s is broken, or a worker of it died%s", named(function_name(fn)), another)
            if self._make is not None:
                self._executor = None

    async def _done(self, future: Any, context: CallContext) -> None:
        """Wait for a future, without a thread."""
        task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()
        is_waiting = True

        def wake() -> None:
            if is_waiting:
                trio.lowlevel.reschedule(task, WOKEN)

        def done(_future: object) -> None:  # called in any thread
            with contextlib.suppress(trio.RunFinishedError):  # then no task waits for it any more
                token.run_sync_soon(wake)

        def give_up(_raise_cancel: object) -> trio.lowlevel.Abort:
            nonlocal is_waiting
            withdrawn = future.cancel()
            if not withdrawn and future.done():  # in this order, or a call that ends in between would be lost
                return trio.lowlevel.Abort.FAILED  # its result is on the way here
            is_waiting = False
            context.counters.abandoned += not withdrawn
            return trio.lowlevel.Abort.SUCCEEDED

        future.add_done_callback(done)
        await trio.lowlevel.wait_task_rescheduled(give_up)
