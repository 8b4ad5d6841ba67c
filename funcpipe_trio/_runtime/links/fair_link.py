"""The link behind a `fair_by`: how does an item of one mixed stream wait until its key has its turn?

It is a `Link`, except that it holds queues by key (`_sansio.keyed_fair_queue`) instead of one. The receiver takes
from it directly, and the choice is made in that pull, so what is handed over is the fairest item at that instant.

Whether there is room depends on the item: one that its queue has no room for stays outside the queues, but in this
link, which owns it from then on. `put` then returns True: no other may follow, and there is no room until it is inside.

It is REFILLING while its sender was woken for room and has not run: what came behind the item outside arrives in the
sender's turn, and until then any key may be the one that gets an item. Without this the order in which the scheduler
runs a batch of tasks would decide who is served. A key is backlogged while it has an item here; the end, and a failure
in it, stand behind the items of all keys.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from fractions import Fraction
from typing import Any

import trio

from ..._plan.fair_by import FairBy
from ..._sansio.keyed_fair_queue import KeyedFairQueue
from ..core.ledger import Ledger
from ..core.signals import PENDING, REFILLING, FailureMark, Readiness
from .link import Link


class FairLink(Link):
    """Bounded queues by key with one sender and one receiver, and an end that stands behind them all."""

    __slots__ = ("_leaving", "_must_refill", "now", "queues")

    def __init__(self, ledger: Ledger, operation: FairBy) -> None:
        super().__init__(ledger, operation.capacity, operation.name)
        self.name: str  # a `fair_by` always has one
        self.queues = KeyedFairQueue(operation.share.weight_of, operation.share.capacity, operation.max_keys)
        """The items by key, and the one that is outside; it chooses what is taken."""
        self.now: Callable[[], float] = trio.lowlevel.current_clock().current_time  # for how long its keys waited
        self.buffer: Any = self.queues  # a link reads only its length
        self.put = self.queues.add  # returns True if the item stays outside
        self._leaving: deque[Any] = deque()  # items that are being discarded, one by one
        self._must_refill = False  # the sender was woken for room and has not run

    # ---- the sender's side

    def room(self) -> int:
        return 0 if self.queues.outside is not None else self.capacity - len(self.queues)

    waiting_room = room

    @property
    def held(self) -> int:
        return len(self.queues) + len(self._leaving)

    def finish(self, failure: FailureMark | None) -> None:
        self._must_refill = False
        super().finish(failure)

    def turn_over(self) -> None:
        self._ran(refilling=False)

    def turn_continues(self) -> None:
        self._ran(refilling=True)

    def _ran(self, *, refilling: bool) -> None:
        """Note that the sender had its turn; items here do not wait for its next, or they might wait for ever."""
        before = self.state()
        self._must_refill, self.refilling = False, refilling
        if self.state() is not before:
            self.receiver.on_input()

    def set_weight(self, key: Hashable, weight: int | Fraction) -> None:
        """Change the weight of a key, from the next choice on."""
        self.queues.set_weight(key, weight)

    # ---- the receiver's side

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        queues = self.queues
        while True:
            while queues and not self._must_refill:
                item = queues.take(self.now())
                self.release()  # at once, or a burst would empty queues that the sender could have refilled
                yield item
            if self.closed is not None:
                return
            if self.ended:
                self.exhausted = True
                return
            yield PENDING

    def state(self) -> Readiness:
        return REFILLING if self._must_refill else super().state()

    def release(self, *, parking: bool = False) -> None:
        if self.wants_room and self.queues.outside is None:
            self.wants_room = False
            self._must_refill = self.refilling = self.sender.on_room()

    def _discard_buffer(self, reason: str) -> None:
        self._leaving.extend(self.queues.clear())
        while self._leaving:
            self.discarded += 1
            self.ledger.discard(self._leaving.popleft(), self.sender.name, reason)
