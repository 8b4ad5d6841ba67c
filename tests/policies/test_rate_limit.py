"""The burst that a rate has by itself; mutants of `rate_limit.py` that die here:

- a burst of one token more or less, by a rounding or another unit of time; one that is not at least 1;
- an explicit burst that is changed; a default that is not seen in the plan, or not used by a throttle;
- a burst that is too small for a timer that is late, so that the rate is not reached.
"""

import copy
import dataclasses
import pickle
import re
from fractions import Fraction

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from funcpipe_trio import Pipeline, RateLimit, RollingLimit, Step
from funcpipe_trio._base.shown import shown
from funcpipe_trio._sansio.token_bucket import TokenBucket
from funcpipe_trio.policies.rate_limit import broken_rule, checked_limit
from funcpipe_trio.testing import run_virtual

rates = st.integers(1, 10**6) | st.floats(1e-3, 1e6)
periods = st.sampled_from([0.25, 1, 10.0, 60]) | st.floats(1e-2, 1e4)


async def call(item):
    return trio.current_time()


@given(rate=rates, per=periods)
@example(rate=50, per=1)
@example(rate=51, per=1)
@example(rate=1000, per=1)
@example(rate=0.5, per=1e-2)
def test_a_rate_by_itself_has_the_burst_of_a_fiftieth_of_a_second(rate, per):
    """The least whole number that is as much, at least 1; and it is the same limit as one that says so."""
    limit = RateLimit(rate, per=per)
    comes = Fraction(rate) / Fraction(per) / 50

    assert limit.burst >= max(1, comes)
    assert limit.burst == 1 or limit.burst - 1 < comes
    assert limit == RateLimit(rate, per=per, burst=limit.burst)
    assert hash(limit) == hash(RateLimit(rate, per=per, burst=limit.burst))
    assert limit.describe() == RateLimit(rate, per=per, burst=limit.burst).describe()
    assert limit == pickle.loads(pickle.dumps(limit)) == copy.deepcopy(limit) == dataclasses.replace(limit)


@given(rate=rates, per=periods, burst=st.integers(1, 10**6))
def test_a_burst_that_is_said_stays(rate, per, burst):
    assert RateLimit(rate, per=per, burst=burst).burst == burst


def test_the_burst_of_any_rate_is_one_that_may_be_given():
    limit = RateLimit(1e308, per=1e-300)

    assert limit == RateLimit(1e308, per=1e-300, burst=limit.burst)


@pytest.mark.parametrize("burst", [0, -1])
def test_a_burst_below_one_is_refused(burst):
    with pytest.raises(ValueError, match=rf"^RateLimit: burst must be >= 1, not {burst}$"):
        RateLimit(100, burst=burst)


@settings(max_examples=50)
@given(rate=st.integers(100, 10_000), lateness=st.lists(st.floats(0, 0.01), min_size=1, max_size=20))
def test_a_timer_that_is_late_loses_nothing(rate, lateness):
    """Up to 10 ms, from 100 calls a second on: a caller that takes all there is got everything since the start."""
    bucket, now, taken = TokenBucket(RateLimit(rate)), 0.0, 0
    for late in lateness * 3:
        while (again := bucket.take(now, 1)) is None:
            taken += 1
        now = again + late
    while bucket.take(now, 1) is None:
        taken += 1

    assert taken + bucket.tokens(now) >= rate * now - 1e-6


@pytest.mark.parametrize(("limit", "first"), [(RateLimit(1000), 20), (RateLimit(1000, burst=1), 1), (RateLimit(50), 1)])
def test_calls_and_a_throttle_keep_the_bound_with_that_burst(limit, first):
    """So many start at once, the next one when the next token is there; the plan says how many."""
    numbers = Pipeline.from_iterable(range(50))
    for plan in (
        numbers.map(Step(call).rate_limit(limit), concurrency=50),
        numbers.throttle(limit).map(call),
    ):
        times = run_virtual(plan.collect)

        assert times.count(0) == first
        assert times[first] == pytest.approx(1 / limit.rate)
        assert f"{limit.rate} in 1 s, burst {first}" in plan.describe()


# ---- either kind


@pytest.mark.parametrize("value", [None, 5, RateLimit, RollingLimit])
def test_what_is_no_limit_is_refused(value):
    rule = f"here: limit must be a RateLimit or a RollingLimit, not {shown(value)}"

    with pytest.raises(TypeError, match=f"^{re.escape(rule)}$"):
        checked_limit("here", "limit", value)
    with pytest.raises(TypeError, match=f"^{re.escape(rule)}\nUse it\\.$"):
        checked_limit("here", "limit", value, "Use it.")


@pytest.mark.parametrize("limit", [RateLimit(5), RollingLimit(5)])
def test_what_is_one_is_returned(limit):
    assert checked_limit("here", "limit", limit) is limit


@pytest.mark.parametrize("limit", [RateLimit(5, burst=3), RollingLimit(3)])
def test_a_cost_is_at_most_the_burst(limit):
    assert [broken_rule(limit, cost) for cost in (1, 3, Fraction(3))] == [None] * 3
    assert broken_rule(limit, 4) == "be <= the burst of 3, or it could never be paid"


def test_under_a_rolling_limit_a_cost_is_a_whole_number():
    assert broken_rule(RateLimit(5, burst=3), Fraction(1, 2)) is None
    assert broken_rule(RollingLimit(3), Fraction(1, 2)) == (
        "be a whole number under a RollingLimit: it counts as so many starts"
    )
    assert broken_rule(RollingLimit(3), Fraction(7, 2)) == "be <= the burst of 3, or it could never be paid"


def test_a_rolling_limit_is_also_a_rate_in_the_long_run():
    limit = RollingLimit(90, per=30)

    assert (limit.rate, limit.per, limit.burst, limit.rate / limit.per) == (90, 30.0, 90, 3)
    assert (limit.describe(), RollingLimit(7).per) == ("90 in any 30 s", 60)
