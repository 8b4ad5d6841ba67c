"""What a type checker must see; checked by mypy strict, never run."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from concurrent.futures import BrokenExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal, TextIO, TypeGuard, TypeVar, assert_type

import trio
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.routing import Mount
from typing_extensions import TypeIs

from funcpipe_trio import (
    Adaptive,
    Blame,
    CircuitBreaker,
    Failure,
    FairChannel,
    FairShare,
    Finding,
    Hub,
    KeyWaitReport,
    Observer,
    OnError,
    OnFull,
    Pipeline,
    PlaceLimiter,
    PlaceLimiterGroup,
    PlaceLimiterStatistics,
    RateLimit,
    RateLimiter,
    RateLimiterGroup,
    RateLimiterStatistics,
    Report,
    Retry,
    RollingLimit,
    Run,
    StartedCircuit,
    StartedStep,
    Step,
    WorkerError,
    chunked,
    concat,
    executor,
    fair_merge,
    gather,
    merge,
    merge_sorted,
    prefer,
    processes,
    retry_after_header,
    review,
    run_service,
    threads,
    watch,
    watch_app,
    zip_latest,
    zip_pipelines,
)
from funcpipe_trio.exporters import OpenTelemetryMetrics, OpenTelemetrySpans, PrometheusCollector

T = TypeVar("T")

numbers: Pipeline[int] = Pipeline.from_iterable([1, 2, 3])
texts: Pipeline[str] = Pipeline.from_iterable(["a"])


async def fetch(number: int) -> bytes:
    return bytes(number)


async def pages(number: int) -> AsyncIterator[str]:
    yield str(number)


async def add(total: float, number: int) -> float:
    return total + number


async def bury(failure: Failure[int]) -> None:
    await trio.sleep(failure.item)


async def produce(channel: trio.MemorySendChannel[str]) -> None:
    await channel.send("a")


def feed(number: int) -> Pipeline[str]:
    return Pipeline.from_iterable(str(number))


async def find_feed(number: int) -> Pipeline[str]:
    return feed(number)


def spelled(number: int) -> str:
    return str(number)


def cost_of(number: int) -> int:
    return number


def is_text(value: int | str) -> TypeGuard[str]:
    return isinstance(value, str)


def is_text_or_not(value: object) -> TypeIs[str]:
    return isinstance(value, str)


async def same_later(value: T) -> T:
    return value


async def twice_later(value: T) -> list[T]:
    return [value, value]


def twice(value: T) -> list[T]:
    return [value, value]


def size(data: bytes) -> int:
    return len(data)


def double(total: float, number: int) -> float:
    return total + number


def find_numbers(text: str) -> list[int]:
    return [int(text)]


def words(text: str) -> list[str]:
    return text.split()


class Labels:
    def push(self, item: int, /) -> list[str]:
        return [str(item)]


async def labels(items: AsyncIterator[int]) -> AsyncIterator[str]:
    async for item in items:
        yield str(item)


def labelled(pipeline: Pipeline[int], label: str) -> Pipeline[str]:
    return pipeline.map(lambda number: f"{label} {number}")


async def ask_in(session: str, number: int) -> bytes:
    return session.encode() * number


def ask_in_now(session: str, number: int) -> bytes:
    return session.encode() * number


# sources
assert_type(Pipeline.from_iterable([1]), Pipeline[int])
assert_type(Pipeline.from_iterable(lambda: ["a"]), Pipeline[str])
assert_type(Pipeline.from_iterable(Path("rows.txt").open, on=threads(1)), Pipeline[str])
assert_type(Pipeline.from_producer(produce), Pipeline[str])
assert_type(Pipeline.ticks(1), Pipeline[int])
assert_type(Pipeline.restarting(lambda: ["a"], Retry(), reset_after=1), Pipeline[str])
assert_type(Pipeline.restarting(lambda: pages(1), Retry(), reset_after=1), Pipeline[str])
assert_type(Pipeline.using(Path("rows.txt").open, lambda file: file), Pipeline[str])
assert_type(Pipeline.using(partial(trio.open_file, "rows.txt"), lambda file: file), Pipeline[str])
assert_type(Pipeline.using(trio.open_nursery, lambda nursery: [nursery]), Pipeline[trio.Nursery])
assert_type(Pipeline.using(lambda: nullcontext(1), pages), Pipeline[str])
assert_type(Pipeline.using(lambda: nullcontext(1), lambda one: Pipeline.from_iterable([one])), Pipeline[int])

# operations
session: Step[int, bytes] = Step(ask_in).using(lambda: nullcontext("url"))
assert_type(numbers.map(session.timeout(3), concurrency=2), Pipeline[bytes])
assert_type(numbers.map(Step(ask_in).using(lambda: nullcontext("url"), per="worker")), Pipeline[bytes])
assert_type(numbers.map(Step(ask_in_now).using(Path("f").open).on(threads(2))), Pipeline[bytes])  # type: ignore[arg-type]  # not a str
assert_type(numbers.map(str), Pipeline[str])
assert_type(numbers.map(fetch, concurrency=4), Pipeline[bytes])
assert_type(numbers.map(str).map(len), Pipeline[int])
assert_type(numbers.filter(lambda number: number > 1), Pipeline[int])
mixed: Pipeline[int | str] = Pipeline.from_iterable(["a", 1])
assert_type(mixed.filter(is_text), Pipeline[str])
assert_type(mixed.filter(is_text_or_not), Pipeline[str])
assert_type(mixed.take_while(is_text), Pipeline[str])
assert_type(mixed.take_while(is_text_or_not), Pipeline[str])
assert_type(numbers.take_while(lambda number: number > 1), Pipeline[int])
assert_type(numbers.filter(fetch), Pipeline[int])
assert_type(numbers.filter(lambda number: fetch(number)), Pipeline[int])
assert_type(numbers.filter(Step(fetch)), Pipeline[int])
assert_type(numbers.map(same_later), Pipeline[int])
assert_type(numbers.map(twice_later, concurrency=2), Pipeline[list[int]])
assert_type(numbers.map(twice), Pipeline[list[int]])
assert_type(numbers.map(twice, on_error=OnError.emit()), Pipeline[list[int] | Failure[int]])
assert_type(numbers.map(partial(fetch)), Pipeline[bytes])
assert_type(numbers.map(lambda number: None), Pipeline[None])
assert_type(numbers.flat_map(twice_later), Pipeline[int])
assert_type(numbers.flat_map(twice), Pipeline[int])
assert_type(numbers.flat_map(lambda number: [number]), Pipeline[int])
assert_type(numbers.flat_map(lambda number: pages(number)), Pipeline[str])
assert_type(numbers.flat_map(find_feed, on_error=OnError.emit()), Pipeline[str | Failure[int]])
assert_type(numbers.map(str).flat_map(words), Pipeline[str])
assert_type(numbers.flat_map(pages), Pipeline[str])
assert_type(numbers.flat_map(feed, concurrency=2), Pipeline[str])
assert_type(numbers.flat_map(feed, concurrency=2, on_error=OnError.emit()), Pipeline[str | Failure[int]])
assert_type(numbers.flat_map(find_feed), Pipeline[str])
assert_type(numbers.flat_map(find_feed, concurrency=2, on_error=OnError.skip()), Pipeline[str])
assert_type(numbers.flat_map(Step(find_feed).timeout(1)), Pipeline[str])
assert_type(numbers.scan(add, 0.0), Pipeline[float])
assert_type(numbers.scan(double, 0.0), Pipeline[float])
assert_type(numbers.scan(lambda text, number: text + str(number), ""), Pipeline[str])
assert_type(numbers.tap(print), Pipeline[int])
assert_type(numbers.tap(fetch, concurrency=2), Pipeline[int])
assert_type(numbers.filter(fetch, concurrency=2), Pipeline[int])
assert_type(numbers.map(lambda number: fetch(number), concurrency=2), Pipeline[bytes])
assert_type(numbers.map(fetch, concurrency=Adaptive(1, 64)), Pipeline[bytes])
assert_type(numbers.map(Step(fetch), concurrency=Adaptive(1, 64, target=1.5, on=OSError)), Pipeline[bytes])
assert_type(numbers.filter(fetch, concurrency=Adaptive(1, 2)).tap(fetch, concurrency=Adaptive(1, 2)), Pipeline[int])
assert_type(numbers.tap(lambda number: fetch(number), concurrency=2), Pipeline[int])
assert_type(numbers.enumerate(), Pipeline[tuple[int, int]])
assert_type(numbers.take(1).skip(1).buffer(4), Pipeline[int])
assert_type(numbers.fair_by(str, FairShare({"7": 2}), max_keys=9), Pipeline[int])
assert_type(numbers.fair_by(str, max_keys=9, overflow="drop_newest"), Pipeline[int])
assert_type(numbers.fair_by(str, max_keys=9, overflow=OnError.divert(bury)), Pipeline[int])
assert_type(numbers.loop(lambda p: p.map(str), again=find_numbers, room=9), Pipeline[str])
assert_type(numbers.loop(lambda p: p.map(str), again=find_numbers, room=9, full=OnError.divert(bury)), Pipeline[str])
assert_type(numbers.buffer(1, overflow="drop_oldest"), Pipeline[int])
assert_type(numbers.buffer(max_cost=9, cost=abs).buffer(9, max_cost=9, cost=abs), Pipeline[int])
assert_type(numbers.buffer(1, overflow=OnFull.merge(max)), Pipeline[int])
assert_type(numbers.throttle(RateLimit(5)).throttle(RateLimit(5, burst=9), cost=lambda number: 0.5), Pipeline[int])
assert_type(numbers.throttle(RateLimit(5), cost=lambda number: Fraction(number, 2)), Pipeline[int])
assert_type(numbers.debounce(0.5, max_wait=2).sample(1).delay(2, max_items=4), Pipeline[int])
assert_type(numbers.take_for(5).stop_when(trio.Event()).stop_when(trio.sleep_forever), Pipeline[int])
assert_type(numbers.take_until(lambda number: number > 1).take_until(fetch), Pipeline[int])
assert_type(numbers.keep_alive(1, lambda: "ping"), Pipeline[int | str])
assert_type(numbers.idle_timeout(8).timeout(60).timeout(60, first=5).timeout(first=5), Pipeline[int])
assert_type(numbers.batch(10), Pipeline[list[int]])
assert_type(numbers.batch(10, max_delay=0.5).unbatch(), Pipeline[int])
assert_type(numbers.batch(10, key=str, max_keys=9), Pipeline[list[int]])
assert_type(numbers.batch(10, key=lambda number: number % 2, max_keys=9, full="fail"), Pipeline[list[int]])
assert_type(numbers.window(10, period=0.5), Pipeline[list[int]])
assert_type(numbers.window(10).unbatch(), Pipeline[int])
assert_type(numbers.sliding(3, 2), Pipeline[tuple[int, ...]])
assert_type(numbers.pairwise(), Pipeline[tuple[int, int]])
assert_type(numbers.distinct(remember=3), Pipeline[int])
assert_type(numbers.distinct(lambda number: number % 3, remember=3), Pipeline[int])
assert_type(numbers.stateful(Labels), Pipeline[str])
assert_type(numbers.stateful(Labels, key=str, max_keys=9, full="fail"), Pipeline[str])
assert_type(numbers.stateful(lambda: Labels(), holds=1), Pipeline[str])
assert_type(numbers.through(labels), Pipeline[str])
assert_type(numbers.through(labels, holds=1, name="labels"), Pipeline[str])
assert_type(numbers.pipe(labelled, "n"), Pipeline[str])
assert_type(numbers.pipe(labelled, label="n"), Pipeline[str])

# steps
step = Step(fetch)
assert_type(step, Step[int, bytes])
assert_type(step.rate_limit(RateLimit(8)).timeout(1).retry(Retry(4)), Step[int, bytes])
assert_type(step.retry(Retry(retry_after=retry_after_header)), Step[int, bytes])
assert_type(retry_after_header({"Retry-After": "5"}), float | None)
assert_type(step.rate_limit(RateLimiter(RateLimit(8)), cost=lambda number: 1), Step[int, bytes])
assert_type(step.rate_limit(RollingLimit(100), RateLimiter(RollingLimit(3, per=1))), Step[int, bytes])
assert_type(numbers.throttle(RollingLimit(5)).map(fetch, key=str, key_rate=RollingLimit(5)), Pipeline[bytes])
assert_type(
    step.rate_limit(RateLimit(8)).retry(Retry(retry_after=lambda error: 3, pauses_limit=True)), Step[int, bytes]
)
RateLimiter(RateLimit(5)).pause(3)
assert_type(step.rate_limit(RateLimit(5), RollingLimit(9), per_key=str, max_keys=100), Step[int, bytes])
assert_type(RateLimiter(RateLimit(5)).statistics().paused_until, float | None)
assert_type(RateLimiter(RollingLimit(5)).rate_limit, RateLimit | RollingLimit)
assert_type(RollingLimit(5).rate / RollingLimit(5).per, float)
requests, shared_tokens = RateLimit(8), RateLimiter(RateLimit(100))
costs_by_limiter = {shared_tokens: cost_of}
assert_type(step.rate_limit(requests, shared_tokens, cost=cost_of), Step[int, bytes])
assert_type(step.rate_limit(requests, shared_tokens, cost=[None, cost_of]), Step[int, bytes])
assert_type(
    step.rate_limit(requests, shared_tokens, cost={requests: cost_of, shared_tokens: cost_of}), Step[int, bytes]
)
assert_type(step.rate_limit(requests, shared_tokens, cost=costs_by_limiter), Step[int, bytes])
assert_type(step.hedge(0.5, most=3), Step[int, bytes])
assert_type(step.coalesce(lambda number: number % 3), Step[int, bytes])
assert_type(step.coalesce(key=str), Step[int, bytes])
assert_type(step.fallback(step), Step[int, bytes])
assert_type(step.fallback(Step.pure(spelled)), Step[int, bytes | str])
fair_tokens = RateLimiter(RateLimit(100), share=FairShare({"a": 3}))
assert_type(step.rate_limit(requests, fair_tokens, key=str, settle=[None, len]), Step[int, bytes])
assert_type(step.rate_limit(fair_tokens.group("b", 2), key=str, cost=cost_of, settle=len), Step[int, bytes])
assert_type(fair_tokens.group("b"), RateLimiterGroup)
assert_type(fair_tokens.group("b").group(3, Fraction(1, 2)).rate_limit, RateLimit | RollingLimit)
some_places = PlaceLimiter(3, FairShare({"a": 3}))
assert_type(step.places(some_places, key=str).timeout(3), Step[int, bytes])
assert_type(step.places(some_places.group("b")), Step[int, bytes])
assert_type(some_places.group("b"), PlaceLimiterGroup)
assert_type(some_places.places, int)
step.places(3)  # type: ignore[arg-type]
step.places(fair_tokens)  # type: ignore[arg-type]
step.rate_limit(some_places)  # type: ignore[arg-type]
PlaceLimiter(3, {"a": 3})  # type: ignore[arg-type]
assert_type(step.map(len), Step[int, int])
assert_type(step.map(len).then(step), Step[int, bytes])
assert_type(Step.pure(words), Step[str, list[str]])
assert_type(Step(words), Step[str, list[str]])
assert_type(Step(words).on(threads(2)), Step[str, list[str]])
assert_type(Step(chunked(words)).on(processes(2)), Step[Iterable[str], list[list[str]]])
assert_type(Step(words).on(executor(ThreadPoolExecutor())), Step[str, list[str]])
assert_type(Step(words).on(executor(lambda: ThreadPoolExecutor(2), limit=2)), Step[str, list[str]])
assert_type(Step(words).on(executor(ThreadPoolExecutor, broken=(OSError, BrokenExecutor))), Step[str, list[str]])
assert_type(Step(words).on(executor(ThreadPoolExecutor(), broken=BrokenExecutor)), Step[str, list[str]])
assert_type(step.start(), StartedStep[int, bytes])
assert_type(step.then(Step(twice_later)), Step[int, list[bytes]])
# mypy does not know what a lambda, a partial or a generic function in a Step takes, unless it is told.
told: Step[int, int] = Step(same_later)
told_too: Step[int, str] = Step(lambda number: str(number))
assert_type(numbers.map(told.timeout(1)), Pipeline[int])
assert_type(numbers.map(Step(same_later)), Pipeline[int])
assert_type(numbers.map(Step(twice_later), concurrency=2), Pipeline[list[int]])
assert_type(numbers.map(Step(same_later), on_error=OnError.emit()), Pipeline[int | Failure[int]])
assert_type(numbers.flat_map(Step(twice_later)), Pipeline[int])
assert_type(numbers.flat_map(step.map(twice).start()), Pipeline[bytes])
assert_type(numbers.map(step, concurrency=4), Pipeline[bytes])
assert_type(numbers.map(step.start()), Pipeline[bytes])
assert_type(numbers.map(step, on_error=OnError.skip()), Pipeline[bytes])
assert_type(numbers.map(step, on_error=OnError.emit()), Pipeline[bytes | Failure[int]])
assert_type(numbers.map(str, on_error=OnError.emit()), Pipeline[str | Failure[int]])
some_policies: list[OnError] = [OnError.skip(), OnError.emit()]
assert_type(numbers.map(fetch, concurrency=2, on_error=some_policies[0]), Pipeline[bytes | Failure[int]])
assert_type(numbers.map(str, on_error=some_policies[0]), Pipeline[str | Failure[int]])
assert_type(numbers.map(step, on_error=some_policies[0]), Pipeline[bytes | Failure[int]])
assert_type(numbers.flat_map(pages, on_error=some_policies[0]), Pipeline[str | Failure[int]])
assert_type(numbers.map(fetch, on_error=OnError.divert(bury)), Pipeline[bytes])


# ---- failures on their way

fetched = numbers.map(fetch, on_error=OnError.emit())


async def size_later(data: bytes) -> int:
    return len(data)


def item_of(failure: Failure[int]) -> int:
    return failure.item


async def look_up_later(failure: Failure[int]) -> str:
    return str(failure.item)


assert_type(fetched.on_ok(size), Pipeline[int | Failure[Any]])
assert_type(fetched.on_ok(lambda data: data.hex()), Pipeline[str | Failure[Any]])
assert_type(fetched.on_ok(size_later, concurrency=2, key=size), Pipeline[int | Failure[Any]])
assert_type(fetched.on_ok(Step(size_later).timeout(1), ordered=False), Pipeline[int | Failure[Any]])
assert_type(fetched.on_ok(twice), Pipeline[list[bytes] | Failure[Any]])
assert_type(fetched.on_ok(size, on_error=OnError.emit()), Pipeline[int | Failure[Any]])
assert_type(fetched.on_ok(size, on_error=OnError.emit()).on_ok(feed), Pipeline[Pipeline[str] | Failure[Any]])
assert_type(texts.on_ok(len), Pipeline[int | Failure[Any]])
assert_type(fetched.recover(item_of), Pipeline[bytes | int])
assert_type(fetched.recover(look_up_later, concurrency=2), Pipeline[bytes | str])
assert_type(fetched.recover(Step(look_up_later).timeout(1)), Pipeline[bytes | str])
assert_type(fetched.recover(lambda failure: None), Pipeline[bytes | None])
assert_type(fetched.recover(item_of, on_error=OnError.skip()), Pipeline[bytes | int])
assert_type(fetched.recover(item_of, on_error=OnError.emit()), Pipeline[bytes | int | Failure[Any]])
assert_type(fetched.recover(look_up_later, on_error=some_policies[0]), Pipeline[bytes | str | Failure[Any]])
assert_type(fetched.on_ok(size_later).recover(lambda failure: 0), Pipeline[int])

assert_type(numbers.or_else(lambda: texts), Pipeline[int | str])
assert_type(numbers.filter(bool).or_else(lambda: Pipeline.from_iterable([1])), Pipeline[int])
numbers.or_else(texts)  # type: ignore[arg-type]

assert_type(merge(numbers, texts, on_error=OnError.skip()), Pipeline[int | str])
assert_type(merge(numbers, texts, on_error=OnError.emit()), Pipeline[int | str | Failure[None]])
assert_type(merge(*[numbers], on_error=OnError.emit()), Pipeline[int | Failure[None]])
assert_type(merge(numbers, texts, numbers, on_error=some_policies[0]), Pipeline[int | str | Failure[None]])
assert_type(fair_merge({"a": numbers}, on_error=OnError.skip(1)), Pipeline[int])
assert_type(fair_merge({"a": numbers}, on_error=OnError.emit()), Pipeline[int | Failure[None]])
assert_type(merge(numbers, numbers, on_error=OnError.emit()).recover(lambda failure: 0), Pipeline[int])


def tell(outcome: Literal["completed", "drained", "failed", "stopped"]) -> None:
    print(outcome)


async def tell_later(outcome: str) -> None:
    print(outcome)


assert_type(numbers.on_end(tell), Pipeline[int])
assert_type(numbers.on_end(tell_later), Pipeline[int])
assert_type(numbers.on_end(lambda outcome: print(outcome == "failed")), Pipeline[int])
numbers.on_end(size)  # type: ignore[arg-type]

fetched.on_ok(feed)  # type: ignore[arg-type]
fetched.on_ok(size, concurrency=2)  # type: ignore[arg-type]
fetched.recover(feed)  # type: ignore[arg-type]

assert_type(numbers.map(fetch, key=lambda number: number % 2, concurrency=2), Pipeline[bytes])
assert_type(numbers.map(Step(fetch).retry(Retry(3)), retries_elsewhere=9), Pipeline[bytes])
assert_type(numbers.map(fetch, key=str, per_key=2, key_rate=RateLimit(5), waiting=99), Pipeline[bytes])
assert_type(numbers.map(str).flat_map(words, on_error=OnError.skip()), Pipeline[str])
assert_type(numbers.map(str).flat_map(words, on_error=OnError.emit()), Pipeline[str | Failure[str]])
assert_type(numbers.flat_map(pages, on_error=OnError.emit()), Pipeline[str | Failure[int]])

# branches


def shown(pipeline: Pipeline[int]) -> Pipeline[str]:
    return pipeline.map(str)


def same(pipeline: Pipeline[int]) -> Pipeline[int]:
    return pipeline


assert_type(numbers.broadcast({"a": shown, "b": shown}), Pipeline[str])
assert_type(numbers.partition(str, {"a": same, "b": same}), Pipeline[int])
# mypy gives Any for what lambdas in a mapping give, unless it is told what to expect: then it checks them.
either: Pipeline[str | bytes] = numbers.broadcast({"a": lambda line: line.map(str), "b": lambda line: line.map(fetch)})
wrong: Pipeline[int] = numbers.broadcast({"a": lambda line: line.map(fetch)})  # type: ignore[arg-type]

# fan-in
assert_type(merge(numbers, numbers), Pipeline[int])
assert_type(concat(numbers, numbers), Pipeline[int])
assert_type(fair_merge({"a": numbers, "b": numbers}, FairShare({"a": 3})), Pipeline[int])
assert_type(merge(numbers, texts), Pipeline[int | str])
assert_type(merge(numbers, texts, numbers.map(fetch)), Pipeline[int | str | bytes])
assert_type(
    merge(numbers, texts, numbers.map(fetch), numbers.enumerate()), Pipeline[int | str | bytes | tuple[int, int]]
)
assert_type(merge(numbers, numbers, numbers, numbers, numbers), Pipeline[int])
assert_type(merge(*[numbers, numbers]), Pipeline[int])
assert_type(merge(numbers), Pipeline[int])
assert_type(concat(numbers, texts), Pipeline[int | str])
assert_type(concat(numbers, texts, numbers.map(fetch)), Pipeline[int | str | bytes])
assert_type(concat(*[numbers, numbers], name="all"), Pipeline[int])
assert_type(merge_sorted(numbers, numbers.map(float), reverse=True), Pipeline[int | float])
assert_type(merge_sorted(numbers, texts, key=str), Pipeline[int | str])
assert_type(merge_sorted(*[numbers, numbers], key=lambda number: -number, name="all"), Pipeline[int])
assert_type(zip_latest(numbers, texts), Pipeline[tuple[int, str]])
assert_type(zip_latest(*[numbers, numbers], name="all"), Pipeline[tuple[int, ...]])
assert_type(numbers.map(fetch, latest=True), Pipeline[bytes])
assert_type(numbers.flat_map(lambda number: numbers, concurrency=1, latest=True), Pipeline[int])
assert_type(prefer(numbers, texts, at_least=10), Pipeline[int | str])
assert_type(prefer(numbers, *[numbers, numbers], at_least=2, name="all"), Pipeline[int])
assert_type(zip_pipelines(numbers, numbers.map(str)), Pipeline[tuple[int, str]])
assert_type(zip_pipelines(numbers, texts, numbers, texts), Pipeline[tuple[int, str, int, str]])
assert_type(zip_pipelines(numbers, numbers, numbers, numbers, numbers), Pipeline[tuple[int, ...]])
# mypy joins the different types in a mapping to object, unless it is told.
union: Pipeline[int | str] = fair_merge({"a": numbers, "b": texts})
branches: Pipeline[int | str] = numbers.broadcast({"a": same, "b": shown})
zipped: Pipeline[dict[str, int | str]] = numbers.broadcast({"a": same, "b": shown}, join="zip")
balanced: Pipeline[int | str] = numbers.balance({"a": same, "b": shown})
parts: Pipeline[int | str] = numbers.partition(str, {"a": same, "b": shown})


# running
async def running() -> None:
    async with numbers.map(str).open() as run:
        assert_type(run, Run[str])
        async for text in run:
            assert_type(text, str)
        assert_type(await run.receive(), str)
    assert_type(run.report, Report)
    assert_type(run.report.blame, tuple[Blame, ...])
    assert_type(run.statistics().advice, str)
    assert_type(await numbers.collect(), list[int])
    assert_type(await numbers.first(), int)
    assert_type(await numbers.first(default=None), int | None)
    assert_type(await numbers.fold(add, 0.0), float)
    assert_type(await numbers.count(), int)
    assert_type(await numbers.run(), Report)
    assert_type(await step(1), bytes)
    assert_type(await step.start()(1), bytes)
    assert_type(await gather(step, [1, 2], concurrency=2), list[bytes])
    assert_type(await gather(step.start(), [1, 2], concurrency=2), list[bytes])
    assert_type(await numbers.fold(double, 0.0), float)
    assert_type(await numbers.fold(lambda total, number: total + number, 0), int)
    await gather(step, ["a"], concurrency=2)  # type: ignore[misc]
    await gather(step.start(), ["a"], concurrency=2)  # type: ignore[misc]
    await gather(fetch, [1], concurrency=2)  # type: ignore[arg-type]
    async with trio.open_nursery() as nursery:
        await nursery.start(numbers.run)


# what must be refused: an ignore that is not needed is an error, in both checkers
numbers.buffer(1, overflow="drop")  # type: ignore[arg-type]
numbers.throttle(5)  # type: ignore[arg-type]
numbers.throttle(RateLimit(5), cost=words)  # type: ignore[arg-type]
numbers.map(words)  # type: ignore[arg-type]
numbers.map(size)  # type: ignore[arg-type]
numbers.map(size, on_error=OnError.skip())  # type: ignore[arg-type]
numbers.map(Step(size).on(threads(1)))  # type: ignore[arg-type]
texts.map(fetch)  # type: ignore[arg-type]
texts.map(fetch, concurrency=2)  # type: ignore[arg-type]
numbers.map(fetch, concurrency="2")  # type: ignore[call-overload]
numbers.flat_map(feed, concurrency=Adaptive(1, 2))  # type: ignore[call-overload]
numbers.map(str, key=str)  # type: ignore[arg-type]
numbers.batch(3, key=words, max_keys=9)  # type: ignore[arg-type]
numbers.batch(3, key=str, max_keys=9, full="newest")  # type: ignore[arg-type]
numbers.map(str, concurency=3)  # type: ignore[call-overload]
numbers.map(lambda number: number.nope)  # type: ignore[attr-defined]
numbers.filter(lambda number: number.nope)  # type: ignore[attr-defined]
numbers.take_while(lambda number: number.nope)  # type: ignore[attr-defined]
numbers.flat_map(lambda number: number.nope)  # type: ignore[attr-defined]
numbers.filter(size)  # type: ignore[arg-type]
numbers.flat_map(lambda number: number)  # type: ignore[arg-type, return-value]
numbers.flat_map(size)  # type: ignore[arg-type]
numbers.scan(add, "")  # type: ignore[arg-type]
step.coalesce(words)  # type: ignore[arg-type]
step.fallback(Step.pure(words))  # type: ignore[arg-type]
step.map(lambda data: data.nope)  # type: ignore[attr-defined]
numbers.broadcast({"a": lambda line: line.map(lambda number: number.nope)})  # type: ignore[attr-defined]
narrow: Pipeline[int] = fair_merge({"a": numbers, "b": texts})  # type: ignore[dict-item]
narrow_too: Pipeline[int] = merge(numbers, texts)  # type: ignore[arg-type]
told_wrong: Step[str, int] = Step(fetch)  # type: ignore[arg-type]
numbers.map(abs, concurrency=2)  # type: ignore[arg-type]
numbers.flat_map(feed)  # type: ignore[arg-type]
numbers.map(str).flat_map(fetch)  # type: ignore[arg-type]
numbers.map(str).map(step)  # type: ignore[arg-type]
step.then(step)  # type: ignore[arg-type]
executor(words)  # type: ignore[arg-type]
executor(list)  # type: ignore[arg-type]
executor(ThreadPoolExecutor(), broken=[OSError])  # type: ignore[arg-type]
executor(ThreadPoolExecutor(), broken=KeyboardInterrupt)  # type: ignore[arg-type]
assert_type(WorkerError("KeyError", "7").type_name, str)
assert_type(WorkerError("KeyError", "7").text, str)
fair_merge({"a": numbers}, FairShare({1: 3}))  # type: ignore[misc]
share: FairShare[int] = FairShare({1: 3})  # pyright takes one that is made in the call for a FairShare[int | str]
numbers.fair_by(str, share, max_keys=9)  # type: ignore[arg-type]
numbers.map(str).fair_by(abs, max_keys=9)  # type: ignore[arg-type]
numbers.fair_by(str, max_keys=9, overflow="fail")  # type: ignore[arg-type]
numbers.loop(lambda p: p.map(str), again=abs, room=9)  # type: ignore[misc]
numbers.loop(lambda p: p, again=find_numbers, room=9)  # type: ignore[misc]

hub: Hub[int] = Hub(4, lag="drop_oldest")
assert_type(Pipeline.from_channel(hub.subscribe()), Pipeline[int])
assert_type(hub.subscribe().receive_nowait(), int)
hub.send_nowait("7")  # type: ignore[arg-type]
Hub(4, lag="drop")  # type: ignore[arg-type]


async def into_a_hub() -> None:
    assert_type(await numbers.run_into(hub), Report)
    await texts.run_into(hub)  # type: ignore[arg-type]


channel: FairChannel[str] = FairChannel()

assert_type(texts.with_settings({"texts": {"capacity": 3}}), Pipeline[str])
assert_type(texts.diff(numbers), str)
assert_type(texts.describe("mermaid"), str)
assert_type(review(texts, 100, ignore=["timeout"]), tuple[Finding, ...])
texts.describe("svg")  # type: ignore[arg-type]
texts.diff("text")  # type: ignore[arg-type]
texts.with_settings({"texts": 3})  # type: ignore[dict-item]
review("texts")  # type: ignore[arg-type]


async def seen(run: Run[int], file: TextIO) -> None:
    assert_type(await watch(run), None)
    await watch(run, period=1, file=file, keys=str)
    app = watch_app(run, name="numbers", period=1, keys=lambda key: f"tenant {hash(key)}")
    Starlette(routes=[Mount("/watch", app)])
    assert_type(run.report.plot("report.svg"), None)
    run.report.plot(Path("report.png"))
    await watch(numbers)  # type: ignore[arg-type]
    await watch(run, 1)  # type: ignore[call-arg]
    watch_app(run, name=3)  # type: ignore[arg-type]
    run.report.plot(3)  # type: ignore[arg-type]


class Watching:
    def begin(self) -> "Watching":
        return self

    def around(self, stage: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        return call

    def ended(self, report: Report) -> None:
        assert_type(report.delivered, int)


async def served(run: Run[int]) -> None:
    watching: Observer = Watching()
    assert_type(await run_service(numbers, grace=3, observer=watching), Report)
    assert_type(await numbers.run(observer=OpenTelemetrySpans("numbers", calls=True)), Report)
    async with numbers.open(observer=Watching()) as opened:
        assert_type(opened, Run[int])
    collector = PrometheusCollector()
    CollectorRegistry().register(collector)
    collector.add("numbers", run)
    OpenTelemetryMetrics().add("numbers", run)
    (circuit,) = Step(fetch).circuit_breaker(CircuitBreaker()).start().circuits
    assert_type(circuit, StartedCircuit)
    state: Literal["closed", "open", "half-open"] = circuit.state.value
    print(state)
    statistics = RateLimiter(RateLimit(3)).statistics()
    assert_type(statistics, RateLimiterStatistics)
    assert_type(statistics.keys, tuple[KeyWaitReport, ...])
    async with PlaceLimiter(3).hold(key="a"):
        assert_type(PlaceLimiter(3).statistics(), PlaceLimiterStatistics)
    await fair_tokens.group("a").acquire(3, key=("b", 1))
    fair_tokens.acquire_nowait(key="b")
    fair_tokens.set_weight("b", Fraction(1, 2))
    fair_tokens.set_weight("b", 0.5)  # type: ignore[arg-type]
    assert_type(statistics.waited, float)
    await run_service([1])  # type: ignore[arg-type]
    await run_service(numbers, 3)  # type: ignore[call-arg]
    await numbers.run(observer=3)  # type: ignore[arg-type]
    collector.add(run, "numbers")  # type: ignore[arg-type]
    OpenTelemetrySpans("numbers", True)  # type: ignore[call-arg]
