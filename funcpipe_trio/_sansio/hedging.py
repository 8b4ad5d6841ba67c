"""Which calls are slow enough for one more call? A line of calls for each number of calls that they have.

The rule: call k of an item (k = 1, 2, ... behind the first) is due k times `after` seconds after the first one began.
In each line all calls wait equally long, so they are due in the order in which they began, and only the first of each
line need be looked at: to add and to remove a call costs the same however many there are.

It starts and cancels nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Generic, TypeVar

C = TypeVar("C")
B = TypeVar("B", bound=tuple[Any, ...])


class SlowCalls(Generic[C, B]):
    """Calls by when one more is due; told when they begin, and when they are of no more interest."""

    def __init__(self, after: float, most: int) -> None:
        self._after = after  # seconds from one call of an item to the next
        self._lines: list[dict[C, B]] = [{} for _ in range(most - 1)]
        """Those with one call, with two, and so on, each with what is known of it: first, when its first call began."""
        # What is called for each call are methods of a dict: methods of ours would take 0.1 us more.
        self.add: Callable[[C, B], None] = self._lines[0].__setitem__
        """Add a call that begins, with that time, which never goes back, and what else is to be known of it."""
        self.end: Callable[[C], B] = self._lines[0].pop
        """Forget a call for which no other was due."""

    def remove(self, call: C) -> None:
        """Forget a call, if it is not forgotten yet."""
        for line in self._lines:
            if line.pop(call, None) is not None:
                return

    def next_at(self) -> float:
        """Return when `due` has something to say; inf while there is nothing to wait for."""
        firsts = [(number, next(iter(line.values()), None)) for number, line in enumerate(self._lines, 1)]
        return min((begun[0] + number * self._after for number, begun in firsts if begun is not None), default=inf)

    def due(self, now: float) -> list[tuple[C, B]]:
        """Return the calls for which one more is due, once for each; those with `most` calls then are forgotten."""
        calls: list[tuple[C, B]] = []
        for number, line in enumerate(self._lines, 1):
            while line:
                call, begun = next(iter(line.items()))
                if begun[0] + number * self._after > now:
                    break
                del line[call]
                calls.append((call, begun))
                if number < len(self._lines):
                    self._lines[number][call] = begun
        return calls
