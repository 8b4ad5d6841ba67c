"""The stage of a timeout on the stream: what watches the clock while nothing comes?

The watchdog (`_sansio.watchdog`) is asked at the start of each burst, before anything is pulled: what comes exactly at
a deadline comes too late. An item is late if it *came* late, not if the event loop was late to run this stage.

When a time is over, the stream fails (`idle_timeout`, `timeout`) or ends (`take_for`), see `gated`.
"""

from __future__ import annotations

from math import inf

import trio

from ..._base.shown import named
from ..._plan import timing as plan
from ..._sansio.watchdog import Watchdog
from ..core.failures import add_note
from ..core.protocols import worth_a_pull
from ..operations.gate import Gate
from .chain import STARVED, BurstEnd, Ends
from .gated import GatedStage


class StreamTimeoutStage(GatedStage):
    """A stage that passes items on, and shuts its gate when a time is over."""

    def __init__(self, ends: Ends, operation: plan.Watched, gate: type[Gate] = Gate) -> None:
        super().__init__(ends, operation, gate)
        self._dog = _watchdog_of(operation)  # decides whether a time is over
        self._fails = not isinstance(operation, plan.TakeFor)  # then; otherwise the stream ends
        self._came: float | None = None  # when the input that woke it came; None once that was looked at
        self._timer = trio.CancelScope()  # around the wait for input: ends it at the deadline

    def on_input(self) -> None:
        if self.parked_for is STARVED and worth_a_pull(self.chain.inlet):
            self._came = self.chain.now()
            self.wake()

    async def work(self) -> None:
        self._dog.begin(self.chain.began)
        await super().work()

    def burst(self, room: int) -> BurstEnd:
        now, self._came = self.chain.now() if self._came is None else self._came, None
        self.look(now)
        end = super().burst(room)
        if self.gate.heard:
            self.gate.heard = False
            self._dog.heard(self.chain.now())
        return end

    def look(self, now: float) -> None:
        """Act if a time is over."""
        overdue = self._dog.overdue(now)
        if overdue is not None and self.chain.stopped is None:
            self.shut(self._error(overdue) if self._fails else None)

    def _error(self, overdue: str) -> Exception:
        error = trio.TooSlowError(f"the stream was too slow at {named(self.gate.name)}")
        add_note(error, overdue)
        return error

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
        self.look(self.chain.now())


def _watchdog_of(operation: plan.Watched) -> Watchdog:
    if isinstance(operation, plan.IdleTimeout | plan.KeepAlive):
        return Watchdog(idle=operation.seconds)
    if isinstance(operation, plan.TakeFor):
        return Watchdog(whole=operation.seconds)
    assert isinstance(operation, plan.Timeout)
    return Watchdog(
        whole=inf if operation.seconds is None else operation.seconds,
        first=inf if operation.first is None else operation.first,
    )
