"""How many calls may start in how much time."""

from __future__ import annotations

from dataclasses import KW_ONLY

from . import _check
from ._frozen import dataclass

__all__ = ["RateLimit"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Say how many calls may start: a token bucket that holds `burst` tokens and gains `rate` of them in `per` seconds.

    In every window of time [s, t], what the calls that start cost is at most ``burst + rate/per * (t - s)``; a call
    costs 1 unless something else is said. The bucket is full at the start. (Turner's leaky bucket as a meter; the ATM
    Forum's GCRA is the same rule.)

    Args:
      rate: tokens that come in `per` seconds, a number > 0.
      per: seconds > 0.
      burst: tokens that the bucket holds, so calls that may start at once after a rest: an int >= 1.

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if an argument is out of range.

    Checkpoint: never (a value).
    """

    rate: float
    _: KW_ONLY
    per: float = 1.0
    burst: int = 1

    def __post_init__(self) -> None:
        _check.number("RateLimit", "rate", self.rate, above=0)
        _check.seconds("RateLimit", "per", self.per)
        _check.integer("RateLimit", "burst", self.burst, at_least=1)

    def describe(self) -> str:
        """Say it in a few words."""
        return f"{self.rate:g} in {self.per:g} s, burst {self.burst}"
