"""The same as `by_trio` with what asyncio has: bounded queues and a task group, on uvloop.

A queue cannot be closed on Python 3.11, so an object that is not an item marks the end. The collector of a pool knows
how many results will come.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import uvloop

from .._work import add, inc

__all__ = ["channel", "fair", "hop", "pool_ordered", "pool_unordered", "visit"]

CAPACITY = 16  # of a queue, unless a benchmark sets it
END = None


async def visit(number: int) -> int:
    """The cheapest call that waits: one trip through the event loop."""
    await asyncio.sleep(0)
    return number


async def _feed(items: Iterable[int], queue: asyncio.Queue[int | None]) -> None:
    for item in items:
        await queue.put(item)
    await queue.put(END)


def hop(stages: int, capacity: int, items: int) -> int:
    async def main() -> int:
        total = 0
        async with asyncio.TaskGroup() as tasks:
            queue = asyncio.Queue[int | None](capacity)
            tasks.create_task(_feed(range(items), queue))
            for _ in range(stages - 1):
                next_queue = asyncio.Queue[int | None](capacity)
                tasks.create_task(_stage(queue, next_queue))
                queue = next_queue
            while (item := await queue.get()) is not END:
                total = add(total, inc(item))
        return total

    return uvloop.run(main())


async def _stage(queue: asyncio.Queue[int | None], next_queue: asyncio.Queue[int | None]) -> None:
    while (item := await queue.get()) is not END:
        await next_queue.put(inc(item))
    await next_queue.put(END)


# ---- a pool of workers


_Numbered = tuple[int, int]


def pool_unordered(concurrency: int, items: int) -> list[int]:
    async def main() -> list[int]:
        queue, results = asyncio.Queue[int | None](CAPACITY), asyncio.Queue[int](CAPACITY)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_feed(range(items), queue))
            for _ in range(concurrency):
                tasks.create_task(_unordered_worker(queue, results))
            return [await results.get() for _ in range(items)]

    return uvloop.run(main())


async def _unordered_worker(queue: asyncio.Queue[int | None], results: asyncio.Queue[int]) -> None:
    while (item := await queue.get()) is not END:
        await results.put(await visit(item))
    await queue.put(END)  # for the other workers


def pool_ordered(concurrency: int, items: int) -> list[int]:
    async def main() -> list[int]:
        queue, results = asyncio.Queue[_Numbered | None](CAPACITY), asyncio.Queue[_Numbered](CAPACITY)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_feed_numbered(items, queue))
            for _ in range(concurrency):
                tasks.create_task(_ordered_worker(queue, results))
            return await _in_order(results, items)

    return uvloop.run(main())


async def _feed_numbered(items: int, queue: asyncio.Queue[_Numbered | None]) -> None:
    for numbered in enumerate(range(items)):
        await queue.put(numbered)
    await queue.put(END)


async def _ordered_worker(queue: asyncio.Queue[_Numbered | None], results: asyncio.Queue[_Numbered]) -> None:
    while (numbered := await queue.get()) is not END:
        number, item = numbered
        await results.put((number, await visit(item)))
    await queue.put(END)  # for the other workers


async def _in_order(queue: asyncio.Queue[_Numbered], items: int) -> list[int]:
    early: dict[int, int] = {}
    results: list[int] = []
    for _ in range(items):
        number, result = await queue.get()
        early[number] = result
        while len(results) in early:
            results.append(early.pop(len(results)))
    return results


# ---- many into one


def fair(inputs: int, items: int) -> int:
    inputs = min(inputs, items)

    async def main() -> int:
        total, ended = 0, 0
        queue = asyncio.Queue[int | None](CAPACITY)
        async with asyncio.TaskGroup() as tasks:
            for _ in range(inputs):
                tasks.create_task(_feed(range(items // inputs), queue))
            while ended < inputs:
                item = await queue.get()
                if item is END:
                    ended += 1
                else:
                    total = add(total, item)
        return total

    return uvloop.run(main())


channel = fair
"""It is nothing more than a queue that many tasks put into."""
