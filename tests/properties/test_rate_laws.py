"""What the system before this one said of its rate limit, and where that failed, as tests of this one.

T1 to T4 are its laws, with bounds that have no slack (it allowed one item more); L-1 to L-4 its measured defects: it
limited results instead of calls, was tested with a sleep that did not sleep, kept its tokens in one iteration, and
lost an item that waited for a token.

Mutants that die here: burst + 1; a limiter behind the call; a bucket per stream; a charge for what is not a call.
"""

import math
from fractions import Fraction
from itertools import count

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import FairShare, OnError, Pipeline, RateLimit, RateLimiter, Step, fair_merge
from funcpipe_trio.testing import run_virtual

laws = settings(max_examples=40, deadline=None)
limits = st.builds(RateLimit, st.floats(0.1, 100) | st.integers(1, 100), burst=st.integers(1, 20))


class Api:
    """What is called, and when it was."""

    def __init__(self):
        self.times = []

    async def call(self, item):
        self.times.append(trio.current_time())
        return item


def called(limit, n, concurrency=8):
    """When the calls of a stage under a limit start, as often as items are there."""
    api = Api()
    run_virtual(Pipeline.from_iterable(range(n)).map(Step(api.call).rate_limit(limit), concurrency=concurrency).run)
    return api.times


@laws
@given(limits, st.integers(1, 60), st.integers(1, 8))
def test_t1_calls_since_the_start(limit, n, concurrency):
    """At any instant at most burst + rate * elapsed calls have started, and all calls are made."""
    times = called(limit, n, concurrency)

    assert len(times) == n
    assert all(k <= limit.burst + Fraction(limit.rate) * Fraction(when) for k, when in enumerate(times, 1))


@laws
@given(limits, st.integers(1, 60), st.floats(0, 3))
def test_t2_calls_in_any_window(limit, n, window):
    """In any window of any length, both ends included: at most burst + rate * length."""
    times = called(limit, n)
    within = [sum(begin <= when <= begin + window for when in times) for begin in times]
    reached = [max(when for when in times if begin <= when <= begin + window) - begin for begin in times]

    assert all(
        calls <= limit.burst + Fraction(limit.rate) * (Fraction(length) + Fraction(math.ulp(times[-1])))
        for calls, length in zip(within, reached, strict=True)
    )


@pytest.mark.parametrize(("costs", "times"), [([1] * 5, [0, 0, 1, 2, 3]), ([2, 1, 2, 1], [0, 1, 3, 4])])
def test_t3_a_call_takes_exactly_its_cost(costs, times):
    """One token without a cost function, else what it says; nothing for an item that is not a call."""
    api = Api()

    async def main():
        limiter = RateLimiter(RateLimit(1, burst=2))
        step = Step(api.call).rate_limit(limiter, cost=lambda item: item)
        await Pipeline.from_iterable([*costs, 0, 0]).filter(bool).map(step).run()
        return limiter.statistics()

    statistics = run_virtual(main)

    assert api.times == times
    assert (statistics.acquired, statistics.acquired_cost, statistics.tokens) == (len(costs), sum(costs), 0)


def test_t3_a_failed_call_is_a_call():
    """It takes its token; that it failed is known too late."""
    times = []

    async def call(item):
        times.append(trio.current_time())
        raise OSError

    async def main():
        pipeline = Pipeline.from_iterable(range(4)).map(
            Step(call).rate_limit(RateLimit(2)), on_error=OnError.skip(), concurrency=4
        )
        await pipeline.run()

    run_virtual(main)

    assert times == [0, 0.5, 1, 1.5]


@pytest.mark.parametrize("concurrency", [1, 3, 64])
@pytest.mark.parametrize(("rate", "burst"), [(1, 1), (8, 20), (0.25, 3)])
def test_t4_a_call_waits_exactly_as_long_as_it_must(rate, burst, concurrency):
    """The k-th call starts at max(0, (k - burst) / rate)."""
    expected = [max(0, k - burst) / rate for k in range(1, 41)]

    assert called(RateLimit(rate, burst=burst), 40, concurrency) == expected


def test_l1_the_calls_are_limited_and_not_their_results():
    """The composition that made 48 calls at once and 80 in a second: three tenants, 8 a second, burst 20."""
    api, got = Api(), []
    tenants = {tenant: Pipeline.from_iterable(count) for tenant in range(3)}

    async def main():
        step = Step(api.call).rate_limit(RateLimit(8, burst=20))
        async with fair_merge(tenants, FairShare({0: 3})).map(step, concurrency=8).open() as run:
            with trio.move_on_after(1.0625):
                async for _ in run:
                    got.append(trio.current_time())

    run_virtual(main)

    assert (api.times, got) == ([0] * 20 + [k / 8 for k in range(1, 9)],) * 2


def test_l2_a_thousand_items_take_the_time_they_must():
    """There is no sleep to inject that does not sleep: 1000 items at 10 a second, burst 10, end at 99 s."""
    times = called(RateLimit(10, burst=10), 1000)

    assert (len(times), times[:11]) == (1000, [0] * 10 + [times[10]])
    assert [round(when, 9) for when in times] == [round(max(0, k - 9) / 10, 9) for k in range(1000)]


def test_l3_streams_share_a_limiter():
    """Three streams of 30 items in all, burst 10: ten at once, not thirty; run again, it does not start full."""
    api, limiter = Api(), RateLimiter(RateLimit(1, burst=10))

    async def main():
        step = Step(api.call).rate_limit(limiter)
        streams = {n: Pipeline.from_iterable(range(10)).map(step, concurrency=10) for n in range(3)}
        await fair_merge(streams).run()

    async def again():
        await main()
        await main()

    run_virtual(again)

    assert api.times == [0] * 10 + list(range(1, 51))


def test_l4_no_item_is_lost_that_waits_for_a_token():
    """A run that is cancelled while an item waits gives it up by name: taken = delivered + discarded."""
    api, discarded = Api(), []

    async def main():
        step = Step(api.call).rate_limit(RateLimit(1, per=100))
        with trio.move_on_after(50):
            pipeline = Pipeline.from_iterable(range(9)).map(step)
            async with pipeline.open(on_discard=lambda item, stage, reason: discarded.append((item, reason))) as run:
                got = [item async for item in run]
                got.append("never")
        return run.report

    report = run_virtual(main)

    assert api.times == [0]
    assert sorted(discarded) == [(item, "cancelled") for item in range(1, report.taken)]
    assert (report.delivered, report.discarded, report.taken) == (1, report.taken - 1, len(discarded) + 1)
    assert report.taken >= 2
