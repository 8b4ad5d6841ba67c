"""What does a fair merge cost, compared with a merge that is not fair, and does it grow with the number of inputs?

N sources are merged into one stream, which is summed up. The contenders give no shares. By hand, each source is a task
that sends into the same channel, so that nothing stands between it and the consumer; that starts as few tasks as the
fair merge does. Of the libraries, aiostream hands out what is ready first in the order of its list, slurry and
streamable use round-robin. The same number of items is divided among the sources.

Growth: both contenders merge a million items, a hundred from each input; one in a single run with ten thousand inputs,
the other in a thousand runs, one after another, with ten inputs each. So both set up and end ten thousand inputs, and
the difference is the cost of the number of inputs.
"""

from __future__ import annotations

from ._model import Benchmark, Case, Contender, Target, way

__all__ = ["BENCHMARK"]

MOST = 10_000
LIBRARIES = 1_000
"""The largest number of inputs for the libraries: above it, most of their time is setup."""


def _case(inputs: int) -> Case:
    libraries = (
        Contender("aiostream", way("by_aiostream:fair", inputs), needs=("aiostream", "uvloop")),
        Contender("streamable", way("by_streamable:fair", inputs), needs=("streamable", "uvloop")),
        Contender("slurry", way("by_slurry:fair", inputs), isolated="slurry==1.3.1"),
    )
    return Case(
        name=f"{inputs:_} inputs",
        contenders=(
            Contender("funcpipe", way("ours:fair", inputs)),
            Contender("trio", way("by_trio:fair", inputs)),
            Contender("asyncio on uvloop", way("by_asyncio:fair", inputs), needs=("uvloop",)),
            *(libraries if inputs <= LIBRARIES else ()),
        ),
        targets=(Target("trio", "funcpipe", at_least=1.0), Target("asyncio on uvloop", "funcpipe")),
        items=100_000,
        quick_items=max(5_000, inputs),
        check_items=2 * min(inputs, LIBRARIES),
        points={"inputs": inputs},
    )


GROWTH = Case(
    name=f"{MOST:_} inputs at once, or 10 at a time",
    contenders=(
        Contender(f"funcpipe, {MOST:_} inputs", way("ours:fair", MOST)),
        Contender("funcpipe, 10 inputs", way("ours:fair_runs", 10, MOST)),
        Contender(f"trio, {MOST:_} inputs", way("by_trio:fair", MOST)),
        Contender("trio, 10 inputs", way("by_trio:fair_runs", 10, MOST)),
    ),
    targets=(
        Target(f"funcpipe, {MOST:_} inputs", "funcpipe, 10 inputs", at_most=2.5),
        Target(f"trio, {MOST:_} inputs", "trio, 10 inputs"),
    ),
    items=100 * MOST,
    quick_items=MOST,
    check_items=1_000,
)

BENCHMARK = Benchmark(
    name="fair",
    question="what does a fair merge cost, next to tasks that send into one channel?",
    unit="ns per item",
    cases=(*map(_case, (2, 10, 1_000, MOST)), GROWTH),
)
