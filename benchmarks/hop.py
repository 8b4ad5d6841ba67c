"""What does it cost to pass an item from one task to the next?

Five stages, each a task of its own, add one to every item: six tasks with the source, five links, so five hops; the
last stage adds the results up, in both contenders. A sync map is fused into the stage before it, so the pipeline
sets a buffer in front of each one: that ends a stage, and gives the link its capacity. The contender is what a trio
user would write first: memory channels, ``async for`` and ``await send``.

At capacity 1 nothing can be gained by handing over more than one item at a time; the target is only not to lose.
"""

from __future__ import annotations

from functools import partial

import trio

from funcpipe_trio import Pipeline

from ._harness import Benchmark, Case, Contender, Target
from ._work import add, feed, inc

__all__ = ["BENCHMARK"]

STAGES = 5
TARGETS = {1: 1.0, 16: 8.0, 64: 15.0}


def run_funcpipe(capacity: int, items: int) -> int:
    line = Pipeline.from_iterable(range(items))
    for _ in range(STAGES):
        line = line.buffer(capacity).map(inc)
    return trio.run(line.fold, add, 0)


async def _stage(receive: trio.MemoryReceiveChannel[int], send: trio.MemorySendChannel[int]) -> None:
    async with receive, send:
        async for item in receive:
            await send.send(inc(item))


def run_trio(capacity: int, items: int) -> int:
    async def main() -> int:
        total = 0
        async with trio.open_nursery() as nursery:
            send, receive = trio.open_memory_channel[int](capacity)
            nursery.start_soon(feed, range(items), send)
            for _ in range(STAGES - 1):
                send, next_receive = trio.open_memory_channel[int](capacity)
                nursery.start_soon(_stage, receive, send)
                receive = next_receive
            async with receive:
                async for item in receive:
                    total += inc(item)
        return total

    return trio.run(main)


def _case(capacity: int) -> Case:
    return Case(
        name=f"capacity {capacity}",
        contenders=(
            Contender("funcpipe", partial(run_funcpipe, capacity)),
            Contender("trio", partial(run_trio, capacity)),
        ),
        targets=(Target("trio", "funcpipe", at_least=TARGETS[capacity]),),
        items=200_000,
        quick_items=5_000,
        parts=STAGES,
        point=capacity,
    )


BENCHMARK = Benchmark(
    name="hop",
    question="what does it cost to pass an item from one task to the next?",
    unit="ns per item per hop",
    cases=tuple(map(_case, TARGETS)),
)
