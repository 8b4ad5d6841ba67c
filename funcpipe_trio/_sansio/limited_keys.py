"""For which keys is it remembered what counts against their limits, if that is done for so many at most?

The rule: each key has meters of its own (`meter`). It is remembered while a call of it waits (`enter` to `leave`), and
until all its meters are as good as new ones: a new key would do the same, so such a key is forgotten. That is looked
for only when a key needs room, and for one that has just been left. A key that comes while so many others are
remembered has no meters until there is room; who asks for it first, gets it first, is the caller's order.

The invariant: at most `max_keys` keys have meters; except that a key whose call is settled, or makes it pause, after it
was forgotten is remembered again. Keys are hashed and compared, nothing else. It is told the time; it never waits.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from copy import copy
from fractions import Fraction
from heapq import heapify, heappop, heappush

from ..policies.rate_limit import AnyLimit
from .meter import Meter
from .meters import meter_of

_SPARE = 64
"""Entries of the heap that are no longer true, before it is made anew."""


class LimitedKey:
    """One key, and what counts against its limits."""

    __slots__ = ("calls", "entry", "key", "meters")

    def __init__(self, key: Hashable) -> None:
        self.key = key
        self.meters: Sequence[Meter] = ()  # of each limit; empty until there is room for it
        self.calls = 0  # those that wait
        self.entry = 0  # the number of its entry among the idle ones that is true; 0: none

    def ready_at(self, now: float, costs: Sequence[int | Fraction]) -> float:
        """Return the earliest time at which all its meters have the tokens of a call."""
        return max(meter.when(now, cost) for meter, cost in zip(self.meters, costs, strict=True))

    def full_at(self, now: float) -> float:
        """Return when it may be forgotten, if nothing is taken."""
        return max(meter.full_at(now) for meter in self.meters)


class LimitedKeys:
    """The keys under some limits that are remembered."""

    def __init__(self, max_keys: int, rate_limits: Sequence[AnyLimit]) -> None:
        self._max_keys = max_keys
        self._new = [meter_of(limit) for limit in rate_limits]  # copied for each key
        self._known: dict[Hashable, LimitedKey] = {}  # those that have meters, and those that wait for room
        self._metered = 0  # how many of them have meters
        self._idle: list[tuple[float, int, LimitedKey]] = []  # a heap: when one of them will be full; not all are true
        self._entries = 0  # made so far, which numbers them

    def __len__(self) -> int:
        """Return how many keys have meters."""
        return self._metered

    def enter(self, key: Hashable) -> LimitedKey:
        """Called when a call of a key comes; it may have no meters yet: see `make_room`."""
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = LimitedKey(key)
        known.calls += 1
        known.entry = 0
        return known

    def make_room(self, key: LimitedKey, now: float) -> float | None:
        """Give a key its meters and return None; or return when to ask again, if no other key is left before."""
        if key.meters:
            return None
        if self._metered >= self._max_keys:
            self._forget(now)
            if self._metered >= self._max_keys:
                return self._idle[0][0] if self._idle else math.inf
        self._give(key, [copy(meter) for meter in self._new])
        return None

    def leave(self, key: LimitedKey, now: float) -> None:
        """Called when a call goes on, or is given up."""
        key.calls -= 1
        if not key.calls:
            if key.meters:
                self._rest(key, now)
            else:
                del self._known[key.key]

    def again(self, key: LimitedKey) -> LimitedKey:
        """Return the key whose meters count now for the key of a call that went on: itself, if it was forgotten.

        The caller changes these meters, and then says so (`changed`).
        """
        known = self._known.get(key.key)
        if known is None:  # it was forgotten, when its meters were full
            known = self._known[key.key] = key
            self._metered += 1
        elif not known.meters:
            self._give(known, key.meters)
        return known

    def changed(self, key: LimitedKey, now: float) -> None:
        """Called when meters of a key were changed: by a settlement, or a pause."""
        if not key.calls:
            self._rest(key, now)

    def _give(self, key: LimitedKey, meters: Sequence[Meter]) -> None:
        key.meters = meters
        self._metered += 1

    def _rest(self, key: LimitedKey, now: float) -> None:
        """Note when a key may be forgotten of which no call waits; forget it if that is now."""
        at = key.full_at(now)
        if at <= now:
            self._drop(key)
            return
        self._entries += 1
        key.entry = self._entries
        heappush(self._idle, (at, key.entry, key))
        if len(self._idle) > 2 * self._metered + _SPARE:
            self._idle = [each for each in self._idle if each[2].entry == each[1]]
            heapify(self._idle)

    def _forget(self, now: float) -> None:
        """Forget what is full."""
        while self._idle and (self._idle[0][0] <= now or self._idle[0][2].entry != self._idle[0][1]):
            _at, entry, key = heappop(self._idle)
            if key.entry == entry:
                self._rest(key, now)

    def _drop(self, key: LimitedKey) -> None:
        del self._known[key.key]
        key.entry = 0
        self._metered -= 1
