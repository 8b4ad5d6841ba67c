"""aiostream's operators in a pipe, on uvloop. They pull: only mapping an async function makes tasks."""

from __future__ import annotations

from typing import Any

import uvloop
from aiostream import pipe as typed_pipe
from aiostream import stream

from .._work import add, inc
from .by_asyncio import visit

__all__ = ["batch", "fair", "fused", "pool"]

pipe: Any = typed_pipe
"""Its types reject a function of one argument, which its documentation uses."""


async def _sum(values: Any) -> int:
    total = 0
    async with values.stream() as streamer:
        async for value in streamer:
            total = add(total, value)
    return total


def fused(maps: int, items: int) -> int:
    values: Any = stream.iterate(range(items))
    for _ in range(maps):
        values = values | pipe.map(inc)
    return uvloop.run(_sum(values))


def pool(concurrency: int, ordered: bool, items: int) -> list[int]:
    async def main() -> list[int]:
        values: Any = stream.iterate(range(items)) | pipe.map(visit, ordered=ordered, task_limit=concurrency)
        async with values.stream() as streamer:
            return [value async for value in streamer]

    return uvloop.run(main())


def fair(inputs: int, items: int) -> int:
    return uvloop.run(_sum(stream.merge(*(stream.iterate(range(items // inputs)) for _ in range(inputs)))))


def batch(size: int, items: int) -> int:
    """Only by number: it has no batches by time."""
    return uvloop.run(_sum(stream.iterate(range(items)) | pipe.chunks(size) | pipe.map(sum)))
