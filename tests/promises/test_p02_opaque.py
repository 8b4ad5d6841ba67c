"""P2: no item twice, and none looked at: what may be refused by `==`, `hash`, `bool` or `repr` passes all the same.

Mutants that die here: `if item`, `item == sentinel`, `item in seen`, an item in a message or in a set; an item handed
to two receivers, or kept in a link after it was taken.
"""

import functools
import operator

import pytest
import trio
import trio.lowlevel

from funcpipe_trio import FairShare, Pipeline, RateLimit, concat, fair_merge, merge, zip_pipelines
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Opaque, one_step


async def children(item):
    yield item


SHAPES = {
    "a pool": lambda p: p.map(one_step, concurrency=3),
    "unordered": lambda p: p.map(one_step, concurrency=3, ordered=False),
    "batches": lambda p: p.batch(3).unbatch(),
    "timed batches": lambda p: p.batch(3, max_delay=1).unbatch(),
    "flat": lambda p: p.flat_map(lambda item: [item]).flat_map(children, concurrency=2),
    "filters": lambda p: p.filter(lambda item: True).take_while(lambda item: True).skip(1).tap(lambda item: None),
    "joins": lambda p: concat(merge(p), fair_merge({1: p}, FairShare({1: 3}, cost=lambda item: 2))),
    "paced": lambda p: p.throttle(RateLimit(2, burst=9)).delay(1).idle_timeout(90).timeout(90),
    "rare": lambda p: concat(p.take(20).sample(0.1), p.debounce(1), p),
    "a zip": lambda p: zip_pipelines(p, p).unbatch(),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("end", ["all", "leave", "abort", "grace"])
def test_an_item_is_passed_on_unseen(shape, end):
    """Delivered, discarded or reported: nothing asks the item anything."""
    items = [Opaque() for _ in range(40)]
    told = []

    async def main():
        async with SHAPES[shape](Pipeline.from_iterable(items)).open(on_discard=lambda *what: told.append(what)) as run:
            for _ in range(3):
                await run.receive()
            if end == "abort":
                run.abort()
            if end == "grace":
                await run.drain(0)
            if end == "all":
                async for _ in run:
                    pass
        return run.report

    report = run_virtual(main)
    assert report.discarded == len(told)
    report.describe()


@pytest.mark.parametrize("seed", range(30))
def test_several_receivers_get_each_item_once(seed):
    """Five tasks receive; together they have every item once, each in order."""
    got = [[] for _ in range(5)]

    async def receiver(run, mine):
        async for item in run:
            mine.append(item)
            await trio.lowlevel.checkpoint()

    async def main():
        pipeline = Pipeline.from_iterable(range(200)).map(one_step, concurrency=4)
        async with pipeline.open() as run, trio.open_nursery() as nursery:
            for mine in got:
                nursery.start_soon(receiver, run, mine)

    with scheduled(Schedule(seed)):
        run_virtual(main)

    assert sorted(functools.reduce(operator.iadd, got, [])) == list(range(200))
    assert all(mine == sorted(mine) for mine in got)
