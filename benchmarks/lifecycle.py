"""What does it cost to start a pipeline and to leave it?

A pipeline of ten stages is opened, all its tasks get their first turn, and it is left while its source waits. The
contender is the minimum for ten tasks: a nursery with ten tasks that wait, and its cancellation. The source is an async
generator, iterated by the first of the ten: a producer would be an eleventh task, with its own nursery and channel. The
unit is one such start and end.
"""

from __future__ import annotations

from ._model import Benchmark, Case, Contender, Target, way

__all__ = ["BENCHMARK"]

STAGES = 10
OTHER_STAGES = (1, 100)


def _case(stages: int) -> Case:
    return Case(
        name=f"{stages} stage{'s' if stages > 1 else ''}",
        contenders=(
            Contender("funcpipe", way("ours:lifecycle", stages)),
            Contender("nursery", way("by_trio:lifecycle", stages)),
        ),
        targets=(Target("funcpipe", "nursery", at_most=2.0 if stages == STAGES else None),),
        items=30_000 // stages,
        quick_items=1_000 // stages,
        check_items=5,
        points={"stages": stages},
    )


BENCHMARK = Benchmark(
    name="lifecycle",
    question="what does it cost to start a pipeline and to leave it?",
    unit="us per start and end",
    per_second=1e6,
    cases=(_case(STAGES), *map(_case, OTHER_STAGES)),
)
