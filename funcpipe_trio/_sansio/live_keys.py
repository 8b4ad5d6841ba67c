"""Which keys are in use, if only so many may be at once? And which of them makes room for a new one?

The rule: a key is in use from `add` to `forget`. When `max_keys` are, the one that was idle longest makes room (the one
whose last `touch` is longest ago), or one more is an error. What is kept for a key knows its key.

Keys are hashed and compared, when a key is looked up, comes or goes; the order is one of what is kept, which hashes by
identity. It decides nothing about what is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from .._base.errors import TooManyKeys


class Kept(Protocol):
    """What is kept for a key."""

    key: Hashable
    """The key that it is kept for."""


K = TypeVar("K", bound=Kept)


class LiveKeys(Generic[K]):
    """What is kept for the keys in use."""

    __slots__ = ("_by_last", "_fails", "_live", "_max_keys", "_what", "of", "touch")

    def __init__(self, max_keys: int, what: str, *, fails: bool) -> None:
        self._max_keys = max_keys
        self._what = what  # each of them has, for the error
        self._fails = fails
        self._live: dict[Hashable, K] = {}  # in the order in which they came
        self._by_last: OrderedDict[K, None] = OrderedDict()
        self.of: Callable[[Hashable], K | None] = self._live.get
        """Return what is kept for a key; None for nothing."""
        self.touch: Callable[[K], None] = self._by_last.move_to_end
        """Called with what is kept for a key of which an item came."""

    def __len__(self) -> int:
        """How many keys are in use."""
        return len(self._live)

    @property
    def kept(self) -> list[K]:
        """What is kept, in the order in which the keys came."""
        return list(self._live.values())

    def in_the_way(self) -> K | None:
        """Return what has to be forgotten before one more key may come, if anything has; raise if none may come."""
        if len(self._live) < self._max_keys:
            return None
        if self._fails:
            raise TooManyKeys(self._max_keys, self._what)
        return next(iter(self._by_last))

    def add(self, kept: K) -> None:
        """Keep something for a key that was not in use."""
        self._live[kept.key] = kept
        self._by_last[kept] = None

    def clear(self) -> list[K]:
        """Forget everything; return what was kept, in the order in which the keys came."""
        kept = self.kept
        self._live.clear()
        self._by_last.clear()
        return kept

    def forget(self, kept: K) -> None:
        """Keep nothing for that key any more."""
        del self._live[kept.key], self._by_last[kept]
