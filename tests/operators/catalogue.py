"""Every operation that makes a pipeline, with the list function that says what it does.

An operation joins by adding its rows to `CASES`: `test_every_operator` then puts it through everything that holds for
all of them. Items are `Token`s, which refuse every look but at their number, so no test can pass by looking at one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import accumulate, dropwhile, islice, pairwise, takewhile
from typing import Any

import trio

from funcpipe_trio import (
    Adaptive,
    Backoff,
    Failure,
    FairShare,
    OnError,
    OnFull,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    RateLimiter,
    Retry,
    RollingLimit,
    Step,
    concat,
    fair_merge,
    merge,
    merge_sorted,
    prefer,
    threads,
    zip_latest,
    zip_pipelines,
)
from tests._kit import Opaque, connection, in_place

Line = Pipeline[Any]
Items = list[Any]
Model = Callable[[Items], Items]


class Token(Opaque):
    """An item that refuses every look, but for its number."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number


class Filler(Opaque):
    """What a stream sends when it has nothing to send."""

    __slots__ = ()


def tokens(count: int, start: int = 0) -> Items:
    return [Token(number) for number in range(start, start + count)]


def number(item: Any) -> int:
    """Give the number of a token; of any other item 0."""
    return item.number if type(item) is Token else 0


def plain(value: Any) -> Any:
    """Give what can be compared in place of a result."""
    if type(value) is Token:
        return value.number
    if isinstance(value, Failure):
        return "failure", plain(value.item), repr(value.error)
    if type(value) is dict:
        value = tuple(value.items())
    if type(value) in (list, tuple):
        return type(value).__name__, *map(plain, value)
    return repr(value)


def flat(batches: Items) -> Items:
    """Take batches apart, where time decides what is in which."""
    return [item for batch in batches for item in batch]


OTHER = tokens(4, 100)
"""What another source beside the feed gives."""


@dataclass
class Feed:
    """The source under watch: what it gives, how fast, and the error that stands behind it."""

    items: Items
    gap: float = 0
    error: Exception | None = None
    handed: int = 0
    opened: int = 0
    closed: int = 0

    def line(self) -> Line:
        return Pipeline.from_async_iterable(self.slowly) if self.gap else Pipeline.from_iterable(self.at_once)

    def twin(self) -> Line:
        """Give the same items again, without the error."""
        return Pipeline.from_iterable(partial(self._open, self.items))

    def other(self) -> Line:
        return Pipeline.from_iterable(partial(self._open, OTHER))

    def at_once(self) -> Iterator[Any]:
        for item in self._open(self.items, self.error):
            self.handed += 1
            yield item

    def _open(self, items: Items, error: Exception | None = None) -> Iterator[Any]:
        self.opened += 1
        try:
            yield from items
            if error is not None:
                raise error
        finally:
            self.closed += 1

    async def slowly(self) -> AsyncIterator[Any]:
        self.opened += 1
        try:
            for item in self.items:
                await trio.sleep(self.gap)
                self.handed += 1
                yield item
            if self.error is not None:
                raise self.error
        finally:
            self.closed += 1

    async def produce(self, channel: trio.MemorySendChannel[Any]) -> None:
        self.opened += 1
        try:
            with channel:
                for item in self.items:
                    await trio.sleep(self.gap)
                    await channel.send(item)
                    self.handed += 1
                if self.error is not None:
                    raise self.error
        finally:
            self.closed += 1

    def breaking(self) -> Callable[[], Iterator[Any]]:
        """Give a source that breaks in its middle, and goes on from there when it is made anew."""
        left = list(self.items)

        def reopen() -> Iterator[Any]:
            for _ in self._open([]):
                pass
            for at in range(len(left)):
                self.handed += 1
                yield left.pop(0)
                if at == 2:
                    raise OSError("the source broke")
            if self.error is not None:
                raise self.error

        return reopen


class Channel(trio.abc.ReceiveChannel[Any]):
    """A feed as a channel that is not one of trio's own."""

    def __init__(self, feed: Feed) -> None:
        self._items = feed.slowly()

    async def receive(self) -> Any:
        try:
            return await anext(self._items)
        except StopAsyncIteration:
            raise trio.EndOfChannel from None

    async def aclose(self) -> None:
        await self._items.aclose()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Case:
    """One operation in one of its modes.

    Args:
      name: the operation's, with what tells this row from others behind a colon.
      make: makes the pipeline over a feed.
      model: gives its results for a list of items.
      ordered: whether the results come in the model's order.
      before: what is delivered for sure before a failure that stands behind these items, if not all that the model
        gives for them.
      stops: whether it may end before its feed does, and so never meet the failure that stands there.
      rounds: whether it makes work of its own, which is not begun in a drain.
      alone: whether all it takes comes from the feed, each item once.
      fails: whether its source can be made to fail.
      replays: whether it can be run again.
      view: what is compared of the results.
    """

    name: str
    make: Callable[[Feed], Line]
    model: Model = list
    ordered: bool = True
    before: Model | None = None
    stops: bool = False
    rounds: bool = False
    alone: bool = True
    fails: bool = True
    replays: bool = True
    view: Model = field(default=list)

    @property
    def operation(self) -> str:
        return self.name.partition(":")[0]


def on(name: str, apply: Callable[[Line], Line], model: Model = list, **flags: Any) -> Case:
    """Make the row of an operation that is put behind the feed."""
    return Case(name, lambda feed: apply(feed.line()), model, **flags)


# ---- functions of the rows, and what they do to lists


class Trouble(Exception):
    """A failure that a row's policy deals with, as none does with a `Boom`."""


def wrapped(item: Any) -> tuple[Any]:
    return (item,)


def is_good(item: Any) -> bool:
    return number(item) % 3 != 1


def is_fifth(item: Any) -> bool:
    return number(item) == 4


def is_set() -> trio.Event:
    event = trio.Event()
    event.set()
    return event


def newer(_waiting: Any, item: Any) -> Any:
    return item


def before_five(item: Any) -> bool:
    return number(item) < 5


def pick(item: Any) -> Any:
    """Fail at every third item."""
    if not is_good(item):
        raise Trouble(number(item))
    return item


def twice(item: Any) -> list[Any]:
    return [item, (item,)]


def counted(state: tuple[int, Any], item: Any) -> tuple[int, Any]:
    return state[0] + number(item), item


def rest(item: Any) -> int:
    return number(item) % 3


def route(item: Any) -> str:
    return "ab"[number(item) % 2]


def after(fn: Callable[..., Any], pause: Callable[[int], float] = lambda each: each % 3) -> Callable[..., Any]:
    """Give the async form of a function: each call takes a while, so that calls end out of order."""

    async def wait(*args: Any) -> Any:
        await trio.sleep(pause(number(args[-1])))
        return fn(*args)

    return wait


def same(item: Any) -> Any:
    return item


nap = after(same)
second = after(same, lambda each: 1)


async def bury(failure: Failure[Any]) -> None:
    await trio.sleep(1.5)


async def twice_in_time(item: Any) -> AsyncIterator[Any]:
    for child in twice(item):
        await trio.sleep(number(item) % 2)
        yield child


async def fails_midway(item: Any) -> AsyncIterator[Any]:
    yield item
    yield pick(item)


def twice_in_a_pipeline(item: Any) -> Line:
    return Pipeline.from_iterable(twice(item)).map(nap, concurrency=2)


def both(items: Items) -> Items:
    return [child for item in items for child in twice(item)]


def good(items: Items) -> Items:
    return [item for item in items if is_good(item)]


def with_failures(items: Items) -> Items:
    return [item if is_good(item) else Failure(item, Trouble(number(item)), "", 1) for item in items]


def cut(size: int) -> Model:
    return lambda items: [items[at : at + size] for at in range(0, len(items), size)]


def slid(size: int, step: int) -> Model:
    return lambda items: [tuple(items[at : at + size]) for at in range(0, len(items) - size + 1, step)]


def cut_by_rest(size: int) -> Model:
    """Batches of each rest: full ones when they are, then the others in the order of their first items."""

    def model(items: Items) -> Items:
        open_: dict[int, Items] = {}
        closed = []
        for item in items:
            batch = open_.setdefault(rest(item), [])
            batch.append(item)
            if len(batch) == size:
                closed.append(open_.pop(rest(item)))
        return [*closed, *open_.values()]

    return model


def idle_go_out(items: Items) -> Items:
    """Pairs of each rest, of which two may be open: the one that was idle longest leaves for a third."""
    open_: dict[int, Items] = {}  # in the order of their last items, which are their first
    closed = []
    for item in items:
        if rest(item) not in open_ and len(open_) == 2:
            closed.append(open_.pop(next(iter(open_))))
        batch = open_.setdefault(rest(item), [])
        batch.append(item)
        if len(batch) == 2:
            closed.append(open_.pop(rest(item)))
    return [*closed, *open_.values()]


def numbered(items: Items) -> Items:
    return [(at, item) for at, item in enumerate(items, 7)]


def first_of_each_rest(items: Items) -> Items:
    first: dict[int, Any] = {}
    for item in items:
        first.setdefault(rest(item), item)
    return [*first.values()]


def by_costs(items: Items) -> Items:
    """Cut so that the costs (1, 2, 3, 1, 2, 3, ...) of a batch are 5 at most."""
    batches: list[list[Any]] = []
    total = math.inf
    for item in items:
        if total + 1 + rest(item) > 5:
            batches.append([])
            total = 0
        batches[-1].append(item)
        total += 1 + rest(item)
    return batches


class Late:
    """Give each item when the next one comes."""

    def __init__(self) -> None:
        self.kept: Items = []

    def push(self, item: Any) -> Items:
        given, self.kept = self.kept, [item]
        return given

    def flush(self) -> Items:
        return self.kept

    def held(self) -> Items:
        return self.kept


class InTime:
    """Give each item after a second and a half, or when three others wait."""

    def __init__(self, seconds: float = 1.5) -> None:
        self.seconds = seconds
        self.kept: list[tuple[float, Any]] = []

    def push(self, item: Any) -> Items:
        self.kept.append((trio.current_time() + self.seconds, item))
        return [self.kept.pop(0)[1]] if len(self.kept) > 3 else []

    def flush(self) -> Items:
        return [item for _, item in self.kept]

    held = flush

    def due(self) -> float | None:
        return self.kept[0][0] if self.kept else None

    def tick(self, now: float) -> Iterator[Any]:
        while self.kept and self.kept[0][0] <= now:
            yield self.kept.pop(0)[1]


class Twice:
    """Give two values for each item, and one more at the end."""

    def push(self, item: Any) -> Iterator[Any]:
        yield from twice(item)

    def flush(self) -> Items:
        return [None]


def late(of_keys: int, *, flushed: bool = True) -> Model:
    """Each item when the next one of its rest comes, or its object makes room; then those of the rests that came."""

    def model(items: Items) -> Items:
        kept: dict[int, Any] = {}  # in the order in which the rests came
        touched: list[int] = []  # the rests, in the order of their last items
        given = []
        for item in items:
            if rest(item) in kept:
                given.append(kept[rest(item)])
                touched.remove(rest(item))
            elif len(kept) == of_keys:
                given.append(kept.pop(touched.pop(0)))
            kept[rest(item)] = item
            touched.append(rest(item))
        return [*given, *(kept.values() if flushed else ())]

    return model


def nobody() -> Line:
    return Pipeline.from_iterable([])


async def slowly_through(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for item in items:
        await trio.sleep(number(item) % 3)
        yield item


async def twice_through(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for item in items:
        for child in twice(item):
            yield child
    yield None


async def refused(item: Any) -> Any:
    await trio.lowlevel.checkpoint()
    raise Trouble


async def three_through(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
    for _ in range(3):
        async for item in items:
            yield item
            break


async def late_through(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """Give an item when the next one was taken, within a nursery."""
    async with trio.open_nursery():
        kept: Items = []
        async for item in items:
            kept.append(item)
            if len(kept) > 1:
                yield kept.pop(0)
        for item in kept:
            yield item


def unless_failed(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda item: item if isinstance(item, Failure) else fn(item)


def failed_item(failure: Failure[Any]) -> Any:
    return failure.item


def recovered(items: Items) -> Items:
    return [failed_item(item) if isinstance(item, Failure) else item for item in items]


POLICIES: dict[str, tuple[OnError, Model]] = {
    "skip": (OnError.skip(), good),
    "emit": (OnError.emit(), with_failures),
    "divert": (OnError.divert(bury), good),
}


def mapped() -> Iterator[Case]:
    yield on("map: sync", lambda p: p.map(wrapped), lambda items: [*map(wrapped, items)])
    yield on("map: async", lambda p: p.map(nap))
    yield on("map: a step", lambda p: p.map(Step(nap).timeout(99).retry(Retry(2)), concurrency=2))
    slow = Step(nap).timeout(99).hedge(0.25, 3)
    yield on("map: a step with a hedge", lambda p: p.map(slow, concurrency=2))
    yield on("map: a step that coalesces", lambda p: p.map(Step(nap).timeout(99).coalesce(id), concurrency=3))
    yield on("map: a step that coalesces, in tasks", lambda p: p.map(Step(nap).coalesce(id).timeout(99), concurrency=3))
    other = Step(refused).fallback(Step(nap).timeout(99))
    yield on("map: a step with a fallback", lambda p: p.map(other, concurrency=2))
    yield on("map: a step on a runner", lambda p: p.map(Step(same).on(in_place).timeout(99), concurrency=2))
    for per in ("run", "worker"):
        yield Case(f"map: a resource for each {per}", partial(with_a_resource, per))
    again = Step(nap).retry(Retry(2))
    yield on("map: retries elsewhere", lambda p: p.map(again, concurrency=2, retries_elsewhere=2))
    aside: dict[str, Any] = {"key": rest, "ordered": False, "retries_elsewhere": 3}
    yield on("map: key, retries elsewhere", lambda p: p.map(again, concurrency=3, **aside), ordered=False)
    yield on("map: a lambda, awaited", lambda p: p.map(lambda item: nap(item), concurrency=2))
    yield on("map: ordered pool", lambda p: p.map(nap, concurrency=3))
    yield on("map: unordered pool", lambda p: p.map(nap, concurrency=3, ordered=False), ordered=False)
    yield on("map: adaptive", lambda p: p.map(nap, concurrency=Adaptive(1, 3)))
    yield on("map: adaptive, unordered", lambda p: p.map(nap, concurrency=Adaptive(2, 4), ordered=False), ordered=False)
    yield on("map: key", lambda p: p.map(nap, concurrency=3, key=rest))
    yield on("map: key, unordered", lambda p: p.map(nap, concurrency=3, key=rest, ordered=False), ordered=False)
    limits = {"key": rest, "per_key": 2, "key_rate": RateLimit(2, burst=2), "waiting": 3}
    yield on("map: key, limits", lambda p: p.map(nap, concurrency=3, **limits))
    yield on("map: key, limits, unordered", lambda p: p.map(nap, concurrency=2, ordered=False, **limits), ordered=False)
    yield on("map: key, rolling", lambda p: p.map(nap, concurrency=2, key=rest, key_rate=RollingLimit(2, per=1)))
    each = Step(nap).rate_limit(RateLimit(2), per_key=rest, max_keys=3)
    yield on("map: limit for each key", lambda p: p.map(each, concurrency=3))
    yield on("map: rolling limit", lambda p: p.map(Step(nap).rate_limit(RollingLimit(2, per=1)), concurrency=2))
    yield on("map: key, waiting", lambda p: p.map(nap, concurrency=1, key=rest, waiting=2, on_error=OnError.emit()))
    for name, (policy, model) in POLICIES.items():
        yield on(f"map: {name}", lambda p, policy=policy: p.map(pick, on_error=policy), model)
        made = partial(Pipeline.map, fn=after(pick), concurrency=3, on_error=policy)
        yield on(f"map: {name} in a pool", made, model)
        yield on(f"map: {name} in an unordered pool", partial(made, ordered=False), model, ordered=False)


def weighed() -> FairShare[Any]:
    return FairShare({0: 3, 1: Fraction(1, 2)})


def cheap_or_dear(item: Any) -> int:
    return 1 + number(item) % 2


def really(item: Any) -> int | Fraction:
    """What a call has really cost: more than was said, less, or nothing."""
    return (Fraction(7, 2), 0, 1)[number(item) % 3]


def shared_limits() -> Iterator[Case]:
    """Each run has limiters of its own, which its calls share."""

    def tokens(rate: float = 2) -> RateLimiter:
        return RateLimiter(RateLimit(rate, burst=2), weighed())

    def few(count: int = 2) -> PlaceLimiter:
        return PlaceLimiter(count, weighed())

    yield on("map: shares", lambda p: p.map(Step(nap).rate_limit(tokens(), key=rest), concurrency=3))
    yield on("map: places", lambda p: p.map(Step(nap).places(PlaceLimiter(2)), concurrency=3))
    yield on("map: places by key", lambda p: p.map(Step(nap).places(few(1), key=rest), concurrency=3))
    yield on(
        "map: shares and places, at one instant",
        lambda p: p.map(Step(nap).places(few(), key=rest).rate_limit(tokens(), key=rest), concurrency=3, ordered=False),
        ordered=False,
    )
    yield on(
        "map: shares, settled",
        lambda p: p.map(
            Step(nap).rate_limit(tokens(3), key=rest, cost=cheap_or_dear, settle=really).timeout(99), concurrency=3
        ),
    )
    yield on(
        "map: several limits",
        lambda p: p.map(
            Step(nap).rate_limit(
                tokens().group("a"),
                RateLimit(3),
                RateLimiter(RollingLimit(3, per=1)),
                key=rest,
                settle=[really, None, rest],
            ),
            concurrency=3,
        ),
    )
    yield on(
        "map: shares and places on a runner",
        lambda p: p.map(
            Step(same).on(in_place).rate_limit(tokens(), key=rest, settle=really).timeout(99).places(few(), key=rest),
            concurrency=3,
        ),
    )
    yield on(
        "map: places around attempts",
        lambda p: p.map(
            Step(nap).rate_limit(tokens(), key=rest).retry(Retry(2)).places(few(), key=rest), concurrency=3
        ),
    )


def only_the_latest() -> Iterator[Case]:
    """Which items are superseded depends on the schedule; the last one never is."""
    loose: dict[str, Any] = {"ordered": False, "before": lambda items: [], "view": lambda results: results[-1:]}
    yield on("map: latest", lambda p: p.map(nap, latest=True), lambda items: items[-1:], **loose)
    yield on(
        "map: latest, of a step",
        lambda p: p.map(Step(nap).timeout(99), latest=True).buffer(1),
        lambda items: items[-1:],
        **loose,
    )
    yield on(
        "flat_map: latest", lambda p: p.flat_map(twice_in_time, latest=True), lambda items: both(items)[-1:], **loose
    )
    yield on(
        "flat_map: latest, to pipelines",
        lambda p: p.flat_map(twice_in_a_pipeline, concurrency=1, latest=True),
        lambda items: both(items)[-1:],
        **loose,
    )


def flat_mapped() -> Iterator[Case]:
    yield on("flat_map: sync", lambda p: p.flat_map(twice), both)
    yield on(
        "flat_map: to nothing",
        lambda p: p.flat_map(lambda item: twice(item) if is_good(item) else []),
        lambda items: both(good(items)),
    )
    yield on("flat_map: async generator", lambda p: p.flat_map(twice_in_time), both)
    yield on("flat_map: async function", lambda p: p.flat_map(after(twice)), both)
    yield on("flat_map: concurrency", lambda p: p.flat_map(twice_in_time, concurrency=3), both, ordered=False)
    yield on("flat_map: pipelines", lambda p: p.flat_map(twice_in_a_pipeline, concurrency=2), both, ordered=False)
    yield on("flat_map: one pipeline", lambda p: p.flat_map(twice_in_a_pipeline, concurrency=1), both)
    yield on(
        "flat_map: emit",
        lambda p: p.flat_map(fails_midway, on_error=OnError.emit()),
        lambda items: [each for item in items for each in (item, *with_failures([item]))],
    )
    yield on("flat_map: skip", lambda p: p.flat_map(lambda item: [pick(item)], on_error=OnError.skip()), good)


def with_failures_on_their_way() -> Iterator[Case]:
    def failing(line: Line) -> Line:
        return line.map(pick, on_error=OnError.emit())

    def ok(items: Items) -> Items:
        return [*map(unless_failed(wrapped), with_failures(items))]

    yield on("on_ok", lambda p: failing(p).on_ok(wrapped), ok)
    yield on("on_ok: async", lambda p: failing(p).on_ok(after(wrapped)), ok)
    yield on("on_ok: a step", lambda p: failing(p).on_ok(Step(after(wrapped)).timeout(99), concurrency=2), ok)
    yield on(
        "on_ok: a lambda, awaited", lambda p: failing(p).on_ok(lambda item: after(wrapped)(item), concurrency=2), ok
    )
    pooled = partial(Pipeline.on_ok, fn=after(wrapped), concurrency=3)
    yield on("on_ok: ordered pool", lambda p: pooled(failing(p)), ok)
    yield on("on_ok: unordered pool", lambda p: pooled(failing(p), ordered=False), ok, ordered=False)
    yield on("on_ok: key", lambda p: pooled(failing(p), key=rest), ok)
    yield on("on_ok: without failures", lambda p: pooled(p), lambda items: [*map(unless_failed(wrapped), items)])
    yield on("on_ok: divert", lambda p: p.on_ok(pick, on_error=OnError.divert(bury)), good)
    yield on("recover", lambda p: failing(p).recover(failed_item), recovered)
    yield on("recover: async", lambda p: failing(p).recover(after(failed_item)), recovered)
    retried = Step(after(failed_item)).retry(Retry(2))
    yield on("recover: a step", lambda p: failing(p).recover(retried, concurrency=2), recovered)
    saved = partial(Pipeline.recover, fn=after(failed_item), concurrency=3)
    yield on("recover: ordered pool", lambda p: saved(failing(p)), recovered)
    yield on("recover: unordered pool", lambda p: saved(failing(p), ordered=False), recovered, ordered=False)
    yield on("recover: key", lambda p: saved(failing(p), key=lambda failure: rest(failure.item)), recovered)
    yield on(
        "recover: fails, too",
        lambda p: failing(p).recover(lambda failure: pick(failure.item), on_error=OnError.skip()),
        lambda items: good(recovered(items)),
    )


def instead_of_nothing() -> Iterator[Case]:
    def nothing(line: Line) -> Line:
        return line.filter(lambda item: False)

    def others() -> Line:
        return Pipeline.from_iterable(OTHER)

    def slow_others() -> Line:
        return Pipeline.from_iterable(OTHER).map(second, concurrency=2).buffer(1)

    def given(items: Items) -> Items:
        return OTHER

    made: dict[str, Any] = {"before": lambda items: [], "alone": False}
    yield on("or_else: not needed", lambda p: p.or_else(others), lambda items: items or OTHER, before=list, alone=False)
    yield on("or_else", lambda p: nothing(p).or_else(others), given, **made)
    yield on("or_else: a slow pipeline", lambda p: nothing(p.map(nap)).or_else(slow_others).map(same), given, **made)
    yield on(
        "or_else: two pipelines", lambda p: nothing(p).or_else(lambda: nothing(others())).or_else(others), given, **made
    )


def at_the_end() -> Iterator[Case]:
    yield on("on_end", lambda p: p.on_end(wrapped))
    yield on("on_end: async", lambda p: p.map(nap, concurrency=2).on_end(nap).map(same))
    yield on("on_end: awaited", lambda p: p.on_end(lambda outcome: nap(outcome)).batch(3), cut(3))


def item_by_item() -> Iterator[Case]:
    yield on("filter", lambda p: p.filter(is_good), good)
    yield on("filter: async", lambda p: p.filter(after(is_good)), good)
    yield on("filter: awaited", lambda p: p.filter(lambda item: after(is_good)(item), concurrency=2), good)
    yield on("tap: awaited", lambda p: p.tap(lambda item: nap(item), concurrency=2))
    yield on("tap", lambda p: p.tap(wrapped))
    yield on("tap: async", lambda p: p.tap(nap))
    start = (0, None)
    yield on("scan", lambda p: p.scan(counted, start), lambda items: [*accumulate(items, counted, initial=start)][1:])
    yield on(
        "scan: async",
        lambda p: p.scan(after(counted), start),
        lambda items: [*accumulate(items, counted, initial=start)][1:],
    )
    yield on("enumerate", lambda p: p.enumerate(7), numbered)
    yield on("unbatch", lambda p: p.map(twice).unbatch(), both)
    yield on("unbatch: of batches", lambda p: p.batch(3).unbatch())
    yield on("pipe", lambda p: p.pipe(lambda line, size: line.batch(size).buffer(1), 2), cut(2))
    yield on("with_settings", lambda p: p.map(nap, name="nap").with_settings({"nap": {"concurrency": 4}}))


def of_the_stream() -> Iterator[Case]:
    yield on("take", lambda p: p.take(3), lambda items: items[:3], stops=True)
    yield on("take: behind a pool", lambda p: p.map(nap, concurrency=4).take(3), lambda items: items[:3], stops=True)
    yield on("take: nothing", lambda p: p.take(0), lambda items: [], stops=True)
    yield on("take: more than there is", lambda p: p.take(10**6))
    yield on("skip", lambda p: p.skip(2), lambda items: items[2:])
    for name, fn in {"": before_five, ": async": after(before_five)}.items():
        yield on(
            f"take_while{name}",
            partial(Pipeline.take_while, fn=fn),
            lambda items: [*takewhile(before_five, items)],
            stops=True,
        )
        yield on(
            f"skip_while{name}", partial(Pipeline.skip_while, fn=fn), lambda items: [*dropwhile(before_five, items)]
        )
        yield on(
            f"take_until{name}",
            partial(Pipeline.take_until, fn=after(is_fifth) if name else is_fifth),
            lambda items: [*takewhile(lambda item: not is_fifth(item), items), *islice(filter(is_fifth, items), 1)],
            stops=True,
        )
    yield on("stop_when", lambda p: p.stop_when(trio.sleep_forever))
    yield on("stop_when: at once", lambda p: p.stop_when(is_set()), lambda items: [], stops=True)
    yield on("take_for", lambda p: p.map(nap).take_for(1000))
    yield on("distinct", lambda p: p.distinct(rest, remember=3), first_of_each_rest)
    yield on(
        "distinct: without a key",
        lambda p: p.map(rest).distinct(remember=3).map(Token),
        lambda items: [*map(Token, dict.fromkeys(map(rest, items)))],
    )


def regrouped() -> Iterator[Case]:
    yield on("batch", lambda p: p.batch(3), cut(3))
    yield on("batch: buffered", lambda p: p.batch(3).buffer(1).map(lambda batch: batch), cut(3))
    yield on("batch: delay", lambda p: p.batch(3, max_delay=1), cut(1), view=flat)
    yield on("batch: only delay", lambda p: p.batch(max_delay=1.5), cut(1), view=flat)
    yield on("batch: what is there", lambda p: p.buffer(2).batch(3, max_delay=0), cut(1), view=flat)
    yield on(
        "batch: what is there, from a pool", lambda p: p.map(nap, concurrency=3).batch(max_delay=0), cut(1), view=flat
    )
    yield on(
        "batch: what is there, by key",
        lambda p: p.buffer(2).batch(3, max_delay=0, key=rest, max_keys=3),
        cut(1),
        view=flat,
        ordered=False,
    )
    yield on("batch: what is there, by cost", lambda p: p.batch(9, max_delay=0, max_cost=2), cut(1), view=flat)
    yield on("batch: cost", lambda p: p.batch(max_cost=2), cut(2))
    yield on("batch: cost function", lambda p: p.batch(max_cost=5, cost=lambda item: 1 + rest(item)), by_costs)
    yield on("batch: key", lambda p: p.batch(3, key=rest, max_keys=3), cut_by_rest(3))
    yield on("batch: key, oldest", lambda p: p.batch(2, key=rest, max_keys=2), idle_go_out)
    yield on("batch: key, fail", lambda p: p.batch(2, key=rest, max_keys=3, full="fail"), cut_by_rest(2))
    yield on(
        "batch: key, delay", lambda p: p.batch(9, max_delay=1, key=rest, max_keys=3), cut(1), ordered=False, view=flat
    )
    yield on("batch: key, one key", lambda p: p.batch(3, key=lambda item: None, max_keys=1), cut(3))
    yield on(
        "batch: key, cost",
        lambda p: p.batch(max_cost=5, cost=lambda item: 5, key=rest, max_keys=1, full="fail"),
        cut(1),
    )
    yield on("window", lambda p: p.window(3), cut(3))
    yield on("window: period", lambda p: p.window(period=1.5), cut(1), view=flat)
    yield on("window: period and number", lambda p: p.window(2, period=2.5), cut(1), view=flat)
    yield on("sliding: overlapping", lambda p: p.sliding(3), slid(3, 1))
    yield on("sliding: in steps", lambda p: p.sliding(3, 2), slid(3, 2))
    yield on("sliding: with gaps", lambda p: p.sliding(2, 3), slid(2, 3))
    yield on("pairwise", lambda p: p.pairwise(), lambda items: [*pairwise(items)])


def own() -> Iterator[Case]:
    """Operations of the user's own."""
    yield on("stateful", lambda p: p.stateful(Late, holds=1), before=lambda items: items[:-1])
    yield on(
        "stateful: behind a pool",
        lambda p: p.map(nap, concurrency=3).stateful(Late, holds=1),
        before=lambda items: items[:-1],
    )
    yield on(
        "stateful: key",
        lambda p: p.stateful(Late, holds=1, key=rest, max_keys=3),
        late(3),
        before=late(3, flushed=False),
    )
    yield on(
        "stateful: key, oldest",
        lambda p: p.stateful(Late, holds=1, key=rest, max_keys=2),
        late(2),
        before=late(2, flushed=False),
    )
    yield on(
        "stateful: key, at times",
        lambda p: p.stateful(InTime, holds=3, key=rest, max_keys=3),
        before=lambda items: items[:-9],
        ordered=False,
    )
    yield on("stateful: two of one", lambda p: p.stateful(Twice), lambda items: [*both(items), None], before=both)
    yield on(
        "stateful: at times", lambda p: p.stateful(InTime, holds=3), before=lambda items: items[:-3], ordered=False
    )
    yield on(
        "stateful: a function",
        lambda p: p.stateful(lambda: InTime(0.25), holds=3),
        before=lambda items: items[:-3],
        ordered=False,
    )
    yield on("through", lambda p: p.through(slowly_through))
    yield on("through: two of one", lambda p: p.through(twice_through), lambda items: [*both(items), None], before=both)
    yield on("through: three", lambda p: p.through(three_through), lambda items: items[:3], stops=True)
    yield on("through: in a nursery", lambda p: p.through(late_through, holds=1), before=lambda items: items[:-1])


def timed() -> Iterator[Case]:
    """Where time decides which items go on, the items come so slowly that all do."""
    yield on("throttle", lambda p: p.throttle(RateLimit(2, burst=2)))
    yield on("throttle: rolling", lambda p: p.throttle(RollingLimit(2, per=1)))
    yield on("throttle: cost", lambda p: p.throttle(RateLimit(2, burst=3), cost=lambda item: 1 + rest(item)))
    yield on("debounce", lambda p: p.map(second).debounce(0.25))
    yield on("debounce: in a burst", lambda p: p.batch(10**6).unbatch().debounce(0.25), lambda items: items[-1:])
    yield on("debounce: for a time", lambda p: p.map(second).debounce(0.25, max_wait=0.5))
    yield on("sample", lambda p: p.map(second).sample(0.25))
    yield on("sample: in a burst", lambda p: p.batch(10**6).unbatch().sample(0.25), lambda items: items[-1:])
    yield on("delay", lambda p: p.delay(1.25))
    yield on("delay: few places", lambda p: p.delay(1.25, max_items=2))
    yield on("idle_timeout", lambda p: p.map(nap).idle_timeout(100))
    yield on("keep_alive", lambda p: p.map(second).keep_alive(100, lambda: None))
    yield on(
        "keep_alive: at work",
        lambda p: p.map(second).keep_alive(0.4, Filler).filter(lambda item: type(item) is not Filler),
    )
    yield on("timeout", lambda p: p.map(nap).timeout(1000, first=100))


def held() -> Iterator[Case]:
    yield on("buffer", lambda p: p.buffer(1))
    yield on("buffer: behind a pool", lambda p: p.buffer(2).map(nap, concurrency=2).buffer(40))
    yield on("buffer: rendezvous", lambda p: p.buffer(0))
    yield on("buffer: rendezvous before a pool", lambda p: p.buffer(0).map(nap, concurrency=2))
    yield on(
        "buffer: rendezvous everywhere",
        lambda p: p.buffer(0).map(nap, concurrency=2).buffer(0).map(same).buffer(0).delay(0.25).buffer(0),
    )
    yield on(
        "buffer: rendezvous before windows",
        lambda p: p.buffer(0).batch(3, max_delay=1).buffer(0).unbatch().buffer(0).map(nap, concurrency=3, key=rest),
    )
    yield on(
        "buffer: rendezvous before own operations",
        lambda p: p.buffer(0).through(slowly_through).buffer(0).on_end(wrapped).buffer(0).or_else(nobody),
    )
    yield on(
        "buffer: rendezvous that drops none",
        lambda p: (  # with room behind it, so that whatever comes there keeps no stage of it busy
            p.map(second).buffer(0, overflow="drop_newest").map(same).buffer(0, overflow="fail").map(same).buffer(99)
        ).map(same),
    )
    yield on("buffer: drop_oldest", lambda p: p.map(second).buffer(7, overflow="drop_oldest"))
    yield on("buffer: drop_newest", lambda p: p.map(second).buffer(7, overflow="drop_newest"))
    costs = {"max_cost": 4, "cost": lambda item: 1 + rest(item)}
    yield on("buffer: cost", lambda p: p.buffer(**costs).map(nap, concurrency=2).buffer(3, **costs))
    yield on("buffer: cost, drops none", lambda p: p.map(second).buffer(7, max_cost=20, cost=rest, overflow="fail"))
    yield on("buffer: cost, in a branch", lambda p: p.broadcast({"only": lambda line: line.buffer(**costs).map(nap)}))
    yield on("buffer: merge", lambda p: p.map(second).buffer(9, overflow=OnFull.merge(newer)))
    yield on(
        "buffer: merge, in a branch",
        lambda p: p.map(second).broadcast({"only": lambda line: line.buffer(9, overflow=OnFull.merge(newer))}),
    )
    yield on("buffer: fail", lambda p: p.map(second).buffer(100, overflow="fail"))
    share = FairShare({0: 2, 1: Fraction(1, 2)}, cost=lambda item: 1 + rest(item))
    yield on("fair_by: block", lambda p: p.fair_by(rest, share, max_keys=2), ordered=False)
    yield on(
        "fair_by: block, one place",
        lambda p: p.fair_by(rest, FairShare(capacity=1), max_keys=1).map(nap),
        ordered=False,
    )
    # Their queues are long enough for a consumer that takes what there is; a slow one makes them overflow.
    yield on("fair_by: drop_newest", lambda p: p.fair_by(rest, max_keys=3, overflow="drop_newest"), ordered=False)
    yield on("fair_by: divert", lambda p: p.fair_by(rest, max_keys=3, overflow=OnError.divert(bury)), ordered=False)


def branched() -> Iterator[Case]:
    yield on(
        "broadcast",
        lambda p: p.broadcast({"raw": same, "slow": lambda line: line.buffer(1).map(nap, concurrency=2).map(wrapped)}),
        lambda items: [*items, *map(wrapped, items)],
        ordered=False,
    )
    yield on(
        "broadcast: one ends",
        lambda p: p.broadcast({"few": lambda line: line.take(2).map(wrapped), "all": lambda line: line.batch(2)}),
        lambda items: [*map(wrapped, items[:2]), *cut(2)(items)],
        ordered=False,
    )
    yield on(
        "broadcast: rendezvous",
        lambda p: p.buffer(0).broadcast(
            {"a": lambda line: line.buffer(0).map(nap, concurrency=2), "b": lambda line: line.buffer(0).map(wrapped)}
        ),
        lambda items: [*items, *map(wrapped, items)],
        ordered=False,
    )
    yield on(
        "partition: rendezvous",
        lambda p: p.buffer(0).partition(
            route, {"a": lambda line: line.buffer(0).map(second), "b": lambda line: line.buffer(0).map(same).map(nap)}
        ),
        ordered=False,
    )
    yield on(
        "broadcast: zipped",
        lambda p: p.broadcast(
            {"raw": same, "slow": lambda line: line.buffer(1).map(nap, concurrency=2).map(wrapped)}, join="zip"
        ),
        lambda items: [{"raw": item, "slow": (item,)} for item in items],
    )
    yield on(
        "broadcast: zipped twice",
        lambda p: p.broadcast(
            {
                "inner": lambda line: line.broadcast(
                    {"a": same, "b": lambda line: line.delay(1, max_items=2)}, join="zip"
                ),
                "slow": lambda line: line.map(nap).tap(second),
            },
            join="zip",
        ).buffer(2),
        lambda items: [{"inner": {"a": item, "b": item}, "slow": item} for item in items],
    )
    yield on(
        "balance",
        lambda p: p.balance({"slow": lambda line: line.buffer(1).map(nap), "fast": lambda line: line.buffer(1)}),
        list,
        ordered=False,
    )
    yield on("balance: one branch", lambda p: p.balance({"only": same}))
    yield on("broadcast: one branch", lambda p: p.broadcast({"only": same}))
    yield on(
        "partition",
        lambda p: p.partition(
            route, {"a": lambda line: line.buffer(1).map(second), "b": lambda line: line.map(wrapped)}
        ),
        lambda items: [item if route(item) == "a" else (item,) for item in items],
        ordered=False,
    )


def once_more(item: Any) -> list[Any]:
    """Give an item once more, wrapped."""
    return [] if type(item) is tuple else [(item,)]


def with_rounds(items: Items) -> Items:
    return [*items, *(work for item in items for work in once_more(item))]


def looped() -> Iterator[Case]:
    loop = partial(Pipeline.loop, again=once_more, room=100)
    flags: dict[str, Any] = {"ordered": False, "rounds": True}
    yield on("loop", partial(loop, body=same), with_rounds, **flags)
    yield on("loop: a pool", partial(loop, body=lambda p: p.map(nap, concurrency=2)), with_rounds, **flags)
    yield on(
        "loop: as completed, by key",
        partial(loop, body=lambda p: p.map(nap, concurrency=3, key=rest, ordered=False)),
        with_rounds,
        **flags,
    )
    yield on("loop: divert", partial(loop, body=lambda p: p.map(nap), full=OnError.divert(bury)), with_rounds, **flags)
    branches: dict[str, Any] = {"a": lambda line: line.buffer(1).map(nap), "b": lambda line: line.take(1).skip(1)}
    yield on(
        "loop: branches and batches",
        partial(loop, body=lambda p: p.broadcast(branches).batch(2, max_delay=1).unbatch()),
        with_rounds,
        **flags,
    )
    yield on(
        "loop: in a loop",
        partial(loop, body=lambda p: p.loop(same, again=lambda item: [], room=1).map(nap)),
        with_rounds,
        **flags,
    )


def sources() -> Iterator[Case]:
    yield Case("from_iterable", lambda feed: Pipeline.from_iterable(feed.at_once))
    yield Case("from_iterable: a list", lambda feed: Pipeline.from_iterable(feed.items), alone=False, fails=False)
    yield Case("from_iterable: in a thread", lambda feed: Pipeline.from_iterable(feed.at_once, on=threads(1)))
    yield Case("from_async_iterable", lambda feed: Pipeline.from_async_iterable(feed.slowly))
    yield Case("from_channel", lambda feed: Pipeline.from_channel(Channel(feed)), replays=False)
    yield Case("from_producer", lambda feed: Pipeline.from_producer(feed.produce))
    yield Case(
        "ticks",
        lambda feed: Pipeline.ticks(1).take(len(feed.items)).map(Token),
        lambda items: tokens(len(items)),
        alone=False,
        fails=False,
    )
    retry = Retry(3, OSError, Backoff(1))
    yield Case("restarting", lambda feed: Pipeline.restarting(feed.at_once, retry, reset_after=math.inf))
    yield Case("restarting: async", lambda feed: Pipeline.restarting(feed.slowly, retry, reset_after=1))
    yield Case(
        "restarting: one that breaks",
        lambda feed: Pipeline.restarting(feed.breaking(), Retry(99, OSError, Backoff(1)), reset_after=math.inf),
        replays=False,
    )


@asynccontextmanager
async def held_open(feed: Feed) -> AsyncIterator[Feed]:
    """Open the feed as a resource that holds a nursery open, as a connection does."""
    feed.opened += 1
    try:
        async with connection():
            yield feed
    finally:
        feed.closed += 1


@contextmanager
def held_at_once(feed: Feed) -> Iterator[Feed]:
    feed.opened += 1
    try:
        yield feed
    finally:
        feed.closed += 1


async def nap_with(_feed: Feed, item: Any) -> Any:
    return await nap(item)


def with_a_resource(per: Any, feed: Feed) -> Line:
    step = Step(nap_with).using(partial(held_open, feed), per).timeout(99).retry(Retry(2))
    return feed.line().map(step, concurrency=2)


def using() -> Iterator[Case]:
    yield Case("using", lambda feed: Pipeline.using(partial(held_open, feed), Feed.slowly))
    yield Case("using: an iterable", lambda feed: Pipeline.using(partial(held_at_once, feed), Feed.at_once))
    yield Case(
        "using: a pipeline",
        lambda feed: Pipeline.using(
            partial(held_open, feed),
            lambda feed: Pipeline.from_iterable(feed.at_once).map(nap, concurrency=2),
        ),
        alone=False,  # what its run discards is none of this one's items
    )


def fan_ins() -> Iterator[Case]:
    beside: dict[str, Any] = {"ordered": False, "alone": False}
    yield Case(
        "merge", lambda feed: merge(feed.line(), feed.other()), lambda items: [*items, *OTHER], before=list, **beside
    )
    yield Case("merge: one", lambda feed: merge(feed.line()))
    yield Case(
        "merge: with a pool behind",
        lambda feed: merge(feed.line().map(nap, concurrency=2), feed.other().buffer(1)).map(nap, concurrency=2),
        lambda items: [*items, *OTHER],
        before=list,
        **beside,
    )
    for name, policy in {"emit": OnError.emit(), "skip": OnError.skip()}.items():
        yield Case(
            f"merge: {name}",
            lambda feed, policy=policy: merge(feed.line(), feed.other().buffer(1), on_error=policy),
            lambda items: [*items, *OTHER],
            before=list,
            stops=True,
            **beside,
        )
    share = FairShare({"feed": 3, "other": Fraction(1, 2)}, capacity=2, cost=lambda item: 1 + rest(item))
    yield Case(
        "fair_merge: emit",
        lambda feed: fair_merge({"feed": feed.line(), "other": feed.other()}, share, on_error=OnError.emit()),
        lambda items: [*items, *OTHER],
        before=list,
        stops=True,
        **beside,
    )
    yield Case(
        "fair_merge",
        lambda feed: fair_merge({"feed": feed.line(), "other": feed.other()}, share),
        lambda items: [*items, *OTHER],
        before=list,
        **beside,
    )
    yield Case(
        "concat",
        lambda feed: concat(feed.line(), feed.other()),
        lambda items: [*items, *OTHER],
        before=list,
        alone=False,
    )
    yield Case(
        "concat: second", lambda feed: concat(feed.other(), feed.line()), lambda items: [*OTHER, *items], alone=False
    )
    yield Case(
        "merge_sorted",
        lambda feed: merge_sorted(feed.line(), feed.other(), key=number),
        lambda items: [*heapq.merge(items, OTHER, key=number)],
        before=list,
        alone=False,
    )
    yield Case(
        "merge_sorted: equal items, with a pool behind",
        lambda feed: merge_sorted(
            feed.line(), feed.twin().map(nap, concurrency=2), key=lambda item: -number(item), reverse=True
        ).map(nap, concurrency=2),
        lambda items: [*heapq.merge(items, items, key=number)],
        before=lambda items: sorted([*items, *items[:-1]], key=number),
        alone=False,
    )
    yield Case(
        "zip_latest",  # which tuples there are depends on the schedule; the last one does not
        lambda feed: zip_latest(feed.line(), feed.other().map(nap)),
        lambda items: [(items[-1], OTHER[-1])] if items else [],
        ordered=False,
        before=lambda items: [],
        stops=True,
        alone=False,
        view=lambda results: results[-1:],
    )
    yield Case("zip_latest: one", lambda feed: zip_latest(feed.line()), lambda items: [(item,) for item in items])
    yield Case(
        "prefer",
        lambda feed: prefer(feed.line(), feed.other(), at_least=3),
        lambda items: [*items, *OTHER],
        before=list,
        **beside,
    )
    yield Case(
        "prefer: the other",
        lambda feed: prefer(feed.other(), feed.line().buffer(1), at_least=2).map(nap, concurrency=2),
        lambda items: [*items, *OTHER],
        before=list,
        **beside,
    )
    yield Case("merge_sorted: one", lambda feed: merge_sorted(feed.line()))
    yield Case(
        "zip_pipelines",
        lambda feed: zip_pipelines(feed.line(), feed.other().map(nap)),
        lambda items: [*zip(items, OTHER, strict=False)],
        stops=True,
        alone=False,
    )
    yield Case(
        "zip_pipelines: strict",
        lambda feed: zip_pipelines(feed.line(), feed.twin().map(nap, concurrency=2), strict=True),
        lambda items: [*zip(items, items, strict=True)],
        alone=False,
    )


SOURCES = [*sources(), *using()]
OPERATORS = [
    *mapped(),
    *shared_limits(),
    *only_the_latest(),
    *flat_mapped(),
    *with_failures_on_their_way(),
    *instead_of_nothing(),
    *at_the_end(),
    *item_by_item(),
    *of_the_stream(),
    *regrouped(),
    *own(),
    *timed(),
    *held(),
    *branched(),
    *looped(),
    *fan_ins(),
]
"""What is put behind something: each may be put behind any other, too."""
CASES = [*SOURCES, *OPERATORS]
