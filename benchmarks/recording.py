"""What does a `Recorder` cost?

A pool is run as it is and with a recorder, with calls that are a single checkpoint, the cheapest there are, and with
calls that wait for a timer, as most do.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import trio

from funcpipe_trio import Pipeline, Recorder

from ._model import Benchmark, Case, Contender, Target

__all__ = ["BENCHMARK"]

Call = Callable[[int], Awaitable[int]]
SECONDS = 0.001
"""Of a call that waits."""


async def checkpoint(item: int) -> int:
    await trio.lowlevel.checkpoint()
    return item


async def timer(item: int) -> int:
    await trio.sleep(SECONDS)
    return item


def run(call: Call, concurrency: int, is_recorded: bool, items: int) -> int:
    plan = Pipeline.from_iterable(range(items)).map(call, concurrency=concurrency)
    return trio.run(partial(plan.run, record=Recorder() if is_recorded else None)).delivered


def _case(name: str, call: Call, concurrency: int, items: int) -> Case:
    return Case(
        name=f"{name}, concurrency {concurrency}",
        contenders=(
            Contender("as it is", partial(run, call, concurrency, False)),
            Contender("recorded", partial(run, call, concurrency, True)),
        ),
        targets=(Target("recorded", "as it is", at_most=1.1),),
        items=items,
        quick_items=1_000,
        check_items=500,
    )


BENCHMARK = Benchmark(
    name="recording",
    question="what does it cost to record a run?",
    unit="us per item",
    cases=(
        _case("checkpoint", checkpoint, 1, 50_000),
        _case("checkpoint", checkpoint, 10, 50_000),
        _case("timer", timer, 10, 20_000),
    ),
)
