"""What does it cost to put an item through an async call, with several calls at once?

The call is one bare checkpoint, so that the pool around it shows. The contender is a worker pool written by hand: a
task feeds a memory channel, N workers take from clones of it and send to clones of a second, the main task collects.
Ordered, its workers carry each item's number, and the main task keeps early results in a dict until their turn; unlike
ours that dict has no bound, which makes it cheaper.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from funcpipe_trio import Pipeline

from ._harness import Benchmark, Case, Contender, Target
from ._work import feed, visit

__all__ = ["BENCHMARK"]

CAPACITY = 16  # of the hand-written channels; a link's default


def run_funcpipe(concurrency: int, ordered: bool, items: int) -> list[int]:
    line = Pipeline.from_iterable(range(items)).map(visit, concurrency=concurrency, ordered=ordered)
    return trio.run(line.collect)


async def _unordered_worker(receive: trio.MemoryReceiveChannel[int], send: trio.MemorySendChannel[int]) -> None:
    async with receive, send:
        async for item in receive:
            await send.send(await visit(item))


def run_trio_unordered(concurrency: int, items: int) -> list[int]:
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


_Numbered = tuple[int, int]


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


def run_trio_ordered(concurrency: int, items: int) -> list[int]:
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


def _contenders(concurrency: int) -> tuple[Contender, ...]:
    # The results of an ordered pool must be in order already, those of an unordered one only be the same.
    in_order: Callable[[list[int]], object] = tuple
    as_set: Callable[[list[int]], object] = lambda results: tuple(sorted(results))  # noqa: E731
    return (
        Contender("funcpipe ordered", partial(run_funcpipe, concurrency, True), in_order),
        Contender("funcpipe unordered", partial(run_funcpipe, concurrency, False), as_set),
        Contender("trio ordered", partial(run_trio_ordered, concurrency), in_order),
        Contender("trio unordered", partial(run_trio_unordered, concurrency), as_set),
    )


def _case(concurrency: int) -> Case:
    return Case(
        name=f"concurrency {concurrency}",
        contenders=_contenders(concurrency),
        targets=(
            Target("trio ordered", "funcpipe ordered", at_least=2.0),
            Target("trio unordered", "funcpipe unordered", at_least=2.0),
            Target("funcpipe ordered", "funcpipe unordered", at_most=1.2),
        ),
        items=50_000,
        quick_items=4_000,
        check_items=500,
        point=concurrency,
    )


BENCHMARK = Benchmark(
    name="pool",
    question="what does it cost to put an item through an async call, with several calls at once?",
    unit="ns per item",
    cases=tuple(map(_case, (1, 10, 100))),
)
