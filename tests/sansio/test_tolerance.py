"""How many items may fail; mutants of `tolerance.py` that die here: `>=` for `>` at either limit, the ratio looked at
one item too early or too late or without its minimum, failures counted twice or from one, the wrong limit named.
"""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio._sansio.tolerance import Tolerance
from funcpipe_trio.policies.on_error import OnError


def notes(skip, fails):
    """What each failed item is answered with; `fails` says of each item whether it fails."""
    tolerance = Tolerance(skip)
    return [tolerance.failed(items) for items, failed in enumerate(fails, start=1) if failed]


def test_without_a_limit_any_number_may_fail():
    assert notes(OnError.skip(), [True] * 1000) == [None] * 1000


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_the_failure_that_is_one_too_many_crosses_the_limit(limit):
    """As many as the limit says may fail; the next one is told how many of how many failed."""
    expected = f"{limit + 1} of {limit + 2} items failed, more than max_failures={limit}"

    assert notes(OnError.skip(limit), [False] + [True] * (limit + 1)) == [None] * limit + [expected]


def test_the_ratio_may_be_reached_but_not_crossed():
    """One of two is half; two of three is more."""
    skip = OnError.skip(max_ratio=0.5, min_items=1)

    assert notes(skip, [False, True]) == [None]
    assert notes(skip, [False, True, True]) == [None, "2 of 3 items failed, more than max_ratio=0.5"]
    assert notes(skip, [True]) == ["1 of 1 items failed, more than max_ratio=0.5"]


def test_the_ratio_counts_from_the_least_number_of_items_on():
    """Before that, all may fail; at it, the failures before count too."""
    skip = OnError.skip(max_ratio=0.25, min_items=4)

    assert notes(skip, [True, True, True]) == [None] * 3
    assert notes(skip, [True] * 4)[3] == "4 of 4 items failed, more than max_ratio=0.25"
    assert notes(skip, [False, False, False, True]) == [None]
    assert notes(skip, [True, False, False, True])[1] == "2 of 4 items failed, more than max_ratio=0.25"


def test_no_ratio_at_all_lets_no_item_fail_once_it_counts():
    assert notes(OnError.skip(max_ratio=0, min_items=3), [True, True, False, True]) == [
        None,
        None,
        "3 of 4 items failed, more than max_ratio=0",
    ]
    assert notes(OnError.skip(max_ratio=1, min_items=1), [True] * 50) == [None] * 50


def test_of_two_limits_that_are_crossed_at_once_the_number_is_named():
    assert notes(OnError.skip(1, 0.5, 2), [True, True]) == [None, "2 of 2 items failed, more than max_failures=1"]
    assert notes(OnError.skip(5, 0.5, 2), [True, True]) == [None, "2 of 2 items failed, more than max_ratio=0.5"]


def test_the_share_is_told_in_few_digits():
    assert notes(OnError.skip(max_ratio=1 / 3, min_items=1), [True]) == [
        "1 of 1 items failed, more than max_ratio=0.333333"
    ]


@given(
    max_failures=st.none() | st.integers(0, 10),
    hundredths=st.none() | st.integers(0, 100),
    min_items=st.integers(1, 30),
    fails=st.lists(st.booleans(), max_size=60),
)
def test_a_limit_is_crossed_exactly_when_the_counts_say_so(max_failures, hundredths, min_items, fails):
    """By whole numbers: more than so many, or more hundredths than so many of all items so far."""
    ratio = None if hundredths is None else hundredths / 100
    answers = iter(notes(OnError.skip(max_failures, ratio, min_items), fails))
    failures = 0
    for items, failed in enumerate(fails, start=1):
        if not failed:
            continue
        failures += 1
        too_many = max_failures is not None and failures > max_failures
        too_large = (
            hundredths is not None and items >= min_items and Fraction(failures, items) > Fraction(hundredths, 100)
        )
        assert (next(answers) is not None) == (too_many or too_large)
