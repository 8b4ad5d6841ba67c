"""Random pipelines that fail at random, with items that are counted one by one.

`Books` count only from the user's side: what sources handed over, what functions dropped or failed at, what came out,
what ``on_discard`` got. They must add up without the report; then the report must agree.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import count
from typing import Any

import trio

from funcpipe_trio import FairShare, Pipeline, Report, concat, fair_merge, merge, zip_pipelines

__all__ = ["Books", "InjectedError", "Item", "Maker"]

PAUSES = (0.0, 0.0, 0.0, 0.0005, 0.001, 0.003)
"""Seconds that various things take."""
WEIGHTS = (1, 2, 10, 10**9)

Pace = Callable[[Any], float]
Strike = Callable[[Any], None]


class InjectedError(Exception):
    """A deliberate failure of user code."""


class Item:
    """An item; compared by identity, whatever its number."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


def items_in(value: Any) -> list[Item]:
    """Return every item in a value, including those in batches and tuples."""
    if isinstance(value, Item):
        return [value]
    if isinstance(value, list | tuple):
        return [item for inner in value for item in items_in(inner)]
    return []


class Books:
    """What happened to every item of one run."""

    def __init__(self) -> None:
        self.produced: list[Item] = []
        self.taken: int | None = 0  # items that sources handed over; None if a source is not counted
        self.delivered: list[Item] = []
        self.values = 0  # values delivered; a batch is one
        self.dropped: list[Item] = []
        self.heard: list[tuple[Any, str, str]] = []
        self.failures: list[Any] = []  # values at which user code raised, None for a source
        self.errors: list[InjectedError] = []
        self.expanded: list[Item] = []  # items whose children have all been made
        self.opened = self.closed = 0
        self.thread_calls = 0
        self.threads: set[int] = set()

    def produce(self, number: int) -> Item:
        """Make an item that belongs to the run from now on."""
        return self.accept(Item(number))

    def accept(self, item: Item) -> Item:
        """Record an item that a source handed over."""
        if self.taken is not None:
            self.taken += 1
        self.produced.append(item)
        return item

    def child(self, number: int) -> Item:
        """Make a child of another item."""
        item = Item(number)
        self.produced.append(item)
        return item

    def deliver(self, value: Any) -> None:
        """Record what the consumer got."""
        self.values += 1
        self.delivered += items_in(value)

    def drop(self, value: Any) -> None:
        """Record what an operation dropped."""
        self.dropped += items_in(value)

    def hear(self, value: Any, stage: str, reason: str) -> None:
        """Record what was discarded; pass this as ``on_discard``."""
        self.heard.append((value, stage, reason))

    def fail(self, value: Any) -> None:
        """Fail at a value."""
        self.failures.append(value)
        self.errors.append(InjectedError(f"failure {len(self.errors)}"))
        raise self.errors[-1]

    def problems(self, report: Report | None) -> list[str]:
        """Return everything that does not add up."""
        discarded = Counter(item for value, _, _ in self.heard for item in items_in(value))
        fates = Counter(self.delivered) + Counter(self.dropped) + discarded
        for value in self.failures:  # one behind an earlier failure is reported as discarded
            fates.update(item for item in items_in(value) if item not in discarded)
        fates.update(item for item in self.expanded if not fates[item])
        produced = Counter(self.produced)
        lost, twice = (produced - fates).total(), (fates - produced).total()
        found = [f"{lost} of {len(self.produced)} items were lost"] if lost else []
        found += [f"{twice} items were counted more than once"] if twice else []
        if self.opened != self.closed:
            found.append(f"{self.opened} sources were opened, {self.closed} closed")
        return found if report is None else found + self._differences(report)

    def _differences(self, report: Report) -> list[str]:
        pairs = [
            ("delivered", self.values, report.delivered),
            ("discarded", len(self.heard), report.discarded),
            ("taken", report.taken if self.taken is None else self.taken, report.taken),
        ]
        for stage in report.stages:
            gone = stage.emitted + stage.absorbed + stage.failed + stage.dropped + stage.discarded
            pairs.append((f"out of stage {stage.name!r}", gone, stage.received + stage.created))
        for link in report.links:
            pairs.append((f"out of the link behind {link.behind!r}", link.taken + link.discarded, link.passed))
        return [f"{what}: {counted} counted, {told} reported" for what, counted, told in pairs if counted != told]


class Maker:
    """Makes one random pipeline, from a seed, that records what it does in its books.

    Args:
      seed: determines the pipeline, and all its pauses and failures.
      books: where it records.
      threads: the limiter of its threads.
    """

    def __init__(self, seed: int, books: Books, threads: trio.CapacityLimiter) -> None:
        self._chance = random.Random(seed)
        self._books = books
        self._threads = threads
        self._fragile = self._chance.random() < 0.5

    def pipeline(self, depth: int = 2) -> Pipeline[Any]:
        """Make a chain of operations on a source, or on several such chains joined, nested to a depth."""
        chance = self._chance
        pipeline = self._join(depth) if depth and chance.random() < 0.45 else self._source()
        for _ in range(chance.choice((0, 1, 1, 2, 3, 4))):
            pipeline = chance.choice(OPERATIONS)(self, pipeline)
        return pipeline

    # ---- chance

    def _pace(self) -> Pace:
        """Return a function from a value to how long its processing takes."""
        pauses = [self._chance.choice(PAUSES) for _ in range(7)]
        return lambda value: pauses[sum(item.number for item in items_in(value)) % 7]

    def _strike(self) -> Strike:
        """Return a function that each piece of user code calls: it may raise, once."""
        at = self._chance.choice((0, 1, 2, 5, 15, 50)) if self._fragile and self._chance.random() < 0.3 else -1
        calls = count()

        def strike(value: Any) -> None:
            if next(calls) == at:
                self._books.fail(value)

        return strike

    def _small(self) -> int:
        return self._chance.choice((1, 2, 3, 7, 20))

    # ---- sources and joins

    def _source(self) -> Pipeline[Any]:
        make = self._chance.choice((self._iterable, self._async_iterable, self._producer, self._channel, self._ticks))
        return make(range(self._chance.choice((0, 1, 3, 10, 40, 100, 300))), self._pace(), self._strike())

    def _iterable(self, numbers: range, pace: Pace, strike: Strike) -> Pipeline[Any]:
        books = self._books

        def items() -> Iterator[Item]:
            books.opened += 1
            try:
                for number in numbers:
                    strike(None)
                    yield books.produce(number)
            finally:
                books.closed += 1

        return Pipeline.from_iterable(items)

    def _async_iterable(self, numbers: range, pace: Pace, strike: Strike) -> Pipeline[Any]:
        books, cleanup = self._books, self._chance.choice(PAUSES)

        async def items() -> AsyncIterator[Item]:
            books.opened += 1
            try:
                for number in numbers:
                    await trio.sleep(pace(Item(number)))
                    strike(None)
                    yield books.produce(number)
            finally:
                books.closed += 1
                await trio.sleep(cleanup)  # noqa: ASYNC102  # this tests the run's own limit

        return Pipeline.from_async_iterable(items)

    def _producer(self, numbers: range, pace: Pace, strike: Strike) -> Pipeline[Any]:
        books = self._books

        async def produce(channel: trio.MemorySendChannel[Item]) -> None:
            books.opened += 1
            try:
                for number in numbers:
                    item = Item(number)
                    await trio.sleep(pace(item))
                    strike(None)
                    await channel.send(item)
                    books.accept(item)
            finally:
                books.closed += 1

        return Pipeline.from_producer(produce)

    def _channel(self, numbers: range, pace: Pace, strike: Strike) -> Pipeline[Any]:
        self._books.opened += 1  # the run owns it from the start
        return Pipeline.from_channel(_Channel(self._books, numbers, pace, strike))

    def _ticks(self, numbers: range, pace: Pace, strike: Strike) -> Pipeline[Any]:
        self._books.taken = None

        def item(number: int) -> Item:
            strike(None)
            made = Item(number)
            self._books.produced.append(made)
            return made

        return Pipeline.ticks(0.001).take(len(numbers)).map(item)

    def _join(self, depth: int) -> Pipeline[Any]:
        chance = self._chance
        inputs = [self.pipeline(depth - 1) for _ in range(chance.choice((0, 1, 2, 2, 3, 3)))]
        kind = chance.choice(("merge", "fair", "concat", "zip"))
        if kind == "fair":
            weights = {number: chance.choice(WEIGHTS) for number in range(len(inputs))}
            return fair_merge(dict(enumerate(inputs)), FairShare(weights, capacity=chance.choice((1, 2, 16))))
        if kind == "zip":
            return zip_pipelines(*inputs)
        return merge(*inputs) if kind == "merge" else concat(*inputs)

    # ---- operations

    def _map(self, pipeline: Pipeline[Any]) -> Pipeline[Any]:
        return pipeline.tap(self._strike()).map(lambda value: value)

    def _pool(self, pipeline: Pipeline[Any]) -> Pipeline[Any]:
        pace, strike = self._pace(), self._strike()

        async def wait(value: Any) -> Any:
            if pause := pace(value):
                await trio.sleep(pause)
            strike(value)
            return value

        concurrency, ordered = self._chance.choice((1, 1, 2, 5)), self._chance.random() < 0.5
        return pipeline.map(wait, concurrency=concurrency, ordered=ordered)

    def _threaded(self, pipeline: Pipeline[Any]) -> Pipeline[Any]:
        books, pace, strike = self._books, self._pace(), self._strike()

        def work(value: Any) -> Any:
            time.sleep(pace(value))
            books.threads.add(threading.get_ident())
            strike(value)
            return value

        async def in_thread(value: Any) -> Any:
            books.thread_calls += 1
            return await trio.to_thread.run_sync(work, value, limiter=self._threads)

        concurrency, ordered = self._chance.choice((1, 2, 4)), self._chance.random() < 0.5
        return pipeline.map(in_thread, concurrency=concurrency, ordered=ordered)

    def _filter(self, pipeline: Pipeline[Any]) -> Pipeline[Any]:
        strike, modulus = self._strike(), self._chance.choice((2, 3, 7))

        def keep(value: Any) -> bool:
            strike(value)
            kept = sum(item.number for item in items_in(value)) % modulus != 0
            if not kept:
                self._books.drop(value)
            return kept

        async def keep_later(value: Any) -> bool:
            await trio.sleep(pace(value))
            return keep(value)

        pace = self._pace()
        return pipeline.filter(keep if self._chance.random() < 0.5 else keep_later)

    def _buffer(self, pipeline: Pipeline[Any]) -> Pipeline[Any]:
        return pipeline.buffer(self._small())

    def _batch(self, pipeline: Pipeline[Any]) -> Pipeline[Any]:
        batched: Pipeline[Any] = pipeline.batch(self._small())
        if self._chance.random() < 0.7:
            batched = pipeline.batch(self._small(), max_delay=self._chance.choice((0.0005, 0.002, 0.01)))
        if self._chance.random() < 0.3:
            batched = self._pool(batched)
        return batched.unbatch() if self._chance.random() < 0.8 else batched

    def _expand(self, pipeline: Pipeline[Any]) -> Pipeline[Any]:
        books, pace, strike = self._books, self._pace(), self._strike()
        children = self._chance.choice((0, 1, 2, 3))

        def expand(value: Any) -> Iterator[Item]:
            strike(value)
            for number in range(children):
                yield books.child(number)
            books.expanded += items_in(value)

        async def expand_later(value: Any) -> AsyncIterator[Item]:
            for number in range(children):
                yield books.child(number)
                await trio.sleep(pace(value))
            strike(value)
            books.expanded += items_in(value)

        if self._chance.random() < 0.5:
            return pipeline.flat_map(expand)
        return pipeline.flat_map(expand_later, concurrency=self._chance.choice((1, 2, 4)))

    def _take(self, pipeline: Pipeline[Any]) -> Pipeline[Any]:
        number = self._chance.choice((0, 1, 5, 20))
        if self._chance.random() < 0.5:
            return pipeline.take(number)
        seen = count()
        return pipeline.take_while(lambda value: next(seen) < number)

    def _skip(self, pipeline: Pipeline[Any]) -> Pipeline[Any]:
        number, seen = self._small(), count()

        def note(value: Any) -> None:
            if next(seen) < number:
                self._books.drop(value)

        return pipeline.tap(note).skip(number)


OPERATIONS = (
    Maker._map,
    Maker._pool,
    Maker._pool,
    Maker._threaded,
    Maker._threaded,
    Maker._filter,
    Maker._buffer,
    Maker._batch,
    Maker._expand,
    Maker._take,
    Maker._skip,
)


class _Channel(trio.abc.ReceiveChannel[Item]):
    """A user-defined receive channel."""

    def __init__(self, books: Books, numbers: range, pace: Pace, strike: Strike) -> None:
        self._books = books
        self._numbers = iter(numbers)
        self._pace = pace
        self._strike = strike
        self._closed = False

    async def receive(self) -> Item:
        await trio.sleep(self._pace(None))
        for number in self._numbers:
            self._strike(None)
            return self._books.produce(number)
        raise trio.EndOfChannel

    async def aclose(self) -> None:
        self._books.closed += not self._closed
        self._closed = True
        await trio.lowlevel.checkpoint()
