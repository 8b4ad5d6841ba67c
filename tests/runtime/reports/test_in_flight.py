"""Every snapshot adds up: what is under way is in a stage or in a link, at any moment at which somebody can ask.

Asked in each call of a user's function, in each `on_discard`, and between any two steps of the scheduler.

Mutants that die here: items of a burst that the link has and does not count yet; a drop counted before its item is; an
item in hands counted twice, or not at all; a peak that forgets results which wait for their turn.
"""

import pytest
import trio

from funcpipe_trio import FairShare, OnError, Pipeline, PlaceLimiter, RateLimit, Step, fair_merge
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom


class Witness(trio.abc.Instrument):
    """Looks at a run whenever it can, and keeps what does not add up."""

    def __init__(self):
        self.run, self.looks, self.wrong = None, 0, []

    def look(self, *_what):
        if self.run is None:
            return
        self.looks += 1
        now = self.run.statistics()
        inside = sum(stage.in_flight for stage in now.stages) + sum(link.held for link in now.links)
        made = sum(each.made - each.used for each in now.remade)
        gone = now.delivered + now.failed + now.dropped + now.discarded
        problems = [
            *(f"{stage.name}: {stage.in_flight}" for stage in now.stages if stage.in_flight < 0),
            *(f"link: {link}" for link in now.links if not 0 <= link.held <= link.capacity or link.taken < 0),
            *(
                f"link: {link}"
                for link in now.links
                if link.passed != link.taken + link.held + link.discarded + link.dropped
            ),
        ]
        if inside != now.taken + made - gone or inside != now.in_flight:
            problems.append(f"{inside} inside, {now.taken} + {made} - {gone}")
        self.wrong += problems + backlogs_that_differ(now)

    def before_task_step(self, task):
        self.look()

    after_task_step = before_task_step

    def fn(self, item):
        self.look()
        return item

    def yes(self, item):
        self.look()
        return item % 3 > 0

    async def wait(self, item):
        self.look()
        await trio.sleep(item % 3)
        self.look()
        return item

    async def fail(self, item):
        await self.wait(item)
        if item % 4 == 1:
            raise Boom(item)
        return item

    async def feed(self):
        for item in range(20):
            self.look()
            yield item
            await trio.sleep(item % 2)

    def iterate(self):
        for item in range(20):
            self.look()
            yield item


def backlogs_that_differ(now):
    """Return what of `backlog` is not what the links hold; the link of an input has its name."""
    links = {link.name: link for link in now.links if link.name is not None and not link.discarded}
    by_key = {each.merge: 0 for each in now.inputs if each.kind == "fair_by"}
    for each in now.inputs:
        if each.kind == "fair_by":
            by_key[each.merge] += each.backlog
    of_links = [(each.key, each.backlog) for each in now.inputs if each.kind != "fair_by"] + [*by_key.items()]
    return [f"{name}: {count} wait" for name, count in of_links if name in links and count != links[name].held]


def line(witness):
    return Pipeline.from_iterable(witness.iterate).buffer(3).map(witness.fn)


async def bury(failure):
    await trio.sleep(1)


PLANS = {
    "sync": lambda w: line(w).buffer(2).filter(w.yes).buffer(5).map(w.fn),
    "async source": lambda w: Pipeline.from_async_iterable(w.feed).map(w.fn).buffer(2).map(w.fn),
    "ordered": lambda w: line(w).map(w.wait, concurrency=3).map(w.fn),
    "unordered": lambda w: line(w).map(w.wait, concurrency=3, ordered=False).filter(w.yes),
    "one by one": lambda w: line(w).map(w.wait).map(w.fn),
    "keyed": lambda w: line(w).map(w.wait, concurrency=3, key=lambda item: item % 2),
    "skipped": lambda w: line(w).map(w.fail, concurrency=3, on_error=OnError.skip()),
    "diverted": lambda w: line(w).map(w.fail, concurrency=3, on_error=OnError.divert(bury)),
    "failing": lambda w: line(w).map(w.fail, concurrency=3),
    "limited": lambda w: line(w).map(Step(w.wait).rate_limit(RateLimit(2)), concurrency=3),
    "shared": lambda w: line(w).map(
        Step(w.wait).places(PlaceLimiter(2, FairShare()), key=lambda item: item % 2), concurrency=3
    ),
    "oldest dropped": lambda w: line(w).buffer(2, overflow="drop_oldest").map(w.wait),
    "newest dropped": lambda w: line(w).buffer(2, overflow="drop_newest").map(w.wait),
    "newest results dropped": lambda w: (
        line(w).map(w.wait, concurrency=3).buffer(1, overflow="drop_newest").map(w.wait)
    ),
    "batched": lambda w: line(w).map(w.wait).batch(4, max_delay=1).map(w.fn, name="lists").unbatch().map(w.fn),
    "expanded": lambda w: line(w).flat_map(lambda item: [w.fn(item)] * (item % 3)).buffer(2).map(w.fn),
    "expanded in a pool": lambda w: line(w).flat_map(lambda item: [w.fn(item)] * (item % 3), concurrency=2).map(w.fn),
    "throttled": lambda w: line(w).throttle(RateLimit(2, burst=2)).map(w.fn),
    "delayed": lambda w: line(w).delay(2, max_items=4).map(w.fn),
    "debounced": lambda w: Pipeline.from_async_iterable(w.feed).debounce(0.5).map(w.fn),
    "by key": lambda w: line(w).fair_by(lambda item: w.fn(item) % 3, FairShare(capacity=2), max_keys=3).map(w.wait),
    "by key, dropped": lambda w: (
        line(w)
        .fair_by(lambda item: w.fn(item) % 3, FairShare(capacity=1), max_keys=3, overflow="drop_newest")
        .map(w.wait)
    ),
    "by key, diverted": lambda w: (
        line(w)
        .fair_by(lambda item: w.fn(item) % 3, FairShare(capacity=1), max_keys=3, overflow=OnError.divert(bury))
        .map(w.wait)
    ),
    "merged": lambda w: fair_merge(
        {"a": line(w).buffer(3, name="a"), "b": line(w).map(w.wait, name="wait").buffer(4, name="b")}
    ).map(w.fn),
    "branches": lambda w: (
        line(w)
        .broadcast({"a": lambda p: p.map(w.wait).buffer(2, name="a"), "b": lambda p: p.buffer(3).buffer(4, name="b")})
        .map(w.fn)
    ),
    "by key, with few places": lambda w: line(w).fair_by(w.fn, FairShare(capacity=1), max_keys=2).map(w.wait),
    "taken": lambda w: line(w).map(w.wait, concurrency=3).take(5),
}


async def iterate(plan, witness):
    async with plan.open(on_discard=witness.look) as run:
        witness.run = run
        try:
            async for _item in run:
                witness.look()
                await trio.sleep(0.5)
        except Boom:
            pass


async def receive(plan, witness):
    async with plan.open(on_discard=witness.look) as run:
        witness.run = run
        try:
            while True:
                await run.receive()
        except (trio.EndOfChannel, Boom):
            pass


async def leave(plan, witness):
    async with plan.open(on_discard=witness.look) as run:
        witness.run = run
        async for _item in run:
            break


async def drain(plan, witness):
    async with plan.open(on_discard=witness.look) as run, trio.open_nursery() as nursery:
        witness.run = run
        nursery.start_soon(run.drain)
        try:
            async for _item in run:
                await trio.sleep(0.5)
        except Boom:
            pass


@pytest.mark.parametrize("use", [iterate, receive, leave, drain], ids=lambda use: use.__name__)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", PLANS)
def test_every_snapshot_adds_up(name, seed, use):
    """Conservation, at each moment."""
    witness = Witness()

    async def main():
        trio.lowlevel.add_instrument(witness)
        try:
            await use(PLANS[name](witness), witness)
        finally:
            trio.lowlevel.remove_instrument(witness)

    with scheduled(Schedule(seed)):
        run_virtual(main)

    assert witness.looks > 10
    assert witness.wrong == []
