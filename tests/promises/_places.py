"""Every place at which user code runs, each with code that does something at one item."""

from __future__ import annotations

from contextlib import nullcontext

import trio

from funcpipe_trio import (
    Adaptive,
    CircuitBreaker,
    FairShare,
    OnError,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    RateLimiter,
    Retry,
    Step,
    concat,
    fair_merge,
    merge,
    merge_sorted,
    prefer,
    zip_latest,
    zip_pipelines,
)

ITEMS = range(6)
BAD = 3


class Code:
    """User code of every shape that does something at one item, once."""

    def __init__(self, act):
        self.act = act

    def fn(self, item):
        if item == BAD:
            self.act()
        return item

    async def wait(self, item):
        await trio.sleep(0.1)
        return self.fn(item)

    def yes(self, item):
        return self.fn(item) is not None

    async def wait_yes(self, item):
        return await self.wait(item) is not None

    def no(self, item):
        return self.fn(item) is None

    async def wait_no(self, item):
        return await self.wait(item) is None

    def cost(self, item):
        return self.fn(item) * 0 + 1

    def key(self, item):
        return self.fn(item) * 0

    def fold(self, _state, item):
        return self.fn(item)

    async def wait_fold(self, _state, item):
        return await self.wait(item)

    def children(self, item):
        return [self.fn(item)]

    async def wait_children(self, item):
        yield await self.wait(item)

    async def give_children(self, item):
        return [await self.wait(item)]

    def iterate(self):
        return map(self.fn, ITEMS)

    async def feed(self):
        for item in ITEMS:
            yield await self.wait(item)

    async def produce(self, channel):
        async with channel:
            for item in ITEMS:
                await channel.send(await self.wait(item))

    async def through(self, items):
        async for item in items:
            yield await self.wait(item)

    async def bury(self, _failure):
        self.fn(BAD)


class Pushing:
    """An object with state."""

    def __init__(self, code):
        self.code = code

    def push(self, item):
        return [self.code.fn(item)]


class Feed:
    """An async iterable that is no generator."""

    def __init__(self, code):
        self.items, self.code = iter(ITEMS), code

    def __aiter__(self):
        return self

    async def __anext__(self):
        for item in self.items:
            return await self.code.wait(item)
        raise StopAsyncIteration


class Channel(trio.abc.ReceiveChannel):
    """A receive channel of somebody's own."""

    def __init__(self, code):
        self.items, self.code = iter(ITEMS), code

    async def receive(self):
        for item in self.items:
            return await self.code.wait(item)
        raise trio.EndOfChannel

    async def aclose(self):
        await trio.lowlevel.checkpoint()


async def fail(item):
    raise OSError(item)


async def nap(item):
    await trio.sleep(5)
    return item


def line():
    return Pipeline.from_iterable(ITEMS)


def tokens():
    return RateLimiter(RateLimit(99, burst=9), FairShare())


PLACES = {
    "map": lambda code: line().map(code.fn),
    "async map": lambda code: line().map(code.wait),
    "a pool in order": lambda code: line().map(code.wait, concurrency=3),
    "a pool": lambda code: line().map(code.wait, concurrency=3, ordered=False),
    "a key": lambda code: line().map(Step(code.wait).map(str), key=code.key, concurrency=2),
    "a key at a rate": lambda code: line().map(
        Step(code.wait).map(str), key=code.key, concurrency=2, key_rate=RateLimit(2, burst=1), waiting=9
    ),
    "a step": lambda code: line().map(Step(code.wait)),
    "a step with a timeout": lambda code: line().map(Step(code.wait).timeout(9)),
    "a step with a retry": lambda code: line().map(Step(code.wait).retry(Retry(3))),
    "a step with a retry elsewhere": lambda code: line().map(Step(code.wait).retry(Retry(3)), retries_elsewhere=2),
    "a step with a circuit": lambda code: line().map(Step(code.wait).circuit_breaker(CircuitBreaker(9))),
    "a hedge": lambda code: line().map(Step(code.wait).hedge(9)),
    "a coalesce": lambda code: line().map(Step(code.wait).coalesce(id)),
    "the key of a coalesce": lambda code: line().map(Step(code.wait).coalesce(code.key)),
    "a coalesce in a task": lambda code: line().map(Step(code.wait).coalesce(id).timeout(9)),
    "a fallback": lambda code: line().map(Step(fail).fallback(Step(code.wait).timeout(9))),
    "an adaptive pool": lambda code: line().map(code.wait, concurrency=Adaptive(1, 3)),
    "a predicate of an adaptive pool": lambda code: line().map(
        fail, concurrency=Adaptive(1, 3, on=lambda error: code.yes(BAD))
    ),
    "a pure step": lambda code: line().map(Step.pure(code.fn)),
    "the cost of a call": lambda code: line().map(Step(code.wait).rate_limit(RateLimit(99), cost=code.cost)),
    "whose share a call takes": lambda code: line().map(Step(code.wait).rate_limit(tokens(), key=code.key)),
    "whose place a call takes": lambda code: line().map(
        Step(code.wait).places(PlaceLimiter(2, FairShare()), key=code.key), concurrency=3
    ),
    "what a call has cost": lambda code: line().map(Step(nap).rate_limit(tokens(), settle=code.cost)),
    "what a call in a place has cost": lambda code: line().map(
        Step(nap).rate_limit(tokens(), cost=code.cost, settle=code.cost).places(PlaceLimiter(1)).timeout(99)
    ),
    "a predicate of a retry": lambda code: line().map(Step(fail).retry(Retry(3, lambda error: code.yes(BAD)))),
    "the latest": lambda code: line().map(nap).map(code.wait, latest=True),
    "the latest, of a step": lambda code: line().map(nap).map(Step(code.wait).timeout(9), latest=True),
    "flat_map of the latest": lambda code: line().map(nap).flat_map(code.wait_children, latest=True),
    "filter": lambda code: line().filter(code.yes),
    "async filter": lambda code: line().filter(code.wait_yes),
    "tap": lambda code: line().tap(code.key),
    "async tap": lambda code: line().tap(code.wait),
    "scan": lambda code: line().scan(code.fold, 0),
    "async scan": lambda code: line().scan(code.wait_fold, 0),
    "take_while": lambda code: line().take_while(code.yes),
    "async take_while": lambda code: line().take_while(code.wait_yes),
    "take_until": lambda code: line().take_until(code.no),
    "async take_until": lambda code: line().take_until(code.wait_no),
    "skip_while": lambda code: line().skip_while(code.yes),
    "flat_map": lambda code: line().flat_map(code.children),
    "async flat_map": lambda code: line().flat_map(code.wait_children, concurrency=2),
    "flat_map of awaited lists": lambda code: line().flat_map(code.give_children, concurrency=2),
    "flat_map of pipelines": lambda code: line().flat_map(
        lambda item: Pipeline.from_iterable([item]).map(code.wait), concurrency=2
    ),
    "the cost of a batch": lambda code: line().batch(2, max_cost=9, cost=code.cost),
    "the cost of a buffer": lambda code: line().buffer(max_cost=9, cost=code.cost).map(str),
    "the key of a batch": lambda code: line().batch(2, key=code.key, max_keys=2),
    "the key and the cost of a batch": lambda code: line().batch(max_cost=9, cost=code.cost, key=code.key, max_keys=2),
    "the cost of a throttle": lambda code: line().throttle(RateLimit(99, burst=9), cost=code.cost),
    "stateful": lambda code: line().stateful(lambda: Pushing(code)),
    "stateful by key": lambda code: line().stateful(lambda: Pushing(code), key=code.key, max_keys=2),
    "through": lambda code: line().through(code.through),
    "the key of distinct": lambda code: line().distinct(lambda item: (code.fn(item), item), remember=9),
    "the key of fair_by": lambda code: line().fair_by(code.key, max_keys=2),
    "the cost of fair_by": lambda code: line().fair_by(str, FairShare(cost=code.cost), max_keys=9),
    "the diversion of fair_by": lambda code: (
        line()
        .fair_by(bool, FairShare(capacity=1), max_keys=2, overflow=OnError.divert(code.bury))
        .map(Step(code.wait).map(str))
    ),
    "the new work of a loop": lambda code: line().loop(
        lambda p: p, again=lambda item: [code.key(item) - 1] if item > 0 else [], room=99
    ),
    "the diversion of a loop": lambda code: line().loop(
        lambda p: p, again=lambda item: [0] * (item and 5), room=1, full=OnError.divert(code.bury)
    ),
    "the body of a loop": lambda code: line().loop(lambda p: p.map(code.wait), again=lambda item: [], room=1),
    "a route": lambda code: line().partition(lambda item: "ab"[code.key(item)], {"a": lambda p: p, "b": lambda p: p}),
    "a zipped branch": lambda code: line().broadcast({"a": lambda p: p.map(code.fn), "b": lambda p: p}, join="zip"),
    "a zipped branch that waits": lambda code: line().broadcast(
        {"a": lambda p: p, "b": lambda p: p.map(code.wait)}, join="zip"
    ),
    "before zipped branches": lambda code: (
        line().map(code.fn).broadcast({"a": lambda p: p, "b": lambda p: p.map(nap)}, join="zip")
    ),
    "a branch that has room": lambda code: line().balance(
        {"a": lambda p: p.buffer(1).map(code.fn), "b": lambda p: p.map(code.fn)}
    ),
    "before a balance": lambda code: line().map(code.wait).balance({"a": lambda p: p.buffer(1), "b": lambda p: p}),
    "a branch": lambda code: line().broadcast({"a": lambda p: p.map(code.fn), "b": lambda p: p}),
    "the cost of a merge": lambda code: fair_merge({"a": line()}, FairShare(cost=code.cost)),
    "the cost of a merge behind a stage": lambda code: fair_merge({"a": line()}, FairShare(cost=code.cost)).map(
        Step.pure(str)
    ),
    "the cost of a merge in a zip": lambda code: zip_pipelines(
        fair_merge({"a": line()}, FairShare(cost=code.cost)), line()
    ),
    "the cost of a merge behind in a zip": lambda code: zip_pipelines(
        line(), fair_merge({"a": line()}, FairShare(cost=code.cost)), strict=True
    ),
    "the cost of a merge in a concat": lambda code: concat(
        fair_merge({"a": line()}, FairShare(cost=code.cost)), line().filter(lambda _: False)
    ),
    "the cost of a merge in a merge": lambda code: merge(fair_merge({"a": line()}, FairShare(cost=code.cost))),
    "the key of a sorted merge in latest items": lambda code: zip_latest(
        merge_sorted(line(), key=code.fn), line().map(nap)
    ),
    "the cost of a merge in latest items": lambda code: zip_latest(
        fair_merge({"a": line()}, FairShare(cost=code.cost)), line()
    ),
    "an input of a preference": lambda code: prefer(Pipeline.from_async_iterable(code.feed), line(), at_least=2),
    "an input of latest items": lambda code: zip_latest(Pipeline.from_async_iterable(code.feed), line()),
    "the key of a sorted merge": lambda code: merge_sorted(line(), line(), key=code.fn),
    "the key of a sorted merge in a zip": lambda code: zip_pipelines(merge_sorted(line(), key=code.fn), line()),
    "the key of a sorted merge behind in a zip": lambda code: zip_pipelines(
        line(), merge_sorted(line(), line(), key=code.fn)
    ),
    "the key of a sorted merge in a sorted merge": lambda code: merge_sorted(
        line(), merge_sorted(line(), line(), key=code.fn), key=lambda item: item
    ),
    "an iterable": lambda code: Pipeline.from_iterable(code.iterate),
    "an async generator": lambda code: Pipeline.from_async_iterable(code.feed),
    "an async iterable": lambda code: Pipeline.from_async_iterable(lambda: Feed(code)),
    "a channel": lambda code: Pipeline.from_channel(Channel(code)),
    "a producer": lambda code: Pipeline.from_producer(code.produce),
    "a source that restarts": lambda code: Pipeline.restarting(code.feed, Retry(3), reset_after=9),
    "an iterable that restarts": lambda code: Pipeline.restarting(code.iterate, Retry(3), reset_after=9),
    "a source that uses a resource": lambda code: Pipeline.using(nullcontext, lambda _: code.feed()),
    "an iterable of a resource": lambda code: Pipeline.using(nullcontext, lambda _: code.iterate()),
    "a pipeline of a resource": lambda code: Pipeline.using(
        nullcontext, lambda _: Pipeline.from_async_iterable(code.feed)
    ),
    "the opening of a resource": lambda code: Pipeline.using(lambda: nullcontext(code.fn(BAD)), lambda _: ITEMS),
    "a call with a resource": lambda code: line().map(Step(lambda _, item: code.wait(item)).using(nullcontext)),
    "the opening of a resource of a step": lambda code: line().map(
        Step(lambda _, item: code.wait(item)).using(lambda: nullcontext(code.fn(BAD)), per="worker")
    ),
    "an input of a merge": lambda code: merge(Pipeline.from_async_iterable(code.feed), line()),
    "an input of a concat": lambda code: concat(
        line().filter(lambda _: False), Pipeline.from_async_iterable(code.feed)
    ),
    "an input of a zip": lambda code: zip_pipelines(line(), Pipeline.from_async_iterable(code.feed)),
    "a diversion": lambda code: line().map(fail, on_error=OnError.divert(code.bury)),
}
