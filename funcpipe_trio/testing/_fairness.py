"""How fair was it? Measured on what was handed over, not on what a scheduler intended."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence, Set
from fractions import Fraction
from itertools import combinations

__all__ = ["assert_fair", "service_lag"]

Weights = Mapping[Hashable, "int | Fraction"]


def service_lag(
    log: Sequence[Hashable],
    weights: Weights,
    backlog: Sequence[Set[Hashable]] | None = None,
    costs: Sequence[int | Fraction] | None = None,
) -> dict[tuple[Hashable, Hashable], Fraction]:
    """Return, for each pair of inputs, the largest difference in weighted service while both were backlogged.

    For every interval in which inputs f and m both had items, take the cost that each was served, divided by its
    weight; the lag is the largest difference between the two. Start-time fair queueing keeps it at or below
    ``cost_f/weight_f + cost_m/weight_m`` (Goyal, Vin, Cheng 1996).

    Args:
      log: the inputs in the order in which they were served.
      weights: their weights, int or Fraction > 0.
      backlog: for each entry of the log, the inputs that had an item at that time (including the one served); by
        default always all of them.
      costs: the cost of each entry; 1 by default.
    """
    return {pair: _pair_lag(pair, log, weights, backlog, costs) for pair in combinations(weights, 2)}


def assert_fair(
    log: Sequence[Hashable],
    weights: Weights,
    backlog: Sequence[Set[Hashable]] | None = None,
    costs: Sequence[int | Fraction] | None = None,
) -> None:
    """Assert that the bound of `service_lag` holds for each pair of inputs; it takes the same arguments.

    Raises:
      AssertionError: if it does not hold; the message names the pair, its lag and its bound.
    """
    greatest: dict[Hashable, int | Fraction] = dict.fromkeys(weights, 0)
    for number, key in enumerate(log):
        greatest[key] = max(greatest[key], 1 if costs is None else costs[number])
    for (f, m), lag in service_lag(log, weights, backlog, costs).items():
        bound = Fraction(greatest[f]) / weights[f] + Fraction(greatest[m]) / weights[m]
        assert lag <= bound, f"inputs {f!r} and {m!r}: lag {float(lag):g} is above the bound {float(bound):g}"


def _pair_lag(
    pair: tuple[Hashable, Hashable],
    log: Sequence[Hashable],
    weights: Weights,
    backlog: Sequence[Set[Hashable]] | None,
    costs: Sequence[int | Fraction] | None,
) -> Fraction:
    f, m = pair
    lag = difference = low = high = Fraction(0)
    for number, key in enumerate(log):
        if backlog is not None and not {f, m} <= backlog[number]:
            difference = low = high = Fraction(0)  # an interval ends; the next begins level
            continue
        if key in pair:
            service = Fraction(1 if costs is None else costs[number]) / weights[key]
            difference += service if key == f else -service
            low, high = min(low, difference), max(high, difference)
            lag = max(lag, high - low)
    return lag
