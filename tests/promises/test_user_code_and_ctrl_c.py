"""Wherever user code is called, Ctrl-C may strike in it: a function that never ends must not be safe from it.

Each piece of user code asks, when it is called, whether it is protected. (That the package's own code is not struck
where that would lose an item: `tests/operators/test_interrupted.py`.)

Mutants that die here: a protected generator that calls a function as it is; closing that is protected as a whole.
"""

from __future__ import annotations

import pytest
import trio

from funcpipe_trio import (
    Adaptive,
    Backoff,
    CircuitBreaker,
    FairChannel,
    FairShare,
    OnError,
    OnFull,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    RateLimiter,
    Retry,
    Step,
    fair_merge,
    gather,
    merge_sorted,
)
from funcpipe_trio.testing import run_virtual

asked: list[bool] = []


def ask():
    asked.append(trio.lowlevel.currently_ki_protected())


def same(item, *_rest):
    ask()
    return item


def yes(*_args):
    ask()
    return True


def one(*_args):
    ask()
    return 1


def none(*_args):
    ask()


async def call(item, *_rest):
    ask()
    return item


async def naps(item):
    await trio.sleep(1)
    return item


async def asks_and_naps(item):
    ask()
    await trio.sleep(1)
    ask()
    return item


async def stops():
    ask()
    await trio.sleep(3.5)
    ask()


async def call_with(_resource, item):
    return await call(item)


async def fails(item):
    ask()
    raise OSError(item)


def raises(item):
    ask()
    raise OSError(item)


def giving(item=0):
    ask()
    try:
        start = 100 * (item or 0)  # a resource may be None
        yield from range(start, start + 50)
    finally:
        ask()


async def agiving(item=0):
    ask()
    try:
        for number in range(50):
            yield number
    finally:
        ask()


class Iterated:
    """An iterator of a user-defined class, sync and async."""

    def __init__(self, _item=0):
        self.number = 0

    def __iter__(self):
        ask()
        return self

    def __aiter__(self):
        ask()
        return self

    def __next__(self):
        ask()
        self.number += 1
        if self.number > 50:
            raise StopIteration
        return self.number

    async def __anext__(self):
        ask()
        self.number += 1
        if self.number > 50:
            raise StopAsyncIteration
        return self.number

    def close(self):
        ask()

    async def aclose(self):
        ask()


class Compared:
    """An item that is compared."""

    def __init__(self, number):
        self.number = number

    def __lt__(self, other):
        ask()
        return self.number < other.number


class AsyncIterated:
    def __init__(self, _item=0):
        self.inside = Iterated()

    def __aiter__(self):
        ask()
        return self

    async def __anext__(self):
        return await self.inside.__anext__()

    async def aclose(self):
        ask()


class Asking:
    """An object with state."""

    def __init__(self, give=lambda item=0: [item]):
        ask()
        self.give = give
        self.at = -1.0

    def push(self, item):
        ask()
        return self.give(item)

    def flush(self):
        ask()
        return self.give()

    def due(self):
        ask()
        return self.at

    def tick(self, now):
        ask()
        self.at = None
        return []


async def through(items):
    ask()
    try:
        async for item in items:
            ask()
            yield item
    finally:
        ask()


class Channel(trio.abc.ReceiveChannel):
    number = 0

    async def receive(self):
        ask()
        self.number += 1
        return self.number

    def receive_nowait(self):
        ask()
        raise trio.WouldBlock

    async def aclose(self):
        ask()


async def produce(send):
    ask()
    for number in range(50):
        await send.send(number)


class Manager:
    """A context manager, sync; and an async one."""

    def __init__(self):
        ask()

    def __enter__(self):
        ask()

    def __exit__(self, *_error):
        ask()


class AsyncManager:
    async def __aenter__(self):
        await trio.lowlevel.checkpoint()
        ask()

    async def __aexit__(self, *_error):
        await trio.lowlevel.checkpoint()
        ask()


N = Pipeline.from_iterable(range(9))
PLANS = {
    "iterable": lambda: Pipeline.from_iterable(giving),
    "iterator": lambda: Pipeline.from_iterable(Iterated),
    "async iterable": lambda: Pipeline.from_async_iterable(agiving),
    "async iterator": lambda: Pipeline.from_async_iterable(AsyncIterated),
    "channel": lambda: Pipeline.from_channel(Channel()),
    "producer": lambda: Pipeline.from_producer(produce),
    "restarting": lambda: Pipeline.restarting(giving, Retry(2), reset_after=1),
    "restarting iterator": lambda: Pipeline.restarting(Iterated, Retry(2), reset_after=1),
    "restarting async": lambda: Pipeline.restarting(AsyncIterated, Retry(2), reset_after=1),
    "using": lambda: Pipeline.using(Manager, lambda _: giving()),
    "using async": lambda: Pipeline.using(AsyncManager, lambda _: agiving()),
    "using a pipeline": lambda: Pipeline.using(AsyncManager, lambda _: Pipeline.from_iterable(giving)),
    "map": lambda: N.map(same),
    "on_ok": lambda: N.on_ok(same),
    "on_ok: call": lambda: N.on_ok(call, key=same),
    "recover": lambda: N.map(raises, on_error=OnError.emit()).recover(same),
    "recover: call": lambda: N.map(raises, on_error=OnError.emit()).recover(call),
    "or_else": lambda: N.take(0).or_else(lambda: (ask(), N)[1]),
    "on_end": lambda: N.on_end(same),
    "on_end: async": lambda: N.on_end(call),
    "map: policy": lambda: N.map(raises, on_error=OnError.skip()),
    "filter": lambda: N.filter(yes),
    "tap": lambda: N.tap(none),
    "scan": lambda: N.scan(same, 0),
    "take_while": lambda: N.take_while(yes),
    "take_until": lambda: N.take_until(none),
    "stop_when": lambda: N.map(naps).stop_when(stops),
    "keep_alive": lambda: N.map(naps).keep_alive(0.25, none),
    "skip_while": lambda: N.skip_while(same),
    "call": lambda: N.map(call),
    "call of anything": lambda: N.map(lambda item: call(item), concurrency=2),
    "latest": lambda: N.buffer(1).map(call, latest=True),
    "flat_map of the latest": lambda: N.buffer(1).flat_map(agiving, latest=True),
    "async filter": lambda: N.filter(call),
    "async tap": lambda: N.tap(call),
    "async scan": lambda: N.scan(call, 0),
    "key": lambda: N.map(call, concurrency=2, key=same),
    "key at a rate": lambda: N.map(call, concurrency=2, key=same, per_key=2, key_rate=RateLimit(9), waiting=2),
    "divert": lambda: N.map(fails, on_error=OnError.divert(Step(call))),
    "retry": lambda: N.map(Step(fails).retry(Retry(2, yes, Backoff(0), retry_after=none)), on_error=OnError.skip()),
    "retry elsewhere": lambda: N.map(Step(fails).retry(Retry(2, yes)), on_error=OnError.skip(), retries_elsewhere=2),
    "breaker": lambda: N.map(Step(fails).circuit_breaker(CircuitBreaker(on=yes)), on_error=OnError.skip()),
    "hedge": lambda: N.map(Step(asks_and_naps).hedge(0.25), concurrency=2),
    "coalesce": lambda: N.map(Step(call).coalesce(same), concurrency=2),
    "coalesce in tasks": lambda: N.map(Step(call).coalesce(same).timeout(9), concurrency=2),
    "fallback": lambda: N.map(Step(fails).fallback(Step(call))),
    "adaptive": lambda: N.map(fails, concurrency=Adaptive(1, 2, on=yes), on_error=OnError.skip()),
    "adaptive, with attempts": lambda: N.map(
        Step(fails).retry(Retry(2, backoff=Backoff(0))), concurrency=Adaptive(1, 2, on=yes), on_error=OnError.skip()
    ),
    "cost of a call": lambda: N.map(Step(call).rate_limit(RateLimit(9), cost=one)),
    "key and settlement of a call": lambda: N.map(
        Step(call).rate_limit(RateLimiter(RateLimit(9, burst=9), FairShare()), key=one, cost=one, settle=one),
        concurrency=2,
    ),
    "key of a place": lambda: N.map(Step(call).places(PlaceLimiter(1, FairShare()), key=same), concurrency=2),
    "key and settlement of places": lambda: N.map(
        Step(call).rate_limit(RateLimit(9), settle=one).places(PlaceLimiter(2, FairShare()), key=one), concurrency=3
    ),
    "step and step": lambda: N.map(Step(call).then(Step(call)).map(same)),
    "step with a resource": lambda: N.map(Step(call_with).using(AsyncManager), concurrency=2),
    "step with a sync resource": lambda: N.map(Step(call_with).using(Manager, per="worker"), concurrency=2),
    "flat_map": lambda: N.flat_map(giving),
    "flat_map to iterators": lambda: N.flat_map(Iterated),
    "flat_map in a stage": lambda: N.flat_map(giving, concurrency=1),
    "flat_map in a stage to iterators": lambda: N.flat_map(Iterated, concurrency=1),
    "flat_map async": lambda: N.flat_map(agiving, concurrency=2),
    "flat_map async to iterators": lambda: N.flat_map(AsyncIterated, concurrency=2),
    "unbatch": lambda: N.map(lambda _item: Iterated()).unbatch(),
    "batch": lambda: N.batch(3, max_cost=9, cost=one),
    "stateful": lambda: N.stateful(Asking),
    "stateful by key": lambda: N.stateful(Asking, key=same, max_keys=9),
    "stateful by key that makes room": lambda: N.stateful(lambda: Asking(giving), key=same, max_keys=1),
    "stateful with generators": lambda: N.stateful(lambda: Asking(giving)),
    "through": lambda: N.through(through),
    "batch by key": lambda: N.batch(3, key=same, max_keys=9),
    "batch by key and cost": lambda: N.batch(3, max_cost=9, cost=one, key=same, max_keys=9),
    "distinct": lambda: N.distinct(same, remember=3),
    "throttle": lambda: N.throttle(RateLimit(9), cost=one),
    "throttle behind a link": lambda: N.buffer(1).throttle(RateLimit(9), cost=one),
    "fair_by": lambda: N.fair_by(same, FairShare(cost=one), max_keys=9),
    "loop": lambda: N.loop(
        lambda line: line.map(same).enumerate(), again=lambda result: giving() if result[0] == 1 else (), room=99
    ),
    "fair_merge": lambda: fair_merge({"a": N, "b": N}, FairShare(cost=one)),
    "fair_merge in front of a function": lambda: fair_merge({"a": N, "b": N}, FairShare(cost=one)).map(same),
    "merge_sorted": lambda: merge_sorted(N, N, key=same),
    "comparisons": lambda: merge_sorted(N.map(Compared), N.map(Compared)),
    "partition": lambda: N.partition(lambda _item: (ask(), "a")[1], {"a": lambda line: line}),
    "cost of a buffer": lambda: N.buffer(max_cost=9, cost=one).map(naps),
    "merges": lambda: N.buffer(1, overflow=OnFull.merge(same)).map(naps),
    "drops": lambda: N.buffer(1, overflow="drop_oldest"),
}
NOTHING_OF_THE_USERS = {"drops"}


@pytest.fixture(autouse=True)
def nothing_asked():
    asked.clear()


async def consume(plan, end):
    async with plan.open(on_discard=none) as run:
        number = 0
        async for _item in run:
            number += 1
            if end == "left" and number == 1:
                break
            if end == "drained" and number == 1:
                run.drain_nowait()


@pytest.mark.parametrize("end", ["completed", "left", "drained"])
@pytest.mark.parametrize("name", PLANS)
def test_user_code_is_never_safe_from_ctrl_c(name, end):
    """Called while the run is at work, and while it ends."""
    if name == "channel" and end == "completed":
        end = "left"  # it has no end
    for buffered in (True, False):
        plan = PLANS[name]()
        run_virtual(consume, plan.buffer(1) if buffered else plan, end)

    assert not any(asked)
    assert asked or name in NOTHING_OF_THE_USERS


def test_nor_is_the_cost_function_of_a_fair_channel():
    async def main():
        channel = FairChannel(FairShare(cost=one))
        sender = channel.open_input("a")
        await sender.send(1)
        sender.send_nowait(2)
        await channel.receive()

    run_virtual(main)

    assert asked == [False, False]


def test_nor_are_the_calls_of_gather():
    assert run_virtual(lambda: gather(Step(call), Iterated(), concurrency=2)) == list(range(1, 51))
    assert not any(asked)
