"""When is the next multiple of a period? No drift, and never the same one twice.

The rule: multiples are counted from a start, and each is computed from its number, never from the previous one: so
rounding does not add up. The result is after `now`, and its number is above every number returned before: so rounding
never puts two on the same multiple.
"""

from __future__ import annotations

import math

EXACT = 2.0**53
"""Above it not every whole number is a float, so multiples can no longer be distinguished."""


class Multiples:
    """The multiples of a period, from a start on."""

    __slots__ = ("_last", "_period", "_start")

    _last: int
    _start: float

    def __init__(self, period: float) -> None:
        self._period = period
        self._start = 0.0
        self._last = 0

    def begin(self, now: float) -> None:
        """Count from here; this is multiple 0."""
        self._start = now

    def after(self, now: float) -> float:
        """Return the time of the first multiple after `now` that was not returned before."""
        passed = (now - self._start) / self._period
        if passed >= EXACT:
            return math.nextafter(now, math.inf)
        number = max(math.floor(passed), self._last + 1)
        if self._start + number * self._period <= now:  # the usual case; but a quotient may be rounded up
            number += 1
        self._last = number
        return max(self._start + number * self._period, math.nextafter(now, math.inf))
