"""What do operations of the user's own cost, compared with those that come nearest?

An object with state that gives one item for each, and a `flat_map` of a list; an async generator over the stream, and
an async `map` with one call at a time.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import trio

from funcpipe_trio import Pipeline

from ._model import Benchmark, Case, Contender, Target

__all__ = ["BENCHMARK"]


class OneForOne:
    """Gives each item."""

    def push(self, item: int) -> list[int]:
        return [item]


def listed(item: int) -> list[int]:
    return [item]


async def each(items: AsyncIterator[int]) -> AsyncIterator[int]:
    async for item in items:
        yield item


async def call(item: int) -> int:
    return item


def run(add: Callable[[Pipeline[int]], Pipeline[Any]], items: int) -> int:
    return trio.run(add(Pipeline.from_iterable(range(items))).count)


def _case(name: str, target: Target, items: int, **lines: Callable[[Pipeline[int]], Pipeline[Any]]) -> Case:
    return Case(
        name=name,
        contenders=tuple([Contender(each, partial(run, line)) for each, line in lines.items()]),
        targets=(target,),
        items=items,
        quick_items=2_000,
        check_items=500,
    )


def _stateful(line: Pipeline[int]) -> Pipeline[int]:
    return line.stateful(OneForOne)


def _flat_map(line: Pipeline[int]) -> Pipeline[int]:
    return line.flat_map(listed)


def _through(line: Pipeline[int]) -> Pipeline[int]:
    return line.through(each)


def _map(line: Pipeline[int]) -> Pipeline[int]:
    return line.map(call)


BENCHMARK = Benchmark(
    name="own",
    question="what do operations of one's own cost?",
    unit="us per item",
    cases=(
        _case(
            "one for one", Target("stateful", "flat_map", at_most=1.3), 300_000, stateful=_stateful, flat_map=_flat_map
        ),
        _case("a stage that awaits", Target("through", "map", at_most=1.3), 200_000, through=_through, map=_map),
    ),
)
