"""P15: a result leaves as soon as it is ready, not with the next item, the next full window, or the end.

Mutants that die here: a pool that emits only when its window is full; a stage that hands over only full bursts; a
batch that waits for the item behind it.
"""

import pytest
import trio

from funcpipe_trio import Pipeline, RateLimit, concat, fair_merge, merge, zip_pipelines
from funcpipe_trio.testing import Script, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import nap


async def one_a_minute():
    for number in range(4):
        await trio.sleep(60)
        yield number


async def quick(item):
    return item


async def pair(item):
    yield item
    await trio.sleep(10)


def pairs(item):
    return [item]


class Each:
    """Gives each item at once."""

    def push(self, item):
        return [item]


async def each(items):
    async for item in items:
        yield item


MINUTES = [60, 120, 180, 240]
SHAPES = {
    "alone": (lambda p: p, 0),
    "fused": (lambda p: p.map(str).filter(bool).scan(max, ""), 0),
    "stages": (lambda p: p.buffer(4).map(str).buffer(4).map(str), 0),
    "a pool": (lambda p: p.map(quick, concurrency=8), 0),
    "a slow pool": (lambda p: p.map(nap, concurrency=8), 1),
    "an unordered pool": (lambda p: p.map(nap, concurrency=8, ordered=False), 1),
    "full batches": (lambda p: p.batch(1), 0),
    "timed batches": (lambda p: p.batch(9, max_delay=2), 2),
    "an expensive item": (lambda p: p.batch(max_cost=1, cost=lambda item: 5), 0),
    "a throttle": (lambda p: p.throttle(RateLimit(1, per=60)), 0),
    "a delay": (lambda p: p.delay(3), 3),
    "a dropping link": (lambda p: p.buffer(1, overflow="drop_oldest").map(str), 0),
    "timeouts": (lambda p: p.idle_timeout(61).timeout(241), 0),
    "the first child": (lambda p: p.flat_map(pair), 0),
    "a fused child": (lambda p: p.flat_map(pairs), 0),
    "an object with state": (lambda p: p.stateful(Each), 0),
    "one in its own stage": (lambda p: p.stateful(lambda: Each()), 0),
    "a generator": (lambda p: p.through(each), 0),
    "a merge": (lambda p: merge(p, Pipeline.from_async_iterable(never)), 0),
    "a fair merge": (lambda p: fair_merge({"a": p, "b": Pipeline.from_async_iterable(never)}), 0),
    "a concat": (lambda p: concat(p, p), 0),
    "a zip": (lambda p: zip_pipelines(p, Pipeline.from_iterable(range(9))), 0),
}


async def never():
    await trio.sleep(10**6)
    yield None


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("end", ["receive", "sink"])
def test_each_result_comes_at_the_instant_it_is_ready(shape, end):
    """One item a minute: each result comes in its minute, at its time exactly."""
    make, delay = SHAPES[shape]
    pipeline = make(Pipeline.from_async_iterable(one_a_minute)).take(4)
    times = []

    async def main():
        if end == "sink":
            await pipeline.tap(lambda _: times.append(trio.current_time())).run()
            return
        async with pipeline.open() as run:
            async for _ in run:
                times.append(trio.current_time())

    run_virtual(main)
    prompt = [minute + delay for minute in MINUTES]
    if shape == "timed batches":
        prompt[-1] = MINUTES[-1]  # the end closes it
    assert times == prompt


async def in_ten(item):
    await trio.sleep(10)
    return item


BATCHES = {
    "one call at a time": (1, 20, 16),
    "two calls": (2, 20, 16),
    "two calls in order": (2, 20, 1),
    "four calls": (4, 10, 16),
    "long batches": (1, 200, 500),
    "more calls than batches": (8, 30, 4),
}


@pytest.mark.parametrize("shape", BATCHES)
@pytest.mark.parametrize("ordered", [True, False])
def test_rest_of_a_batch_does_not_wait_for_the_calls_behind_it(shape, ordered):
    """However small the link, and whatever the schedule: all of a batch leaves when its call is done."""
    concurrency, size, link = BATCHES[shape]
    batches = Pipeline.from_iterable([[number] * size for number in range(12)])
    calls = batches.map(in_ten, concurrency=concurrency, ordered=ordered)

    async def main(parts):
        times = []
        await parts.buffer(link).map(quick).tap(lambda _: times.append(trio.current_time())).run()
        return times

    for seed in range(10):
        for parts in (calls.unbatch(), calls.flat_map(lambda batch: batch)):
            with scheduled(Schedule(seed)):
                times = run_virtual(main, parts)

            assert times == [10 * (1 + number // concurrency) for number in range(12) for _ in range(size)]


async def straggling(item):
    await trio.sleep(100 if item == 0 else 0 if item < 400 else 1000)
    return item


@pytest.mark.parametrize("key", [None, lambda item: item])
def test_all_that_waited_for_a_straggler_leaves_with_it(key):
    """Also if there is more of it than a turn moves, and a place for another call."""
    pipeline = Pipeline.from_iterable(range(600)).map(straggling, concurrency=2, key=key).buffer(500)

    async def main():
        times = []
        await pipeline.map(quick).tap(lambda _: times.append(trio.current_time())).take(401).run()
        return times

    assert run_virtual(main)[:400] == [100] * 400


async def by_length(batch):
    await trio.sleep(10 if len(batch) == 20 else 1000)
    return batch


def test_rest_of_a_batch_does_not_wait_for_an_item_of_its_key():
    """The last worker that is in no call sees to the rest first, also if the key has become free for another item."""
    batches = [["a"] * 20, ["a"], ["b"]]
    pipeline = Pipeline.from_iterable(batches).map(by_length, concurrency=2, key=lambda batch: batch[0]).unbatch()

    async def main():
        times = []
        await pipeline.buffer(4).map(quick).tap(lambda _: times.append(trio.current_time())).run()
        return times

    assert run_virtual(main) == [10] * 20 + [1010, 1010]


def test_rest_of_a_batch_does_not_wait_for_the_one_worker_there_is():
    """It is in the next call when there is room again: another one is employed, if only for that."""
    source = Script([(0, ["a"] * 20), (15, ["b"]), (2000, ["b"])])
    pipeline = Pipeline.from_async_iterable(source).map(by_length, concurrency=2).unbatch()

    async def main():
        times = []

        async def take(item):
            await trio.sleep(0 if times else 50)  # the link fills up meanwhile
            times.append(trio.current_time())

        await pipeline.buffer(4).map(take).run()
        return times

    assert run_virtual(main) == [60] * 20 + [1015, 3000]


# ---- what an operation has kept


async def fast():
    for number in range(6):
        yield number
    await trio.sleep(100)
    yield 6


async def later(item):
    return item


async def children(item):
    yield item


class Threefold:
    def push(self, item):
        return [item, item, item]


KEEP = {
    "unbatch": lambda line: line.batch(3).unbatch(),
    "flat_map": lambda line: line.flat_map(lambda item: [item, item, item]),
    "flat_map of generators": lambda line: line.flat_map(lambda item: (item for _ in range(3))),
    "batches by cost": lambda line: line.batch(max_cost=2, cost=lambda item: 3 if item % 2 else 1).unbatch(),
    "stateful": lambda line: line.stateful(Threefold),
    "a window": lambda line: line.window(2).unbatch(),
}
BEHIND = {
    "nothing": lambda line: line,
    "filter": lambda line: line.filter(lambda item: item % 3 > 0),
    "skip": lambda line: line.skip(1),
    "sliding": lambda line: line.sliding(2),
    "distinct": lambda line: line.distinct(remember=99),
    "another": lambda line: line.batch(2).unbatch().filter(lambda item: item % 2),
    "scan": lambda line: line.scan(lambda _, item: item, 0),
    "an empty flat_map": lambda line: line.flat_map(lambda item: [item] if item % 2 else []),
}
BEFORE = {
    "an async source": lambda: Pipeline.from_async_iterable(fast),
    "a link": lambda: Pipeline.from_async_iterable(fast).buffer(2),
    "a pool": lambda: Pipeline.from_async_iterable(fast).map(later, concurrency=2),
    "an async flat_map": lambda: Pipeline.from_async_iterable(fast).flat_map(children, concurrency=2),
    "a merge": lambda: merge(Pipeline.from_async_iterable(fast), Pipeline.from_iterable([])),
}


@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("keep", KEEP)
@pytest.mark.parametrize("before", BEFORE)
def test_what_an_operation_has_kept_does_not_wait_for_the_next_item(before, keep, behind):
    """It gives on what it has, also when an operation behind it lets some of that fall."""

    async def main():
        times = []
        async with BEHIND[behind](KEEP[keep](BEFORE[before]())).open() as run:
            async for item in run:
                times.append((trio.current_time(), repr(item)))
        return times

    times = run_virtual(main)

    early = [item for at, item in times if at == 0]
    assert {at for at, _ in times} <= {0, 100}
    # What is 6 came late, and what needs it: a batch or a tuple that it fills.
    assert len([item for at, item in times if at == 100 and "6" not in item]) <= 2
    assert early
