"""Where does a sync function run that must not block the event loop: what is limited, and what does a cancel leave?

    threads(n)    at most n threads; a cancel waits for the call, or leaves it behind (`abandon_on_cancel`)
    processes(n)  at most n worker processes; a cancel kills the worker
    executor(ex)  any `concurrent.futures.Executor`, see `executors`
    runner(fn, *args)  an async function of the user's

A call that was left behind, or whose worker was killed, may have done all, some or none of its work: the report counts
it as ``outcome unknown``.
"""

from __future__ import annotations

import sys
from dataclasses import KW_ONLY, field
from typing import Any, ClassVar, cast

import trio

from ..._base import checks
from ..._base.frozen import dataclass
from ..._base.functions import AnyFunction, function_name
from ..._plan.steps import RunnerPlan
from ..core.call_context import CallContext
from ..core.user_code import interruptible
from .active_runner import ActiveRunner, Admit, admitted
from .executors import InExecutor
from .outside import outside

# What only one runner needs is imported where that one starts: together 5 ms that most programs can save.

# ---- threads


def threads(limit: int, *, abandon_on_cancel: bool = False) -> Threads:
    """Run a step's sync function in threads, at most `limit` at once.

    A cancellation or a timeout waits until the call in its thread has ended (the call can ask
    `trio.from_thread.check_cancelled`), so nothing of a run goes on after its end. With `abandon_on_cancel` it does not
    wait: the thread works on and keeps its place among the `limit`, and the call counts as ``outcome unknown``.

    Threads help a function that waits (for a disk, a database), not one that computes.

    Args:
      limit: an int >= 1; each run, and each start of the step, has its own.
      abandon_on_cancel: whether a cancelled call is left behind.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if `limit` is below 1.
    """
    return Threads(limit, abandon_on_cancel=abandon_on_cancel)


@dataclass(frozen=True, slots=True)
class Threads:
    """See `threads`."""

    place: ClassVar[str] = "thread"
    """What its calls wait for, as reports say it."""

    limit: int
    """Calls at once."""
    _: KW_ONLY
    abandon_on_cancel: bool = False
    """Whether a cancelled call is left behind, rather than waited for."""

    def __post_init__(self) -> None:
        checks.integer("threads", "limit", self.limit, at_least=1)
        checks.boolean("threads", "abandon_on_cancel", self.abandon_on_cancel)

    def describe(self) -> str:
        """Return a one-line description, for plans."""
        left = ", left behind when cancelled" if self.abandon_on_cancel else ""
        return f"up to {self.limit} threads{left}"

    def problem(self, fn: AnyFunction) -> str | None:
        """Accept any sync function."""
        return None

    def start(self) -> ActiveRunner:
        """Make a runner with places of its own."""
        return _Threads(self)


class _Threads:
    def __init__(self, plan: Threads) -> None:
        self._abandon = plan.abandon_on_cancel  # a cancelled call is left behind
        self._places = trio.CapacityLimiter(plan.limit)  # calls at once, including those left behind

    async def call(self, fn: AnyFunction, item: Any, context: CallContext, admit: Admit | None) -> Any:
        place = _Place(self._places)
        await self._places.acquire_on_behalf_of(place)
        try:
            await admitted(item, context, admit)
            limiter = cast(trio.CapacityLimiter, place)  # trio accepts what acts like one, though its types do not
            return await trio.to_thread.run_sync(fn, item, limiter=limiter, abandon_on_cancel=self._abandon)
        except trio.Cancelled:  # left behind even if its thread has ended meanwhile: its result is lost
            context.counters.abandoned += self._abandon and place.is_used
            raise
        finally:
            if not place.is_used:
                place.release_on_behalf_of(None)


class _Place:
    """One place among the threads, which a call that was left behind keeps until its thread has ended.

    It is acquired before the call is admitted; trio, which accepts any object that acts like a limiter, then uses it.
    """

    def __init__(self, places: trio.CapacityLimiter) -> None:
        self._places = places  # where it was acquired, on its own behalf
        self.is_used = False  # trio has it, and releases it when the thread has ended

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        self.is_used = True

    def release_on_behalf_of(self, borrower: object) -> None:
        self._places.release_on_behalf_of(self)


# ---- processes


def processes(limit: int) -> Processes:
    """Run a step's sync function in worker processes, at most `limit` at once; not on Windows.

    A cancellation or a timeout kills the worker, and a new one takes its place when it is needed. Idle workers are kept
    until the end of the trio run, for all its steps; they ignore Ctrl-C.

    The function must be defined in a module (workers import it by name), and its items and results must be picklable; a
    script needs its ``if __name__ == "__main__":`` guard. The function may do what any program may: print (it shares
    this program's standard output and error, and reads nothing from standard input), start children, raise anything. An
    error has the worker's traceback in its notes; one that cannot be pickled is raised as a `WorkerError`. A worker
    that dies, or cannot start, is a `WorkerDied`.

    A round trip costs about 0.1 ms: a function that takes less than 0.3 ms is faster in the event loop, unless it works
    on many items at once: see `chunked`.

    Args:
      limit: an int >= 1; each run, and each start of the step, has its own.

    Raises:
      NotImplementedError: on Windows.
      TypeError: if `limit` is not an int.
      ValueError: if it is below 1.
    """
    if sys.platform == "win32":
        raise NotImplementedError("processes: there are none on Windows\nUse executor(lambda: ProcessPoolExecutor(4)).")
    return Processes(limit)


@dataclass(frozen=True, slots=True)
class Processes:
    """See `processes`."""

    place: ClassVar[str] = "process"
    """What its calls wait for, as reports say it."""

    limit: int
    """Calls at once."""

    def __post_init__(self) -> None:
        checks.integer("processes", "limit", self.limit, at_least=1)

    def describe(self) -> str:
        """Return a one-line description, for plans."""
        return f"up to {self.limit} processes"

    def problem(self, fn: AnyFunction) -> str | None:
        """Refuse a function that a worker could not import."""
        import pickle

        try:
            pickle.dumps(fn)
        except Exception as error:
            return (
                f"processes: {function_name(fn)} must be picklable, which it is not: {error}\n"
                "Use a function defined at the top of a module, or a partial of one."
            )
        return None

    def start(self) -> ActiveRunner:
        """Make a runner with places of its own."""
        return _Processes(self.limit)


class _Processes:
    def __init__(self, limit: int) -> None:
        from . import orders, worker_processes

        self._places = trio.CapacityLimiter(limit)  # calls at once
        self._orders, self._workers = orders, worker_processes  # modules, imported only when processes are used

    async def call(self, fn: AnyFunction, item: Any, context: CallContext, admit: Admit | None) -> Any:
        order = self._orders.order_of(fn, item)
        borrower = object()
        await self._places.acquire_on_behalf_of(borrower)
        try:
            answer = None
            while answer is None:  # again, if the worker had ended before it read the order
                answer = await self._answer(fn, item, order, context, admit)
        finally:
            self._places.release_on_behalf_of(borrower)
        return self._orders.result_of(*answer, fn)

    async def _answer(
        self, fn: AnyFunction, item: Any, order: bytes, context: CallContext, admit: Admit | None
    ) -> tuple[bytes, bytes, int] | None:
        workers = self._workers.WorkerProcesses.of_this_run()
        worker = await outside(workers.take())
        try:
            await admitted(item, context, admit)  # when there is a worker, because starting one takes a while
            try:
                return *await outside(worker.ask(function_name(fn), order)), worker.number
            except self._workers.Unread:
                return None
            except trio.Cancelled:
                context.counters.abandoned += 1
                raise
        finally:
            workers.give_back(worker)


# ---- any other


def runner_of(value: Any) -> RunnerPlan:
    """Return one of the runners above as it is; wrap any async function ``runner(fn, *args)``.

    Raises:
      TypeError: if the value is neither.
    """
    if isinstance(value, Threads | Processes | InExecutor):
        return value
    rule = "be threads(n), processes(n), executor(ex), or an async function runner(fn, *args)"
    checks.async_callable("Step.on", "runner", value, rule)
    return ByFunction(value)


@dataclass(frozen=True, slots=True)
class ByFunction:
    """A user's own way to run a sync function."""

    place: ClassVar[str] = "runner"
    """What its calls wait for, as reports say it."""

    runner: AnyFunction = field(hash=False)
    """Called with the step's function and its item."""

    def describe(self) -> str:
        """Return a one-line description, for plans."""
        return function_name(self.runner)

    def problem(self, fn: AnyFunction) -> str | None:
        """Accept any function: only the user knows what the runner can run."""
        return None

    def start(self) -> ActiveRunner:
        """Make a runner without any state."""
        return _ByFunction(self.runner)


class _ByFunction:
    def __init__(self, runner: AnyFunction) -> None:
        self._runner = runner  # called with the step's function and its item

    async def call(self, fn: AnyFunction, item: Any, context: CallContext, admit: Admit | None) -> Any:
        await admitted(item, context, admit)
        return await interruptible(self._runner, fn, item)
