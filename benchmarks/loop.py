"""What does it cost an item to go round in a loop?

A tree of items is walked: each result gives two new ones, until there are as many as asked for. The same number of
items without a loop goes through a merge and the same function, which is what a loop is made of. The difference is what
the loop adds: asking for new work, putting it in line, and knowing the end. By hand it is an unbounded channel and a
count of what is on its way.
"""

from __future__ import annotations

from ._model import Benchmark, Case, Contender, Target, way

__all__ = ["BENCHMARK"]

MOST = 2000.0
"""ns that a loop may add to an item."""

_CASES = tuple(
    Case(
        name="sync" if sync else "in calls, 4 at once",
        contenders=(
            Contender("loop", way("ours:loop", sync)),
            Contender("merge", way("ours:loop_merged", sync)),
            *(() if sync else (Contender("trio", way("by_trio:loop", 4)),)),
        ),
        targets=(
            Target("loop", "merge", at_most=MOST if sync else None, difference=True),
            *(() if sync else (Target("trio", "loop"),)),
        ),
        items=200_000 if sync else 50_000,
        quick_items=10_000,
        check_items=1_000,
    )
    for sync in (True, False)
)

BENCHMARK = Benchmark(
    name="loop",
    question="what does it cost an item to go round in a loop?",
    unit="ns per item",
    cases=_CASES,
)
