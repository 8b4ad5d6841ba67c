"""The handle of a run: how does a consumer take items, and what does it get at the end?

`receive` never owns an item across a checkpoint: it looks, takes and returns in one turn, or parks and looks again. So
it is atomic under cancellation for any inlet, and a merge's choice is made at the instant of hand-over. Waiting
receivers are woken one at a time, and each wakes the next if there is more; at the end all are woken.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from fractions import Fraction
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakSet

import trio

from ..._base import checks
from ..._base.errors import Aborted, StateError
from ..._plan.nodes import Plan
from ..core.parking import WOKEN
from ..core.protocols import worth_a_pull
from ..core.signals import ABORTED, END, ENDED, GRACE_OVER, NOT_NEEDED, PENDING
from ..core.turn import Turn
from ..reports.report import Report, RunState, RunStatistics
from .engine import Engine
from .settings import set_concurrency, set_weight
from .statistics import report_of, statistics_of

if TYPE_CHECKING:
    from trio_util import AsyncValue

T = TypeVar("T")


class Consumer:
    """The receiving end of a run: the tasks that wait there, and what stands at the end."""

    def __init__(self, engine: Engine, plan: Plan) -> None:
        self.engine = engine  # the run
        self.plan = plan  # of the run, as the user wrote it
        self.left: bool = False  # the block was left or the run closed: nothing more is taken
        self._items: Iterator[Any] | None = None  # of the run's inlet; None before the first is taken
        self._waiting: deque[trio.lowlevel.Task] = deque()  # parked receivers, longest first
        self._waits = 0  # calls of `wait`; a task that was woken is in one until it runs
        self._now = trio.lowlevel.current_clock().current_time  # half the time of `trio.current_time`
        self.take: Callable[[], Any] = self._take  # see there; replaced where a run is watched
        self._failed: tuple[Exception, TracebackType | None] | None = None
        """The failure at the end and its traceback when it was reached, to be raised again; None without one."""

    def on_input(self) -> None:
        if self._waiting and worth_a_pull(self.engine.inlet):
            trio.lowlevel.reschedule(self._waiting.popleft(), WOKEN)

    def _take(self) -> Any:
        """Return an item if there is one now, else `PENDING`; raise what stands at the end."""
        engine = self.engine
        if self.left:
            raise trio.ClosedResourceError("the block of this run was left")
        if engine.sink is not None:
            raise trio.BusyResourceError("pipeline.run() takes the items of this run")
        if engine.outcome is not None:
            self._raise_end()
        if self._items is None:
            self._items = engine.inlet.items()
        item = next(self._items, END)
        if item is END:
            self._reach_end()
        if item is not PENDING:
            engine.delivered += 1
            engine.inlet.release()
            if self._waiting:
                self.on_input()
        return item

    def _reach_end(self) -> None:
        if not self.engine.inlet.exhausted:  # killed in the middle of a pull: this is not the end of the stream
            self.engine.stop(ABORTED, "aborted")
            self._raise_end()
        failure = self.engine.inlet.failure
        if failure is not None and failure.stopped is None:
            self._failed = failure.error, failure.error.__traceback__
        self.engine.reached(failure)
        self.wake_all()
        self._raise_end()

    def _raise_end(self) -> None:
        if self._failed is not None:
            error, traceback = self._failed
            raise error.with_traceback(traceback)  # not the one that grew with each raise
        if self.engine.outcome in ("completed", "drained"):
            raise trio.EndOfChannel
        raise Aborted(f"the run was {self.engine.outcome}")

    async def wait(self) -> None:
        """Park until a pull may find more; not if a user's function has ended the run in this turn."""
        if self.left or self.engine.outcome is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        task = trio.lowlevel.current_task()
        self._waiting.append(task)
        attendance = self.engine.attendance
        assert attendance is not None  # without one a sink takes the items, and nothing calls this
        if not self._waits:
            attendance.wait(self._now())
        self._waits += 1

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self.engine.inlet.release(parking=True)
        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            self._waits -= 1
            if not self._waits:  # no receiver waits any more
                attendance.go_on(self._now())

    def wants_input(self) -> bool:
        """Whether a task waits for an item."""
        return bool(self._waiting)

    @property
    def is_waited_for(self) -> bool:
        """Whether a task waits for an item."""
        return bool(self._waiting)

    def wake_all(self) -> None:
        """Wake every waiting receiver."""
        while self._waiting:
            trio.lowlevel.reschedule(self._waiting.popleft(), WOKEN)

    def leave(self, reason: str) -> None:
        """Close the receiving end: no task takes any more."""
        if not self.left:
            self.left = True
            engine = self.engine
            at_end = engine.sink is None and engine.inlet.state() is ENDED and not engine.draining
            engine.stop(reason, "completed" if at_end else "left")
            self.wake_all()


class Run(trio.abc.ReceiveChannel[T], Generic[T]):
    """A run at work: receive from it, drain it, abort it, look at it.

    Made by ``pipeline.open()``; every item of the stream is received by exactly one `receive`, or accounted for in the
    report. Several tasks may receive.
    """

    __slots__ = ("_consumer", "_engine", "_iterated_by", "_turn")

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer  # takes and waits
        self._engine = consumer.engine  # is drained, paused, stopped and reported on
        self._turn = Turn(self._engine.turn_seconds)  # of an `async for`: items that it may take without a checkpoint
        self._turn.end()  # the first one comes with a checkpoint
        # Tasks that iterated it, to refuse a drain that would wait for itself; a run may outlive any number of them.
        self._iterated_by: WeakSet[trio.lowlevel.Task] = WeakSet()

    def __aiter__(self) -> Run[T]:
        self._iterated_by.add(trio.lowlevel.current_task())
        return self

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> T:
        """Take the next item.

        An item is either received or still in the run: when this is cancelled, nothing was taken.

        Raises:
          trio.EndOfChannel: if the stream has ended (or was drained).
          Aborted: if the run was aborted, or cancelled from outside.
          trio.ClosedResourceError: if the block of the run was left.
          trio.BusyResourceError: if ``pipeline.run()`` drives this run.
          Exception: the original error of the stream, when all items before it were received; again at each later call.

        Checkpoint: always.
        Cancellation: atomic.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        try:
            while (item := self._consumer.take()) is PENDING:
                waited = True
                await self._consumer.wait()
        except Aborted:
            # The cancellation that stopped the tasks may be the caller's own: then this raises Cancelled, as it must.
            await trio.lowlevel.checkpoint()  # noqa: ASYNC120
            raise
        finally:
            if not waited:
                await trio.lowlevel.cancel_shielded_checkpoint()  # noqa: ASYNC102  # shielded, and short
        return item  # type: ignore[no-any-return]  # items are opaque; the plan gave them their type

    @trio.lowlevel.enable_ki_protection
    async def __anext__(self) -> T:
        """Take the next item; a checkpoint at least once in 64 items or 10 ms."""
        # A checkpoint at each item would cost 4 us per item.
        turn = self._turn
        if not turn.is_over():
            turn.left -= 1
            take, wait = self._consumer.take, self._consumer.wait
            try:
                while (item := take()) is PENDING:
                    # Not `receive`, which would ask once more: 5 % of the time of an item that is waited for.
                    await wait()
                    turn.begin()
                    turn.left -= 1
                return item  # type: ignore[no-any-return]  # as in `receive`
            except (trio.EndOfChannel, Aborted):
                pass  # `receive` raises it again, with a checkpoint
        try:
            item = await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        turn.begin()
        turn.left -= 1
        return item

    async def aclose(self) -> None:
        """Stop taking, as leaving the block does; afterwards `receive` raises `trio.ClosedResourceError`.

        Checkpoint: always.
        Cancellation: the run is closed nevertheless.
        """
        self._consumer.leave(NOT_NEEDED)
        await trio.lowlevel.checkpoint()

    async def drain(self, grace: float = math.inf) -> None:
        """Take no more from the sources, and return when all that was taken is delivered and the run has ended.

        Call it from another task than the consumer's, which must go on receiving; in the consumer's own task use
        `drain_nowait`.

        Args:
          grace: seconds >= 0 to wait; then what is left is discarded with the reason ``grace period over``.

        Raises:
          TypeError: if `grace` is not a number.
          ValueError: if it is below 0 or NaN.
          StateError: if it would wait for the task that calls it, without a `grace` to end that: the only task that
            iterates the run, or one of the run's own.

        Checkpoint: always.
        Cancellation: the run goes on draining.
        """
        grace = checks.seconds("Run.drain", "grace", grace, positive=False, finite=False)
        self._engine.check_thread("drain")
        for _ in range(2):  # then a task that was started to take the rest has begun, whatever the order of tasks
            await trio.lowlevel.checkpoint()
        self._refuse_to_wait_for(trio.lowlevel.current_task(), grace)
        self.drain_nowait()
        with trio.move_on_after(grace):
            await self._engine.over.wait()
        if not self._engine.over.is_set():
            self._engine.stop(GRACE_OVER, "drained")
            self._consumer.wake_all()
            await self._engine.over.wait()

    def _refuse_to_wait_for(self, task: trio.lowlevel.Task, grace: float) -> None:
        """Refuse to wait without end for the task that waits."""
        if grace < math.inf or self._engine.over.is_set():
            return
        is_alone = not self._consumer.is_waited_for and all(each is task for each in self._iterated_by)
        is_consumer = is_alone and task in self._iterated_by
        if is_consumer or self._engine.has_task(task):
            who = "the task that takes its items" if is_consumer else "a function of this run"
            raise StateError(f"Run.drain: {who} cannot wait for the end of the run\nUse drain_nowait(), and go on.")

    def drain_nowait(self) -> None:
        """Take no more from the sources: what was taken is delivered, then the stream ends. Sync and idempotent."""
        self._engine.check_thread("drain_nowait")
        self._engine.drain()

    def abort(self) -> None:
        """Stop at once and discard what is in flight; the next `receive` raises `Aborted`. Sync and idempotent."""
        self._engine.check_thread("abort")
        self._engine.stop(ABORTED, "aborted")
        self._consumer.wake_all()

    def pause(self) -> None:
        """Let the sources take nothing until `resume`; what was taken goes on, and so do timers and calls.

        An item that a source was waiting for may still come, and a pipeline inside an item of a `flat_map` goes on.
        Draining, aborting and leaving work as always. Sync and idempotent.
        """
        self._engine.check_thread("pause")
        self._engine.pause()

    def resume(self) -> None:
        """Let the sources go on; does nothing if the run is not paused. Sync."""
        self._engine.check_thread("resume")
        self._engine.resume()

    def set_weight(self, key: Hashable, weight: int | Fraction, *, merge: str | None = None) -> None:
        """Change the weight of an input of a merge, or of a key of a `fair_by`, from the next hand-over on. Sync.

        Args:
          key: which input, or which key (also one that no item had yet).
          weight: an int or Fraction > 0; only the ratios of weights matter.
          merge: the name of the merge or fair_by; needed where several could have an input of that name.

        Raises:
          KeyError: if there is no such merge, or no such input.
          TypeError: if `weight` is not an int or Fraction.
          ValueError: if `weight` is not positive, or several could have such an input.
        """
        self._engine.check_thread("set_weight")
        set_weight(self._engine, key, weight, merge)

    def set_concurrency(self, stage: str, concurrency: int) -> None:
        """Let a stage make more, or fewer, calls at once, from now on; calls that run go on. Sync.

        Then the bound of the items in flight is that of a plan with this number. It is refused for a stage whose
        concurrency is an `Adaptive`, which chooses the number: nobody else may, and none above its maximum.

        Args:
          stage: the name of a stage that makes calls (`map` of an async function or a step, say).
          concurrency: an int >= 1.

        Raises:
          KeyError: if no stage of that name makes calls.
          TypeError: if `concurrency` is not an int.
          ValueError: if it is below 1, or above 1 for a stage that works on the latest item only; or if an `Adaptive`
            chooses it.
        """
        self._engine.check_thread("set_concurrency")
        set_concurrency(self._engine, stage, concurrency)

    def statistics(self) -> RunStatistics:
        """Return how far the run is, and what became of every item. Sync; from any task, and from any thread.

        The numbers of one snapshot belong together. Another thread waits until the event loop of the run gets to it (do
        not let the loop wait for that thread meanwhile); when that is over, there is nothing to wait for.

        Totals of a run that goes on for days say little about now: ``later.since(earlier)`` of two snapshots says what
        happened between them, which stages were busy then and what was the limit.
        """
        return self._engine.look(partial(statistics_of, self._engine))

    @property
    def state(self) -> AsyncValue[RunState]:
        """The state of the run, whose changes can be awaited: ``await run.state.wait_value("drained")``.

        ``running``, ``paused``, ``draining``; when all its tasks have ended and nothing is left to deliver, its outcome
        (see `Report.outcome`). It is read-only, a `trio_util.AsyncValue`.
        """
        return self._engine.state()

    @property
    def report(self) -> Report:
        """What became of the run: final once its block was left; before that, as if it were left now.

        It may be read from any thread, as `statistics`.
        """
        engine = self._engine
        if engine.ended is None:
            return engine.look(partial(report_of, engine))
        if engine.report is None:  # made when it is asked for: it would be a tenth of the cost of a short run
            engine.report = report_of(engine)
        return engine.report


def is_elsewhere(run: Run[Any]) -> bool:
    """Whether this is another thread, or another trio run, than that of a run that is not over."""
    return run._engine.is_elsewhere()


def plan_of_run(run: Run[Any]) -> Plan:
    """Return the plan of a run, for the parts of this package that show it."""
    return run._consumer.plan
