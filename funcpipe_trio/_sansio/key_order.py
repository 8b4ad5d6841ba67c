"""Which item may be worked on next, if only so many of one key may be at once, or in a given time? A lane for each key.

The rule: the items of a key start in their order. The first that waits is free if fewer than `per_key` of its key are
being worked on, and, under a rate limit, the key's own meter has a token; of the free items the oldest is taken first,
so no key waits for another's queue. `done` makes room for the next of its key. The token is taken when the call begins
(`begun`), so the bound of the limit holds for the calls of each key.

The invariant: a key has a lane only while an item of it waits or is being worked on, or its meter is not full; an idle
key costs nothing. Keys are hashed and compared, items never are. It is told the time; it never waits: at `deadline` it
must be told (`advance`).
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from copy import copy
from heapq import heapify, heappop, heappush
from typing import Any

from ..policies.rate_limit import AnyLimit
from .meter import Meter
from .meters import meter_of


class _Lane:
    """One key: the items of it that wait behind the free one."""

    __slots__ = ("busy", "is_offered", "key", "meter", "waiting")

    def __init__(self, key: Hashable, meter: Meter | None) -> None:
        self.key = key
        self.waiting: deque[tuple[int, Any]] = deque()  # (position, entry)
        self.busy = 0
        self.is_offered = False  # its next item is free, or will be at a known time, or was taken and has not begun
        self.meter = meter


class KeyOrder:
    """Items that wait, each in the lane of its key."""

    def __init__(self, per_key: int = 1, rate_limit: AnyLimit | None = None) -> None:
        self._per_key = per_key
        self._full = None if rate_limit is None else meter_of(rate_limit)  # copied for each key
        self._lanes: dict[Hashable, _Lane] = {}
        # Heaps: by position, or by time and position, which no two items share, so nothing else is compared.
        self._free: list[tuple[int, _Lane, Any]] = []
        self._timed: list[tuple[float, int, _Lane]] = []  # lanes whose next item will be free
        self._resting: OrderedDict[_Lane, None] = OrderedDict()  # those without items whose meter may not be full
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

    @property
    def deadline(self) -> float:
        """When the next item will be free that waits for its key's rate; inf if none does."""
        return self._timed[0][0] if self._timed else math.inf

    def add(self, key: Hashable, position: int, entry: Any, now: float) -> None:
        """Put an item at the end of its lane; positions must grow."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(key, None if self._full is None else copy(self._full))
        if self._resting:
            self._resting.pop(lane, None)
            self._forget_rested(now)
        self._waiting += 1
        if lane.meter is None and not lane.is_offered and lane.busy < self._per_key:  # then none of it waits
            lane.is_offered = True
            heappush(self._free, (position, lane, entry))
        else:
            lane.waiting.append((position, entry))
            self._offer(lane, now)

    def take(self, now: float) -> Any:
        """Take the oldest free item; its key has one place less until `done`.

        Under a rate limit no other of its key is free until `begun`, which may be left out only if all behind it is
        given up.
        """
        _position, lane, entry = heappop(self._free)
        self._waiting -= 1
        lane.busy += 1
        if lane.meter is None:
            lane.is_offered = False
            if lane.waiting:
                self._offer(lane, now)
        return entry

    def begun(self, key: Hashable, now: float, *, is_call: bool = True) -> None:
        """Called when the call of an item that was taken begins, under a rate limit: this takes its token.

        With `is_call` false the item passes without one, and takes none.
        """
        lane = self._lanes[key]
        assert lane.meter is not None
        if is_call:
            lane.meter.take(now, 1)  # it was there, and nobody else takes of it
        lane.is_offered = False
        self._offer(lane, now)

    def done(self, key: Hashable, now: float) -> None:
        """Make room for the next item of a key."""
        lane = self._lanes[key]
        lane.busy -= 1
        if lane.waiting or lane.meter is not None:
            self._offer(lane, now)
        elif not (lane.busy or lane.is_offered):
            del self._lanes[key]

    def advance(self, now: float) -> None:
        """Free the items whose time has come."""
        while self._timed and self._timed[0][0] <= now:
            lane = heappop(self._timed)[2]
            lane.is_offered = False
            self._offer(lane, now)

    def withdraw(self, is_unwanted: Callable[[int], bool], now: float) -> list[Any]:
        """Remove and return the waiting items whose position is unwanted, oldest first; the others stay."""
        gone: list[tuple[int, Any]] = []
        was_free, self._free = self._free, []
        for place in was_free:
            if is_unwanted(place[0]):
                gone.append((place[0], place[2]))
                place[1].is_offered = False
            else:
                self._free.append(place)
        heapify(self._free)
        for lane in list(self._lanes.values()):
            gone += [place for place in lane.waiting if is_unwanted(place[0])]
            lane.waiting = deque(place for place in lane.waiting if not is_unwanted(place[0]))
            self._offer(lane, now)
        self._waiting -= len(gone)
        return [entry for _position, entry in sorted(gone)]  # no two have the same position

    def _offer(self, lane: _Lane, now: float) -> None:
        """Make the next item of a lane free if its key may start one now, or note when it may; forget an idle lane."""
        if lane.is_offered or lane.busy >= self._per_key:
            return
        if not lane.waiting:
            if not lane.busy:
                self._rest(lane, now)
            return
        lane.is_offered = True
        at = now if lane.meter is None else lane.meter.when(now, 1)
        if at > now:
            heappush(self._timed, (at, lane.waiting[0][0], lane))
        else:
            position, entry = lane.waiting.popleft()
            heappush(self._free, (position, lane, entry))

    def _rest(self, lane: _Lane, now: float) -> None:
        if lane.meter is None or lane.meter.is_full(now):
            del self._lanes[lane.key]
            self._resting.pop(lane, None)
        else:
            self._resting[lane] = None

    def _forget_rested(self, now: float) -> None:
        """Forget lanes whose meter is full again: a new one would do the same."""
        while self._resting:
            lane = next(iter(self._resting))
            assert lane.meter is not None
            if not lane.meter.is_full(now):
                return
            del self._resting[lane], self._lanes[lane.key]
