"""What was each key of a stream served, when new keys keep coming?

Every key that holds items has an account. When its last item is gone, the account is put aside. A key that comes back
resumes its account. Two numbers bound this, and they are not the same. A report names `MOST_SHOWN` keys, those that
rank highest (by their cost, say). Of the accounts put aside `MOST_REMEMBERED` are remembered for sure: an idle key that
ranks low now may be among the highest later, so forgetting all that no report shows would make sums wrong. Past twice
that many the lowest are forgotten, in bulk, and begin again at 0 if they come back. So memory does not grow with the
number of keys that ever came, and a report is exact while there are no more keys than are remembered.

It decides nothing: the fair queue decides which key is served next.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from fractions import Fraction
from heapq import nlargest
from typing import Any, Generic, Protocol, TypeVar

MOST_SHOWN = 100
"""The most keys in a report, those that rank highest. A report of a hundred thousand keys is useless."""
MOST_REMEMBERED = 10_000
"""How many keys that hold nothing now are remembered at least; twice as many at most."""


class KeyAccount:
    """What one key was served."""

    __slots__ = ("contested", "cost", "key", "longest_wait", "taken", "weight")

    contested: int | Fraction
    cost: int | Fraction
    key: Hashable
    taken: int
    weight: int | Fraction

    def __init__(self, key: Hashable, weight: int | Fraction) -> None:
        self.key = key
        self.weight = weight
        self.taken = 0
        self.cost = 0
        self.longest_wait = 0.0
        """The most seconds for which it had an item and none was taken."""
        self.contested = 0
        """Its cost while another key also had an item."""

    def count(self, cost: int | Fraction, *, contested: bool) -> None:
        """Count one item that was handed over, with the `cost` that the fair queue counted, to keep sums short."""
        self.taken += 1
        self.cost += cost
        if contested:
            self.contested += cost


class Account(Protocol):
    """What is counted of one key."""

    @property
    def key(self) -> Hashable:
        """The key."""
        ...


A = TypeVar("A", bound=Account)


class KeyAccounts(Generic[A]):
    """The accounts of keys that hold no item now."""

    def __init__(self, rank: Callable[[A], Any], *, shown: int = MOST_SHOWN, remembered: int = MOST_REMEMBERED) -> None:
        self._shown = shown
        self._remembered = remembered
        self._rank = rank  # those where this is highest are kept
        self._kept: dict[Hashable, A] = {}

    def __len__(self) -> int:
        """How many accounts are put aside."""
        return len(self._kept)

    def resume(self, key: Hashable) -> A | None:
        """Take back the account of a key that holds items from now on; None if there is none."""
        return self._kept.pop(key, None)

    def of(self, key: Hashable) -> A | None:
        """Return the account of a key that waits to hold items; this changes nothing."""
        return self._kept.get(key)

    def put_aside(self, account: A) -> None:
        """Put aside the account of a key that no longer holds items."""
        self._kept[account.key] = account
        if len(self._kept) > 2 * self._remembered:  # in bulk: finding the lowest each time costs more than serving
            kept = sorted(self._kept.values(), key=self._rank, reverse=True)[: self._remembered]
            self._kept = {each.key: each for each in kept}

    def greatest(self, live: Iterable[A], rank: Callable[[A], Any] | None = None) -> list[A]:
        """Return the ones to show, those that rank highest of the kept and the live ones, highest first.

        `rank` is how they rank now, if that is not how they rank while they hold nothing.
        """
        accounts = {each.key: each for each in (*live, *self._kept.values())}.values()
        return nlargest(self._shown, accounts, key=rank or self._rank)


def cost_of(account: KeyAccount) -> int | Fraction:
    """Return the cost of what a key was served, by which accounts are kept."""
    return account.cost
