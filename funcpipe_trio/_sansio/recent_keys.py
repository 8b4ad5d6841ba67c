"""Was this key seen recently? A memory of the keys seen last, of a fixed size.

The rule: it knows the last `remember` distinct keys of all that it was asked about, whatever it answered (least
recently seen, first forgotten). So a key that keeps coming is known as long as fewer than `remember` others come in
between, and one that stays away is forgotten.
"""

from __future__ import annotations

from collections.abc import Hashable


class RecentKeys:
    """Remembers keys."""

    __slots__ = ("_keys", "_remember")

    def __init__(self, remember: int) -> None:
        self._remember = remember
        self._keys: dict[Hashable, None] = {}  # in the order in which they were last seen

    def is_new(self, key: Hashable) -> bool:
        """Record a key; return whether it was not known before."""
        keys = self._keys
        is_new = key not in keys
        if not is_new:
            del keys[key]
        keys[key] = None
        if len(keys) > self._remember:
            del keys[next(iter(keys))]
        return is_new
