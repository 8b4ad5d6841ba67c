"""Multiples of a period: after now, never one twice, and no drift.

Mutants that die here: `>` for `>=` at a multiple that is just now; a multiple computed from the one before; the last
number forgotten; a quotient that was rounded up taken at its word.
"""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.multiples import Multiples


def multiples(period, start=0.0):
    made = Multiples(period)
    made.begin(start)
    return made


def test_the_next_multiple_is_after_now():
    """What is just now is not after it, and what was passed over is left out."""
    made = multiples(2.0, start=10.0)

    assert [made.after(now) for now in (10.0, 12.0, 12.5, 14.1, 20.0, 29.9)] == [12.0, 14.0, 16.0, 18.0, 22.0, 30.0]


def test_a_multiple_is_given_once():
    """Asked twice at one instant it gives the next and the next but one."""
    made = multiples(1.0)

    assert [made.after(0.5) for _ in range(3)] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("passed", [2.0**53, 2.0**53 + 2])
def test_multiples_that_no_float_tells_apart_are_the_next_float(passed):
    """However often it is asked: numbers that are one float are not counted."""
    made = multiples(1.5)
    now = passed * 1.5

    assert {made.after(now) for _ in range(4)} == {math.nextafter(now, math.inf)}


periods = st.floats(1e-3, 1e3) | st.sampled_from([0.1, 0.3, 1 / 3, 0.7, 1e-9, 5e-324])


@given(periods, st.floats(0, 1e6), st.lists(st.floats(0, 10), max_size=30))
def test_multiples_rise_and_are_after_now(period, start, waits):
    """Whatever the rounding: each is after now and after the one before."""
    made, now, before = multiples(period, start), start, -math.inf
    for wait in waits:
        now += wait
        at = made.after(now)
        assert at > now
        assert at > before or period < math.ulp(now)
        before = now = at


@pytest.mark.parametrize("period", [0.1, 0.3, 0.7, 1 / 3, 1e-3])
def test_multiples_do_not_drift(period):
    """Asked at each multiple for the next, none is left out, and the last is where it should be."""
    made, now = multiples(period, start=3.0), 3.0
    for number in range(1, 10_001):
        now = made.after(now)
        assert now == 3.0 + number * period
