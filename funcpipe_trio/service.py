"""How does a plan run as a service? Until it ends, or until the system asks it to end: then it drains.

    the first SIGTERM or SIGINT    drains: no source takes more, what was taken is delivered
    the grace period is over       stops: what is left is discarded, as after any drain with a grace period
    the second signal              aborts, at once
    a third                        does what it did before: SIGTERM ends the program, whatever user code is doing

The invariant: the handlers of the program are in place again when the run is over, or aborted by a signal. A handler
only wakes a task, so it disturbs no step of the run; it works while user code holds up the event loop, as far as
Python's do. A signal that the program ignores stays ignored.

It does not wait for the consumer of anything: it drives the run itself, as `Pipeline.run` does.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable
from functools import partial
from types import FrameType, TracebackType
from typing import Any, Generic, TypeVar

import outcome
import trio

from ._base import checks
from ._base.errors import StateError
from ._recording.recorder import Recorder
from ._runtime.core.ledger import OnDiscard
from ._runtime.reports.report import Report
from ._runtime.run.observing import Observer
from ._runtime.run.run import Run
from .pipeline import Pipeline

__all__ = ["run_service"]

T = TypeVar("T")

GRACE = 30.0
"""Seconds that a drain may take by default; what supervisors commonly wait before they kill."""


async def run_service(
    plan: Pipeline[T],
    *,
    grace: float = GRACE,
    on_discard: OnDiscard | None = None,
    cleanup_timeout: float = 5.0,
    record: Recorder | None = None,
    observer: Observer | None = None,
    task_status: trio.TaskStatus[Run[T]] = trio.TASK_STATUS_IGNORED,
) -> Report:
    """Run a pipeline to its end, or until SIGTERM or SIGINT (Ctrl-C) asks the program to end.

    The first signal drains the run, as `Run.drain` does: no source takes more, and what was taken is delivered. When
    the grace period is over, what is left is discarded. The second signal aborts the run at once. A third one does what
    it did before: SIGTERM ends the program even if user code neither ends nor can be cancelled, and Ctrl-C raises
    KeyboardInterrupt. Several services may run at once: a signal reaches each of them.

    The results are not used, as with `Pipeline.run`. ``run = await nursery.start(run_service, plan)`` returns the `Run`
    while it works, to look at; `watch_app` of it answers ``/ready`` with 503 while it drains.

    Args:
      plan: the pipeline.
      grace: seconds >= 0 from the first signal to the end of the drain; `math.inf` for no limit.
      on_discard: as for `Pipeline.open`; the reason is ``grace period over``, or ``aborted`` after a second signal.
      cleanup_timeout: as for `Pipeline.open`, like the next two.
      record: keeps how long everything took.
      observer: puts something of its own around every call.
      task_status: as trio passes it in ``nursery.start``.

    Returns:
      the report of the run: its outcome is ``completed``, ``drained`` after one signal, ``aborted`` after a second.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if `grace` is below 0 or NaN, or `cleanup_timeout` is not > 0.
      PlanError: if the plan cannot work.
      StateError: outside of trio; or in another thread than the main one, because Python lets no other handle signals.
      Exception: the original error of the stream.

    Checkpoint: always.
    Cancellation: stops the run at once; the handlers of signals are those of before.
    """
    service = Service(
        plan, grace, on_discard=on_discard, cleanup_timeout=cleanup_timeout, record=record, observer=observer
    )
    return await service.serve(task_status)


class Service(Generic[T]):
    """One pipeline that runs as a service; once."""

    def __init__(self, plan: Pipeline[T], grace: float = GRACE, **how: Any) -> None:
        self._plan = checks.instance("run_service", "plan", plan, Pipeline)  # what runs
        self._grace = checks.seconds("run_service", "grace", grace, positive=False, finite=False)
        """Seconds that a drain may take."""
        self._how = how  # other arguments of `Pipeline.run`
        self.is_late: bool = False  # the grace period was over before the run was

    async def serve(self, task_status: trio.TaskStatus[Run[T]] = trio.TASK_STATUS_IGNORED) -> Report:
        """See `run_service`."""
        if not trio.lowlevel.in_trio_task():
            raise StateError(
                "run_service: must be called inside of trio.run(...), and on no other event loop\n"
                "Use `trio.run(run_service, plan)`, say."
            )
        if threading.current_thread() is not threading.main_thread():
            raise StateError(
                "run_service: must be called in the main thread, because Python lets no other handle signals\n"
                "Use Pipeline.run, and trio.from_thread.run_sync(run.drain_nowait), elsewhere."
            )
        with Stops() as stops:
            async with trio.open_nursery() as nursery:
                started = _Started(lambda run: nursery.start_soon(self._obey, stops, run), task_status)
                ended = await outcome.acapture(partial(self._plan.run, **self._how, task_status=started))
                # Shielded: what the run raised, which may be a cancellation, is raised below, and in no group.
                nursery.cancel_scope.shield = True
                nursery.cancel_scope.cancel()
        return ended.unwrap()

    async def _obey(self, stops: Stops, run: Run[T]) -> None:
        """Drain the run when that is asked for, and stop it when it has to be."""
        await stops.first.wait()
        run.drain_nowait()
        with trio.move_on_after(self._grace):
            await stops.second.wait()
            run.abort()
            return
        self.is_late = run.state.value == "draining"
        await run.drain(0)


class _Started(Generic[T]):
    """A `trio.TaskStatus` that also tells somebody else."""

    def __init__(self, tell: Callable[[Run[T]], object], status: trio.TaskStatus[Run[T]]) -> None:
        self._tell = tell  # called with the run
        self._status = status  # the caller's

    def started(self, run: Any = None) -> None:
        self._tell(run)
        self._status.started(run)


_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stops:
    """How often the system asks the program to end, for the length of a block: once, twice."""

    def __init__(self) -> None:
        self.first: trio.Event = trio.Event()  # set at the first signal
        self.second: trio.Event = trio.Event()  # set at the second
        self.count: int = 0  # of signals
        self._token = trio.lowlevel.current_trio_token()  # of the trio run that is told

    def __enter__(self) -> Stops:
        if not _before:
            for number in _SIGNALS:
                before = signal.getsignal(number)
                if before is not signal.SIG_IGN:
                    _before[number] = signal.SIG_DFL if before is None else before  # None: not set by Python
                    signal.signal(number, _came)
        _open.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _open.remove(self)
        if not _open:
            _restore()

    def come(self) -> None:
        """Count a signal; called in its handler, so between any two instructions of the main thread."""
        self.count += 1
        with contextlib.suppress(trio.RunFinishedError):
            self._token.run_sync_soon((self.first if self.count == 1 else self.second).set)


_open: list[Stops] = []
"""Those that are told of signals. There is one handler for all, because services do not end in the reverse order of
their beginning: handlers that each put back the one before would put back one that is gone."""
_before: dict[int, Any] = {}
"""The handlers that were in place before."""


def _came(_number: int, _frame: FrameType | None) -> None:
    for each in tuple(_open):
        each.come()
    if all(each.count > 1 for each in _open):
        _restore()


def _restore() -> None:
    """Put back the handlers of before, where nobody has set others since."""
    while _before:
        number, handler = _before.popitem()
        if signal.getsignal(number) is _came:
            signal.signal(number, handler)
