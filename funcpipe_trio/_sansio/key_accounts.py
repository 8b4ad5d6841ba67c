"""What was each key of a stream served, when there is no end of new keys?

Every key that holds items has an account. When its last item is gone the account is put aside; put aside are kept those
with the greatest cost, up to a limit, and the rest is forgotten. So memory does not grow with the number of keys that
ever came, and whoever used the most is always there to be seen. A key that comes back finds its account if it was kept,
and starts anew if not.

It decides nothing: who is served next is the fair queue's.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from fractions import Fraction
from heapq import nlargest


class KeyAccount:
    """What one key was served."""

    __slots__ = ("contested", "cost", "key", "taken", "weight")

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
        self.contested = 0
        """Its cost while another key had an item, too."""

    def count(self, cost: int | Fraction, *, contested: bool) -> None:
        """Count one item that was handed over; `cost` as the fair queue counted it, or sums would grow without end."""
        self.taken += 1
        self.cost += cost
        if contested:
            self.contested += cost


class KeyAccounts:
    """The accounts of keys that hold no item now."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[Hashable, KeyAccount] = {}

    def __len__(self) -> int:
        """How many are put aside."""
        return len(self._kept)

    def resume(self, key: Hashable, weight: int | Fraction) -> KeyAccount:
        """Give the account of a key that holds items from now on."""
        return self._kept.pop(key, None) or KeyAccount(key, weight)

    def put_aside(self, account: KeyAccount) -> None:
        """Take the account of a key that holds none any more."""
        self._kept[account.key] = account
        if len(self._kept) > 2 * self._limit:  # in bulk: looking for the least each time would cost more than serving
            self._kept = {each.key: each for each in self._greatest(self._kept.values())}

    def greatest(self, live: Iterable[KeyAccount]) -> list[KeyAccount]:
        """Give those of the greatest cost, of the kept and the live, the greatest first."""
        return self._greatest([*live, *self._kept.values()])

    def _greatest(self, accounts: Iterable[KeyAccount]) -> list[KeyAccount]:
        return nlargest(self._limit, accounts, key=_cost)


def _cost(account: KeyAccount) -> int | Fraction:
    return account.cost
