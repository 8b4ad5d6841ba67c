"""A queue of tasks that wait for permission: which one asks, when, and what if one of them is cancelled?

Only the first task asks, again and again: when it becomes the first, at the time that the last refusal named, and
whenever it is poked; the others are parked until they are first. So a refusal costs the wait of one task however many
there are, and a task that leaves, served or cancelled, hands the first place on. Which one is first says an order: that
of arrival, or another one that is given; if that changes while nobody comes or leaves, the queue must be poked.

Permission is taken by the task that asked, in the step in which it goes on, and there is no checkpoint between the two:
so what it was given (a token, a permit) is used at that instant, and a cancellation cannot lose it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

import trio

from .parking import WOKEN


class Waiter:
    """One task in the queue."""

    __slots__ = ("is_parked", "task")

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = None  # the one that waits, once it was parked
        self.is_parked: bool = False  # so it may be rescheduled


W = TypeVar("W", bound=Waiter)


class Order(Protocol[W]):
    """Who waits, and who is first."""

    def __len__(self) -> int:
        """Return how many wait."""
        ...

    def __iter__(self) -> Iterator[W]:
        """Iterate over those who wait, in the order in which they came."""
        ...

    def add(self, waiter: W, /) -> None:
        """Add one."""

    def remove(self, waiter: W, /) -> None:
        """Remove one, whether it got what it waited for or not."""

    def first(self) -> W | None:
        """Return the one that is served next; None if none waits."""


class Arrivals(Generic[W]):
    """First come, first served."""

    def __init__(self) -> None:
        self._waiters: OrderedDict[W, None] = OrderedDict()  # a dict takes long to find its first, where many have left

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[W]:
        return iter(self._waiters)

    def add(self, waiter: W) -> None:
        self._waiters[waiter] = None

    def remove(self, waiter: W) -> None:
        del self._waiters[waiter]

    def first(self) -> W | None:
        return next(iter(self._waiters), None)

    def put_first(self, waiter: W) -> None:
        """Let one that waits go before all others; the queue must be poked then."""
        self._waiters.move_to_end(waiter, last=False)


class WaitQueue(Generic[W]):
    """Tasks that wait, and of which the first one asks."""

    def __init__(self, order: Order[W] | None = None) -> None:
        self.order: Order[W] = Arrivals() if order is None else order  # who waits, and who is first

    def __len__(self) -> int:
        """Return how many tasks wait."""
        return len(self.order)

    async def join(self: WaitQueue[Waiter], ask: Callable[[], float | None]) -> None:
        """Wait until ``ask()`` returns None; any other result is when to ask again, `math.inf` for only when poked.

        Checkpoint: if it waits.
        Cancellation: the place is given back; a task that is cancelled does not ask.
        """
        waiter = Waiter()
        self.order.add(waiter)
        try:
            await self.wait(waiter, ask)
        finally:
            self.leave(waiter)

    async def wait(self, waiter: W, ask: Callable[[], float | None], *, checkpoint: bool = False) -> None:
        """Do the waiting of `join` for a waiter that was added to the order.

        Checkpoint: if it waits, or if `checkpoint` is true.
        Cancellation: as in `join`; the waiter is still in the order.
        """
        if checkpoint:
            await trio.lowlevel.checkpoint()
        while True:
            again_at = ask() if self.order.first() is waiter else math.inf
            if again_at is None:
                return
            await self._park(waiter, again_at)
            await trio.lowlevel.checkpoint_if_cancelled()

    def leave(self, waiter: W) -> None:
        """Remove a waiter, and let the next one ask."""
        was_first = self.order.first() is waiter
        self.order.remove(waiter)
        if was_first:
            self.poke()

    def poke(self) -> None:
        """Let the first task ask again: something has changed."""
        first = self.order.first()
        if first is not None and first.is_parked and first.task is not None:
            first.is_parked = False
            trio.lowlevel.reschedule(first.task, WOKEN)

    async def _park(self, waiter: W, until: float) -> None:
        def unpark(_raise_cancel: object) -> trio.lowlevel.Abort:
            waiter.is_parked = False
            return trio.lowlevel.Abort.SUCCEEDED

        waiter.task, waiter.is_parked = trio.lowlevel.current_task(), True
        with trio.CancelScope(deadline=until):
            await trio.lowlevel.wait_task_rescheduled(unpark)
