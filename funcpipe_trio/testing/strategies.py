"""Hypothesis strategies: arrivals, weights, costs, failures, and whole pipelines.

Not imported by ``funcpipe_trio.testing``, so that the kit works where Hypothesis is not installed::

    from funcpipe_trio.testing.strategies import pipelines

    @given(pipelines())
    def test_any_pipeline(pipeline):
        cancel_everywhere(lambda: pipeline, every=7)

All of them shrink: to fewer and simpler items, operations and inputs, to no delay, and to weight and cost 1.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate, count
from typing import Any, TypeVar

import trio
from hypothesis import currently_in_test_context, note
from hypothesis import strategies as st

from .._runtime.calls.place_limiter import PlaceLimiter
from .._runtime.calls.rate_limiter import RateLimiter
from ..merging import concat, fair_merge, merge, merge_sorted, prefer, zip_pipelines
from ..pipeline import Pipeline
from ..policies.fair_share import FairShare
from ..policies.on_error import Failure, OnError
from ..policies.rate_limit import RateLimit, RollingLimit
from ..step import Step
from ._script import Fail, Script

__all__ = ["arrivals", "costs", "failures", "pipelines", "weights"]

K = TypeVar("K", bound=Hashable)

_EXTREMES: tuple[int | Fraction, ...] = (1, 2, 3, 7, Fraction(1, 3), Fraction(7, 2), 10**9, 3 * 10**15)
_GAPS = (0.0, 0.25, 0.5, 1.0, 2.0, 10.0)
_DELAYS = (0.0, 0.25, 1.0, 3.0)
_PERIODS = (0.25, 1.0, 3.0)


class Trouble(Exception):
    """A failure of user code, made by `failures`."""


# ---- values


def weights(keys: Collection[K]) -> st.SearchStrategy[dict[K, int | Fraction]]:
    """Generate a weight for each key, suitable for `FairShare`: small ones, fractions, and ones far apart."""
    return st.fixed_dictionaries({key: costs() for key in keys})


def costs() -> st.SearchStrategy[int | Fraction]:
    """Generate the cost of one item, an int or Fraction > 0, including extremes."""
    return st.one_of(
        st.integers(1, 10), st.sampled_from(_EXTREMES), st.fractions(Fraction(1, 1000), 1000, max_denominator=1000)
    )


def failures() -> st.SearchStrategy[Exception]:
    """Generate an exception of user code: plain ones, a group, and those that elsewhere mean the end of a stream."""
    return st.one_of(
        st.builds(Trouble, st.sampled_from(("first", "second"))),
        st.builds(TimeoutError),
        st.builds(trio.TooSlowError),
        st.builds(trio.ClosedResourceError),
        st.builds(lambda: ExceptionGroup("several", [Trouble("one"), Trouble("other")])),
        st.sampled_from((StopIteration, StopAsyncIteration, trio.EndOfChannel)).map(lambda kind: kind()),
    )


@st.composite
def arrivals(
    draw: st.DrawFn, *, max_items: int = 8, start: int = 0, fail: bool = False
) -> list[tuple[float, int | Fail]]:
    """Generate a timeline for `Script`: ints from `start` on, in bursts, at intervals, after silence.

    Args:
      draw: provided by Hypothesis.
      max_items: the most items.
      start: the first item.
      fail: whether it may end with a failure.
    """
    at = 0.0
    timeline: list[tuple[float, int | Fail]] = []
    for gap in draw(st.lists(st.sampled_from(_GAPS), max_size=max_items)):
        at += gap
        timeline.append((at, start + len(timeline)))
    if fail and draw(st.booleans()):
        timeline.append((at + draw(st.sampled_from(_GAPS)), Fail(draw(failures()))))
    return timeline


# ---- functions, as values, so that a failing example shows them


@dataclass(frozen=True)
class Same:
    """Return the item unchanged."""

    def __call__(self, item: int) -> int:
        return item


@dataclass(frozen=True)
class Plus:
    """Return the item plus an offset."""

    offset: int

    def __call__(self, item: int) -> int:
        return item + self.offset


@dataclass(frozen=True)
class Wait:
    """Return the item, after a delay that depends on it."""

    delays: tuple[float, ...]

    async def __call__(self, item: Any) -> Any:
        number = item if isinstance(item, int) else len(item)
        await trio.sleep(self.delays[number % len(self.delays)])
        return item


@dataclass(frozen=True)
class NoMultiple:
    """Accept what is not a multiple."""

    of: int

    def __call__(self, item: int) -> bool:
        return item % self.of != 0


class Late:
    """Gives each item when the next one comes, and the last one at the end."""

    def __init__(self) -> None:
        self.last: list[int] = []

    def push(self, item: int) -> list[int]:
        given, self.last = self.last, [item]
        return given

    def flush(self) -> list[int]:
        return self.last

    held = flush


@dataclass(frozen=True)
class FailAtMultiple:
    """Return the item unchanged, or raise if it is a multiple."""

    of: int

    def __call__(self, item: int) -> int:
        if item % self.of == 0:
            raise Trouble(item)
        return item


@dataclass(frozen=True)
class NoMultipleAfter:
    """Accept what is not a multiple, after a delay."""

    of: int
    delay: float

    async def __call__(self, item: int) -> bool:
        await trio.sleep(self.delay)
        return item % self.of != 0


@dataclass(frozen=True)
class Pause:
    """Wait for a time."""

    seconds: float

    async def __call__(self) -> None:
        await trio.sleep(self.seconds)


@dataclass(frozen=True)
class Rest:
    """Return the remainder of a division: a key that many items share."""

    of: int

    def __call__(self, item: int) -> int:
        return item % self.of


@dataclass(frozen=True)
class Twins:
    """Return the item and a second one that is unique."""

    offset: int

    def __call__(self, item: int) -> list[int]:
        return [item, item + self.offset]


@dataclass(frozen=True)
class OneMore:
    """Return a second item for each that has none, a unique one."""

    offset: int

    def __call__(self, item: int) -> list[int]:
        return [item + self.offset] if item < self.offset else []


@dataclass(frozen=True)
class Walked:
    """The body of a loop."""

    fn: Wait
    concurrency: int

    def __call__(self, line: Pipeline[int]) -> Pipeline[int]:
        return line.map(self.fn, concurrency=self.concurrency)


@dataclass(frozen=True)
class TwinsAfter:
    """Yield the item and a second one that is unique, each after a delay."""

    offset: int
    delay: float

    async def __call__(self, item: int) -> AsyncIterator[int]:
        await trio.sleep(self.delay)
        yield item
        await trio.sleep(self.delay)
        yield item + self.offset


@dataclass(frozen=True)
class TwinPipelines:
    """Return a pipeline of the item and a second one that is unique, each after a delay."""

    offset: int
    wait: Wait

    def __call__(self, item: int) -> Pipeline[int]:
        return Pipeline.from_iterable([item, item + self.offset]).map(self.wait)


@dataclass(frozen=True)
class Instead:
    """Return a pipeline of two items that are unique, each after a delay."""

    offset: int
    wait: Wait

    def __call__(self) -> Pipeline[int]:
        return Pipeline.from_iterable([self.offset, self.offset + 1]).map(self.wait)


@dataclass(frozen=True)
class Send:
    """Produce a range of ints."""

    items: range
    delay: float

    async def __call__(self, channel: trio.MemorySendChannel[int]) -> None:
        with channel:  # `async with` would wait, and a cancellation there would replace the error
            for item in self.items:
                await trio.sleep(self.delay)
                await channel.send(item)


@dataclass(frozen=True)
class Opened:
    """Open a range of ints as a resource, after a delay, and close it after another."""

    items: range
    delay: float

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[range]:
        await trio.sleep(self.delay)
        yield self.items
        with trio.CancelScope(shield=True):
            await trio.sleep(self.delay)


@dataclass(frozen=True)
class WaitWith:
    """Return the item, after a delay; with a resource."""

    wait: Wait

    async def __call__(self, resource: range, item: int) -> int:
        return await self.wait(item)  # type: ignore[no-any-return]


def _latest(state: int, item: int) -> int:
    return item


def _second(pair: tuple[int, int]) -> int:
    return pair[1]


def _hear(outcome: str) -> None:
    """Do nothing."""


async def _hear_later(outcome: str) -> None:
    await trio.lowlevel.checkpoint()


def _item_of(failure: Failure[int]) -> int:
    return failure.item


async def _wait_for_item(failure: Failure[int]) -> int:
    await trio.sleep(1)
    return failure.item


def _last(items: tuple[int, ...]) -> int:
    return items[-1]


def _each(items: tuple[int, ...]) -> tuple[int, ...]:
    return items


# ---- pipelines


_BASE = 1000
"""Each source has its own range of this size, and never more items."""
_TWIN = 10**6
"""Above all items of sources; doubled for each expansion, so that sums of them are unique."""


@st.composite
def pipelines(draw: st.DrawFn, *, max_items: int = 8, max_operations: int = 4, depth: int = 1) -> Pipeline[int]:
    """Generate a whole pipeline: sources, operations, fan-ins of other pipelines.

    Its items are ints, and no two are equal. It is replayable, ends by itself if its consumer keeps reading, and takes
    no real time under a `MockClock`: its functions, sync and async, wait in virtual time only. A failing test notes the
    pipeline's description.

    Args:
      draw: provided by Hypothesis.
      max_items: the most items of each source, below 1000.
      max_operations: the most operations in a row.
      depth: how deep fan-ins may be nested; 0: none.
    """
    pipeline = _drawn(draw, count(), count(), max_items, max_operations, depth)
    if currently_in_test_context():
        note(pipeline.describe())
    return pipeline


def _drawn(
    draw: st.DrawFn, sources: count[int], twins: count[int], max_items: int, max_operations: int, depth: int
) -> Pipeline[int]:
    if depth and draw(st.booleans()):
        inputs = [
            _drawn(draw, sources, twins, max_items, max_operations // 2, depth - 1)
            for _ in range(draw(st.integers(0, 3)))
        ]
        pipeline = _joined(draw, inputs)
    else:
        pipeline = _source(draw, next(sources) * _BASE, max_items)
    for kind in draw(st.lists(st.sampled_from(tuple(_OPERATIONS)), max_size=max_operations)):
        pipeline = _OPERATIONS[kind](draw, pipeline, twins)
    return pipeline


def _source(draw: st.DrawFn, start: int, max_items: int) -> Pipeline[int]:
    # Draw the length first for every kind, so that one kind can replace another, and shrinking reaches the simplest.
    items = range(start, start + draw(st.integers(0, max_items)))
    kind = draw(st.sampled_from(("iterable", "script", "producer", "ticks", "using")))
    if kind == "script":
        times = accumulate(draw(st.sampled_from(_GAPS)) for _ in items)
        return Pipeline.from_async_iterable(Script(list(zip(times, items, strict=True))))
    if kind == "producer":
        return Pipeline.from_producer(Send(items, draw(st.sampled_from(_GAPS))))
    if kind == "ticks":
        return Pipeline.ticks(draw(st.sampled_from((1, 0.5)))).take(len(items)).map(Plus(start))
    if kind == "using":
        return Pipeline.using(Opened(items, draw(st.sampled_from(_GAPS))), iter)
    return Pipeline.from_iterable(items)


def _joined(draw: st.DrawFn, inputs: list[Pipeline[int]]) -> Pipeline[int]:
    kind = draw(st.sampled_from(("merge", "fair_merge", "concat", "zip", "merge_sorted", "prefer")))
    if kind == "merge":
        return merge(*inputs)
    if kind == "fair_merge":
        named = dict(enumerate(inputs))
        return fair_merge(named, FairShare(draw(weights(named)), capacity=draw(st.integers(1, 3))))
    if kind == "concat":
        return concat(*inputs)
    if kind == "prefer" and inputs:
        return prefer(*inputs, at_least=draw(st.integers(2, 4)))
    if kind == "merge_sorted":
        return merge_sorted(*inputs, reverse=draw(st.booleans()))
    return zip_pipelines(*inputs).flat_map(_each)


def _batched(draw: st.DrawFn, pipeline: Pipeline[int]) -> Pipeline[int]:
    delay = draw(st.sampled_from((None, 0, 0.5, 2.0)))
    size = draw(st.integers(1, 4))
    keyed: dict[str, Any] = {"key": Rest(_modulus(draw)), "max_keys": draw(st.integers(1, 3))}
    batches = pipeline.batch(size, max_delay=delay, **(keyed if draw(st.booleans()) else {}))
    if draw(st.booleans()):
        batches = batches.map(_wait(draw), concurrency=draw(st.integers(1, 2)))
    return batches.unbatch()


def _by_key(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "key": Rest(_modulus(draw)),
        "per_key": draw(st.integers(1, 2)),
        "key_rate": draw(
            st.sampled_from((None, RateLimit(4, burst=1), RateLimit(1, burst=2), RollingLimit(2, per=0.5)))
        ),
        "waiting": draw(st.integers(0, 3)),
    }


def _limited(draw: st.DrawFn) -> Step[int, int]:
    keys = _modulus(draw)
    share = FairShare(draw(weights(range(keys))))
    step = Step(_wait(draw)).rate_limit(RateLimiter(draw(st.sampled_from(_LIMITS)), share), key=Rest(keys))
    return step.places(PlaceLimiter(draw(st.integers(1, 2)), share), key=Rest(keys)) if draw(st.booleans()) else step


def _shared(draw: st.DrawFn, pipeline: Pipeline[int]) -> Pipeline[int]:
    keys = _modulus(draw)
    share = FairShare(draw(weights(range(keys))), capacity=draw(st.integers(1, 3)))
    return pipeline.fair_by(Rest(keys), share, max_keys=draw(st.integers(1, keys)))


def _wait(draw: st.DrawFn) -> Wait:
    return Wait(tuple(draw(st.lists(st.sampled_from(_DELAYS), min_size=1, max_size=3))))


def _modulus(draw: st.DrawFn) -> int:
    return draw(st.integers(2, 5))


def _delay(draw: st.DrawFn) -> float:
    return draw(st.sampled_from(_DELAYS))


def _recovered(draw: st.DrawFn, pipeline: Pipeline[int]) -> Pipeline[int]:
    failing = pipeline.map(FailAtMultiple(_modulus(draw)), on_error=OnError.emit())
    made: Pipeline[Any] = failing.on_ok(_wait(draw), concurrency=draw(st.integers(1, 3)))
    return made.recover(draw(st.sampled_from((_item_of, _wait_for_item))))


_Operation = Callable[[st.DrawFn, Pipeline[int], "count[int]"], Pipeline[int]]

_LIMITS: tuple[RateLimit | RollingLimit, ...] = (RateLimit(1, burst=2), RateLimit(4, burst=2), RollingLimit(3, per=1.0))

_OPERATIONS: dict[str, _Operation] = {
    "map": lambda draw, line, twins: line.map(Same()),
    "async map": lambda draw, line, twins: line.map(
        _wait(draw), concurrency=draw(st.integers(1, 3)), ordered=draw(st.booleans())
    ),
    "async map by key": lambda draw, line, twins: line.map(
        _wait(draw), concurrency=draw(st.integers(1, 3)), ordered=draw(st.booleans()), **_by_key(draw)
    ),
    "async map with shared limits": lambda draw, line, twins: line.map(
        _limited(draw), concurrency=draw(st.integers(1, 3)), ordered=draw(st.booleans())
    ),
    "async map with a resource": lambda draw, line, twins: line.map(
        Step(WaitWith(_wait(draw))).using(Opened(range(0), _delay(draw)), draw(st.sampled_from(("run", "worker")))),
        concurrency=draw(st.integers(1, 3)),
    ),
    "buffer": lambda draw, line, twins: line.buffer(draw(st.integers(0, 3))),
    "on_ok": lambda draw, line, twins: _recovered(draw, line),
    "on_end": lambda draw, line, twins: line.on_end(draw(st.sampled_from((_hear, _hear_later)))),
    "or_else": lambda draw, line, twins: line.or_else(Instead(_TWIN << next(twins), _wait(draw))),
    "filter": lambda draw, line, twins: line.filter(NoMultiple(_modulus(draw))),
    "async filter": lambda draw, line, twins: line.filter(NoMultipleAfter(_modulus(draw), _delay(draw))),
    "tap": lambda draw, line, twins: line.tap(Same()),
    "async tap": lambda draw, line, twins: line.tap(_wait(draw)),
    "scan": lambda draw, line, twins: line.scan(_latest, 0),
    "enumerate": lambda draw, line, twins: line.enumerate().map(_second),
    "take": lambda draw, line, twins: line.take(draw(st.integers(0, 5))),
    "skip": lambda draw, line, twins: line.skip(draw(st.integers(0, 3))),
    "take_while": lambda draw, line, twins: line.take_while(NoMultiple(_modulus(draw))),
    "take_until": lambda draw, line, twins: line.take_until(NoMultiple(_modulus(draw))),
    "take_for": lambda draw, line, twins: line.take_for(draw(st.sampled_from(_PERIODS))),
    "stop_when": lambda draw, line, twins: line.stop_when(Pause(draw(st.sampled_from(_PERIODS)))),
    "async take_while": lambda draw, line, twins: line.take_while(NoMultipleAfter(_modulus(draw), _delay(draw))),
    "skip_while": lambda draw, line, twins: line.skip_while(NoMultiple(_modulus(draw))),
    "flat_map": lambda draw, line, twins: line.flat_map(Twins(_TWIN << next(twins))),
    "async flat_map": lambda draw, line, twins: line.flat_map(
        TwinsAfter(_TWIN << next(twins), _delay(draw)), concurrency=draw(st.integers(1, 3))
    ),
    "flat_map of pipelines": lambda draw, line, twins: line.flat_map(
        TwinPipelines(_TWIN << next(twins), _wait(draw)), concurrency=draw(st.integers(1, 3))
    ),
    "batch": lambda draw, line, twins: _batched(draw, line),
    "fair_by": lambda draw, line, twins: _shared(draw, line),
    "loop": lambda draw, line, twins: line.loop(
        Walked(_wait(draw), draw(st.integers(1, 3))), again=OneMore(_TWIN << next(twins)), room=10**6
    ),
    "window": lambda draw, line, twins: line.window(
        draw(st.integers(1, 4)), period=draw(st.sampled_from((None, 0.75, 2.0)))
    ).unbatch(),
    "sliding": lambda draw, line, twins: line.sliding(draw(st.integers(1, 3)), draw(st.integers(1, 4))).map(_last),
    "distinct": lambda draw, line, twins: line.distinct(Rest(_modulus(draw)), remember=draw(st.integers(1, 3))),
    "buffer by cost": lambda draw, line, twins: line.buffer(
        draw(st.sampled_from((None, 1, 3))), max_cost=draw(st.integers(1, 4)), cost=Rest(_modulus(draw))
    ),
    "stateful": lambda draw, line, twins: line.stateful(Late, holds=1),
    "stateful by key": lambda draw, line, twins: line.stateful(
        Late, holds=1, key=Rest(_modulus(draw)), max_keys=draw(st.integers(1, 3))
    ),
    "dropping buffer": lambda draw, line, twins: line.buffer(
        draw(st.integers(1, 3)), overflow=draw(st.sampled_from(("drop_oldest", "drop_newest")))
    ),
    "throttle": lambda draw, line, twins: line.throttle(draw(st.sampled_from(_LIMITS))),
    "debounce": lambda draw, line, twins: line.debounce(
        draw(st.sampled_from(_PERIODS)), max_wait=draw(st.sampled_from((None, 3.0, 5.0)))
    ),
    "sample": lambda draw, line, twins: line.sample(draw(st.sampled_from(_PERIODS))),
    "delay": lambda draw, line, twins: line.delay(draw(st.sampled_from(_PERIODS)), max_items=draw(st.integers(1, 3))),
    "timeout": lambda draw, line, twins: line.idle_timeout(10**6).timeout(10**6, first=10**6),
}
