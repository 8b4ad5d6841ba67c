"""What do the report and the statistics cost, which cannot be switched off?

The pipeline of `hop` is run in three ways. As it is. Without the code that only the report needs, removed in the
contender's own process: the clock is not read around a wait, and no link keeps its peak, or what it held when a burst
began. (The counts of items stay: links and the item numbers in errors need them.) And as it is while a task calls
``statistics()`` a thousand times a second.

The bound is on the cost of counting; the cost of asking is only shown.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import trio

from funcpipe_trio import Run
from funcpipe_trio._runtime.core.protocols import worth_a_pull
from funcpipe_trio._runtime.links.link import Link
from funcpipe_trio._runtime.stages.chain import FULL, BurstEnd
from funcpipe_trio._runtime.stages.stage import Stage

from ._model import Benchmark, Case, Contender, Target
from ._work import add
from .contenders.ours import hop_line

__all__ = ["BENCHMARK"]

STAGES, CAPACITIES = 5, (16, 64)
PERIOD = 0.001
"""Seconds between two calls of `statistics()`."""


def run(
    capacity: int,
    patched: Callable[[], AbstractContextManager[object]],
    watch: Callable[[Run[int]], Any] | None,
    items: int,
) -> int:
    last = deque([0], maxlen=1)
    line = hop_line(STAGES, capacity, items).scan(add, 0).tap(last.append)

    async def main() -> None:
        async with trio.open_nursery() as watching:
            async with trio.open_nursery() as nursery:
                handle = await nursery.start(line.run)
                if watch is not None:
                    watching.start_soon(watch, handle)
            watching.cancel_scope.cancel()

    with patched():
        trio.run(main)
    return last[0]


async def _look(handle: Run[int]) -> None:
    while True:
        handle.statistics()
        await trio.sleep(PERIOD)


@contextmanager
def _counting_less() -> Iterator[None]:
    with ExitStack() as stack:
        stack.enter_context(patch.object(Stage, "park", _park))
        stack.enter_context(patch.object(Link, "commit", _commit))
        stack.enter_context(patch.object(Link, "begin", _begin))
        yield


async def _park(stage: Stage, reason: BurstEnd) -> None:
    """Wait as `Stage.park` does, without reading the clock."""
    chain = stage.chain
    chain.outlet.turn_over()
    if chain.stopped is not None or (chain.outlet.room() if reason is FULL else worth_a_pull(chain.inlet)):
        chain.turn.end()
        return
    if reason is FULL:
        chain.inlet.release(parking=True)
        chain.outlet.wants_room = True
    stage.parked_for = reason
    await stage._parking
    chain.turn.begin()


def _begin(_link: Link) -> None:
    """Do not note what the link held when the burst began."""


def _commit(link: Link, count: int) -> None:
    """Hand over as `Link.commit` does, without the peak."""
    link.passed += count
    if link.closed is not None:
        link._discard_buffer(link.closed)
    elif count:
        link.receiver.on_input()


def _case(capacity: int) -> Case:
    return Case(
        name=f"capacity {capacity}",
        contenders=(
            Contender("as it is", partial(run, capacity, nullcontext, None)),
            Contender("without", partial(run, capacity, _counting_less, None)),
            Contender("asked 1000 times a second", partial(run, capacity, nullcontext, _look)),
        ),
        targets=(
            Target("as it is", "without", at_most=1.05),
            Target("asked 1000 times a second", "as it is"),
        ),
        items=500_000,
        quick_items=10_000,
        divisor=STAGES,
        points={"capacity": capacity},
    )


BENCHMARK = Benchmark(
    name="report",
    question="what do the report and the statistics cost?",
    unit="ns per item per hop",
    cases=tuple(map(_case, CAPACITIES)),
)
