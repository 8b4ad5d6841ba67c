"""Which key waited for how long for a limit, when new keys keep coming?

At a limiter, a key has an account while one of its calls waits; then the account is put aside, and of these ten
thousand, those with the longest waits, are kept for sure (`key_accounts`). A step counts the waits that are over, by
limit and key. So memory does not grow with the number of keys that ever came.
"""

from __future__ import annotations

from collections.abc import Hashable
from fractions import Fraction

from .key_accounts import MOST_REMEMBERED, MOST_SHOWN, KeyAccounts


class KeyWait:
    """What one key got, and how long it waited for that."""

    __slots__ = ("_counted", "_waited", "acquired", "cost", "key", "longest", "waiting")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.acquired = 0
        """How often it got what it needs."""
        self.cost: int | Fraction = 0
        """What that cost."""
        self.waiting = 0
        """Its calls that wait now."""
        self.longest = 0.0
        """The longest wait of a call that is over, in seconds."""
        self._waited = 0.0  # up to when the number of waiting calls last changed
        self._counted = 0.0  # when that was

    def waited(self, now: float) -> float:
        """Return the seconds in which its calls waited, summed over them; with the waits that are not over."""
        return self._waited + self.waiting * (now - self._counted)

    def change(self, now: float, by: int) -> None:
        """Count one waiting call more, or one less."""
        self._waited, self._counted = self.waited(now), now
        self.waiting += by


class KeyWaits:
    """The accounts of all keys of a limit."""

    def __init__(self, *, shown: int = MOST_SHOWN, remembered: int = MOST_REMEMBERED) -> None:
        self._live: dict[Hashable, KeyWait] = {}  # of keys that wait
        self._aside: KeyAccounts[KeyWait] = KeyAccounts(_rank, shown=shown, remembered=remembered)

    def begin(self, key: Hashable, now: float) -> None:
        """Count a call that begins to wait."""
        account = self._live.get(key)
        if account is None:
            account = self._live[key] = self._aside.resume(key) or KeyWait(key)
        account.change(now, 1)

    def end(self, key: Hashable, since: float, now: float) -> None:
        """Count a call that has waited since then, served or not."""
        account = self._live[key]
        account.change(now, -1)
        account.longest = max(account.longest, now - since)
        if not account.waiting:
            del self._live[key]
            self._aside.put_aside(account)

    def took(self, key: Hashable, cost: int | Fraction) -> None:
        """Count what a call took, whether it waits or not."""
        self._count(key, 1, cost)

    def settled(self, key: Hashable, more: int | Fraction) -> None:
        """Count what a call has really cost more than it took, or less."""
        self._count(key, 0, more)

    def _count(self, key: Hashable, times: int, cost: int | Fraction) -> None:
        live = self._live.get(key)
        account = live or self._aside.resume(key) or KeyWait(key)
        account.acquired, account.cost = account.acquired + times, account.cost + cost
        if live is None:
            self._aside.put_aside(account)

    def greatest(self, now: float) -> list[KeyWait]:
        """Return the accounts of those that waited longest, longest first, with the waits that are not over."""
        return self._aside.greatest(self._live.values(), lambda account: account.waited(now))


def _rank(account: KeyWait) -> float:
    return account.waited(account._counted)


class LimitWait:
    """What the calls of one key have waited for one limit."""

    __slots__ = ("calls", "key", "longest", "waited")

    def __init__(self, key: tuple[str, Hashable]) -> None:
        self.key = key
        """The limit, and the key there."""
        self.calls = 0
        """Calls that waited."""
        self.waited = 0.0
        """Seconds in which they waited, summed over them."""
        self.longest = 0.0
        """The longest of these waits."""


class LimitWaits:
    """The waits that are over, of the calls of one step, by limit and key."""

    def __init__(self, *, shown: int = MOST_SHOWN, remembered: int = MOST_REMEMBERED) -> None:
        self._accounts: KeyAccounts[LimitWait] = KeyAccounts(_waited, shown=shown, remembered=remembered)

    def count(self, limit: str, key: Hashable, seconds: float) -> None:
        """Count one wait."""
        place = (limit, key)
        account = self._accounts.resume(place) or LimitWait(place)
        account.calls, account.waited = account.calls + 1, account.waited + seconds
        account.longest = max(account.longest, seconds)
        self._accounts.put_aside(account)

    def greatest(self) -> list[LimitWait]:
        """Return those that waited longest, longest first."""
        return self._accounts.greatest(())


def _waited(account: LimitWait) -> float:
    return account.waited
