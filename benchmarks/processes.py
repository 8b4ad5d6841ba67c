"""How long must a call take for a process to pay off, and what does chunking gain?

A pure Python function, which holds the interpreter while it computes, is applied to a list of items: in place (a sync
map), in two threads, in two worker processes item by item, and in two worker processes in chunks of 4, 16 and 64 items.
Two processes on two free cores can at best double the speed.

Elapsed time is compared, since most of the CPU time is spent in other processes; each contender measures it once its
workers have started and imported what they need. There is no target: how fast two processes are depends on the machine.
The samples (``--json``) also contain the CPU time of the pipeline's own process alone, which is what a call costs the
event loop, and which a busy machine does not change much.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter, process_time

import trio

from funcpipe_trio import Pipeline, Step, chunked, processes, threads

from ._model import Benchmark, Case, Contender, Metric, Sample, Target, Timed
from ._work import compute

__all__ = ["BENCHMARK"]

WORKERS = 2
CHUNKS = (4, 16, 64)
LOOPS = {0.05: 770, 0.3: 4_600, 1: 15_400, 5: 77_000}
"""Loops of the function that take about that many milliseconds."""


def _timed(make: Callable[[int], Pipeline[int]], first: int, items: int) -> Timed:
    """Run a pipeline twice in one trio run, so with the same workers, and time the second run.

    The first run gets enough items to start all workers.
    """

    async def main() -> Timed:
        await make(first).run()
        cpu, wall = process_time(), perf_counter()
        results = await make(items).collect()
        return Timed(results, Sample(process_time() - cpu, perf_counter() - wall))

    return trio.run(main)


def in_place(loops: int, items: int) -> Pipeline[int]:
    return Pipeline.from_iterable(range(items)).map(partial(compute, loops))


def in_threads(loops: int, items: int) -> Pipeline[int]:
    step = Step(partial(compute, loops)).on(threads(WORKERS))
    return Pipeline.from_iterable(range(items)).map(step, concurrency=WORKERS)


def in_processes(loops: int, items: int) -> Pipeline[int]:
    step = Step(partial(compute, loops)).on(processes(WORKERS))
    return Pipeline.from_iterable(range(items)).map(step, concurrency=2 * WORKERS)


def in_chunks(loops: int, size: int, items: int) -> Pipeline[int]:
    step = Step(chunked(partial(compute, loops))).on(processes(WORKERS))
    return Pipeline.from_iterable(range(items)).batch(size).map(step, concurrency=2 * WORKERS).unbatch()


def _contender(name: str, make: Callable[[int], Pipeline[int]], size: int = 1) -> Contender:
    return Contender(name, partial(_timed, make, 2 * WORKERS * size), lambda timed: timed.result, needs=("anyio",))


def _case(milliseconds: float) -> Case:
    loops = LOOPS[milliseconds]
    ways = (
        _contender("threads", partial(in_threads, loops)),
        _contender("processes", partial(in_processes, loops)),
        *(_contender(f"processes, chunks of {size}", partial(in_chunks, loops, size), size) for size in CHUNKS),
    )
    return Case(
        name=f"a call of about {milliseconds:g} ms",
        contenders=(_contender("in place", partial(in_place, loops)), *ways),
        targets=tuple(Target("in place", each.name) for each in ways),
        items=max(256, int(400 / milliseconds)),
        quick_items=128,
        check_items=100,
        points={"loops of the function": loops},
    )


BENCHMARK = Benchmark(
    name="processes",
    question="how long must a call take for a process to pay off, and what does chunking gain?",
    unit="ns per item",
    cases=tuple(map(_case, LOOPS)),
    metric=Metric.WALL,
)
