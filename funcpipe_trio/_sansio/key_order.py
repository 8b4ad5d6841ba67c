"""Which item may be worked on next, if items of one key must go one at a time and in order? One lane for each key.

The rule: an item is free if no earlier item of its key is waiting or being worked on; of the free items the oldest is
taken first, so no key waits for another's queue. `done` frees the next of its key.

The invariant: a key has a lane only while an item of it waits or is being worked on; an idle key costs nothing. Keys
are hashed and compared, items never are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from heapq import heappop, heappush
from typing import Any, TypeAlias

Place: TypeAlias = tuple[int, Hashable, Any]
"""Position, key, and the item (in whatever form its owner keeps it)."""


class KeyOrder:
    """Items that wait, each in the lane of its key."""

    def __init__(self) -> None:
        self._lanes: dict[Hashable, deque[Place]] = {}  # the items that wait behind the first of each key
        self._free: list[Place] = []  # a heap: by position, which no two items share, so nothing else is compared
        self._waiting = 0

    def __len__(self) -> int:
        """How many items wait."""
        return self._waiting

    @property
    def keys(self) -> int:
        """How many keys have a lane."""
        return len(self._lanes)

    @property
    def ready(self) -> bool:
        """Whether `take` has an item."""
        return bool(self._free)

    def add(self, key: Hashable, position: int, entry: Any) -> None:
        """Put an item at the end of its lane; positions must grow."""
        lane = self._lanes.get(key)
        if lane is None:
            self._lanes[key] = deque()
            heappush(self._free, (position, key, entry))
        else:
            lane.append((position, key, entry))
        self._waiting += 1

    def take(self) -> Any:
        """Take the oldest free item; its key is busy until `done`."""
        self._waiting -= 1
        return heappop(self._free)[2]

    def done(self, key: Hashable) -> None:
        """Free the next item of a key."""
        lane = self._lanes[key]
        if lane:
            heappush(self._free, lane.popleft())
        else:
            del self._lanes[key]

    def withdraw(self, is_unwanted: Callable[[int], bool]) -> list[Any]:
        """Remove and return the waiting items whose position is unwanted, oldest first; the others stay."""
        gone: list[Place] = []

        def keep(places: Iterable[Place]) -> list[Place]:
            gone.extend(place for place in places if is_unwanted(place[0]))
            return [place for place in places if not is_unwanted(place[0])]

        for key, lane in self._lanes.items():
            self._lanes[key] = deque(keep(lane))
        was_free = self._free
        self._free = keep(sorted(was_free))  # sorted: a heap
        for position, key, _entry in was_free:
            if is_unwanted(position):
                self.done(key)  # no worker has it, so the next of its key is free
        self._waiting -= len(gone)
        return [entry for _position, _key, entry in sorted(gone)]
