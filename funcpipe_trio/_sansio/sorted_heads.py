"""Which of the items that stand first in sorted inputs comes next?

The rule: the least of them (with `reverse`, the greatest); of equal ones, that of the earliest input. Ranks are
compared by ``<`` alone, as `sorted` does, once for each halving of the heads.

The invariant: an item is here from when `add` returned until `take` or `clear` gave it back. If a comparison raises,
nothing has changed.
"""

from __future__ import annotations

from bisect import insort
from typing import Any


class Head:
    """The first item of an input."""

    __slots__ = ("item", "number", "rank")

    def __init__(self, number: int, rank: Any, item: Any) -> None:
        self.number = number  # of its input
        self.rank = rank  # what is compared
        self.item = item

    def __lt__(self, other: Head) -> bool:
        if self.number > other.number:
            return bool(self.rank < other.rank)
        return not other.rank < self.rank


class _Descending(Head):
    """The first item of an input whose greatest items come first."""

    __slots__ = ()

    def __lt__(self, other: Head) -> bool:
        if self.number > other.number:
            return bool(other.rank < self.rank)
        return not self.rank < other.rank


class SortedHeads:
    """The first items of some inputs, at most one of each, in their order."""

    def __init__(self, *, reverse: bool) -> None:
        self.reverse = reverse  # whether the greatest comes first
        self._kind = _Descending if reverse else Head
        self._heads: list[Head] = []  # the next one first; a list that `clear` gave up is not changed any more

    def __len__(self) -> int:
        return len(self._heads)

    def add(self, number: int, rank: Any, item: Any) -> None:
        """Add the first item of an input that has none here; comparing may raise, or call anything."""
        insort(self._heads, self._kind(number, rank, item))

    def take(self) -> Head:
        """Take out the one that comes next."""
        return self._heads.pop(0)

    def clear(self) -> list[Any]:
        """Take out all items, also in the middle of a comparison; what is being added then is not among them."""
        heads, self._heads = self._heads, []
        return [head.item for head in heads]
