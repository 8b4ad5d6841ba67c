"""The link of a buffer that limits the cost of its items, such as bytes: is there room for an item?

That depends on the item, so it is taken first: the last operation of the stage before it asks what it costs
(`_runtime/operations/costs.py`). One that does not fit stays outside, but in this link, which owns it from then on;
`put` then returns True: no other may follow, and there is no room until it is inside. An empty link takes any item, so
one that costs more than all may cost is here alone. The sum is exact: it does not drift however many items pass.

With a policy of overflow nothing stays outside: what does not fit is dropped, or makes room for itself.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import trio

from ..._plan.operations import Buffer
from ..core.ledger import Ledger
from ..core.signals import PENDING
from .link import Link

Exact = int | Fraction


def exact(cost: float) -> Exact:
    """Return a cost as an exact number."""
    return cost if isinstance(cost, int) else Fraction(cost)


class CostLink(Link):
    """A link whose items may cost so much together."""

    __slots__ = ("_costs", "_max_cost", "_outside", "_spent", "policy")

    def __init__(self, ledger: Ledger, buffer: Buffer, name: str | None) -> None:
        super().__init__(ledger, buffer.capacity or sys.maxsize, name)
        assert buffer.max_cost is not None
        self.policy = buffer.overflow  # what becomes of an item that does not fit
        self._max_cost = exact(buffer.max_cost)  # the most that its items may cost together
        self._costs: deque[Exact] = deque()  # of the items in it
        self._spent: Exact = 0  # the sum of those
        self._outside: tuple[Any, Exact] | None = None  # the item that does not fit yet, and its cost
        self.put = self._put

    def described(self) -> str:
        return f"{super().described().partition(' of ')[0]} of cost {float(self._max_cost):g}"

    # ---- the sender's side

    def fits(self, cost: Exact) -> bool:
        """Whether there is room for an item of a cost."""
        return not self.buffer or (len(self.buffer) < self.capacity and self._spent + cost <= self._max_cost)

    def room(self) -> int:
        if self.policy != "block":
            return sys.maxsize
        return 0 if self._outside is not None else self.capacity - len(self.buffer)

    def burst_room(self) -> int:
        if self.policy == "block":
            return self.room()
        is_full = len(self.buffer) >= self.capacity or self._spent >= self._max_cost
        return sys.maxsize if is_full else 1  # before each item the receiver may take some

    def waiting_room(self) -> int:
        """Return none without a number of items: results that wait before it have no cost yet."""
        return 0 if self.capacity == sys.maxsize else max(0, self.capacity - self.held)

    @property
    def held(self) -> int:
        return len(self.buffer) + (self._outside is not None)

    def _put(self, priced: tuple[Any, Exact]) -> object:
        item, cost = priced
        dropped = []
        while self.policy == "drop_oldest" and not self.fits(cost):
            dropped.append(self._pop())
        if self.fits(cost):
            self._add(item, cost)
        elif self.policy == "block":
            self._outside = priced
            return True
        else:
            dropped.append(item)
        for each in dropped:  # last: `on_discard` may look at the run, or stop it
            self.dropped += 1
            self.ledger.drop(each, self.sender.name, str(self.policy))
        return None

    def _add(self, item: Any, cost: Exact) -> None:
        self.buffer.append(item)
        self._costs.append(cost)
        self._spent += cost

    # ---- the receiver's side

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        while True:
            while self.buffer:
                item = self._pop()
                if self._outside is not None and self.fits(self._outside[1]):
                    self._add(*self._outside)
                    self._outside = None
                yield item
            if self.closed is not None:
                return
            if self.ended:
                self.exhausted = True
                return
            yield PENDING

    def _pop(self) -> Any:
        self._spent -= self._costs.popleft()
        return self.buffer.popleft()

    def release(self, *, parking: bool = False) -> None:
        is_low = parking or (len(self.buffer) <= self._low and 2 * self._spent <= self._max_cost)
        if self.wants_room and is_low and self.room():
            self.wants_room = False
            self.refilling = self.sender.on_room()

    def _discard_buffer(self, reason: str) -> None:
        if self._outside is not None:
            self.buffer.append(self._outside[0])
        self._outside, self._spent = None, 0
        self._costs.clear()
        super()._discard_buffer(reason)
