"""What a type checker must see; checked by mypy strict, never run."""

from collections.abc import AsyncIterator
from typing import TypeGuard, assert_type

import trio

from funcpipe_trio import FairChannel, FairShare, Pipeline, Report, Run, concat, fair_merge, merge, zip_pipelines

numbers: Pipeline[int] = Pipeline.from_iterable([1, 2, 3])


async def fetch(number: int) -> bytes:
    return bytes(number)


async def pages(number: int) -> AsyncIterator[str]:
    yield str(number)


async def add(total: float, number: int) -> float:
    return total + number


async def produce(channel: trio.MemorySendChannel[str]) -> None:
    await channel.send("a")


def is_text(value: int | str) -> TypeGuard[str]:
    return isinstance(value, str)


def words(text: str) -> list[str]:
    return text.split()


def labelled(pipeline: Pipeline[int], label: str) -> Pipeline[str]:
    return pipeline.map(lambda number: f"{label} {number}")


# sources
assert_type(Pipeline.from_iterable([1]), Pipeline[int])
assert_type(Pipeline.from_iterable(lambda: ["a"]), Pipeline[str])
assert_type(Pipeline.from_producer(produce), Pipeline[str])
assert_type(Pipeline.ticks(1), Pipeline[int])

# operations
assert_type(numbers.map(str), Pipeline[str])
assert_type(numbers.map(fetch, concurrency=4), Pipeline[bytes])
assert_type(numbers.map(str).map(len), Pipeline[int])
assert_type(numbers.filter(lambda number: number > 1), Pipeline[int])
mixed: Pipeline[int | str] = Pipeline.from_iterable(["a", 1])
assert_type(mixed.filter(is_text), Pipeline[str])
assert_type(numbers.map(str).flat_map(words), Pipeline[str])
assert_type(numbers.flat_map(pages), Pipeline[str])
assert_type(numbers.scan(add, 0.0), Pipeline[float])
assert_type(numbers.tap(print), Pipeline[int])
assert_type(numbers.enumerate(), Pipeline[tuple[int, int]])
assert_type(numbers.take(1).skip(1).buffer(4), Pipeline[int])
assert_type(numbers.batch(10), Pipeline[list[int]])
assert_type(numbers.batch(10, max_delay=0.5).unbatch(), Pipeline[int])
assert_type(numbers.pipe(labelled, "n"), Pipeline[str])
assert_type(numbers.pipe(labelled, label="n"), Pipeline[str])

# fan-in
assert_type(merge(numbers, numbers), Pipeline[int])
assert_type(concat(numbers, numbers), Pipeline[int])
assert_type(fair_merge({"a": numbers, "b": numbers}, FairShare({"a": 3})), Pipeline[int])
assert_type(zip_pipelines(numbers, numbers.map(str)), Pipeline[tuple[int, str]])


# running
async def running() -> None:
    async with numbers.map(str).open() as run:
        assert_type(run, Run[str])
        async for text in run:
            assert_type(text, str)
        assert_type(await run.receive(), str)
    assert_type(run.report, Report)
    assert_type(await numbers.collect(), list[int])
    assert_type(await numbers.first(), int)
    assert_type(await numbers.first(default=None), int | None)
    assert_type(await numbers.fold(add, 0.0), float)
    assert_type(await numbers.count(), int)
    assert_type(await numbers.run(), Report)
    async with trio.open_nursery() as nursery:
        await nursery.start(numbers.run)


# what must be refused
numbers.map(words)  # type: ignore[arg-type]
numbers.map(str).flat_map(fetch)  # type: ignore[arg-type]
fair_merge({"a": numbers}, FairShare({1: 3}))  # type: ignore[misc]

channel: FairChannel[str] = FairChannel()
