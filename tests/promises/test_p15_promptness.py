"""P15: a result leaves as soon as it is ready, not with the next item, the next full window, or the end.

Mutants that die here: a pool that emits only when its window is full; a stage that hands over only full bursts; a
batch that waits for the item behind it.
"""

import pytest
import trio

from funcpipe_trio import Pipeline, concat, fair_merge, merge, zip_pipelines
from funcpipe_trio.testing import run_virtual


async def one_a_minute():
    for number in range(4):
        await trio.sleep(60)
        yield number


async def quick(item):
    return item


async def second_later(item):
    await trio.sleep(1)
    return item


async def pair(item):
    yield item
    await trio.sleep(10)


def pairs(item):
    return [item]


MINUTES = [60, 120, 180, 240]
SHAPES = {
    "alone": (lambda p: p, 0),
    "fused": (lambda p: p.map(str).filter(bool).scan(max, ""), 0),
    "stages": (lambda p: p.buffer(4).map(str).buffer(4).map(str), 0),
    "a pool": (lambda p: p.map(quick, concurrency=8), 0),
    "a slow pool": (lambda p: p.map(second_later, concurrency=8), 1),
    "an unordered pool": (lambda p: p.map(second_later, concurrency=8, ordered=False), 1),
    "full batches": (lambda p: p.batch(1), 0),
    "timed batches": (lambda p: p.batch(9, max_delay=2), 2),
    "an expensive item": (lambda p: p.batch(max_cost=1, cost=lambda item: 5), 0),
    "the first child": (lambda p: p.flat_map(pair), 0),
    "a fused child": (lambda p: p.flat_map(pairs), 0),
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
