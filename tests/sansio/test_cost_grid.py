"""The laws of the grid of costs, each with the mutant of `cost_grid.py` that it kills.

| law | mutant |
|---|---|
| exact up to 1024 bits | a limit a bit lower; the greatest denominator taken for the common one |
| rounded up beyond, by less than a unit | rounded down or to the nearest; a grid that stays as coarse as it was |
| the grid is bounded | no limit; a limit for each cost alone |
| what was counted stays countable | a unit that is not a multiple of the one before |
"""

from fractions import Fraction
from itertools import pairwise
from math import lcm

from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio._sansio.cost_grid import CostGrid

FINE = Fraction(1, 2**1023)
usual = st.one_of(
    st.integers(1, 10**30),
    st.fractions(Fraction(1, 60), 10**6, max_denominator=60),
    st.builds(Fraction, st.integers(1, 10**9), st.sampled_from([10**3, 10**9, 2**52, 60, 7 * 10**100])),
    st.floats(1e-30, 1e300).map(Fraction),
)
odd = st.builds(Fraction, st.integers(1, 2**600), st.integers(1, 2**600))


@given(st.lists(usual, max_size=50))
def test_costs_of_a_common_denominator_are_counted_exactly(costs):
    """The very value, however many come, in whatever order."""
    grid = CostGrid()

    assert [grid.counted(cost) for cost in costs] == costs
    assert grid.unit == lcm(*(cost.denominator for cost in costs))


@settings(deadline=None)
@given(st.lists(st.one_of(usual, odd), max_size=40))
def test_others_are_rounded_up_by_less_than_a_unit_of_1024_bits(costs):
    """Never to zero; all are whole numbers of units, which become finer only, and only up to 1024 bits."""
    grid, units = CostGrid(), [1]
    for cost in costs:
        counted = grid.counted(cost)
        units.append(grid.unit)

        assert 0 <= counted - cost < FINE
        assert grid.unit % counted.denominator == 0
    assert all(later % before == 0 for before, later in pairwise(units))
    assert grid.unit.bit_length() <= 1024


def test_1024_bits_are_counted_and_1025_are_not():
    """Two costs that are exact alone, and one bit too many together."""
    grid = CostGrid()
    assert grid.counted(Fraction(1, 2**1022)) == Fraction(1, 2**1022)
    assert grid.counted(Fraction(1, 2**1023)) == FINE
    assert grid.counted(Fraction(3, 2**1024)) == Fraction(2, 2**1023)
    assert grid.counted(Fraction(1, 3)) == Fraction((2**1023 + 2) // 3, 2**1023)
    odd_units = Fraction(1, 3 * 2**1022)  # of 1024 bits, and not those of a grid that is as fine as it can be
    assert CostGrid().counted(odd_units) == odd_units


def test_the_first_cost_that_needs_too_much_makes_the_grid_as_fine_as_it_can_be():
    """Or a grid of whole numbers would make 1 of it."""
    grid = CostGrid()
    tiny = Fraction(1, 3**2000)

    assert grid.counted(tiny) == FINE
    assert grid.counted(1 + tiny) == 1 + FINE
