"""P12: in every window [s, t] the calls that start cost at most burst + rate * (t - s), over all who share the limiter.

Counted at the call, in fractions, with not one call and not one bit to spare; and no token is left lying: a greedy
caller is never later than the rule allows.

Mutants that die here: a limit on results, or before there is a place for the call; a bucket for each worker, each
stage or each start where one is shared; a token lost to a cancellation, or given twice; a refill rounded up; a wait
that ends early by a bit; one second instead of `per`.
"""

import math
from contextlib import suppress
from fractions import Fraction
from itertools import count

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import (
    Backoff,
    FairShare,
    OnError,
    Pipeline,
    RateLimit,
    RateLimiter,
    Retry,
    Step,
    fair_merge,
    gather,
    merge,
)
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled


def most_in_any_window(log, limit):
    """Return the most by which the calls of any window are above ``rate * (t - s)``: by the rule, at most the burst."""
    rate = Fraction(limit.rate) / Fraction(limit.per)
    total, lowest, most = Fraction(0), None, Fraction(0)
    for when, cost in log:
        level = total - rate * Fraction(when)  # before the call
        lowest = level if lowest is None else min(lowest, level)
        total += cost
        most = max(most, total - rate * Fraction(when) - lowest)
    return most


class Api:
    """What is called: it writes down each call at its first instant, with its cost."""

    def __init__(self, seconds=0, fails=lambda number: False):
        self.seconds, self.fails = seconds, fails
        self.log = []

    @property
    def times(self):
        return [when for when, _ in self.log]

    async def call(self, cost):
        self.log.append((trio.current_time(), cost))
        number = len(self.log)
        await trio.sleep(self.seconds)
        if self.fails(number):
            raise OSError(number)
        return cost


def cost_of(item):
    return item


@pytest.mark.parametrize("log", [[(0, 3), (0, 1)], [(0, 3), (0.5, 1)], [(0, 1), (9, 3), (9.5, 1)], [(1, 1)] * 4])
def test_the_measure_sees_a_broken_bound(log):
    """The window law of these tests: 1 a second, burst 3."""
    limit = RateLimit(1, burst=3)

    assert most_in_any_window(log, limit) > 3
    assert most_in_any_window([(0, 3), (1, 1), (4, 3)], limit) == 3


# ---- the bound


def limited(limiter, api):
    return Step(api.call).rate_limit(limiter, cost=cost_of)


async def plain(limiter, api, items):
    for cost in items:
        await limiter.acquire(cost)
        await api.call(cost)


async def nowait(limiter, api, items):
    for cost in items:
        with suppress(trio.WouldBlock):
            limiter.acquire_nowait(cost)
            await api.call(cost)
        await trio.sleep(0.3)


async def called(limiter, api, items):
    for cost in items:
        await limited(limiter, api).timeout(1e6)(cost)


async def started(limiter, api, items):
    call = limited(limiter, api).start()
    async with trio.open_nursery() as nursery:
        for cost in items:
            nursery.start_soon(call, cost)


async def gathered(limiter, api, items):
    await gather(limited(limiter, api), items, concurrency=3)


async def retried(limiter, api, items):
    failed = set()

    async def fail_once(cost):
        if cost not in failed:
            failed.add(cost)
            raise OSError(cost)

    step = limited(limiter, api).then(Step(fail_once)).retry(Retry(2, backoff=Backoff(0.1)))
    await gather(step, items, concurrency=1)


async def in_a_stage(limiter, api, items):
    await Pipeline.from_iterable(items).map(limited(limiter, api), concurrency=4).run()


async def unordered(limiter, api, items):
    await Pipeline.from_iterable(items).map(limited(limiter, api), concurrency=4, ordered=False).run()


WAYS = (plain, nowait, called, started, gathered, retried, in_a_stage, unordered)


limits = st.builds(
    RateLimit,
    st.floats(0.05, 50) | st.sampled_from((1, 8, 0.1, 1 / 3)),
    per=st.sampled_from((0.5, 1.0, 60.0)),
    burst=st.integers(3, 6),
)
costs = st.sampled_from((Fraction(1, 3), Fraction(1, 2), 1, 1, 1, 2, 3))
users = st.tuples(
    st.sampled_from(WAYS),
    st.floats(0, 4),
    st.lists(costs, min_size=1, max_size=5),
    st.none() | st.floats(0, 6),
)


@settings(max_examples=60, deadline=None)
@given(limits, st.lists(users, min_size=1, max_size=6), st.sampled_from((0, 0.25, 3)), st.integers(0, 2**32))
def test_the_bound_holds_over_all_who_share_the_limiter(limit, patterns, seconds, seed):
    """P12: plain code, steps, gathers and pipelines together, cancelled at random, under random schedules: exactly."""
    api, done = Api(seconds), []

    async def user(limiter, way, when, items, patience):
        await trio.sleep(when)
        with trio.move_on_after(math.inf if patience is None else patience) as scope:
            await way(limiter, api, items)
        done.append(scope.cancelled_caught)

    async def main():
        limiter = RateLimiter(limit)
        async with trio.open_nursery() as nursery:
            for pattern in patterns:
                nursery.start_soon(user, limiter, *pattern)
        return limiter.statistics()

    with scheduled(Schedule(seed)):
        statistics = run_virtual(main)

    assert most_in_any_window(api.log, limit) <= limit.burst
    assert (statistics.acquired, statistics.acquired_cost) == (len(api.log), sum(cost for _, cost in api.log))
    assert (len(done), statistics.tasks_waiting) == (len(patterns), 0)


# ---- no later than the rule allows


async def greedy_plain(limiter, api, n):
    for _ in range(n):
        await limiter.acquire()
        await api.call(1)


async def greedy_started(limiter, api, n):
    started = Step(api.call).rate_limit(limiter).start()
    for _ in range(n):
        await started(1)


async def greedy_gather(limiter, api, n):
    await gather(Step(api.call).rate_limit(limiter), [1] * n, concurrency=3)


async def greedy_stage(limiter, api, n):
    await Pipeline.from_iterable([1] * n).map(Step(api.call).rate_limit(limiter), concurrency=3).run()


async def greedy_mix(limiter, api, n):
    async with trio.open_nursery() as nursery:
        for use in (greedy_plain, greedy_started, greedy_gather, greedy_stage):
            nursery.start_soon(use, limiter, api, n // 4)


@pytest.mark.parametrize("use", [greedy_plain, greedy_started, greedy_gather, greedy_stage, greedy_mix])
@pytest.mark.parametrize("limit", [RateLimit(1), RateLimit(8, burst=20), RateLimit(15, per=60, burst=3)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_a_greedy_caller_is_never_late(use, limit, seed):
    """P12 the other way: the k-th call starts at the exact instant from which on it may, however the calls are made."""
    api = Api()

    with scheduled(Schedule(seed)):
        run_virtual(use, RateLimiter(limit), api, 40)

    assert api.times == [max(0, k - limit.burst + 1) * limit.per / limit.rate for k in range(40)]


@settings(max_examples=40, deadline=None)
@given(limits, st.lists(costs, min_size=1, max_size=12))
def test_a_greedy_caller_is_never_late_by_more_than_a_bit(limit, items):
    """For any rate: each call of any cost starts at the first float from which on the bucket holds its tokens.

    A call that costs the whole burst waits for a full bucket, which cannot hold the last bit of that instant.
    """
    api, rate = Api(), Fraction(limit.rate) / Fraction(limit.per)

    async def main():
        await gather(Step(api.call).rate_limit(limit, cost=cost_of), items, concurrency=1)

    run_virtual(main)
    spent, late = Fraction(0), []
    for when, cost in api.log:
        spent += cost
        earliest = max(Fraction(0), (spent - limit.burst) / rate)
        late.append((Fraction(when) - earliest) / (Fraction(math.ulp(when)) + Fraction(1, 2**64)))

    assert len(api.log) == len(items)
    assert min(late) >= 0
    assert all(lateness <= k + 2 for k, lateness in enumerate(late))


# ---- in pipelines


TENANTS = {tenant: Pipeline.from_iterable(lambda tenant=tenant: ((tenant, n) for n in count())) for tenant in range(3)}


@pytest.mark.parametrize("seconds", [0, 0.125, 0.25])
@pytest.mark.parametrize("seed", range(4))
def test_the_headline_pipeline_makes_28_calls_in_its_first_second(seconds, seed):
    """Three tenants, merged fairly, 8 calls at a time, 8 a second with a burst of 20: 28 within [0, 1], no more."""
    api = Api(seconds)

    async def embed(item):
        await api.call(1)
        return item

    async def main():
        step = Step(embed).rate_limit(RateLimit(8, burst=20))
        items = fair_merge(TENANTS, FairShare({0: 3})).map(step, concurrency=8)
        with trio.move_on_after(2):
            await items.run()

    with scheduled(Schedule(seed)):
        run_virtual(main)
    within = [when for when in api.times if when <= 1]

    assert (len(within), len([when for when in api.times if when < 1])) == (28, 27)
    assert most_in_any_window(api.log, RateLimit(8, burst=20)) == 20
    assert api.times[:28] == within


@pytest.mark.parametrize("seed", range(4))
def test_a_call_counts_when_there_is_a_worker_for_it(seed):
    """Calls that take long do not gather tokens: what is in no call has taken none."""
    api = Api(10)

    async def main():
        limiter = RateLimiter(RateLimit(1, burst=4))
        pipeline = Pipeline.from_iterable([1] * 12).map(Step(api.call).rate_limit(limiter), concurrency=2)
        await pipeline.run()
        return limiter.statistics().acquired

    with scheduled(Schedule(seed)):
        acquired = run_virtual(main)

    assert api.times == [0, 0, 10, 10, 20, 20, 30, 30, 40, 40, 50, 50]
    assert acquired == 12


def test_a_call_on_a_runner_counts_when_the_runner_has_a_place():
    """Right behind `on`, the token is taken at the last instant: calls that wait for a place hold none."""
    api = Api()

    def work(item):
        api.log.append((trio.current_time(), 1))
        return item

    async def slow(fn, *args):
        result = fn(*args)
        await trio.sleep(3)
        return result

    async def main():
        step = Step(work).on(slow).rate_limit(RateLimit(1, burst=2))
        return await Pipeline.from_iterable(range(6)).map(step, concurrency=4).collect()

    assert run_virtual(main) == list(range(6))
    assert api.times == [0, 0, 1, 2, 3, 4]


def test_every_attempt_takes_a_token():
    """Inside of a retry a failed call counts like any other; outside of it, an item counts once."""
    inside, outside = (Api(0, lambda number: number % 2 == 1) for _ in range(2))
    retry = Retry(2, backoff=Backoff(0))

    async def main(step):
        await gather(step, [1] * 3, concurrency=1)

    run_virtual(main, Step(inside.call).rate_limit(RateLimit(1)).retry(retry))
    run_virtual(main, Step(outside.call).retry(retry).rate_limit(RateLimit(1)))

    assert (inside.times, outside.times) == ([0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2])


def test_a_limit_is_for_each_run_and_a_limiter_for_all():
    """Three streams of ten items under a burst of ten: with one limiter ten calls at once, with one limit thirty."""
    limit = RateLimit(10, burst=10)

    async def side_by_side(step):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(Pipeline.from_iterable([1] * 10).map(step, concurrency=10).run)

    async def merged(step):
        await merge(*(Pipeline.from_iterable([1] * 10).map(step, concurrency=10) for _ in range(3))).run()

    at_once = []
    for main in (side_by_side, merged):
        for shared in (RateLimiter(limit), limit):
            api = Api()
            run_virtual(main, Step(api.call).rate_limit(shared))
            at_once.append((len([when for when in api.times if when == 0]), api.times[-1]))

    assert at_once == [(10, 2), (30, 0)] * 2


def test_a_waiting_item_that_is_cancelled_is_given_up_and_its_token_stays():
    """It is reported once, and the next user of the limiter has the token at its instant."""
    api, discarded = Api(), []

    async def main():
        limiter = RateLimiter(RateLimit(1))
        with trio.move_on_after(2.5):
            pipeline = Pipeline.from_iterable([1] * 6).map(Step(api.call).rate_limit(limiter), concurrency=2)
            async with pipeline.open(on_discard=lambda *told: discarded.append(told)) as run:
                async for _ in run:
                    pass
        await limiter.acquire()
        return trio.current_time(), run.report.taken, run.report.delivered

    when, taken, delivered = run_virtual(main)

    assert (when, api.times, delivered) == (3, [0, 1, 2], 3)
    assert len(discarded) == taken - delivered
    assert {item for item, _, _ in discarded} <= {1}


def test_an_item_that_waits_too_long_is_late():
    """A timeout around the limit ends its wait; the token goes to the next, and the stage continues."""
    api = Api()

    async def main():
        step = Step(api.call).rate_limit(RateLimit(1, per=4)).timeout(3)
        pipeline = Pipeline.from_iterable([1] * 4).map(step, on_error=OnError.skip())
        async with pipeline.open() as run:
            async for _ in run:
                pass
        policies = run.report.stages[-1].policies
        return run.report.failed, policies.timeouts, policies.waited_rate, trio.current_time()

    assert run_virtual(main) == (2, 2, 7, 7)
    assert api.times == [0, 4]
