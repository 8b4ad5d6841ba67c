"""A queue of tasks that wait for a yes: who asks, when, and what if one of them is cancelled?

Only the first asks, again and again: at its turn, when the time comes that the last no named, and whenever it is poked;
the others are parked until they are first. So the order is that of arrival, a no costs one task's wait however many
there are, and whoever leaves, served or cancelled, hands the first place on.

The yes is taken by the task that asked, in the step in which it goes on, and there is no checkpoint between the two: so
what it was given (a token, a permit) is used at that instant, and a cancellation cannot lose it.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import trio

from .parking import WOKEN


class _Waiter:
    """One task in the line."""

    __slots__ = ("is_parked", "task")

    is_parked: bool

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self.task = task
        self.is_parked = False


class WaitQueue:
    """Tasks that wait in the order in which they came."""

    def __init__(self) -> None:
        # In the order of arrival; no dict: where many have left, that takes long to find its first.
        self._places: OrderedDict[_Waiter, None] = OrderedDict()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._places)

    async def join(self, ask: Callable[[], float | None], *, checkpoint: bool = False) -> None:
        """Wait in line until ``ask()`` answers None; another answer is when to ask again, `math.inf` if poked only.

        Checkpoint: if it waits, or if that is asked for (the place is taken before).
        Cancellation: the place is given back; a task that is cancelled does not ask.
        """
        place = _Waiter(trio.lowlevel.current_task())
        self._places[place] = None
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
            del self._places[place]
            if was_first:
                self.poke()

    def poke(self) -> None:
        """Let the first ask again: something has changed."""
        first = self._first()
        if first is not None and first.is_parked:
            first.is_parked = False
            trio.lowlevel.reschedule(first.task, WOKEN)

    def _first(self) -> _Waiter | None:
        return next(iter(self._places), None)

    async def _park(self, place: _Waiter, until: float) -> None:
        def unpark(_raise_cancel: object) -> trio.lowlevel.Abort:
            place.is_parked = False
            return trio.lowlevel.Abort.SUCCEEDED

        place.is_parked = True
        with trio.CancelScope(deadline=until):
            await trio.lowlevel.wait_task_rescheduled(unpark)
