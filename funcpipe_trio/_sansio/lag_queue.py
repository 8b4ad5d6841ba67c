"""The items that wait for one subscriber: what happens to one for which there is no room?

``block`` never meets that: whoever puts asks first whether it is full. The others never make anybody wait: they drop
the item that has waited longest (``drop_oldest``) or the new one (``drop_newest``), or give this subscriber up
(``fail``): it gets what waits, and then an error.

It is pure: it knows no task and no clock, and looks at no item.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Literal, TypeVar

__all__ = ["Lag", "LagQueue"]

T = TypeVar("T")

Lag = Literal["block", "drop_oldest", "drop_newest", "fail"]
"""What happens when a subscriber has no room."""


class LagQueue(Generic[T]):
    """At most `capacity` items, oldest first."""

    __slots__ = ("capacity", "dropped", "has_failed", "items", "lag")

    def __init__(self, capacity: int, lag: Lag) -> None:
        self.capacity: int = capacity  # the most that may wait
        self.lag: Lag = lag  # what happens to one more
        self.items: deque[T] = deque()  # that wait
        self.dropped: int = 0  # items that found no room, or had to make some
        self.has_failed: bool = False  # one found no room, so it takes no more

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another item."""
        return len(self.items) >= self.capacity

    def put(self, item: T) -> None:
        """Add an item, or do what is to be done if there is no room."""
        if not self.is_full:
            self.items.append(item)
            return
        assert self.lag != "block", "whoever puts waits for room"
        self.dropped += 1
        if self.lag == "drop_oldest":
            self.items.popleft()
            self.items.append(item)
        elif self.lag == "fail":
            self.has_failed = True
