"""`RateLimiter`, a limit that many tasks wait for: which goes next, and what does a cancelled one leave behind?

When tokens are there is decided by a meter (`_sansio.meters`), the waiting is `TokenQueue`. Without shares it is first
come, first served, whatever the costs; with shares the keys that wait are served by weight.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import field
from fractions import Fraction
from typing import Any

import trio

from ..._base import checks
from ..._base.frozen import dataclass
from ..._base.shown import shown
from ..._sansio.meters import meter_of, meter_under
from ...policies.fair_share import FairShare
from ...policies.rate_limit import AnyLimit, broken_rule, checked_limit
from .limiter_keys import KeyWaitReport, LimiterKeys, checked_share, key_waits
from .shared_bucket import SharedBucket
from .token_queue import TokenQueue

__all__ = ["RateLimiter", "RateLimiterGroup", "RateLimiterStatistics", "checked_cost"]


@dataclass(frozen=True, slots=True)
class RateLimiterStatistics:
    """The state of a `RateLimiter` at one instant."""

    rate_limit: AnyLimit
    """The limit in force."""
    tokens: float
    """How many tokens it holds: calls of cost 1 that may start now."""
    tasks_waiting: int
    """How many tasks wait for tokens."""
    acquired: int
    """How often it was acquired."""
    acquired_cost: int | Fraction
    """What that cost in total."""
    waited: float = field(default=0.0, compare=False)
    """Seconds in which tasks waited for tokens, summed over the tasks; a task that waits for several limiters counts
    at each. Waits that are not over count up to now. Two snapshots may be equal without it."""
    paused_until: float | None = None
    """When its pause ends, by trio's clock; None if it is not paused."""
    keys: tuple[KeyWaitReport, ...] = field(default=(), compare=False)
    """Which keys waited for how long, the 100 of the longest waits; empty without shares. The sums are exact for up
    to 10,000 keys; past that the least are forgotten, and counted from 0 again when they come back."""


class RateLimiterGroup(LimiterKeys):
    """Keys that share what a `RateLimiter` gives to them together; made by its `group`."""

    _kind, _in_a_step = "RateLimiter", "Step.rate_limit"

    def __repr__(self) -> str:
        return f"RateLimiterGroup({self.rate_limit!r})"

    @property
    def rate_limit(self) -> AnyLimit:
        """The limit in force."""
        return self._shared.meter.rate_limit

    def group(self, key: Hashable, weight: int | Fraction | None = None) -> RateLimiterGroup:
        """Return a group: keys that share, by their weights in it, what the group gets beside other keys and groups.

        ``limiter.group("acme", 3).acquire(key="nightly")``: first the tenant, then the job. The same key names the
        same group, whose name in the `FairShare` is a tuple: ``("acme", "nightly")`` for a key in it.

        Args:
          key: its name, hashable. It is no key of a call: that would be another member, with the same weight.
          weight: its weight from now on, an int or Fraction > 0; without it, what was set or the `FairShare` says.

        Raises:
          TypeError: if an argument has a wrong type.
          ValueError: if the weight is not positive, or the limiter has no shares.

        Checkpoint: never (sync).
        """
        return RateLimiterGroup(self._shared, self._group(key, weight), self._line)

    @trio.lowlevel.enable_ki_protection
    async def acquire(self, cost: int | Fraction = 1, key: Hashable = None) -> None:
        """Wait for tokens, and take them: what they are for may start at once.

        Args:
          cost: tokens, an int or Fraction > 0, at most the burst; under a `RollingLimit` a whole number.
          key: whose share it is, hashable; ignored without shares.

        Raises:
          TypeError: if `cost` has a wrong type, or `key` is not hashable.
          ValueError: if the cost is out of range; one above the burst could never be paid.

        Checkpoint: always.
        Cancellation: the place in line is given back, and no token is lost.
        """
        await self._line.take((self._checked(cost),), (self._seat(key, "acquire"),), checkpoint=True)

    @trio.lowlevel.enable_ki_protection
    def acquire_nowait(self, cost: int | Fraction = 1, key: Hashable = None) -> None:
        """Take tokens, if they are there and no task waits for them.

        Raises:
          trio.WouldBlock: if they are not there, or a task waits; nothing was taken.
          TypeError: if `cost` has a wrong type, or `key` is not hashable.
          ValueError: if the cost is out of range.

        Checkpoint: never (sync, inside of a trio run).
        """
        if not self._line.try_take((self._checked(cost),), (self._seat(key, "acquire_nowait"),)):
            self._shared.now()
            raise trio.WouldBlock

    def _checked(self, cost: int | Fraction) -> int | Fraction:
        return check_cost("RateLimiter", self._shared.meter.rate_limit, cost)


class RateLimiter(RateLimiterGroup):
    """One limit for many: steps, pipelines, and plain trio code that share it keep it together.

    In every window [s, t], what was acquired costs at most ``burst + rate/per * (t - s)`` (under a `RollingLimit`: in
    every window of its length at most `n`), exactly, by trio's clock, at the instant at which `acquire` returns.

    Without a `share`, waiting tasks are served in the order in which they came. With one, the keys that wait share it
    by weight: over any interval in which two keys both wait, what they got, divided by their weights, differs by at
    most one call of each (start-time fair queueing, P. Goyal, H. M. Vin, H. Cheng, SIGCOMM 1996). Who is next is chosen
    when the tokens are there, so a key that was idle is served soon, and gets nothing for the time away. Nothing is
    reserved: a key that waits alone gets everything. The calls of one key are served in the order in which they came.

    It belongs to no run: it may be made before trio runs, and serve several runs one after the other. Each run has a
    clock of its own, so at its first use in a run the limiter holds what it held at its last use in the run before. It
    is not for use from other threads: a use in a trio run is a `StateError` while another run that used it is not over.

    Args:
      rate_limit: how many may start in how much time, a `RateLimit` or a `RollingLimit`.
      share: the weights of keys; a key that it does not name has its default weight. Its capacity does not matter, and
        it must have no `cost`: that is what is acquired.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if the share has a `cost`.
    """

    def __init__(self, rate_limit: AnyLimit, share: FairShare[Any] | None = None) -> None:
        limit = checked_limit("RateLimiter", "rate_limit", rate_limit)
        use = "Use a RateLimiter in each of them, with a part of the rate."
        shared = SharedBucket(meter_of(limit), checked_share("RateLimiter", share), "RateLimiter: it", use)
        super().__init__(shared, shared.top, TokenQueue(shared))

    def __repr__(self) -> str:
        return f"RateLimiter({self.rate_limit!r})"

    @trio.lowlevel.enable_ki_protection
    def set_rate(self, rate_limit: AnyLimit) -> None:
        """Change the limit from now on, also for waiting tasks.

        What is there stays, up to the new burst: tokens of a bucket, and starts that count under a `RollingLimit`,
        which count from then on for the new length (those that it has forgotten do not come back). From one kind to the
        other: as many calls may start at once as could before, and what is missing counts as taken now. Debts and a
        pause go on. (Nothing is missing in a bucket of which nothing was taken yet, or if no start counts.)

        Raises:
          TypeError: if it is not a `RateLimit` or a `RollingLimit`.
          ValueError: if its burst is less than a waiting task needs; nothing was changed.

        Checkpoint: never (sync, inside of a trio run).
        """
        checked_limit("RateLimiter.set_rate", "rate_limit", rate_limit)
        needed = max((line.most(self._shared) for line in self._shared.lines), default=1)
        if rate_limit.burst < needed:
            rule = f"be >= {shown(needed)}, which a waiting task needs"
            raise checks.refuse(ValueError, "RateLimiter.set_rate", "burst", rule, rate_limit.burst)
        self._shared.meter = meter_under(self._shared.meter, self._shared.now(), rate_limit)
        self._shared.poke()

    @trio.lowlevel.enable_ki_protection
    def pause(self, seconds: float) -> None:
        """Let nothing start before so many seconds have passed, nor what waits already: the server has said so.

        A pause that ends later stays, so each call may say what it was told. Tokens that are gained meanwhile stay, up
        to the burst. What has started goes on. (``Retry(pauses_limit=True)`` does this for a step.)

        Args:
          seconds: from now, finite, >= 0.

        Raises:
          TypeError: if `seconds` has a wrong type.
          ValueError: if it is out of range.

        Checkpoint: never (sync, inside of a trio run).
        """
        self._shared.pause(checks.seconds("RateLimiter.pause", "seconds", seconds, positive=False))

    def statistics(self) -> RateLimiterStatistics:
        """Return what it holds, and what it gave. Sync, inside of a trio run."""
        now = self._shared.now()
        return RateLimiterStatistics(
            rate_limit=self.rate_limit,
            tokens=self._shared.meter.tokens(now),
            tasks_waiting=sum(map(len, self._shared.lines)),
            acquired=self._shared.acquired,
            acquired_cost=self._shared.acquired_cost,
            waited=self._shared.waited(now),
            paused_until=self._shared.meter.paused_until(now),
            keys=key_waits(self._shared, now),
        )


def check_cost(where: str, limit: AnyLimit, cost: int | Fraction) -> int | Fraction:
    """Return what a call takes under a limit, if it may take that."""
    checks.cost(where, "cost", cost)
    if (rule := broken_rule(limit, cost)) is not None:
        raise checks.refuse(ValueError, where, "cost", rule, cost)
    return cost


def checked_cost(limiter: LimiterKeys, cost: int | Fraction) -> int | Fraction:
    """Return what a call takes from a limiter, if it may take that."""
    assert isinstance(limiter, RateLimiterGroup)
    return limiter._checked(cost)
