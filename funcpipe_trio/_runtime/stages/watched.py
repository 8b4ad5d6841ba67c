"""The stage of a timeout on the stream: who watches the clock while nothing comes, and where does the failure stand?

The watchdog (`sansio.watchdog`) is asked at the start of each burst, before anything is pulled: what comes at the very
instant of a deadline comes too late. An item is late if it *came* late; that the event loop was late to run this stage
is not the stream's fault.

When a time is over everything upstream is stopped at once, and the error leaves through the chain, behind what came
before it, as that of a user's function would; if there is no room, when there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import trio

from ..._base.shown import named
from ..._plan import timing as plan
from ..._sansio.watchdog import Watchdog
from ..core.failures import add_note, noted
from ..core.inlet import BEHIND_FAILURE, END, NOT_NEEDED, NOTHING, Fault, Inlet, worth_a_pull
from ..core.protocols import Host, Outlet
from ..operations.fused import FusedOperation
from .stage import STARVED, Pause, Stage


class Watching(FusedOperation):
    """Passes values on, until a time is over: then it fails."""

    overdue: str | None = None
    """The time that is over."""
    heard: bool = False
    """Whether a value came since this was last asked."""
    has_failed: bool = False
    """Whether its failure has left; if not, it waits for room."""

    @trio.lowlevel.enable_ki_protection
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        while self.overdue is None:
            value = next(values, END)
            if value is END:
                return
            self.heard = self.heard or value is not NOTHING
            yield value
        self.has_failed = True
        self.stage.failing(self.error(), self.name, 0, NOTHING)

    def error(self) -> Exception:
        """Say which time is over."""
        error = trio.TooSlowError(f"the stream was too slow at {named(self.name)}")
        add_note(error, self.overdue or "")
        return error


class WatchedStage(Stage):
    """A stage that passes items on, and fails when they do not come in time."""

    waits_its_own_way = True

    def __init__(
        self,
        host: Host,
        name: str,
        inlet: Inlet,
        outlet: Outlet,
        fused: Sequence[FusedOperation],
        operation: plan.Watched,
    ) -> None:
        self._watching = Watching(operation)
        self._dog = _watchdog_of(operation)
        self._came: float | None = None  # when what it waited for came
        self._timer = trio.CancelScope()  # of the wait for input
        super().__init__(host, name, inlet, outlet, [self._watching, *fused])

    def on_input(self) -> None:
        if self._parked_for is STARVED and worth_a_pull(self.inlet):
            self._came = self.now()
            self._wake()

    async def _work(self) -> None:
        self._dog.begin(self.began)
        await super()._work()

    def _burst(self, room: int) -> Pause:
        self._look()
        pause = super()._burst(room)
        if self._watching.heard:
            self._watching.heard = False
            self._dog.heard(self.now())
        return pause

    def _look(self) -> None:
        """See whether a time is over."""
        now, self._came = self.now() if self._came is None else self._came, None
        overdue = self._dog.overdue(now)
        if overdue is not None and self.stopped is None:
            self._watching.overdue = overdue
            self.inlet.close(BEHIND_FAILURE)

    def _leave(self) -> None:
        if self._watching.overdue is not None and not self._watching.has_failed:  # nobody needed to read that far
            failure = Fault(noted(self._watching.error(), self._watching.name, None), self)
            self.host.ledger.unread(failure, self.stopped or NOT_NEEDED)
            self._watching.has_failed = True
        super()._leave()

    async def _wait_input(self) -> None:
        with trio.CancelScope(deadline=self._dog.deadline) as self._timer:
            await super()._wait_input()

    def on_pause(self) -> None:
        self._dog.pause()
        self._timer.deadline = self._dog.deadline

    def on_resume(self) -> None:
        self._dog.go_on(self.now())
        self._timer.deadline = self._dog.deadline

    async def _wait_room(self) -> None:
        with trio.move_on_at(self._dog.whole_at):
            await super()._wait_room()
        self._dog.resumed(self.now())
        self._look()


def _watchdog_of(operation: plan.Watched) -> Watchdog:
    if isinstance(operation, plan.IdleTimeout):
        return Watchdog(idle=operation.seconds)
    assert isinstance(operation, plan.Timeout)
    return Watchdog(
        whole=float("inf") if operation.seconds is None else operation.seconds,
        first=float("inf") if operation.first is None else operation.first,
    )
