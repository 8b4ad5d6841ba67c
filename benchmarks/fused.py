"""What do sync operations cost that share a task, next to plain generators?

Five sync maps are fused into the stage of the source, and the sum into the same stage: one task, no link. The contender
is a chain of generator expressions that call the same functions, without trio: the floor of what Python can do, for it
counts nothing, checks nothing and never lets others run.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from funcpipe_trio import Pipeline

from ._harness import Benchmark, Case, Contender, Target
from ._work import add, inc

__all__ = ["BENCHMARK"]

MAPS = 5


def run_funcpipe(items: int) -> int:
    line = Pipeline.from_iterable(range(items))
    for _ in range(MAPS):
        line = line.map(inc)
    return trio.run(line.fold, add, 0)


def _mapped(values: Iterable[int]) -> Iterable[int]:
    return (inc(value) for value in values)


def run_generators(items: int) -> int:
    values: Iterable[int] = range(items)
    for _ in range(MAPS):
        values = _mapped(values)
    total = 0
    for value in values:
        total = add(total, value)
    return total


BENCHMARK = Benchmark(
    name="fused",
    question="what do fused sync operations cost, next to plain generators?",
    unit="ns per item per map",
    cases=(
        Case(
            name=f"{MAPS} maps",
            contenders=(Contender("funcpipe", run_funcpipe), Contender("generators", run_generators)),
            targets=(Target("funcpipe", "generators", at_most=3.0),),
            items=1_000_000,
            quick_items=100_000,
            parts=MAPS,
            point=MAPS,
        ),
    ),
)
