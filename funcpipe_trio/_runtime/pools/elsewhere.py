"""A stage whose items may wait for their next attempt without a place: who takes the place, and who gets one again?

The rule: an item between two attempts gives up its place, if fewer than `retries_elsewhere` have done so; otherwise it
waits in its place. When its wait is over it asks for a place, in the order in which waits end, and no new item is taken
before those that ask. So what came first goes on first, and no more calls run than there are places.

Its worker stays with it: the call goes on where it waited, with its timeouts, its context variables and its position in
the order of the results. So there may be as many workers more as items may wait elsewhere. Whatever the item occupies,
it brings its own: only what has a place, or asks for one, is counted when an item is taken,

    calls and items that ask + results that wait + values in the link behind  <  concurrency + capacity of that link

and at most `retries_elsewhere` items are held besides. An item that asks needs nothing but the end of one call, and a
call waits for no item that asks: nothing can wait for ever. (A retry for whose item others may wait, inside of a
circuit that lets calls wait, say, keeps its place: `calls.layers`.)

An item whose wait is cut short, by a timeout around the retry, has no place yet: it gets one before anything else is
called for it (another attempt, the step of a divert), and needs none to fail.
"""

from __future__ import annotations

from math import inf
from typing import Any, ClassVar

import trio

from ..._sansio.usage import Usage
from ..._sansio.usage_elsewhere import UsageElsewhere
from ..calls.calling import Calling
from ..core.call_context import CALL
from ..core.wait_queue import Waiter, WaitQueue
from ..stages.chain import Ends
from .crew import Crew, Worker
from .keyed import KeyedPool
from .pool import Pool


class RoomyCrew(Crew):
    """Workers, of which some may be with items that have no place."""

    usage_of: ClassVar[type[Usage]] = UsageElsewhere
    usage: UsageElsewhere
    more: int = 0
    """Workers beyond the places: one for each item that may be elsewhere, so that one is always free for results."""

    @property
    def can_come(self) -> bool:
        return bool(self.parked) or len(self.workers) < self.size + self.more


class ItemPlace:
    """The place of the item in a worker's hands."""

    __slots__ = ("_left_at", "_pool", "_worker", "is_held")

    def __init__(self, pool: ElsewherePool, worker: Worker) -> None:
        self.is_held = True  # False while the item waits elsewhere, and after that until it has a place again
        self._pool = pool  # whose place it is
        self._worker = worker  # that has the item
        self._left_at = 0.0  # when it was given up

    async def wait(self, seconds: float) -> None:
        """Wait before another attempt, elsewhere if there is a place to give up and anything to wait for."""
        if self.is_held and seconds > 0 and self._pool.may_leave():
            self.is_held, self._left_at = False, self._pool.chain.now()
            self._pool.leave_place()
        await trio.sleep(seconds)
        await self.take()

    async def take(self) -> None:
        """Wait for a place, unless the item has one."""
        if not self.is_held:
            self._worker.context.waits_for = "concurrency"
            try:
                await self._pool.ask_for_place()
            finally:
                self._worker.context.waits_for = CALL
            self.taken()

    def taken(self) -> None:
        """Called when the item has a place again, or needs none any more."""
        now = self._pool.chain.now()
        self.is_held = True
        self._pool.crew.usage.come_back(now)
        self._worker.context.counters.waited_elsewhere += now - self._left_at


class ElsewherePool(Pool):
    """Workers whose items may wait for their next attempt without a place."""

    crew_of: ClassVar[type[Crew]] = RoomyCrew
    crew: RoomyCrew

    def __init__(self, ends: Ends, call: Calling, *, retries_elsewhere: int, **rest: Any) -> None:
        super().__init__(ends, call, **rest)
        self._most = self.crew.more = retries_elsewhere  # items that may be elsewhere
        self._absent = 0  # those of them that do not ask for a place
        self._asking: WaitQueue[Waiter] = WaitQueue()
        """Those that do; they count as calls already, so no item is taken before them."""
        self._asked = 0  # how many those are
        self._most_at_once = 0  # the most items that were elsewhere

    def elsewhere(self) -> tuple[int, int]:
        return self._absent + self._asked, self._most_at_once

    def at_work(self) -> int:
        return self.calls - self._asked

    # ---- what an item in a call asks

    def may_leave(self) -> bool:
        """Whether one more item may wait elsewhere."""
        return self._absent + self._asked < self._most

    def leave_place(self) -> None:
        """Give the place of an item to another."""
        self.calls -= 1
        self._absent += 1
        self._most_at_once = max(self._most_at_once, self._absent + self._asked)
        self.crew.usage.leave(self.chain.now())
        self._hand_on()

    async def ask_for_place(self) -> None:
        """Wait for a place, for an item that has none."""
        self._change_asking(1)
        is_cut_short = True
        try:
            await self._asking.join(lambda: None if self.at_work() < self.crew.size else inf)
            self._asked -= 1
            is_cut_short = False
        finally:
            if is_cut_short:
                self._change_asking(-1)
                self._hand_on()

    def _change_asking(self, change: int) -> None:
        self._absent -= change
        self._asked += change
        self.calls += change

    def _hand_on(self) -> None:
        """Let a place that may be free be taken."""
        self._asking.poke()
        if not self.crew.coming:
            self.staff()
        self.meet()

    # ---- the pool's own

    async def _employed(self, worker: Worker) -> None:
        worker.context.place = ItemPlace(self, worker)
        try:
            await super()._employed(worker)
        finally:
            worker.context.place = None  # otherwise a reference cycle

    def staff(self) -> None:
        if self.calls < self.crew.size:
            super().staff()

    def set_concurrency(self, concurrency: int) -> None:
        super().set_concurrency(concurrency)
        self._asking.poke()

    def is_over(self) -> bool:
        return self.order.ended or (not self._absent and super().is_over())

    def take_up(self, worker: Worker, item: Any) -> None:
        super().take_up(worker, item)
        self.peak = max(self.peak, self.in_hand())

    def in_hand(self) -> int:
        """How many items are in it."""
        return self.calls + self._absent + len(self.order.waiting)

    def put_down(self, worker: Worker) -> Any:
        place = worker.context.place
        assert isinstance(place, ItemPlace)
        if not place.is_held:  # it failed, or was cancelled, without one
            self._absent -= 1
            self.calls += 1
            place.taken()
        item = super().put_down(worker)
        self._asking.poke()
        return item


class KeyedElsewherePool(ElsewherePool, KeyedPool):
    """The same by key: an item elsewhere keeps its key."""

    def in_hand(self) -> int:
        return super().in_hand() + len(self._key_order)

    def _store(self, entry: Any) -> None:
        super()._store(entry)
        self.peak = max(self.peak, self.in_hand())
