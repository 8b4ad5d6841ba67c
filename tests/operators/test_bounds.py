"""P4 for every operation and every place that may stand behind it: no more is in flight than `max_in_flight` says.

An item is in flight from when a source handed it over until all that was made of it is delivered, dropped, failed or
discarded; that is counted here by the items themselves, at every step of every task.

Mutants that die here: what an operation gathers is not counted where the link behind it drops; an item that waits for
its time, or for its children, has no place of its own there; results that wait for an earlier one though every branch
drops; anything that is counted only when it is put into a link.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import pytest
import trio

from funcpipe_trio import (
    BufferOverflow,
    Failure,
    FairShare,
    OnError,
    Pipeline,
    RateLimit,
    Run,
    merge,
)
from funcpipe_trio.testing import run_virtual
from tests._kit import STRIDE

from .catalogue import CASES, Case, Feed, Line, Token, tokens

MANY = 36


def tokens_in(value: Any) -> Iterator[Token]:
    """Every token in a value: batches, tuples and failures taken apart."""
    if type(value) is Token:
        yield value
    elif isinstance(value, Failure):
        yield from tokens_in(value.item)
    elif type(value) in (list, tuple, dict):
        for inner in value.values() if type(value) is dict else value:
            yield from tokens_in(inner)


def first_number(value: Any) -> int:
    return next((token.number for token in tokens_in(value)), 0)


async def slow(value: Any) -> Any:
    await trio.sleep(1 + first_number(value) % 3)
    return value


async def slow_at_first(value: Any) -> Any:
    await trio.sleep(1000 if first_number(value) == 0 else 0.25)
    return value


def pair(value: Any) -> list[Any]:
    return [value, (value,)]


def never_first(value: Any) -> bool:
    return type(value) is tuple


# ---- what stands behind an operation


@dataclass(frozen=True)
class Place:
    """What stands behind an operation; `copies`: how many values it makes of one."""

    name: str
    put: Callable[[Line], Line]
    copies: int = 1


async def given_back(failure: Failure[Any]) -> None:
    """A step to divert to; what it is given is no longer in the run."""
    await trio.sleep(1.5)
    watching.get().diverted(failure.item)


def by_route(value: Any) -> str:
    return "ab"[first_number(value) % 2]


def buffers() -> Iterator[Place]:
    yield Place("nothing", lambda line: line)
    for overflow, capacity in product(("block", "drop_oldest", "drop_newest", "fail"), (1, 3)):
        put = partial(Pipeline.buffer, capacity=capacity, overflow=overflow)
        yield Place(f"a buffer of {capacity}, {overflow}", put)


def fair_queues() -> Iterator[Place]:
    share: FairShare[Any] = FairShare(capacity=2)
    policies = {"block": "block", "drop_newest": "drop_newest", "divert": OnError.divert(given_back)}
    for name, overflow in policies.items():
        put = partial(Pipeline.fair_by, key=by_route, share=share, max_keys=2, overflow=overflow, name="fair")
        yield Place(f"fair_by, {name}", put)


def chains() -> Iterator[Place]:
    """Operations with a buffer behind them."""
    made: dict[str, Callable[[Line], Line]] = {
        "batch": lambda line: line.batch(4),
        "batch and unbatch": lambda line: line.batch(5).unbatch().batch(3),
        "batch in batches": lambda line: line.batch(3).batch(2).unbatch(),
        "flat_map": lambda line: line.flat_map(pair).filter(never_first),
        "unbatch": lambda line: line.batch(4).buffer(1).unbatch(),
        "throttle": lambda line: line.throttle(RateLimit(0.5)).batch(2),
        "a pool": lambda line: line.map(slow, concurrency=3),
        "an unordered pool": lambda line: line.map(slow, concurrency=3, ordered=False),
        "a pool and batches": lambda line: line.map(slow, concurrency=3).batch(4),
        "a pool whose first call is slow": lambda line: line.map(slow_at_first, concurrency=3),
        "a merge": merge,
    }
    for (name, make), overflow in product(made.items(), ("block", "drop_oldest", "drop_newest")):
        yield Place(
            f"{name}, {overflow}", lambda line, make=make, overflow=overflow: make(line).buffer(2, overflow=overflow)
        )


def branches() -> Iterator[Place]:
    for overflow in ("block", "drop_oldest", "drop_newest"):
        drops = partial(Pipeline.buffer, capacity=2, overflow=overflow)
        ways = {"a": drops, "b": lambda line, drops=drops: drops(line).map(slow)}
        mixed = {"a": drops, "b": lambda line: line.buffer(1).map(slow)}
        for name, to in {"branches": ways, "branches of which one blocks": mixed}.items():
            yield Place(f"{name}, {overflow}", lambda line, to=to: line.batch(3).broadcast(to), 2)
            yield Place(f"{name}, by route, {overflow}", lambda line, to=to: line.batch(2).partition(by_route, to))
            yield Place(
                f"{name}, behind a pool, {overflow}",
                lambda line, to=to: line.map(slow_at_first, concurrency=3).broadcast(to),
                2,
            )
            yield Place(
                f"{name}, by route, behind a pool, {overflow}",
                lambda line, to=to: line.map(slow_at_first, concurrency=3).partition(by_route, to),
            )


BUFFERS = [*buffers()]
PLACES = [*BUFFERS, *fair_queues(), *chains(), *branches()]


# ---- what is in flight

UNCOUNTED = {
    "distinct: without a key": "it makes other tokens",
    "flat_map: to nothing": "what becomes of an item without children is not told",
    "buffer: merge": "what is merged is not told",
    "buffer: merge, in a branch": "what is merged is not told",
    "merge_sorted: equal items, with a pool behind": "both of its inputs give the same tokens",
    "zip_latest": "its tuples give a token several times",
    "zip_pipelines: strict": "both of its inputs give the same tokens",
}


class Watch(trio.abc.Instrument):
    """The most items in flight at any step of a task."""

    def __init__(self, copies: Counter[int]) -> None:
        self.run: Run[Any] | None = None
        self.most = 0
        self._copies = copies  # how many values each token will have been in
        self._left: Counter[int] = Counter()
        self._gone = 0
        self._told_too = 0  # values that a stage counts as dropped or failed, and which were reported here

    def leaves(self, value: Any) -> None:
        """Note that a value is no longer in the run."""
        for token in tokens_in(value):
            self._left[token.number] += 1
            self._gone += self._left[token.number] == max(1, self._copies[token.number])

    def diverted(self, value: Any) -> None:
        self._told_too += 1
        self.leaves(value)

    def discard(self, value: Any, stage: str, reason: str) -> None:
        self._told_too += reason == "latest" or (stage == "fair" and reason == "drop_newest")
        self.leaves(value)

    def look(self) -> None:
        assert self.run is not None
        counts = self.run.statistics()
        untold = counts.failed + sum(stage.dropped for stage in counts.stages) - self._told_too
        self.most = max(self.most, counts.taken - untold - self._gone)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        self.look()


watching: ContextVar[Watch] = ContextVar("watching")


async def most_in_flight(line: Line, copies: Counter[int], pace: float | None) -> int:
    """Run a line for a while: the most items that were in flight at once."""
    watch = Watch(copies)
    watching.set(watch)
    async with line.open(on_discard=watch.discard) as watch.run:
        if pace is None:
            trio.lowlevel.add_instrument(watch)
            await trio.sleep(60)
            trio.lowlevel.remove_instrument(watch)
        else:
            await take_slowly(watch, pace)
        return watch.most


async def take_slowly(watch: Watch, pace: float) -> None:
    assert watch.run is not None
    with suppress(BufferOverflow, trio.TooSlowError):
        async for value in watch.run:
            watch.leaves(value)
            watch.look()
            await trio.sleep(pace)
            watch.look()


def copies_of(case: Case, feed: Feed, times: int) -> Counter[int]:
    """How many values each token is in, in the end; of sliding windows, the first of which it is in counts."""
    if case.operation in ("sliding", "pairwise"):
        return Counter({token.number: times for token in feed.items})
    found = Counter(token.number for token in tokens_in(case.model(feed.items)))
    return Counter({number: count * times for number, count in found.items()})


def fits(case: Case, place: Place) -> bool:
    """Whether items can be counted there: of one that is dropped before it is copied there is one value."""
    return place.copies == 1 or "drop" not in case.name


COUNTED = [case for case in CASES if case.name not in UNCOUNTED]


@pytest.mark.parametrize(("number", "case"), [*enumerate(COUNTED)], ids=lambda part: getattr(part, "name", None))
def test_no_more_is_in_flight_than_the_plan_says(number, case):
    """P4, at every step, with a consumer that takes nothing; items come at once, or now and then.

    Every operation before every kind of buffer, and in a fifth of the other places.
    """
    for at, place in enumerate(PLACES, number):
        if fits(case, place) and (at % STRIDE == 0 if place in BUFFERS else at % (5 * STRIDE) == 0):
            assert_bounded(case, place, gap=at % 4 / 8, pace=None)


@pytest.mark.parametrize(("number", "case"), [*enumerate(COUNTED)], ids=lambda part: getattr(part, "name", None))
def test_nor_with_a_slow_consumer(number, case):
    """Looked at when it has taken one more, and before it takes the next; each operation in a sixth of the places."""
    for place in PLACES[number % (6 * STRIDE) :: 6 * STRIDE]:
        if fits(case, place):
            assert_bounded(case, place, gap=0.25, pace=1.5)


def assert_bounded(case: Case, place: Place, gap: float, pace: float | None) -> None:
    feed = Feed(tokens(MANY), gap)
    line = place.put(case.make(feed))

    most = run_virtual(most_in_flight, line, copies_of(case, feed, place.copies), pace)

    assert most <= line.max_in_flight, place.name
