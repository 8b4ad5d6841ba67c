"""What do a timeout and retries around a call cost when the call succeeds?

Each item goes through one async call in a separate stage, one at a time: bare; with ``trio.fail_after`` around it,
inside the user's function, which is the least that a trio user would write; and as a `Step` with a timeout and three
attempts. The call returns at once, or blocks once. No timeout ever expires.
"""

from __future__ import annotations

from ._model import Benchmark, Case, Contender, Target, way
from ._trio_work import visit
from ._work import answer

__all__ = ["BENCHMARK"]


def _case(name: str, call: object, at_most: float) -> Case:
    return Case(
        name=name,
        contenders=(
            Contender("timeout and retry", way("ours:resilience_step", call)),
            Contender("fail_after", way("ours:resilience_scope", call)),
            Contender("bare", way("ours:resilience_bare", call)),
        ),
        targets=(Target("timeout and retry", "fail_after", at_most=at_most), Target("timeout and retry", "bare")),
        items=100_000,
        quick_items=3_000,
    )


BENCHMARK = Benchmark(
    name="resilience",
    question="what do a timeout and retries around a call cost, next to trio.fail_after?",
    unit="ns per item",
    cases=(_case("a call that never blocks", answer, 1.0), _case("a call that blocks once", visit, 1.25)),
)
