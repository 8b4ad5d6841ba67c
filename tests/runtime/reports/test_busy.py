"""How busy a stage says it was, against the calls that a test saw, in virtual time.

Mutants that die here: places that nobody was hired for, or whose workers wait, counted as used; a result that waits for
its turn, or an item that waits for its key, taken for a call; a wait that has not ended left out of a snapshot; a
concurrency of now for all of the time; a stage that ended before an interval and is busy in it; the time of a child
that waits for room.
"""

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import Backoff, CircuitBreaker, OnError, Pipeline, PlaceLimiter, RateLimit, Retry, Step, concat
from funcpipe_trio.testing import run_virtual


class Calls:
    """A function that keeps books of its calls."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.stretches = []
        """Of each call: when it began, and when it ended."""

    async def call(self, item):
        began = trio.current_time()
        self.stretches.append([began, float("inf")])
        mine = self.stretches[-1]
        try:
            await trio.sleep(self.seconds[item % len(self.seconds)])
        finally:
            mine[1] = trio.current_time()
        return item

    def used(self, start, end):
        """How long calls ran from `start` to `end`, over all of them."""
        return sum(max(0.0, min(end, ended) - max(start, began)) for began, ended in self.stretches)


def feed(gaps, count):
    """A source that waits for so many seconds before each item; 0: it does not."""

    async def items():
        for number in range(count):
            await trio.sleep(gaps[number % len(gaps)])
            yield number

    return Pipeline.from_async_iterable(items, name="feed") if any(gaps) else Pipeline.from_iterable(range(count))


def the_stage(statistics, name="call"):
    return next(stage for stage in statistics.stages if stage.name == name)


@pytest.mark.parametrize("concurrency", [1, 4, 32, 100])
@pytest.mark.parametrize("items", [0, 20])
def test_a_place_that_nobody_needs_is_not_busy(items, concurrency):
    """One item a second, calls of 10 ms: of a hundred places as good as none is in use."""
    calls = Calls([0.01])

    async def main():
        async def arrivals():
            for number in range(items):
                await trio.sleep(1)
                yield number
            await trio.sleep(1)

        plan = Pipeline.from_async_iterable(arrivals, name="feed").map(calls.call, concurrency=concurrency)
        return await plan.run()

    report = run_virtual(main)
    stage = the_stage(report)

    assert stage.used == pytest.approx(0.01 * items)
    assert stage.offered == pytest.approx(concurrency * report.elapsed)
    assert stage.busy == pytest.approx(0.01 * items / (concurrency * report.elapsed))
    assert report.bottleneck == "feed"


seconds = st.sampled_from((0, 0.25, 1, 3.5))


@settings(max_examples=100, deadline=None)
@given(
    gaps=st.lists(seconds, min_size=1, max_size=3),
    latencies=st.lists(seconds, min_size=1, max_size=4),
    how=st.fixed_dictionaries(
        {
            "concurrency": st.integers(1, 6),
            "ordered": st.booleans(),
            "key": st.sampled_from((None, lambda item: item % 2, lambda item: 0)),
        }
    ),
    pause=seconds,
    capacity=st.integers(1, 3),
    looks=st.lists(st.sampled_from((0.125, 1, 2.75)), max_size=5),
)
def test_busy_is_the_time_of_calls_over_that_of_places(gaps, latencies, how, pause, capacity, looks):
    """For the whole run and between any two looks at it, whatever the pool waits for."""
    calls, seen = Calls(latencies), []

    async def look(run):
        seen.append((trio.current_time(), run.statistics()))
        for wait in looks:
            await trio.sleep(wait)
            seen.append((trio.current_time(), run.statistics()))

    async def main():
        async with trio.open_nursery() as nursery:
            async with feed(gaps, 12).map(calls.call, **how).buffer(capacity).open() as run:
                nursery.start_soon(look, run)
                async for _item in run:
                    await trio.sleep(pause)
                left = trio.current_time()
            nursery.cancel_scope.cancel()
        return left, run.report

    left, report = run_virtual(main)
    seen.append((left, report))
    for number, (start, earlier) in enumerate(seen):
        for end, later in seen[number:]:
            stage = the_stage(later.since(earlier))
            assert stage.used == pytest.approx(calls.used(start, end))
            assert stage.offered <= how["concurrency"] * (end - start) + 1e-9
            assert stage.used + stage.stalled <= stage.offered + 1e-9
            if the_stage(later).emitted < 12:  # it has not ended
                assert stage.offered == pytest.approx(how["concurrency"] * (end - start))


def test_a_result_that_waits_for_its_turn_is_no_call():
    """One slow call, and three places that could go on if the order let them: they are stalled, not busy."""
    calls = Calls([100, *[1] * 49])
    report = run_virtual(Pipeline.from_iterable(range(20)).map(calls.call, concurrency=4).buffer(2).run)
    stage = the_stage(report)

    # Six at most are there, so five calls of a second beside the slow one; then 14 more, four at once.
    assert stage.used == 100 + 5 + 14
    assert stage.busy == (100 + 5 + 14) / (4 * report.elapsed)
    assert stage.stalled > 280


def test_an_item_that_waits_for_its_key_is_no_call():
    calls = Calls([1])
    plan = Pipeline.from_iterable(range(30)).map(calls.call, concurrency=10, key=lambda item: "the same")
    report = run_virtual(plan.run)
    stage = the_stage(report)

    assert (report.elapsed, stage.used, stage.busy) == (30, 30, pytest.approx(0.1))
    assert report.bottleneck == "call"


def test_a_changed_concurrency_counts_from_when_it_was_changed():
    """Two places for 4 s, eight for 4 s, one for as long as it takes; what runs already is counted to its end."""
    calls = Calls([2])

    async def main():
        async with trio.open_nursery() as nursery:
            run = await nursery.start(Pipeline.from_iterable(range(21)).map(calls.call, concurrency=2).run)
            await trio.sleep(4)
            run.set_concurrency("call", 8)
            before = run.statistics()
            await trio.sleep(4)
            run.set_concurrency("call", 1)
            between = run.statistics().since(before)
        return the_stage(before), the_stage(between), run.report

    before, between, report = run_virtual(main)
    whole = the_stage(report)

    assert (before.used, before.offered, before.busy) == (8, 8, 1.0)
    assert (between.used, between.offered, between.busy) == (32, 32, 1.0)
    assert (whole.used, whole.offered) == (42, 8 + 32 + report.elapsed - 8)
    assert whole.busy == 1.0


def test_more_calls_than_places_are_busy_at_most_all_of_the_time():
    """Right after it is lowered, more calls run than are allowed to begin."""
    calls = Calls([8])

    async def main():
        async with trio.open_nursery() as nursery:
            run = await nursery.start(Pipeline.from_iterable(range(8)).map(calls.call, concurrency=8).run)
            await trio.sleep(4)
            run.set_concurrency("call", 1)
            earlier = run.statistics()
            await trio.sleep(2)
            return the_stage(run.statistics().since(earlier))

    stage = run_virtual(main)

    assert (stage.used, stage.offered, stage.busy) == (16, 2, 1.0)


def test_a_concurrency_that_is_set_before_the_stage_begins_is_the_one_that_counts():
    calls = Calls([1])

    async def main():
        second = Pipeline.from_iterable(range(4)).map(calls.call, concurrency=1)
        async with trio.open_nursery() as nursery:
            run = await nursery.start(concat(feed([1], 5), second).run)
            await trio.sleep(2)
            run.set_concurrency("call", 4)
        return the_stage(run.report)

    stage = run_virtual(main)

    assert (stage.used, stage.offered) == (4, 4)


def test_a_call_that_waits_for_a_policy_has_its_place():
    """For the limit, for the circuit, between attempts: no other item can have it."""

    async def fail_once(item):
        await trio.sleep(1)
        if not failed:
            failed.append(item)
            raise OSError

    steps = {
        "limit": Step(Calls([1]).call).rate_limit(RateLimit(0.25)),
        "places": Step(Calls([5]).call).places(PlaceLimiter(1)),
        "retry": Step(fail_once).retry(Retry(2, OSError, Backoff(8, jitter=0))),
        "circuit": Step(fail_once).circuit_breaker(CircuitBreaker(1, 8, wait=True)),
    }
    for name, step in steps.items():
        failed = []
        plan = Pipeline.from_iterable(range(3)).map(step, on_error=OnError.skip(), name="call")
        report = run_virtual(plan.run)
        stage = the_stage(report)

        assert (stage.used, stage.busy) == (report.elapsed, 1.0), name
        assert stage.used > 8


def test_an_inner_stream_is_in_use_while_it_is_silent_and_not_while_it_waits_for_room():
    """It gives two items after 4 s; the second has no room until the consumer comes back, 10 s later."""

    async def inner(item):
        await trio.sleep(4)
        yield item
        yield item
        yield item

    async def main():
        async with Pipeline.from_iterable(range(1)).flat_map(inner, concurrency=2).buffer(1).open() as run:
            async for _item in run:
                await trio.sleep(10)
        return the_stage(run.report, "inner")

    stage = run_virtual(main)

    assert stage.used == pytest.approx(4)
    assert stage.waited_room > 0


def test_what_a_stage_waits_for_is_counted_while_it_waits():
    """Also by one without places, and by the consumer: a snapshot in the middle of a wait has all of it."""

    async def silent():
        await trio.sleep(100)
        yield 0

    async def main():
        line = Pipeline.from_async_iterable(silent).map(Calls([1]).call, concurrency=3).buffer(1).map(lambda item: item)
        async with line.open() as run, trio.open_nursery() as nursery:
            nursery.start_soon(run.receive)
            await trio.sleep(10)
            earlier = run.statistics()
            await trio.sleep(20)
            nursery.cancel_scope.cancel()
            return earlier, run.statistics().since(earlier)

    earlier, between = run_virtual(main)

    assert [(stage.busy, stage.waited_input) for stage in earlier.stages] == [(1.0, 0.0), (0.0, 10.0), (0.0, 10.0)]
    assert [(stage.busy, stage.waited_input) for stage in between.stages] == [(1.0, 0.0), (0.0, 20.0), (0.0, 20.0)]


def test_a_pacer_that_waits_for_the_clock_works():
    """Also in the middle of that wait."""

    async def main():
        line = Pipeline.from_iterable(range(100)).buffer(1).throttle(RateLimit(0.125)).buffer(1)
        async with trio.open_nursery() as nursery:
            run = await nursery.start(line.run)
            await trio.sleep(4)
            earlier = run.statistics()
            await trio.sleep(3)
            nursery.cancel_scope.cancel()
            return the_stage(run.statistics().since(earlier), "throttle")

    stage = run_virtual(main)

    assert (stage.busy, stage.waited_input, stage.waited_room) == (1.0, 0.0, 0.0)


def test_a_stage_that_is_over_is_not_busy():
    async def main():
        line = feed([1], 3).map(Calls([1]).call).buffer(10)
        async with line.open() as run:
            await trio.sleep(10)
            earlier = run.statistics()
            await trio.sleep(10)
            between = run.statistics().since(earlier)
            assert [item async for item in run] == [0, 1, 2]
        return earlier, between

    earlier, between = run_virtual(main)

    assert [stage.busy for stage in earlier.stages] == [pytest.approx(1.0), 3 / 4]
    assert [(stage.busy, stage.offered) for stage in between.stages] == [(0.0, 0.0), (0.0, 0.0)]
    assert between.bottleneck == "consumer"
