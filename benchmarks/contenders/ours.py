"""funcpipe_trio itself."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import trio

from funcpipe_trio import (
    FairChannel,
    FairShare,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    RateLimiter,
    Retry,
    Step,
    fair_merge,
    merge,
)
from funcpipe_trio._runtime.core.wait_queue import Arrivals, Order, Waiter
from funcpipe_trio._sansio.fair_lines import Branch, FairLine

from .._model import Sample, Timed
from .._trio_work import feed, visit
from .._work import MAX_DELAY, TIMEOUT, add, inc

__all__ = [
    "batch",
    "batch_by_key",
    "call_by_key",
    "channel",
    "decisions",
    "fair",
    "fair_runs",
    "fused",
    "hop",
    "hop_line",
    "lifecycle",
    "loop",
    "loop_merged",
    "objects_by_key",
    "pool",
    "resilience_bare",
    "resilience_scope",
    "resilience_step",
    "second_call_bare",
    "second_call_coalesce",
    "second_call_hedge",
    "second_call_task",
    "throttle",
    "tokens_there",
    "turns",
    "unlimited",
]


def hop(stages: int, capacity: int, items: int) -> int:
    return trio.run(hop_line(stages, capacity, items).fold, add, 0)


def hop_line(stages: int, capacity: int, items: int) -> Pipeline[int]:
    """A sync map is fused into the stage before it, so a buffer before each ends that stage."""
    line = Pipeline.from_iterable(range(items))
    for _ in range(stages):
        line = line.buffer(capacity).map(inc)
    return line


def fused(maps: int, items: int) -> int:
    line = Pipeline.from_iterable(range(items))
    for _ in range(maps):
        line = line.map(inc)
    return trio.run(line.fold, add, 0)


def pool(concurrency: int, ordered: bool, items: int) -> list[int]:
    line = Pipeline.from_iterable(range(items)).map(visit, concurrency=concurrency, ordered=ordered)
    return trio.run(line.collect)


def loop(sync: bool, items: int) -> int:
    """Walk a tree: the item n gives 2n + 1 and 2n + 2."""

    def again(item: int) -> tuple[int, ...]:
        return tuple(range(2 * item + 1, min(2 * item + 3, items)))

    line = Pipeline.from_iterable(range(min(items, 1)))
    return trio.run(line.loop(partial(_walked, sync), again=again, room=items + 1).fold, add, 0)


def loop_merged(sync: bool, items: int) -> int:
    return trio.run(_walked(sync, merge(Pipeline.from_iterable(range(items)))).fold, add, 0)


def _walked(sync: bool, line: Pipeline[int]) -> Pipeline[int]:
    return line.map(_same) if sync else line.map(visit, concurrency=4, ordered=False)


def _same(item: int) -> int:
    return item


def fair(inputs: int, items: int) -> int:
    """Merge the items; if there are fewer items than inputs, each from its own input."""
    inputs = min(inputs, items)
    return trio.run(_merged(inputs, items // inputs).fold, add, 0)


def _merged(inputs: int, each: int) -> Pipeline[int]:
    return fair_merge({key: Pipeline.from_iterable(range(each)) for key in range(inputs)})


def fair_runs(inputs: int, most_inputs: int, items: int) -> int:
    """Merge the items, an equal number from each input, in as many consecutive runs as that takes."""
    each = max(1, items // most_inputs)

    async def main() -> int:
        total = 0
        for _ in range(items // each // inputs):
            total += await _merged(inputs, each).fold(add, 0)
        return total

    return trio.run(main)


def channel(inputs: int, items: int) -> int:
    async def main() -> int:
        total = 0
        async with trio.open_nursery() as nursery:
            fair = FairChannel[int]()
            for key in range(inputs):
                nursery.start_soon(feed, range(items // inputs), fair.open_input(key))
            async for item in fair:
                total = add(total, item)
        return total

    return trio.run(main)


Call = Callable[[int], Awaitable[int]]


def resilience_bare(call: Call, items: int) -> int:
    return trio.run(Pipeline.from_iterable(range(items)).map(call).fold, add, 0)


def resilience_scope(call: Call, items: int) -> int:
    async def guarded(item: int) -> int:
        with trio.fail_after(TIMEOUT):
            return await call(item)

    return trio.run(Pipeline.from_iterable(range(items)).map(guarded).fold, add, 0)


def resilience_step(call: Call, items: int) -> int:
    step = Step(call).timeout(TIMEOUT).retry(Retry(attempts=3))
    return trio.run(Pipeline.from_iterable(range(items)).map(step).fold, add, 0)


def second_call_bare(call: Call, items: int) -> int:
    return _second_call(Step(call), items)


def second_call_hedge(call: Call, items: int) -> int:
    return _second_call(Step(call).hedge(TIMEOUT), items)


def second_call_coalesce(call: Call, items: int) -> int:
    return _second_call(Step(call).coalesce(key), items)


def second_call_task(call: Call, items: int) -> int:
    return _second_call(Step(call).coalesce(key).timeout(TIMEOUT), items)


def key(item: int) -> int:
    return item


def _second_call(step: Step[int, int], items: int) -> int:
    return trio.run(Pipeline.from_iterable(range(items)).map(step, concurrency=8).fold, add, 0)


def _source(linked: bool, items: int) -> Pipeline[int]:
    line = Pipeline.from_iterable(range(items))
    return line.buffer(16) if linked else line


def batch(linked: bool, size: int, items: int) -> int:
    line = _source(linked, items).batch(size, max_delay=MAX_DELAY).map(sum)
    return trio.run(line.fold, add, 0)


def batch_by_key(size: int, keys: int, delay: bool, items: int) -> int:
    """Add up batches: of each key, or with 0 keys of the whole stream."""
    max_delay = MAX_DELAY if delay else None
    line = Pipeline.from_iterable(range(items))
    if keys:
        batches = line.batch(size, max_delay=max_delay, key=lambda item: item % keys, max_keys=keys)
    else:
        batches = line.batch(size, max_delay=max_delay)
    return trio.run(batches.map(sum).fold, add, 0)


class _OneForOne:
    """Gives each item."""

    def push(self, item: int) -> list[int]:
        return [item]


def objects_by_key(keys: int, items: int) -> int:
    """Pass items through an object, or through one for each key."""
    line = Pipeline.from_iterable(range(items))
    if keys:
        passed = line.stateful(_OneForOne, key=lambda item: item % keys, max_keys=keys)
    else:
        passed = line.stateful(_OneForOne)
    return trio.run(passed.fold, add, 0)


def call_by_key(keys: int, rated: bool, items: int) -> int:
    """Make calls that never wait, 16 at once."""
    line = Pipeline.from_iterable(range(items))
    if rated:
        limit = RateLimit(1e9, burst=1_000_000)
        calls = line.map(visit, concurrency=16, key=lambda item: item % keys, key_rate=limit, waiting=100)
    elif keys:
        calls = line.map(visit, concurrency=16, key=lambda item: item % keys)
    else:
        calls = line.map(visit, concurrency=16)
    return trio.run(calls.fold, add, 0)


def tokens_there(keys: int, items: int) -> int:
    """Take tokens that are there; with shares, for each of some keys in turn."""

    async def main() -> int:
        limiter = RateLimiter(RateLimit(1e9, burst=1_000_000), FairShare() if keys else None)
        for item in range(items):
            await limiter.acquire(1, item % keys if keys else None)
        return limiter.statistics().acquired

    return trio.run(main)


class _Call(Waiter):
    """A call that waits."""

    __slots__ = ("key",)

    def __init__(self, key: int) -> None:
        super().__init__()
        self.key = key  # whose it is


class _Keyed(FairLine[_Call]):
    """A line that gets its calls as that of arrivals does; their weights are 1, 2 and 3."""

    def __init__(self) -> None:
        self._branch = Branch(lambda key: 1 + key % 3)
        super().__init__(self._branch)

    def add(self, place: _Call) -> None:  # type: ignore[override]
        super().add(place, self._branch, place.key)


def decisions(keys: int, items: int) -> Timed:
    """Serve calls, each of a key of its own, of which so many are left; with 0, by their arrival."""
    line: Order[_Call] = _Keyed() if keys else Arrivals()
    for number in range(keys + items):
        line.add(_Call(number))
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(items):
        _serve(line)
    sample = Sample(time.process_time() - cpu, time.perf_counter() - wall)
    return Timed(len(line) - keys, sample)


def decisions_and_joins(keys: int, each: int, is_new: bool, items: int) -> Timed:
    """Serve calls of some keys, `each` of them waiting for each key, and add another; with 0, by their arrival."""
    line: Order[_Call] = _Keyed() if each else Arrivals()
    for number in range(keys * max(each, 1)):
        line.add(_Call(number % keys))
    key = keys
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(items):
        first = _serve(line)
        key += 1
        line.add(_Call(key if is_new else first.key))
    sample = Sample(time.process_time() - cpu, time.perf_counter() - wall)
    return Timed(len(line) // max(each, 1), sample)


def _serve(line: Order[_Call]) -> _Call:
    first = line.first()
    assert first is not None
    if isinstance(line, _Keyed):
        line.served(first, 1)
    line.remove(first)
    return first


def turns(keys: int, shared: bool, items: int) -> int:
    """Let a task for each key hold the one place again and again."""

    async def main() -> int:
        limiter = PlaceLimiter(1, FairShare() if shared else None)

        async def user(key: int, turns: int) -> None:
            for _ in range(turns):
                async with limiter.hold(key):
                    pass

        tasks = min(keys, items)
        async with trio.open_nursery() as nursery:
            for key in range(tasks):
                nursery.start_soon(user, key, items // tasks)
        return limiter.statistics().acquired

    return trio.run(main)


def throttle(linked: bool, items: int) -> int:
    return trio.run(_source(linked, items).throttle(RateLimit(1e9, burst=1_000_000)).fold, add, 0)


def unlimited(linked: bool, items: int) -> int:
    return trio.run(_source(linked, items).fold, add, 0)


def lifecycle(stages: int, items: int) -> int:
    """Open a pipeline and leave it at once, `items` times; its source yields nothing and does not end."""
    line = Pipeline.from_async_iterable(_silent)
    for _ in range(stages - 1):
        line = line.buffer(16).map(inc)

    async def main() -> int:
        for _ in range(items):
            async with line.open():
                await trio.lowlevel.checkpoint()  # all tasks have started
        return items

    return trio.run(main)


async def _silent() -> AsyncIterator[int]:
    await trio.Event().wait()
    yield 0
