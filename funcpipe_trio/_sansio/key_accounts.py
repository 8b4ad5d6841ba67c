"""What was each key of a stream served, when new keys keep coming?

Every key that holds items has an account. When its last item is gone, the account is put aside; of these, the ones that
rank highest (by their cost, say) are kept, up to a limit, and the rest are forgotten. So memory does not grow with the
number of keys that ever came, and the keys that used the most are always visible. A key that comes back resumes its
account if it was kept, and starts a new one if not.

It decides nothing: the fair queue decides which key is served next.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from fractions import Fraction
from heapq import nlargest
from typing import Any, Generic, Protocol, TypeVar


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

    def __init__(self, limit: int, rank: Callable[[A], Any]) -> None:
        self._limit = limit
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
        if len(self._kept) > 2 * self._limit:  # in bulk: finding the lowest each time would cost more than serving
            self._kept = {each.key: each for each in self._greatest(self._kept.values())}

    def greatest(self, live: Iterable[A]) -> list[A]:
        """Return the ones that rank highest, of the kept and the live ones, highest first."""
        return self._greatest({each.key: each for each in (*live, *self._kept.values())}.values())

    def _greatest(self, accounts: Iterable[A]) -> list[A]:
        return nlargest(self._limit, accounts, key=self._rank)


def cost_of(account: KeyAccount) -> int | Fraction:
    """Return the cost of what a key was served, by which accounts are kept."""
    return account.cost
