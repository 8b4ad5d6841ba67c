"""What does `FairChannel` alone cost, without any pipeline, compared with a trio memory channel?

N tasks ``await send(item)``, one task ``async for``: each sends into its own input, or all into clones of one memory
channel (anyio: stream, asyncio: queue), which gives no shares. Like trio's, our ``send`` and ``receive`` are always
checkpoints, so both pay for two trips through the scheduler; asyncio's queue yields only when it is full or empty.
"""

from __future__ import annotations

from ._model import Benchmark, Case, Contender, Target, way

__all__ = ["BENCHMARK"]

MOST = {1: None, 10: 1.35, 100: None, 1_000: 1.5}
"""Upper bounds, as multiples of the cost of a memory channel, by the number of inputs."""


def _case(inputs: int) -> Case:
    return Case(
        name=f"{inputs:_} input{'s' if inputs > 1 else ''}",
        contenders=(
            Contender("FairChannel", way("ours:channel", inputs)),
            Contender("trio", way("by_trio:channel", inputs)),
            Contender("anyio on trio", way("by_anyio:channel", "trio", inputs), needs=("anyio",)),
            Contender("asyncio on uvloop", way("by_asyncio:channel", inputs), needs=("uvloop",)),
        ),
        targets=(Target("FairChannel", "trio", at_most=MOST[inputs]), Target("FairChannel", "anyio on trio")),
        items=100_000,
        quick_items=4_000,
        check_items=2 * inputs,
        points={"inputs": inputs},
    )


BENCHMARK = Benchmark(
    name="channel",
    question="what does FairChannel cost, next to a memory channel?",
    unit="ns per item",
    cases=tuple(map(_case, MOST)),
)
