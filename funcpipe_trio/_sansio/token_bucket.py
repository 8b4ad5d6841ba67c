"""May a call of a given cost start now, and if not, when? Exact, however long the bucket lives.

The rule: the bucket holds at most `burst` tokens, starts full, and gains ``rate/per`` tokens a second; a call takes
what it costs, or waits until that is there. So in every window [s, t] the calls that start cost at most
``burst + rate/per * (t - s)``. (Turner 1986, the leaky bucket as a meter; ITU-T I.371 calls the same rule GCRA.)

The invariant is kept in integers. Time is counted in ticks of 2**-64 s: every float from 2**-11 s on is a whole number
of them, so nothing is rounded; a smaller one is rounded so that fewer calls start. Tokens are counted in units so small
that a tick gains a whole number of them, and a cost is a whole number: a cost of 1/3 makes them three times as small.
(A cost that would make them smaller than 2**-1023 of a token is rounded up.) With floats, a wait of 1/3 s would end
slightly early half of the time, and the bound would be broken by one call.

It does not decide which call is next: it answers each call that asks.
"""

from __future__ import annotations

import math
from fractions import Fraction

from ..policies.rate_limit import RateLimit

_TICKS = 2**64
_SCALE = 2.0**64
_FINEST = 1024  # bits of the units in a token: costs of ever new denominators must not make numbers grow forever
_LAST = 1023  # bits of the last tick: no clock gets past it, and a float could not represent it


class TokenBucket:
    """A bucket of tokens under one `RateLimit`."""

    rate_limit: RateLimit

    def __init__(self, rate_limit: RateLimit) -> None:
        self._adopt(rate_limit)
        self._level = self._most
        self._since: int | None = None  # the tick at which the level was right; None: nothing was taken yet

    def take(self, now: float, cost: int | Fraction) -> float | None:
        """Take the tokens of a call and return None; or take nothing, and return the earliest time at which it can.

        Args:
          now: seconds, on a clock that does not go back.
          cost: tokens, above 0 and at most the burst.
        """
        need = self._token if cost == 1 else self._units(cost)
        level = self._level_at(now)
        if level >= need:
            self._level, self._since = level - need, math.ceil(now * _SCALE)
            return None
        return self._reaches(need)

    def when(self, now: float, cost: int | Fraction, *, behind: int | Fraction = 0) -> float:
        """Return the earliest time at which a call of that cost may start, if no other starts before it; take nothing.

        With `behind`: if a call of that cost starts first, now or as soon as it may.
        """
        need, level = self._units(cost + behind), self._level_at(now)
        if level >= need:
            return now
        tick = math.floor(now * _SCALE)
        begin = tick if self._since is None else max(tick, self._since)
        return _not_before(begin + -((level - need) // self._gain))

    def whole_tokens(self, now: float) -> int:
        """Return how many calls of cost 1 may start now: until tokens are taken, no later time allows fewer."""
        return self._level_at(now) // self._token

    def tokens(self, now: float) -> float:
        """Return how many tokens it holds."""
        return self._level_at(now) / self._token

    def set_rate(self, now: float, rate_limit: RateLimit) -> None:
        """Continue under another limit; the tokens stay, up to the new burst."""
        tokens = Fraction(self._level_at(now), self._token)
        was_full = self._since is None
        self._adopt(rate_limit)
        if was_full:
            self._level = self._most
        else:
            self._refine((tokens * self._token).denominator)
            self._level, self._since = min(self._most, math.floor(tokens * self._token)), math.ceil(now * _SCALE)

    def rebase(self, now: float) -> None:
        """Continue with another clock, which shows `now`: the tokens stay, and time counts from here on."""
        if self._since is not None:
            self._since = math.ceil(now * _SCALE)

    def _adopt(self, rate_limit: RateLimit) -> None:
        self.rate_limit = rate_limit
        per_second = Fraction(rate_limit.rate) / Fraction(rate_limit.per)
        self._gain = per_second.numerator  # units per tick
        self._token = per_second.denominator * _TICKS  # units per token
        self._most = rate_limit.burst * self._token

    def _reaches(self, need: int) -> float:
        """Return the earliest time at which it holds that much."""
        assert self._since is not None  # a bucket from which nothing was taken is full
        return _not_before(self._since + -((self._level - need) // self._gain))

    def _units(self, cost: int | Fraction) -> int:
        if isinstance(cost, int):
            return cost * self._token
        self._refine((cost * self._token).denominator)
        return math.ceil(cost * self._token)

    def _refine(self, parts: int) -> None:
        """Make the units smaller by a factor, unless their number becomes too large."""
        if (self._token * parts).bit_length() <= _FINEST:
            self._gain *= parts
            self._token *= parts
            self._most *= parts
            self._level *= parts

    def _level_at(self, now: float) -> int:
        if self._since is None:
            return self._level
        passed = math.floor(now * _SCALE) - self._since
        level = self._level + self._gain * passed if passed > 0 else self._level
        return level if level < self._most else self._most  # comparing is three times as fast as min and max


def _not_before(tick: int) -> float:
    """Return the first float that is not before a tick: rounded down, a call would start too early."""
    if tick.bit_length() > _LAST:
        return math.inf
    second = tick / _TICKS
    return second if second * _SCALE >= tick else math.nextafter(second, math.inf)
