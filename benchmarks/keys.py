"""What does it cost to treat each key apart?

Batches of 10, and objects with state, for one stream and for each of 10,000 keys; calls that never wait, for all and
for each of 1,000 keys, also with a rate that is never reached.
"""

from __future__ import annotations

from ._model import Benchmark, Case, Contender, Target, way

__all__ = ["BENCHMARK"]

KEYS = 10_000
SIZE = 10


def _batches(name: str, delay: bool) -> Case:
    return Case(
        name=name,
        contenders=(
            Contender("by key", way("ours:batch_by_key", SIZE, KEYS, delay)),
            Contender("one batch", way("ours:batch_by_key", SIZE, 0, delay)),
        ),
        targets=(Target("by key", "one batch", at_most=3.0),),
        items=400_000,
        quick_items=20_000,
        check_items=1_000,
    )


OBJECTS = Case(
    name="objects",
    contenders=(
        Contender("by key", way("ours:objects_by_key", KEYS)),
        Contender("one object", way("ours:objects_by_key", 0)),
    ),
    targets=(Target("by key", "one object", at_most=3.0),),
    items=400_000,
    quick_items=20_000,
    check_items=1_000,
)


CALLS = Case(
    name="calls",
    contenders=(
        Contender("by key", way("ours:call_by_key", 1_000, False)),
        Contender("by key, at a rate", way("ours:call_by_key", 1_000, True)),
        Contender("no key", way("ours:call_by_key", 0, False)),
    ),
    targets=(Target("by key", "no key", at_most=2.0), Target("by key, at a rate", "no key", at_most=4.0)),
    items=50_000,
    quick_items=2_000,
    check_items=500,
)


BENCHMARK = Benchmark(
    name="keys",
    question="what does it cost to treat each key apart?",
    unit="ns per item",
    cases=(_batches("batches", False), _batches("batches with a delay", True), OBJECTS, CALLS),
)
