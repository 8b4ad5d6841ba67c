"""Batches of what is there: which items are there, and when does a batch go out?

In virtual time, which does not pass while a batch is made. Mutants that die here: a batch that waits for the next item,
or for the end; one that is cut where the link before it ends, or one of several inputs has nothing; one that depends on
which of two tasks runs first; one that goes out while its stage is busy, though more is there; one that tells a stage
of room again and again, though that has nothing to give.
"""

import pytest
import trio

from funcpipe_trio import FairShare, Pipeline, RateLimit, fair_merge, merge, zip_pipelines
from funcpipe_trio.testing import Probe, run_virtual

from .test_timing import played, script, under_schedules


async def second(item):
    await trio.sleep(1)
    return item


def test_a_burst_is_a_batch_and_a_slow_item_one_of_its_own():
    """Without time passing; whatever the capacity of the link before it."""

    async def main():
        send, receive = trio.open_memory_channel(100)
        log = []
        async with Pipeline.from_channel(receive).batch(50, max_delay=0).open() as run:
            for burst in (40, 1, 2, 70):
                for number in range(burst):
                    send.send_nowait(number)
                log.append(len(await run.receive()))
            log.append(len(await run.receive()))
            send.close()
            assert [batch async for batch in run] == []
            assert trio.current_time() == 0
        return log

    assert under_schedules(main) == [[40, 1, 2, 50, 20]] * 40


def test_it_never_waits_for_the_next_item():
    log, *_ = played(script("a-bc--d|").batch(10, max_delay=0))
    assert log == [(0, ["a"]), (2, ["b"]), (3, ["c"]), (6, ["d"])]


def test_the_calls_that_end_together_are_there_together():
    def main():
        return Pipeline.from_iterable(range(12)).map(second, concurrency=4).batch(9, max_delay=0).map(len).collect()

    assert under_schedules(main) == [[4, 4, 4]] * 40


@pytest.mark.parametrize("capacity", [1, 2, 16])
def test_what_only_waits_for_room_is_there(capacity):
    """A batch is as long as it may be while the stage before it has more, though a link holds less."""
    feed, half = Pipeline.from_iterable(range(20)), Pipeline.from_iterable(range(10)).buffer(capacity)
    lines = {
        "a link": feed.buffer(capacity),
        "merge": merge(half, half),
        "fair_merge": fair_merge({"a": half, "b": half}, FairShare({"a": 3})),
        "zip": zip_pipelines(feed.buffer(capacity), feed.buffer(1)),
        "fair_by": feed.fair_by(lambda item: item % 3, FairShare(capacity=capacity), max_keys=3),
    }

    for name, line in lines.items():

        def main(line=line):
            return line.batch(7, max_delay=0).map(len).collect()

        assert under_schedules(main, 10) == [[7, 7, 6]] * 10, name


@pytest.mark.parametrize("settings", [{}, {"ordered": False}, {"per_key": 2}, {"waiting": 2}])
def test_a_stage_that_wants_room_but_has_nothing_to_give_is_told_once(settings):
    """Workers of a keyed stage want room while items that wait for their key have all places."""

    def main():
        line = Pipeline.from_iterable(range(40)).map(second, key=lambda item: item % 2, concurrency=5, **settings)
        return line.batch(9, max_delay=0).map(len).collect()

    each = 4 if "per_key" in settings else 2  # calls that end together
    assert under_schedules(main, 10) == [[each] * (40 // each)] * 10


async def first_two_slowly(item):
    if item < 2:
        await trio.sleep(50 + 50 * item)
    return item


@pytest.mark.parametrize(
    ("how", "sizes"),
    [
        ({"concurrency": 3}, [1, 9]),
        ({"concurrency": 3, "key": lambda item: item}, [1, 9]),
        ({"concurrency": 1, "key": lambda item: 0, "key_rate": RateLimit(0.1)}, [1]),
    ],
    ids=["an earlier call", "an earlier call, by key", "a rate"],
)
def test_a_stage_that_can_use_no_room_is_not_asked_again(how, sizes):
    """It wants room, because it must wait for something else first; the two must not wake each other for ever."""

    async def main():
        async with Pipeline.from_iterable(range(60)).map(first_two_slowly, **how).batch(9, max_delay=0).open() as run:
            return [len(await run.receive()) for _ in sizes]

    assert under_schedules(main) == [sizes] * 40


def test_a_list_is_there_as_a_whole():
    """In the stage of a sync iterable; but not while that is paused."""

    async def main():
        numbers = Pipeline.from_iterable(range(10))
        assert await numbers.batch(4, max_delay=0).collect() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert "pipeline: 1 stage," in numbers.batch(4, max_delay=0).describe()

        def pausing():
            for number in range(10):
                if number == 6:
                    run.pause()
                yield number

        async with Probe(Pipeline.from_iterable(pausing).batch(4, max_delay=0)) as probe:
            run = probe.run
            await probe.expect([0, 1, 2, 3])
            await probe.expect([4, 5, 6])
            await trio.sleep(5)
            run.resume()
            await probe.expect([7, 8, 9])
            await probe.expect_end()

    run_virtual(main)


def test_what_comes_while_there_is_no_room_is_one_batch():
    """A consumer that is slow gets fewer and longer batches."""
    log, *_ = played(script("abcdefghijkl|").buffer(20).batch(20, max_delay=0).buffer(1), pause=4)
    assert [len(batch) for _, batch in log] == [1, 1, 3, 4, 3]


def test_items_that_are_dropped_do_not_close_a_batch():
    numbers = Pipeline.from_iterable(range(40)).filter(lambda number: number % 5 == 0)

    assert run_virtual(numbers.batch(3, max_delay=0).collect) == [[0, 5, 10], [15, 20, 25], [30, 35]]


def test_by_cost_and_without_a_number():
    costs = Pipeline.from_iterable([3, 1, 1, 4, 9, 2]).buffer(1)

    async def main():
        assert await costs.batch(max_delay=0).collect() == [[3, 1, 1, 4, 9, 2]]
        by_cost = costs.batch(max_delay=0, max_cost=5, cost=lambda item: item)
        assert await by_cost.collect() == [[3, 1, 1], [4], [9], [2]]
        assert by_cost.max_in_flight == float("inf")

    run_virtual(main)
    assert "batch of 9 items or what is there" in costs.batch(9, max_delay=0).describe()
