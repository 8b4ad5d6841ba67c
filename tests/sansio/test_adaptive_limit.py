"""The laws of an adaptive limit, each with the mutants of `adaptive_limit.py` that it kills.

| law | mutant |
|---|---|
| it does what the slow model does | any other constant or comparison; a window that keeps calls of the one before |
| always in range, whatever it is told | a cut below the minimum, a step above the maximum; a limit rounded up |
| what is not in use does not grow | `running` not looked at, or compared with `<=` |
| a window is at least a round of the limit, and calls under way are left out | a window that ends early; no skip |
| steady calls: it never shrinks, and reaches the maximum | a step of 0; a floor that rises by itself |
| failures alone: it never grows, and reaches the minimum | failures counted as answers; a cut that rounds to nothing |
| a try costs a tenth at most, whatever a failure costs | no patience; a patience that an outage makes endless |
| few failures are chance | one in twenty of ten calls |
| latencies in another unit change nothing | a number of seconds hidden in it |
| it settles at each service of `tests/_services.py`, and follows changes | drifting floors; no search, no steepness |
| one slow call decides nothing | no bound on what one call counts |
| the floor follows the gradient | the gradient the wrong way round; a probe that is not one |
"""

import itertools
import math
from fractions import Fraction
from functools import partial

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from funcpipe_trio._sansio import adaptive_limit
from funcpipe_trio.policies.adaptive import Adaptive
from tests._services import (
    DRAWS,
    Again,
    Degrading,
    Failing,
    Refusing,
    Saturating,
    Slowing,
    Unlucky,
    best_fixed,
    played,
)


class AdaptiveLimit(adaptive_limit.AdaptiveLimit):
    """One with a clock beside it: as many calls as run end in the time of one."""

    now = 0.0

    def ended(self, seconds, running):
        self.now += (seconds or 0.0) / max(1, running)
        return super().ended(seconds, running, self.now)

    def failed(self, running, began=math.inf):
        return super().failed(running, self.now, began)


def told(limit, seconds, calls):
    """Tell of calls that take so long each, with all places in use; return the limits it had, with the calls before."""
    changes, since = [], 0
    for _ in range(calls):
        since += 1
        if limit.ended(seconds, limit.limit):
            changes.append((since, limit.limit))
            since = 0
    return changes


def failing(limit, calls):
    """The same, of calls that fail."""
    return [limit.limit for _ in range(calls) if limit.failed(limit.limit)]


def grown_to(size, seconds=1.0, **rest):
    """Return a limit that has just become `size`, a power of two, in its search, and has no call under way."""
    limit = AdaptiveLimit(Adaptive(1, 1024, **rest))
    while limit.limit < size:
        limit.ended(seconds, limit.limit)
    told(limit, seconds, size // 2 - 1)  # those that are left out
    assert limit.limit == size
    return limit


# ---- by example


def test_it_begins_with_the_minimum_and_knows_no_floor():
    limit = AdaptiveLimit(Adaptive(3, 9))

    assert (limit.limit, limit.floor) == (3, 0.0)


def test_it_doubles_after_each_round_of_steady_calls():
    """A round is ten calls, or as many as the limit; besides, those that began before it changed."""
    limit = AdaptiveLimit(Adaptive(1, 64))

    assert told(limit, 0.1, 200) == [(10, 2), (10, 4), (1 + 10, 8), (3 + 10, 16), (7 + 16, 32), (15 + 32, 64)]
    assert limit.floor == pytest.approx(0.1)


def test_it_does_not_pass_the_maximum():
    limit = AdaptiveLimit(Adaptive(3, 7))

    assert told(limit, 1.0, 100) == [(10, 6), (2 + 10, 7)]


@pytest.mark.parametrize(
    ("seconds", "after"),
    [
        (1.5, 32),  # exactly the target is not too slow; it goes on
        (1.75, 9),  # 16 * 0.95 / 1.75 = 8.7
        (1.9, 8),  # half
        (4.0, 8),  # never less than half at once
    ],
)
def test_slow_calls_make_it_smaller_by_how_slow_they_are(seconds, after):
    limit = grown_to(16, target=1.5)

    assert told(limit, seconds, 16) == [(16, after)]


def test_it_shrinks_to_just_below_what_fits_without_a_queue():
    limit = grown_to(64, target=1.25)

    assert told(limit, 1.3, 64) == [(64, 47)]  # 64 * 0.95 / 1.3 = 46.8


def test_then_it_grows_by_a_tenth_and_by_one_at_least():
    limit = grown_to(32, target=1.5)
    told(limit, 2.0, 32)
    assert limit.limit == 16

    assert told(limit, 1.0, 31 + 16 + 15 + 18) == [(31 + 16, 18), (15 + 18, 19)]  # 16, 17.6, 19.36


def test_far_above_the_last_that_was_too_many_it_doubles_again():
    """Here it was 16; above 24, half as much again, what was then is not so any more."""
    limit = grown_to(16, target=1.5)
    told(limit, 2.0, 16)
    assert limit.limit == 8

    limits = [after for _, after in told(limit, 1.0, 1500)]

    assert limits[:13] == [9, 10, 11, 12, 13, 15, 16, 18, 19, 21, 24, 26, 52]


def test_half_as_much_again_is_not_far_above():
    limit = grown_to(2, target=1.5)
    told(limit, 2.0, 10)
    assert limit.limit == 1

    assert [after for _, after in told(limit, 1.0, 11 + 10 + 11)] == [2, 3, 4]


def test_where_latency_rises_steeply_it_falls_to_where_that_begins():
    """What is 1.9 times as slow for one call more is so for the last of them: 19.4 * 0.95 * (1 / 1.9) ** (1 / 11.9)."""
    limit = grown_to(32, target=1.5)
    told(limit, 2.0, 32)
    told(limit, 1.0, 31 + 16 + 15 + 18)
    assert limit.limit == 19

    assert told(limit, 1.9, 17 + 19) == [(17 + 19, 17)]


def test_the_next_fall_is_by_all_of_it():
    """What is slow with no more calls than before has changed: the steepness of the last step says nothing of that."""
    limit = grown_to(32, target=1.5)
    told(limit, 2.0, 32)
    told(limit, 1.0, 31 + 16 + 15 + 18)
    told(limit, 1.9, 17 + 19)
    floor = limit.floor

    assert told(limit, 1.9, 18 + 17) == [(18 + 17, 9)]
    assert limit.floor == floor


def test_after_failures_it_is_the_last_that_was_clean():
    """It grew from 16. Of 32 calls 1.6 may fail, and 4.7 by chance; the fifth ends the window."""
    limit = grown_to(32)

    assert failing(limit, 4) == []
    assert failing(limit, 1) == [16]


def test_if_that_fails_as_well_it_is_seven_tenths_of_what_ran():
    limit = grown_to(32)
    failing(limit, 5 + 31)

    assert failing(limit, 4) == [11]


def test_what_fails_after_it_grew_counts_at_once():
    """What is slow then may have begun before; what fails is a sign in any case."""
    limit = AdaptiveLimit(Adaptive(1, 64))
    told(limit, 1.0, 10 + 10 + 11 + 13)
    assert limit.limit == 16

    assert failing(limit, 4) == [8]


@pytest.mark.parametrize("hangs", [0.0, 1.0, 20.0])
def test_what_is_too_many_is_tried_again_when_nine_times_what_that_cost_has_passed(hangs):
    """Ten fit; of more all fail, after a time. A try costs the time from then on, until ten calls were good again."""
    limit = AdaptiveLimit(Adaptive(10, 20))
    tries = []
    for _ in range(3000):
        before = limit.limit
        if limit.limit > 10:
            limit.now += hangs / limit.limit
            limit.failed(limit.limit)
        else:
            limit.ended(1.0, limit.limit)
        if limit.limit > 10 >= before:
            tries.append(limit.now)

    assert len(tries) > 3
    for before, after in itertools.pairwise(tries[2:]):
        lost = 3 * hangs / 11 + 2  # three fail; those under way are left out, and ten are judged
        assert 9 * lost <= after - before <= 12 * lost


@pytest.mark.parametrize("seconds", [1.0, 64.0])
def test_what_is_too_slow_is_tried_again_when_nine_times_what_that_cost_has_passed(seconds):
    """Ten calls are quick, eleven are half as quick: a try costs 9 / 20 of its time."""
    limit = AdaptiveLimit(Adaptive(10, 20, target=1.5))
    tries, costs = [], []
    for _ in range(3000):
        before = limit.limit
        limit.ended(seconds if before <= 10 else 2 * seconds, before)
        if limit.limit > 10 >= before:
            tries.append(limit.now)
        elif limit.limit <= 10 < before:
            costs.append((limit.now - tries[-1]) * 9 / 20)

    assert len(tries) > 3
    for (before, after), cost in [*zip(itertools.pairwise(tries), costs, strict=False)][1:]:  # behind the search
        assert 9 * cost <= after - before - cost * 20 / 9 <= 12 * cost


def test_as_many_failures_as_chance_may_make_are_not_too_many():
    """Of 80 calls 4 may fail, and by chance 5 more: it is the next one that tells."""
    limit = AdaptiveLimit(Adaptive(20, 1024))
    while limit.limit < 80:
        limit.ended(1.0, limit.limit)
    told(limit, 1.0, 39)

    assert failing(limit, 9) == []
    assert failing(limit, 1) == [40]


def test_one_in_twenty_of_ten_rounds_is_not_too_many():
    """Of a hundred calls of which nothing else is known."""
    limit = grown_to(8)
    for _ in range(95):
        limit.ended(None, 4)
    for _ in range(5):
        limit.failed(4)

    assert limit.limit == 8


def test_a_probe_that_is_just_quick_enough_tells_of_the_floor():
    """After a steep rise, at 1.5 floors, where the fall from 1.6 is less than that of the limit."""
    limit = grown_to(32, target=1.5)
    told(limit, 2.0, 32)
    told(limit, 1.0, 31 + 16 + 15 + 18)
    told(limit, 1.6, 17 + 19)
    before, floor = limit.limit, limit.floor
    while limit.limit == before:
        limit.ended(1.5, before)

    assert floor < limit.floor < 1.25


def test_a_failure_where_it_was_good_costs_the_time_until_it_is_good_again():
    """It falls from 8 to 6. Those under way are left out, ten are judged: some 17 / 6 s, and nine times that."""
    limit = AdaptiveLimit(Adaptive(1, 8))
    told(limit, 1.0, 500)
    began = limit.now
    assert failing(limit, 4) == [6]

    while limit.limit < 8:
        limit.ended(1.0, limit.limit)

    assert 9 * 17 / 6 <= limit.now - began <= 12 * 17 / 6


def test_a_failure_long_after_the_limit_changed_costs_no_more():
    """What fails where it was good is no try: an outage of hours is not followed by days of patience."""
    limit = AdaptiveLimit(Adaptive(1, 8))
    told(limit, 1.0, 500)
    limit.now = 1e6
    failing(limit, 100)
    assert limit.limit == 1

    told(limit, 1.0, 1000)
    assert limit.limit == 8


def test_failures_are_a_part_of_all_calls_though_the_limit_is_not_in_use():
    """One in a hundred of a slow stream: for as long as it lasts, that is one in a hundred."""
    limit = grown_to(32)

    for number in range(20_000):
        assert not (limit.failed(3) if number % 100 == 50 else limit.ended(1.0, 3))
    assert limit.limit == 32


def test_failures_are_a_part_of_calls_that_waited_as_well():
    limit = grown_to(32)

    for number in range(20_000):
        assert not (limit.failed(32) if number % 100 == 50 else limit.ended(None, 32))
    assert limit.limit == 32


def test_what_was_seen_long_ago_is_forgotten():
    """A window in which the limit is hardly in use ends after ten rounds; what is in use then is judged by itself."""
    limit = grown_to(16)
    for _ in range(159):
        assert not limit.ended(9.0, 3)
    limit.ended(9.0, 16)

    assert told(limit, 1.0, 16) == [(16, 32)]


@pytest.mark.parametrize(("running", "after"), [(20, 16), (12, 8)])
def test_failures_count_though_the_limit_is_not_in_use(running, after):
    """Otherwise a service that bears 10 would fail forever for 20 callers under a limit of 32."""
    limit = grown_to(32)

    for _ in range(4):
        assert not limit.failed(running)
    assert limit.failed(running)
    assert limit.limit == after


def test_what_ran_is_the_most_that_ran_when_one_failed():
    """Of calls that end at the same moment the last finds hardly another."""
    limit = grown_to(32)

    assert [limit.failed(running) for running in (32, 31, 30, 2, 1)] == [False] * 4 + [True]
    assert limit.limit == 16


def test_one_failure_in_twenty_is_not_one_too_many():
    limit = AdaptiveLimit(Adaptive(20, 100))

    assert not limit.failed(20)
    assert told(limit, 1.0, 19) == [(19, 40)]


def test_one_failure_alone_decides_nothing():
    """Of a window of ten it is more than one in twenty, but it may be chance: it goes on."""
    limit = AdaptiveLimit(Adaptive(4, 100))

    assert not limit.failed(4)
    assert told(limit, 1.0, 19) == [(19, 8)]


@pytest.mark.parametrize(("failures", "answers", "after"), [(2, 38, 80), (5, 95, 80), (6, 0, 28)])
def test_in_more_calls_it_is_one_in_twenty_and_chance(failures, answers, after):
    limit = AdaptiveLimit(Adaptive(1, 100))
    limit._size, limit.limit = 40.0, 40

    changes = failing(limit, failures) + [now for _, now in told(limit, 1.0, answers)]
    assert changes == [after]


def test_more_than_one_in_twenty_for_ten_rounds_is_no_chance():
    limit = AdaptiveLimit(Adaptive(1, 100))
    limit._size, limit.limit = 20.0, 20

    changes = [number for number in range(200) if (limit.failed(20) if number % 18 == 0 else limit.ended(1.0, 20))]

    assert (changes, limit.limit) == ([199], 14)


def test_what_failed_says_nothing_of_latency():
    """The mean is that of the calls that got an answer."""
    limit = AdaptiveLimit(Adaptive(20, 100))
    limit.failed(20)
    told(limit, 1.0, 19)

    assert limit.floor == 1.0


def test_a_limit_that_is_not_in_use_stays():
    limit = grown_to(8)

    for seconds in (1.0, 100.0) * 100:
        assert not limit.ended(seconds, 7)
    assert limit.limit == 8


def test_calls_that_began_before_the_change_are_left_out():
    """32 ran when the limit fell to 16; the 31 others say how it was before, slow as they are."""
    limit = grown_to(32)
    told(limit, 2.0, 32)
    floor = limit.floor

    assert told(limit, 9.0, 31) == []
    assert told(limit, 1.0, 16) == [(16, 18)]
    assert limit.floor == floor


def test_also_those_that_fail_are():
    limit = grown_to(32)
    failing(limit, 5)
    assert limit.limit == 16

    assert failing(limit, 31) == []
    assert failing(limit, 4) == [11]


def test_what_ends_before_no_more_run_than_the_limit_is_left_out():
    """Items that wait in their place for another attempt: however often they fail, they began under another limit."""
    limit = grown_to(32)
    failing(limit, 5)

    assert not any(limit.failed(17) or limit.ended(9.0, 17) for _ in range(500))
    assert failing(limit, 16) == []
    assert failing(limit, 4) == [11]


def test_what_began_before_it_fell_is_left_out_whenever_it_fails():
    """Quicker calls, begun later, have ended before it; so to count those that ended is not enough."""
    limit = grown_to(32)
    failing(limit, 5)
    fell = limit.now
    told(limit, 1.0, 31 + 1)

    assert not any(limit.failed(16, fell) for _ in range(100))
    assert [limit.failed(16, fell + 0.1) for _ in range(4)] == [False, False, False, True]


def test_irregular_calls_are_judged_when_their_mean_is_known():
    """Of 0.78 and 1.22 in turn the mean is known to a twentieth after 20 calls."""
    limit = AdaptiveLimit(Adaptive(1, 100))
    told(limit, 1.0, 10)
    assert limit.limit == 2

    calls = [limit.ended((0.78, 1.22)[number % 2], 2) for number in range(30)]

    assert calls.index(True) + 1 == 20


@pytest.mark.parametrize(("before", "most"), [(False, 30), (True, 100)])
def test_the_most_irregular_are_judged_after_three_rounds_or_ten(before, most):
    """Of 0 and 2 in turn the mean is never known well enough before; a search waits for less."""
    limit = AdaptiveLimit(Adaptive(1, 100, target=1.9))
    if before:
        told(limit, 1.0, 10 + 10)
        told(limit, 2.0, 1 + 10)
        told(limit, 1.0, 3)
        assert limit.limit == 2
    calls = [limit.ended(2.2 * (number % 2), limit.limit) for number in range(100)]

    assert calls.index(True) + 1 == most


def test_one_call_that_takes_forever_decides_nothing():
    """It counts as three times the target; then the mean of a few rounds is below that."""
    limit = grown_to(16, target=1.3)

    limit.ended(1e6, 16)
    changes = told(limit, 1.0, 47)

    assert [after for _, after in changes] == [32]


@pytest.mark.parametrize(
    ("probe", "floor"),
    [
        (1.0, 1.0),  # as it was
        (0.5, 0.75),  # even less: it falls half way
        (1.25, 1 + 0.25 * (1 - math.log2(2 / 1.25)) / 2),  # not all of it was the queue: it rises for the rest
        (math.sqrt(2), 1 + (math.sqrt(2) - 1) / 4),  # half of it was
        (2.0, 1.5),  # no quicker than with more: it is no matter of the limit
        (3.0, 2.0),  # slower than with more
    ],
)
def test_the_floor_follows_the_gradient_of_the_probe(probe, floor):
    limit = grown_to(32, target=1.5)
    told(limit, 2.0, 32)
    assert (limit.limit, limit.floor) == (16, 1.0)
    told(limit, 2.0, 31)

    told(limit, probe, limit.limit)

    assert limit.floor == pytest.approx(floor)


def test_where_it_cannot_shrink_what_is_slow_is_the_new_floor():
    """The minimum is too many, so it shows nothing of the queue: the limit is free to grow from there."""
    limit = AdaptiveLimit(Adaptive(4, 64))
    told(limit, 1.0, 10)
    told(limit, 9.0, 3 + 10)
    assert limit.limit == 4
    told(limit, 9.0, 7 + 10 + 10)

    assert limit.floor == pytest.approx(1 + (3 * 1.3 - 1) / 2)  # as far as one call counts, and half way
    told(limit, 4.0, 10)
    assert limit.limit > 4


def test_a_clean_window_is_no_probe():
    """The floor rises only right after a cut."""
    limit = grown_to(16, target=1.5)

    told(limit, 1.4, 16 + 15 + 32)

    assert limit.floor == 1.0


def test_quicker_calls_are_a_new_floor_in_time():
    """Without a probe it falls by a fifth of the way for each window."""
    limit = grown_to(16)

    told(limit, 0.5, 16)
    assert limit.floor == pytest.approx(0.9)
    told(limit, 0.5, 15 + 32)
    assert limit.floor == pytest.approx(0.82)


def test_after_failures_no_gradient_is_taken():
    limit = grown_to(32, target=1.5)
    told(limit, 2.0, 32)
    failing(limit, 31 + 16)

    told(limit, 1.4, 40)

    assert limit.floor == 1.0


def test_calls_that_take_no_time_grow_it_and_the_first_that_takes_some_is_the_floor():
    limit = AdaptiveLimit(Adaptive(1, 8))
    told(limit, 0.0, 10 + 10 + 1 + 10 + 3 + 10)
    assert (limit.limit, limit.floor) == (8, 0.0)

    told(limit, 5.0, 10)

    assert limit.floor == 5.0


# ---- laws

law = settings(max_examples=60, deadline=None)
SECONDS = st.integers(0, 4000).map(lambda number: number / 1024)
CALLS = st.lists(st.tuples(st.booleans(), SECONDS, st.integers(-3, 2)), min_size=1, max_size=12)
"""Whether a call fails, how long it takes, how many more than the limit run; each is told many times."""
POLICIES = st.tuples(st.integers(1, 30), st.integers(0, 60), st.sampled_from([1.25, 1.5, 3.0])).map(
    lambda three: Adaptive(three[0], three[0] + three[1], target=three[2])
)


def tell(limit, calls, times=37):
    """Tell of calls, each so many times; yield the limit after each."""
    for fails, seconds, more in calls:
        for _ in range(times):
            running = max(1, limit.limit + more)
            changed = limit.failed(running) if fails else limit.ended(seconds, running)
            yield changed, limit.limit


@law
@given(POLICIES, CALLS)
def test_it_is_always_in_range_and_says_when_it_changes(policy, calls):
    limit = AdaptiveLimit(policy)
    before = limit.limit

    for changed, now in tell(limit, calls):
        assert policy.minimum <= now <= policy.maximum
        assert type(now) is int
        assert changed == (now != before)
        before = now


@law
@given(POLICIES, CALLS)
def test_the_same_calls_give_the_same_limits(policy, calls):
    one, other = AdaptiveLimit(policy), AdaptiveLimit(policy)

    assert list(tell(one, calls)) == list(tell(other, calls))
    assert one.floor == other.floor


@law
@given(POLICIES, CALLS, st.integers(-20, 20))
def test_the_unit_of_time_does_not_matter(policy, calls, power):
    scaled = [(fails, seconds * 2.0**power, more) for fails, seconds, more in calls]

    assert list(tell(AdaptiveLimit(policy), calls)) == list(tell(AdaptiveLimit(policy), scaled))


@law
@given(POLICIES, CALLS)
def test_without_a_full_limit_it_never_grows(policy, calls):
    limit = AdaptiveLimit(policy)
    unused = [(fails, seconds, min(more, -1)) for fails, seconds, more in calls]
    before = limit.limit

    for _, now in tell(limit, unused):
        # Where the limit is 1, one call is all of it.
        assert now <= before or before == 1
        before = now


@law
@given(POLICIES, st.integers(1, 4000))
def test_of_steady_calls_it_grows_to_the_maximum_and_never_shrinks(policy, units):
    limit = AdaptiveLimit(policy)
    limits = [now for _, now in tell(limit, [(False, units / 1024, 0)], times=2500)]

    assert limits == sorted(limits)
    assert limits[-1] == policy.maximum


@law
@given(POLICIES, CALLS)
def test_of_failures_alone_it_falls_to_the_minimum_and_never_grows(policy, calls):
    limit = AdaptiveLimit(policy)
    list(tell(limit, calls))
    limits = [limit.limit, *(now for _, now in tell(limit, [(True, 0.0, 0)], times=2500))]

    falling = limits[limits.index(max(limits)) :]  # the window that was open may have been a clean one
    assert falling == sorted(falling, reverse=True)
    assert limits[-1] == policy.minimum


@law
@given(POLICIES, CALLS)
def test_between_two_changes_by_latency_there_is_a_round_and_what_ran(policy, calls):
    limit, since, left_out = AdaptiveLimit(policy), 0, 0
    before = limit.limit
    for _, seconds, more in calls:
        for _ in range(37):
            since += 1
            running = max(1, limit.limit + more)
            if limit.ended(seconds, running):
                assert since >= left_out + max(10, before)
                since, left_out, before = 0, running - 1, limit.limit


@law
@given(POLICIES, CALLS)
def test_latency_alone_never_more_than_halves_it_at_once_nor_more_than_doubles(policy, calls):
    limit = AdaptiveLimit(policy)
    before = limit.limit

    for _, now in tell(limit, [(False, seconds, more) for _, seconds, more in calls]):
        assert before // 2 <= now <= 2 * before + 1, (before, now)
        before = now


# ---- the slow model


class Model:
    """What the module says, from all calls of a window, in exact numbers where numbers are compared."""

    def __init__(self, policy):
        self.policy, self.size, self.floor, self.too_many = policy, float(policy.minimum), 0.0, 0.0
        self.window, self.ran, self.under_way, self.before, self.shrank = [], [], 0, None, False
        self.clean, self.changed, self.lost, self.until = None, 0.0, None, 0.0

    @property
    def limit(self):
        return round(self.size)

    def call(self, seconds, running, now):
        """Take a call; None for one that failed."""
        if running > self.limit:
            self.under_way = running - 1
            return
        if self.under_way:
            self.under_way -= 1
            if self.shrank or seconds is not None:
                return
        kind = "failure" if seconds is None else "unused" if running < self.limit else "answer"
        if kind == "answer" and self.floor:
            seconds = min(seconds, 3 * self.policy.target * self.floor)
        self.window.append((kind, seconds))
        if kind == "failure":
            self.ran.append(running)
        was = self.limit
        if self.judge(running, now):
            self.window, self.ran = [], []
            if self.limit != was:
                self.under_way, self.changed, self.shrank = running - 1, now, self.limit < was

    def judge(self, running, now):
        all_of_it, fewest = len(self.window), max(10, self.limit)
        answers = [Fraction(seconds) for kind, seconds in self.window if kind == "answer"]
        failures = [kind for kind, _ in self.window].count("failure")
        mean = Fraction(max(all_of_it, fewest), 20)
        beyond = failures - mean
        if 20 * failures > all_of_it and (all_of_it >= 10 * fewest or (beyond > 0 and beyond**2 > mean * 25 / 4)):
            self.fall(max(self.ran), now)
            return True
        if all_of_it < fewest or 20 * failures > all_of_it:
            return False
        if len(answers) + failures < fewest or not answers:
            return all_of_it == 10 * fewest
        mean = sum(answers) / len(answers)
        error = sum((each - mean) ** 2 for each in answers) / len(answers) ** 2
        searches = clearly_less(1.5 * self.too_many, self.size)
        rounds = (len(answers) + failures) / fewest
        if rounds < (3 if searches else 10) and clearly_less(mean**2 / 400, error):
            return all_of_it == 10 * fewest
        self.weigh(float(mean), searches, now)
        return True

    def fall(self, running, now):
        self.before = None
        if self.clean and self.clean[0] < min(running, self.limit):
            self.lost, self.too_many, after = self.changed, self.size, self.clean[0]
        else:
            self.lost, self.too_many = now, min(self.size, running)
            after = 0.7 * self.too_many
        self.become(after)

    def weigh(self, mean, searches, now):
        self.move_floor(mean)
        self.before = None
        if clearly_less(self.policy.target * self.floor, mean):
            steep = 1
            if self.clean and self.clean[0] < self.limit and 0 < self.clean[1] < mean:
                grown, slower = self.limit / self.clean[0], mean / self.clean[1]
                steep = max(1, math.log(slower, grown))
                self.until = max(self.until, now + 9 * max(0, 1 - grown / slower) * (now - self.changed))
            self.before, self.too_many = (mean, self.limit, steep), self.size
            self.become(max(self.size / 2, 0.95 * self.size * (self.floor / mean) ** (1 / steep)))
            return
        if self.lost is not None:
            self.until, self.lost = max(self.until, now + 9 * (now - self.lost)), None
        self.clean = (self.limit, mean)
        size = 2 * self.size if searches else max(self.size + 1, 1.1 * self.size)
        if not (self.size < self.too_many and round(self.too_many) <= round(size) and now < self.until):
            self.become(size)

    def move_floor(self, mean):
        if self.floor == 0:
            self.floor = mean
        elif mean < self.floor:
            weight = 5 if self.before is None else 2
            self.floor = ((weight - 1) * self.floor + mean) / weight
        elif self.before is not None:
            slow, limit, steep = self.before
            if steep > 1 and clearly_less(self.policy.target * self.floor, mean):
                return
            gradient = math.log(slow / mean, limit / self.limit) if limit != self.limit else 0
            self.floor += (1 - min(max(gradient, 0), 1)) / 2 * (mean - self.floor)

    def become(self, size):
        self.size = min(max(size, self.policy.minimum), self.policy.maximum)


def clearly_less(one, other):
    """Whether one is less; examples where rounding decides are not looked at."""
    assume(abs(one - other) > 1e-9 * (abs(one) + abs(other)) or one == other == 0)
    return one < other


@settings(max_examples=200, deadline=None)
@given(POLICIES, CALLS)
@example(Adaptive(1, 64, target=1.5), [(False, 1.0, 0)] * 6 + [(False, 2.0, 0)] * 3 + [(False, 1.0, 0)] * 12)
@example(
    Adaptive(5, 64, target=1.5), [(False, 1.0, 0)] * 4 + [(True, 2.0, 0)] * 2 + [(False, 3.0, 0), (False, 1.0, 0)] * 5
)
def test_it_does_what_the_slow_model_does(policy, calls):
    limit, model = AdaptiveLimit(policy), Model(policy)
    for fails, seconds, more in calls:
        for number in range(37):
            running = max(1, limit.limit + more)
            varied = seconds * (1 + number % 3)  # calls of a kind differ
            _ = limit.failed(running) if fails else limit.ended(varied, running)
            model.call(None if fails else varied, running, limit.now)
            assume(abs(model.size % 1 - 0.5) > 1e-9 or limit.limit == model.limit)
            assert limit.limit == model.limit
    assert limit.floor == pytest.approx(model.floor)


# ---- services


def settled(service, minimum=1, maximum=64, until=80.0, again=None, **rest):
    return played(service, adaptive_limit.AdaptiveLimit(Adaptive(minimum, maximum, **rest)), until, again)


@pytest.mark.parametrize(
    "make",
    [
        Saturating,
        partial(Saturating, 2),
        partial(Saturating, 3),
        Slowing,
        partial(Slowing, 2),
        partial(Slowing, 3),
        partial(Slowing, power=3),
        partial(Slowing, power=4),
        Failing,
        partial(Failing, 40, refused_after=0.1),
    ],
)
def test_it_settles_near_the_best_fixed_number(make):
    """Within 20 % of its throughput, in 10 s; from then on the limit stays within a factor of two."""
    best, _number = best_fixed(make, until=6.0)
    trace = settled(make(), until=50.0)

    assert trace.rate(10, 50) >= 0.8 * best
    assert all(trace.rate(at, at + 10) >= 0.8 * best for at in range(10, 50, 10))
    lowest, highest = trace.range(10, 50)
    assert highest <= 2 * lowest


@pytest.mark.parametrize("most", [5, 10, 20, 40])
@pytest.mark.parametrize("refused_after", [0.001, 0.05, 0.1])
def test_it_does_so_where_one_call_too_many_makes_all_of_them_fail(most, refused_after):
    trace = settled(Refusing(most, refused_after=refused_after), until=50.0)

    assert trace.rate(10, 50) >= 0.8 * 10 * most
    lowest, highest = trace.range(10, 50)
    assert highest <= 2 * lowest


@pytest.mark.parametrize("wait", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("elsewhere", [0, 40])
def test_it_does_so_though_what_was_refused_waits(wait, elsewhere):
    """In its place, or elsewhere, and then tries again: what a failure costs differs twentyfold."""
    trace = settled(Refusing(20), until=60.0, again=Again(wait, elsewhere))

    assert trace.rate(20, 60) >= 0.8 * 200
    lowest, highest = trace.range(20, 60)
    assert highest <= 2 * lowest


def test_it_does_so_where_too_many_calls_hang():
    """For two seconds each, twenty times as long as a call: that is tried every twenty seconds, not more often."""
    trace = settled(Refusing(10, refused_after=2.0), until=100.0, again=Again(0.05))

    assert trace.rate(40, 100) >= 0.8 * 100
    assert trace.range(40, 100) == (10, 11)


@pytest.mark.parametrize("part", [0.02, 0.03])
def test_few_failures_by_chance_do_not_make_it_smaller(part):
    best = 640
    trace = settled(Unlucky(part), until=60.0, again=Again(0.1))

    assert trace.rate(10, 60) >= 0.8 * best
    assert trace.range(10, 60)[0] > 32


def test_after_an_outage_it_is_back_in_ten_seconds():
    trace = settled(Refusing(20, down=(20.0, 60.0)), until=100.0)

    assert trace.range(59, 60) == (1, 1)
    assert trace.rate(70, 100) >= 0.8 * 200


def test_what_fails_is_a_small_part():
    """Of a service that says no at once, one call in twenty; it says so in a fifth of the time of an answer."""
    trace = settled(Failing())

    assert len(trace.failed) <= 0.05 * len(trace.answered)


def test_it_follows_a_service_that_degrades_and_recovers():
    """A third of its servers: within 2 s the limit fits; when they come back, within 3 s it works as fast as before."""
    trace = settled(Degrading(), until=90.0)
    whole, part = 210.0, 70.0

    assert trace.rate(5, 30) >= 0.8 * whole
    assert trace.rate(32, 60) >= 0.8 * part
    assert trace.range(32, 60)[1] <= 2 * 7 * 1.3
    assert trace.rate(63, 66) >= 0.8 * whole
    assert trace.rate(66, 90) >= 0.8 * whole


@pytest.mark.parametrize("draw", ["exponential", "of two kinds"])
@pytest.mark.parametrize("make", [Saturating, Slowing])
@pytest.mark.parametrize("seed", range(2))
def test_it_settles_though_latencies_are_irregular(make, draw, seed):
    """Within a fifth of the best, over minutes, and never far off: the limit swings by a factor of three at most."""
    best, _number = best_fixed(lambda: make(draw=DRAWS[draw]), until=30.0)
    trace = settled(make(draw=DRAWS[draw], seed=seed), until=150.0)

    assert trace.rate(30, 150) >= 0.8 * best
    lowest, highest = trace.range(60, 150)
    assert highest <= 3 * lowest


@pytest.mark.parametrize("make", [Saturating, Slowing, Failing])
def test_the_maximum_binds(make):
    trace = settled(make(), minimum=2, maximum=6)

    assert trace.range(0, 80) == (2, 6)
    assert trace.range(10, 80) == (6, 6)


def test_what_no_limit_helps_stays_at_the_maximum():
    """Slow calls that do not wait for each other are not slower together, however irregular they are."""
    trace = settled(Saturating(10_000, draw=DRAWS["exponential"]), until=300.0)

    assert trace.rate(30, 300) >= 0.8 * 640


def test_items_that_become_slower_by_themselves_do_not_hold_it_down():
    """Calls take three times as long from some time on: it looks whether fewer are quicker, and comes back."""

    class Slower(Saturating):
        def alone(self):
            return 0.1 if len(self.free) < 1 or min(self.free) < 20 else 0.3

    best = 20 / 0.3
    trace = settled(Slower(), until=120.0)

    assert trace.rate(40, 120) >= 0.8 * best
