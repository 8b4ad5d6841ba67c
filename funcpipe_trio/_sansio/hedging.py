"""Which calls are slow enough for one more call? A line of calls for each number of calls that they have.

The rule: call k of an item (k = 1, 2, ... behind the first) is due k times `after` seconds after the first one began.
In each line all calls wait equally long, so they are due in the order in which they began, and only the first of each
line need be looked at: to add and to remove a call costs the same however many there are.

It starts and cancels nothing.
"""

from __future__ import annotations

from math import inf
from typing import Generic, TypeVar

C = TypeVar("C")


class SlowCalls(Generic[C]):
    """Calls by when one more is due; told when they begin, and when they are of no more interest."""

    def __init__(self, after: float, most: int) -> None:
        self._after = after  # seconds from one call of an item to the next
        self._lines: list[dict[C, float]] = [{} for _ in range(most - 1)]
        """Those with one call, with two, and so on, each with the time at which its first call began."""

    def add(self, call: C, now: float) -> None:
        """Add a call that begins; `now` never goes back."""
        self._lines[0][call] = now

    def remove(self, call: C) -> None:
        """Forget a call, if it is not forgotten yet."""
        for line in self._lines:
            if line.pop(call, None) is not None:
                return

    def next_at(self) -> float:
        """Return when `due` has something to say; inf while there is nothing to wait for."""
        firsts = [(number, next(iter(line.values()), inf)) for number, line in enumerate(self._lines, 1)]
        return min(began + number * self._after for number, began in firsts)

    def due(self, now: float) -> list[C]:
        """Return the calls for which one more is due, once for each; those with `most` calls then are forgotten."""
        calls: list[C] = []
        for number, line in enumerate(self._lines, 1):
            while line:
                call, began = next(iter(line.items()))
                if began + number * self._after > now:
                    break
                del line[call]
                calls.append(call)
                if number < len(self._lines):
                    self._lines[number][call] = began
        return calls
