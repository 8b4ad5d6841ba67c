"""What a stage says of its calls: how long they took, how many at once, the oldest, and what they wait for.

Mutants that die here: a clock that begins when the call does, and not when the item was taken; a cancelled call that
counts; a failed one that does not; a peak without the results that wait for their turn; a wait that is forgotten to be
over.
"""

import threading

import pytest
import trio

from funcpipe_trio import Backoff, CircuitBreaker, OnError, Pipeline, PlaceLimiter, RateLimit, Retry, Step, threads
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, nap


async def took(item):
    await trio.sleep(item)
    return item


def at(plan, seconds):
    """Return the statistics of a run that nobody takes from, after so many seconds."""

    async def main():
        async with plan.open() as run:
            await trio.sleep(seconds)
            return run.statistics()

    return run_virtual(main)


def whole(plan):
    return run_virtual(plan.run)


def of_calls(statistics):
    (stage,) = (stage for stage in statistics.stages if stage.kind == "async")
    return stage


def test_latency_is_that_of_the_calls():
    """A hundred calls of 1 to 100 s, four at once: quantiles within 5 %, number and longest exact."""
    latency = of_calls(whole(Pipeline.from_iterable(range(1, 101)).map(took, concurrency=4))).latency

    assert (latency.count, latency.max) == (100, 100.0)
    assert latency.p50 == pytest.approx(50, rel=0.051)
    assert latency.p90 == pytest.approx(90, rel=0.051)
    assert latency.p99 == pytest.approx(99, rel=0.051)


def test_waits_for_limits_and_between_attempts_belong_to_it():
    """As does a failure; what was cancelled does not count."""
    limited = Step(nap).rate_limit(RateLimit(1, per=10))
    attempts = []

    async def flaky(item):
        attempts.append(item)
        if len(attempts) == 1:
            raise Boom
        return item

    async def fail(item):
        await trio.sleep(3)
        raise Boom

    retried = Step(flaky).retry(Retry(2, on=Boom, backoff=Backoff(7, jitter=0)))
    assert of_calls(whole(Pipeline.from_iterable([1, 2]).map(limited))).latency.max == 10  # taken after 1 s
    assert of_calls(whole(Pipeline.from_iterable([1]).map(retried))).latency.max == 7
    skipped = Pipeline.from_iterable([1, 2]).map(fail, concurrency=2, on_error=OnError.skip())
    assert (of_calls(whole(skipped)).latency.count, of_calls(whole(skipped)).latency.p50) == (
        2,
        pytest.approx(3, rel=0.051),
    )
    assert of_calls(at(Pipeline.from_iterable([5]).map(took), 1)).latency.count == 0


def test_a_difference_has_the_latency_of_its_time():
    """The first calls are slow, the later ones fast."""

    async def main():
        async with Pipeline.from_iterable([8, 8, 1, 1, 1]).map(took).open() as run:
            await trio.sleep(16.5)
            first = run.statistics()
            await trio.sleep(4)
            return of_calls(run.statistics().since(first)).latency

    latency = run_virtual(main)

    assert (latency.count, latency.p50) == (3, pytest.approx(1, rel=0.051))


def test_the_peak_counts_results_that_wait_for_their_turn():
    """The first call takes long, the others wait behind it: as many as there are places."""
    stage = of_calls(at(Pipeline.from_iterable([50, 1, 1, 1, 1, 1]).map(took, concurrency=3), 10))

    assert (stage.in_flight, stage.in_flight_peak) == (6, 6)  # three places, and the room behind


def test_the_oldest_call_has_an_age():
    assert of_calls(at(Pipeline.from_iterable([50, 60]).map(took, concurrency=2), 10)).oldest == 10
    assert of_calls(at(Pipeline.from_iterable([1]).map(took), 10)).oldest == 0


async def stuck(item):
    raise Boom


WAITS = {
    "call": Step(took),
    "rate limit": Step(took).rate_limit(RateLimit(1, per=100)),
    "places": Step(took).places(PlaceLimiter(1)).timeout(1000),
    "places, and not the rate": Step(took).places(PlaceLimiter(1)).rate_limit(RateLimit(9, burst=9)),
    "rate limit, and not places": Step(took).places(PlaceLimiter(9)).rate_limit(RateLimit(1, per=100)),
    "retry": Step(stuck).retry(Retry(2, on=Boom, backoff=Backoff(99))),
    "circuit": Step(stuck).circuit_breaker(CircuitBreaker(1, reset_after=99, wait=True)),
}


@pytest.mark.parametrize("what", WAITS)
def test_what_most_calls_wait_for(what):
    """The policy that holds them up, or the call itself."""
    items = [1000] * 4 if what == "call" or what.startswith("places") else [0] * 4
    stage = of_calls(at(Pipeline.from_iterable(items).map(WAITS[what], concurrency=4, on_error=OnError.skip()), 5))

    assert stage.waits_for == what.partition(",")[0]


def test_what_other_stages_wait_for():
    """Room, input, the source, the clock; nothing when they are over."""

    async def silent():
        yield 1
        await trio.sleep(1000)

    full = at(Pipeline.from_iterable(range(99)).map(str).buffer(2).map(str).buffer(2), 1)
    starved = at(Pipeline.from_async_iterable(silent).buffer(2).map(str), 1)
    paced = at(Pipeline.from_iterable(range(9)).buffer(1).throttle(RateLimit(1, per=100, burst=1)), 1)

    assert [stage.waits_for for stage in full.stages] == [f"room behind {stage.name}" for stage in full.stages]
    assert [stage.waits_for for stage in starved.stages] == ["source", "input"]
    assert paced.stages[-1].waits_for == "the clock"
    assert {stage.waits_for for stage in whole(Pipeline.from_iterable([1]).map(took)).stages} == {None}


def test_a_call_in_a_thread_waits_for_it():
    """On the real clock, with a thread that waits to be let go."""
    begun, go = threading.Event(), threading.Event()

    def work(item):
        begun.set()
        return go.wait(60)

    async def main():
        async with Pipeline.from_iterable([1]).map(Step(work).on(threads(1))).open() as run:
            await trio.to_thread.run_sync(begun.wait)
            waits_for = of_calls(run.statistics()).waits_for
            go.set()
            return waits_for, [item async for item in run]

    assert trio.run(main) == ("thread", [True])
