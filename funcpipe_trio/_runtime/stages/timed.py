"""The stage of an operation that has something to say when a time has come: how is a time awaited beside the input?

A scope around each wait would cost more than the items of most bursts. So there is one scope around the whole drive,
whose deadline is set while the stage waits for input, and only then. The deadline of a batch stays the same while the
batch grows, so it is set once a batch. When the time comes the scope has done its work: the drive, which keeps nothing
between two bursts, is begun again in a new one, and its first burst hears what time it is.

The stage of a sync iterable waits for input only while it is paused, so there the scope is around that one wait. Else
it looks at the clock before each burst: a batch leaves at most one burst late, even if no item gets as far as it.
"""

from __future__ import annotations

import math

import trio

from .stage import Pause, Stage


class TimedStage(Stage):
    """A sync stage whose first operation also has something to say when a time has come."""

    waits_its_own_way = True

    _timer: trio.CancelScope
    _at: float
    """Its deadline."""

    async def _drive(self) -> None:
        is_over = False
        while not is_over:
            self._at = math.inf
            with trio.CancelScope() as self._timer:
                await super()._drive()
                is_over = True

    def _burst(self, room: int) -> Pause:
        self.fused[0].tick(self.now())
        return super()._burst(room)

    async def _wait_input(self) -> None:
        self._set(self.fused[0].deadline)
        await super()._wait_input()
        if self._timer.cancel_called:  # it was woken at that very instant: a later wait must not find the scope used up
            await trio.lowlevel.checkpoint()

    async def _wait_room(self) -> None:
        self._set(math.inf)
        await super()._wait_room()

    async def _breathe(self) -> None:
        self._set(math.inf)
        await super()._breathe()

    def _set(self, deadline: float) -> None:
        if deadline != self._at:
            self._timer.deadline = self._at = deadline


class TimedSource(Stage):
    """The stage of a sync iterable, with operations fused into it that have something to say when a time has come."""

    waits_its_own_way = True

    def _burst(self, room: int) -> Pause:
        now = self.now()
        for operation in self.fused:
            operation.tick(now)
        return super()._burst(room)

    async def _wait_input(self) -> None:
        with trio.move_on_at(min(operation.deadline for operation in self.fused)):
            await super()._wait_input()
