"""What a trio user would write first: memory channels, ``async for`` and ``await send``, a task for each stage."""

from __future__ import annotations

import math

import trio

from .._trio_work import feed, visit
from .._work import MAX_DELAY, add, inc

__all__ = [
    "batch",
    "calls",
    "channel",
    "fair",
    "fair_runs",
    "hop",
    "lifecycle",
    "loop",
    "pool_ordered",
    "pool_unordered",
    "tokens_there",
]

CAPACITY = 16  # of a channel, unless a benchmark sets it; the default of a link


def hop(stages: int, capacity: int, items: int) -> int:
    async def main() -> int:
        total = 0
        async with trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[int](capacity)
            nursery.start_soon(feed, range(items), send)
            for _ in range(stages - 1):
                send, next_receive = trio.open_memory_channel[int](capacity)
                nursery.start_soon(_stage, receive, send)
                receive = next_receive
            async with receive:
                async for item in receive:
                    total = add(total, inc(item))
        return total

    return trio.run(main)


async def _stage(receive: trio.MemoryReceiveChannel[int], send: trio.MemorySendChannel[int]) -> None:
    async with receive, send:
        async for item in receive:
            await send.send(inc(item))


# ---- a pool of workers


def calls(concurrency: int, items: int) -> list[int]:
    """Only the calls of a pool, as many at once: no pool on trio can cost less."""
    results = [0] * items

    async def share(first: int) -> None:
        for number in range(first, items, concurrency):
            results[number] = await visit(number)

    async def main() -> list[int]:
        async with trio.open_nursery() as nursery:
            for first in range(concurrency):
                nursery.start_soon(share, first)
        return results

    return trio.run(main)


def pool_unordered(concurrency: int, items: int) -> list[int]:
    async def main() -> list[int]:
        send_item, receive_item = trio.open_memory_channel[int](CAPACITY)
        send, receive = trio.open_memory_channel[int](CAPACITY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed, range(items), send_item)
            async with send, receive_item:
                for _ in range(concurrency):
                    nursery.start_soon(_unordered_worker, receive_item.clone(), send.clone())
            return [result async for result in receive]

    return trio.run(main)


async def _unordered_worker(receive: trio.MemoryReceiveChannel[int], send: trio.MemorySendChannel[int]) -> None:
    async with receive, send:
        async for item in receive:
            await send.send(await visit(item))


def loop(concurrency: int, items: int) -> int:
    """Walk a tree with workers, an unbounded channel, and a count of what is on its way."""

    async def main() -> int:
        send, receive = trio.open_memory_channel[int](math.inf)
        total, left = 0, min(items, 1)

        async def work() -> None:
            nonlocal total, left
            async for item in receive:
                result = await visit(item)
                total += result
                for new in range(2 * item + 1, min(2 * item + 3, items)):
                    left += 1
                    send.send_nowait(new)
                left -= 1
                if not left:
                    send.close()

        async with trio.open_nursery() as nursery:
            send.send_nowait(0) if left else send.close()
            for _ in range(concurrency):
                nursery.start_soon(work)
        return total

    return trio.run(main)


_Numbered = tuple[int, int]


def pool_ordered(concurrency: int, items: int) -> list[int]:
    """Workers carry each item's number; early results wait in a dict, which has no bound: that makes it cheaper."""

    async def main() -> list[int]:
        send_item, receive_item = trio.open_memory_channel[_Numbered](CAPACITY)
        send, receive = trio.open_memory_channel[_Numbered](CAPACITY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_feed_numbered, items, send_item)
            async with send, receive_item:
                for _ in range(concurrency):
                    nursery.start_soon(_ordered_worker, receive_item.clone(), send.clone())
            return await _in_order(receive)

    return trio.run(main)


async def _feed_numbered(items: int, send: trio.MemorySendChannel[_Numbered]) -> None:
    async with send:
        for numbered in enumerate(range(items)):
            await send.send(numbered)


async def _ordered_worker(
    receive: trio.MemoryReceiveChannel[_Numbered], send: trio.MemorySendChannel[_Numbered]
) -> None:
    async with receive, send:
        async for number, item in receive:
            await send.send((number, await visit(item)))


async def _in_order(receive: trio.MemoryReceiveChannel[_Numbered]) -> list[int]:
    early: dict[int, int] = {}
    results: list[int] = []
    async for number, result in receive:
        early[number] = result
        while len(results) in early:
            results.append(early.pop(len(results)))
    return results


# ---- many into one


def fair(inputs: int, items: int) -> int:
    inputs = min(inputs, items)
    return trio.run(_forward, inputs, items // inputs)


channel = fair
"""It is nothing more than a memory channel with many senders."""


def fair_runs(inputs: int, most_inputs: int, items: int) -> int:
    """Forward the items, an equal number from each input, in as many consecutive runs as that takes."""
    each = max(1, items // most_inputs)

    async def main() -> int:
        total = 0
        for _ in range(items // each // inputs):
            total += await _forward(inputs, each)
        return total

    return trio.run(main)


async def _forward(inputs: int, each: int) -> int:
    total = 0
    send, receive = trio.open_memory_channel[int](CAPACITY)
    async with trio.open_nursery() as nursery:
        async with send:
            for _ in range(inputs):
                nursery.start_soon(feed, range(each), send.clone())
        async for item in receive:
            total = add(total, item)
    return total


# ---- batches


def batch(size: int, items: int) -> int:
    async def main() -> int:
        total = 0
        send, receive = trio.open_memory_channel[int](CAPACITY)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed, range(items), send)
            while items_in_batch := await _next_batch(receive, size):
                total = add(total, sum(items_in_batch))
        return total

    return trio.run(main)


async def _next_batch(receive: trio.MemoryReceiveChannel[int], size: int) -> list[int]:
    """Wait for the first item, then for more until the batch is full or its time is over; empty at the end."""
    collected: list[int] = []
    try:
        collected.append(await receive.receive())
        with trio.move_on_after(MAX_DELAY):
            while len(collected) < size:
                collected.append(await receive.receive())
    except trio.EndOfChannel:
        pass
    return collected


# ---- start and end


def lifecycle(tasks: int, items: int) -> int:
    """Start tasks that wait, and cancel them."""

    async def main() -> int:
        for _ in range(items):
            async with trio.open_nursery() as nursery:
                for _ in range(tasks):
                    nursery.start_soon(trio.sleep_forever)
                await trio.lowlevel.checkpoint()  # all tasks have started
                nursery.cancel_scope.cancel()
        return items

    return trio.run(main)


# ---- a limit


def tokens_there(items: int) -> int:
    """Take tokens that are there."""

    async def main() -> int:
        rate, burst, taken = 1e9, 1e6, 0
        tokens, since = burst, trio.current_time()
        for _ in range(items):
            await trio.lowlevel.checkpoint()
            now = trio.current_time()
            tokens, since = min(burst, tokens + (now - since) * rate), now
            if tokens < 1:
                await trio.sleep((1 - tokens) / rate)
            tokens -= 1
            taken += 1
        return taken

    return trio.run(main)
