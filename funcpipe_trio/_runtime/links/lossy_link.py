"""The link of a buffer that never makes its sender wait: what becomes of an item for which there is no room?

  drop_oldest   it takes the place of the item that waited longest (with capacity 1: the latest value)
  drop_newest   it is dropped itself
  fail          the stage before it fails, so the stream ends behind what the link holds
  OnFull.merge  the stage before it merges it into the item that came last

The rule: the link never holds more than its capacity, not even in the middle of a burst: items are dropped when they
are put. A failure is raised not by the link but by the last operation of the stage that fills it, so it travels as
every failure does. The sender always has room, but when it has filled the last free place it lets the receiver run
before it goes on: nothing is dropped that a receiver which keeps up would have taken.
"""

from __future__ import annotations

import sys
from typing import Any

from ..._plan.operations import Overflow
from ...policies.on_full import OnFull
from ..core.ledger import Ledger
from .link import Link


class LossyLink(Link):
    """A link whose sender always has room."""

    __slots__ = ("policy",)

    def __init__(self, ledger: Ledger, capacity: int, policy: Overflow | OnFull, name: str | None = None) -> None:
        super().__init__(ledger, capacity, name)
        self.policy = policy  # what becomes of an item for which there is no room
        if policy == "drop_oldest":
            self.put = self._replace_oldest
        elif policy == "drop_newest":
            self.put = self._turn_away
        # Otherwise it is the plain one: an operation of the stage before it looks for room (`overflow_guard`).

    def room(self) -> int:
        return sys.maxsize

    def burst_room(self) -> int:
        """Return the free places, so that the receiver may take some before anything is dropped; if none, no limit."""
        return self.capacity - len(self.buffer) or sys.maxsize

    def waiting_room(self) -> int:
        """As for any link: results that wait for an earlier one are held, whatever becomes of them here."""
        return self.capacity - len(self.buffer)

    @property
    def is_full(self) -> bool:
        """Whether it holds as many as it may."""
        return len(self.buffer) >= self.capacity

    def _replace_oldest(self, item: Any) -> None:
        if self.is_full:
            oldest = self.buffer.popleft()
            self.buffer.append(item)  # first: `on_discard` may look at the run, or stop it
            self._drop(oldest)
        else:
            self.buffer.append(item)

    def _turn_away(self, item: Any) -> None:
        if self.is_full:
            self._drop(item)
        else:
            self.buffer.append(item)

    def _drop(self, item: Any) -> None:
        self.dropped += 1
        self.ledger.drop(item, self.sender.name, str(self.policy))
