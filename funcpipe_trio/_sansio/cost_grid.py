"""What does an item cost, when every cost may bring a new denominator?

The rule: costs are counted in units of 1/unit, where `unit` is the common denominator of all costs so far, so exactly,
as long as that has at most 1024 bits: any ints, Fractions of a thousandth or of 10**-300, floats made Fractions. Sums
of ever new denominators (1/2, 1/3, 1/5, 1/7, ...) would get more and more digits, and each addition would take longer
than the previous one. So a cost that would need more bits is rounded up to the next unit, which is then as small as
1024 bits allow: it counts for less than ``2**-1023`` more than it is.

Rounded up, never down: no cost becomes zero, and the flow that brought the denominator pays for the rounding. In terms
of fairness: the lag between two flows keeps its bound, except for ``2**-1023 / weight`` for each item that was rounded;
after 10**12 of them that is ``10**-295 / weight``.
"""

from __future__ import annotations

from fractions import Fraction
from math import lcm

_FINEST = 1024  # bits of the units in a cost of 1


class CostGrid:
    """The units in which costs are counted."""

    unit: int
    """How many of them a cost of 1 has; it only ever grows, by whole factors."""

    def __init__(self) -> None:
        self.unit = 1

    def counted(self, cost: int | Fraction) -> int | Fraction:
        """Return a cost that is a whole number of units, which are made finer for it if possible."""
        if self.unit % cost.denominator == 0:
            return cost
        common = lcm(self.unit, cost.denominator)
        if common.bit_length() <= _FINEST:
            self.unit = common
            return cost
        self.unit <<= _FINEST - self.unit.bit_length()
        return Fraction(-(-cost.numerator * self.unit // cost.denominator), self.unit)
