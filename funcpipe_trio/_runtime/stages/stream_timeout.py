"""The stage of a timeout on the stream: what watches the clock while nothing comes, and where does the failure stand?

The watchdog (`_sansio.watchdog`) is asked at the start of each burst, before anything is pulled: what comes exactly at
a deadline comes too late. An item is late if it *came* late, not if the event loop was late to run this stage.

When a time is over, everything upstream is stopped at once, and the error leaves through the chain, behind what came
before it, as the error of a user's function does; if there is no room, it leaves when there is.
"""

from __future__ import annotations

import trio

from ..._plan import timing as plan
from ..._sansio.watchdog import Watchdog
from ..core.failures import noted
from ..core.protocols import worth_a_pull
from ..core.signals import BEHIND_FAILURE, NOT_NEEDED, FailureMark
from ..operations.stream_timeout import StreamTimeoutOp
from .chain import STARVED, BurstEnd, Chain, Ends
from .stage import Stage


class StreamTimeoutStage(Stage):
    """A stage that passes items on, and fails when they do not come in time."""

    def __init__(self, ends: Ends, operation: plan.Watched) -> None:
        self._watching = StreamTimeoutOp(operation)  # the first operation of the chain: sees items, raises the error
        self._dog = _watchdog_of(operation)  # decides whether a time is over
        self._came: float | None = None  # when the input that woke it came; None once that was looked at
        self._timer = trio.CancelScope()  # around the wait for input: ends it at the deadline
        super().__init__(Chain(ends._replace(operations=[self._watching, *ends.operations])))

    def on_input(self) -> None:
        if self.parked_for is STARVED and worth_a_pull(self.chain.inlet):
            self._came = self.chain.now()
            self.wake()

    async def work(self) -> None:
        self._dog.begin(self.chain.began)
        await super().work()

    def burst(self, room: int) -> BurstEnd:
        self._look()
        end = super().burst(room)
        if self._watching.heard:
            self._watching.heard = False
            self._dog.heard(self.chain.now())
        return end

    def _look(self) -> None:
        """Stop what is upstream, and have the error raised, if a time is over."""
        now, self._came = self.chain.now() if self._came is None else self._came, None
        overdue = self._dog.overdue(now)
        if overdue is not None and self.chain.stopped is None:
            self._watching.overdue = overdue
            self.chain.inlet.close(BEHIND_FAILURE)

    def leave(self) -> None:
        if self._watching.overdue is not None and not self._watching.has_failed:  # the stream ended before that place
            failure = FailureMark(noted(self._watching.error(), self._watching.name, None), self.chain)
            self.chain.host.ledger.unread(failure, self.chain.stopped or NOT_NEEDED)
            self._watching.has_failed = True
        super().leave()

    async def wait_input(self) -> None:
        with trio.CancelScope(deadline=self._dog.deadline) as self._timer:
            await super().wait_input()

    def on_pause(self) -> None:
        self._dog.pause()
        self._timer.deadline = self._dog.deadline

    def on_resume(self) -> None:
        self._dog.go_on(self.chain.now())
        self._timer.deadline = self._dog.deadline

    async def wait_room(self) -> None:
        with trio.move_on_at(self._dog.whole_at):
            await super().wait_room()
        self._dog.resumed(self.chain.now())
        self._look()


def _watchdog_of(operation: plan.Watched) -> Watchdog:
    if isinstance(operation, plan.IdleTimeout):
        return Watchdog(idle=operation.seconds)
    assert isinstance(operation, plan.Timeout)
    return Watchdog(
        whole=float("inf") if operation.seconds is None else operation.seconds,
        first=float("inf") if operation.first is None else operation.first,
    )
