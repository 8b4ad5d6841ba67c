"""slurry: sections in a pipeline, each a task, joined by channels with a fixed capacity of 0.

It works only with trio < 0.22, so it runs in its own environment, and nothing here may import funcpipe_trio.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import trio
from slurry import Pipeline
from slurry.sections import Group, Map, Merge

from .._work import MAX_DELAY, add, inc

__all__ = ["batch", "fair", "hop"]


async def _numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def _sum(*sections: object) -> int:
    total = 0
    async with Pipeline.create(*sections) as pipeline, pipeline.tap() as tap:
        async for item in tap:
            total = add(total, item)
    return total


def hop(stages: int, items: int) -> int:
    """The consumer is the last stage; the first section iterates the source itself, but the tap is also a hop."""

    async def main() -> int:
        total = 0
        sections = (Map(inc) for _ in range(stages - 1))
        async with Pipeline.create(_numbers(items), *sections) as pipeline, pipeline.tap() as tap:
            async for item in tap:
                total = add(total, inc(item))
        return total

    return trio.run(main)


def fair(inputs: int, items: int) -> int:
    async def main() -> int:
        return await _sum(Merge(*(_numbers(items // inputs) for _ in range(inputs))))

    return trio.run(main)


def batch(size: int, items: int) -> int:
    async def main() -> int:
        return await _sum(_numbers(items), Group(MAX_DELAY, max_size=size, reducer=sum))

    return trio.run(main)
