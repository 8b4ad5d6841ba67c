"""P18a: each call runs in a copy of the opener's context; what it sets, no other item sees.

Mutants that die here: a worker that keeps its context from call to call; one that loses the opener's.
"""

from __future__ import annotations

from contextvars import ContextVar

import pytest
import trio

from funcpipe_trio import FairShare, OnError, Pipeline, Retry, Step, gather
from funcpipe_trio.testing import run_virtual

request: ContextVar[object] = ContextVar("request", default="default")
other: ContextVar[object] = ContextVar("other")


class Incomparable:
    def __eq__(self, _other):
        raise RuntimeError("these cannot be compared")

    __hash__ = None


class Calls:
    """Calls that look at what is set, and set it, before or behind their awaits."""

    def __init__(self, first, value):
        self.first, self.value, self.seen = first, value, []

    def look(self):
        self.seen.append(request.get())
        assert other.get(None) is None

    def set(self, item):
        request.set(self.value(item))
        other.set(item)

    async def call(self, item):
        if not self.first:
            await trio.sleep(1)
        self.look()
        self.set(item)
        if self.first:
            await trio.sleep(1)
        return item

    async def at_once(self, item):
        self.look()
        self.set(item)
        return item

    async def expand(self, item):
        await self.call(item)
        yield item
        self.set(item + 100)
        yield item

    async def fails(self, item):
        await self.call(item)
        raise OSError(item)

    async def bury(self, failure):
        assert request.get() is not None
        request.set("buried")

    async def only_bury(self, failure):
        await self.call(1)


def nothing(item):
    raise OSError(item)


async def nothing_async(item):
    raise OSError(item)


ten = Pipeline.from_iterable(range(10))
SHAPES = {
    "map": lambda calls: ten.map(calls.call, concurrency=2),
    "map, one at a time": lambda calls: ten.map(calls.call),
    "map, unordered": lambda calls: ten.map(calls.call, concurrency=3, ordered=False),
    "map, at once": lambda calls: ten.map(calls.at_once, concurrency=2),
    "map by key": lambda calls: ten.map(calls.call, key=lambda item: item % 2, concurrency=2),
    "a step": lambda calls: ten.map(Step(calls.call).timeout(5), concurrency=2),
    "a started step": lambda calls: ten.map(Step(calls.call).start(), concurrency=2),
    "a failing step": lambda calls: ten.map(Step(calls.fails), concurrency=2, on_error=OnError.skip()),
    "filter": lambda calls: ten.filter(calls.call),
    "tap": lambda calls: ten.tap(calls.call),
    "flat_map": lambda calls: ten.flat_map(calls.expand, concurrency=2),
    "flat_map of pipelines": lambda calls: ten.flat_map(
        lambda item: Pipeline.from_iterable([item]).map(calls.call), concurrency=2
    ),
    "a diversion behind a call": lambda calls: ten.map(calls.fails, on_error=OnError.divert(calls.bury)),
    "a diversion": lambda calls: ten.map(nothing_async, concurrency=2, on_error=OnError.divert(calls.only_bury)),
    "a diversion of a sync function": lambda calls: ten.map(nothing, on_error=OnError.divert(calls.only_bury)),
    "a diversion of fair_by": lambda calls: ten.fair_by(
        bool, FairShare(capacity=1), max_keys=2, overflow=OnError.divert(calls.only_bury)
    ).map(slowly),
}


async def slowly(item):
    await trio.sleep(30)
    return item


@pytest.mark.parametrize("value", [lambda item: f"request {item}", lambda item: Incomparable()], ids=["text", "odd"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_call_sets_no_other_item_sees(shape, first, value):
    """Whatever it does before, between and behind its awaits."""
    calls = Calls(first, value)

    async def main():
        request.set("opener")
        await SHAPES[shape](calls).run()

    run_virtual(main)

    assert len(calls.seen) >= 5
    assert set(calls.seen) == {"opener"}


def test_gather_does_the_same():
    """It is the same pool."""
    calls = Calls(True, str)

    async def main():
        request.set("opener")
        return await gather(Step(calls.call), range(10), concurrency=2)

    assert run_virtual(main) == list(range(10))
    assert set(calls.seen) == {"opener"}


def test_the_attempts_of_one_item_share_their_context():
    """They are one call: a trace that the first began continues in the second."""
    seen = []

    async def call(item):
        seen.append(request.get())
        request.set(item)
        if seen.count(item) < 2:
            raise OSError

    async def main():
        await Pipeline.from_iterable([1, 2]).map(Step(call).retry(Retry(4))).run()

    run_virtual(main)

    assert seen == ["default", 1, 1, "default", 2, 2]


def test_what_a_function_of_the_stage_sets_no_call_sees():
    """The sync functions behind a call run in the task that moves its result on."""
    seen = []

    async def call(item):
        seen.append(request.get())
        return item

    def stamp(item):
        request.set(item)
        return item

    run_virtual(ten.map(call, concurrency=2).map(stamp).run)

    assert set(seen) == {"default"}


class Equal:
    """A value that is equal to others of its kind, and holds what is not."""

    def __init__(self):
        self.events = []

    def __eq__(self, other):
        return isinstance(other, Equal)

    __hash__ = None


def test_values_are_told_apart_by_what_they_are():
    """One that only equals the opener's is another all the same."""
    seen = []

    async def call(item):
        seen.append(list(request.get().events))
        request.set(Equal())
        request.get().events.append(item)

    async def main():
        request.set(Equal())
        await ten.map(call, concurrency=2).run()

    run_virtual(main)

    assert seen == [[]] * 10
