"""Whatever is put together: a pipeline on trio gives what slow and obvious functions over lists give.

Each `Part` of a drawn pipeline says it twice: as an operation, and as a function from list to list. Order is compared
where every part promises it; where one does not, what came is compared as a bag, and no part follows whose results
depend on positions (`take`, `scan`, `batch`): except in wild rows, which are only asked to end, and for their sums.
Consumers are of four kinds, and each example has an order of tasks of its own.

Mutants that die here: an operation that loses its last item when the next one ends early; branches that wait in a
circle; a batch that is held when the source ends inside a merge; a failure that overtakes a batch, a window or a
branch.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, dropwhile, takewhile
from typing import Any

import trio
from hypothesis import given, note, settings
from hypothesis import strategies as st

from funcpipe_trio import (
    Failure,
    FairShare,
    OnError,
    OnFull,
    Pipeline,
    RateLimit,
    Report,
    concat,
    fair_merge,
    merge,
    merge_sorted,
    prefer,
    zip_latest,
    zip_pipelines,
)
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, assert_links_balance, assert_stages_balance, connection

Line = Pipeline[Any]
Items = list[Any]
Draw = st.DrawFn


@dataclass(frozen=True)
class Part:
    """What is done to a stream, and what that does to a list."""

    apply: Callable[[Line], Line]
    model: Callable[[Items], Items] | None = list
    """None: what comes depends on the schedule."""
    ordered: bool = True
    stops: bool = False
    """Whether it may end before its source, and so never meet the failure that stands there."""

    def then(self, after: Part) -> Part:
        first, second = self.model, after.model
        both = None if first is None or second is None else lambda items: second(first(items))
        return Part(
            lambda line: after.apply(self.apply(line)), both, self.ordered and after.ordered, self.stops or after.stops
        )


@dataclass(frozen=True)
class Whole:
    """A pipeline with its sources, and what it gives."""

    line: Line
    gives: Items | None
    ordered: bool = True

    def then(self, part: Part) -> Whole:
        gives = None if self.gives is None or part.model is None else part.model(self.gives)
        return Whole(part.apply(self.line), gives, self.ordered and part.ordered)


# ---- functions of items


def rest(by: int, item: int) -> int:
    return item % by


def is_no_multiple(of: int, item: int) -> bool:
    return item % of != 0


def twins(item: int) -> list[int]:
    return [item, item + 1]


def twins_or_none(item: int) -> list[int]:
    return twins(item) if item % 3 else []


async def twins_in_time(pause: float, item: int) -> AsyncIterator[int]:
    for child in twins_or_none(item):
        await trio.sleep(pause)
        yield child


def twin_pipelines(pause: float, item: int) -> Line:
    return Pipeline.from_iterable(twins_or_none(item)).map(waiting(lambda _: pause, lambda child: child))


def refuse(of: int, item: int) -> int:
    if item % of == 0:
        raise ArithmeticError(item)
    return item


async def bury(failure: object) -> None:
    await trio.sleep(0.5)


def waiting(pause: Callable[[int], float], fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    async def wait(item: Any) -> Any:
        await trio.sleep(pause(item))
        return fn(item)

    return wait


def pauses(draw: Draw) -> Callable[[int], float]:
    """Return how long each item takes."""
    seconds = draw(st.lists(st.sampled_from((0, 0.25, 1, 3)), min_size=1, max_size=3))
    return lambda item: seconds[item % len(seconds)]


def modulus(draw: Draw) -> int:
    return draw(st.integers(2, 4))


def perhaps_async(draw: Draw, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return waiting(pauses(draw), fn) if draw(st.booleans()) else fn


class Late:
    """Give each item when the next one comes, and the last one at the end."""

    def __init__(self) -> None:
        self.last: list[int] = []

    def push(self, item: int) -> list[int]:
        given, self.last = self.last, [item]
        return given

    def flush(self) -> list[int]:
        return self.last

    def held(self) -> list[int]:
        return self.last


async def late(items: AsyncIterator[int]) -> AsyncIterator[int]:
    kept: list[int] = []
    async for item in items:
        await trio.sleep(item % 2)
        kept.append(item)
        if len(kept) > 2:
            yield kept.pop(0)
    for item in kept:
        yield item


# ---- parts that are the same whatever the order is


def passing(draw: Draw) -> Part:
    """Whatever keeps all items as they are."""
    size, seconds = draw(st.integers(1, 4)), draw(st.sampled_from((0.25, 1.0, 2.5)))
    ways: list[Callable[[Line], Line]] = [
        lambda line: line.buffer(size),
        lambda line: line.buffer(0),
        lambda line: line.buffer(max_cost=size, cost=partial(rest, 3)),
        lambda line: line.tap(perhaps),
        lambda line: line.batch(size).unbatch(),
        lambda line: line.batch(size, max_delay=seconds).unbatch(),
        lambda line: line.batch(size, max_delay=0).unbatch(),
        lambda line: line.batch(max_delay=seconds).buffer(1).unbatch(),
        lambda line: line.batch(max_cost=size, cost=partial(rest, 3)).unbatch(),
        lambda line: line.batch(size, max_delay=seconds, key=lambda item: None, max_keys=size).unbatch(),
        lambda line: line.window(size).buffer(size).unbatch(),
        lambda line: line.window(size, period=seconds).map(len_kept, concurrency=2).unbatch(),
        lambda line: line.window(period=seconds).unbatch(),
        lambda line: line.delay(seconds, max_items=size),
        lambda line: line.throttle(RateLimit(2, burst=size)),
        lambda line: line.idle_timeout(10**6).timeout(10**7, first=10**6),
        lambda line: line.take_for(10**6).stop_when(trio.sleep_forever).keep_alive(10**6, int),
        lambda line: line.enumerate().map(lambda pair: pair[1]),
        lambda line: merge(line),
        lambda line: line.on_end(perhaps_async(draw, str)),
        lambda line: line.broadcast({"only": lambda branch: branch}),
        lambda line: line.broadcast({"only": same_item, "slow": slowly}, join="zip").map(lambda both: both["slow"]),
        lambda line: line.balance({"only": slowly}),
        lambda line: prefer(line, at_least=2),
        lambda line: zip_latest(line).map(lambda one: one[0]),
        lambda line: line.buffer(10**6, overflow=OnFull.merge(max)),
    ]
    perhaps = perhaps_async(draw, lambda item: None)
    return Part(draw(st.sampled_from(ways)))


def holding(draw: Draw) -> Part:
    """What keeps items until others come, or the end: in front of a failure they are given up."""
    ways: list[Callable[[Line], Line]] = [
        lambda line: line.stateful(Late, holds=1),
        lambda line: line.stateful(Late, holds=1, key=partial(rest, 3), max_keys=1),
        lambda line: line.through(late),
    ]
    return Part(draw(st.sampled_from(ways)))


def same_item(line: Line) -> Line:
    return line


def slowly(line: Line) -> Line:
    return line.map(waiting(lambda item: item % 3, int), concurrency=2).buffer(1)


async def len_kept(batch: list[int]) -> list[int]:
    await trio.sleep(len(batch) % 2)
    return batch


def mapping(draw: Draw) -> Part:
    offset = draw(st.integers(0, 3))

    def plus(item: int) -> int:
        return item + offset

    if draw(st.booleans()):
        return Part(lambda line: line.map(plus), lambda items: [*map(plus, items)])
    how: dict[str, Any] = {"concurrency": draw(st.integers(1, 4)), "ordered": draw(st.booleans())}
    if draw(st.booleans()):
        how["key"] = partial(rest, modulus(draw))
        how["waiting"] = draw(st.integers(0, 3))
        how["key_rate"] = draw(st.sampled_from((None, RateLimit(2, burst=1), RateLimit(0.5, burst=2))))
    return Part(
        partial(Pipeline.map, fn=waiting(pauses(draw), plus), **how),
        lambda items: [*map(plus, items)],
        ordered=how["ordered"] or (how["concurrency"] == 1 and "key" not in how),  # keys may wait, and others go first
    )


def forgiving(draw: Draw) -> Part:
    of, policy = modulus(draw), draw(st.sampled_from((OnError.skip(), OnError.divert(bury))))
    how: dict[str, Any] = {"on_error": policy}
    fn: Callable[[Any], Any] = partial(refuse, of)
    if draw(st.booleans()):
        fn = waiting(pauses(draw), fn)
        how["concurrency"] = draw(st.integers(1, 3))
    return Part(partial(Pipeline.map, fn=fn, **how), lambda items: [*filter(partial(is_no_multiple, of), items)])


def lost_item(failure: Failure[int]) -> int:
    return -failure.item


def recovering(draw: Draw) -> Part:
    """Some items fail, the others go on, and those come back negative."""
    of = modulus(draw)
    how: dict[str, Any] = {"on_error": OnError.emit()}
    ok, pause = waiting(pauses(draw), lambda item: item + 1), pauses(draw)
    saved = draw(st.sampled_from((lost_item, waiting(lambda failure: pause(failure.item), lost_item))))
    return Part(
        lambda line: line.map(partial(refuse, of), **how).on_ok(ok, concurrency=2).recover(saved),
        lambda items: [item + 1 if is_no_multiple(of, item) else -item for item in items],
    )


def instead(draw: Draw) -> Part:
    of, items_instead = modulus(draw), [*range(100, 100 + draw(st.integers(0, 3)))]
    keep = partial(is_no_multiple, of) if draw(st.booleans()) else (lambda item: False)
    other = Pipeline.from_iterable(items_instead).map(perhaps_async(draw, lambda item: item))
    return Part(
        lambda line: line.filter(keep).or_else(lambda: other), lambda items: [*filter(keep, items)] or items_instead
    )


def filtering(draw: Draw) -> Part:
    keep = partial(is_no_multiple, modulus(draw))
    return Part(partial(Pipeline.filter, fn=perhaps_async(draw, keep)), lambda items: [*filter(keep, items)])


def expanding(draw: Draw) -> Part:
    pause, concurrency = draw(st.sampled_from((0, 1))), draw(st.integers(1, 3))
    fn: Callable[[int], Any] = draw(
        st.sampled_from((twins_or_none, partial(twins_in_time, pause), partial(twin_pipelines, pause)))
    )
    how: dict[str, Any] = {} if fn is twins_or_none else {"concurrency": concurrency}
    return Part(
        partial(Pipeline.flat_map, fn=fn, **how),
        lambda items: [child for item in items for child in twins_or_none(item)],
        ordered=not how or concurrency == 1,
    )


def without_repeats(draw: Draw) -> Part:
    return Part(lambda line: line.distinct(remember=10**6), lambda items: [*dict.fromkeys(items)])


def sharing(draw: Draw) -> Part:
    keys = modulus(draw)
    share = FairShare({0: draw(st.integers(1, 5))}, capacity=draw(st.integers(1, 3)))
    how: dict[str, Any] = {"key": partial(rest, keys), "share": share, "max_keys": draw(st.integers(1, keys))}
    return Part(partial(Pipeline.fair_by, **how), ordered=False)


def smaller(item: int) -> list[int]:
    return [item // 3, -(item // 2)] if item > 1 else []


def with_smaller(items: list[int]) -> list[int]:
    found, left = [], list(items)
    while left:
        found.append(left.pop())
        left += smaller(found[-1])
    return found


def looping(draw: Draw) -> Part:
    body: Any = draw(
        st.sampled_from(
            (
                lambda line: line,
                lambda line: line.map(waiting(lambda item: item % 3, int), concurrency=3),
                lambda line: line.map(waiting(lambda item: item % 2, int), concurrency=2, ordered=False).buffer(1),
                lambda line: line.batch(3, max_delay=1).unbatch(),
            )
        )
    )
    return Part(partial(Pipeline.loop, body=body, again=smaller, room=10**6), with_smaller, ordered=False)


# ---- parts that depend on positions


def cutting(draw: Draw) -> Part:
    n, of = draw(st.integers(0, 6)), modulus(draw)
    keep = partial(is_no_multiple, of)
    fn = perhaps_async(draw, keep)
    parts = [
        Part(lambda line: line.take(n), lambda items: items[:n], stops=True),
        Part(lambda line: line.skip(n), lambda items: items[n:]),
        Part(partial(Pipeline.take_while, fn=fn), lambda items: [*takewhile(keep, items)], stops=True),
        Part(
            partial(Pipeline.take_until, fn=fn),
            lambda items: items[: 1 + next((at for at, item in enumerate(items) if keep(item)), len(items))],
            stops=True,
        ),
        Part(partial(Pipeline.skip_while, fn=fn), lambda items: [*dropwhile(keep, items)]),
    ]
    return draw(st.sampled_from(parts))


def adding_up(draw: Draw) -> Part:
    def add(state: int, item: int) -> int:
        return state + item

    async def add_in_time(state: int, item: int) -> int:
        await trio.sleep(1)
        return state + item

    fn = draw(st.sampled_from((add, add_in_time)))
    return Part(lambda line: line.scan(fn, 1), lambda items: [*accumulate(items, initial=1)][1:])


def numbering(draw: Draw) -> Part:
    return Part(
        lambda line: line.enumerate().map(lambda pair: 100 * pair[0] + pair[1]),
        lambda items: [100 * at + item for at, item in enumerate(items)],
    )


def gathering(draw: Draw) -> Part:
    size, step = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    in_time = draw(st.booleans())
    if draw(st.booleans()):
        return by_key(size, partial(rest, step))
    name = draw(st.sampled_from(("batch", "window", "sliding")))

    def apply(line: Line) -> Line:
        made = line.sliding(size, step) if name == "sliding" else getattr(line, name)(size)
        return made.map(waiting(lambda batch: len(batch) % 2, sum), concurrency=2) if in_time else made.map(sum)

    if name == "sliding":
        return Part(apply, lambda items: [sum(items[at : at + size]) for at in range(0, len(items) - size + 1, step)])
    return Part(apply, lambda items: [sum(items[at : at + size]) for at in range(0, len(items), size)])


def by_key(size: int, key: Callable[[int], int]) -> Part:
    """Make sums of batches of each key: what is full leaves; at the end, what began first."""

    def model(items: list[int]) -> list[int]:
        open_: dict[int, list[int]] = {}
        sums = []
        for item in items:
            open_.setdefault(key(item), []).append(item)
            if len(open_[key(item)]) == size:
                sums.append(sum(open_.pop(key(item))))
        return [*sums, *map(sum, open_.values())]

    return Part(lambda line: line.batch(size, key=key, max_keys=4).map(sum), model)


def first_of_each_key(draw: Draw) -> Part:
    key = partial(rest, modulus(draw))
    return Part(
        lambda line: line.distinct(key, remember=9),
        lambda items: [item for at, item in enumerate(items) if key(item) not in map(key, items[:at])],
    )


# ---- joins and branches


def joining(draw: Draw, depth: int) -> Part:
    other = draw(wholes(depth - 1))
    gives = other.gives
    kind = draw(st.sampled_from(("merge", "fair_merge", "prefer", "concat", "concat behind")))
    if kind == "concat behind":
        model = None if gives is None else lambda items: [*gives, *items]
        return Part(lambda line: concat(other.line, line), model, other.ordered)
    model = None if gives is None else lambda items: [*items, *gives]
    if kind == "concat":
        return Part(lambda line: concat(line, other.line), model, other.ordered)
    if kind == "prefer":
        at_least = draw(st.integers(2, 4))
        return Part(lambda line: prefer(line, other.line, at_least=at_least), model, ordered=False)
    if kind == "merge":
        return Part(lambda line: merge(line, other.line), model, ordered=False)
    share = FairShare({"line": draw(st.integers(1, 5))}, capacity=draw(st.integers(1, 3)))
    return Part(lambda line: fair_merge({"line": line, "other": other.line}, share), model, ordered=False)


def sorting(draw: Draw, depth: int) -> Part:
    """A merge of two lines that are not sorted: of their first items, always the least."""
    other = draw(wholes(depth - 1))
    reverse, modulus = draw(st.booleans()), draw(st.integers(1, 9))

    def key(item: int) -> int:
        return item % modulus

    known = other.gives if other.ordered else None
    return Part(
        lambda line: merge_sorted(line, other.line, key=key, reverse=reverse),
        None if known is None else lambda items: [*heapq.merge(items, known, key=key, reverse=reverse)],
    )


def zipping(draw: Draw, depth: int) -> Part:
    other = draw(wholes(depth - 1))
    known = other.gives if other.ordered else None
    return Part(
        lambda line: zip_pipelines(line, other.line).map(sum),
        None if known is None else lambda items: [*map(sum, zip(items, known, strict=False))],
        stops=True,
    )


def branching(draw: Draw, depth: int, **how: bool) -> Part:
    parts = [draw(rows(depth - 1, 2, **how)) for _ in range(draw(st.integers(1, 3)))]
    makers = {str(number): part.apply for number, part in enumerate(parts)}
    way, many = draw(st.sampled_from(("broadcast", "partition", "balance"))), len(parts)

    def model(items: Items) -> Iterator[Any]:
        for number, part in enumerate(parts):
            is_cut = way == "partition"
            yield from part.model([item for item in items if abs(item) % many == number] if is_cut else items)

    def split(line: Line) -> Line:
        if way == "partition":
            return line.partition(lambda item: str(abs(item) % many), makers)
        return line.balance(makers) if way == "balance" else line.broadcast(makers)

    unknown = any(part.model is None for part in parts) or (way == "balance" and many > 1)
    return Part(
        split,
        None if unknown else lambda items: [*model(items)],
        ordered=many == 1 and parts[0].ordered,
        stops=any(part.stops for part in parts),
    )


ANYWHERE = (passing, mapping, forgiving, recovering, filtering, expanding, without_repeats, sharing, looping)
ALIGNING = (zipping, sorting)
BY_POSITION = (cutting, adding_up, numbering, gathering, first_of_each_key)


@st.composite
def rows(
    draw: Draw, depth: int = 2, most: int = 5, *, ordered: bool = True, joins: bool = True, wild: bool = False
) -> Part:
    """Generate parts in a row."""
    row = Part(lambda line: line, ordered=ordered)
    for _ in range(draw(st.integers(0, most))):
        kinds: list[Callable[..., Part]] = [*ANYWHERE]
        if row.ordered or wild:
            kinds += BY_POSITION
        if joins:  # a failure is no end, and then nothing takes the place of what did not come
            kinds += [instead, holding]
        if depth and joins:
            kinds += [partial(joining, depth=depth)]
            kinds += [partial(kind, depth=depth) for kind in ALIGNING] * (row.ordered or wild)
        if depth:
            kinds.append(partial(branching, depth=depth, ordered=row.ordered, joins=joins, wild=wild))
        kind = draw(st.sampled_from(kinds))
        part = kind(draw)
        hangs = kind in BY_POSITION or getattr(kind, "func", None) in ALIGNING
        row = row.then(part if row.ordered or not hangs else Part(part.apply, None, part.ordered, part.stops))
    return row


@st.composite
def forks(draw: Draw) -> Part:
    """Generate branches within branches, with anything in them and behind."""
    return branching(draw, 3, wild=True).then(draw(rows(1, 2, ordered=False, wild=True)))


@st.composite
def sources(draw: Draw, error: Exception | None = None) -> Whole:
    items = [*range(draw(st.integers(0, 40)))]
    gaps = draw(st.lists(st.sampled_from((0, 0.5, 2)), min_size=1, max_size=3))

    def at_once() -> Iterator[int]:
        yield from items
        if error is not None:
            raise error

    async def in_time() -> AsyncGenerator[int, None]:
        for item in items:
            await trio.sleep(gaps[item % len(gaps)])
            yield item
        if error is not None:
            raise error

    async def produce(channel: trio.MemorySendChannel[int]) -> None:
        with channel:
            async with aclosing(in_time()) as given:
                async for item in given:
                    await channel.send(item)

    lines = [Pipeline.from_iterable(at_once), Pipeline.from_async_iterable(in_time), Pipeline.from_producer(produce)]
    lines += [
        Pipeline.using(connection, lambda _: in_time()),
        Pipeline.using(connection, lambda _: Pipeline.from_iterable(at_once)),
    ]
    if error is not None:

        def fail(item: int) -> int:
            if item == len(items):
                raise error
            return item

        behind = Pipeline.from_iterable(range(len(items) + 1))
        lines += [behind.map(fail), behind.map(waiting(lambda item: gaps[item % len(gaps)], fail), concurrency=3)]
    else:
        lines += [Pipeline.from_iterable(items), Pipeline.ticks(0.5).take(len(items))]
    return Whole(draw(st.sampled_from(lines)), items)


@st.composite
def wholes(draw: Draw, depth: int = 2) -> Whole:
    """Generate a whole pipeline and its expected output."""
    return draw(sources()).then(draw(rows(max(depth, 0), 5 if depth == 2 else 2)))


# ---- runs


@dataclass
class Taken:
    """What a consumer got, and how it ended."""

    items: Items
    error: Boom | None
    report: Report | None


async def iterate(line: Line, pause: float) -> Taken:
    taken = Taken([], None, None)
    try:
        async with line.open() as run:
            async for item in run:
                taken.items.append(item)
                if pause:
                    await trio.sleep(pause)
    except Boom as error:
        taken.error = error
    taken.report = run.report
    return taken


async def receive(line: Line) -> Taken:
    taken = Taken([], None, None)
    try:
        async with line.open() as run:
            while True:
                taken.items.append(await run.receive())
    except trio.EndOfChannel:
        pass
    except Boom as error:
        taken.error = error
    taken.report = run.report
    return taken


async def collect(line: Line) -> Taken:
    taken = Taken([], None, None)
    try:
        await line.tap(taken.items.append).run()
    except Boom as error:
        taken.error = error
    return taken


CONSUMERS = {
    "iterate": partial(iterate, pause=0),
    "slow": partial(iterate, pause=0.75),
    "receive": receive,
    "collect": collect,
}

consumers = st.sampled_from(sorted(CONSUMERS))
seeds = st.integers(0, 2**32)


def play(line: Line, consumer: str, seed: int) -> Taken:
    """Run a pipeline under an order of tasks; deadlock is an error, and so are sums that do not hold."""
    note(line.describe())
    with scheduled(Schedule(seed)):
        taken: Taken = run_virtual(CONSUMERS[consumer], line)
    report = taken.report
    if report is not None:
        assert report.delivered == len(taken.items)
        assert_stages_balance(report)
        assert_links_balance(report)
    return taken


def same(got: Items, expected: Items | None, *, ordered: bool) -> bool:
    return expected is None or (got == expected if ordered else Counter(got) == Counter(expected))


@settings(max_examples=300, deadline=None)
@given(whole=wholes(), consumer=consumers, seed=seeds)
def test_a_pipeline_gives_what_its_model_gives(whole, consumer, seed):
    taken = play(whole.line, consumer, seed)

    assert taken.error is None
    assert taken.report is None or taken.report.outcome == "completed"
    assert same(taken.items, whole.gives, ordered=whole.ordered)


@settings(max_examples=200, deadline=None)
@given(source=sources(), fork=forks(), consumer=consumers, seed=seeds)
def test_no_combination_of_branches_waits_in_a_circle(source, fork, consumer, seed):
    """Every shape ends; those that end early behind parts without order, too."""
    whole = source.then(fork)

    taken = play(whole.line, consumer, seed)

    assert taken.error is None
    assert same(taken.items, whole.gives, ordered=whole.ordered)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), row=rows(joins=False), consumer=consumers, seed=seeds)
def test_a_failure_stands_behind_what_came_before_it(data, row, consumer, seed):
    """P5, through any row of operations and branches: all that came before the failure is out, and then it comes."""
    error = Boom()
    whole = data.draw(sources(error)).then(row)

    taken = play(whole.line, consumer, seed)

    assert taken.error is error or (row.stops and taken.error is None)
    assert same(taken.items, whole.gives, ordered=whole.ordered)
