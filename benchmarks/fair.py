"""What does a fair merge cost, next to a merge that is not fair?

N sources are merged into one stream, which is summed up. The contender gives no shares at all: each source is a task
that sends into the same memory channel, so that nothing stands between it and the consumer; it starts as few tasks as
the fair merge does. The same number of items is divided among the sources.
"""

from __future__ import annotations

from functools import partial

import trio

from funcpipe_trio import Pipeline, fair_merge

from ._harness import Benchmark, Case, Contender, Target
from ._work import add, feed

__all__ = ["BENCHMARK"]

CAPACITY = 16  # of the hand-written channel; that of an input, by default


def run_funcpipe(inputs: int, items: int) -> int:
    each = range(items // inputs)
    line = fair_merge({key: Pipeline.from_iterable(each) for key in range(inputs)})
    return trio.run(line.fold, add, 0)


def run_trio(inputs: int, items: int) -> int:
    async def main() -> int:
        total = 0
        send, receive = trio.open_memory_channel[int](CAPACITY)
        async with trio.open_nursery() as nursery:
            async with send:
                for _ in range(inputs):
                    nursery.start_soon(feed, range(items // inputs), send.clone())
            async for item in receive:
                total = add(total, item)
        return total

    return trio.run(main)


def _case(inputs: int) -> Case:
    return Case(
        name=f"{inputs} inputs",
        contenders=(
            Contender("funcpipe", partial(run_funcpipe, inputs)),
            Contender("trio", partial(run_trio, inputs)),
        ),
        targets=(Target("trio", "funcpipe", at_least=1.0),),
        items=100_000,
        quick_items=10_000,
        check_items=2 * inputs,
        point=inputs,
    )


BENCHMARK = Benchmark(
    name="fair",
    question="what does a fair merge cost, next to tasks that send into one channel?",
    unit="ns per item",
    cases=tuple(map(_case, (2, 10, 1000))),
)
