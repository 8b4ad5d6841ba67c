"""What does it cost to pass an item from one task to the next?

Stages, each in its own task, add one to every item; the last one adds up the results. With the source that is one more
task than stages, so as many hops as stages. A sync map is fused into the stage before it, so our pipeline has a buffer
before each one: that ends a stage, and gives the link its capacity.

The contenders are what their users would write first. Trio and anyio yield at every send and every receive; asyncio's
queue, like our links, only when it is full or empty. Slurry's channels always have capacity 0; it is shown at 1.

At capacity 1 handing over more than one item at a time gains nothing; the target is only not to lose.
"""

from __future__ import annotations

from ._model import Benchmark, Case, Contender, Target, way

__all__ = ["BENCHMARK"]

STAGES, CAPACITY = 5, 16
OTHER_STAGES = (1, 20)
FASTER_THAN_TRIO = {1: 1.0, 4: None, 16: 10.0, 64: 20.0, 256: None}
FASTER_THAN_ASYNCIO = {1: None, 4: 1.0, 16: 1.0, 64: 1.0, 256: 1.0}


def _contenders(stages: int, capacity: int) -> tuple[Contender, ...]:
    peers = [
        Contender("trio", way("by_trio:hop", stages, capacity)),
        Contender("asyncio on uvloop", way("by_asyncio:hop", stages, capacity), needs=("uvloop",)),
        Contender("anyio on trio", way("by_anyio:hop", "trio", stages, capacity), needs=("anyio",)),
        Contender("anyio on uvloop", way("by_anyio:hop", "uvloop", stages, capacity), needs=("anyio", "uvloop")),
    ]
    if capacity == 1:
        peers.append(Contender("slurry", way("by_slurry:hop", stages), isolated="slurry==1.3.1"))
    return (Contender("funcpipe", way("ours:hop", stages, capacity)), *peers)


def _case(stages: int, capacity: int, targets: tuple[Target, ...], points: dict[str, int]) -> Case:
    return Case(
        name=f"capacity {capacity}, {stages} stage{'s' if stages > 1 else ''}",
        contenders=_contenders(stages, capacity),
        targets=targets,
        items=1_000_000 // stages,
        quick_items=25_000 // stages,
        divisor=stages,
        points=points,
    )


def _with_capacity(capacity: int) -> Case:
    targets = (
        Target("trio", "funcpipe", at_least=FASTER_THAN_TRIO[capacity]),
        Target("asyncio on uvloop", "funcpipe", at_least=FASTER_THAN_ASYNCIO[capacity]),
    )
    points = {"capacity": capacity}
    if capacity == CAPACITY:
        points["stages"] = STAGES
    return _case(STAGES, capacity, targets, points)


def _with_stages(stages: int) -> Case:
    return _case(stages, CAPACITY, (Target("trio", "funcpipe"),), {"stages": stages})


BENCHMARK = Benchmark(
    name="hop",
    question="what does it cost to pass an item from one task to the next?",
    unit="ns per item per hop",
    cases=(*map(_with_capacity, FASTER_THAN_TRIO), *map(_with_stages, OTHER_STAGES)),
)
