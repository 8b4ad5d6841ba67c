"""One run of a plan: who owns its tasks, how does it end, and what does the caller get?

All tasks live in one nursery, opened and left by the task that opened the run. Every way to stop is one call: the last
inlet is closed, and that discards, cancels and closes everything upstream at once, from there to the sources.

  the source ended   items and the end travel down by themselves
  a failure          travels behind the items before it; the taker that reaches it raises it
  drain              the sources take no more; everything else as if they had ended
  abort, leaving     the last inlet is closed
  cancellation       reaches each task by itself; each discards what it holds, and ends its outlet as aborted

The nursery's scope is never cancelled by the run: the caller's block is inside it.
"""

from __future__ import annotations

import contextvars
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Any, Generic, TypeVar

import trio

from .._errors import Aborted
from ..plan.check import claim_sources
from ..plan.layout import lay_out
from ..plan.nodes import Plan
from .build import Machinery, build
from .inlet import ABORTED, CANCELLED, GRACE_OVER, NOT_NEEDED, NOTHING, Inlet, worth_a_pull
from .ledger import Ledger, OnDiscard
from .report import Outcome, Report, RunStatistics
from .sink import Sink
from .stage import BURST, SLICE, Stage
from .tally import tally

__all__ = ["Opening", "Run"]

T = TypeVar("T")
_END = object()


class Run(trio.abc.ReceiveChannel[T], Generic[T]):
    """A run at work: receive from it, drain it, abort it, look at it.

    Made by ``pipeline.open()``; every item of the stream is received by exactly one `receive`, or accounted for in the
    report.
    """

    def __init__(self, plan: Plan, on_discard: OnDiscard | None, cleanup_timeout: float, sink: Sink | None) -> None:
        self.ledger = Ledger(on_discard)
        self.cleanup_timeout = cleanup_timeout
        self.stages: list[Stage] = []
        self.machinery = Machinery(self)
        self.sink = sink
        self._inlet: Inlet = build(lay_out(plan), self.machinery, sink)
        self._items: Iterator[Any] = iter(())
        self._nursery: trio.Nursery | None = None
        self._context = contextvars.copy_context()
        self._live = 0  # tasks
        self._over = trio.Event()
        self._waiting: deque[trio.lowlevel.Task] = deque()
        self._budget = 0
        self._slice_end = 0.0
        self._outcome: Outcome | None = None
        self._raised: tuple[Exception, TracebackType | None] | None = None
        self._draining = False
        self._left = False
        self.began = self.ended_at = 0.0
        self.waited = 0.0
        self.delivered = 0
        self._report: Report | None = None

    # ---- what the stages call (see `Host`)

    def start_task(self, task: Callable[[], Awaitable[object]], name: str) -> None:
        assert self._nursery is not None
        self._live += 1
        # In the opener's context, whoever causes the start.
        self._context.run(partial(self._nursery.start_soon, self._task, task, name=name))

    def register(self, stage: Stage) -> None:
        self.stages.append(stage)

    async def _task(self, task: Callable[[], Awaitable[object]]) -> None:
        try:
            await task()
        finally:
            self._live -= 1
            self._look_whether_over()

    def on_input(self) -> None:
        """Hear that a pull may find more: one waiting receiver looks (and passes it on)."""
        if self._waiting and worth_a_pull(self._inlet):
            trio.lowlevel.reschedule(self._waiting.popleft())

    def _look_whether_over(self) -> None:
        stopped = self.sink is not None or self._inlet.exhausted or self._outcome is not None
        if stopped and not self._live:
            self._over.set()

    # ---- receiving

    @trio.lowlevel.enable_ki_protection
    async def receive(self) -> T:
        """Take the next item.

        An item is either received or still in the run, never neither: when this is cancelled, nothing was taken.

        Raises:
          trio.EndOfChannel: if the stream has ended (or was drained).
          Aborted: if the run was aborted.
          trio.ClosedResourceError: if the block of the run was left.
          trio.BusyResourceError: if ``pipeline.run()`` drives this run.
          Exception: the original error of the stream, when all before it was received; again at each later call.

        Checkpoint: always.
        Cancellation: atomic.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        item = self._take()
        if item is not NOTHING:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return item  # type: ignore[no-any-return]  # items are opaque; the plan gave them their type
        while True:
            await self._wait()
            item = self._take()
            if item is not NOTHING:
                return item  # type: ignore[no-any-return]

    async def __anext__(self) -> T:
        """Take the next item; a checkpoint at least once in 64 items or 10 ms."""
        # 4 us less an item than a checkpoint at each (benchmarks: hop).
        if self._budget > 0 and perf_counter() < self._slice_end:
            self._budget -= 1
            try:
                item = self._take()
            except trio.EndOfChannel:
                await trio.lowlevel.checkpoint()
                raise StopAsyncIteration from None
            if item is not NOTHING:
                return item  # type: ignore[no-any-return]
        try:
            item = await self.receive()
        except trio.EndOfChannel:
            raise StopAsyncIteration from None
        self._budget, self._slice_end = BURST - 1, perf_counter() + SLICE
        return item

    def _take(self) -> Any:
        """Take an item if there is one now; raise what stands at the end."""
        if self._left:
            raise trio.ClosedResourceError
        if self.sink is not None:
            raise trio.BusyResourceError("pipeline.run() takes the items of this run")
        if self._outcome is not None or self._raised is not None:
            self._raise_end()
        item = next(self._items, _END)
        if item is _END:
            self._reached_end()
            self._raise_end()
        if item is not NOTHING:
            self.delivered += 1
            self._inlet.release()
            if self._waiting:
                self.on_input()
        return item

    def _reached_end(self) -> None:
        failure = self._inlet.failure
        if failure is not None:
            self._raised = failure.error, failure.error.__traceback__
            self.ledger.read(failure)
            self._outcome = "cancelled" if isinstance(failure.error, Aborted) else "failed"
        else:
            self._outcome = "drained" if self._draining else "completed"
        self._wake_all()
        self._look_whether_over()

    def _raise_end(self) -> None:
        if self._outcome == "aborted":
            raise Aborted("the run was aborted")
        if self._raised is None:
            raise trio.EndOfChannel
        error, traceback = self._raised
        raise error.with_traceback(traceback)  # not the one grown by earlier raises

    async def _wait(self) -> None:
        task = trio.lowlevel.current_task()
        self._waiting.append(task)
        since = trio.current_time()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            self._waiting.remove(task)
            return trio.lowlevel.Abort.SUCCEEDED

        self._inlet.release(parking=True)
        try:
            await trio.lowlevel.wait_task_rescheduled(abort)
        finally:
            self.waited += trio.current_time() - since

    def _wake_all(self) -> None:
        while self._waiting:
            trio.lowlevel.reschedule(self._waiting.popleft())

    # ---- ending

    async def drain(self, grace: float = math.inf) -> None:
        """Take no more from the sources, and return when all that was taken is delivered and the run has ended.

        Call it from another task than the consumer's, which must go on receiving; in the consumer's own task use
        `drain_nowait`.

        Args:
          grace: seconds to wait; then what is left is discarded with the reason ``grace period over``.

        Checkpoint: always.
        Cancellation: the run goes on draining.
        """
        await trio.lowlevel.checkpoint()
        self.drain_nowait()
        with trio.move_on_after(grace):
            await self._over.wait()
        if not self._over.is_set():
            self._stop(GRACE_OVER, "drained")
            await self._over.wait()

    def drain_nowait(self) -> None:
        """Take no more from the sources: what was taken is delivered, then the stream ends. Sync; harmless twice."""
        if not self._draining and self._outcome is None:
            self._draining = True
            for source in self.machinery.sources:
                source.drain()

    def abort(self) -> None:
        """Stop at once and discard what is in flight; the next `receive` raises `Aborted`. Sync; harmless twice."""
        self._stop(ABORTED, "aborted")

    async def aclose(self) -> None:
        """Stop taking, as leaving the block does; `receive` raises `trio.ClosedResourceError` afterwards."""
        self._leave()
        await trio.lowlevel.checkpoint()

    def _leave(self, reason: str = NOT_NEEDED) -> None:
        if not self._left:
            self._left = True
            ended = self.sink is None and self._inlet.state().name == "ENDED"
            self._stop(
                reason, "completed" if ended and not self._draining else "cancelled" if reason == CANCELLED else "left"
            )

    def _stop(self, reason: str, outcome: Outcome) -> None:
        if self._outcome is None:
            if self.sink is not None and self.sink.ended:
                return
            self._outcome = outcome
            (self._inlet if self.sink is None else self.sink).close(reason)
        self._wake_all()
        self._look_whether_over()

    # ---- looking

    def statistics(self) -> RunStatistics:
        """Say how far the run is, and what becomes of every item. Sync."""
        return tally(self)

    @property
    def report(self) -> Report:
        """What became of the run: complete once its block was left."""
        return self._report or self._make_report("left")

    def _make_report(self, default: Outcome) -> Report:
        counts = tally(self)
        fields = {name: getattr(counts, name) for name in RunStatistics.__slots__}
        return Report(
            **fields,
            outcome=self._outcome or default,
            error=self.ledger.error,
            cleanup_errors=tuple(self.ledger.cleanup_errors),
        )

    # ---- the block

    def begin(self, nursery: trio.Nursery) -> None:
        """Start the tasks."""
        self._nursery = nursery
        self.began = trio.current_time()
        if self.sink is None:
            self._inlet.receiver = self
            self._items = self._inlet.items()
            self._inlet.start()
        else:
            self.sink.sender.start()

    def finish(self, cancelled: bool) -> None:
        """Close the books: all tasks have ended."""
        for link in self.machinery.links:  # nothing is here, unless a task was killed between two of its steps
            link.close(CANCELLED)
        self.ended_at = trio.current_time()
        if self.sink is not None and self._outcome is None:
            failure = self.sink.failure
            if failure is None:
                self._outcome = "drained" if self._draining else "completed"
            elif isinstance(failure.error, Aborted):
                self._outcome = "cancelled"
            else:
                self._outcome = "failed"
                self.ledger.read(failure)
        if cancelled and self._outcome in (None, "left"):
            self._outcome = "cancelled"
        self._report = self._make_report("cancelled" if cancelled else "left")
        self._over.set()


class Opening(Generic[T]):
    """The block of a run: it opens the nursery, and leaves it when all tasks have ended."""

    def __init__(
        self, plan: Plan, *, on_discard: OnDiscard | None, cleanup_timeout: float, sink: Sink | None = None
    ) -> None:
        self._plan = plan
        self._on_discard = on_discard
        self._cleanup_timeout = cleanup_timeout
        self._sink = sink
        self._manager: Any = None
        self._run: Run[T] | None = None

    async def __aenter__(self) -> Run[T]:
        await trio.lowlevel.checkpoint()
        claim_sources(self._plan)
        run = self._run = Run(self._plan, self._on_discard, self._cleanup_timeout, self._sink)
        self._manager = trio.open_nursery()
        run.begin(await self._manager.__aenter__())
        return run

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        run = self._run
        assert run is not None
        if run.sink is None or error is not None:
            run._leave(CANCELLED if isinstance(error, trio.Cancelled) else NOT_NEEDED)
        from_tasks: BaseException | None = None
        try:
            await self._manager.__aexit__(None, None, None)  # without the block's error: that passes by itself
        except BaseException as met:
            from_tasks = met
        cancelled, fatal = _sort(from_tasks, run.ledger)
        run.finish(cancelled is not None or isinstance(error, trio.Cancelled))
        if fatal is not None:
            raise fatal
        if error is None and cancelled is not None:
            raise cancelled
        return False


def _sort(error: BaseException | None, ledger: Ledger) -> tuple[BaseException | None, BaseException | None]:
    """Sort what the tasks raised: a cancellation, and what must end the program (KeyboardInterrupt and its like).

    Errors that user code raised while it was cancelled come in one group with that; they are errors of cleanup.
    """
    leaves = list(_leaves(error))
    cancelled = next((leaf for leaf in leaves if isinstance(leaf, trio.Cancelled)), None)
    others = [leaf for leaf in leaves if not isinstance(leaf, trio.Cancelled)]
    fatal = [leaf for leaf in others if not isinstance(leaf, Exception)]
    errors = [leaf for leaf in others if isinstance(leaf, Exception)]
    if errors and cancelled is None and not fatal:
        return None, error  # a defect of this package: show it as it is
    ledger.cleanup_errors.extend(errors)
    if len(fatal) > 1 and not any(isinstance(leaf, KeyboardInterrupt | SystemExit) for leaf in fatal):
        return cancelled, BaseExceptionGroup("several tasks were killed", fatal)
    first = next((leaf for leaf in fatal if isinstance(leaf, KeyboardInterrupt | SystemExit)), None)
    return cancelled, first or (fatal[0] if fatal else None)


def _leaves(error: BaseException | None) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    elif error is not None:
        yield error
