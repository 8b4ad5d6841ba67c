"""P16: other tasks of the application run, whatever the user's code does without waiting.

Counted: how many items go by between two turns of a task that only ever takes turns. Mutants that die here: a burst
without a budget; a filter that lets nothing through and so never ends a burst; a worker whose calls never wait, and
that does not either; a slice measured in items only; a partition that has room again at
once, and bursts of one item without an end.
"""

import time
from itertools import count

import pytest
import trio

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    FairShare,
    Pipeline,
    RateLimit,
    Retry,
    Step,
    concat,
    merge,
    zip_pipelines,
)
from funcpipe_trio.testing import run_virtual
from tests._kit import endless

ITEMS = 3000
NUMBERS = Pipeline.from_iterable(range(ITEMS))


async def quick(item):
    return item


POLICIES = (
    Step(quick)
    .rate_limit(RateLimit(1, burst=ITEMS))
    .timeout(1)
    .circuit_breaker(CircuitBreaker())
    .retry(Retry(2, backoff=Backoff(0)))
)


async def numbers():
    for number in range(ITEMS):
        yield number


async def many(item):
    for _ in range(ITEMS):
        yield item


async def nothing(item):
    return ()


class Nothing:
    """Takes all, and gives nothing."""

    def push(self, item):
        return ()


async def swallow(items):
    async for _ in items:
        pass
    yield None


class Channel(trio.abc.ReceiveChannel):
    """A channel that never waits and never checkpoints."""

    def __init__(self):
        self.numbers = iter(range(ITEMS))

    async def receive(self):
        for number in self.numbers:
            return number
        raise trio.EndOfChannel

    async def aclose(self):
        pass


SHAPES = {
    "a source": lambda seen: NUMBERS.tap(seen),
    "an async source": lambda seen: Pipeline.from_async_iterable(numbers).tap(seen),
    "a channel": lambda seen: Pipeline.from_channel(Channel()).tap(seen),
    "a wide link": lambda seen: NUMBERS.tap(seen).buffer(10**6),
    "a filter of everything": lambda seen: NUMBERS.tap(seen).filter(lambda item: False),
    "an async filter of everything": lambda seen: Pipeline.from_async_iterable(numbers).tap(seen).filter(refuse),
    "a skip": lambda seen: NUMBERS.tap(seen).skip(ITEMS),
    "a flat_map": lambda seen: Pipeline.from_iterable([1]).flat_map(lambda _: range(ITEMS)).tap(seen),
    "an empty flat_map": lambda seen: NUMBERS.tap(seen).flat_map(lambda item: ()),
    "an async flat_map": lambda seen: Pipeline.from_iterable([1]).flat_map(many).tap(seen),
    "an empty async flat_map": lambda seen: NUMBERS.flat_map(nothing, concurrency=2).tap(seen),
    "a pool": lambda seen: NUMBERS.map(quick, concurrency=3).tap(seen),
    "a step": lambda seen: NUMBERS.map(POLICIES, concurrency=3).tap(seen),
    "a batch": lambda seen: NUMBERS.tap(seen).batch(ITEMS),
    "a timed batch": lambda seen: NUMBERS.tap(seen).batch(ITEMS, max_delay=1),
    "a timed batch over a link": lambda seen: NUMBERS.tap(seen).buffer(10**6).batch(ITEMS, max_delay=1),
    "a throttle of an iterable": lambda seen: NUMBERS.throttle(RateLimit(1, burst=ITEMS)).tap(seen),
    "a dropping link": lambda seen: NUMBERS.tap(seen).buffer(1, overflow="drop_oldest").map(str),
    "a link that drops the newest": lambda seen: (
        Pipeline.from_async_iterable(numbers).tap(seen).buffer(1, overflow="drop_newest").map(str)
    ),
    "a throttle": lambda seen: NUMBERS.buffer(10**6).throttle(RateLimit(1, burst=ITEMS)).tap(seen),
    "a debounce": lambda seen: NUMBERS.buffer(10**6).throttle(RateLimit(1, burst=ITEMS)).tap(seen).debounce(1),
    "a sample": lambda seen: NUMBERS.tap(seen).buffer(10**6).sample(1),
    "timeouts": lambda seen: NUMBERS.buffer(10**6).idle_timeout(1).timeout(1).tap(seen),
    "an unbatch": lambda seen: Pipeline.from_iterable([range(ITEMS)]).unbatch().tap(seen),
    "a window": lambda seen: NUMBERS.tap(seen).window(ITEMS, period=1),
    "a sliding window": lambda seen: NUMBERS.tap(seen).sliding(ITEMS),
    "a stateful": lambda seen: NUMBERS.tap(seen).stateful(Nothing),
    "a stateful of its own": lambda seen: NUMBERS.tap(seen).buffer(10**6).stateful(lambda: Nothing()),
    "a through": lambda seen: NUMBERS.tap(seen).through(swallow),
    "a distinct": lambda seen: NUMBERS.tap(seen).distinct(lambda item: 0, remember=1),
    "a fair_by that drops": lambda seen: NUMBERS.tap(seen).fair_by(even, max_keys=2, overflow="drop_newest"),
    "a fair_by": lambda seen: NUMBERS.tap(seen).fair_by(even, FairShare(capacity=ITEMS), max_keys=2),
    "an empty flat_map of pipelines": lambda seen: NUMBERS.tap(seen).flat_map(lambda item: merge(), concurrency=2),
    "a flat_map of pipelines": lambda seen: (
        Pipeline.from_iterable([1]).flat_map(lambda _: NUMBERS, concurrency=1).tap(seen)
    ),
    "a broadcast": lambda seen: NUMBERS.tap(seen).broadcast({"a": wide, "b": wide}),
    "a partition": lambda seen: NUMBERS.tap(seen).partition(first_two, {"first": wide, "rest": wide}),
    "a partition with a full branch": lambda seen: NUMBERS.tap(seen).partition(
        first_two, {"first": full, "rest": wide}
    ),
    "a partition with a full branch and one that drops": lambda seen: NUMBERS.tap(seen).partition(
        first_two, {"first": full, "rest": dropping}
    ),
    "a partition of a pool with a full branch": lambda seen: (
        Pipeline.from_iterable([1])
        .map(quick)
        .flat_map(lambda _: range(ITEMS))
        .tap(seen)
        .partition(first_two, {"first": full, "rest": dropping})
    ),
    "a filter before a partition with a full branch": lambda seen: (
        NUMBERS.tap(seen)
        .filter(lambda item: item < 2 or item % 50 == 0)
        .partition(first_two, {"first": full, "rest": wide})
    ),
    "a merge": lambda seen: merge(NUMBERS, Pipeline.from_async_iterable(numbers)).tap(seen),
    "a concat": lambda seen: concat(NUMBERS, NUMBERS).tap(seen),
    "a zip": lambda seen: zip_pipelines(NUMBERS, NUMBERS).tap(seen),
}


def even(item):
    return item % 2


def first_two(item):
    return "first" if item < 2 else "rest"


def wide(items):
    return items.buffer(10**6)


def dropping(items):
    return items.buffer(1, overflow="drop_newest").map(str)


def full(items):
    """Of two items that it has room for, and is not done with."""
    return items.buffer(2).map(long)


async def long(item):
    for _ in range(200):  # no time passes here: the other task is never idle
        await trio.lowlevel.checkpoint()
    return item


async def refuse(item):
    return False


async def worst_gap(shape, end):
    """The most items that went by between two turns of another task."""
    gap = worst = 0

    def seen(_item):
        nonlocal gap
        gap += 1

    async def other(task_status):
        nonlocal gap, worst
        task_status.started()
        while True:
            worst, gap = max(worst, gap), 0
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        await nursery.start(other_of(other))
        if end == "run":
            await SHAPES[shape](seen).run()
        else:
            async with SHAPES[shape](seen).open() as run:
                async for _ in run:
                    pass
        nursery.cancel_scope.cancel()
    return max(worst, gap)


def other_of(other):
    async def task(task_status=trio.TASK_STATUS_IGNORED):
        await other(task_status)

    return task


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("end", ["run", "open"])
def test_at_most_two_slices_go_by_between_two_turns_of_another_task(shape, end):
    """P16: 128 items between two checkpoints of a stage; in a random order of tasks, two such slices."""
    assert run_virtual(worst_gap, shape, end) <= 2 * 128


@pytest.mark.parametrize("shape", ["a map", "a filter", "a pool"])
def test_slow_sync_code_is_left_after_ten_milliseconds_and_one_item(shape):
    """Items of 4 ms of real time each: another task runs at least once in five of them."""

    def work(item):
        time.sleep(0.004)
        return shape != "a filter"

    async def async_work(item):
        return work(item)

    numbers = Pipeline.from_iterable(range(30)).buffer(30)
    pipeline = {
        "a map": lambda: numbers.map(work),
        "a filter": lambda: numbers.filter(work),
        "a pool": lambda: numbers.map(async_work),
    }[shape]()

    async def main():
        turns = count()

        async def other():
            while True:
                next(turns)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await pipeline.buffer(100).run()
            nursery.cancel_scope.cancel()
        return next(turns)

    assert trio.run(main) >= 30 // 5  # slices of real time end by trio's own clock only


def test_a_filter_of_everything_does_not_hold_up_its_neighbour():
    """P14 with P16: an input that works without end and gives nothing delays no other input of the merge."""

    async def main():
        busy = Pipeline.from_async_iterable(endless).filter(lambda item: False)
        also = Pipeline.from_iterable(count).filter(lambda item: False)
        async with merge(busy, also, Pipeline.from_iterable(range(50))).open() as run:
            return [await run.receive() for _ in range(50)]

    assert run_virtual(main) == list(range(50))


class CountingClock(trio.abc.Clock):
    """Goes on by a microsecond whenever it is looked at: what a fast pace does in real time, the same each time."""

    def __init__(self):
        self.looks = count()

    def start_clock(self):
        pass

    def current_time(self):
        return next(self.looks) * 1e-6

    def deadline_to_sleep_time(self, deadline):
        return 0


@pytest.mark.parametrize("looks", range(4, 9))
@pytest.mark.parametrize("burst", [1, 2, 5])
@pytest.mark.parametrize("capacity", [None, ITEMS])
def test_a_pace_that_is_due_again_at_once_is_no_reason_not_to_let_others_run(looks, burst, capacity):
    """Catches a wait that finds its time come after each burst, and is none: a burst without an end, of many."""
    gap = worst = 0

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task):
            nonlocal gap
            gap = 0

    def seen(_item):
        nonlocal gap, worst
        gap += 1
        worst = max(worst, gap)

    numbers = NUMBERS if capacity is None else NUMBERS.buffer(capacity)
    line = numbers.throttle(RateLimit(1e6, per=looks, burst=burst)).tap(seen)
    trio.run(line.run, clock=CountingClock(), instruments=[Steps()])

    assert worst <= 128
