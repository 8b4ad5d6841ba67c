"""P4: never more in flight than `max_in_flight`; a silent consumer meets that bound exactly; memory does not grow.

Mutants that die here: a pool that takes without a place; a source that takes before there is room; a link one too
large; results that wait counted neither here nor there; anything kept per item (a set of the seen, a list of notes).
"""

import math
import tracemalloc

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import Pipeline, RateLimit, concat, fair_merge, merge
from funcpipe_trio.testing import run_virtual
from tests._kit import nap

from ._world import World, ends, lines


@settings(max_examples=100, deadline=None)
@given(line=lines(joins=("merge", "fair", "concat")), end=ends, seed=st.integers())
def test_never_more_in_flight_than_the_bound(line, end, seed):
    """P4 over random plans and ends; counted by the user's own books."""
    world = World()
    pipeline = world.plan(line)
    bound = pipeline.tap(print).max_in_flight if end.kind == "sink" else pipeline.max_in_flight
    world.play(pipeline, end, seed)

    # A receiver has the item in its hand when it is taken, and notes it here a step later.
    receivers = 0 if end.kind == "sink" else end.consumers
    assert world.most <= bound + receivers


async def first_slowest(item):
    await trio.sleep(1000 if item == 0 else 1)
    return item


async def produce(send):
    for number in range(10**6):
        await send.send(number)


async def numbers():
    for number in range(10**6):
        yield number


def test_results_that_wait_for_a_straggler_are_bounded_without_a_consumer_too():
    """`run()` has no link behind its last stage; what waits for an earlier result is held all the same."""

    async def main():
        async with trio.open_nursery() as nursery:
            run = await nursery.start(ITEMS.map(first_slowest, concurrency=4).run)
            await trio.sleep(500)
            counts = run.statistics()
            nursery.cancel_scope.cancel()
        return counts.taken - counts.delivered

    assert run_virtual(main) == ITEMS.map(first_slowest, concurrency=4).max_in_flight == 16 + 4 + 16


ITEMS = Pipeline.from_iterable(range(10**6))
REACHED = {
    "source": (ITEMS, 16),
    "capacity 1": (ITEMS.buffer(1), 1),
    "async source": (Pipeline.from_async_iterable(numbers).buffer(3), 3),
    "producer": (Pipeline.from_producer(produce).buffer(3), 3),
    "two links": (ITEMS.buffer(3).map(str).buffer(5), 8),
    "a pool": (ITEMS.buffer(2).map(nap, concurrency=4).buffer(3), 9),
    "an unordered pool": (ITEMS.buffer(2).map(nap, concurrency=4, ordered=False).buffer(3), 9),
    "a pool whose first call is slow": (ITEMS.buffer(2).map(first_slowest, concurrency=4).buffer(3), 9),
    "two pools": (ITEMS.buffer(1).map(nap).buffer(1).map(nap, concurrency=2).buffer(1), 6),
    "a throttle": (ITEMS.buffer(2).throttle(RateLimit(100)).buffer(3), 5),
    "a throttle of an iterable": (ITEMS.throttle(RateLimit(100)).buffer(3), 3),
    "batches of a throttled iterable": (ITEMS.throttle(RateLimit(1)).batch(2).buffer(3), 6),
    "timed batches": (ITEMS.buffer(2).batch(5, max_delay=1000).buffer(3), 2 + 15),
    "timed batches of an iterable": (ITEMS.batch(5, max_delay=1000).buffer(3), 15),
    "a delay": (ITEMS.buffer(2).delay(1, max_items=4).buffer(3), 9),
    "timeouts": (ITEMS.buffer(2).timeout(10**6).buffer(3), 5),
    "batches": (ITEMS.buffer(2).map(str).batch(5).buffer(3), 2 + 15),
    "a merge": (merge(ITEMS.buffer(2), ITEMS.buffer(3)), 5),
    "a concat": (concat(ITEMS.buffer(3), ITEMS.buffer(2)).map(nap).buffer(1), 3 + 2),
}


@pytest.mark.parametrize("shape", REACHED)
def test_a_silent_consumer_meets_the_bound_exactly(shape):
    """P4: nobody receives; after a while exactly `max_in_flight` items were taken, and no more ever."""
    pipeline, expected = REACHED[shape]

    async def main():
        async with pipeline.open() as run:
            await trio.sleep(500)
            return run.statistics().taken

    assert run_virtual(main) == expected
    assert pipeline.max_in_flight == expected


async def seconds(count):
    for number in range(count):
        await trio.sleep(1)
        yield number
    await trio.sleep_forever()


def stuck_at(number):
    async def call(item):
        await trio.sleep(math.inf if item >= number else 0)
        return item

    return call


LOSSY = {
    "a link": (lambda line: line, 2),
    "batches": (lambda line: line.batch(10), 9 + 20),
    "windows": (lambda line: line.window(10), 9 + 20),
    "sliding windows": (lambda line: line.sliding(5, 2), 3 + 1 + 4),
    "windows with gaps": (lambda line: line.sliding(2, 3), 1 + 4),
    "batches in batches": (lambda line: line.batch(3).batch(4), 2 + 9 + 24),
    "a throttle": (lambda line: line.buffer(4).throttle(RateLimit(1e-9, burst=2)), 4 + 1 + 2),
    "a throttle and batches": (lambda line: line.buffer(4).throttle(RateLimit(1e-9, burst=5)).batch(2), 4 + 1 + 1 + 4),
    "a pool": (lambda line: line.buffer(1).map(stuck_at(2), concurrency=3), 1 + 3 + 2),
    "a pool and batches": (lambda line: line.buffer(1).map(stuck_at(5), concurrency=3).batch(2), 1 + 3 + 1 + 4),
}


class Most(trio.abc.Instrument):
    """The most items in flight at any step, until something is dropped, or fails."""

    def __init__(self):
        self.run, self.most, self.is_over = None, 0, False

    def after_task_step(self, task):
        counts = self.run.statistics()
        self.is_over = self.is_over or counts.failed > 0 or any(link.dropped for link in counts.links)
        if not self.is_over:
            self.most = max(self.most, counts.taken - counts.dropped)


def in_a_buffer(line, policy):
    return line.buffer(2, overflow=policy)


def in_a_branch(line, policy):
    """One branch, for each copy counts."""
    return line.broadcast({"only": lambda copies: copies.buffer(2, overflow=policy)})


def in_a_merge_of_a_branch(line, policy):
    """Where the branch does not begin with its link at first sight."""
    return line.broadcast({"only": lambda copies: merge(copies.buffer(2, overflow=policy), Pipeline.from_iterable(()))})


@pytest.mark.parametrize("into", [in_a_buffer, in_a_branch, in_a_merge_of_a_branch], ids=lambda into: into.__name__)
@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest", "fail"])
@pytest.mark.parametrize("shape", LOSSY)
def test_what_stands_before_a_buffer_that_drops_is_counted(shape, policy, into):
    """P4: a stage continues though that buffer is full, so what it gathers or holds back is added; and no more."""
    make, expected = LOSSY[shape]
    plan = into(make(Pipeline.from_async_iterable(lambda: seconds(1000))), policy)

    async def main():
        most = Most()
        async with plan.open() as most.run:
            trio.lowlevel.add_instrument(most)
            await trio.sleep(60)
            trio.lowlevel.remove_instrument(most)
        return most.most

    beside = 16 if into is in_a_merge_of_a_branch else 0  # the link of the empty source
    assert run_virtual(main) + beside == plan.max_in_flight == expected + beside


def test_a_batch_without_a_number_has_no_bound():
    """P4 says so, instead of a number that would not hold."""
    assert ITEMS.batch(max_delay=1).max_in_flight == math.inf


@pytest.mark.parametrize(
    "line",
    [
        ITEMS.batch(max_delay=1).map(len),
        ITEMS.window(period=1).map(len),
        ITEMS.window(period=1).map(first_slowest),
        ITEMS.window(period=1).unbatch(),
        ITEMS.window(period=1).sliding(2).unbatch(),
        ITEMS.window(period=1).broadcast({"one": lambda lists: lists.map(len)}),
    ],
    ids=lambda line: repr(line),
)
def test_what_has_no_limit_has_none_behind_it_either(line):
    """P4: infinite; not NaN, as none times infinity would be, which nothing is greater than."""
    assert line.max_in_flight == math.inf
    assert "in flight: without limit (a batch, window or buffer has no number of items)" in line.describe()


def peak(count):
    """Peak memory of a run over so many items, in bytes."""
    inputs = {
        "a": Pipeline.from_iterable(range(count // 2)).map(str).map(quick, concurrency=4),
        "b": Pipeline.from_iterable(range(count // 2)).batch(10).unbatch(),
    }
    pipeline = fair_merge(inputs).filter(lambda item: item is not None).buffer(8).tap(len_of)
    tracemalloc.start()
    try:
        taken = run_virtual(pipeline.count)
        return taken, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


async def quick(item):
    return item


def len_of(item):
    return len(str(item))


def test_memory_does_not_grow_with_the_number_of_items():
    """P4: ten times the items, not even 64 KiB more."""
    peak(1000)  # imports and caches
    few, little = peak(2_000)
    many, much = peak(20_000)

    assert (few, many) == (2_000, 20_000)
    assert much - little < 2**16
