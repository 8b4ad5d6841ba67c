"""How many calls may start in how much time."""

from __future__ import annotations

import math
import sys
from dataclasses import KW_ONLY
from fractions import Fraction

from .._base import checks
from .._base.frozen import dataclass

__all__ = ["RateLimit"]


_LATE = Fraction(2, 100)
"""Seconds by which a timer may be late (the loop is busy, the machine is shared): so long is the rate's least burst."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Say how many calls may start: a token bucket that holds `burst` tokens and gains `rate` of them in `per` seconds.

    In every window of time [s, t], what the calls that start cost is at most ``burst + rate/per * (t - s)``; a call
    costs 1 unless something else is said. The bucket is full at the start. (Turner's leaky bucket as a meter; the ATM
    Forum's GCRA is the same rule.)

    Args:
      rate: tokens that come in `per` seconds, a number > 0.
      per: seconds > 0.
      burst: tokens that the bucket holds, so calls that may start at once after a rest: an int >= 1. None (the default)
        is what comes in 0.02 s, at least 1: a bucket that is full when a timer is late loses what comes meanwhile, so
        with a burst of 1 the calls of a limit of 1000 a second are some hundreds less. The attribute is the number.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if an argument is out of range.

    Checkpoint: never (a value).
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
        """Say it in a few words."""
        return f"{self.rate:g} in {self.per:g} s, burst {self.burst}"
