"""Does memory grow with the length of the stream?

Two sources are merged fairly, each item goes through an async call with ten calls at once, and the consumer is slow: it
lets all other tasks run, twice, before it takes the next item, so that every link is always full. The peak (of what
Python allocates, by tracemalloc) is measured once for N items and once for 100 N. A run that kept one word for each of
a million items would show as 8 MB. One round is enough: the peak is the same in each, and a million items take minutes
under tracemalloc.
"""

from __future__ import annotations

import trio

from funcpipe_trio import Pipeline, fair_merge

from ._model import Benchmark, Case, Contender, Metric, Target
from ._trio_work import visit

__all__ = ["BENCHMARK"]

CONCURRENCY = 10
TURNS = 2


def run_funcpipe(items: int) -> int:
    async def main() -> int:
        half = range(items // 2)
        total = 0
        merged = fair_merge({"a": Pipeline.from_iterable(half), "b": Pipeline.from_iterable(half)})
        async with merged.map(visit, concurrency=CONCURRENCY).open() as run:
            async for item in run:
                total += item
                for _ in range(TURNS):
                    await trio.lowlevel.checkpoint()
        return total

    return trio.run(main)


BENCHMARK = Benchmark(
    name="memory",
    question="does memory grow with the length of the stream?",
    unit="MiB at the peak",
    metric=Metric.PEAK,
    most_rounds=1,
    cases=(
        Case(
            name="slow consumer",
            contenders=(Contender("N items", run_funcpipe), Contender("100 N items", run_funcpipe, times=100)),
            targets=(Target("100 N items", "N items", at_most=1.0, difference=True),),
            items=10_000,
            quick_items=50,
        ),
    ),
)
