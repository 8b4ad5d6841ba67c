"""What is special to the rolling window; mutants of `rolling_window.py` that die here (see also `test_meters.py`):

- the (n+1)-th start a float before, or after, `per` from the first; a window that is closed at both ends;
- records that are not forgotten, or of no start; a refund of a start that counts no more;
- a debt that is walked start by start although it is longer than life;
- a new clock or a new limit after which starts count that should not, or the other way round.
"""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import RollingLimit
from funcpipe_trio._sansio.rolling_window import RollingWindow

AWKWARD = [0.1, 1 / 3, 7.3, 2**0.5, 1.0, 60.0]


def first_float(instant):
    near = float(instant)
    return near if near >= instant else math.nextafter(near, math.inf)


def debt_of(window, now):
    """How many starts it owes."""
    return max(0, -window.held(now))


def greedy(window, count, now=0.0, cost=1):
    """The instants of so many calls, each as soon as it may."""
    instants = []
    for _ in range(count):
        answer = window.take(now, cost)
        if answer is not None:
            now = answer
            assert window.take(now, cost) is None
        instants.append(now)
    return instants


def test_all_may_start_at_once_and_again_a_length_later():
    assert greedy(RollingWindow(RollingLimit(3, per=10)), 8, 5.0) == [5, 5, 5, 15, 15, 15, 25, 25]


@settings(max_examples=50)
@given(st.sampled_from(AWKWARD), st.floats(2.0**-11, 1e6), st.integers(1, 4))
def test_the_next_is_allowed_exactly_a_length_after_the_first(per, now, n):
    window = RollingWindow(RollingLimit(n, per=per))
    assert greedy(window, n, now) == [now] * n
    due = first_float(Fraction(now) + Fraction(per))

    assert window.take(math.nextafter(due, 0), 1) == due
    assert window.take(due, 1) is None


@pytest.mark.parametrize("now", [1e-20, 5e-324])
def test_inside_of_a_tick_time_is_rounded_against_the_caller(now):
    assert greedy(RollingWindow(RollingLimit(1, per=1)), 2, now) == [now, math.nextafter(1, 2)]


def test_a_length_that_is_no_whole_number_of_ticks_is_rounded_up():
    per = math.nextafter(2.0**-12, 1)

    assert greedy(RollingWindow(RollingLimit(1, per=per)), 2, 1.0)[1] >= first_float(1 + Fraction(per))


def test_a_cost_counts_as_so_many_starts():
    window = RollingWindow(RollingLimit(5, per=10))

    assert [window.take(0.0, 2), window.take(1.0, 2), window.take(2.0, 2)] == [None, None, 10.0]
    assert (window.take(2.0, 1), window.take(2.0, 4), window.when(2.0, 5)) == (None, 11.0, 12.0)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 3), st.integers(1, 4)), max_size=60), st.integers(0, 30))
def test_it_remembers_at_most_n_instants(trace, debt):
    window, now = RollingWindow(RollingLimit(4, per=5)), 1.0
    if debt:
        window.owe(now, debt)
    for gap, cost in trace:
        now += gap
        window.take(now, cost)
        assert len(window._records) <= 4
        assert all(window._records.values())
    window.tokens(now + 100)
    assert not window._records


def test_a_refund_makes_its_own_start_smaller():
    window = RollingWindow(RollingLimit(4, per=10))
    window.take(0.0, 2)
    window.take(5.0, 2)
    window.give_back(6.0, 1, 5.0)

    assert (window.held(6.0), window.take(6.0, 1), window.held(10.0), window.held(15.0)) == (1, None, 2, 3)


def test_a_refund_of_a_start_that_counts_no_more_is_nothing():
    window = RollingWindow(RollingLimit(2, per=10))
    window.take(0.0, 2)
    window.take(10.0, 1)
    window.give_back(10.0, 2, 0.0)
    window.give_back(10.0, 2, 3.0)

    assert window.held(10.0) == 1


def test_a_refund_pays_the_debt_at_its_instant():
    window = RollingWindow(RollingLimit(2, per=10))
    window.take(0.0, 2)
    window.owe(1.0, 1)
    window.give_back(4.0, 2, 0.0)

    assert (window.held(4.0), debt_of(window, 4.0), window.held(11.0), window.held(14.0)) == (1, 0, 1, 2)


def test_a_start_that_stopped_to_count_has_paid_before_a_refund_of_it():
    window = RollingWindow(RollingLimit(2, per=10))
    window.take(0.0, 1)
    window.take(4.0, 1)
    window.owe(4.0, 1)
    window.give_back(12.0, 1, 0.0)

    assert (window.held(12.0), window.when(12.0, 1), window.when(12.0, 2)) == (0, 14.0, 20.0)


def test_it_is_full_when_the_last_start_counts_no_more_and_from_then_on_now():
    window = RollingWindow(RollingLimit(2, per=10))
    window.take(0.0, 1)
    window.take(4.0, 1)

    assert [window.full_at(now) for now in (4.0, 13.0, 14.0, 30.0)] == [14.0, 14.0, 14.0, 30.0]


def test_a_start_that_is_given_back_leaves_nothing_behind():
    window = RollingWindow(RollingLimit(2, per=10))
    window.take(0.0, 2)
    window.give_back(1.0, 1, 0.0)
    window.give_back(1.0, 1, 0.0)

    assert (window.is_full(1.0), list(window._records)) == (True, [])


def test_a_debt_is_paid_by_each_start_when_it_stops_to_count():
    window = RollingWindow(RollingLimit(2, per=10))
    window.take(0.0, 1)
    window.take(4.0, 1)
    window.owe(5.0, 3)

    assert [window.held(now) for now in (5.0, 10.0, 14.0, 20.0)] == [-3, -2, -1, 0]
    assert greedy(window, 3, 20.0) == [24.0, 30.0, 34.0]


@pytest.mark.parametrize("per", AWKWARD)
def test_a_debt_that_is_longer_than_life_is_counted_at_once(per):
    window, debt = RollingWindow(RollingLimit(3, per=per)), 3 * 10**15 + 1
    window.take(1.0, 2)
    window.take(1.0 + per / 2, 1)
    window.owe(1.0 + per / 2, debt)

    due = window.when(1.0 + per / 2, 1)
    assert due == first_float(1 + Fraction(per) * (10**15 + 1))
    assert window.when(1.0 + per / 2, 2) == first_float(Fraction(1.0 + per / 2) + Fraction(per) * (10**15 + 1))
    assert debt_of(window, first_float(1 + 10**14 * Fraction(per))) == debt - 3 * 10**14 + 1
    assert debt_of(window, due) == 0


def test_after_a_debt_of_whole_windows_the_pattern_comes_again():
    window = RollingWindow(RollingLimit(2, per=10))
    window.take(0.0, 1)
    window.take(4.0, 1)
    window.owe(4.0, 6)

    assert (window.when(4.0, 1), window.when(4.0, 2), window.when(4.0, 1, behind=1)) == (40.0, 44.0, 44.0)
    assert window.when(4.0, 2, behind=1) == 50.0
    assert (window.held(34.0), window.held(39.0), window.take(40.0, 1)) == (0, 0, None)


@pytest.mark.parametrize(("was", "now"), [(1000.0, 5.0), (5.0, 1000.0), (1000.0, 0.0)])
def test_by_another_clock_the_last_start_is_now(was, now):
    window = RollingWindow(RollingLimit(3, per=10))
    window.take(was - 4, 1)
    window.take(was, 1)
    window.rebase(now)

    assert [window.tokens(now + seconds) for seconds in (0, 5, 6, 9, 10)] == [1, 1, 2, 2, 3]


def test_a_fresh_window_is_full_by_any_clock():
    window = RollingWindow(RollingLimit(2, per=1))
    window.rebase(1000.0)

    assert greedy(window, 3) == [0, 0, 1]


def test_under_a_smaller_n_what_was_started_counts():
    window = RollingWindow(RollingLimit(4, per=10))
    greedy(window, 3, 0.0)
    window.take(5.0, 1)
    window.set_rate(6.0, RollingLimit(2, per=10))

    assert (window.held(6.0), debt_of(window, 6.0), window.take(6.0, 1), window.take(6.0, 2)) == (0, 0, 10.0, 15.0)
    assert window.charge(6.0, 1) == 1


def test_under_a_smaller_n_a_debt_waits_until_less_than_that_counts():
    window = RollingWindow(RollingLimit(3, per=10))
    for now in (0.0, 1.0, 2.0):
        window.take(now, 1)
    window.owe(2.0, 1)
    window.set_rate(3.0, RollingLimit(2, per=10))

    assert [debt_of(window, now) for now in (3.0, 10.0, 11.0)] == [1, 1, 0]
    assert window.when(11.0, 1) == 12.0


def test_under_a_shorter_length_old_starts_count_no_more():
    window = RollingWindow(RollingLimit(2, per=10))
    window.take(0.0, 1)
    window.take(5.0, 1)
    window.owe(5.0, 2)
    window.set_rate(6.0, RollingLimit(2, per=3))

    assert (window.held(6.0), debt_of(window, 6.0), window.when(6.0, 1)) == (-1, 1, 9.0)


def test_under_a_longer_length_what_is_remembered_counts_longer():
    window = RollingWindow(RollingLimit(1, per=10))
    window.take(0.0, 1)
    window.set_rate(5.0, RollingLimit(1, per=20))

    assert window.take(10.0, 1) == 20.0
