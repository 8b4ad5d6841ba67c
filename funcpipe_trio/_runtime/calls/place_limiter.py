"""`PlaceLimiter`: how many calls run at once, over all who share it, and which of those that wait is next?

It is a limiter as `RateLimiter` is, with another meter: a call takes a place, and gives it back when it ends.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager
from dataclasses import field
from fractions import Fraction
from types import TracebackType
from typing import Any

import trio

from ..._base import checks
from ..._base.frozen import dataclass
from ..._sansio.fair_lines import Branch
from ..._sansio.places import Places
from ...policies.fair_share import FairShare
from .limiter_keys import KeyWaitReport, LimiterKeys, checked_share, key_waits
from .shared_bucket import Seat, SharedBucket
from .token_queue import TokenQueue

__all__ = ["PlaceLimiter", "PlaceLimiterGroup", "PlaceLimiterStatistics"]


@dataclass(frozen=True, slots=True)
class PlaceLimiterStatistics:
    """The state of a `PlaceLimiter` at one instant."""

    places: int
    """How many calls may run at once."""
    held: int
    """How many run; for a time more than `places`, after that was lowered."""
    tasks_waiting: int
    """How many tasks wait for a place."""
    acquired: int
    """How often a place was taken."""
    waited: float = field(default=0.0, compare=False)
    """Seconds in which tasks waited for a place, summed over the tasks; with the waits that are not over."""
    keys: tuple[KeyWaitReport, ...] = field(default=(), compare=False)
    """Which keys waited for how long, the 100 of the longest waits; empty without shares. The sums are exact for up
    to 10,000 keys; past that the least are forgotten, and counted from 0 again when they come back."""


class PlaceLimiterGroup(LimiterKeys):
    """Keys that share what a `PlaceLimiter` gives to them together; made by its `group`."""

    _kind, _in_a_step = "PlaceLimiter", "Step.places"

    def __init__(self, shared: SharedBucket, branch: Branch | None, line: TokenQueue, meter: Places) -> None:
        super().__init__(shared, branch, line)
        self._meter = meter  # counts the places

    def __repr__(self) -> str:
        return f"PlaceLimiterGroup({self._meter.size})"

    @property
    def places(self) -> int:
        """How many calls may run at once."""
        return self._meter.size

    def group(self, key: Hashable, weight: int | Fraction | None = None) -> PlaceLimiterGroup:
        """Return a group: keys that share, by their weights in it, what the group gets beside other keys and groups.

        See `RateLimiter.group`, which has the same arguments and errors.

        Checkpoint: never (sync).
        """
        return PlaceLimiterGroup(self._shared, self._group(key, weight), self._line, self._meter)

    def hold(self, key: Hashable = None) -> AbstractAsyncContextManager[None]:
        """Hold a place for the time of a block: ``async with places.hold(): ...``.

        Args:
          key: whose share it is, hashable; ignored without shares.

        Raises:
          TypeError: if `key` is not hashable.

        Checkpoint: always when it is entered, never when it is left.
        Cancellation: while it waits, the place in line is given back, and no place is taken.
        """
        return _Hold(self, self._seat(key, "hold"))

    def _is_full(self) -> bool:
        return self._meter.taken >= self._meter.size

    def _release(self) -> None:
        self._meter.release()
        self._shared.poke()


def is_full(limiter: PlaceLimiterGroup) -> bool:
    """Return whether all its places are taken."""
    return limiter._is_full()


def release_place(limiter: PlaceLimiterGroup) -> None:
    """Give a place back that a call has taken."""
    limiter._release()


class _Hold:
    """A block in which a place is held."""

    def __init__(self, limiter: PlaceLimiterGroup, seat: Seat | None) -> None:
        self._limiter = limiter  # whose place
        self._seat = seat  # who waits for it

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> None:
        await self._limiter._line.take((1,), (self._seat,), checkpoint=True)

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(  # noqa: ASYNC124  # sync, so that a cancellation cannot keep it
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._limiter._release()


class PlaceLimiter(PlaceLimiterGroup):
    """So many calls at once, over all who share it: steps, pipelines, and plain trio code.

    Without a `share`, waiting tasks get places in the order in which they came. With one, the keys that wait share the
    places by weight: over any interval in which two keys both wait, the places they got, divided by their weights,
    differ by at most one of each; see `RateLimiter`. A place counts once, however long it is held. Nothing is reserved:
    a key that waits alone gets every place.

    It belongs to no run, and is not for use from other threads: a use in a trio run is a `StateError` while another run
    that used it is not over.

    Args:
      places: calls at once, an int >= 1.
      share: the weights of keys; a key that it does not name has its default weight. Its capacity does not matter, and
        it must have no `cost`.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if `places` is below 1, or the share has a `cost`.
    """

    def __init__(self, places: int, share: FairShare[Any] | None = None) -> None:
        meter = Places(checks.integer("PlaceLimiter", "places", places, at_least=1))
        use = "Use a PlaceLimiter in each of them, with a part of the places."
        shared = SharedBucket(meter, checked_share("PlaceLimiter", share), "PlaceLimiter: it", use)
        super().__init__(shared, shared.top, TokenQueue(shared), meter)

    def __repr__(self) -> str:
        return f"PlaceLimiter({self.places})"

    @trio.lowlevel.enable_ki_protection
    def set_places(self, places: int) -> None:
        """Change how many calls run at once, from now on; calls that run go on.

        Raises:
          TypeError: if `places` is not an int.
          ValueError: if it is below 1.

        Checkpoint: never (sync; inside of the trio run that uses it, if tasks wait).
        """
        self._meter.size = checks.integer("PlaceLimiter.set_places", "places", places, at_least=1)
        self._shared.poke()

    def statistics(self) -> PlaceLimiterStatistics:
        """Return who holds places, and what it gave. Sync, inside of a trio run."""
        now = self._shared.now()
        return PlaceLimiterStatistics(
            places=self.places,
            held=self._meter.taken,
            tasks_waiting=sum(map(len, self._shared.lines)),
            acquired=self._shared.acquired,
            waited=self._shared.waited(now),
            keys=key_waits(self._shared, now),
        )
