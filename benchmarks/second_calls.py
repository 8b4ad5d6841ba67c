"""What do a hedge and a coalesce around a call cost where they do not strike?

Each item goes through one async call in a separate stage, eight at a time: bare, as a `Step` that would call again
after a minute, and as one that shares equal calls, of which there are none. The call blocks once, which is the cheapest
that waits at all, or waits for the clock, as most calls do. The last contender has a timeout around the coalesce: then
a caller may leave alone, and each call gets a task of its own.
"""

from __future__ import annotations

from ._model import Benchmark, Case, Contender, Target, way
from ._trio_work import doze, visit

__all__ = ["BENCHMARK"]


def _case(name: str, call: object, at_most: float | None) -> Case:
    return Case(
        name=name,
        contenders=(
            Contender("hedge", way("ours:second_call_hedge", call)),
            Contender("coalesce", way("ours:second_call_coalesce", call)),
            Contender("coalesce in a task", way("ours:second_call_task", call)),
            Contender("bare", way("ours:second_call_bare", call)),
        ),
        targets=(
            Target("hedge", "bare", at_most=at_most),
            Target("coalesce", "bare", at_most=at_most),
            Target("coalesce in a task", "bare"),
        ),
        items=50_000,
        quick_items=3_000,
    )


BENCHMARK = Benchmark(
    name="second_calls",
    question="what do a hedge and a coalesce cost where they do not strike?",
    unit="ns per item",
    cases=(_case("a call that waits for the clock", doze, 1.1), _case("a call that blocks once", visit, None)),
)
