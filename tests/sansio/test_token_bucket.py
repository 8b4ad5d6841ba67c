"""The laws of the token bucket, each with the mutants of `token_bucket.py` that it kills.

| law | mutant |
|---|---|
| the bound in every window | a second rounded down; a level above the burst |
| the bound, inside of a tick | a take, a change of rate or a new clock that counts from the tick before now |
| nothing comes later than it must | the instant a tick or a float later; `>` for `>=`; a start that is not full |
| it is the rule in fractions | rate, cost or level rounded; a change of rate that drops or fills what was there |
| a refusal changes nothing | a level or an instant that is written before the question is answered |
| no drift | a float instead of the ticks |
| numbers without end | units refined by every new denominator; an instant beyond all floats |
"""

import math
from fractions import Fraction
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio._sansio.token_bucket import TokenBucket
from funcpipe_trio.policies.rate_limit import RateLimit

AWKWARD = [0.1, 1 / 3, 7.3, 1e-3, 1e6, 2**0.5]
FIRST_WHOLE = 2.0**-11  # from here on every float is a whole number of ticks

rates = st.one_of(st.sampled_from([1, 3, 10, *AWKWARD]), st.integers(1, 10**6), st.floats(1e-3, 1e6))
pers = st.one_of(st.sampled_from([1.0, 60, 3600.0, *AWKWARD]), st.floats(1e-3, 1e6))
bursts = st.one_of(st.integers(1, 5), st.integers(1, 1000))
limits = st.builds(RateLimit, rates, per=pers, burst=bursts)
whole_starts = st.one_of(st.floats(FIRST_WHOLE, 100), st.sampled_from([FIRST_WHOLE, 1.0, 86400.5, 1e9]))
tiny_starts = st.floats(0, FIRST_WHOLE)
parts = st.one_of(st.integers(1, 5).map(Fraction), st.fractions(0, 1, max_denominator=60).filter(bool))
GREEDY = None  # wait for the instant that the bucket named, and no longer
gaps = st.one_of(st.just(GREEDY), st.just(0.0), st.floats(0, 1e-4), st.floats(0, 5), st.floats(0, 1e5))
calls = st.lists(st.tuples(gaps, parts), min_size=1, max_size=25)


def first_float(instant):
    """The first float that is not before an exact instant."""
    near = float(instant)
    return near if near >= instant else math.nextafter(near, math.inf)


def before(instant):
    return math.nextafter(instant, -math.inf)


def cost_of(part, burst):
    """A cost that the burst holds: an int where it can be, a Fraction else."""
    cost = min(part, Fraction(burst))
    return cost.numerator if cost.denominator == 1 else cost


class Rule:
    """The bucket as the rule says it, in fractions: slow, and never rounded."""

    def __init__(self, limit):
        self.limit = limit
        self.level = Fraction(limit.burst)
        self.since = None

    @property
    def rate(self):
        return Fraction(self.limit.rate) / Fraction(self.limit.per)

    def tokens(self, now):
        if self.since is None:
            return Fraction(self.limit.burst)
        return min(Fraction(self.limit.burst), self.level + self.rate * (Fraction(now) - self.since))

    def take(self, now, cost):
        level = self.tokens(now)
        if level < cost:
            return first_float(self.since + (cost - self.level) / self.rate)
        self.level, self.since = level - cost, Fraction(now)
        return None

    def set_rate(self, now, limit):
        if self.since is not None:
            self.level, self.since = min(Fraction(limit.burst), self.tokens(now)), Fraction(now)
        self.limit = limit


def served(bucket, start, trace):
    """Let callers come and wait for their turn; give the calls, as (instant, cost), and the refusals on the way."""
    now, taken, refused = start, [], []
    for gap, part in trace:
        cost = cost_of(part, bucket.rate_limit.burst)
        now += gap or 0.0
        answer = bucket.take(now, cost)
        if answer is not None:
            refused.append((now, answer, cost))
            assert now < answer
            now = answer
            assert bucket.take(now, cost) is None
        taken.append((now, cost))
    return taken, refused


def worst_excess(limit, taken):
    """By how much the worst window breaks the bound: at most 0."""
    rate = Fraction(limit.rate) / Fraction(limit.per)
    sums = [0, *accumulate(cost for _, cost in taken)]
    return max(
        sums[end + 1] - sums[start] - limit.burst - rate * (Fraction(taken[end][0]) - Fraction(taken[start][0]))
        for end in range(len(taken))
        for start in range(end + 1)
    )


@settings(max_examples=100, deadline=None)
@given(limit=limits, start=tiny_starts | whole_starts, trace=calls)
def test_in_every_window_the_cost_keeps_to_the_bound(limit, start, trace):
    """P12: what starts in [s, t] costs at most burst + rate/per * (t - s), computed without any tolerance."""
    taken, _ = served(TokenBucket(limit), start, trace)

    assert worst_excess(limit, taken) <= 0


@settings(max_examples=100, deadline=None)
@given(limit=limits, start=whole_starts, trace=calls)
def test_no_call_waits_longer_than_it_must(limit, start, trace):
    """Each call starts at the first float at which the rule lets it start; at the float before, it would break it."""
    bucket, rule = TokenBucket(limit), Rule(limit)
    taken, refused = served(bucket, start, trace)
    for now, cost in taken:
        for asked, answer, wanted in refused:
            if answer == now and wanted == cost and asked < now:
                assert rule.tokens(before(answer)) < cost
        assert rule.take(now, cost) is None


@settings(max_examples=100, deadline=None)
@given(
    limit=limits,
    start=whole_starts,
    trace=st.lists(st.tuples(gaps, st.one_of(parts, limits)), min_size=1, max_size=25),
)
def test_the_bucket_is_the_rule_in_fractions(limit, start, trace):
    """Where time is whole ticks, each answer and each level is the rule's, over takes, refusals and changes of rate."""
    bucket, rule = TokenBucket(limit), Rule(limit)
    now, named = start, None
    for gap, event in trace:
        now = (named or now) if gap is GREEDY else now + gap
        named = None
        if isinstance(event, RateLimit):
            bucket.set_rate(now, event)
            rule.set_rate(now, event)
            assert bucket.rate_limit is event
        else:
            cost = cost_of(event, bucket.rate_limit.burst)
            named = rule.take(now, cost)
            assert bucket.take(now, cost) == named
        assert bucket.tokens(now) == float(rule.tokens(now))


@settings(max_examples=100, deadline=None)
@given(
    limit=limits,
    start=tiny_starts | whole_starts,
    trace=st.lists(st.tuples(gaps, st.one_of(parts, limits)), min_size=1, max_size=20),
)
def test_the_bound_holds_piece_by_piece_when_the_rate_changes(limit, start, trace):
    """In a window over changes: at most the burst in force when it begins, and what each rate gains in its time."""
    bucket, now, gained, log = TokenBucket(limit), start, Fraction(0), []

    def wait_until(instant):
        nonlocal now, gained
        rate = Fraction(bucket.rate_limit.rate) / Fraction(bucket.rate_limit.per)
        gained += rate * (Fraction(instant) - Fraction(now))
        now = instant

    for gap, event in trace:
        wait_until(now + (gap or 0.0))
        if isinstance(event, RateLimit):
            bucket.set_rate(now, event)
            continue
        cost = cost_of(event, bucket.rate_limit.burst)
        if (answer := bucket.take(now, cost)) is not None:
            wait_until(answer)
            assert bucket.take(now, cost) is None
        log.append((gained, bucket.rate_limit.burst, cost))

    for index, (gained_before, burst, _) in enumerate(log):
        total = 0
        for gained_after, _, cost in log[index:]:
            total += cost
            assert total <= burst + gained_after - gained_before


@settings(max_examples=100, deadline=None)
@given(limit=limits, start=tiny_starts | whole_starts, trace=calls, asks=st.lists(st.integers(0, 1000), max_size=4))
def test_a_refusal_changes_nothing(limit, start, trace, asks):
    """A caller that is refused, however often and for whatever cost, leaves the others' instants where they are."""
    quiet, disturbed = TokenBucket(limit), TokenBucket(limit)
    now = start
    for gap, part in trace:
        cost = cost_of(part, limit.burst)
        now += gap or 0.0
        if (answer := quiet.take(now, cost)) is not None:
            for ask in asks:
                between = min(now + (answer - now) * ask / 1000, before(answer))
                assert disturbed.take(between, cost) == answer
                assert disturbed.take(between, limit.burst) >= answer
            assert disturbed.take(now, cost) == answer
            now = answer
            assert quiet.take(now, cost) is None
        assert disturbed.take(now, cost) is None
        assert disturbed.tokens(now) == quiet.tokens(now)


# ---- by example


def greedy(bucket, count, now=0.0, cost=1):
    """The instants of so many calls, each as soon as it may."""
    instants = []
    for _ in range(count):
        answer = bucket.take(now, cost)
        if answer is not None:
            now = answer
            assert bucket.take(now, cost) is None
        instants.append(now)
    return instants


def test_a_bucket_starts_full_and_then_gives_at_its_rate():
    bucket = TokenBucket(RateLimit(2, burst=3))

    assert bucket.tokens(7.0) == 3
    assert greedy(bucket, 7) == [0, 0, 0, 0.5, 1.0, 1.5, 2.0]


def test_it_never_holds_more_than_the_burst():
    bucket = TokenBucket(RateLimit(4, per=2, burst=3))
    bucket.take(10.0, 2)

    assert [bucket.tokens(now) for now in (10.0, 10.25, 11.0, 11.5, 1e9)] == [1, 1.5, 3, 3, 3]
    assert greedy(bucket, 5, now=1000.0) == [1000, 1000, 1000, 1000.5, 1001]


def test_a_refused_call_is_told_the_first_instant_for_its_own_cost():
    bucket = TokenBucket(RateLimit(1, burst=4))
    bucket.take(5.0, 4)

    assert [bucket.take(5.0, cost) for cost in (1, Fraction(1, 2), 4)] == [6.0, 5.5, 9.0]
    assert bucket.take(6.0, 2) == 7.0
    assert (bucket.take(6.0, 1), bucket.tokens(6.0)) == (None, 0.0)


def test_a_rate_that_no_float_can_hold_is_kept_to():
    """0.1 is a bit more than a tenth: each call may start at its exact instant, rounded up, and no sooner."""
    bucket = TokenBucket(RateLimit(0.1, burst=2))

    assert greedy(bucket, 13)[1:] == [first_float(k / Fraction(0.1)) for k in range(12)]


@pytest.mark.parametrize("parts", [3, 7, 10, 60, 1000, 10**9 + 7])
def test_the_parts_of_a_burst_are_the_burst(parts):
    """So many calls that cost one part each take the whole of it, at once; a cost is not rounded."""
    bucket = TokenBucket(RateLimit(1))
    assert [bucket.take(5.0, Fraction(1, parts)) for _ in range(min(parts, 60) - 1)] == [None] * (min(parts, 60) - 1)

    assert bucket.take(5.0, 1 - Fraction(min(parts, 60) - 1, parts)) is None
    assert bucket.tokens(5.0) == 0
    assert bucket.take(5.0, Fraction(1, parts)) == first_float(5 + Fraction(1, parts))


def test_costs_of_ever_new_denominators_do_not_make_numbers_without_end():
    """Beyond a sane size a cost is rounded up: the bound is kept, what a cost may lose is beneath notice."""
    limit = RateLimit(100, burst=50)
    bucket, costs = TokenBucket(limit), [Fraction(1, 10**9 + k) for k in range(1, 2001, 2)]
    taken = [(5.0, cost) for cost in costs if bucket.take(5.0, cost) is None]

    assert len(taken) == len(costs)
    assert all(size.bit_length() <= 1100 for size in vars(bucket).values() if isinstance(size, int))
    assert bucket.tokens(5.0) == float(50 - sum(costs))


@pytest.mark.parametrize(("bits", "answer"), [(1023, None), (1024, math.nextafter(5.0, math.inf))])
def test_units_are_refined_to_the_last_bit_that_is_sane(bits, answer):
    """In parts of 2**-1023 of a token a cost is exact; in parts of 2**-1024 it is rounded up to the unit.

    What is left stays exact, too, when the rate changes.
    """
    bucket, crumb = TokenBucket(RateLimit(1)), Fraction(1, 2**bits)
    bucket.take(5.0, 1 - crumb)
    bucket.set_rate(5.0, RateLimit(1))

    assert bucket.take(5.0, crumb) == answer


@pytest.mark.parametrize("now", [1e-20, 5e-324, math.nextafter(2.0**-12, 0)])
def test_inside_of_a_tick_time_is_rounded_against_the_caller(now):
    """A float beneath 2**-12 may lie inside of a tick: what is taken there counts from the tick's end."""
    bucket = TokenBucket(RateLimit(1))
    ready = first_float(1 + Fraction(math.ceil(now * 2**64), 2**64))

    assert greedy(bucket, 2, now) == [now, ready]
    assert ready == first_float(1 + Fraction(now))


@pytest.mark.parametrize("now", [1e-20, 5e-324])
def test_asked_twice_inside_of_a_tick_it_gains_and_loses_nothing(now):
    bucket = TokenBucket(RateLimit(1e6, burst=2))

    assert (bucket.take(now, 1), bucket.tokens(now), bucket.take(now, 1), bucket.tokens(now)) == (None, 1, None, 0)


@pytest.mark.parametrize("now", [1e-20, 5e-324])
def test_to_ask_inside_of_a_tick_is_answered_as_to_take(now):
    """Now while the tokens are there, to the last one; then the instant that a refusal would name."""
    bucket = TokenBucket(RateLimit(1))

    assert bucket.when(now, 1) == now
    bucket.take(now, 1)
    assert bucket.when(now, 1) == bucket.take(now, 1) > 1


def test_a_single_tick_brings_what_a_tick_brings():
    """From 2**-12 s on the next float is one tick later."""
    bucket, now = TokenBucket(RateLimit(2.0**64, burst=1)), 2.0**-12
    bucket.take(now, 1)

    assert bucket.take(math.nextafter(now, 1), 1) is None


def test_a_clock_may_say_zero():
    """Time 0 is an instant like any other: what is taken then counts."""
    bucket = TokenBucket(RateLimit(1, burst=2))
    assert greedy(bucket, 4) == [0.0, 0.0, 1.0, 2.0]

    bucket.rebase(0.0)

    assert greedy(bucket, 2) == [1.0, 2.0]


def test_a_hundred_thousand_waits_do_not_drift():
    """The last of them starts at the first float after its exact instant: nothing is added up in floats.

    (The bucket is not full meanwhile; a full one must lose what a float comes too late, or the bound would be broken.)
    """
    bucket = TokenBucket(RateLimit(1 / 3, per=0.7, burst=2))

    last = greedy(bucket, 100_002)[-1]

    assert last == first_float(100_000 * Fraction(0.7) / Fraction(1 / 3))


@pytest.mark.parametrize("rate", [1e-300, 5e-324])
def test_what_comes_after_all_time_never_comes(rate):
    """A wait that no float can count is forever; nobody meets an OverflowError."""
    bucket = TokenBucket(RateLimit(rate, per=1e300))
    bucket.take(1.0, 1)

    assert bucket.take(1.0, 1) == math.inf


def test_the_last_instants_are_still_floats():
    """2**958 s can be named and asked at; what is behind 2**959 s is never."""
    answers = []
    for bits in (958, 959):
        bucket = TokenBucket(RateLimit(2.0**-bits))
        bucket.take(0.0, 1)
        answers.append(bucket.take(0.0, 1))

    assert answers == [2.0**958, math.inf]
    bucket = TokenBucket(RateLimit(2.0**-958))
    assert greedy(bucket, 2) == [0.0, 2.0**958]


# ---- another limit


def test_under_another_limit_the_tokens_that_are_there_stay():
    bucket = TokenBucket(RateLimit(1, burst=4))
    bucket.take(10.0, 3)
    bucket.set_rate(11.0, RateLimit(2, burst=9))

    assert bucket.rate_limit == RateLimit(2, burst=9)
    assert [bucket.tokens(now) for now in (11.0, 11.5, 1e3)] == [2, 3, 9]


def test_a_smaller_burst_holds_what_it_can():
    bucket = TokenBucket(RateLimit(1, burst=9))
    bucket.take(10.0, 1)
    bucket.set_rate(10.0, RateLimit(1, burst=2))

    assert greedy(bucket, 4, now=10.0) == [10, 10, 11, 12]


@pytest.mark.parametrize("burst", [1, 9])
def test_a_bucket_that_nothing_was_taken_from_is_full_under_any_limit(burst):
    bucket = TokenBucket(RateLimit(1, burst=5))
    bucket.set_rate(10.0, RateLimit(2, burst=burst))

    assert bucket.tokens(10.0) == burst
    assert greedy(bucket, burst + 1, now=10.0)[-2:] == [10.0, 10.5]


def test_who_waits_gains_by_each_rate_in_its_time():
    """A token that is half there at one a second is whole after a quarter of a second at two a second."""
    bucket = TokenBucket(RateLimit(1))
    bucket.take(10.0, 1)
    assert bucket.take(10.5, 1) == 11.0

    bucket.set_rate(10.5, RateLimit(2))

    assert (bucket.take(10.5, 1), bucket.take(before(10.75), 1), bucket.take(10.75, 1)) == (10.75, 10.75, None)


def test_a_change_of_rate_and_back_leaves_no_trace():
    """Not a part of a token is lost, whatever the units of the one and the other are."""
    one, other = RateLimit(1, per=3), RateLimit(1, per=7)
    changed, left_alone = TokenBucket(one), TokenBucket(one)
    for bucket in (changed, left_alone):
        bucket.take(5.0, 1)
    for now in (5.125, 5.375, 5.625):
        changed.set_rate(now, other)
        changed.set_rate(now, one)

    assert changed.take(6.0, 1) == left_alone.take(6.0, 1) == 8.0
    assert changed.tokens(6.0) == left_alone.tokens(6.0)
    assert changed.take(7.0, Fraction(2, 3)) is None
    assert changed.tokens(7.0) == 0


def test_a_change_inside_of_a_tick_is_rounded_against_the_caller():
    bucket = TokenBucket(RateLimit(1))
    bucket.take(0.0, 1)
    bucket.set_rate(1e-20, RateLimit(2))

    assert bucket.take(1e-20, 1) == math.nextafter(0.5, 1)


# ---- another clock


@pytest.mark.parametrize(("was", "now"), [(1000.0, 5.0), (5.0, 1000.0), (1000.0, 0.0)])
def test_by_another_clock_what_is_there_stays_and_time_counts_anew(was, now):
    bucket = TokenBucket(RateLimit(1, burst=3))
    bucket.take(was, 2)
    bucket.rebase(now)

    assert [bucket.tokens(now + seconds) for seconds in (0, 1, 2, 3)] == [1, 2, 3, 3]
    assert greedy(bucket, 3, now) == [now, now + 1, now + 2]


def test_a_fresh_bucket_is_full_by_any_clock():
    bucket = TokenBucket(RateLimit(1, burst=3))
    bucket.rebase(1000.0)

    assert (bucket.tokens(0.0), greedy(bucket, 4)) == (3, [0, 0, 0, 1])


def test_a_new_clock_inside_of_a_tick_is_rounded_against_the_caller():
    bucket = TokenBucket(RateLimit(1))
    bucket.take(5.0, 1)
    bucket.rebase(1e-20)

    assert bucket.take(1e-20, 1) == math.nextafter(1, 2)
