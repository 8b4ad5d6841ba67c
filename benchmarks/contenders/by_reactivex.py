"""reactivex: it pushes, without backpressure; async calls are futures, on uvloop."""

from __future__ import annotations

import asyncio
from typing import Any

import reactivex
import uvloop
from reactivex import operators
from reactivex.scheduler.eventloop import AsyncIOScheduler

from .._work import add, inc
from .by_asyncio import visit

__all__ = ["fused", "pool_unordered"]


def fused(maps: int, items: int) -> int:
    source: Any = reactivex.from_iterable(range(items))  # its types allow a fixed number of operators
    total: int = source.pipe(*(operators.map(inc) for _ in range(maps)), operators.reduce(add, 0)).run()
    return total


def pool_unordered(concurrency: int, items: int) -> list[int]:
    """Each call is an observable that starts when it is subscribed to; `concurrency` are subscribed to at once."""

    async def main() -> list[int]:
        loop = asyncio.get_running_loop()

        def call(item: int) -> Any:
            return reactivex.defer(lambda _scheduler: reactivex.from_future(loop.create_task(visit(item))))

        calls = reactivex.from_iterable(range(items)).pipe(
            operators.map(call), operators.merge(max_concurrent=concurrency), operators.to_list()
        )
        done = loop.create_future()
        calls.subscribe(done.set_result, done.set_exception, scheduler=AsyncIOScheduler(loop))
        results: list[int] = await done
        return results

    return uvloop.run(main())
