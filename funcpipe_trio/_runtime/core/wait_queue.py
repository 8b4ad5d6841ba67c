"""A queue of tasks that wait for permission: which one asks, when, and what if one of them is cancelled?

Only the first task asks, again and again: when it becomes the first, at the time that the last refusal named, and
whenever it is poked; the others are parked until they are first. So the order is that of arrival, a refusal costs the
wait of one task however many there are, and a task that leaves, served or cancelled, hands the first place on.

Permission is taken by the task that asked, in the step in which it goes on, and there is no checkpoint between the two:
so what it was given (a token, a permit) is used at that instant, and a cancellation cannot lose it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import trio

from .parking import WOKEN


class _Waiter:
    """One task in the queue."""

    __slots__ = ("is_parked", "task")

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task = task  # the one that waits
        self.is_parked = False  # so it may be rescheduled


class WaitQueue:
    """Tasks that wait in the order in which they came."""

    def __init__(self) -> None:
        # In the order of arrival; not a dict: where many have left, a dict takes long to find its first.
        self._waiters: OrderedDict[_Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        """Return how many tasks wait."""
        return len(self._waiters)

    async def join(self, ask: Callable[[], float | None], *, checkpoint: bool = False) -> None:
        """Wait until ``ask()`` returns None; any other result is when to ask again, `math.inf` for only when poked.

        Checkpoint: if it waits, or if `checkpoint` is true (its place is taken before that).
        Cancellation: the place is given back; a task that is cancelled does not ask.
        """
        place = _Waiter(trio.lowlevel.current_task())
        self._waiters[place] = None
        try:
            if checkpoint:
                await trio.lowlevel.checkpoint()
            while True:
                again_at = ask() if self._first() is place else math.inf
                if again_at is None:
                    return
                await self._park(place, again_at)
                await trio.lowlevel.checkpoint_if_cancelled()
        finally:
            was_first = self._first() is place
            del self._waiters[place]
            if was_first:
                self.poke()

    def poke(self) -> None:
        """Let the first task ask again: something has changed."""
        first = self._first()
        if first is not None and first.is_parked:
            first.is_parked = False
            trio.lowlevel.reschedule(first.task, WOKEN)

    def _first(self) -> _Waiter | None:
        return next(iter(self._waiters), None)

    async def _park(self, place: _Waiter, until: float) -> None:
        def unpark(_raise_cancel: object) -> trio.lowlevel.Abort:
            place.is_parked = False
            return trio.lowlevel.Abort.SUCCEEDED

        place.is_parked = True
        with trio.CancelScope(deadline=until):
            await trio.lowlevel.wait_task_rescheduled(unpark)
