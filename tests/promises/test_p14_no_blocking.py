"""P14: a silent or slow input delays nobody, and a merge keeps the concurrency beneath its inputs.

Mutants that die here: a merge that waits for a producer which sleeps; a nested one that does not pass on that its
producer has settled; a merge that pulls its inputs one after the other; the end of an input that is never read.
"""

import pytest
import trio

from funcpipe_trio import FairShare, Pipeline, concat, fair_merge, merge, zip_pipelines
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled


@pytest.mark.parametrize("capacity", [1, 2, 16])
@pytest.mark.parametrize("join", ["merge", "fair", "nested"])
def test_a_silent_input_delays_nobody(join, capacity):
    """P14: one source sleeps 1000 s before each item; 300 items of the others come at t = 0."""

    async def silent():
        for number in range(2):
            await trio.sleep(1000)
            yield "silent", number

    inputs = {key: Pipeline.from_iterable([(key, number) for number in range(100)]) for key in range(3)}
    quiet = Pipeline.from_async_iterable(silent)
    share = FairShare({"silent": 10**9}, capacity=capacity)
    if join == "nested":
        quiet = merge(quiet, Pipeline.from_producer(sleeper))
    pipeline = merge(quiet, *inputs.values()) if join == "merge" else fair_merge({"silent": quiet, **inputs}, share)

    async def main():
        times = []
        async with pipeline.open() as run:
            async for item in run:
                times.append((item[0], trio.current_time()))
        return times

    times = run_virtual(main)
    assert [time for key, time in times if key != "silent"] == [0] * 300
    assert [time for key, time in times if key == "silent"] == [1000, 2000]


async def sleeper(send):
    await trio.sleep(5)


def test_a_merge_keeps_the_concurrency_beneath_its_inputs():
    """P14: four inputs of pools of five: twenty calls at once, so 100 calls of 1 s take 5 s."""

    async def call(item):
        await trio.sleep(1)
        return item

    inputs = [Pipeline.from_iterable(range(25)).map(call, concurrency=5) for _ in range(4)]

    async def main():
        count = await merge(*inputs).count()
        return count, trio.current_time()

    assert run_virtual(main) == (100, 5)


def test_a_zip_that_ends_in_a_merge_lets_go_of_its_longer_input():
    """P14, P7: the longer input of the zip is full and would wait forever; the merge ends all the same."""

    async def main():
        short, long = Pipeline.from_iterable([1]), Pipeline.from_iterable(range(100))
        return await merge(zip_pipelines(short, long), concat(zip_pipelines(short, long))).collect()

    assert run_virtual(main) == [(1, 0), (1, 0)]


@pytest.mark.parametrize("seed", range(20))
def test_an_input_that_is_being_closed_delays_no_other(seed):
    """What the others have continues while the source of one is closed, however long that takes."""

    class Feed:
        number = 0

        def __aiter__(self):
            return self

        async def __anext__(self):
            self.number += 1
            if self.number > 1:
                await trio.sleep_forever()
            return "x"

        async def aclose(self):
            await trio.sleep(4)

    async def main():
        times = []
        inputs = {0: Pipeline.from_async_iterable(Feed), 1: Pipeline.from_iterable(range(2))}
        async with fair_merge(inputs, FairShare({0: 3}, capacity=1)).open() as run, trio.open_nursery() as nursery:

            async def read():
                async for _item in run:
                    times.append(trio.current_time())

            nursery.start_soon(run.drain)
            for _ in range(3):
                nursery.start_soon(read)
        return set(times)

    with scheduled(Schedule(seed)):
        assert run_virtual(main) <= {0}
