"""aiometer: an async function over a list, with a number of calls at once; on uvloop."""

from __future__ import annotations

from functools import partial

import aiometer
import uvloop

from .by_asyncio import visit

__all__ = ["pool_ordered", "pool_unordered"]


def pool_ordered(concurrency: int, items: int) -> list[int]:
    jobs = [partial(visit, item) for item in range(items)]
    return uvloop.run(aiometer.run_all(jobs, max_at_once=concurrency))


def pool_unordered(concurrency: int, items: int) -> list[int]:
    async def main() -> list[int]:
        async with aiometer.amap(visit, list(range(items)), max_at_once=concurrency) as results:
            return [result async for result in results]

    return uvloop.run(main())
