"""The laws of an adaptive limit, each with the mutants of `adaptive_limit.py` that it kills.

| law | mutant |
|---|---|
| it does what the slow model does | any other constant or comparison; a window that keeps calls of the one before |
| always in range, whatever it is told | a cut below the minimum, a step above the maximum; a limit rounded up |
| what is not in use does not grow | `running` not looked at, or compared with `<=` |
| a window is at least a round of the limit, and calls under way are left out | a window that ends early; no skip |
| steady calls: it never shrinks, and reaches the maximum | a step of 0; a floor that rises by itself |
| failures alone: it never grows, and reaches the minimum | failures counted as answers; a cut that rounds to nothing |
| latencies in another unit change nothing | a number of seconds hidden in it |
| it settles at each of four services (`tests/_services.py`), and follows what changes | drifting floors; no search |
| one slow call decides nothing | no bound on what one call counts |
| the floor follows the gradient | the gradient the wrong way round; a probe that is not one |
"""

import math
from fractions import Fraction

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from funcpipe_trio._sansio.adaptive_limit import AdaptiveLimit
from funcpipe_trio.policies.adaptive import Adaptive
from tests._services import DRAWS, Degrading, Failing, Saturating, Slowing, best_fixed, played


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
        (1.75, 8),  # 16 * 0.95 / 1.75
        (1.9, 8),  # half
        (4.0, 8),  # never less than half at once
    ],
)
def test_slow_calls_make_it_smaller_by_how_slow_they_are(seconds, after):
    limit = grown_to(16, target=1.5)

    assert told(limit, seconds, 16) == [(16, after)]


def test_it_shrinks_to_just_below_what_fits_without_a_queue():
    limit = grown_to(64, target=1.25)

    assert told(limit, 1.3, 64) == [(64, 46)]  # 64 * 0.95 / 1.3 = 46.8


def test_then_it_grows_by_a_tenth_and_by_one_at_least():
    limit = grown_to(32, target=1.5)
    told(limit, 2.0, 32)
    assert limit.limit == 16

    assert told(limit, 1.0, 31 + 16 + 15 + 17) == [(31 + 16, 17), (15 + 17, 19)]  # 16, 17.6, 19.36


def test_far_above_the_last_that_was_too_many_it_doubles_again():
    """Here it was 16; above 24, half as much again, what was then is not so any more."""
    limit = grown_to(16, target=1.5)
    told(limit, 2.0, 16)
    assert limit.limit == 8

    limits = [after for _, after in told(limit, 1.0, 1500)]

    assert limits[:13] == [9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 51]


def test_half_as_much_again_is_not_far_above():
    limit = grown_to(2, target=1.5)
    told(limit, 2.0, 10)
    assert limit.limit == 1

    assert [after for _, after in told(limit, 1.0, 11 + 10 + 11)] == [2, 3, 4]


def test_after_failures_it_is_seven_tenths_of_what_ran():
    limit = grown_to(32)

    assert failing(limit, 10) == []
    assert failing(limit, 22) == [22]  # 32 * 0.7 = 22.4, after a round


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


def test_failures_count_though_the_limit_is_not_in_use():
    """Otherwise a service that bears 10 would fail forever for 20 callers under a limit of 32."""
    limit = grown_to(32)

    for _ in range(31):
        assert not limit.failed(20)
    assert limit.failed(20)
    assert limit.limit == 14


def test_one_failure_in_twenty_is_not_one_too_many():
    limit = AdaptiveLimit(Adaptive(20, 100))

    assert not limit.failed(20)
    assert told(limit, 1.0, 19) == [(19, 40)]


def test_one_failure_alone_is_not_either():
    """Of a window of ten it is more than one in twenty, but it may be chance."""
    limit = AdaptiveLimit(Adaptive(4, 100))

    assert not limit.failed(4)
    assert told(limit, 1.0, 9) == [(9, 8)]


@pytest.mark.parametrize(("failures", "after"), [(2, 80), (3, 28)])
def test_in_more_calls_it_is_one_in_twenty(failures, after):
    limit = AdaptiveLimit(Adaptive(1, 100))
    limit._size, limit.limit = 40.0, 40
    for _ in range(failures):
        limit.failed(40)

    assert [now for _, now in told(limit, 1.0, 40 - failures)] == [after]


def test_two_failures_in_twenty_are():
    limit = AdaptiveLimit(Adaptive(1, 100))
    while limit.limit < 32:
        limit.ended(1.0, limit.limit)
    told(limit, 1.0, 15 + 30)

    assert not limit.failed(32)
    assert limit.failed(32)
    assert limit.limit == 22


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
    assert told(limit, 1.0, 16) == [(16, 17)]
    assert limit.floor == floor


def test_also_those_that_fail_are():
    limit = grown_to(32)
    failing(limit, 32)
    assert limit.limit == 22

    assert failing(limit, 31) == []
    assert failing(limit, 22) == [15]


def test_irregular_calls_are_judged_when_their_mean_is_known():
    """Of 0.5 and 1.5 in turn the mean is known to a tenth after 25 calls; it has 3 rounds at most while it searches."""
    limit = AdaptiveLimit(Adaptive(1, 100))
    told(limit, 1.0, 10)
    assert limit.limit == 2

    calls = [limit.ended((0.5, 1.5)[number % 2], 2) for number in range(30)]

    assert calls.index(True) == 25  # the 26th: of an odd number the mean is not 1
    assert AdaptiveLimit(Adaptive(1, 100)).limit == 1


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
    told(limit, 9.0, 7 + 10)

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
CALLS = st.lists(st.tuples(st.booleans(), SECONDS, st.integers(-3, 40)), min_size=1, max_size=12)
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
@given(POLICIES, st.integers(1, 4000), st.integers(0, 40))
def test_of_steady_calls_it_grows_to_the_maximum_and_never_shrinks(policy, units, more):
    limit = AdaptiveLimit(policy)
    limits = [now for _, now in tell(limit, [(False, units / 1024, more)], times=2500)]

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
def test_between_two_changes_there_is_a_round_and_what_ran(policy, calls):
    limit, since, left_out = AdaptiveLimit(policy), 0, 0
    before = limit.limit
    for fails, seconds, more in calls:
        for _ in range(37):
            since += 1
            running = max(1, limit.limit + more)
            if limit.failed(running) if fails else limit.ended(seconds, running):
                assert since >= left_out + max(10, before)
                since, left_out, before = 0, running - 1, limit.limit


@law
@given(POLICIES, CALLS)
def test_latency_alone_never_more_than_halves_it_at_once_nor_more_than_doubles(policy, calls):
    limit = AdaptiveLimit(policy)
    before = limit.limit

    for _, now in tell(limit, [(False, seconds, more) for _, seconds, more in calls]):
        assert before // 2 <= now <= 2 * before + 1
        before = now


# ---- the slow model


class Model:
    """What the module says, from all calls of a window, in exact numbers where numbers are compared."""

    def __init__(self, policy):
        self.policy, self.size, self.floor, self.too_many = policy, float(policy.minimum), 0.0, 0.0
        self.window, self.under_way, self.before = [], 0, None

    @property
    def limit(self):
        return math.floor(self.size)

    def call(self, seconds, running):
        """Take a call; None for one that failed."""
        if self.under_way:
            self.under_way -= 1
            return
        kind = "failure" if seconds is None else "unused" if running < self.limit else "answer"
        if kind == "answer" and self.floor:
            seconds = min(seconds, 3 * self.policy.target * self.floor)
        self.window.append((kind, seconds))
        was = self.limit
        if self.judge(running):
            self.window = []
            self.under_way = running - 1 if self.limit != was else 0

    def judge(self, running):
        all_of_it, fewest = len(self.window), max(10, self.limit)
        answers = [Fraction(seconds) for kind, seconds in self.window if kind == "answer"]
        failures = [kind for kind, _ in self.window].count("failure")
        if all_of_it < fewest:
            return False
        if failures > max(1, all_of_it / 20):
            self.too_many = min(self.size, running)
            self.become(0.7 * self.too_many)
            self.before = None
            return True
        if len(answers) + failures < fewest:
            return all_of_it == 10 * fewest
        mean = sum(answers) / len(answers)
        error = sum((each - mean) ** 2 for each in answers) / len(answers) ** 2
        searches = clearly_less(1.5 * self.too_many, self.size)
        rounds = (len(answers) + failures) / fewest
        if rounds < (3 if searches else 10) and clearly_less(mean**2 / 100, error):
            return all_of_it == 10 * fewest
        self.weigh(float(mean), searches)
        return True

    def weigh(self, mean, searches):
        self.move_floor(mean)
        self.before = None
        if clearly_less(self.policy.target * self.floor, mean):
            self.before, self.too_many = (mean, self.limit), self.size
            self.become(max(self.size / 2, 0.95 * self.size * self.floor / mean))
        else:
            self.become(2 * self.size if searches else max(self.size + 1, 1.1 * self.size))

    def move_floor(self, mean):
        if self.floor == 0:
            self.floor = mean
        elif mean < self.floor:
            weight = 5 if self.before is None else 2
            self.floor = ((weight - 1) * self.floor + mean) / weight
        elif self.before is not None:
            slow, limit = self.before
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
            model.call(None if fails else varied, running)
            assume(abs(model.size - round(model.size)) > 1e-9 or limit.limit == model.limit)
            assert limit.limit == model.limit
    assert limit.floor == pytest.approx(model.floor)


# ---- four services


def settled(service, minimum=1, maximum=64, until=80.0, **rest):
    return played(service, AdaptiveLimit(Adaptive(minimum, maximum, **rest)), until)


@pytest.mark.parametrize("make", [Saturating, Slowing, Failing, lambda: Failing(40, refused_after=0.1)])
def test_it_settles_near_the_best_fixed_number(make):
    """Within 20 % of its throughput, in 5 s; from then on the limit stays within a factor of two."""
    best, _number = best_fixed(make)
    trace = settled(make())

    assert trace.rate(5, 80) >= 0.8 * best
    assert all(trace.rate(at, at + 5) >= 0.8 * best for at in range(5, 80, 5))
    lowest, highest = trace.range(5, 80)
    assert highest <= 2 * lowest


def test_what_fails_is_a_small_part():
    """Of a service that says no at once, one call in ten; it says so a fifth as long as it takes to answer."""
    trace = settled(Failing())

    assert len(trace.failed) <= 0.1 * len(trace.answered)


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
    """Within a quarter of the best, over minutes, and never far off."""
    best, _number = best_fixed(lambda: make(draw=DRAWS[draw]), until=30.0)
    trace = settled(make(draw=DRAWS[draw], seed=seed), until=230.0)

    assert trace.rate(30, 230) >= 0.75 * best
    assert trace.range(60, 230)[0] > 2


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
