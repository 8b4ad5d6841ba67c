"""May one more call run at once? A meter of which each call takes one place and gives it back when it ends."""

from __future__ import annotations

from fractions import Fraction
from math import inf

from .meter import Meter


class Places(Meter):
    """So many places, of which some are taken."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size: int = size
        """How many may be taken at once; if it was lowered, more may be taken for a time."""
        self.taken: int = 0
        """How many are taken now."""

    def take(self, now: float, cost: int | Fraction) -> float | None:
        """Take a place and return None, or return inf: only what is given back makes one free."""
        if self.taken >= self.size:
            return inf
        self.taken += 1
        return None

    def when(self, now: float, cost: int | Fraction, *, behind: int | Fraction = 0) -> float:
        """Return now if there is a place, also behind another call; otherwise inf."""
        return now if self.size - self.taken > behind else inf

    def release(self) -> None:
        """Give a place back."""
        self.taken -= 1

    def rebase(self, now: float) -> None:
        """Continue with another clock: places do not depend on it."""
