"""`RateLimiter`: a token bucket that many tasks wait at. Which of them goes next, and what does a cancelled one leave?

The choice is `sansio.token_bucket`, the waiting is `WaitingLine`: first come, first served, whatever each one costs.
"""

from __future__ import annotations

from fractions import Fraction

import trio

from ..policies import _check
from ..policies._frozen import dataclass
from ..policies._shown import shown
from ..policies.rate_limit import RateLimit
from ..sansio.token_bucket import TokenBucket
from .line import WaitingLine
from .one_run import OneRun

__all__ = ["RateLimiter", "RateLimiterStatistics"]


@dataclass(frozen=True, slots=True)
class RateLimiterStatistics:
    """The state of a `RateLimiter` at one instant."""

    rate_limit: RateLimit
    tokens: float
    """What the bucket holds."""
    tasks_waiting: int
    acquired: int
    """How often it was acquired."""
    acquired_cost: int | Fraction
    """What that cost in all."""


class RateLimiter:
    """One rate limit for many: steps, pipelines, and plain trio code that share it keep it together.

    In every window [s, t], what was acquired costs at most ``burst + rate/per * (t - s)``, exactly, by trio's clock, at
    the instant at which `acquire` returns. Waiting tasks are served in the order in which they came.

    It belongs to no run: it may be made before trio runs, and serve several runs one after the other. Each has a clock
    of its own, so what it held at its last use in one is what it holds at its first use in the next. It is not for use
    from other threads: each use in a trio run is a `StateError` while another that has used it is not over.

    Args:
      rate_limit: how many may start in how much time.

    Raises:
      TypeError: if that is no `RateLimit`.
    """

    def __init__(self, rate_limit: RateLimit) -> None:
        self._bucket = TokenBucket(_limit("RateLimiter", rate_limit))
        self._line = WaitingLine()
        self._run = OneRun("RateLimiter: it", "Use a RateLimiter in each of them, with a part of the rate.")
        self._costs: dict[int, int | Fraction] = {}
        self._joined = 0
        self._acquired = 0
        self._acquired_cost: int | Fraction = 0

    def __repr__(self) -> str:
        return f"RateLimiter({self._bucket.rate_limit!r})"

    @property
    def rate_limit(self) -> RateLimit:
        """The limit in force."""
        return self._bucket.rate_limit

    @trio.lowlevel.enable_ki_protection
    async def acquire(self, cost: int | Fraction = 1) -> None:
        """Wait for tokens, and take them; what follows may start at once.

        Args:
          cost: tokens, an int or Fraction > 0, at most the burst.

        Raises:
          TypeError: if `cost` has a wrong type.
          ValueError: if it is out of range; a cost above the burst could never be paid.

        Checkpoint: always.
        Cancellation: the place in line is given back, and no token is lost.
        """
        await self._wait(self._checked(cost), checkpoint=True)

    def acquire_nowait(self, cost: int | Fraction = 1) -> None:
        """Take tokens, if they are there and nobody waits for them.

        Raises:
          trio.WouldBlock: if that is not so; nothing was taken.
          TypeError: if `cost` has a wrong type.
          ValueError: if it is out of range.

        Checkpoint: never (sync, inside of a trio run).
        """
        if not self._try_acquire(self._checked(cost)):
            self._now()
            raise trio.WouldBlock

    @trio.lowlevel.enable_ki_protection
    def set_rate(self, rate_limit: RateLimit) -> None:
        """Go on under another limit, from now on; who waits is served by it, and the tokens that are there stay.

        Raises:
          TypeError: if it is no `RateLimit`.
          ValueError: if its burst is less than a waiting task needs; nothing was changed.

        Checkpoint: never (sync, inside of a trio run).
        """
        _limit("RateLimiter.set_rate", rate_limit)
        needed = max(self._costs.values(), default=1)
        if rate_limit.burst < needed:
            rule = f"be >= {shown(needed)}, which a waiting task needs"
            raise _check.refuse(ValueError, "RateLimiter.set_rate", "burst", rule, rate_limit.burst)
        self._bucket.set_rate(self._now(), rate_limit)
        self._line.poke()

    def statistics(self) -> RateLimiterStatistics:
        """Say what it holds, and what it gave. Sync, inside of a trio run."""
        return RateLimiterStatistics(
            rate_limit=self._bucket.rate_limit,
            tokens=self._bucket.tokens(self._now()),
            tasks_waiting=len(self._line),
            acquired=self._acquired,
            acquired_cost=self._acquired_cost,
        )

    # ---- for steps, too

    def _try_acquire(self, cost: int | Fraction) -> bool:
        """Take the tokens of a cost that was checked, if they are there and nobody waits."""
        return not len(self._line) and self._take(cost) is None

    def _checked(self, cost: int | Fraction) -> int | Fraction:
        _check.cost("RateLimiter", "cost", cost)
        if cost > self._bucket.rate_limit.burst:
            rule = f"be <= the burst of {shown(self._bucket.rate_limit.burst)}, or it could never be paid"
            raise _check.refuse(ValueError, "RateLimiter", "cost", rule, cost)
        return cost

    async def _wait(self, cost: int | Fraction, *, checkpoint: bool = False) -> None:
        """Wait for the tokens of a cost that was checked; they are taken in the step in which this returns."""
        self._now()  # refuses another run, whose tasks this one could not wake
        number, self._joined = self._joined, self._joined + 1
        self._costs[number] = cost
        try:
            await self._line.join(lambda: self._take(cost), checkpoint=checkpoint)
        finally:
            del self._costs[number]

    def _take(self, cost: int | Fraction) -> float | None:
        again_at = self._bucket.take(self._now(), cost)
        if again_at is None:
            self._acquired += 1
            self._acquired_cost += cost
        return again_at

    def _now(self) -> float:
        clock = trio.lowlevel.current_clock()
        now = clock.current_time()
        if clock is not self._run.clock:  # another run: its times cannot be compared with those of the last
            self._run.enter()
            self._bucket.rebase(now)
        return now


def _limit(where: str, value: RateLimit) -> RateLimit:
    if not isinstance(value, RateLimit):
        raise _check.refuse(TypeError, where, "rate_limit", "be a RateLimit", value)
    return value
