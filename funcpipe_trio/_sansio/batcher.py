"""When is a batch full? A batch closes at a number of items, at a cost, or at an age.

The rule: an item joins the open batch unless its cost would take the batch over `max_cost`; then the open batch
closes first. A batch closes as soon as it holds `max_items` or costs `max_cost`. Its age counts from its first item:
it is due at that time + `max_delay`. An item that costs more than `max_cost` is a batch by itself.

The invariant: items leave in the order they came, each in exactly one batch. It is told the time; it never waits.
"""

from __future__ import annotations

import math
from typing import Any


class Batcher:
    """Collects items and returns the batches that become complete."""

    __slots__ = ("_cost", "_max_cost", "_max_delay", "_max_items", "deadline", "items")

    deadline: float

    def __init__(self, max_items: int | None, max_cost: float | None, max_delay: float | None) -> None:
        self._max_items = max_items or math.inf
        self._max_cost = math.inf if max_cost is None else max_cost
        self._max_delay = math.inf if max_delay is None else max_delay
        self._cost: float = 0
        self.items: list[Any] = []
        self.deadline = math.inf

    def add(self, item: Any, cost: float, now: float) -> list[list[Any]]:
        """Take an item; return the batches that this closes, oldest first (none, one or two)."""
        closed = [self.close()] if self.items and self._cost + cost > self._max_cost else []
        if not self.items:
            self.begin(now)
        self.items.append(item)
        self._cost += cost
        if len(self.items) >= self._max_items or self._cost >= self._max_cost:
            closed.append(self.close())
        return closed

    def begin(self, now: float) -> None:
        """Called when the first item of a batch arrives; with `append` it does what `add` does without costs."""
        self.deadline = now + self._max_delay

    def append(self, item: Any) -> list[Any] | None:
        """Take an item that costs nothing; return the batch that it completes, None otherwise."""
        items = self.items
        items.append(item)
        return self.close() if len(items) >= self._max_items else None

    def is_due(self, now: float) -> bool:
        """Whether the open batch has reached its age."""
        return now >= self.deadline

    def close(self) -> list[Any]:
        """Return the open batch, and begin a new one."""
        items, self.items, self._cost, self.deadline = self.items, [], 0, math.inf
        return items
