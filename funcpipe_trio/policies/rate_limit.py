"""How many calls may start in a given time?"""

from __future__ import annotations

import math
import sys
from dataclasses import KW_ONLY
from fractions import Fraction
from typing import Any, TypeAlias

from .._base import checks
from .._base.frozen import dataclass
from .._base.shown import shown

__all__ = ["AnyLimit", "RateLimit", "RollingLimit", "broken_rule", "checked_limit"]


_LATE = Fraction(2, 100)
"""Seconds by which a timer may be late (a busy loop, a shared machine); the default burst covers this time."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """How many calls may start: a token bucket that holds `burst` tokens and gains `rate` of them in `per` seconds.

    In every window of time [s, t], the calls that start cost at most ``burst + rate/per * (t - s)`` in total; a call
    costs 1 by default. The bucket is full at the start. (Turner's leaky bucket as a meter; the ATM Forum's GCRA is the
    same rule.)

    Args:
      rate: tokens gained in `per` seconds, a number > 0.
      per: seconds > 0.
      burst: tokens that the bucket holds, so calls that may start at once after a pause: an int >= 1. None (the
        default) is what is gained in 0.02 s, at least 1: while a timer is late, a full bucket loses tokens, so with a
        burst of 1 a limit of 1000 a second allows some hundreds fewer. The attribute is always the number.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if an argument is out of range.
    """

    rate: float
    _: KW_ONLY
    per: float = 1.0
    burst: int

    def __init__(self, rate: float, *, per: float = 1.0, burst: int | None = None) -> None:
        checks.number("RateLimit", "rate", rate, above=0)
        checks.seconds("RateLimit", "per", per)
        if burst is None:
            burst = min(max(1, math.ceil(Fraction(rate) / Fraction(per) * _LATE)), sys.maxsize)
        checks.integer("RateLimit", "burst", burst, at_least=1)
        for name, value in {"rate": rate, "per": per, "burst": burst}.items():
            object.__setattr__(self, name, value)

    def describe(self) -> str:
        """One-line description."""
        return f"{self.rate:g} in {self.per:g} s, burst {self.burst}"


@dataclass(frozen=True, slots=True)
class RollingLimit:
    """How many calls may start: never more than `n` in any window of `per` seconds.

    A start counts for `per` seconds, in a half-open window: the (n+1)-th is allowed exactly `per` seconds after the
    first one. So all `n` may start at once, and again `per` seconds later. This is the contract "100 requests a minute"
    word for word. A `RateLimit` cannot express it: with a burst of b it allows up to ``b + rate`` in some window.
    Its price is memory: what was started in the last `per` seconds is remembered, at most `n` instants.

    Accepted wherever a `RateLimit` is. A call costs 1 by default; a cost counts as so many starts, so it is a whole
    number.

    Args:
      n: starts in a window, an int >= 1.
      per: length of the window, seconds > 0.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if an argument is out of range.
    """

    n: int
    _: KW_ONLY
    per: float = 60.0

    def __post_init__(self) -> None:
        checks.integer("RollingLimit", "n", self.n, at_least=1)
        object.__setattr__(self, "per", checks.seconds("RollingLimit", "per", self.per))

    @property
    def rate(self) -> float:
        """Calls that may start in `per` seconds in the long run: `n`."""
        return self.n

    @property
    def burst(self) -> int:
        """Calls that may start at once after a pause: `n`."""
        return self.n

    def describe(self) -> str:
        """One-line description."""
        return f"{self.n} in any {self.per:g} s"


AnyLimit: TypeAlias = RateLimit | RollingLimit
"""A limit of either kind."""


def checked_limit(where: str, name: str, value: Any, use: str = "") -> AnyLimit:
    """Check for a limit of either kind."""
    if not isinstance(value, AnyLimit):
        raise checks.refuse(TypeError, where, name, "be a RateLimit or a RollingLimit", value, use)
    return value


def broken_rule(limit: AnyLimit, cost: int | Fraction) -> str | None:
    """Return what a cost above 0 must be under a limit; None if it is that."""
    if cost > limit.burst:
        return f"be <= the burst of {shown(limit.burst)}, or it could never be paid"
    return broken_grain(limit, cost)


def broken_grain(limit: AnyLimit, cost: int | Fraction) -> str | None:
    """Return what a cost must be under a limit that may have a debt; None if it is that."""
    if isinstance(limit, RollingLimit) and cost.denominator != 1:
        return "be a whole number under a RollingLimit: it counts as so many starts"
    return None
