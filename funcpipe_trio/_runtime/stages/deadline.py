"""The stage of an operation that acts when a time has come: how does it await the input and the time together?

A scope around each wait would cost more than the items of most bursts. So there is one scope around the whole drive,
whose deadline is set while the stage waits for input, and only then. The deadline of a batch stays the same while the
batch grows, so it is set once a batch. When the time comes the scope is used up: the drive, which keeps nothing between
two bursts, begins again in a new one, and its first burst passes the time to the operation.

The stage of a sync iterable waits for input only while it is paused, so there the scope is around that one wait.
Otherwise it checks the clock before each burst: a batch leaves at most one burst late, even if no item reaches it.
"""

from __future__ import annotations

import math

import trio

from .chain import BurstEnd, Chain
from .stage import Stage


class DeadlineStage(Stage):
    """A sync stage whose first operation also acts when a time has come."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain)
        self._timer = trio.CancelScope()  # around the drive: ends it when the time has come
        self._at = math.inf  # the deadline of that scope

    async def drive(self) -> None:
        is_over = False
        while not is_over:
            self._at = math.inf
            with trio.CancelScope() as self._timer:
                await super().drive()
                is_over = True

    def burst(self, room: int) -> BurstEnd:
        self.chain.operations[0].tick(self.chain.now())
        return super().burst(room)

    async def wait_input(self) -> None:
        self._set(self.chain.operations[0].deadline)
        await super().wait_input()
        if self._timer.cancel_called:  # woken by the input exactly then: a later wait must not find the scope used up
            await trio.lowlevel.checkpoint()

    async def wait_room(self) -> None:
        self._set(math.inf)
        await super().wait_room()

    async def breathe(self) -> None:
        self._set(math.inf)
        await super().breathe()

    def _set(self, deadline: float) -> None:
        if deadline != self._at:
            self._timer.deadline = self._at = deadline


class DeadlineSource(Stage):
    """The stage of a sync iterable, with fused operations that act when a time has come."""

    def burst(self, room: int) -> BurstEnd:
        now = self.chain.now()
        for operation in self.chain.operations:
            operation.tick(now)
        return super().burst(room)

    async def wait_input(self) -> None:
        with trio.move_on_at(min(operation.deadline for operation in self.chain.operations)):
            await super().wait_input()
