"""Each item goes to a branch that has room: the first one, in turn.

There is room while any branch has some. A branch that drops always takes an item, but only when no other has a free
place, and then one at a time: the next one may find a place again.
"""

from __future__ import annotations

from typing import Any

from ..._sansio.state_times import StateTimes
from ..._sansio.turns import Turns
from ..core.signals import NOT_NEEDED
from .fan_out import Fork


class Balancing(Fork):
    """The branches take the items among them."""

    def __init__(self, name: str, state_times: StateTimes[tuple[int, int]]) -> None:
        super().__init__(name, state_times)
        self._turns = Turns()  # of the branches that have room

    def room(self) -> int:
        return sum(port.link.room() for port in self._open())

    def burst_room(self) -> int:
        """Return the free places, so that the receivers may take some before anything is dropped."""
        return self.waiting_room() or 1

    def waiting_room(self) -> int:
        return sum(port.link.waiting_room() for port in self._open())

    def commit(self, count: int) -> None:
        self.passed += count
        self.made += count

    def _put(self, value: Any) -> object:
        links = [port.link for port in self.ports.values()]
        can_take = [link.closed is None and not link.ended for link in links]
        at = self._turns.take([can and link.waiting_room() > 0 for can, link in zip(can_take, links, strict=True)])
        if at is None:
            at = self._turns.take([can and link.room() > 0 for can, link in zip(can_take, links, strict=True)])
        if at is None:  # all were closed in this turn, by a user's function
            self.join.discard(value, self.closed or NOT_NEEDED)
        else:
            links[at].put(value)
            links[at].commit(1)
        return None
