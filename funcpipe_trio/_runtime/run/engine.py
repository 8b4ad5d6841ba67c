"""The inside of one run: which tasks, links and counts does it have, and in which ways does it end?

All tasks are in one nursery, opened and left by the task that opened the run. Every way to stop is one call: the last
inlet is closed, and that discards, cancels and closes everything upstream at once, from there to the sources.

  the source ended   items and the end travel down by themselves
  a failure          travels behind the items before it; the consumer that reaches it raises it
  drain              the sources take no more; everything else as if they had ended
  abort, leaving     the last inlet is closed
  cancellation       reaches each task by itself; each discards what it holds, and ends its outlet as aborted

The run does not cancel the nursery's scope, because the caller's block is inside it; only what must end the program
does (`Ledger.kill`).
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, TypeVar

import outcome
import trio

from ..._base.errors import StateError
from ..._base.shown import listed, named, told, type_name
from ..._plan.nodes import Plan
from ..._sansio.blame import Graph, waits_in
from ..._sansio.state_times import StateTimes
from ..core.failures import is_caused_by_cancelling
from ..core.ledger import Ledger, OnDiscard
from ..core.log import DEBUG, INFO, WARNING, RunLog, log_nothing
from ..core.parking import is_real
from ..core.protocols import Inlet, Receiver
from ..core.signals import CANCELLED, GRACE_OVER, FailureMark
from ..core.turn import TURN_SECONDS, Stopwatch
from ..links.link import start_upstream
from ..links.sink import Sink
from ..reports.bottleneck import Wiring
from ..reports.report import Outcome, Report, RunState
from .efforts import Attendance, Efforts
from .parts import AnyStage, Parts

if TYPE_CHECKING:
    from trio_util import AsyncValue

    from ..reports.advice import Setting

T = TypeVar("T")
WATCHED_FOR = 0.005
"""Part of real time that it may cost to note who waits; a run that would cost more is watched now and then."""


def _tell_nobody(_change: str) -> None:
    pass


class Engine:
    """The inside of a run; see `Host` for what its stages use of it."""

    ends_callers = True  # they are its workers, and what these started
    _holding = 0  # tasks that only hold a resource open
    _unused: trio.Event | None = None  # set when those are the last; None while there are none

    def __init__(
        self,
        make: Callable[[Parts], Inlet],
        on_discard: OnDiscard | None,
        cleanup_timeout: float,
        sink: Sink | None,
        open_inner: Callable[[Plan, OnDiscard], Any],
        *,
        is_logged: bool,
    ) -> None:
        self.log: Callable[..., None] = RunLog(self._sources) if is_logged else log_nothing  # is told of what happens
        self.on_change: Callable[[str], None] = (
            _tell_nobody  # is told of each drain, pause, resume and abort that has an effect
        )
        self.ledger: Ledger = Ledger(on_discard)  # what it discarded, and its errors
        self.cleanup_timeout = cleanup_timeout  # seconds in which a source must be closed
        self._clock = trio.lowlevel.current_clock()  # of the trio run that opened it
        self._is_real = is_real(self._clock)
        self.turn_seconds: float = TURN_SECONDS if self._is_real else inf
        """The most seconds of real time between two checkpoints. Without limit under a clock that is not trio's, or one
        seed would not give one trace: a busy machine would cut bursts elsewhere."""
        self.stopwatch: Stopwatch = Stopwatch.of(self._clock.current_time, is_real=self._is_real)  # see `Host`
        self.open_inner = open_inner  # returns the block of a run inside this one
        self.state_times: StateTimes[tuple[int, int]] = StateTimes()  # see `Host`
        self.pause_shift: int = self.state_times.allot(1, lambda: self.paused_since is not None)
        """Where the bit is there that it is paused."""
        self.stages: list[AnyStage] = []  # upstream first
        self.parts: Parts = Parts(self)  # its links, fan-ins, forks and sources
        self.sink = sink  # takes the results if no consumer does; None if one does
        self.inlet: Inlet = make(self.parts)  # what the consumer takes from
        self.outcome: Outcome | None = None  # how it ends; None until that is decided
        self.over: trio.Event = trio.Event()  # set when all tasks have ended and nothing is left to deliver
        self.draining: bool = False  # the sources are to take no more
        self.began: float = 0.0  # when it was opened, by trio's clock
        self.ended: float | None = None  # when its last task had ended; None before
        self.delivered = 0  # values that the consumer took
        self.attendance: Attendance | None = None if sink is not None else Attendance(self.state_times)
        """How long the consumer worked and waited; None if there is none."""
        self.efforts: Efforts = Efforts(self.stages, self.attendance)  # how long each stage worked, without pauses
        self.paused: float = 0.0  # seconds of pauses that are over
        self.paused_since: float | None = None  # when the pause began that is not over; None while not paused
        self.wiring: Wiring | None = None  # how its parts are connected; made when first needed, one for each run
        self.settings: tuple[Setting, ...] | None = None  # what the plan says of its stages, likewise
        self._graph: Graph | None = None  # the same for who waits for whom, likewise
        self.report: Report | None = None  # the final one; made when asked for, after the end
        self._nursery: trio.Nursery | None = None  # of all its tasks; None before it begins
        self._context = contextvars.copy_context()  # of the task that opened it; its tasks begin in a copy
        self._token = trio.lowlevel.current_trio_token()  # of its trio run; its methods are refused in any other
        self._state: AsyncValue[RunState] | None = None  # made when asked for
        self._live = 0  # tasks that have not ended

    # ---- tasks

    def start_task(self, task: Callable[[], Awaitable[object]], name: str) -> None:
        assert self._nursery is not None
        self._live += 1
        # In the opener's context, whichever task causes the start.
        self._context.run(partial(self._nursery.start_soon, self._task, task, name=name))

    def in_its_context(self, call: Callable[[], T]) -> T:
        """Call a function in the context that its tasks begin with: what it sets there, they see."""
        return self._context.run(call)

    async def until_unused(self) -> None:
        """Wait, in a task that only holds a resource open, until no item of the run can use it any more.

        So all other tasks have ended, and the consumer, who may work on the last item, has asked for one more or left.
        """
        self._unused = trio.Event() if self._unused is None else self._unused
        self._holding += 1
        self.look_whether_over()
        try:
            await self._unused.wait()
        finally:
            self._holding -= 1

    def keep(self, error: Exception, name: str) -> None:
        """Keep an error that a call of a step raised while it was cancelled."""
        note = f"then cleanup in step {named(name)} raised {told(error)}"
        self.ledger.keep(error, note if is_caused_by_cancelling(error) else None)

    def has_task(self, task: trio.lowlevel.Task) -> bool:
        """Whether a task is one of the run's own, or was started by one."""
        nursery = task.parent_nursery
        while nursery is not None and nursery is not self._nursery:
            nursery = nursery.parent_task.parent_nursery
        return nursery is not None

    def register(self, stage: AnyStage) -> None:
        self.stages.append(stage)

    def _sources(self) -> str:
        """Return the names of its sources, for the log."""
        return listed(stage.name for stage in self.stages if stage.kind == "source")

    # Ctrl-C is raised at checkpoints here, and in user code (see where `disable_ki_protection` stands), but never
    # between two steps of a link or a pool: half of one would lose items, or wake a task that is not parked.
    @trio.lowlevel.enable_ki_protection
    async def _task(self, task: Callable[[], Awaitable[object]]) -> None:
        try:
            await task()
        finally:
            self._live -= 1
            self.look_whether_over()

    # ---- beginning and ending

    def begin(self, nursery: trio.Nursery, receiver: Receiver) -> None:
        """Start the tasks."""
        self._nursery = nursery
        self.ledger.kill = nursery.cancel_scope.cancel
        self.began = trio.current_time()
        share = WATCHED_FOR if self._is_real else inf
        self.state_times.begin(self.began, lambda state: waits_in(self.graph(), state), share, self.stopwatch.ahead)
        self.log(INFO, "begins; stages: %d", len(self.stages))
        if self.attendance is not None:
            self.attendance.began = self.began
            self.inlet.receiver = receiver
            self.inlet.start()
        elif self.sink is not None:
            start_upstream(self.sink.sender)

    def is_elsewhere(self) -> bool:
        """Whether this is another thread, or another trio run, and something can still change."""
        return self.ended is None and not self._is_here()

    def check_thread(self, method: str) -> None:
        """Refuse a call from another thread, or another trio run, before anything has changed."""
        if self.is_elsewhere():
            raise StateError(
                f"Run.{method}: must be called in the trio run that opened the run, and in its thread\n"
                f"Use trio.from_thread.run_sync(run.{method}) from another thread."
            )

    def look(self, read: Callable[[], T]) -> T:
        """Call a function that only reads, in the thread of the run, between two steps of its tasks, or within one.

        Another thread waits for that. When the run is over nothing changes any more, so it is called right here.
        """
        if self.ended is not None or self._is_here():
            return read()
        answers: list[outcome.Outcome[T]] = []
        done = threading.Event()

        def answer() -> None:
            answers.append(outcome.capture(read))
            done.set()

        try:
            self._token.run_sync_soon(answer)
        except trio.RunFinishedError:
            return read()
        done.wait()
        return answers[0].unwrap()

    def now(self) -> float:
        """Return the time by the clock of the run; also when its trio run is over."""
        return self._clock.current_time() if self.ended is None else self.ended

    def _is_here(self) -> bool:
        """Whether this is the trio run that opened the run, in its thread."""
        try:
            return trio.lowlevel.current_trio_token() is self._token
        except RuntimeError:
            return False

    def graph(self) -> Graph:
        """Return how its parts are connected, for who waits for whom."""
        if self._graph is None:
            from .neighbours import graph_of  # when it is asked for: a short run is not

            self._graph = graph_of(self)
        return self._graph

    # ---- its state

    def state(self) -> AsyncValue[RunState]:
        """Return its state, as a value whose changes can be awaited."""
        if self._state is None:
            from trio_util import AsyncValue  # 3 ms, and few runs are watched

            self._state = AsyncValue(self._state_now())
        return self._state

    def _state_now(self) -> RunState:
        if self.over.is_set() and self.outcome is not None:
            return self.outcome
        if self.draining:
            return "draining"
        return "running" if self.paused_since is None else "paused"

    def _changed(self) -> None:
        if self._state is None:
            return
        try:
            self._state.value = self._state_now()
        except Exception as error:  # of a predicate that a task waits with: it is asked right here
            self.ledger.keep(error)

    # ---- pausing, draining, ending

    def drain(self) -> None:
        """Let the sources take no more."""
        if not self.draining and self.outcome is None:
            self.draining = True
            self.log(INFO, "drains")
            self.on_change("drain")
            for stage in self.stages:
                stage.on_drain()
            for part in (*self.parts.sources, *self.parts.fan_ins):
                part.drain()
            self._changed()

    def pause(self) -> None:
        """Let the sources take nothing until `resume`."""
        if self.paused_since is None and not self.draining and self.outcome is None:
            self.on_change("pause")
            self.paused_since = trio.current_time()
            self.efforts.pause(self.paused_since)
            self.state_times.change(self.paused_since, 1 << self.pause_shift)
            for part in (*self.parts.sources, *self.parts.fan_ins):
                part.pause()
            for stage in self.stages:
                stage.on_pause()
            self.log(DEBUG, "pauses")
            self._changed()

    def resume(self) -> None:
        """Let the sources go on."""
        if self.paused_since is not None:
            self.log(DEBUG, "goes on")
            self.on_change("resume")
            self._end_pause()

    def _end_pause(self) -> None:
        if self.paused_since is not None:
            now = trio.current_time()
            self.paused += now - self.paused_since
            self.paused_since = None
            self.efforts.resume(now)
            self.state_times.change(now, -(1 << self.pause_shift))
            for part in (*self.parts.sources, *self.parts.fan_ins):
                part.resume()
            for stage in self.stages:
                stage.on_resume()
            self._changed()

    def stop(self, reason: str, outcome: Outcome) -> None:
        """Stop at once, unless it has ended."""
        if self.outcome is None and not (self.sink is not None and self.sink.ended):
            self.outcome = outcome
            if reason == GRACE_OVER:
                self.log(WARNING, "is not drained within its grace period, and stops; what is under way is discarded")
            elif outcome == "aborted":
                self.log(INFO, "is aborted")
                self.on_change("abort")
            self._let_consumer_go()
            (self.inlet if self.sink is None else self.sink).close(reason)
        self.look_whether_over()

    def reached(self, failure: FailureMark | None) -> None:
        """Called when the consumer, or the sink, has reached the end."""
        self._let_consumer_go()
        if failure is None:
            self.outcome = "drained" if self.draining else "completed"
        elif failure.stopped is not None:
            self.outcome = "cancelled"
        else:
            self.outcome = "failed"
            self.ledger.read(failure)
        self.look_whether_over()

    def _let_consumer_go(self) -> None:
        if self.attendance is not None:  # what it does from now on holds nothing up
            self.attendance.leave(trio.current_time())

    def look_whether_over(self) -> None:
        """Set `over` if nothing runs and nothing is left to deliver."""
        if self._live == self._holding and (self.sink is not None or self.outcome is not None):
            if self._live and self._unused is not None:
                self._unused.set()
            else:
                self.over.set()
                self._changed()

    def finish(self, *, cancelled: bool) -> None:
        """Decide the outcome: all tasks have ended."""
        for link in self.parts.links:  # they are empty, unless a task was killed between two of its steps
            link.close(CANCELLED)
        self._end_pause()
        self.ended = trio.current_time()
        if self.sink is not None and self.outcome is None and not cancelled:
            self.reached(self.sink.failure)
        elif self.sink is not None and self.sink.failure is not None:  # nobody will read it
            self.ledger.unread(self.sink.failure, CANCELLED)
        if cancelled and self.outcome in (None, "left"):
            self.outcome = "cancelled"
        self.over.set()
        self._changed()
        self._log_end()

    def _log_end(self) -> None:
        delivered = self.delivered if self.sink is None else self.sink.passed
        error = "" if self.ledger.error is None else f", after a {type_name(self.ledger.error)}"
        elapsed = self.now() - self.began
        counts = delivered, self.ledger.discarded
        self.log(INFO, "%s after %.3f s%s; %d delivered, %d discarded", self.outcome or "left", elapsed, error, *counts)
