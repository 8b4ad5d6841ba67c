"""Which items are in a window together? Two rules: by time and number without overlap, by number with it.

Tumbling: time is cut at multiples of a period from a beginning. An item is in the window of the time at which it is
added, and exactly at a multiple that is the later one. A window closes at its end, or as soon as it holds `max_items`;
then what follows until that end is another window. There are no windows without items.

Sliding: the windows begin at every `step`-th item and hold `size` items. With a step above the size, the items between
two windows are in none.

The invariant: items leave in the order they came. Tumbling windows hold each item once; of a sliding one, `_unseen`
counts what no window has held yet. They are told the time; they never wait.
"""

from __future__ import annotations

from collections import deque
from itertools import islice
from math import floor, inf, nextafter
from typing import Any

from .batcher import Batcher
from .multiples import EXACT


class TumblingWindows(Batcher):
    """Collects items, and returns the windows that become complete; `deadline` is the end of the open one."""

    __slots__ = ("_began", "_period")

    deadline: float
    _began: float
    _period: float

    def __init__(self, max_items: int | None, period: float, began: float) -> None:
        super().__init__(max_items, None, None)
        self._period = period
        self._began = began

    def add(self, item: Any, cost: float, now: float) -> list[list[Any]]:
        """Take an item; return the windows that this closes, oldest first (none, one or two)."""
        closed = [self.close()] if self.items and self.is_due(now) else []
        closed += super().add(item, cost, now)
        if len(self.items) == 1:
            self.deadline = self._end(now)
        return closed

    def _end(self, now: float) -> float:
        """Return the first multiple of the period after `now`."""
        passed = (now - self._began) / self._period
        if passed >= EXACT:  # it may also be infinite
            return nextafter(now, inf)
        number = floor(passed)
        if self._began + number * self._period > now:  # the division was rounded up
            number -= 1
        elif self._began + (number + 1) * self._period <= now:  # or down
            number += 1
        return self._began + (number + 1) * self._period


class SlidingWindows:
    """Collects items, and returns the window that each completes."""

    __slots__ = ("_items", "_size", "_step", "_unseen", "gap")

    gap: int
    """How many items are to be skipped before the next window begins."""

    def __init__(self, size: int, step: int) -> None:
        self._size = size
        self._step = step
        self._items: deque[Any] = deque()
        self._unseen = 0
        self.gap = 0

    def skip(self) -> None:
        """Skip an item between two windows."""
        self.gap -= 1

    def add(self, item: Any) -> tuple[tuple[Any, ...], int] | None:
        """Take an item; return the window that it completes, and how many of its items were in none before."""
        self._items.append(item)
        self._unseen += 1
        if len(self._items) < self._size:
            return None
        window, new = tuple(self._items), self._unseen
        for _ in range(min(self._step, self._size)):
            self._items.popleft()
        self._unseen = 0
        self.gap = max(0, self._step - self._size)
        return window, new

    def close(self) -> list[Any]:
        """Return the items that were in no window, and forget all items."""
        unseen = list(islice(self._items, len(self._items) - self._unseen, None))
        self._items.clear()
        self._unseen = 0
        return unseen
