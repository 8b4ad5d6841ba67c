"""P2a: a `Cancelled` that no scope around the run caused is a failure of the item or source that raised it.

Everybody knows one: a cache that hands the outcome of a shared look-up to all who wait for it hands out the `Cancelled`
of the one who ran out of time. Let through, it would end the run's tasks one by one, and what came before would look
like the whole.

Mutants that die here: user code called where only `Exception` is met; a run that is called cancelled by what its tasks
raised; a policy that does not hear of it.
"""

from __future__ import annotations

from functools import partial

import pytest
import trio

from funcpipe_trio import (
    CircuitBreaker,
    Failure,
    FairShare,
    OnError,
    Pipeline,
    RateLimit,
    Retry,
    Step,
    concat,
    fair_merge,
    gather,
    merge,
    zip_pipelines,
)
from funcpipe_trio.testing import run_virtual

ITEMS = range(6)
BAD = 3


async def somebody_elses():
    """Give a `Cancelled` that belongs to a scope which is long left."""
    kept = None
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as error:
            kept = error
            raise
    return kept


class Bad:
    """User code of every shape that raises at one item."""

    def __init__(self, error):
        self.error = error

    def fn(self, item):
        if item == BAD and self.error is not None:
            raise self.error
        return item

    async def wait(self, item):
        await trio.sleep(0.1)
        return self.fn(item)

    def yes(self, item):
        return self.fn(item) is not None

    async def wait_yes(self, item):
        return await self.wait(item) is not None

    def cost(self, item):
        return self.fn(item) * 0 + 1

    def key(self, item):
        return self.fn(item) * 0

    def fold(self, _state, item):
        return self.fn(item)

    async def wait_fold(self, _state, item):
        return await self.wait(item)

    def children(self, item):
        return [self.fn(item)]

    async def wait_children(self, item):
        yield await self.wait(item)

    async def give_children(self, item):
        return [await self.wait(item)]

    def iterate(self):
        return map(self.fn, ITEMS)

    async def feed(self):
        for item in ITEMS:
            yield await self.wait(item)

    async def produce(self, channel):
        async with channel:
            for item in ITEMS:
                await channel.send(await self.wait(item))

    async def bury(self, _failure):
        self.fn(BAD)


class Feed:
    """An async iterable that is no generator."""

    def __init__(self, bad):
        self.items, self.bad = iter(ITEMS), bad

    def __aiter__(self):
        return self

    async def __anext__(self):
        for item in self.items:
            return await self.bad.wait(item)
        raise StopAsyncIteration


class Channel(trio.abc.ReceiveChannel):
    """A receive channel of somebody's own."""

    def __init__(self, bad):
        self.items, self.bad = iter(ITEMS), bad

    async def receive(self):
        for item in self.items:
            return await self.bad.wait(item)
        raise trio.EndOfChannel

    async def aclose(self):
        await trio.lowlevel.checkpoint()


async def fail(item):
    raise OSError(item)


def line():
    return Pipeline.from_iterable(ITEMS)


PLACES = {
    "map": lambda bad: line().map(bad.fn),
    "async map": lambda bad: line().map(bad.wait),
    "a pool in order": lambda bad: line().map(bad.wait, concurrency=3),
    "a pool": lambda bad: line().map(bad.wait, concurrency=3, ordered=False),
    "a key": lambda bad: line().map(Step(bad.wait).map(str), key=bad.key, concurrency=2),
    "a step": lambda bad: line().map(Step(bad.wait)),
    "a step with a timeout": lambda bad: line().map(Step(bad.wait).timeout(9)),
    "a step with a retry": lambda bad: line().map(Step(bad.wait).retry(Retry(3))),
    "a step with a circuit": lambda bad: line().map(Step(bad.wait).circuit_breaker(CircuitBreaker(9))),
    "a pure step": lambda bad: line().map(Step.pure(bad.fn)),
    "the cost of a call": lambda bad: line().map(Step(bad.wait).rate_limit(RateLimit(99), cost=bad.cost)),
    "a predicate of a retry": lambda bad: line().map(Step(fail).retry(Retry(3, lambda error: bad.yes(BAD)))),
    "filter": lambda bad: line().filter(bad.yes),
    "async filter": lambda bad: line().filter(bad.wait_yes),
    "tap": lambda bad: line().tap(bad.key),
    "async tap": lambda bad: line().tap(bad.wait),
    "scan": lambda bad: line().scan(bad.fold, 0),
    "async scan": lambda bad: line().scan(bad.wait_fold, 0),
    "take_while": lambda bad: line().take_while(bad.yes),
    "async take_while": lambda bad: line().take_while(bad.wait_yes),
    "skip_while": lambda bad: line().skip_while(bad.yes),
    "flat_map": lambda bad: line().flat_map(bad.children),
    "async flat_map": lambda bad: line().flat_map(bad.wait_children, concurrency=2),
    "flat_map of awaited lists": lambda bad: line().flat_map(bad.give_children, concurrency=2),
    "flat_map of pipelines": lambda bad: line().flat_map(
        lambda item: Pipeline.from_iterable([item]).map(bad.wait), concurrency=2
    ),
    "the cost of a batch": lambda bad: line().batch(2, max_cost=9, cost=bad.cost),
    "the cost of a throttle": lambda bad: line().throttle(RateLimit(99, burst=9), cost=bad.cost),
    "the key of distinct": lambda bad: line().distinct(lambda item: (bad.fn(item), item), remember=9),
    "the key of fair_by": lambda bad: line().fair_by(bad.key, max_keys=2),
    "the cost of fair_by": lambda bad: line().fair_by(str, FairShare(cost=bad.cost), max_keys=9),
    "the diversion of fair_by": lambda bad: (
        line()
        .fair_by(bool, FairShare(capacity=1), max_keys=2, overflow=OnError.divert(bad.bury))
        .map(Step(bad.wait).map(str))
    ),
    "a route": lambda bad: line().partition(lambda item: "ab"[bad.key(item)], {"a": lambda p: p, "b": lambda p: p}),
    "a branch": lambda bad: line().broadcast({"a": lambda p: p.map(bad.fn), "b": lambda p: p}),
    "the cost of a merge": lambda bad: fair_merge({"a": line()}, FairShare(cost=bad.cost)),
    "the cost of a merge behind a stage": lambda bad: fair_merge({"a": line()}, FairShare(cost=bad.cost)).map(
        Step.pure(str)
    ),
    "an iterable": lambda bad: Pipeline.from_iterable(bad.iterate),
    "an async generator": lambda bad: Pipeline.from_async_iterable(bad.feed),
    "an async iterable": lambda bad: Pipeline.from_async_iterable(lambda: Feed(bad)),
    "a channel": lambda bad: Pipeline.from_channel(Channel(bad)),
    "a producer": lambda bad: Pipeline.from_producer(bad.produce),
    "a source that restarts": lambda bad: Pipeline.restarting(bad.feed, Retry(3), reset_after=9),
    "an iterable that restarts": lambda bad: Pipeline.restarting(bad.iterate, Retry(3), reset_after=9),
    "an input of a merge": lambda bad: merge(Pipeline.from_async_iterable(bad.feed), line()),
    "an input of a concat": lambda bad: concat(line().filter(lambda _: False), Pipeline.from_async_iterable(bad.feed)),
    "an input of a zip": lambda bad: zip_pipelines(line(), Pipeline.from_async_iterable(bad.feed)),
    "a diversion": lambda bad: line().map(fail, on_error=OnError.divert(bad.bury)),
}
WAYS = {
    "collect": lambda plan: plan.collect(),
    "run": lambda plan: plan.run(),
    "count": lambda plan: plan.count(),
    "fold": lambda plan: plan.fold(lambda _state, item: item, None),
    "first": lambda plan: plan.filter(lambda _: False).first(default=None),
}


def causes(error):
    """Give an error, and all that it comes of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", PLACES)
def test_it_is_a_failure(place, way):
    """It reaches the caller as an `Exception` that comes of it, with the stage, however the stream is driven."""

    async def main():
        stray = await somebody_elses()
        with pytest.raises(Exception) as caught:
            await WAYS[way](PLACES[place](Bad(stray)))
        return stray, caught.value

    stray, met = run_virtual(main)

    assert any(each is stray for each in causes(met))
    assert not isinstance(met, ExceptionGroup)
    assert any(note.startswith(("in stage ", "in step ")) or " in " in note for note in met.__notes__)


@pytest.mark.parametrize("place", PLACES)
def test_the_run_has_failed_and_lost_nothing(place):
    """The outcome is "failed"; every item is accounted for; what came before the failure was delivered."""

    async def main():
        told, got = [], []
        plan = PLACES[place](Bad(await somebody_elses()))
        with pytest.raises(Exception) as caught:
            async with plan.open(on_discard=lambda *what: told.append(what)) as run:
                async for item in run:
                    got.append(item)
        return run.report, told, got, caught.value

    report, told, got, met = run_virtual(main)

    assert (report.outcome, report.error) == ("failed", met)
    assert (report.delivered, report.discarded) == (len(got), len(told))
    for stage in report.stages:
        out = stage.emitted + stage.absorbed + stage.failed + stage.dropped + stage.discarded
        assert stage.received + stage.created == out, stage.name


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("is_async", [False, True])
def test_policies_apply_to_it(is_async, concurrency):
    """`skip` leaves the item out, `emit` puts a `Failure` in its place, `divert` gives it to the step."""
    buried = []

    async def bury(failure):
        buried.append(failure)

    async def main(policy):
        bad = Bad(await somebody_elses())
        fn = bad.wait if is_async else bad.fn
        width = concurrency if is_async else 1
        return await line().map(fn, concurrency=width, on_error=policy).collect()

    rest = [item for item in ITEMS if item != BAD]
    assert run_virtual(main, OnError.skip()) == rest
    emitted = run_virtual(main, OnError.emit())
    assert [item for item in emitted if not isinstance(item, Failure)] == rest
    assert [(each.item, type(each.error)) for each in emitted if isinstance(each, Failure)] == [(BAD, RuntimeError)]
    assert run_virtual(main, OnError.divert(bury)) == rest
    assert [each.item for each in buried] == [BAD]


def test_a_retry_does_not_try_it_again():
    """As it tries no cancellation again (P11)."""
    calls = []

    async def main():
        bad = Bad(await somebody_elses())

        async def call(item):
            calls.append(item)
            return bad.fn(item)

        with pytest.raises(RuntimeError):
            await line().map(Step(call).retry(Retry(5))).run()

    run_virtual(main)

    assert calls == [0, 1, 2, 3]


def test_gather_raises_it_as_an_error():
    """The other face of the pool."""

    async def main():
        stray = await somebody_elses()
        with pytest.raises(RuntimeError) as caught:
            await gather(Step(Bad(stray).wait), ITEMS, concurrency=2)
        return caught.value.__cause__ is stray

    assert run_virtual(main)


@pytest.mark.parametrize("place", [place for place in PLACES if place != "a predicate of a retry"])  # its call fails
def test_a_cancellation_from_outside_is_one(place):
    """Cancelled while it works, the run says so, and the `Cancelled` goes to its scope."""

    async def nothing():
        await trio.sleep_forever()

    async def main():
        plan = concat(PLACES[place](Bad(None)).take(1), Pipeline.from_async_iterable(partial(endless, nothing)))
        with trio.move_on_after(3) as scope:
            async with plan.open() as run:
                async for _item in run:
                    pass
        return scope.cancelled_caught, run.report.outcome

    assert run_virtual(main) == (True, "cancelled")


async def endless(wait):
    await wait()
    yield


async def _raise(error):
    raise error


@pytest.mark.parametrize("where", ["on_discard", "aclose", "close"])
def test_in_cleanup_it_is_kept_as_every_error_of_cleanup(where):
    """The stream ends as it would; the error is in the report."""

    async def main():
        stray = await somebody_elses()

        def raising(*_):
            raise stray

        class Source:
            def __init__(self):
                self.number = 0

            def __aiter__(self):
                return self

            __iter__ = __aiter__

            async def __anext__(self):
                return next(self)

            def __next__(self):
                self.number += 1
                return self.number

        if where == "aclose":
            Source.aclose = lambda self: _raise(stray)
        if where == "close":
            Source.close = raising
        make = Pipeline.from_iterable if where == "close" else Pipeline.from_async_iterable
        async with make(Source()).open(on_discard=raising if where == "on_discard" else None) as run:
            assert await run.receive() == 1
        return run.report, stray

    report, stray = run_virtual(main)

    assert report.outcome == "left"
    assert any(each is stray for error in report.cleanup_errors for each in causes(error))


def test_the_body_may_raise_one_too():
    """It passes unchanged, and the run was left, not cancelled."""

    async def main():
        stray = await somebody_elses()
        try:
            async with line().open() as run:
                raise stray
        except trio.Cancelled as error:
            return error is stray, run.report.outcome

    assert run_virtual(main) == (True, "left")
