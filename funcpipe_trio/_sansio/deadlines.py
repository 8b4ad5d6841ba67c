"""Which of many deadlines is the first, if each may move? A heap, in which those that moved are skipped.

The rule: each owner has one deadline at most, the one that was set last. Owners hash by identity. It is told the time;
it never waits.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)

_SPARE = 64  # entries that may be out of date before they are removed all at once


class Deadlines(Generic[Owner]):
    """The deadlines of owners."""

    def __init__(self) -> None:
        self._at: dict[Owner, float] = {}
        self._heap: list[tuple[float, int, Owner]] = []  # by time and number, which no two share; some are out of date
        self._number = 0

    @property
    def first(self) -> float:
        """The first deadline; inf without one."""
        heap, at = self._heap, self._at
        while heap and at.get(heap[0][2]) != heap[0][0]:
            heappop(heap)
        return heap[0][0] if heap else math.inf

    def owner_due(self, now: float) -> Owner | None:
        """Return the owner of the first deadline if that is over; None if none is."""
        return self._heap[0][2] if self.first <= now else None

    def at(self, owner: Owner) -> float:
        """Return the deadline of an owner; inf without one."""
        return self._at.get(owner, math.inf)

    def set(self, owner: Owner, at: float) -> None:
        """Set the deadline of an owner; inf for none."""
        if at == self.at(owner):
            return
        self.forget(owner)
        if at < math.inf:
            self._at[owner] = at
            self._number += 1
            heappush(self._heap, (at, self._number, owner))
        if len(self._heap) > 2 * len(self._at) + _SPARE:
            self._heap = [entry for entry in self._heap if self._at.get(entry[2]) == entry[0]]
            heapify(self._heap)

    def forget(self, owner: Owner) -> None:
        """Remove the deadline of an owner, if it has one."""
        self._at.pop(owner, None)
