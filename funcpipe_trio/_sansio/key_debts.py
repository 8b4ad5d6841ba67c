"""What do keys owe a limiter for calls that cost more than they took, and for how long is it theirs alone?

A key pays when it comes back. One that stays away is waited for until so much has come in as it owes; then the debt is
the limiter's, or ever new keys could cost more than the rate for ever. A key that waits at that time pays in its turn.
Too many debts are not kept apart either: the oldest becomes the limiter's.

It does not know the rate: it is told in how many seconds a debt comes in. It takes no tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Generic, TypeVar

from .cost_grid import CostGrid

K = TypeVar("K")
MOST_DEBTS = 10_000
"""The most keys whose debts are kept apart."""


class KeyDebts(Generic[K]):
    """The debts of keys, the oldest first."""

    def __init__(self, comes_in: Callable[[int | Fraction], float], most: int = MOST_DEBTS) -> None:
        self._comes_in = comes_in  # in how many seconds a cost does
        self._most = most
        self._grid = CostGrid()  # bounds the digits of sums
        self._owed: dict[K, tuple[int | Fraction, float]] = {}  # how much, and when that has come in

    def __len__(self) -> int:
        """How many keys owe something."""
        return len(self._owed)

    def __contains__(self, key: K) -> bool:
        """Whether a key owes something."""
        return key in self._owed

    def of(self, key: K) -> int | Fraction:
        """Return what a key owes."""
        return self._owed[key][0] if key in self._owed else 0

    def add(self, key: K, cost: int | Fraction, now: float) -> int | Fraction:
        """Let a key owe more; return what the limiter is to owe in the place of another, because there are too many."""
        owed = self._grid.counted(cost + self.of(key))
        self._put(key, owed, now)
        return self._take(next(iter(self._owed))) if len(self._owed) > self._most else 0

    def pay(self, key: K, cost: int | Fraction) -> None:
        """Count what a key has paid, at most what it owes."""
        owed, due = self._owed[key]
        if owed == cost:
            del self._owed[key]
        else:
            self._owed[key] = owed - cost, due

    def collect(self, now: float, waits: Callable[[K], bool]) -> int | Fraction:
        """Return what the limiter is to owe, of keys that stayed away too long; `waits` says which do not."""
        total: int | Fraction = 0
        for _ in range(len(self._owed)):  # each once: one that waits is put behind the others
            key = next(iter(self._owed))
            if self._owed[key][1] > now:
                break
            owed = self._take(key)
            if waits(key):
                self._put(key, owed, now)
            else:
                total += owed
        return total

    def restart(self, now: float) -> None:
        """Continue with another clock, which shows `now`: each debt is waited for anew."""
        for key in tuple(self._owed):
            self._put(key, self._take(key), now)

    def _put(self, key: K, owed: int | Fraction, now: float) -> None:
        self._owed.pop(key, None)
        self._owed[key] = owed, now + self._comes_in(owed)

    def _take(self, key: K) -> int | Fraction:
        return self._owed.pop(key)[0]
