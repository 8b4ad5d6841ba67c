"""What do sync operations that share a task cost, compared with plain generators?

Five sync maps are fused into the stage of the source, and the sum into the same stage: one task, no link. The bound is
relative to a chain of generator expressions that call the same functions, without trio: the minimum in Python, since it
counts nothing, checks nothing and never lets others run. The libraries that pull or push through a chain of operators,
without tasks, are also measured.
"""

from __future__ import annotations

from ._model import Benchmark, Case, Contender, Target, way

__all__ = ["BENCHMARK"]

MAPS = 5
OTHER_MAPS = (1, 20)


def _case(maps: int) -> Case:
    return Case(
        name=f"{maps} map{'s' if maps > 1 else ''}",
        contenders=(
            Contender("funcpipe", way("ours:fused", maps)),
            Contender("generators", way("by_generators:fused", maps)),
            Contender("streamable", way("by_streamable:fused", maps), needs=("streamable", "uvloop")),
            Contender("reactivex", way("by_reactivex:fused", maps), needs=("reactivex", "uvloop")),
            Contender("aiostream", way("by_aiostream:fused", maps), needs=("aiostream", "uvloop")),
        ),
        targets=(
            Target("funcpipe", "generators", at_most=3.0 if maps == MAPS else None),
            *(Target(library, "funcpipe") for library in ("streamable", "reactivex", "aiostream")),
        ),
        items=1_000_000 // maps,
        quick_items=50_000 // maps,
        divisor=maps,
        points={"maps": maps},
    )


BENCHMARK = Benchmark(
    name="fused",
    question="what do fused sync operations cost, next to plain generators?",
    unit="ns per item per map",
    cases=(_case(MAPS), *map(_case, OTHER_MAPS)),
)
