"""May a call of a given cost start now, and if not, when? Exact, however long the bucket lives.

The rule: the bucket holds at most `burst` tokens, starts full, and gains ``rate/per`` tokens a second; a call takes
what it costs, or waits until that is there. So in every window [s, t] the calls that start cost at most
``burst + rate/per * (t - s)``, and so does what is taken less what is given back. (Turner 1986, the leaky bucket as a
meter; ITU-T I.371 calls the same rule GCRA.) A debt is a level below zero.

The invariant is kept in integers. Time is counted in ticks (`meter`). Tokens are counted in units so small that a tick
gains a whole number of them, and a cost is a whole number: a cost of 1/3 makes them three times as small. (A cost that
would make them smaller than 2**-1023 of a token is rounded up.) With floats, a wait of 1/3 s would end slightly early
half of the time, and the bound would be broken by one call.
"""

from __future__ import annotations

import math
from fractions import Fraction

from ..policies.rate_limit import AnyLimit, RateLimit
from .meter import SCALE, TICKS, Meter, not_before

_FINEST = 1024  # bits of the units in a token: costs of ever new denominators must not make numbers grow forever


class TokenBucket(Meter):
    """A bucket of tokens under one `RateLimit`."""

    def __init__(self, rate_limit: RateLimit) -> None:
        super().__init__()
        self._adopt(rate_limit)
        self._level = self._most
        self._since: int | None = None  # the tick at which the level was right; None: nothing was taken yet

    def take(self, now: float, cost: int | Fraction) -> float | None:
        need = self._token if cost == 1 else self._units(cost)
        tick = math.floor(now * SCALE)
        level = self._level_at(tick)
        if level >= need and (not self._resumes or self._begin(tick) == tick):
            self._level, self._since = level - need, math.ceil(now * SCALE)
            return None
        return self.when(now, cost)

    def when(self, now: float, cost: int | Fraction, *, behind: int | Fraction = 0) -> float:
        if cost > self.rate_limit.burst:
            return math.inf
        need, tick = self._units(cost + behind), math.floor(now * SCALE)
        begin = self._begin(tick)
        level = self._level_at(begin)
        if level >= need:
            return now if begin == tick else not_before(begin)
        if self._since is not None:
            begin = max(begin, self._since)
        return not_before(begin + -((level - need) // self._gain))

    def held(self, now: float) -> Fraction:
        return Fraction(self._level_at(math.floor(now * SCALE)), self._token)

    def give_back(self, now: float, cost: int | Fraction, since: float) -> None:
        self._spend(now, self._units(-cost))

    def charge(self, now: float, cost: int | Fraction) -> int | Fraction:
        need = self._units(cost)
        taken = min(need, max(0, self._level_at(math.floor(now * SCALE))))
        self._spend(now, taken)
        return Fraction(need - taken, self._token)

    def owe(self, now: float, cost: int | Fraction) -> None:
        self._spend(now, self._units(cost))

    def set_rate(self, now: float, rate_limit: AnyLimit) -> None:
        """Continue under another limit; the tokens stay, up to the new burst."""
        tokens, was_new = self.held(now), self._is_new()
        self._adopt(rate_limit)
        if was_new:
            self._level = self._most
        else:
            self._refine((tokens * self._token).denominator)
            self._level, self._since = min(self._most, math.floor(tokens * self._token)), math.ceil(now * SCALE)

    def rebase(self, now: float) -> None:
        super().rebase(now)
        if self._since is not None:
            self._since = math.ceil(now * SCALE)

    def _is_new(self) -> bool:
        return self._since is None

    def _adopt(self, rate_limit: AnyLimit) -> None:
        self.rate_limit = rate_limit
        per_second = Fraction(rate_limit.rate) / Fraction(rate_limit.per)
        self._gain = per_second.numerator  # units per tick
        self._token = per_second.denominator * TICKS  # units per token
        self._most = rate_limit.burst * self._token

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

    def _spend(self, now: float, units: int) -> None:
        """Take units, or give some back, without a question."""
        level = self._level_at(math.floor(now * SCALE)) - units
        self._level, self._since = min(level, self._most), math.ceil(now * SCALE)

    def _level_at(self, tick: int) -> int:
        if self._since is None:
            return self._level
        passed = tick - self._since
        level = self._level + self._gain * passed if passed > 0 else self._level
        return level if level < self._most else self._most  # comparing is three times as fast as min and max
