"""`RateLimiter`, a token bucket that many tasks wait for: which goes next, and what does a cancelled one leave behind?

The choice is `_sansio.token_bucket`, the waiting is `TokenQueue`: first come, first served, whatever the costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from fractions import Fraction

import trio

from ..._base import checks
from ..._base.frozen import dataclass
from ..._base.shown import shown
from ...policies.rate_limit import RateLimit, RollingLimit, checked_limit
from .token_queue import SharedBucket, TokenQueue


@dataclass(frozen=True, slots=True)
class RateLimiterStatistics:
    """The state of a `RateLimiter` at one instant."""

    rate_limit: RateLimit | RollingLimit
    """The limit in force."""
    tokens: float
    """How many tokens the bucket holds."""
    tasks_waiting: int
    """How many tasks wait for tokens."""
    acquired: int
    """How often it was acquired."""
    acquired_cost: int | Fraction
    """What that cost in total."""
    waited: float = field(default=0.0, compare=False)
    """Seconds in which tasks waited for tokens, summed over the tasks; a task that waits for several limiters counts
    at each. Waits that are not over count up to now. Two snapshots may be equal without it."""


class RateLimiter:
    """One rate limit for many: steps, pipelines, and plain trio code that share it keep it together.

    In every window [s, t], what was acquired costs at most ``burst + rate/per * (t - s)``, exactly, by trio's clock, at
    the instant at which `acquire` returns. Waiting tasks are served in the order in which they came.

    It belongs to no run: it may be made before trio runs, and serve several runs one after the other. Each run has a
    clock of its own, so at its first use in a run the limiter holds what it held at its last use in the run before. It
    is not for use from other threads: a use in a trio run is a `StateError` while another run that used it is not over.

    Args:
      rate_limit: how many may start in how much time.

    Raises:
      TypeError: if that is not a `RateLimit`.
    """

    def __init__(self, rate_limit: RateLimit | RollingLimit) -> None:
        checked_limit("RateLimiter", "rate_limit", rate_limit)
        self._shared = SharedBucket(rate_limit)  # its tokens; steps also wait for them
        self._line = TokenQueue(self._shared)  # tasks that wait for them and for no others

    def __repr__(self) -> str:
        return f"RateLimiter({self._shared.meter.rate_limit!r})"

    @property
    def rate_limit(self) -> RateLimit | RollingLimit:
        """The limit in force."""
        return self._shared.meter.rate_limit

    @trio.lowlevel.enable_ki_protection
    async def acquire(self, cost: int | Fraction = 1) -> None:
        """Wait for tokens, and take them: what they are for may start at once.

        Args:
          cost: tokens, an int or Fraction > 0, at most the burst.

        Raises:
          TypeError: if `cost` has a wrong type.
          ValueError: if it is out of range; a cost above the burst could never be paid.

        Checkpoint: always.
        Cancellation: the place in line is given back, and no token is lost.
        """
        await self._line.take((self._checked(cost),), checkpoint=True)

    def acquire_nowait(self, cost: int | Fraction = 1) -> None:
        """Take tokens, if they are there and no task waits for them.

        Raises:
          trio.WouldBlock: if they are not there, or a task waits; nothing was taken.
          TypeError: if `cost` has a wrong type.
          ValueError: if it is out of range.

        Checkpoint: never (sync, inside of a trio run).
        """
        if not self._line.try_take((self._checked(cost),)):
            self._shared.now()
            raise trio.WouldBlock

    @trio.lowlevel.enable_ki_protection
    def set_rate(self, rate_limit: RateLimit | RollingLimit) -> None:
        """Change the limit from now on, also for waiting tasks; tokens that are there stay.

        Raises:
          TypeError: if it is not a `RateLimit`.
          ValueError: if its burst is less than a waiting task needs; nothing was changed.

        Checkpoint: never (sync, inside of a trio run).
        """
        checked_limit("RateLimiter.set_rate", "rate_limit", rate_limit)
        needed = max((line.most(self._shared) for line in self._shared.lines), default=1)
        if rate_limit.burst < needed:
            rule = f"be >= {shown(needed)}, which a waiting task needs"
            raise checks.refuse(ValueError, "RateLimiter.set_rate", "burst", rule, rate_limit.burst)
        self._shared.set_rate(rate_limit)

    def statistics(self) -> RateLimiterStatistics:
        """Return what it holds, and what it gave. Sync, inside of a trio run."""
        now = self._shared.now()
        return RateLimiterStatistics(
            rate_limit=self._shared.meter.rate_limit,
            tokens=self._shared.meter.tokens(now),
            tasks_waiting=sum(map(len, self._shared.lines)),
            acquired=self._shared.acquired,
            acquired_cost=self._shared.acquired_cost,
            waited=self._shared.waited(now),
        )

    def _checked(self, cost: int | Fraction) -> int | Fraction:
        checks.cost("RateLimiter", "cost", cost)
        if cost > self._shared.meter.rate_limit.burst:
            rule = f"be <= the burst of {shown(self._shared.meter.rate_limit.burst)}, or it could never be paid"
            raise checks.refuse(ValueError, "RateLimiter", "cost", rule, cost)
        return cost


def queue_of(limiters: Sequence[RateLimiter]) -> TokenQueue:
    """Return the queue in which a call waits for tokens of all limiters at once: of one, its own."""
    return limiters[0]._line if len(limiters) == 1 else TokenQueue(*(limiter._shared for limiter in limiters))


def checked_cost(limiter: RateLimiter, cost: int | Fraction) -> int | Fraction:
    """Return what a call takes from a limiter, if it may take that."""
    return limiter._checked(cost)
