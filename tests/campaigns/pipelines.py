"""The pipelines that every campaign is run over. A new capability joins by adding its pipeline here."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from contextlib import asynccontextmanager
from fractions import Fraction
from functools import partial
from typing import Any

import trio

from funcpipe_trio import (
    Adaptive,
    Backoff,
    CircuitBreaker,
    Failure,
    FairShare,
    OnError,
    OnFull,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    RateLimiter,
    Retry,
    RollingLimit,
    Run,
    Step,
    WorkerDied,
    concat,
    executor,
    fair_merge,
    merge,
    merge_sorted,
    prefer,
    threads,
    zip_latest,
    zip_pipelines,
)
from funcpipe_trio.testing import InjectedError, Lab, Scenario
from tests._kit import in_place, one_step


async def wait_by_item(item: Any) -> Any:
    """Take 0, 1 or 2 s, so that calls finish out of order."""
    await trio.sleep(item % 3)
    return item


async def at_once(item: Any) -> Any:
    return item


async def numbers(count: int = 6) -> AsyncIterator[int]:
    for number in range(count):
        await trio.sleep(0.5)
        yield number


async def children(item: int) -> AsyncIterator[int]:
    for child in range(item % 3):
        await trio.sleep(1)
        yield child


async def produce(channel: trio.MemorySendChannel[int]) -> None:
    async with channel:
        for number in range(6):
            await trio.sleep(number % 2)
            await channel.send(number)


async def one_by_one(run: Run[Any], lab: Lab) -> None:
    """Receive by `receive`, and be slow about it."""
    while True:
        try:
            await run.receive()
        except trio.EndOfChannel:
            return
        lab.delivered += 1
        await trio.sleep(1.5)


async def first_three(run: Run[Any], lab: Lab) -> None:
    async for _item in run:
        lab.delivered += 1
        if lab.delivered == 3:
            return


async def three_receivers(run: Run[Any], lab: Lab) -> None:
    async def receive() -> None:
        async for _item in run:
            lab.delivered += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(receive)


def linear() -> Pipeline[int]:
    return (
        Pipeline.from_iterable(range(10))
        .map(lambda x: x + 1)
        .buffer(2)
        .filter(lambda x: x % 3 != 0)
        .buffer(1)
        .tap(lambda x: None)
        .enumerate()
        .map(lambda pair: pair[1])
    )


def ordered_pool() -> Pipeline[int]:
    return Pipeline.from_iterable(range(9)).buffer(2).map(wait_by_item, concurrency=3).buffer(2)


def unordered_pool() -> Pipeline[int]:
    return Pipeline.from_iterable(range(9)).map(wait_by_item, concurrency=4, ordered=False).buffer(1).map(one_step)


def adaptive_pool() -> Pipeline[int]:
    """Its calls grow from one to three, and shrink again when the later ones are slower."""

    async def slower(item: int) -> int:
        await trio.sleep(1 if item < 14 else 3)
        return item

    return Pipeline.from_iterable(range(30)).buffer(2).map(slower, concurrency=Adaptive(1, 3, target=1.1)).buffer(1)


def pool_that_never_waits() -> Pipeline[int]:
    return Pipeline.from_iterable(range(9)).buffer(1).map(at_once, concurrency=2).scan(lambda a, b: a + b, 0).buffer(1)


def merge_of_three() -> Pipeline[int]:
    share = FairShare({"a": 3, "b": Fraction(1, 2)}, capacity=2)
    return fair_merge(
        {
            "a": Pipeline.from_iterable(range(6)),
            "b": Pipeline.from_iterable(range(4)).map(wait_by_item, concurrency=2),
            "c": Pipeline.from_async_iterable(lambda: numbers(3)),
        },
        share,
    )


def nested_merge() -> Pipeline[int]:
    inner = fair_merge({1: Pipeline.from_iterable(range(4)), 2: Pipeline.from_iterable(range(4)).map(one_step)})
    return merge(inner, Pipeline.from_iterable(range(5)).map(wait_by_item)).map(one_step, concurrency=2)


def concatenation() -> Pipeline[int]:
    return concat(
        Pipeline.from_iterable([1, 2]),
        Pipeline.from_iterable([]),
        Pipeline.from_async_iterable(lambda: numbers(3)),
        Pipeline.from_iterable(range(3)).map(one_step, concurrency=2),
    )


def zipped() -> Pipeline[tuple[int, int]]:
    return zip_pipelines(
        Pipeline.from_iterable(range(5)).map(wait_by_item, concurrency=2), Pipeline.from_producer(produce)
    )


def sorted_merge() -> Pipeline[int]:
    return merge_sorted(
        Pipeline.from_iterable(range(5)).map(wait_by_item, concurrency=2),
        Pipeline.from_producer(produce),
        merge_sorted(Pipeline.from_iterable(range(3)), Pipeline.from_iterable(range(3)).map(one_step)),
        key=lambda item: item,
    )


def latest() -> Pipeline[int]:
    late = Pipeline.from_iterable(range(3)).map(wait_by_item).skip(1)
    inner = zip_latest(Pipeline.from_async_iterable(lambda: numbers(3)), late).map(sum)
    return zip_latest(Pipeline.from_iterable(range(6)).map(one_step), inner, inner.buffer(1)).map(sum)


def preference() -> Pipeline[int]:
    inner = prefer(
        Pipeline.from_async_iterable(lambda: numbers(6)), Pipeline.from_iterable(range(9)).buffer(1), at_least=2
    )
    return prefer(inner.buffer(2), Pipeline.from_iterable(range(5)).map(one_step), inner, at_least=3).map(wait_by_item)


def batches_by_time() -> Pipeline[int]:
    return (
        Pipeline.from_async_iterable(lambda: numbers(7))
        .batch(3, max_delay=1)
        .map(one_step, concurrency=2)
        .unbatch()
        .filter(lambda x: x != 2)
    )


def batches_by_key() -> Pipeline[int]:
    return (
        Pipeline.from_async_iterable(lambda: numbers(9))
        .batch(2, max_delay=3, key=lambda x: x % 4, max_keys=3)
        .map(one_step, concurrency=2)
        .unbatch()
        .batch(max_cost=4, cost=lambda x: x % 4, key=lambda x: x % 3, max_keys=2)
        .unbatch()
    )


def too_many_keys() -> Pipeline[list[int]]:
    keyed = Pipeline.from_iterable(range(9)).tap(one_step).batch(2, key=lambda x: x % 4, max_keys=3, full="fail")
    return keyed.buffer(1)


def expansion() -> Pipeline[int]:
    def twice(item: int) -> Iterator[int]:
        yield item
        yield item

    return Pipeline.from_iterable(range(6)).flat_map(children, concurrency=2).flat_map(twice).buffer(1)


def take_that_ends_early() -> Pipeline[int]:
    return Pipeline.from_async_iterable(lambda: numbers(50)).map(wait_by_item, concurrency=3).take(4).map(one_step)


def producer() -> Pipeline[int]:
    return Pipeline.from_producer(produce).tap(one_step).take_while(lambda x: x < 5)


def channel() -> Pipeline[int]:
    send, receive = trio.open_memory_channel[int](10)
    for number in range(7):
        send.send_nowait(number)
    send.close()
    return Pipeline.from_channel(receive).map(wait_by_item, concurrency=2, ordered=False)


def ticking() -> Pipeline[int]:
    return Pipeline.ticks(2).take(5).map(one_step)


# ---- steps and policies


class Flaky:
    """A service that fails at its first calls for some items."""

    def __init__(self) -> None:
        self._calls: dict[int, int] = {}

    async def __call__(self, item: int) -> int:
        self._calls[item] = self._calls.get(item, 0) + 1
        await trio.sleep(item % 2)
        if self._calls[item] <= item % 3:
            raise OSError(f"call {self._calls[item]} for {item}")
        return item


class Refusing(Flaky):
    """One whose calls end at instants at which no other begins, so that it is sure which of them a pause stops."""

    async def __call__(self, item: int) -> int:
        await trio.sleep(0.3 + item / 16)
        return await super().__call__(item)


async def fails_at_some(item: int) -> int:
    await trio.sleep(item % 2)
    if item % 3 == 1:
        raise ValueError(item)
    return item


def keyed_map() -> Pipeline[int]:
    return Pipeline.from_iterable(range(10)).buffer(3).map(wait_by_item, key=lambda x: x % 4, concurrency=3).buffer(3)


def keyed_map_at_rates() -> Pipeline[int]:
    limits: dict[str, Any] = {"per_key": 2, "key_rate": RateLimit(2, burst=1), "waiting": 2}
    return Pipeline.from_iterable(range(9)).map(wait_by_item, key=lambda x: x % 3, concurrency=3, **limits).buffer(2)


def keyed_map_at_rates_as_completed() -> Pipeline[int]:
    return (
        Pipeline.from_async_iterable(lambda: numbers(8))
        .map(
            fails_at_some,
            key=lambda x: x % 2,
            concurrency=2,
            key_rate=RateLimit(0.5),
            waiting=9,
            ordered=False,
            on_error=OnError.skip(),
        )
        .map(one_step, key=lambda x: x % 2, waiting=1)
    )


def keyed_map_as_completed() -> Pipeline[int]:
    return (
        Pipeline.from_iterable(range(10))
        .map(fails_at_some, key=lambda x: x % 2, concurrency=2, ordered=False, on_error=OnError.skip())
        .buffer(2)
        .map(one_step)
    )


def retry_with_failures() -> Pipeline[int]:
    flaky = Step(Flaky()).timeout(3).retry(Retry(3, OSError, Backoff(0.5, jitter=0.2))).timeout(20)
    return Pipeline.from_iterable(range(7)).map(flaky, concurrency=3).buffer(2)


class Uneven(Flaky):
    """No two calls end at the same instant, so which of them finds a place does not hang on the order of tasks."""

    async def __call__(self, item: int) -> int:
        await trio.sleep(0.25 + item / 16)
        return await super().__call__(item)


def retries_elsewhere() -> Pipeline[int]:
    flaky = Step(Uneven()).retry(Retry(3, OSError, Backoff(2, jitter=0.2))).timeout(60)
    return Pipeline.from_iterable(range(9)).map(flaky, concurrency=2, retries_elsewhere=2).buffer(1)


def retries_elsewhere_as_completed() -> Pipeline[int]:
    """With every way to have no place: a timeout in the wait, a retry around it, a divert; and by key."""
    inner = Step(Flaky()).retry(Retry(3, OSError, Backoff(2, jitter=0.2))).timeout(2.5)
    step = inner.retry(Retry(2, trio.TooSlowError, Backoff(1, jitter=0)))
    how: dict[str, Any] = {"ordered": False, "retries_elsewhere": 2, "on_error": OnError.divert(one_step)}
    return Pipeline.from_iterable(range(8)).map(step, **how).map(step, key=lambda x: x % 2, waiting=1, **how).buffer(1)


def rate_limited() -> Pipeline[int]:
    limiter = RateLimiter(RateLimit(2, burst=2))
    one, other = Step(one_step).rate_limit(limiter), Step(at_once).rate_limit(limiter, cost=lambda x: 1 + x % 2)
    return Pipeline.from_iterable(range(7)).map(one, concurrency=2).buffer(1).map(other, concurrency=3, ordered=False)


def two_limits() -> Pipeline[int]:
    both, each = RateLimiter(RateLimit(4, burst=3)), RateLimit(2, burst=4)
    dear = Step(one_step).rate_limit(both, each, cost={each: lambda x: 1 + x % 2})
    numbers = Pipeline.from_iterable(range(5))
    return merge(numbers.map(dear, concurrency=3), numbers.map(Step(at_once).rate_limit(both), concurrency=2))


def tenants_behind_shared_limits() -> Pipeline[int]:
    """Three tenants whose calls share tokens and places by weight, at one instant; some calls fail and are made again,
    and what they have cost is known afterwards. Then all of them share places with what is behind."""
    share = FairShare({0: 3})
    tokens, few = RateLimiter(RateLimit(4, burst=3), share), PlaceLimiter(2, share)
    paid = {"key": lambda x: x % 3, "cost": lambda x: 1 + x % 2, "settle": lambda x: x % 4}
    calls = Step(Flaky()).rate_limit(tokens, **paid).places(few, key=lambda x: x % 3)
    calls = calls.timeout(9).retry(Retry(3, OSError, Backoff(0.5, jitter=0)))
    behind = Step(one_step).places(few.group(0), key=lambda x: x % 2)
    lines = {
        name: Pipeline.from_iterable(range(first, 9, 3)).map(calls, concurrency=2) for first, name in enumerate("abc")
    }
    return fair_merge(lines).buffer(1).map(behind, concurrency=2, ordered=False)


def rolling_limits() -> Pipeline[int]:
    """At a shared limiter, beside a rate of its own, for each key, and where the clock decides."""
    window = RateLimiter(RollingLimit(3, per=2))
    step = Step(one_step).rate_limit(window, RateLimit(2), cost={window: lambda x: 1 + x % 2})
    return (
        Pipeline.from_iterable(range(6))
        .throttle(RollingLimit(2, per=0.5))
        .map(step, concurrency=2)
        .map(wait_by_item, key=lambda x: x % 2, concurrency=2, key_rate=RollingLimit(1, per=1))
    )


def limits_for_each_key() -> Pipeline[int]:
    """Beside a shared limit, with less room than there are keys, settled and paused."""
    shared = RateLimiter(RateLimit(2, burst=2))
    policy = Retry(3, OSError, Backoff(0), retry_after=lambda error: 2, pauses_limit=True)
    keyed = Step(Refusing()).rate_limit(RateLimit(1), per_key=lambda x: x % 3, max_keys=2, settle=lambda x: x % 2 * 2)
    return (
        Pipeline.from_iterable(range(6))
        .map(keyed.rate_limit(shared).retry(policy).timeout(30), concurrency=3, ordered=False)
        .map(Step(one_step).rate_limit(RollingLimit(1, per=1), per_key=lambda x: x % 2), concurrency=2)
    )


def pausing_retries() -> Pipeline[int]:
    """A call that fails stops those of the other stage as well."""
    shared = RateLimiter(RateLimit(2, burst=2))
    policy = Retry(3, OSError, Backoff(0), retry_after=lambda error: 3, pauses_limit=True)
    flaky, other = Step(Refusing()).rate_limit(shared, RollingLimit(3, per=1)).retry(policy), Step(at_once)
    return (
        Pipeline.from_iterable(range(5))
        .map(flaky.timeout(30), concurrency=2)
        .map(other.rate_limit(shared), concurrency=2, ordered=False)
    )


def breaker() -> Pipeline[int | Failure[int]]:
    guarded = Step(fails_at_some).circuit_breaker(CircuitBreaker(2, 2.0, on=ValueError))
    return Pipeline.from_iterable(range(9)).map(guarded, concurrency=2, on_error=OnError.emit()).buffer(2)


def fallback() -> Pipeline[int | Failure[int]]:
    """The first step fails at some items or is too slow, the other one at others."""
    first = Step(fails_at_some).timeout(2.5)
    step = first.fallback(Step(Flaky()).timeout(3).retry(Retry(2, OSError, Backoff(0.5, jitter=0)))).timeout(20)
    return Pipeline.from_iterable(range(9)).map(step, concurrency=3, on_error=OnError.emit()).buffer(2)


def hedge() -> Pipeline[int | Failure[int]]:
    """Calls that are slow, or fail at some items; for two thirds of them a second one begins."""
    step = Step(fails_at_some).rate_limit(RateLimit(4, burst=3)).timeout(4).hedge(0.75, 3).timeout(20)
    return Pipeline.from_iterable(range(7)).map(step, concurrency=2, on_error=OnError.emit()).buffer(1)


def coalesce() -> Pipeline[int | Failure[int]]:
    """Equal calls, made in the task of the first caller; some fail."""
    step = Step(fails_at_some).timeout(4).coalesce(lambda x: x % 4).retry(Retry(2, ValueError, Backoff(0.25, jitter=0)))
    return Pipeline.from_iterable(range(9)).map(step, concurrency=3, on_error=OnError.emit()).buffer(1)


def coalesce_in_tasks() -> Pipeline[int | Failure[int]]:
    """Equal calls, made in tasks of their own, whose callers leave at different times."""
    step = Step(wait_by_item).coalesce(lambda x: x % 3).timeout(1.75)
    return Pipeline.from_iterable(range(9)).map(step, concurrency=3, on_error=OnError.emit()).buffer(1)


def breaker_that_waits() -> Pipeline[int]:
    guarded = Step(Flaky()).circuit_breaker(CircuitBreaker(1, 2.0, wait=True)).retry(Retry(5, OSError, Backoff(0)))
    return Pipeline.from_iterable(range(6)).map(guarded, concurrency=3)


def skip() -> Pipeline[int]:
    return (
        Pipeline.from_iterable(range(12))
        .map(lambda x: 6 // (x - 5), on_error=OnError.skip())
        .map(fails_at_some, concurrency=3, on_error=OnError.skip(max_failures=9))
        .buffer(1)
    )


def divert() -> Pipeline[int]:
    async def bury(failure: Failure[int]) -> None:
        await trio.sleep(1.5)

    return (
        Pipeline.from_iterable(range(8))
        .map(fails_at_some, concurrency=3, on_error=OnError.divert(Step(bury).timeout(2)))
        .flat_map(children, concurrency=2, on_error=OnError.divert(bury))
    )


def in_threads() -> Pipeline[int]:
    return Pipeline.from_iterable(range(5)).map(Step(abs).on(threads(2)).timeout(50), concurrency=3).map(one_step)


class Frail(Executor):
    """An executor that is broken from its fourth call on, which dies in it."""

    def __init__(self) -> None:
        self.calls = 0

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.calls += 1
        if self.calls > 4:
            raise BrokenExecutor
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args)) if self.calls < 4 else future.set_exception(BrokenExecutor())
        except BaseException as error:
            future.set_exception(error)
        return future


def on_runners() -> Pipeline[int]:
    limited = Step(abs).on(in_place).rate_limit(RateLimit(2)).timeout(5).rate_limit(RateLimit(1, burst=2)).timeout(50)
    remade = Step(abs).on(executor(Frail, limit=2)).timeout(5).retry(Retry(3, WorkerDied, Backoff(0.5)))
    return Pipeline.from_iterable(range(9)).map(limited, concurrency=3).map(remade, concurrency=3)


# ---- branches


def broadcast() -> Pipeline[int]:
    return (
        Pipeline.from_async_iterable(lambda: numbers(8))
        .broadcast(
            {
                "slow": lambda items: items.buffer(1).map(wait_by_item, concurrency=2).buffer(1),
                "raw": lambda items: items,
                "few": lambda items: items.tap(one_step).take(3),
            }
        )
        .map(one_step)
    )


def partition() -> Pipeline[int]:
    return (
        Pipeline.from_iterable(range(12))
        .map(at_once, concurrency=2)
        .partition(
            lambda x: "abc"[x % 3],
            {
                "a": lambda items: items.buffer(1).map(wait_by_item, concurrency=2),
                "b": lambda items: items.buffer(1).map(one_step).buffer(1),
                "c": lambda items: items.filter(lambda x: x != 5),
            },
        )
        .buffer(2)
    )


def zipped_branches() -> Pipeline[Any]:
    return (
        Pipeline.from_iterable(range(8))
        .map(wait_by_item)
        .broadcast(
            {
                "plain": lambda line: line,
                "inner": lambda line: line.broadcast(
                    {"pool": lambda p: p.map(wait_by_item, concurrency=3), "one": lambda p: p.buffer(1).map(one_step)},
                    join="zip",
                ),
                "calls": lambda line: line.map(one_step).tap(lambda x: None),
            },
            join="zip",
        )
    )


def only_the_latest() -> Pipeline[int]:
    async def slower_at_odd(item: int) -> int:
        await trio.sleep(0.2 + item % 2)
        return item

    return (
        Pipeline.from_async_iterable(lambda: numbers(9))
        .map(slower_at_odd, latest=True)
        .flat_map(children, latest=True)
        .buffer(1)
    )


def balanced() -> Pipeline[int]:
    async def longer(item: int) -> int:
        await trio.sleep(item % 3 + 0.3)  # never until the instant at which an item comes
        return item

    return Pipeline.from_async_iterable(lambda: numbers(12)).balance(
        {
            "slow": lambda line: line.buffer(1).map(longer),
            "few": lambda line: line.buffer(2).take(2),
            "pool": lambda line: line.buffer(2).map(longer, concurrency=2).buffer(1),
        }
    )


def branches_in_branches() -> Pipeline[int]:
    return (
        Pipeline.from_iterable(range(8))
        .buffer(2)
        .broadcast(
            {
                "late": lambda items: concat(Pipeline.from_iterable([-1]).map(one_step), items.buffer(1).map(one_step)),
                "split": lambda items: items.partition(
                    lambda x: "xy"[x % 2],
                    {"x": lambda odd: odd.take(2), "y": lambda even: even.buffer(1).map(one_step)},
                ),
            }
        )
    )


# ---- failures on their way


def failures_that_pass_and_are_recovered() -> Pipeline[int]:
    def unless_three(item: int) -> int:
        if item % 3 == 0:
            raise OSError(item)
        return item

    async def item_of(failure: Failure[int]) -> int:
        await trio.sleep(1)
        return failure.item

    return (
        Pipeline.from_iterable(range(9))
        .map(unless_three, on_error=OnError.emit())
        .on_ok(wait_by_item, concurrency=2)
        .on_ok(unless_three, on_error=OnError.emit())
        .on_ok(wait_by_item, concurrency=3, key=lambda item: item % 2, ordered=False)
        .recover(item_of, concurrency=2)
        .buffer(2)
    )


def nested_in_place_of_nothing() -> Pipeline[int]:
    def other() -> Pipeline[int]:
        return Pipeline.from_async_iterable(numbers).map(wait_by_item, concurrency=2).buffer(1)

    odd = Pipeline.from_iterable(range(4)).filter(lambda x: x > 9)
    return merge(odd.or_else(other), Pipeline.from_iterable([7]).or_else(other)).map(wait_by_item, concurrency=2)


def merge_that_goes_on() -> Pipeline[Any]:
    async def breaks(item: int) -> int:
        await trio.sleep(0.3)
        if item == 3:
            raise OSError(item)
        return item

    async def slowly(item: int) -> int:
        await trio.sleep(0.7)
        return item

    inputs = {
        "breaks": Pipeline.from_async_iterable(numbers).map(breaks),
        "at once": Pipeline.from_iterable(range(4)).map(lambda item: 1 // item),
        "fine": Pipeline.from_iterable(range(5)).map(slowly),
    }
    share = FairShare({"fine": 2}, capacity=2, cost=lambda item: 1 + item % 2)
    skipping = merge(Pipeline.from_iterable(range(3)).map(breaks), fair_merge(inputs), on_error=OnError.skip())
    return merge(fair_merge(inputs, share, on_error=OnError.emit()), skipping).buffer(1)


def ends_that_are_told() -> Pipeline[Any]:
    async def told(outcome: str) -> None:
        await trio.lowlevel.checkpoint()

    def refuses(outcome: str) -> None:
        raise OSError(outcome)

    return (
        Pipeline.from_async_iterable(numbers)
        .on_end(told)
        .map(wait_by_item, concurrency=2)
        .on_end(lambda outcome: None)
        .flat_map(lambda item: Pipeline.from_iterable(range(item % 3)).on_end(told), concurrency=2)
        .on_end(refuses)
        .buffer(1)
    )


# ---- shares of one stream


def flood(count: int = 12) -> list[int]:
    """Mostly of key 0: five of six items."""
    return [number * 3 + (number % 6 == 5) for number in range(count)]


def by_three(item: int) -> int:
    return item % 3


def fair_by_that_blocks() -> Pipeline[int]:
    share = FairShare({0: 1, 1: Fraction(3, 2)}, capacity=2, cost=lambda x: 1 + x % 2)
    return Pipeline.from_iterable(flood()).fair_by(by_three, share, max_keys=2).map(wait_by_item, concurrency=2)


def fair_by_that_drops() -> Pipeline[int]:
    return (
        Pipeline.from_async_iterable(lambda: numbers(9))
        .map(wait_by_item, concurrency=3)
        .fair_by(lambda x: x // 4, FairShare(capacity=1), max_keys=2, overflow="drop_newest")
    )


def fair_by_that_diverts() -> Pipeline[int]:
    async def tell(failure: Failure[int]) -> None:
        await trio.sleep(1.5)

    return (
        Pipeline.from_iterable(flood())
        .filter(lambda x: x != 3)
        .fair_by(by_three, FairShare(capacity=1), max_keys=2, overflow=OnError.divert(Step(tell).timeout(2)))
        .map(one_step)
    )


def smaller(item: int) -> list[int]:
    return [item // 2, item // 3] if item > 1 else []


def loop_of_calls() -> Pipeline[int]:
    return Pipeline.from_async_iterable(lambda: numbers(4)).loop(
        lambda line: line.map(wait_by_item, concurrency=2), again=smaller, room=9
    )


def loop_that_diverts() -> Pipeline[int]:
    async def tell(failure: Failure[int]) -> None:
        await trio.sleep(1.5)

    return Pipeline.from_iterable(range(7)).loop(
        lambda line: line.map(wait_by_item).batch(2, max_delay=1).unbatch(),
        again=smaller,
        room=2,
        full=OnError.divert(Step(tell).timeout(2)),
    )


def loop_in_a_loop() -> Pipeline[int]:
    def body(line: Pipeline[int]) -> Pipeline[int]:
        return line.filter(lambda x: x != 3).broadcast(
            {"a": lambda line: line.buffer(1).map(wait_by_item), "b": lambda line: line.take(2)}
        )

    def outer(line: Pipeline[int]) -> Pipeline[int]:
        return line.loop(body, again=smaller, room=50, name="inner").map(one_step)

    return Pipeline.from_iterable(range(5)).loop(outer, again=lambda x: [x - 3] if x > 2 else [], room=50)


def fair_by_behind_a_merge() -> Pipeline[int]:
    async def tell(failure: Failure[int]) -> None:
        await trio.lowlevel.checkpoint()

    fast, slow = Pipeline.from_iterable(flood(8)), Pipeline.from_async_iterable(lambda: numbers(4))
    inputs = {
        "diverted": merge(fast, slow).fair_by(by_three, max_keys=1, overflow=OnError.divert(tell)),
        "blocked": slow.flat_map(children, concurrency=2).fair_by(by_three, FairShare(capacity=1), max_keys=2),
    }
    return fair_merge(inputs).fair_by(by_three, FairShare({1: 2}, capacity=1), max_keys=3).buffer(1)


# ---- sources that restart


def restarting_source() -> Pipeline[int]:
    made = 0

    async def feed() -> AsyncIterator[int]:
        nonlocal made
        made += 1
        for number in range(3):
            await trio.sleep(0.5)
            yield 10 * made + number
        if made < 4:
            raise OSError(f"feed {made} broke")

    retry = Retry(3, (OSError, InjectedError), Backoff(1, jitter=0.5))
    return Pipeline.restarting(feed, retry, reset_after=1.5).buffer(2).map(wait_by_item, concurrency=2)


def restarting_iterable() -> Pipeline[int]:
    made = 0

    def feed() -> Iterator[int]:
        nonlocal made
        made += 1
        yield made
        yield made
        if made < 3:
            raise OSError(f"feed {made} broke")

    return Pipeline.restarting(feed, Retry(9, OSError, Backoff(0)), reset_after=math.inf).map(one_step)


# ---- sources in a thread


def blocking_iterable() -> Pipeline[int]:
    return Pipeline.from_iterable(lambda: iter(range(6)), on=threads(1)).map(wait_by_item, concurrency=2).batch(2)


# ---- sources that use a resource


@asynccontextmanager
async def connected(closes_in: float = 0.25) -> AsyncIterator[list[int]]:
    """Hold a nursery open, and take a while to open and to close."""
    await trio.sleep(0.5)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep_forever)
        try:
            yield [*range(7)]
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await trio.sleep(closes_in)


async def rows(resource: list[int]) -> AsyncIterator[int]:
    for number in resource:
        await trio.sleep(0.5)
        yield number


def using_a_resource() -> Pipeline[int]:
    return Pipeline.using(connected, rows).buffer(2).map(wait_by_item, concurrency=3)


async def wait_with(resource: list[int], item: int) -> int:
    assert item in resource
    return await wait_by_item(item)  # type: ignore[no-any-return]


def steps_with_resources() -> Pipeline[int]:
    by_run = Step(wait_with).using(connected).timeout(9).retry(Retry(2, InjectedError, Backoff(0.5, jitter=0)))
    by_worker = Step(wait_with).using(partial(connected, 0.5), per="worker")
    return Pipeline.from_iterable(range(6)).map(by_run, concurrency=2).buffer(1).map(by_worker, concurrency=3)


def pipelines_of_resources() -> Pipeline[int]:
    def inside(_item: int) -> Pipeline[int]:
        return Pipeline.using(
            partial(connected, 0), lambda resource: Pipeline.from_iterable(resource).map(wait_by_item)
        )

    return concat(
        Pipeline.using(connected, rows).take(3), Pipeline.from_iterable(range(2)).flat_map(inside, concurrency=2)
    )


# ---- windows


def windows_by_time() -> Pipeline[int]:
    return (
        Pipeline.from_async_iterable(lambda: numbers(7))
        .window(3, period=1.25)
        .map(one_step, concurrency=2)
        .unbatch()
        .buffer(1)
    )


def sliding_windows() -> Pipeline[tuple[int, ...]]:
    return (
        Pipeline.from_iterable(range(14))
        .map(wait_by_item, concurrency=3)
        .sliding(4, 2)
        .buffer(2)
        .map(lambda window: window[-1])
        .sliding(2, 3)
        .map(one_step)
    )


def distinct_items() -> Pipeline[int]:
    return (
        Pipeline.from_producer(produce)
        .flat_map(children, concurrency=2)
        .distinct(remember=2)
        .pairwise()
        .distinct(lambda pair: pair[0], remember=1)
        .map(one_step)
        .unbatch()
    )


class Pairs:
    """Give pairs of items that follow each other, and one that is left over after a while, or at the end."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self.first: list[int] = []
        self.at = 0.0

    def push(self, item: int) -> list[list[int]]:
        self.first.append(item)
        self.at = trio.current_time() + self.patience
        return self.flush() if len(self.first) == 2 else []

    def flush(self) -> list[list[int]]:
        pair, self.first = self.first, []
        return [pair] if pair else []

    def held(self) -> list[int]:
        return self.first

    def due(self) -> float | None:
        return self.at if self.first else None

    def tick(self, now: float) -> list[list[int]]:
        return self.flush()


def stateful_by_key() -> Pipeline[int]:
    return (
        Pipeline.from_async_iterable(lambda: numbers(9))
        .stateful(partial(Pairs, 0.75), holds=1, key=lambda x: x % 3, max_keys=2)
        .unbatch()
        .stateful(lambda: Pairs(100), holds=1, key=lambda x: x % 2, max_keys=2, full="fail")
        .unbatch()
    )


def stateful() -> Pipeline[int]:
    return (
        Pipeline.from_async_iterable(numbers)
        .stateful(partial(Pairs, 0.75), holds=1)
        .unbatch()
        .map(wait_by_item, concurrency=2)
        .stateful(lambda: Pairs(100), holds=1)
        .buffer(1)
        .unbatch()
    )


async def doubled(items: AsyncIterator[int]) -> AsyncIterator[int]:
    """Give each item twice, or not at all, and a last one; with a task beside it."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0.25)
        async for item in items:
            if item % 3:
                await trio.sleep(0.5)
                yield item
                yield item
        yield -1


async def first_two(items: AsyncIterator[int]) -> AsyncIterator[int]:
    number = 0
    async for item in items:
        yield item
        number += 1
        if number == 2:
            return


def through() -> Pipeline[int]:
    return Pipeline.from_async_iterable(numbers).buffer(2).through(doubled).buffer(1).map(one_step, concurrency=2)


def through_that_ends_early() -> Pipeline[int]:
    return merge(Pipeline.from_async_iterable(numbers).through(first_two), Pipeline.ticks(1).take(3)).map(one_step)


# ---- pipelines within pipelines


def nested_pipelines() -> Pipeline[int]:
    def pages(item: int) -> Pipeline[int]:
        return Pipeline.from_async_iterable(lambda: numbers(item % 4)).map(wait_by_item, concurrency=2).buffer(2)

    return Pipeline.from_iterable(range(7)).buffer(2).flat_map(pages, concurrency=3).buffer(2).map(one_step)


def nested_twice() -> Pipeline[int]:
    def inner(item: int) -> Pipeline[int]:
        return Pipeline.from_iterable(range(item)).map(one_step)

    async def outer(item: int) -> Pipeline[int]:
        return merge(Pipeline.from_iterable([item]), Pipeline.ticks(1).take(2)).flat_map(inner, concurrency=2)

    return Pipeline.from_iterable(range(3)).flat_map(outer).batch(3).unbatch()


def nested_that_ends_early() -> Pipeline[int]:
    def endless(item: int) -> Pipeline[int]:
        return Pipeline.ticks(0.5).map(wait_by_item, concurrency=2, on_error=OnError.skip()).take(5 * item)

    return Pipeline.from_iterable([1, 2, 3]).flat_map(endless, concurrency=2).take(8)


# ---- overload and time


def dropping() -> Pipeline[int]:
    return (
        Pipeline.from_iterable(range(8))
        .buffer(2, overflow="drop_oldest")
        .map(wait_by_item, concurrency=2)
        .buffer(1, overflow="drop_newest")
        .map(one_step)
        .buffer(1)
    )


def overflowing() -> Pipeline[int]:
    lines = [Pipeline.from_async_iterable(lambda: numbers(4)).buffer(1, overflow="drop_oldest") for _ in range(2)]
    return (
        merge(*lines)
        .map(one_step, concurrency=2, ordered=False)
        .batch(2)
        .unbatch()
        .buffer(9, overflow="fail")
        .map(one_step)
    )


def dropping_in_pools() -> Pipeline[int]:
    def inner(item: int) -> Pipeline[int]:
        return Pipeline.from_iterable(range(item % 4)).map(at_once).buffer(1, overflow="drop_newest").map(one_step)

    return (
        Pipeline.from_iterable(range(9))
        .map(at_once, concurrency=3)
        .buffer(2, overflow="drop_oldest")
        .flat_map(inner, concurrency=2)
        .buffer(1, overflow="drop_newest")
        .map(wait_by_item, key=lambda x: x % 2, concurrency=2)
    )


def throttled() -> Pipeline[int]:
    return (
        Pipeline.from_iterable(range(7))
        .throttle(RateLimit(2, burst=3), cost=lambda x: 1 + x % 2)
        .map(lambda x: x)
        .buffer(1)
        .throttle(RateLimit(3))
    )


def clocks_of_iterables() -> Pipeline[int]:
    """Operations of time in the stages of their sources."""
    batches = Pipeline.from_iterable(range(7)).filter(lambda x: x != 2).batch(3, max_delay=1).unbatch().buffer(1)
    return merge(batches, Pipeline.from_iterable(range(6)).throttle(RateLimit(2, burst=4)).map(lambda x: x).take(5))


def debounced() -> Pipeline[int]:
    return Pipeline.from_producer(produce).debounce(0.5).filter(lambda x: x != 3).buffer(1).map(wait_by_item)


def sampled() -> Pipeline[int]:
    lines = {"a": Pipeline.from_async_iterable(lambda: numbers(5)).sample(1.25), "b": Pipeline.from_iterable(range(9))}
    return fair_merge(lines, FairShare({"a": 2}, capacity=1)).sample(0.75).buffer(1)


def delayed() -> Pipeline[int]:
    return Pipeline.from_async_iterable(numbers).delay(1.25, max_items=2).take(5).map(one_step).buffer(1)


def timed() -> Pipeline[int]:
    return (
        Pipeline.from_async_iterable(numbers)
        .idle_timeout(0.75)
        .map(lambda x: x)
        .timeout(100, first=2)
        .map(wait_by_item, concurrency=2)
    )


def stopped_by_events() -> Pipeline[int]:
    """Streams that end at a moment that no item decides, within each other."""

    async def some_time() -> None:
        await trio.sleep(3.25)

    async def is_three(item: int) -> bool:
        await trio.sleep(0.3125)
        return item == 3

    lines = [
        Pipeline.from_async_iterable(lambda: numbers(9)).stop_when(some_time).map(one_step),
        Pipeline.from_async_iterable(lambda: numbers(9)).take_for(1.75).buffer(1),
        Pipeline.from_async_iterable(lambda: numbers(9)).take_until(is_three).map(lambda x: x),
    ]
    return merge(*lines).stop_when(trio.sleep_forever).take_until(lambda x: x == 99)


def handed_over() -> Pipeline[int]:
    """Links that hold nothing, wherever a link may be."""
    lines = [
        Pipeline.from_async_iterable(numbers).buffer(0).map(wait_by_item, concurrency=2).buffer(0),
        Pipeline.from_iterable(range(7)).buffer(0).map(lambda x: x).buffer(0).delay(0.25).buffer(0).map(one_step),
    ]
    branches = {
        "a": lambda line: line.buffer(0).map(one_step),
        "b": lambda line: line.buffer(0).batch(2).buffer(0).unbatch(),
    }
    return merge(*lines).buffer(0).map(one_step).buffer(0).broadcast(branches).buffer(0).map(wait_by_item)


def dropped_unless_waited_for() -> Pipeline[int]:
    line = Pipeline.from_async_iterable(lambda: numbers(8)).buffer(0, overflow="drop_newest")
    return line.map(wait_by_item, concurrency=2).buffer(0, overflow="drop_newest").map(one_step).buffer(0)


def conflated() -> Pipeline[int]:
    def branch(line: Pipeline[int]) -> Pipeline[int]:
        return line.buffer(1, overflow=OnFull.merge(max)).map(wait_by_item)

    line = (
        Pipeline.from_async_iterable(numbers)
        .map(at_once, concurrency=2)
        .buffer(2, overflow=OnFull.merge(lambda one, other: one + other))
    )
    return line.map(wait_by_item).broadcast({"a": branch, "b": lambda line: line.buffer(2)}).buffer(1)


def held_by_cost() -> Pipeline[int]:
    def cost(item: int) -> float:
        return item % 3 / 2

    line = Pipeline.from_async_iterable(numbers).map(at_once, concurrency=2).buffer(max_cost=2, cost=cost)
    dropping = line.map(wait_by_item).buffer(5, max_cost=1, cost=cost, overflow="drop_oldest").map(one_step)
    return dropping.broadcast({"a": lambda line: line.buffer(max_cost=1, cost=cost), "b": lambda line: line})


def batches_of_what_is_there() -> Pipeline[int]:
    lines = [Pipeline.from_async_iterable(numbers), Pipeline.from_iterable(range(9)).map(wait_by_item, concurrency=3)]
    batches = merge(*lines).batch(3, max_delay=0).buffer(1)
    return batches.unbatch().map(one_step).batch(max_delay=0).map(sum).debounce(0.5, max_wait=0.75)


def kept_alive() -> Pipeline[int]:
    return (
        Pipeline.from_async_iterable(numbers)
        .keep_alive(0.3125, lambda: -1)
        .buffer(1)
        .map(wait_by_item)
        .keep_alive(0.4375, lambda: -2)
        .filter(lambda x: x > -2)
    )


def nested_failures() -> Pipeline[int | Failure[int]]:
    def inner(item: int) -> Pipeline[int]:
        return Pipeline.from_iterable(range(item, item + 3)).map(fails_at_some, concurrency=3).buffer(1)

    return Pipeline.from_iterable([1, 2, 3, 5]).flat_map(inner, concurrency=2, on_error=OnError.emit()).buffer(2)


SCENARIOS = [
    Scenario(linear, name="linear"),
    Scenario(ordered_pool, name="ordered_pool"),
    Scenario(unordered_pool, name="unordered_pool"),
    Scenario(pool_that_never_waits, name="pool_that_never_waits"),
    Scenario(merge_of_three, name="merge_of_three"),
    Scenario(nested_merge, name="nested_merge"),
    Scenario(concatenation, name="concatenation"),
    Scenario(zipped, name="zipped"),
    Scenario(batches_by_time, name="batches_by_time"),
    Scenario(batches_by_key, name="batches_by_key"),
    Scenario(batches_by_key, first_three, name="batches_by_key_with_a_consumer_that_leaves"),
    Scenario(expansion, name="expansion"),
    Scenario(take_that_ends_early, name="take_that_ends_early"),
    Scenario(producer, name="producer"),
    Scenario(channel, name="channel"),
    Scenario(ticking, name="ticking"),
    Scenario(keyed_map, name="keyed_map"),
    Scenario(keyed_map_as_completed, name="keyed_map_as_completed"),
    Scenario(keyed_map_at_rates, name="keyed_map_at_rates"),
    Scenario(keyed_map_at_rates, first_three, name="keyed_map_at_rates_with_a_consumer_that_leaves"),
    Scenario(keyed_map_at_rates_as_completed, name="keyed_map_at_rates_as_completed"),
    Scenario(retry_with_failures, name="retry_with_failures"),
    Scenario(retries_elsewhere, name="retries_elsewhere"),
    Scenario(retries_elsewhere_as_completed, name="retries_elsewhere_as_completed"),
    Scenario(rate_limited, name="rate_limited"),
    Scenario(two_limits, name="two_limits"),
    Scenario(tenants_behind_shared_limits, name="tenants_behind_shared_limits"),
    Scenario(tenants_behind_shared_limits, first_three, name="shared_limits_with_a_consumer_that_leaves"),
    Scenario(breaker, name="breaker"),
    Scenario(breaker_that_waits, name="breaker_that_waits"),
    Scenario(fallback, name="fallback"),
    Scenario(hedge, name="hedge"),
    Scenario(coalesce, name="coalesce"),
    Scenario(coalesce_in_tasks, name="coalesce_in_tasks"),
    Scenario(failures_that_pass_and_are_recovered, name="failures_that_pass_and_are_recovered"),
    Scenario(nested_in_place_of_nothing, name="nested_in_place_of_nothing"),
    Scenario(merge_that_goes_on, name="merge_that_goes_on"),
    Scenario(merge_that_goes_on, first_three, name="merge_that_goes_on_with_a_consumer_that_leaves"),
    Scenario(ends_that_are_told, name="nested_ends_that_are_told"),
    Scenario(ends_that_are_told, first_three, name="nested_ends_that_are_told_to_a_consumer_that_leaves"),
    Scenario(skip, name="skip"),
    Scenario(divert, name="divert"),
    Scenario(in_threads, name="in_threads"),
    Scenario(on_runners, name="on_runners"),
    Scenario(latest, name="latest"),
    Scenario(latest, one_by_one, name="latest_with_a_slow_consumer"),
    Scenario(latest, first_three, name="latest_with_a_consumer_that_leaves"),
    Scenario(preference, name="preference"),
    Scenario(preference, first_three, name="preference_with_a_consumer_that_leaves"),
    Scenario(sorted_merge, name="sorted_merge"),
    Scenario(sorted_merge, one_by_one, name="sorted_merge_with_a_slow_consumer"),
    Scenario(sorted_merge, first_three, name="sorted_merge_with_a_consumer_that_leaves"),
    Scenario(broadcast, name="broadcast"),
    Scenario(partition, name="partition"),
    Scenario(zipped_branches, name="zipped_branches"),
    Scenario(zipped_branches, one_by_one, name="zipped_branches_with_a_slow_consumer"),
    Scenario(only_the_latest, name="only_the_latest"),
    Scenario(only_the_latest, one_by_one, name="only_the_latest_with_a_slow_consumer"),
    Scenario(only_the_latest, first_three, name="only_the_latest_with_a_consumer_that_leaves"),
    Scenario(balanced, name="balanced"),
    Scenario(balanced, first_three, name="balanced_with_a_consumer_that_leaves"),
    Scenario(branches_in_branches, name="branches_in_branches"),
    Scenario(partition, one_by_one, name="partition_with_a_slow_consumer"),
    Scenario(broadcast, first_three, name="broadcast_with_a_consumer_that_leaves"),
    Scenario(fair_by_that_blocks, name="fair_by_that_blocks"),
    Scenario(loop_of_calls, name="loop_of_calls"),
    Scenario(loop_that_diverts, name="loop_that_diverts"),
    Scenario(loop_that_diverts, first_three, name="loop_with_a_consumer_that_leaves"),
    Scenario(loop_in_a_loop, name="loop_in_a_loop"),
    Scenario(loop_in_a_loop, one_by_one, name="loop_with_a_slow_consumer"),
    Scenario(fair_by_that_drops, name="fair_by_that_drops"),
    Scenario(fair_by_that_diverts, name="fair_by_that_diverts"),
    Scenario(fair_by_behind_a_merge, name="fair_by_behind_a_merge"),
    Scenario(fair_by_that_blocks, one_by_one, name="fair_by_with_a_slow_consumer"),
    Scenario(fair_by_that_drops, three_receivers, name="fair_by_with_three_receivers"),
    Scenario(fair_by_behind_a_merge, first_three, name="fair_by_with_a_consumer_that_leaves"),
    Scenario(restarting_source, name="restarting_source"),
    Scenario(restarting_iterable, name="restarting_iterable"),
    Scenario(blocking_iterable, name="blocking_iterable"),
    Scenario(using_a_resource, name="using_a_resource"),
    Scenario(pipelines_of_resources, name="pipelines_of_resources"),
    Scenario(steps_with_resources, name="steps_with_resources"),
    Scenario(nested_pipelines, name="nested_pipelines"),
    Scenario(nested_twice, name="nested_twice"),
    Scenario(nested_that_ends_early, name="nested_that_ends_early"),
    Scenario(nested_failures, name="nested_failures"),
    Scenario(nested_pipelines, first_three, name="nested_pipelines_with_a_consumer_that_leaves"),
    Scenario(windows_by_time, name="windows_by_time"),
    Scenario(sliding_windows, name="sliding_windows"),
    Scenario(distinct_items, name="distinct_items"),
    Scenario(stateful, name="stateful"),
    Scenario(stateful_by_key, name="stateful_by_key"),
    Scenario(stateful_by_key, first_three, name="stateful_by_key_with_a_consumer_that_leaves"),
    Scenario(stateful, one_by_one, name="stateful_with_a_slow_consumer"),
    Scenario(through, name="through"),
    Scenario(through, first_three, name="through_with_a_consumer_that_leaves"),
    Scenario(through_that_ends_early, name="through_that_ends_early"),
    Scenario(dropping, name="dropping"),
    Scenario(dropping_in_pools, name="dropping_in_pools"),
    Scenario(overflowing, name="overflowing"),
    Scenario(throttled, name="throttled"),
    Scenario(rolling_limits, name="rolling_limits"),
    Scenario(pausing_retries, name="pausing_retries"),
    Scenario(limits_for_each_key, name="limits_for_each_key"),
    Scenario(clocks_of_iterables, name="clocks_of_iterables"),
    Scenario(clocks_of_iterables, first_three, name="clocks_of_iterables_with_a_consumer_that_leaves"),
    Scenario(debounced, name="debounced"),
    Scenario(sampled, name="sampled"),
    Scenario(delayed, name="delayed"),
    Scenario(timed, name="timed"),
    Scenario(batches_of_what_is_there, name="batches_of_what_is_there"),
    Scenario(batches_of_what_is_there, one_by_one, name="batches_of_what_is_there_with_a_slow_consumer"),
    Scenario(handed_over, name="handed_over"),
    Scenario(handed_over, one_by_one, name="handed_over_to_a_slow_consumer"),
    Scenario(handed_over, first_three, name="handed_over_to_a_consumer_that_leaves"),
    Scenario(handed_over, three_receivers, name="handed_over_to_three_receivers"),
    Scenario(dropped_unless_waited_for, name="dropped_unless_waited_for"),
    Scenario(dropped_unless_waited_for, one_by_one, name="dropped_unless_waited_for_by_a_slow_consumer"),
    Scenario(conflated, name="conflated"),
    Scenario(conflated, one_by_one, name="conflated_for_a_slow_consumer"),
    Scenario(held_by_cost, name="held_by_cost"),
    Scenario(held_by_cost, one_by_one, name="held_by_cost_for_a_slow_consumer"),
    Scenario(stopped_by_events, name="stopped_by_events"),
    Scenario(stopped_by_events, one_by_one, name="stopped_by_events_with_a_slow_consumer"),
    Scenario(kept_alive, name="kept_alive"),
    Scenario(kept_alive, first_three, name="kept_alive_with_a_consumer_that_leaves"),
    Scenario(dropping, one_by_one, name="dropping_with_a_slow_consumer"),
    Scenario(debounced, one_by_one, name="debounced_with_a_slow_consumer"),
    Scenario(sampled, one_by_one, name="sampled_with_a_slow_consumer"),
    Scenario(delayed, first_three, name="delayed_with_a_consumer_that_leaves"),
    Scenario(timed, one_by_one, name="timed_with_a_slow_consumer"),
    Scenario(keyed_map, one_by_one, name="keyed_map_with_a_slow_consumer"),
    Scenario(skip, first_three, name="skip_with_a_consumer_that_leaves"),
    Scenario(ordered_pool, one_by_one, name="slow_consumer"),
    Scenario(merge_of_three, first_three, name="consumer_that_leaves"),
    Scenario(unordered_pool, three_receivers, name="three_receivers"),
    Scenario(adaptive_pool, name="adaptive_pool"),
    Scenario(adaptive_pool, first_three, name="adaptive_pool_with_a_consumer_that_leaves"),
]
