"""What do batches and a rate limit add to an item?

Items are added up: as they are; in batches of 100, which would also leave 60 s after their first item; under a rate
limit that is never reached. The difference is what the operation adds to an item. In one case the items come directly
from a list, so that the operation has no link before it except what it needs itself; in the other over a link.

The other libraries also use batches: trio by hand with ``move_on_after``, slurry and streamable with their operators;
aiostream has batches by number only.
"""

from __future__ import annotations

from ._model import Benchmark, Case, Contender, Target, way

__all__ = ["BENCHMARK"]

SIZE = 100
MOST = 1000.0
"""ns that an operation may add to an item."""


def _case(name: str, linked: bool) -> Case:
    return Case(
        name=name,
        contenders=(
            Contender("batch", way("ours:batch", linked, SIZE)),
            Contender("throttle", way("ours:throttle", linked)),
            Contender("neither", way("ours:unlimited", linked)),
        ),
        targets=tuple(Target(each, "neither", at_most=MOST, difference=True) for each in ("batch", "throttle")),
        items=200_000,
        quick_items=10_000,
        check_items=1_000,
    )


LIBRARIES = Case(
    name="batches, next to others",
    contenders=(
        Contender("funcpipe", way("ours:batch", False, SIZE)),
        Contender("trio", way("by_trio:batch", SIZE)),
        Contender("streamable", way("by_streamable:batch", SIZE), needs=("streamable", "uvloop")),
        Contender("aiostream, by number", way("by_aiostream:batch", SIZE), needs=("aiostream", "uvloop")),
        Contender("slurry", way("by_slurry:batch", SIZE), isolated="slurry==1.3.1"),
    ),
    targets=tuple(Target(each, "funcpipe") for each in ("trio", "streamable", "aiostream, by number", "slurry")),
    items=100_000,
    quick_items=5_000,
    check_items=1_000,
)


BENCHMARK = Benchmark(
    name="batch",
    question="what do batches and a rate limit add to an item?",
    unit="ns per item",
    cases=(_case("from a list", False), _case("over a link", True), LIBRARIES),
)
