"""streamable's fluent operations, on uvloop if they wait. They pull: only `concurrency` makes tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import uvloop
from streamable import stream

from .._work import MAX_DELAY, add, inc
from .by_asyncio import visit

__all__ = ["batch", "fair", "fused", "pool"]


def fused(maps: int, items: int) -> int:
    values = stream(range(items))
    for _ in range(maps):
        values = values.map(inc)
    total = 0
    for value in values:
        total = add(total, value)
    return total


def pool(concurrency: int, ordered: bool, items: int) -> list[int]:
    async def main() -> list[int]:
        results = stream(range(items)).map(visit, concurrency=concurrency, as_completed=not ordered)
        return [result async for result in results]

    return uvloop.run(main())


def fair(inputs: int, items: int) -> int:
    async def main() -> int:
        total = 0
        async for item in stream([_numbers(items // inputs) for _ in range(inputs)]).flatten(concurrency=inputs):
            total = add(total, item)
        return total

    return uvloop.run(main())


async def _numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


def batch(size: int, items: int) -> int:
    total = 0
    for value in stream(range(items)).group(size, within=timedelta(seconds=MAX_DELAY)).map(sum):
        total = add(total, value)
    return total
