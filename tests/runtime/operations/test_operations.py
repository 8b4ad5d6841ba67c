"""Every operation, source and ending, held against a model on lists.

An operation joins all of these tests by one line in `OPERATIONS`, a source by one in `SOURCES`, an ending by one in
`ENDINGS`. The items are as hostile as items may be: `None`, NaN, exceptions, and objects that refuse to be compared,
hashed, printed or truth-tested; so every test here also shows that items are opaque.

Mutants that die here: a value lost or given twice at a burst's end; `if item:` or `item == x` on an item; state of an
operation kept over two runs; a source closed twice, or only when it is collected; a discard that is counted and not
told, or told twice; a failure that overtakes the items before it; a worker that takes an item without a place for it.
"""

import math
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from itertools import accumulate, dropwhile, pairwise, takewhile

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import (
    Aborted,
    FairShare,
    Pipeline,
    RateLimit,
    Retry,
    concat,
    fair_merge,
    merge,
    threads,
    zip_pipelines,
)
from tests._kit import MS, Opaque, in_virtual_time, received

# ---- the items


class Falsy(list):
    """An item that looks like an empty batch."""


SPECIAL = [
    None,
    math.nan,
    ValueError("an item, not an error"),
    StopIteration("an item, not an end"),
    StopAsyncIteration(),
    trio.EndOfChannel(),
    NotImplemented,
    KeyboardInterrupt(),
    Falsy(),
    ValueError,
]
EVERY_ITEM = [*SPECIAL, *(Opaque() for _ in range(590))]
ITEMS = EVERY_ITEM[:60]
NUMBER = {id(item): number for number, item in enumerate(EVERY_ITEM)}


def number_of(item):
    return NUMBER[id(item)]


def shown(value):
    """Put an item's number in its place, so that results can be compared."""
    if id(value) in NUMBER:
        return f"item {NUMBER[id(value)]}"
    if isinstance(value, list | tuple):
        return tuple(map(shown, value))
    return value


# ---- the user's functions


def identity(item):
    return item


def is_odd(item):
    return number_of(item) % 2 == 1


def is_early(item):
    return number_of(item) < 25


def is_late(item):
    return not is_early(item)


def third(item):
    return number_of(item) // 3


def twice(item):
    return [item, item]


def some(item):
    return [item] * (number_of(item) % 3)


def is_childless(item):
    return not some(item)


def tally(state, item):
    return state + number_of(item)


def cost_of(item):
    return 1 + number_of(item) % 3


class User:
    """Makes the functions that an operation calls; one of them raises at the item `bad`, if there is one."""

    def __init__(self, bad=None):
        self.bad = bad
        self.failure = RuntimeError("the function failed")
        self.running = self.most = 0

    def _visit(self, args):
        if self.bad is not None and args[-1] is self.bad:
            raise self.failure

    def now(self, fn):
        @wraps(fn)
        def call(*args):
            self._visit(args)
            return fn(*args)

        return call

    def later(self, fn):
        @wraps(fn)
        async def call(*args):
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await trio.sleep(number_of(args[-1]) * 7 % 5 * MS)
                self._visit(args)
                return fn(*args)
            finally:
                self.running -= 1

        return call

    def bit_by_bit(self, fn):
        @wraps(fn)
        async def call(item):
            self._visit((item,))
            for child in fn(item):
                await trio.sleep(number_of(item) * 7 % 5 * MS)
                yield child

        return call


# ---- the operations


def chunks(items, size):
    return [items[start : start + size] for start in range(0, len(items), size)]


def chunks_by_cost(items, limit):
    """Batches as the definition has them, item by item."""
    batches, total = [], math.inf
    for item in items:
        if total + cost_of(item) > limit or total >= limit:
            batches.append([])
            total = 0
        batches[-1].append(item)
        total += cost_of(item)
    return batches


@dataclass(frozen=True)
class Operation:
    """An operation, what it is on lists, and what may be asked of it."""

    name: str
    apply: object
    """``apply(pipeline, user)``"""
    model: object = list
    """``model(items)``"""
    ordered: bool = True
    plain: bool = True
    """One value for each item, or none: the counts of the whole run add up."""
    calls: bool = True
    """Whether it calls user code at each item."""
    inputs: int = 1
    merges: bool = False
    """Whether items of its inputs may come in any order between inputs."""
    childless: object = None
    """Which items become nothing, where an item may become several."""
    reaches: bool = True
    """Whether `max_in_flight` is reached: neither its functions nor an early end prevent that."""

    at_end: bool = False
    """Whether its first value comes with the end of the stream."""

    def __repr__(self):
        return self.name


OPERATIONS = [
    Operation("nothing", lambda line, user: line, calls=False),
    Operation("map", lambda line, user: line.map(user.now(identity))),
    Operation("map_async", lambda line, user: line.map(user.later(identity))),
    Operation("map_concurrent", lambda line, user: line.map(user.later(identity), concurrency=5)),
    Operation(
        "map_unordered", lambda line, user: line.map(user.later(identity), concurrency=5, ordered=False), ordered=False
    ),
    Operation("map_twice", lambda line, user: line.map(user.later(identity)).map(identity).map(User().later(identity))),
    Operation("filter", lambda line, user: line.filter(user.now(is_odd)), lambda items: [*filter(is_odd, items)]),
    Operation(
        "filter_async", lambda line, user: line.filter(user.later(is_odd)), lambda items: [*filter(is_odd, items)]
    ),
    Operation(
        "filter_nothing", lambda line, user: line.filter(user.now(lambda item: False)), lambda items: [], reaches=False
    ),
    Operation(
        "flat_map",
        lambda line, user: line.flat_map(user.now(some)),
        lambda items: [child for item in items for child in some(item)],
        plain=False,
        childless=is_childless,
        reaches=False,
    ),
    Operation(
        "flat_map_async",
        lambda line, user: line.flat_map(user.later(some)),
        lambda items: [child for item in items for child in some(item)],
        plain=False,
        childless=is_childless,
        reaches=False,
    ),
    Operation(
        "flat_map_async_generator",
        lambda line, user: line.flat_map(user.bit_by_bit(some)),
        lambda items: [child for item in items for child in some(item)],
        plain=False,
        childless=is_childless,
        reaches=False,
    ),
    Operation(
        "flat_map_own_stage",
        lambda line, user: line.flat_map(user.now(some), concurrency=1),
        lambda items: [child for item in items for child in some(item)],
        plain=False,
        childless=is_childless,
        reaches=False,
    ),
    Operation(
        "flat_map_concurrent",
        lambda line, user: line.flat_map(user.bit_by_bit(twice), concurrency=3),
        lambda items: [child for item in items for child in twice(item)],
        plain=False,
        ordered=False,
        childless=lambda item: False,
        reaches=False,
    ),
    Operation(
        "flat_map_pipelines",
        lambda line, user: line.flat_map(
            user.now(lambda item: Pipeline.from_iterable(some(item)).map(User().later(identity))), concurrency=1
        ),
        lambda items: [child for item in items for child in some(item)],
        plain=False,
        childless=is_childless,
        reaches=False,
    ),
    Operation(
        "scan",
        lambda line, user: line.scan(user.now(tally), 100),
        lambda items: [*accumulate(items, tally, initial=100)][1:],
    ),
    Operation(
        "scan_async",
        lambda line, user: line.scan(user.later(tally), 100),
        lambda items: [*accumulate(items, tally, initial=100)][1:],
    ),
    Operation("tap", lambda line, user: line.tap(user.now(is_odd))),
    Operation("tap_async", lambda line, user: line.tap(user.later(is_odd))),
    Operation("enumerate", lambda line, user: line.enumerate(), lambda items: [*enumerate(items)], calls=False),
    Operation(
        "enumerate_from", lambda line, user: line.enumerate(-3), lambda items: [*enumerate(items, -3)], calls=False
    ),
    Operation("take", lambda line, user: line.take(30), lambda items: items[:30], calls=False, reaches=False),
    Operation(
        "take_behind_a_call",
        lambda line, user: line.map(user.later(identity), concurrency=4).take(30),
        lambda items: items[:30],
        reaches=False,
    ),
    Operation("skip", lambda line, user: line.skip(7), lambda items: items[7:], calls=False),
    Operation("skip_all", lambda line, user: line.skip(1000), lambda items: items[1000:], calls=False, reaches=False),
    Operation(
        "take_while",
        lambda line, user: line.take_while(user.now(is_early)),
        lambda items: [*takewhile(is_early, items)],
        reaches=False,
    ),
    Operation(
        "take_while_async",
        lambda line, user: line.take_while(user.later(is_early)),
        lambda items: [*takewhile(is_early, items)],
        reaches=False,
    ),
    Operation(
        "take_until",
        lambda line, user: line.take_until(user.now(is_late)),
        lambda items: [*takewhile(is_early, items), *[item for item in items if is_late(item)][:1]],
        reaches=False,
    ),
    Operation(
        "take_until_async",
        lambda line, user: line.take_until(user.later(is_late)),
        lambda items: [*takewhile(is_early, items), *[item for item in items if is_late(item)][:1]],
        reaches=False,
    ),
    Operation(
        "skip_while",
        lambda line, user: line.skip_while(user.now(is_early)),
        lambda items: [*dropwhile(is_early, items)],
    ),
    Operation(
        "skip_while_async",
        lambda line, user: line.skip_while(user.later(is_early)),
        lambda items: [*dropwhile(is_early, items)],
    ),
    Operation("batch", lambda line, user: line.batch(7), lambda items: chunks(items, 7), calls=False, plain=False),
    Operation(
        "batch_delay",
        lambda line, user: line.batch(7, max_delay=100),
        lambda items: chunks(items, 7),
        calls=False,
        plain=False,
    ),
    Operation(
        "batch_cost",
        lambda line, user: line.batch(max_cost=8, cost=user.now(cost_of)),
        lambda items: chunks_by_cost(items, 8),
        plain=False,
        reaches=False,
    ),
    Operation(
        "batch_cost_delay",
        lambda line, user: line.batch(20, max_cost=2, max_delay=100, cost=user.now(cost_of)),
        lambda items: chunks_by_cost(items, 2),
        plain=False,
        reaches=False,
    ),
    Operation(
        "batch_key",
        lambda line, user: line.batch(7, key=user.now(lambda item: 0), max_keys=1),
        lambda items: chunks(items, 7),
        plain=False,
    ),
    Operation("unbatch", lambda line, user: line.batch(7).unbatch(), calls=False, plain=False),
    Operation("unbatch_behind_a_link", lambda line, user: line.batch(7).buffer(2).unbatch(), calls=False, plain=False),
    Operation("window", lambda line, user: line.window(7), lambda items: chunks(items, 7), calls=False, plain=False),
    Operation(
        "window_period",
        lambda line, user: line.window(7, period=100),
        lambda items: chunks(items, 7),
        calls=False,
        plain=False,
    ),
    Operation(
        "sliding",
        lambda line, user: line.sliding(7, 3),
        lambda items: [tuple(items[start : start + 7]) for start in range(0, len(items) - 6, 3)],
        calls=False,
        plain=False,
    ),
    Operation(
        "sliding_with_gaps",
        lambda line, user: line.sliding(3, 5),
        lambda items: [tuple(items[start : start + 3]) for start in range(0, len(items) - 2, 5)],
        calls=False,
        plain=False,
    ),
    Operation(
        "pairwise", lambda line, user: line.pairwise(), lambda items: [*pairwise(items)], calls=False, plain=False
    ),
    Operation(
        "distinct",
        lambda line, user: line.distinct(user.now(number_of), remember=10),
    ),
    Operation(
        "distinct_drops",
        lambda line, user: line.distinct(user.now(third), remember=1),
        lambda items: [item for number, item in enumerate(items) if third(item) not in map(third, items[:number])],
    ),
    Operation("throttle", lambda line, user: line.throttle(RateLimit(50, burst=3)), calls=False),
    Operation("throttle_cost", lambda line, user: line.throttle(RateLimit(50, burst=3), cost=user.now(cost_of))),
    Operation(
        "debounce",
        lambda line, user: line.debounce(1000),
        lambda items: items[-1:],
        calls=False,
        reaches=False,
        at_end=True,
    ),
    Operation(
        "sample",
        lambda line, user: line.sample(1000),
        lambda items: items[-1:],
        calls=False,
        reaches=False,
        at_end=True,
    ),
    Operation("delay", lambda line, user: line.delay(0.25, max_items=4), calls=False),
    Operation("idle_timeout", lambda line, user: line.idle_timeout(1000), calls=False),
    Operation("take_for", lambda line, user: line.take_for(1000), calls=False),
    Operation("stop_when", lambda line, user: line.stop_when(trio.sleep_forever), calls=False),
    Operation("keep_alive", lambda line, user: line.keep_alive(1000, dict), calls=False),
    Operation("timeout", lambda line, user: line.timeout(1000, first=100).map(user.now(identity))),
    Operation(
        "buffer_that_may_fail", lambda line, user: line.buffer(1000, overflow="fail"), calls=False, reaches=False
    ),
    Operation("buffer", lambda line, user: line.buffer(1), calls=False),
    Operation("buffer_between", lambda line, user: line.buffer(3).map(user.now(identity)).buffer(5)),
    Operation(
        "pipe",
        lambda line, user: line.pipe(Pipeline.map, user.now(identity), name="piped"),
    ),
    Operation("merge_of_one", lambda line, user: merge(line).map(user.now(identity))),
    Operation(
        "merge", lambda line, user: merge(line, line), lambda items: items * 2, inputs=2, merges=True, calls=False
    ),
    Operation(
        "merge_of_calls",
        lambda line, user: merge(*(line.map(User().later(identity), concurrency=2) for _ in range(2))).map(identity),
        lambda items: items * 2,
        inputs=2,
        merges=True,
        calls=False,
    ),
    Operation(
        "fair_merge",
        lambda line, user: fair_merge({"a": line, "b": line}, FairShare({"a": 3}, capacity=4, cost=cost_of)),
        lambda items: items * 2,
        inputs=2,
        merges=True,
        calls=False,
    ),
    Operation("concat", lambda line, user: concat(line, line), lambda items: items * 2, inputs=2, calls=False),
    Operation(
        "zip",
        lambda line, user: zip_pipelines(line, line.map(User().later(identity))),
        lambda items: [*zip(items, items, strict=True)],
        inputs=2,
        plain=False,
        calls=False,
    ),
    Operation(
        "zip_strict",
        lambda line, user: zip_pipelines(line, line, strict=True),
        lambda items: [*zip(items, items, strict=True)],
        inputs=2,
        plain=False,
        calls=False,
    ),
    Operation(
        "zip_unequal",
        lambda line, user: zip_pipelines(line, line.skip(7)),
        lambda items: [*zip(items, items[7:], strict=False)],
        inputs=2,
        plain=False,
        calls=False,
    ),
    Operation(
        "merge_of_everything",
        lambda line, user: merge(concat(line.take(5), line.skip(5)), merge(line).batch(3).unbatch()),
        lambda items: items * 2,
        inputs=3,
        plain=False,
        merges=True,
        calls=False,
    ),
]


# ---- the sources


@dataclass(frozen=True)
class SourceKind:
    """A source: how it is made, and whether a plan of it works more than once."""

    name: str
    make: object
    """``make(items, log, failure)``: gives the items, then raises the failure, if any; logs opening and closing."""
    replayable: bool = True

    def __repr__(self):
        return self.name


def iterable_source(items, log, failure=None):
    def source():
        log.append("open")
        try:
            yield from items
            if failure is not None:
                raise failure
        finally:
            log.append("close")

    return source


def async_iterable_source(items, log, failure=None):
    async def source():
        log.append("open")
        try:
            for item in items:
                yield item
            if failure is not None:
                raise failure
        finally:
            await trio.lowlevel.cancel_shielded_checkpoint()
            log.append("close")

    return source


class LoggedChannel(trio.abc.ReceiveChannel):
    """A channel of a user's own."""

    def __init__(self, items, log, failure):
        self.items = iter(items)
        self.log = log
        self.failure = failure

    async def receive(self):
        if "open" not in self.log:
            self.log.append("open")
        await trio.lowlevel.checkpoint()
        for item in self.items:
            return item
        raise trio.EndOfChannel if self.failure is None else self.failure

    async def aclose(self):
        if "open" in self.log:
            self.log.append("close")
        await trio.lowlevel.checkpoint()


def producer_source(items, log, failure=None):
    async def source(send_channel):
        log.append("open")
        try:
            for item in items:
                await send_channel.send(item)
            if failure is not None:
                raise failure
        finally:
            log.append("close")

    return source


def ticking_source(items, log, failure=None):
    def item_at(number):
        if number < len(items):
            return items[number]
        raise failure

    number = len(items) if failure is None else len(items) + 1
    return Pipeline.ticks(MS).take(number).map(item_at)


SOURCES = [
    SourceKind("iterable", lambda *how: Pipeline.from_iterable(iterable_source(*how))),
    SourceKind("async_iterable", lambda *how: Pipeline.from_async_iterable(async_iterable_source(*how))),
    SourceKind("producer", lambda *how: Pipeline.from_producer(producer_source(*how))),
    SourceKind("ticks", ticking_source),
    SourceKind(
        "restarting",
        lambda *how: Pipeline.restarting(async_iterable_source(*how), Retry(1), reset_after=math.inf),
    ),
    SourceKind(
        "restarting_iterable",
        lambda *how: Pipeline.restarting(iterable_source(*how), Retry(1), reset_after=math.inf),
    ),
    SourceKind("in_a_thread", lambda *how: Pipeline.from_iterable(iterable_source(*how), on=threads(1))),
    SourceKind(
        "using",
        lambda *how: Pipeline.using(nullcontext, lambda _: async_iterable_source(*how)(), name="using"),
    ),
    SourceKind(
        "using_iterable",
        lambda *how: Pipeline.using(nullcontext, lambda _: iterable_source(*how)(), name="using"),
    ),
    SourceKind("iterator", lambda *how: Pipeline.from_iterable(iterable_source(*how)()), replayable=False),
    SourceKind(
        "async_iterator", lambda *how: Pipeline.from_async_iterable(async_iterable_source(*how)()), replayable=False
    ),
    SourceKind("channel", lambda *how: Pipeline.from_channel(LoggedChannel(*how)), replayable=False),
]

BASIC = ("nothing", "map", "map_concurrent", "flat_map_async_generator", "batch", "take")
"""Operations that meet every source; the others meet the first two."""

PAIRS = [
    (operation, source)
    for operation in OPERATIONS
    for source in SOURCES
    if source in SOURCES[:2] or operation.name in BASIC
]
everything = pytest.mark.parametrize(("operation", "source"), PAIRS, ids=repr)
every_operation = pytest.mark.parametrize("operation", OPERATIONS, ids=repr)


# ---- what is asked of each


def assert_same(operation, got, expected):
    """Compare results by the numbers of their items; of what has no order, only how often each comes."""
    got, expected = [*map(shown, got)], [*map(shown, expected)]
    if operation.ordered and not operation.merges:
        assert got == expected
    else:
        assert Counter(got) == Counter(expected)


def assert_books_close(operation, report, given_up):
    """Check every sum of a report, and that each discarded item was reported once."""
    for stage in report.stages:
        came = stage.received + stage.created
        went = stage.emitted + stage.absorbed + stage.failed + stage.dropped + stage.discarded
        assert (stage.name, came) == (stage.name, went)
    for link in report.links:
        assert (link.behind, link.passed) == (link.behind, link.taken + link.discarded)
        assert link.peak <= link.capacity
    assert report.discarded == len(given_up)
    if operation.plain:
        assert report.taken == report.delivered + report.failed + report.dropped + report.discarded


def assert_closed(log):
    """Check that whatever was opened was closed, once."""
    assert log.count("open") == log.count("close")
    assert not log or log[-1] == "close"


class Given:
    """Notes what is given up, and why."""

    def __init__(self):
        self.items = []
        self.reasons = set()

    def __call__(self, item, stage, reason):
        assert isinstance(stage, str)
        self.items.append(item)
        self.reasons.add(reason)

    def __len__(self):
        return len(self.items)


def living():
    return trio.lowlevel.current_statistics().tasks_living


@everything
@in_virtual_time
async def test_an_operation_is_what_its_model_is(operation, source):
    """Received one by one or collected, the values are those of the model on lists; nothing is left open."""
    log, given_up = [], Given()

    got, error, report = await received(operation.apply(source.make(ITEMS, log, None), User()), given_up)
    collected = await operation.apply(source.make(ITEMS, [], None), User()).collect()

    assert error is None
    assert_same(operation, got, operation.model(ITEMS))
    assert_same(operation, collected, operation.model(ITEMS))
    assert report.outcome == "completed"
    assert report.delivered == len(got)
    assert given_up.reasons <= {"not needed"}
    assert (report.failed, report.error, report.cleanup_errors) == (0, None, ())
    assert_books_close(operation, report, given_up)
    assert_closed(log)


@every_operation
@pytest.mark.parametrize("number", [0, 1, 2, 16, 17])
@in_virtual_time
async def test_an_operation_is_what_its_model_is_on_short_streams(operation, number):
    """Streams that are empty, of one item, or just as long as a link are not an exception."""
    line = operation.apply(Pipeline.from_iterable(ITEMS[:number]), User())

    assert_same(operation, await line.collect(), operation.model(ITEMS[:number]))


@everything
@pytest.mark.parametrize("received", [0, 3])
@in_virtual_time
async def test_an_operation_can_be_cancelled_in_the_middle(operation, source, received):
    """A cancellation ends the run at that instant: no task is left, the source is closed, every item is accounted."""
    log, given_up = [], Given()
    before, got = living(), []

    with trio.CancelScope() as scope:
        async with operation.apply(source.make(ITEMS, log, None), User()).open(on_discard=given_up) as run:
            async for item in run:
                got.append(item)
                if len(got) >= received:
                    break
            await wait_all_tasks_blocked()
            now = trio.current_time()
            scope.cancel()
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert trio.current_time() == now
    assert living() == before
    assert run.report.outcome in ("cancelled", "completed")
    assert given_up.reasons <= {"not needed", "cancelled"}
    assert_books_close(operation, run.report, given_up)
    assert_closed(log)


@everything
@in_virtual_time
async def test_a_cancelled_ending_gives_no_result(operation, source):
    """`collect` under a cancellation raises it: no task is left, the source is closed."""
    log, given_up = [], Given()
    before = living()
    line = operation.apply(source.make(ITEMS, log, None), User())

    with trio.CancelScope() as scope:

        async def cancel_at_first(_item):
            scope.cancel()
            await trio.lowlevel.checkpoint()

        await line.tap(cancel_at_first).collect(on_discard=given_up)

    assert scope.cancelled_caught == bool(operation.model(ITEMS))
    assert living() == before
    assert_closed(log)


@everything
@in_virtual_time
async def test_a_consumer_may_leave_early(operation, source):
    """Leaving after one value takes no time: no task is left, the source is closed, every item is accounted for."""
    log, given_up = [], Given()
    before, now = living(), None
    first = [*map(shown, operation.model(ITEMS))][:1]

    async with operation.apply(source.make(ITEMS, log, None), User()).open(on_discard=given_up) as run:
        async for item in run:
            await wait_all_tasks_blocked()
            got, now = shown(item), trio.current_time()
            break

    assert now is None or trio.current_time() == now
    assert living() == before
    if first and operation.ordered:
        assert got == first[0]
    assert run.report.outcome == ("left" if first and not operation.at_end else "completed")
    assert run.report.delivered == len(first)
    assert given_up.reasons <= {"not needed"}
    assert_books_close(operation, run.report, given_up)
    assert_closed(log)


@everything
@in_virtual_time
async def test_a_source_may_fail_in_the_middle(operation, source):
    """The values of what came before the failure are delivered, and then the original error is raised."""
    log, given_up, failure = [], Given(), ConnectionError("the source failed")
    line = operation.apply(source.make(ITEMS[:20], log, failure), User())

    got, error, report = await received(line, given_up)

    assert error is failure
    assert report.error is failure
    assert given_up.reasons <= {"not needed", "behind a failure"}
    assert report.outcome == "failed"
    if operation.merges:
        assert Counter(map(shown, got)) <= Counter(map(shown, operation.model(ITEMS[:20])))
    elif operation.name == "concat":
        assert_same(operation, got, ITEMS[:20])
    else:
        assert_same(operation, got, operation.model(ITEMS[:20]))
        assert operation.inputs > 1 or report.discarded == 0
    assert_books_close(operation, report, given_up)
    assert_closed(log)


@pytest.mark.parametrize(
    ("operation", "source"), [(op, source) for op, source in PAIRS if op.calls and source.name != "ticks"], ids=repr
)
@in_virtual_time
async def test_a_function_may_fail_in_the_middle(operation, source):
    """The values of the items before the one that failed are delivered, and then the original error is raised."""
    log, given_up, user = [], Given(), User(ITEMS[20])

    got, error, report = await received(operation.apply(source.make(ITEMS, log, None), user), given_up)

    assert error is user.failure
    if operation.ordered:
        assert_same(operation, got, operation.model(ITEMS[:20]))
    else:
        assert Counter(map(shown, got)) <= Counter(map(shown, operation.model(ITEMS)))
    assert (report.outcome, report.error, report.failed) == ("failed", error, 1)
    assert given_up.reasons <= {"behind a failure"}
    assert all(item is not ITEMS[20] for item in given_up.items)
    assert_books_close(operation, report, given_up)
    assert_closed(log)


@everything
@in_virtual_time
async def test_a_run_can_be_drained_in_the_middle(operation, source):
    """A drain takes no more, delivers what was taken, and then the stream ends normally."""
    log, given_up, got, taken = [], Given(), [], None

    async with operation.apply(source.make(ITEMS, log, None), User()).open(on_discard=given_up) as run:
        async for item in run:
            got.append(item)
            if len(got) == 3:
                taken = run.statistics().taken
                run.drain_nowait()

    report = run.report
    expected = Counter(map(shown, operation.model(ITEMS)))
    assert report.outcome == ("completed" if taken is None else "drained")
    # What a source that waits had just handed over is counted by the task that takes it, in its next step.
    assert taken is None or report.taken <= taken + operation.inputs * (source.name != "iterable")
    assert given_up.reasons <= {"not needed"}
    if not operation.name.startswith(("batch", "window")):  # the last one may be a shorter one
        assert Counter(map(shown, got)) <= expected
    if operation.plain:
        assert report.taken == report.delivered + report.dropped + report.discarded
    if not operation.name.startswith(("take", "zip")):
        assert report.discarded == 0
    assert_books_close(operation, report, given_up)
    assert_closed(log)


@everything
@in_virtual_time
async def test_a_run_can_be_aborted_in_the_middle(operation, source):
    """After an abort the next receive raises `Aborted`, and leaving the block raises nothing."""
    log, given_up, before = [], Given(), living()

    async with operation.apply(source.make(ITEMS, log, None), User()).open(on_discard=given_up) as run:
        await wait_all_tasks_blocked()
        run.abort()
        with pytest.raises(Aborted, match=r"^the run was aborted$"):
            await run.receive()

    assert living() == before
    assert run.report.outcome == "aborted"
    assert run.report.delivered == 0
    assert given_up.reasons <= {"not needed", "aborted"}
    assert_books_close(operation, run.report, given_up)
    assert_closed(log)


def items_in(value):
    """How many of the source's items a value stands for."""
    if id(value) in NUMBER:
        return 1
    if isinstance(value, list):
        return sum(map(items_in, value))
    if isinstance(value, tuple):
        return sum(id(part) in NUMBER for part in value)
    return 1


async def most_in_flight(operation, line, looks):
    """Receive slowly, and look at rest: the most items that were taken and not done with."""
    most = received = 0
    async with line.open() as run:
        for _ in range(looks):
            await trio.sleep(1)
            now = run.statistics()
            given = sum(stage.received for stage in now.stages if stage.kind == "source")
            childless = 0 if operation.childless is None else len([*filter(operation.childless, EVERY_ITEM[:given])])
            most = max(most, given - now.failed - now.dropped - now.discarded - childless - received)
            if operation.childless is not None:
                break  # several values may stand for one item
            try:
                received += items_in(await run.receive())
            except trio.EndOfChannel:
                break
    return most


@everything
@in_virtual_time
async def test_what_is_in_flight_stays_within_the_bound(operation, source):
    """What is taken and not yet done with never exceeds `max_in_flight`."""
    line = operation.apply(source.make(EVERY_ITEM, [], None), User())

    assert await most_in_flight(operation, line, 10) <= line.max_in_flight


@pytest.mark.parametrize("operation", [op for op in OPERATIONS if op.reaches and op.inputs == 1], ids=repr)
@in_virtual_time
async def test_a_slow_consumer_meets_the_bound(operation):
    """With a consumer that hardly takes anything, as much is in flight as the plan says: the bound is not a guess."""
    line = operation.apply(Pipeline.from_iterable(EVERY_ITEM), User())

    assert await most_in_flight(operation, line, 60) == line.max_in_flight


@every_operation
@in_virtual_time
async def test_a_plan_can_be_run_twice_and_at_the_same_time(operation):
    """Runs of one plan share nothing: one after the other or at once, each gives the values of the model."""
    log, results = [], []
    line = operation.apply(Pipeline.from_iterable(iterable_source(ITEMS, log)), User())

    async def collect():
        results.append(await line.collect())

    await collect()
    await collect()
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(collect)

    assert len(results) == 5
    for got in results:
        assert_same(operation, got, operation.model(ITEMS))
    assert log.count("open") == log.count("close") == 5 * operation.inputs


HEADS = {
    "source": lambda line: line,
    "call": lambda line: line.map(User().later(identity), concurrency=3),
    "merge": lambda line: merge(line, Pipeline.from_iterable([])),
}


@every_operation
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@in_virtual_time
async def test_what_ends_before_its_source_ends_at_once(operation, head):
    """When the last item that is wanted has come, the stream ends: it waits for no further item, nor takes one."""
    asked = []

    async def source():
        for item in ITEMS[:30]:
            yield item
        asked.append("for more")
        await trio.sleep_forever()

    line = operation.apply(head(Pipeline.from_async_iterable(source)).take(30), User())

    assert_same(operation, await line.collect(), operation.model(ITEMS[:30]))
    if head is HEADS["source"]:
        assert asked == []


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
@in_virtual_time
async def test_taking_nothing_waits_for_nothing(head):
    """`take(0)` of a source that stays silent ends at once."""

    async def silent(_send_channel):
        await trio.sleep_forever()

    assert await head(Pipeline.from_producer(silent)).take(0).batch(3).collect() == []
    assert trio.current_time() == 0


@every_operation
def test_a_plan_is_a_value_that_reads_the_same(operation):
    """Building a plan opens nothing; describing it twice, or describing an equal one, gives the same text."""
    log, user = [], User()
    source = iterable_source(ITEMS, log)
    line = operation.apply(Pipeline.from_iterable(source), user)

    assert line.describe() == line.describe() == operation.apply(Pipeline.from_iterable(source), user).describe()
    assert "0x" not in line.describe()
    line.check()
    assert log == []


@pytest.mark.parametrize("concurrency", [1, 2, 7])
@pytest.mark.parametrize("ordered", [True, False])
@in_virtual_time
async def test_as_many_calls_run_as_were_asked_for(concurrency, ordered):
    """The calls of a map reach their number and never exceed it."""
    user = User()

    await Pipeline.from_iterable(ITEMS).map(user.later(identity), concurrency=concurrency, ordered=ordered).collect()

    assert (user.most, user.running) == (concurrency, 0)


@pytest.mark.parametrize("ordered", [True, False])
@in_virtual_time
async def test_calls_that_are_no_longer_needed_are_cancelled_at_once(ordered):
    """When what is wanted has come, calls that still run end at that instant, and their items are given up."""
    cancelled, given_up = [], Given()

    async def call(item):
        if item is ITEMS[0]:
            await trio.sleep(1)
            return item
        try:
            await trio.sleep_forever()
        finally:
            cancelled.append(shown(item))

    line = Pipeline.from_iterable(ITEMS).map(call, concurrency=4, ordered=ordered).take(1)
    got = await line.collect(on_discard=given_up)

    assert [*map(shown, got)] == ["item 0"]
    assert trio.current_time() == 1
    assert sorted(cancelled) == ["item 1", "item 2", "item 3"]
    assert set(map(shown, given_up.items)) >= set(cancelled)


@pytest.mark.parametrize("source", [source for source in SOURCES if source.name != "ticks"], ids=repr)
@in_virtual_time
async def test_a_failure_closes_the_source_at_once(source):
    """At the failing call nothing more is taken, and the source is closed, while the calls before it are finished."""
    log, times = [], {}

    async def call(item):
        if item is ITEMS[0]:
            await trio.sleep(1)
            times["closed"] = "close" in log
            return item
        raise ConnectionError("no")

    given_up = Given()
    got, error, report = await received(source.make(EVERY_ITEM, log, None).map(call, concurrency=2), given_up)

    assert [*map(shown, got)] == ["item 0"]
    assert type(error) is ConnectionError
    assert times == {"closed": True}
    assert report.taken < 40
    assert trio.current_time() == 1
    assert_closed(log)


@pytest.mark.parametrize("number", [2, 3, 16, 20])
@pytest.mark.parametrize("at_once", [True, False])
@in_virtual_time
async def test_several_tasks_may_receive(number, at_once):
    """Items that come at one instant reach as many waiting receivers at that instant; at the end all of them hear."""
    got, ended = [], []

    async def source():
        await trio.sleep(1)
        for batch in chunks(ITEMS[:number], number if at_once else 1):
            yield batch
        await trio.sleep(1)

    async def take_one(run):
        item = await run.receive()
        got.append((trio.current_time(), shown(item)))

    async def meet_the_end(run):
        with pytest.raises(trio.EndOfChannel):
            await run.receive()
        ended.append(trio.current_time())

    async with Pipeline.from_async_iterable(source).unbatch().open() as run:
        for receive in (take_one, meet_the_end):
            async with trio.open_nursery() as nursery:
                for _ in range(number):
                    nursery.start_soon(receive, run)

    assert sorted(got) == sorted((1.0, f"item {index}") for index in range(number))
    assert ended == [2.0] * number


# ---- the endings


@dataclass(frozen=True)
class Ending:
    """A way to run a pipeline, and what it gives for a list."""

    name: str
    drive: object
    model: object

    def __repr__(self):
        return self.name


async def add(state, item):
    await trio.lowlevel.checkpoint()
    return tally(state, item)


async def run_delivered(line):
    return (await line.run()).delivered


ENDINGS = [
    Ending("collect", lambda line: line.collect(), list),
    Ending("count", lambda line: line.count(), len),
    Ending("run", run_delivered, len),
    Ending("fold", lambda line: line.fold(tally, 100), lambda items: [*accumulate(items, tally, initial=100)][-1]),
    Ending("fold_async", lambda line: line.fold(add, 100), lambda items: [*accumulate(items, tally, initial=100)][-1]),
    Ending("first", lambda line: line.first(default="none"), lambda items: (items or ["none"])[0]),
    Ending("first_of_take", lambda line: line.take(3).first(default="none"), lambda items: (items or ["none"])[0]),
]
every_ending = pytest.mark.parametrize("ending", ENDINGS, ids=repr)


@every_ending
@pytest.mark.parametrize("source", SOURCES, ids=repr)
@pytest.mark.parametrize("number", [0, 1, 60])
@in_virtual_time
async def test_an_ending_is_what_its_model_is(ending, source, number):
    """With every source, and for streams without an item too, an ending gives what its model gives."""
    log, before = [], living()

    got = await ending.drive(source.make(ITEMS[:number], log, None))

    assert shown(got) == shown(ending.model(ITEMS[:number]))
    assert living() == before
    assert_closed(log)


@every_ending
@pytest.mark.parametrize("source", SOURCES, ids=repr)
@in_virtual_time
async def test_an_ending_raises_the_failure_of_its_source(ending, source):
    """The original error is raised, unless the ending needs nothing of what stands behind it."""
    log, before, failure = [], living(), ConnectionError("the source failed")
    line = source.make(ITEMS[:20], log, failure)

    if ending.name.startswith("first"):
        assert shown(await ending.drive(line)) == "item 0"
    else:
        with pytest.raises(
            ConnectionError, match=r"^the source failed\nin stage '\w+', item 20(, attempt 1 of 1)?$"
        ) as caught:
            await ending.drive(line)
        assert caught.value is failure
    assert living() == before
    assert_closed(log)


@every_ending
@pytest.mark.parametrize("source", SOURCES, ids=repr)
@in_virtual_time
async def test_an_ending_can_be_cancelled(ending, source):
    """A cancellation that comes in the middle goes through it, and leaves no task and no open source."""
    log, before = [], living()

    async def stall(_item):
        await trio.sleep_forever()

    with trio.move_on_after(1) as scope:
        await ending.drive(source.make(ITEMS, log, None).tap(stall))

    assert scope.cancelled_caught
    assert trio.current_time() == 1
    assert living() == before
    assert_closed(log)


@in_virtual_time
async def test_the_first_of_nothing_is_an_error_without_a_default():
    """`first` of an empty stream raises, unless it was told what to return."""
    message = r"^Pipeline\.first: the stream is empty\nUse default= to get a value in its place\.$"

    with pytest.raises(LookupError, match=message):
        await Pipeline.from_iterable([]).first()
    assert await Pipeline.from_iterable([]).first(default=None) is None


@in_virtual_time
async def test_a_strict_zip_of_unequal_inputs_fails_behind_its_last_tuple():
    """All tuples there are come first, and then the error that says which input was short."""
    line = zip_pipelines(Pipeline.from_iterable(ITEMS[:5]), Pipeline.from_iterable(ITEMS[:3]), strict=True)
    given_up = Given()

    got, error, report = await received(line, given_up)

    assert [*map(shown, got)] == [(f"item {number}", f"item {number}") for number in range(3)]
    assert type(error) is ValueError
    assert str(error) == "zip 'zip': input 1 ended after 3 items, others did not"
    assert report.taken == 8
    assert [*map(shown, given_up.items)] == ["item 3", "item 4"]


@in_virtual_time
async def test_a_drain_that_cuts_a_strict_zip_is_no_mismatch():
    """One source has given an item of which the other has not given its own: the run is drained, not failed."""
    slow = Pipeline.ticks(10).skip(1)
    line = zip_pipelines(Pipeline.from_iterable(ITEMS[:5]), slow, strict=True)
    given_up = []

    async with line.open(on_discard=lambda *given: given_up.append(given)) as run:
        number, tick = await run.receive()
        run.drain_nowait()
        with pytest.raises(trio.EndOfChannel):
            await run.receive()

    assert (shown(number), tick) == ("item 0", 1)
    assert run.report.outcome == "drained"
    assert [(shown(item), reason) for item, _, reason in given_up] == [
        (f"item {number}", "not needed") for number in range(1, 5)
    ]


@in_virtual_time
async def test_the_empty_fan_ins_are_the_empty_stream():
    """A merge, a zip or a concat of nothing ends at once."""
    for line in (merge(), fair_merge({}), concat(), zip_pipelines(), zip_pipelines(strict=True)):
        assert await line.collect() == []
        assert await line.count() == 0
        got, error, report = await received(line, None)
        assert (got, error, report.outcome) == ([], None, "completed")
