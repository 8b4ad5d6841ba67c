"""What was each key of a stream served, when new keys keep coming?

Every key that holds items has an account. When its last item is gone, the account is put aside; of these, the ones with
the highest cost are kept, up to a limit, and the rest are forgotten. So memory does not grow with the number of keys
that ever came, and the keys that used the most are always visible. A key that comes back resumes its account if it was
kept, and starts a new one if not.

It decides nothing: the fair queue decides which key is served next.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from fractions import Fraction
from heapq import nlargest


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


class KeyAccounts:
    """The accounts of keys that hold no item now."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: dict[Hashable, KeyAccount] = {}

    def __len__(self) -> int:
        """How many accounts are put aside."""
        return len(self._kept)

    def resume(self, key: Hashable, weight: int | Fraction) -> KeyAccount:
        """Return the account of a key that holds items from now on."""
        return self._kept.pop(key, None) or KeyAccount(key, weight)

    def of(self, key: Hashable, weight: int | Fraction) -> KeyAccount:
        """Return the account of a key that waits to hold items; this changes nothing."""
        return self._kept.get(key) or KeyAccount(key, weight)

    def put_aside(self, account: KeyAccount) -> None:
        """Put aside the account of a key that no longer holds items."""
        self._kept[account.key] = account
        if len(self._kept) > 2 * self._limit:  # in bulk: finding the lowest each time would cost more than serving
            self._kept = {each.key: each for each in self._greatest(self._kept.values())}

    def greatest(self, live: Iterable[KeyAccount]) -> list[KeyAccount]:
        """Return those with the highest cost, of the kept and the live ones, highest first."""
        return self._greatest({each.key: each for each in (*live, *self._kept.values())}.values())

    def _greatest(self, accounts: Iterable[KeyAccount]) -> list[KeyAccount]:
        return nlargest(self._limit, accounts, key=_cost)


def _cost(account: KeyAccount) -> int | Fraction:
    return account.cost
