"""What counts against a limit, whatever its rule is: what can be asked of it, and when does a pause of it end?

A *meter* answers one question for each call that asks: may it start now, and if not, when? What it holds is counted in
tokens: a call takes what it costs. `token_bucket` and `rolling_window` are the two rules, and `meters` makes the one
that a limit needs.

The pause is the same under each rule: nothing is taken before it ends, of two the later end counts, and what is gained
meanwhile stays. A call whose cost is known afterwards is settled: `give_back` returns what it took too much, `charge`
takes what it took too little, as far as that is there, and `owe` makes the rest a debt, which what comes in pays first.

Time is counted in ticks of 2**-64 s: every float from 2**-11 s on is a whole number of them, so nothing is rounded; a
smaller one is rounded so that fewer calls start. A meter does not decide which call is next, and never waits.
"""

from __future__ import annotations

import math
from fractions import Fraction

from ..policies.rate_limit import AnyLimit

TICKS = 2**64
SCALE = 2.0**64
_LAST = 1023  # bits of the last tick: no clock gets past it, and a float could not represent it


class Meter:
    """What counts under one limit. All times are seconds on a clock that does not go back."""

    rate_limit: AnyLimit
    """The limit in force."""

    def __init__(self) -> None:
        self._resumes = 0  # the tick before which nothing is taken; 0: it is not paused
        self._seen = 0  # the tick at which it was last known to be paused

    # ---- calls

    def take(self, now: float, cost: int | Fraction) -> float | None:
        """Take the tokens of a call and return None; or take nothing, and return the earliest time at which it can."""
        raise NotImplementedError

    def when(self, now: float, cost: int | Fraction, *, behind: int | Fraction = 0) -> float:
        """Return the earliest time at which a call of that cost may start, if no other starts before it; take nothing.

        With `behind`: if a call of that cost starts first, now or as soon as it may. Infinite if it never may.
        """
        raise NotImplementedError

    # ---- what it holds

    def held(self, now: float) -> int | Fraction:
        """Return exactly how many tokens it holds, less its debt."""
        raise NotImplementedError

    def tokens(self, now: float) -> float:
        """Return how many tokens it holds, at least 0."""
        return max(0.0, float(self.held(now)))

    def whole_tokens(self, now: float) -> int:
        """Return how many calls of cost 1 may start now: until tokens are taken, no later time allows fewer."""
        return 0 if self.paused_until(now) is not None else max(0, math.floor(self.held(now)))

    def full_at(self, now: float) -> float:
        """Return when it will be as good as a new one, if nothing is taken."""
        return self.when(now, self.rate_limit.burst)

    def is_full(self, now: float) -> bool:
        """Return whether it is as good as a new one."""
        return self.full_at(now) <= now

    # ---- calls whose cost was not known

    def give_back(self, now: float, cost: int | Fraction, since: float) -> None:
        """Return tokens that a call took at `since` and did not need; it never holds more than the burst."""
        raise NotImplementedError

    def charge(self, now: float, cost: int | Fraction) -> int | Fraction:
        """Take tokens that a call needed and did not take, as far as they are there; return what is left to pay."""
        raise NotImplementedError

    def owe(self, now: float, cost: int | Fraction) -> None:
        """Take tokens whether they are there or not: what is missing is its debt."""
        raise NotImplementedError

    # ---- changes

    def set_rate(self, now: float, rate_limit: AnyLimit) -> None:
        """Continue under another limit of the same kind."""
        raise NotImplementedError

    def rebase(self, now: float) -> None:
        """Continue with another clock, which shows `now`: all is as it was when it was last used."""
        if self._resumes:
            left, self._seen = self._resumes - self._seen, math.floor(now * SCALE)
            self._resumes = math.ceil(now * SCALE) + left

    def follow(self, now: float, other: Meter) -> None:
        """Be, while nothing was taken, what comes after a meter of another kind.

        The tokens that are there stay, up to the burst, and so do its debt and its pause. Of a meter that is as good as
        a new one nothing is left but a new one.
        """
        self._resumes, self._seen = other._resumes, other._seen
        missing = self.rate_limit.burst - other.held(now)
        if missing > 0 and not other._is_new():
            self.owe(now, missing)

    def _is_new(self) -> bool:
        """Return whether nothing that was taken counts any more, as far as it knows."""
        raise NotImplementedError

    # ---- a pause

    def pause(self, now: float, seconds: float) -> None:
        """Take nothing before ``now + seconds``; a pause that ends later stays."""
        self._seen = math.floor(now * SCALE)
        self._resumes = max(self._resumes, math.ceil((Fraction(now) + Fraction(seconds)) * TICKS))

    def paused_until(self, now: float) -> float | None:
        """Return when its pause ends; None if it is not paused."""
        tick = math.floor(now * SCALE)
        return not_before(self._resumes) if self._begin(tick) > tick else None

    def _begin(self, tick: int) -> int:
        """Return the first tick from one on at which anything may be taken."""
        if tick >= self._resumes:
            self._resumes = 0
            return tick
        self._seen = tick
        return self._resumes


def not_before(tick: int) -> float:
    """Return the first float that is not before a tick: rounded down, a call would start too early."""
    if tick.bit_length() > _LAST:
        return math.inf
    second = tick / TICKS
    return second if second * SCALE >= tick else math.nextafter(second, math.inf)
