"""Random plans over items that are counted one by one: what became of every single one?

A `World` makes pipelines from recipes (plain data, so a failing example prints as what it is) and keeps its own books,
from the user's side only: what its sources handed over, what its functions let fall or failed at, what came out, what
`on_discard` heard. The books must close without a look at the report; then the report must say the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import count

import trio
from hypothesis import strategies as st

from funcpipe_trio import Aborted, FairShare, Pipeline, concat, fair_merge, merge, zip_pipelines
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom

from ._tasks import Tasks


class Mine(Exception):
    """The exception of a body."""


class Item:
    """An item that knows where it comes from; `root` is the item of a source that it is made of."""

    __slots__ = ("name", "number", "root")

    def __init__(self, name, number, root=None):
        self.name = name
        self.number = number
        self.root = root or self

    def __repr__(self):
        return self.name


def items_in(value):
    """Every item in a value: batches and tuples taken apart."""
    if isinstance(value, Item):
        return [value]
    if isinstance(value, list | tuple):
        return [item for inner in value for item in items_in(inner)]
    return []


# ---- recipes


@dataclass(frozen=True)
class From:
    kind: str
    count: int
    delay: float = 0
    fails: bool = False
    cleanup: float = 0
    """Seconds that its cleanup takes, if it can wait."""


@dataclass(frozen=True)
class Do:
    kind: str
    number: int = 1
    concurrency: int = 1
    delays: tuple[float, ...] = ()
    fails_at: int | None = None


@dataclass(frozen=True)
class Join:
    kind: str
    inputs: tuple[Line, ...]
    weights: tuple[int, ...] = ()
    capacity: int = 16


@dataclass(frozen=True)
class Line:
    origin: From | Join
    operations: tuple[Do, ...] = ()


@dataclass(frozen=True)
class End:
    kind: str
    at: float = 0
    after: int = 0
    slow: float = 0
    """Seconds that the consumer takes for each item."""
    late: float = 0
    """Seconds before it takes the first one."""
    consumers: int = 1


ONE_TO_ONE = ("map", "async map", "unordered", "filter", "async filter", "tap", "async tap", "buffer", "enumerate")
REGROUPING = ("batch", "timed batch", "flat", "async flat", "skip", "take", "take_while", "skip_while", "scan")
SOURCES = ("iterable", "async iterable", "producer", "channel", "nowait channel", "ticks")
DELAYS = (0.0, 0.0, 0.25, 1.0, 5.0)

sources = st.builds(
    From,
    kind=st.sampled_from(SOURCES),
    count=st.sampled_from((0, 1, 3, 10, 40, 90)),
    delay=st.sampled_from((0, 0, 0.5, 1)),
    cleanup=st.sampled_from((0, 0, 0.5, 100)),
)


def operations(kinds):
    return st.lists(
        st.builds(
            Do,
            kind=st.sampled_from(kinds),
            number=st.sampled_from((1, 2, 3, 7, 20)),
            concurrency=st.sampled_from((1, 2, 5)),
            delays=st.lists(st.sampled_from(DELAYS), min_size=1, max_size=5).map(tuple),
        ),
        max_size=4,
    ).map(tuple)


def lines(kinds=ONE_TO_ONE + REGROUPING, joins=("merge", "fair", "concat", "zip"), depth=2):
    """Lines of operations over a source, or over up to three such lines joined, nested to a depth."""
    origins = sources
    if depth:
        inner = st.lists(lines(kinds, joins, depth - 1), max_size=3).map(tuple)
        joined = st.builds(
            Join,
            kind=st.sampled_from(joins),
            inputs=inner,
            weights=st.tuples(*[st.sampled_from((1, 2, 10, 10**9))] * 3),
            capacity=st.sampled_from((1, 2, 16)),
        )
        origins = st.one_of(sources, joined)
    return st.builds(Line, origins, operations(kinds))


@st.composite
def failing_lines(draw, **limits):
    """Lines in which some sources and functions fail."""
    return _with_failures(draw, draw(lines(**limits)))


def _with_failures(draw, line):
    if isinstance(line.origin, Join):
        inputs = tuple(_with_failures(draw, inner) for inner in line.origin.inputs)
        origin = Join(line.origin.kind, inputs, line.origin.weights, line.origin.capacity)
    else:
        origin = From(line.origin.kind, line.origin.count, line.origin.delay, draw(st.booleans()), line.origin.cleanup)
    where = st.one_of(st.none(), st.integers(0, 30))
    doing = tuple(Do(do.kind, do.number, do.concurrency, do.delays, draw(where)) for do in line.operations)
    return Line(origin, doing)


ENDS = ("all", "sink", "break", "raise", "abort", "cancel", "drain", "grace", "drain_nowait", "aclose")
ends = st.builds(
    End,
    kind=st.sampled_from(ENDS),
    at=st.sampled_from((0, 0.25, 1, 2.5, 7)),
    after=st.sampled_from((0, 1, 5, 12)),
    slow=st.sampled_from((0, 0, 0.3)),
    late=st.sampled_from((0, 0, 50)),
    consumers=st.sampled_from((1, 1, 3)),
)


# ---- the world


class World:
    """Makes plans from recipes, runs them, and keeps books."""

    def __init__(self):
        self.produced = []
        self.delivered = []
        self.values = 0
        self.dropped = []
        self.heard = []
        self.failures = []  # values at which user code raised
        self.expanded = set()  # items whose children have all come
        self.opened = self.closed = 0
        self.wrong_closer = []
        self.most = 0
        self._living = Counter()
        self._lines = count()
        self.run = None
        self.report = None
        self.error = None
        self.tasks = Tasks()

    # -- books

    def produce(self, name, number, parent=None):
        item = Item(f"{name}.{number}", number, parent and parent.root)
        self.produced.append(item)
        self._born(item)
        return item

    def accept(self, item):
        """An item that was offered was taken."""
        self.produced.append(item)
        self._born(item)

    def _born(self, item):
        self._living[item.root] += 1
        self.most = max(self.most, sum(1 for number in self._living.values() if number > 0))

    def _gone(self, value):
        for item in items_in(value):
            self._living[item.root] -= 1

    def deliver(self, value):
        self.delivered += items_in(value)
        self.values += 1
        self._gone(value)

    def drop(self, value):
        self.dropped += items_in(value)
        self._gone(value)

    def hear(self, value, stage, reason):
        self.heard.append((value, stage, reason))
        self._gone(value)

    def fail(self, value):
        self.failures.append(value)
        self._gone(value)
        raise Boom(repr(value))

    # -- plans

    def plan(self, line):
        pipeline = self._source(line.origin) if isinstance(line.origin, From) else self._join(line.origin)
        for do in line.operations:
            pipeline = self._operation(pipeline, do)
        return pipeline

    def _join(self, join):
        inputs = [self.plan(line) for line in join.inputs]
        if join.kind == "fair":
            weights = dict(zip(range(len(inputs)), join.weights, strict=False))
            return fair_merge(dict(enumerate(inputs)), FairShare(weights, capacity=join.capacity))
        return {"merge": merge, "concat": concat, "zip": zip_pipelines}[join.kind](*inputs)

    def _source(self, source):
        name = f"s{next(self._lines)}"
        return getattr(self, f"_{source.kind.replace(' ', '_')}")(name, source)

    def _end_of_source(self, name, source):
        if source.fails:
            raise Boom(name)

    def _iterable(self, name, source):
        def items():
            self.opened += 1
            try:
                for number in range(source.count):
                    yield self.produce(name, number)
                self._end_of_source(name, source)
            finally:
                self.closed += 1

        return Pipeline.from_iterable(items, name=name)

    def _async_iterable(self, name, source):
        async def items():
            opener = trio.lowlevel.current_task()
            self.opened += 1
            try:
                for number in range(source.count):
                    if source.delay:
                        await trio.sleep(source.delay)
                    yield self.produce(name, number)
                self._end_of_source(name, source)
            finally:
                self.closed += 1
                if trio.lowlevel.current_task() is not opener:
                    self.wrong_closer.append(name)
                if source.cleanup:
                    await trio.sleep(source.cleanup)

        return Pipeline.from_async_iterable(items, name=name)

    def _producer(self, name, source):
        async def produce(send):
            self.opened += 1
            try:
                for number in range(source.count):
                    if source.delay:
                        await trio.sleep(source.delay)
                    item = Item(f"{name}.{number}", number)
                    await send.send(item)
                    self.accept(item)
                self._end_of_source(name, source)
            finally:
                self.closed += 1

        return Pipeline.from_producer(produce, name=name)

    def _channel(self, name, source, nowait=False):
        world = self
        numbers = iter(range(source.count))
        world.opened += 1

        class Channel(trio.abc.ReceiveChannel):
            closed = False

            async def receive(self):
                await trio.sleep(source.delay)
                return self.take()

            def take(self):
                for number in numbers:
                    return world.produce(name, number)
                world._end_of_source(name, source)
                raise trio.EndOfChannel

            async def aclose(self):
                if not self.closed:
                    self.closed = True
                    world.closed += 1
                await trio.lowlevel.checkpoint()

        if nowait:
            flip = count()

            def receive_nowait(channel):
                if next(flip) % 3 == 2:
                    raise trio.WouldBlock
                return channel.take()

            Channel.receive_nowait = receive_nowait
        return Pipeline.from_channel(Channel(), name=name)

    def _nowait_channel(self, name, source):
        return self._channel(name, source, nowait=True)

    def _ticks(self, name, source):
        ticks = Pipeline.ticks(source.delay or 0.25, name=name).take(source.count)
        return ticks.map(lambda number: self.produce(name, number))

    # -- operations

    def _operation(self, pipeline, do):
        calls = count()

        def call(value):
            """Every function of the user begins or ends with this."""
            if next(calls) == do.fails_at:
                self.fail(value)

        def delay(value):
            numbers = [item.number for item in items_in(value)]
            return do.delays[sum(numbers) % len(do.delays)] if do.delays else 0

        return getattr(self, f"_do_{do.kind.replace(' ', '_')}")(pipeline, do, call, delay)

    def _do_map(self, pipeline, do, call, delay):
        def same(value):
            call(value)
            return value

        return pipeline.map(same)

    def _do_async_map(self, pipeline, do, call, delay, ordered=True):
        async def same_later(value):
            if delay(value):
                await trio.sleep(delay(value))
            call(value)
            return value

        return pipeline.map(same_later, concurrency=do.concurrency, ordered=ordered)

    def _do_unordered(self, pipeline, do, call, delay):
        return self._do_async_map(pipeline, do, call, delay, ordered=False)

    def _keeps(self, value, do):
        return not items_in(value) or items_in(value)[0].number % (do.number + 1)

    def _do_filter(self, pipeline, do, call, delay):
        def keep(value):
            call(value)
            if self._keeps(value, do):
                return True
            self.drop(value)
            return False

        return pipeline.filter(keep)

    def _do_async_filter(self, pipeline, do, call, delay):
        async def keep_later(value):
            await trio.sleep(delay(value))
            call(value)
            if self._keeps(value, do):
                return True
            self.drop(value)
            return False

        return pipeline.filter(keep_later)

    def _do_tap(self, pipeline, do, call, delay):
        return pipeline.tap(call)

    def _do_async_tap(self, pipeline, do, call, delay):
        async def see(value):
            await trio.sleep(delay(value))
            call(value)

        return pipeline.tap(see)

    def _do_buffer(self, pipeline, do, call, delay):
        return pipeline.buffer(do.number)

    def _do_enumerate(self, pipeline, do, call, delay):
        return pipeline.enumerate()

    def _do_scan(self, pipeline, do, call, delay):
        def last(_state, value):
            call(value)
            return value

        return pipeline.scan(last, None)

    def _do_batch(self, pipeline, do, call, delay):
        def cost(value):
            call(value)
            return 1

        batched = pipeline.batch(do.number, max_cost=do.number, cost=cost)
        return batched.unbatch() if do.concurrency > 1 else batched

    def _do_timed_batch(self, pipeline, do, call, delay):
        batched = pipeline.batch(do.number, max_delay=0.5)
        if do.concurrency > 1:
            batched = batched.buffer(do.concurrency)
        return batched.unbatch()

    def _children(self, value, do):
        """Make up to three children, each a new item of the same root."""
        parents = items_in(value)
        if not parents:
            return
        for number in range(do.number % 4):
            yield self.produce(parents[0].name, number, parents[0])

    def _absorbed(self, value):
        self.expanded.update(items_in(value))
        self._gone(value)

    def _do_flat(self, pipeline, do, call, delay):
        def expand(value):
            call(value)
            yield from self._children(value, do)
            self._absorbed(value)

        return pipeline.flat_map(expand)

    def _do_async_flat(self, pipeline, do, call, delay):
        async def expand_later(value):
            for child in self._children(value, do):
                yield child
                await trio.sleep(delay(value))
            call(value)
            self._absorbed(value)

        return pipeline.flat_map(expand_later, concurrency=do.concurrency)

    def _do_skip(self, pipeline, do, call, delay):
        seen = count()

        def note(value):
            if next(seen) < do.number:
                self.drop(value)

        return pipeline.tap(note).skip(do.number)

    def _do_skip_while(self, pipeline, do, call, delay):
        seen = count()

        def skips(value):
            call(value)
            if next(seen) < do.number:
                self.drop(value)
                return True
            return False

        return pipeline.skip_while(skips)

    def _do_take(self, pipeline, do, call, delay):
        return pipeline.take(do.number)

    def _do_take_while(self, pipeline, do, call, delay):
        seen = count()

        def takes(value):
            call(value)
            return next(seen) < do.number * 5

        return pipeline.take_while(takes)

    # -- runs

    def play(self, pipeline, end, seed=0):
        """Run a pipeline to an end, under one schedule; keep the report, and what was raised."""
        with scheduled(Schedule(seed)):
            run_virtual(self._play, pipeline, end)
        return self

    async def _play(self, pipeline, end):
        trio.lowlevel.add_instrument(self.tasks)
        try:
            await (self._sink(pipeline) if end.kind == "sink" else self._open(pipeline, end))
        except (Boom, Mine, Aborted) as error:
            self.error = error
        finally:
            trio.lowlevel.remove_instrument(self.tasks)

    async def _sink(self, pipeline):
        async with trio.open_nursery() as nursery:
            try:
                self.run = await nursery.start(_running, pipeline.tap(self.deliver), self)
            except BaseException:
                nursery.cancel_scope.cancel()
                raise
        if isinstance(self.error, BaseException):
            raise self.error

    async def _open(self, pipeline, end):
        with trio.CancelScope() as outside:
            try:
                async with pipeline.open(on_discard=self.hear) as self.run:
                    await trio.sleep(end.late)
                    await self._consume_all(self.run, end, outside)
            finally:
                self.left_at = trio.current_time()
                self.report = self.run and self.run.report

    async def _consume_all(self, run, end, outside):
        errors = []
        async with trio.open_nursery() as nursery:
            left = end.consumers

            async def consume():
                nonlocal left
                try:
                    await self._consume(run, end)
                except (Boom, Mine, Aborted, trio.ClosedResourceError) as error:
                    errors.append(error)
                finally:
                    left -= 1
                    if not left or end.kind in ("break", "raise"):
                        nursery.cancel_scope.cancel()

            for _ in range(end.consumers):
                nursery.start_soon(consume)
            if end.kind in ("abort", "cancel", "drain", "grace"):
                await trio.sleep(end.at)
                await self._interfere(run, end, outside)
        for error in errors:
            if not isinstance(error, trio.ClosedResourceError):
                raise error

    async def _interfere(self, run, end, outside):
        if end.kind == "abort":
            run.abort()
        elif end.kind == "cancel":
            outside.cancel()
        elif end.kind == "drain":
            await run.drain()
        else:
            await run.drain(grace=1)

    async def _consume(self, run, end):
        number = 0
        while number < end.after or end.kind not in ("break", "raise", "drain_nowait", "aclose"):
            number += 1
            try:
                self.deliver(await run.receive())
            except trio.EndOfChannel:
                return
            if end.slow:
                await trio.sleep(end.slow)
        if end.kind == "raise":
            raise Mine
        if end.kind == "aclose":
            await run.aclose()
        if end.kind == "drain_nowait":
            run.drain_nowait()
            async for value in run:
                self.deliver(value)

    # -- closing the books

    def check(self):
        """Every item became exactly one thing; the report says the same; nothing is left open."""
        self.check_items()
        self.check_report()
        self.check_closed()

    def check_items(self):
        discarded = [item for value, _stage, _reason in self.heard for item in items_in(value)]
        given_up = set(discarded)
        fates = Counter(self.delivered) + Counter(self.dropped) + Counter(discarded)
        for value in self.failures:  # a failure behind an earlier one: its item is discarded instead
            fates.update(item for item in items_in(value) if item not in given_up)
        fates.update(item for item in self.expanded if item not in given_up and not fates[item])
        produced = Counter(self.produced)

        assert (produced - fates, fates - produced) == (Counter(), Counter()), "(lost, twice)"

    def check_report(self):
        report = self.report
        if report is None:
            return
        assert report.discarded == len(self.heard)
        assert report.delivered == self.values
        for stage in report.stages:
            coming, going = stage.received + stage.created, stage.emitted + stage.absorbed
            assert coming == going + stage.failed + stage.dropped + stage.discarded, stage
        changed = sum(each.made - each.used for each in report.remade)
        became = report.delivered + report.failed + report.dropped + report.discarded
        assert report.taken + changed == became, report.describe()
        for link in report.links:
            assert link.passed == link.taken + link.discarded, link
            assert link.peak <= link.capacity, link

    def check_closed(self):
        assert (self.opened, self.wrong_closer) == (self.closed, [])
        assert self.tasks.live == 0


async def _running(pipeline, world, task_status=trio.TASK_STATUS_IGNORED):
    try:
        world.report = await pipeline.run(on_discard=world.hear, task_status=task_status)
    except Boom as error:
        world.error = error
