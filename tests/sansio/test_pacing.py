"""Pacers: which item may leave, and when; against models, without a loop.

Mutants that die here: tokens taken when an item comes instead of when it leaves; a debounce that counts from its first
item; a sample that moves with each item; superseded items counted once too often, or not; a tail that waits at the end;
a delay that counts from when the item before left; a credit that is not paid, is paid twice, or is lent before the
token of the question is taken.
"""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import RateLimit, RollingLimit
from funcpipe_trio._sansio.pacing import Debouncer, Delayer, Sampler, Throttler


def played(pacer, arrivals, end=math.inf):
    """Play items at their times to a pacer; give what leaves and when. A deadline comes before an item."""
    pacer.begin(0.0)
    left, waiting = [], [(at, item) for item, at in enumerate(arrivals)]
    now = 0.0
    while waiting or pacer.items:
        comes = waiting[0][0] if waiting else math.inf
        if not pacer.items or (not pacer.is_full and comes < pacer.deadline):
            at, item = waiting.pop(0)
            now = max(now, at)
            pacer.add(item, 1, now)
            if not waiting and now >= end:
                pacer.end()
        else:
            now = max(now, pacer.deadline)
            left.append((now, pacer.pop(now)))
    return left


def test_a_debounced_item_leaves_when_it_was_quiet():
    """The last of a burst, `delay` after it came; the others are counted."""
    pacer = Debouncer(2.0)

    assert played(pacer, [0, 1, 2.5, 10, 12, 13]) == [(4.5, 2), (12.0, 3), (15.0, 5)]
    assert pacer.superseded == 3


def test_a_debounced_item_leaves_though_it_is_never_quiet():
    """The newest, `max_wait` after the first that waited; from then on the next is the first."""
    pacer = Debouncer(2.0, 4.0)

    assert played(pacer, [0, 1, 2, 3, 4, 5, 6, 9, 10]) == [(4.0, 3), (8.0, 6), (12.0, 8)]
    assert pacer.superseded == 6


def test_a_debounced_item_that_waits_for_room_stays_due():
    pacer = Debouncer(2.0, 4.0)
    pacer.begin(0.0)
    for at in (0.0, 1.5, 3.0, 7.0, 9.0):
        pacer.add(at, 1, at)

    assert (pacer.deadline, pacer.pop(9.5)) == (4.0, 9.0)
    pacer.add("next", 1, 10.0)
    assert pacer.deadline == 12.0


def test_a_sampled_item_leaves_at_a_multiple():
    """The last that came before it; one that comes just then waits for the next."""
    pacer = Sampler(2.0)

    assert played(pacer, [0, 1, 2, 2.5, 9, 9.5]) == [(2.0, 1), (4.0, 3), (10.0, 5)]
    assert pacer.superseded == 3


@pytest.mark.parametrize("kind", [Debouncer, Sampler])
def test_the_last_item_is_due_at_the_end(kind):
    """At once; and without an item nothing is."""
    pacer = kind(2.0)
    pacer.begin(0.0)
    pacer.end()
    assert pacer.deadline == math.inf
    pacer.add("a", 1, 0.5)
    pacer.add("b", 1, 0.5)
    pacer.end()

    assert pacer.deadline <= 0.5
    assert pacer.pop(0.5) == "b"
    assert (pacer.deadline, pacer.superseded, list(pacer.items)) == (math.inf, 1, [])


def test_a_sample_that_had_to_wait_for_room_does_not_move_the_next():
    """It leaves late; the item after it, at the multiple after that."""
    pacer = Sampler(2.0)
    pacer.begin(0.0)
    pacer.add("a", 1, 1.0)
    pacer.add("b", 1, 6.5)

    assert pacer.deadline == 2.0
    assert pacer.pop(7.0) == "b"
    pacer.add("c", 1, 7.5)
    assert pacer.deadline == 8.0


def test_a_delayed_item_leaves_in_its_own_time():
    """Several wait at once, each from when it came; no more than so many."""
    assert played(Delayer(2.0, 3), [0, 0.5, 1, 1.5, 9]) == [(2.0, 0), (2.5, 1), (3.0, 2), (4.0, 3), (11.0, 4)]
    assert played(Delayer(2.0, 1), [0, 0.5, 9]) == [(2.0, 0), (4.0, 1), (11.0, 2)]


@pytest.mark.parametrize(
    ("kind", "arguments"), [(Debouncer, (2.0,)), (Sampler, (2.0,)), (Delayer, (2.0, 3)), (Throttler, (RateLimit(1),))]
)
def test_what_is_kept_can_be_taken_back(kind, arguments):
    """For whoever gives it up; then nothing is due."""
    pacer = kind(*arguments)
    pacer.begin(0.0)
    pacer.add("a", 1, 0.5)

    assert pacer.clear() == ["a"]
    assert pacer.clear() == []
    assert pacer.deadline == math.inf


costs = st.sampled_from([1, 2, 3, Fraction(1, 2), Fraction(0.1), Fraction(1, 3)])


@given(
    st.sampled_from([RateLimit(1, burst=3), RateLimit(3, per=7, burst=4), RateLimit(0.3, burst=3)]),
    st.lists(
        st.tuples(st.sampled_from([0.0, 0.1, 1.0, 20.0]), costs, st.sampled_from([0.0, 0.0, 0.5, 9.0])), max_size=20
    ),
)
def test_throttled_items_keep_to_the_bucket_when_they_leave(limit, script):
    """In every window the cost of what left is at most burst + rate * length, though some waited for room as well."""
    pacer, now, left = Throttler(limit), 0.0, []
    for wait, cost, no_room in script:
        now += wait
        pacer.add("item", cost, now)
        assert pacer.is_full
        now = max(now + no_room, pacer.deadline)
        pacer.pop(now)
        left.append((Fraction(now), cost))

    rate = Fraction(limit.rate) / Fraction(limit.per)
    for first in range(len(left)):
        for last in range(first, len(left)):
            window = left[last][0] - left[first][0]
            assert sum(cost for _, cost in left[first : last + 1]) <= limit.burst + rate * window


def test_a_throttled_item_leaves_at_once_while_there_are_tokens():
    """Then one by one, when theirs are there."""
    assert played(Throttler(RateLimit(1, per=2, burst=2)), [0, 0, 0, 0, 20]) == [
        (0.0, 0),
        (0.0, 1),
        (2.0, 2),
        (4.0, 3),
        (20.0, 4),
    ]


def goes_on(throttler, now):
    """Whether an item may continue as it comes: by credit, or when asked."""
    if throttler.credit:
        throttler.credit -= 1
        return True
    return throttler.passes(now)


def test_nothing_is_lent_before_the_first_question():
    throttler = Throttler(RateLimit(1))

    assert (throttler.credit, throttler.owes) == (0, False)


@given(
    st.builds(RateLimit, st.integers(1, 5), per=st.sampled_from([1.0, 3.0]), burst=st.integers(1, 9))
    | st.builds(RollingLimit, st.integers(1, 5), per=st.sampled_from([1.0, 3.0])),
    st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.5, 2.0]), max_size=30),
)
def test_an_item_passes_exactly_when_it_would_leave_as_it_comes(limit, pauses):
    """Catches a short way that takes no token, takes one though it says no, or lets an item pass too early.

    No time passes within a turn here, as in virtual time none does.
    """
    short, long, now = Throttler(limit), Throttler(limit), 0.0
    for pause in pauses:
        if pause:
            short.settle(now)
        now += pause
        long.add("item", 1, now)
        passes = goes_on(short, now)

        assert passes == (long.deadline <= now)
        if not passes:
            short.add("item", 1, now)
            assert short.deadline == long.deadline
            now = short.deadline
            short.pop(now)
        long.pop(now)


def played_in_turns(limit, turns):
    """Let items come in turns in which time passes, too; give when each left, and whether one had to wait."""
    throttler, now, left, waited = Throttler(limit), 0.0, [], 0
    for rest, steps in turns:
        now += rest
        for step in steps:
            now += step
            if not goes_on(throttler, now):
                waited += 1
                throttler.add("item", 1, now)
                now = throttler.deadline
                throttler.pop(now)
            left.append(Fraction(now))
        throttler.settle(now)
    return left, waited


steps = st.sampled_from([0.0, 0.0, 1e-3, 0.01, 0.3])


@given(
    st.builds(RateLimit, st.sampled_from([1, 0.3, 100, 1e4]), burst=st.integers(1, 50)),
    st.lists(st.tuples(steps, st.lists(steps, max_size=40)), max_size=8),
)
def test_what_goes_on_by_credit_keeps_to_the_bucket_when_it_leaves(limit, turns):
    """In every window, though it is paid for later: catches a credit that outlives its turn, or is not paid."""
    left, _ = played_in_turns(limit, turns)

    rate = Fraction(limit.rate)
    for first in range(len(left)):
        for last in range(first, len(left)):
            assert last - first + 1 <= limit.burst + rate * (left[last] - left[first])


@given(
    st.builds(RollingLimit, st.integers(1, 9), per=st.sampled_from([0.01, 0.3, 1.0])),
    st.lists(st.tuples(steps, st.lists(steps, max_size=40)), max_size=8),
)
def test_so_does_a_rolling_limit(limit, turns):
    left, _ = played_in_turns(limit, turns)

    assert all(late - early >= Fraction(limit.per) for early, late in zip(left, left[limit.n :], strict=False))


@given(st.integers(1, 100), st.lists(st.lists(st.sampled_from([1.0, 1.5, 9.0]), max_size=40), max_size=8))
def test_what_keeps_the_pace_never_waits(burst, turns):
    """Though what a full bucket would have gained again within a turn is lost: catches a question that is not paid."""
    assert played_in_turns(RateLimit(1, burst=burst), [(0.0, steps) for steps in turns])[1] == 0
