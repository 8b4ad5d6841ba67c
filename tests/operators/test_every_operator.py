"""What holds for every operator, whatever it does; one test for each law, over all rows of the catalogue.

Mutants that die here, in whatever operator they stand: an item kept when the run is stopped, or given up twice; a
result withheld until the next item or the end; a failure that overtakes what came before it, or is lost; a source left
open; a second item of memory that no bound counts; an item that is compared, printed or asked whether it is true; a
state that two runs share.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

import funcpipe_trio
from funcpipe_trio import Pipeline, Report, Run
from funcpipe_trio.testing import (
    Lab,
    Scenario,
    cancel_everywhere,
    drain_everywhere,
    explore_schedules,
    fail_everywhere,
    run_virtual,
)

from .catalogue import CASES, OTHER, Case, Feed, Token, Trouble, plain, tokens

pytestmark = pytest.mark.usefixtures("no_slices_by_real_time")

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


class Boom(Exception):
    """A failure of user code that no policy deals with."""


@dataclass
class Played:
    """What one run did, seen from outside."""

    feed: Feed
    lab: Lab = field(default_factory=Lab)
    got: list[Any] = field(default_factory=list)
    error: Boom | None = None
    left_open: int = 0
    _report: Report | None = None

    @property
    def report(self) -> Report:
        assert self._report is not None
        return self._report


Consume = Callable[[Run[Any], Played], Awaitable[None]]


async def take_all(run: Run[Any], played: Played) -> None:
    async for item in run:
        played.got.append(item)


async def receive_all(run: Run[Any], played: Played) -> None:
    try:
        while True:
            played.got.append(await run.receive())
    except trio.EndOfChannel:
        pass


async def take_slowly(run: Run[Any], played: Played) -> None:
    async for item in run:
        played.got.append(item)
        await trio.sleep(0.75)


async def play(pipeline: Pipeline[Any], feed: Feed, consume: Consume = take_all) -> Played:
    """Run a pipeline over a feed, and look at once at what is left open."""
    played = Played(feed)
    run: Run[Any] | None = None
    try:
        async with pipeline.open(on_discard=played.lab.discard) as run:
            await consume(run, played)
    except Boom as error:
        played.error = error
    finally:
        played.left_open = feed.opened - feed.closed
        played._report = None if run is None else run.report
    return played


def books_hold(case: Case, played: Played) -> None:
    """Every source is closed, each item given up was told once, and all sums hold."""
    report = played.report
    assert played.left_open == 0
    assert report.delivered == len(played.got)
    assert report.discarded == len(played.lab.discarded)
    assert all(isinstance(error, Trouble) for error in report.cleanup_errors)  # those of items that were given up
    if case.alone:
        assert report.taken == played.feed.handed
    for stage in report.stages:
        out = stage.emitted + stage.absorbed + stage.failed + stage.dropped + stage.discarded
        assert stage.received + stage.created == out, stage.name
    for link in report.links:
        assert link.passed == link.taken + link.discarded, link.behind


def seen(case: Case, results: list[Any]) -> Any:
    """Give what is compared of results: a list, or how often each is there where order is not promised."""
    values = [plain(result) for result in case.view(results)]
    return values if case.ordered else Counter(values)


def run_case(case: Case, feed: Feed, consume: Consume = take_all) -> Played:
    played = run_virtual(play, case.make(feed), feed, consume)
    books_hold(case, played)
    return played


# ---- the list is whole


def makes_pipelines(namespace: dict[str, Any]) -> set[str]:
    functions = {
        name: getattr(value, "__func__", value) for name, value in namespace.items() if not name.startswith("_")
    }
    return {
        name
        for name, fn in functions.items()
        if inspect.isfunction(fn) and str(fn.__annotations__.get("return")).startswith("Pipeline[")
    }


def test_every_operation_has_a_row():
    """A new operation is put through all of this by being given a row; one without is not tested."""
    public = makes_pipelines(vars(Pipeline)) | makes_pipelines(vars(funcpipe_trio))

    assert {case.operation for case in CASES} == public | {"pipe"}
    assert len({case.name for case in CASES}) == len(CASES)


# ---- it works


@every_case
@pytest.mark.parametrize("gap", [0, 1])
@pytest.mark.parametrize("consume", [take_all, receive_all])
def test_gives_what_its_model_says(case, gap, consume):
    feed = Feed(tokens(8), gap)

    played = run_case(case, feed, consume)

    assert seen(case, played.got) == seen(case, case.model(feed.items))
    assert played.report.outcome == "completed"
    assert {reason for _, _, reason in played.lab.discarded} <= {"not needed"}


@every_case
@pytest.mark.parametrize(
    "items", [[], tokens(1), [None, 0, "", [], (), False, float("nan"), ValueError()]], ids=["none", "one", "falsy"]
)
def test_takes_any_stream_and_any_item(case, items):
    feed = Feed(items)

    played = run_case(case, feed)

    assert seen(case, played.got) == seen(case, case.model(items))
    assert played.report.outcome == "completed"


@every_case
def test_collects_the_same_as_it_gives_one_by_one(case):
    """With the sink fused into the last stage, too."""
    feed = Feed(tokens(8), 1)

    assert seen(case, run_virtual(case.make(feed).collect)) == seen(case, case.model(feed.items))
    assert feed.opened == feed.closed


@every_case
def test_runs_again_and_at_the_same_time(case):
    """No state is shared between runs: three at once, and one more, give the same."""
    feed = Feed(tokens(7))
    pipeline = case.make(feed)
    results = []

    async def run() -> None:
        results.append(await pipeline.collect())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(run)
        await run()

    if case.replays:
        run_virtual(main)
        expected = seen(case, case.model(feed.items))
        assert [seen(case, result) for result in results] == [expected] * 4


@every_case
def test_can_be_shown_and_checked(case):
    pipeline = case.make(Feed(tokens(3)))
    pipeline.check()

    said = pipeline.describe()
    assert said == pipeline.describe()
    assert all(name in said for name in repr(pipeline)[len("<Pipeline ") : -1].split(" > "))


@every_case
def test_takes_a_name(case):
    """Every operation is called in reports what its `name=` says: none forgets to pass it on."""
    operation = getattr(Pipeline, case.operation, None) or getattr(funcpipe_trio, case.operation)

    assert case.operation == "pipe" or "name" in inspect.signature(operation).parameters


# ---- it is stopped


@every_case
@pytest.mark.parametrize("when", [0, 0.5, 1.5, 3, 4.25])
@pytest.mark.parametrize("consume", [take_all, take_slowly])
def test_cancelled_in_the_middle_gives_everything_up_once(case, when, consume):
    feed = Feed(tokens(12), 1)

    async def main() -> Played | None:
        played = None

        async def note(run: Run[Any], this: Played) -> None:
            nonlocal played
            played = this
            await consume(run, this)

        with trio.move_on_after(when):
            await play(case.make(feed), feed, note)
        return played

    played = run_virtual(main)
    if played is not None:
        books_hold(case, played)
        assert played.report.outcome in ("cancelled", "completed")
        assert case.stops or played.report.outcome == "cancelled" or when > 4 - len(OTHER)


@every_case
@pytest.mark.parametrize("campaign", [cancel_everywhere, drain_everywhere, fail_everywhere])
def test_stopped_anywhere_loses_nothing(case, campaign):
    campaign(Scenario(lambda: case.make(Feed(tokens(5), 0.5)), name=case.name), every=6)


@every_case
def test_holds_under_many_orders_of_tasks(case):
    explore_schedules(Scenario(lambda: case.make(Feed(tokens(6), 0.5)), name=case.name), seeds=range(4))


@every_case
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("gap", [0, 1])
def test_a_consumer_that_leaves_early_stops_it(case, count, gap):
    feed = Feed(tokens(12), gap)

    async def some(run: Run[Any], played: Played) -> None:
        while len(played.got) < count:
            try:
                played.got.append(await run.receive())
            except trio.EndOfChannel:
                return

    played = run_case(case, feed, some)
    assert played.report.outcome in ("left", "completed")
    assert {reason for _, _, reason in played.lab.discarded} <= {"not needed"}


@every_case
@pytest.mark.parametrize("when", [0, 0.5, 2.25, 4.5])
@pytest.mark.parametrize("consume", [take_all, take_slowly])
def test_drained_in_the_middle_delivers_what_was_taken(case, when, consume):
    feed = Feed(tokens(12), 1)

    async def main() -> Played:
        async def drained(run: Run[Any], played: Played) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(consume, run, played)
                await trio.sleep(when)
                await run.drain()

        return await play(case.make(feed), feed, drained)

    played = run_virtual(main)
    books_hold(case, played)
    assert played.report.outcome in ("drained", "completed")
    assert {reason for _, _, reason in played.lab.discarded} <= {"not needed"}
    if case.alone and not dropped_by_overflow(played):
        assert seen(case, played.got) == seen(case, case.model(feed.items[: feed.handed]))


def dropped_by_overflow(played: Played) -> int:
    return played.lab.overflowed


# ---- something fails


@every_case
@pytest.mark.parametrize("count", [0, 1, 5])
@pytest.mark.parametrize("gap", [0, 1])
def test_a_failure_above_arrives_behind_what_came_before_it(case, count, gap):
    """The very object, with a note, and nothing held back or lost before it."""
    if not case.fails:
        pytest.skip("nothing can fail there")
    error = Boom()
    feed = Feed(tokens(count), gap, error)

    played = run_case(case, feed)

    if case.stops:
        assert played.error in (None, error)
    else:
        assert played.error is error
        assert played.report.outcome == "failed"
        assert any(note.startswith("in stage ") for note in error.__notes__)
    if case.before is None:
        assert seen(case, played.got) == seen(case, case.model(feed.items))
    elif case.ordered:
        assert seen(case, played.got) == seen(case, case.before(feed.items))
    else:
        assert seen(case, case.before(feed.items)) <= seen(case, played.got)


@every_case
@pytest.mark.parametrize("gap", [0, 1])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_failure_below_stops_it(case, gap, is_async):
    """What came out before the failing result is delivered; the sources are closed."""
    error = Boom()
    feed = Feed(tokens(12), gap)
    calls = 0

    def fails_second(item: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise error
        return item

    async def fails_second_in_time(item: Any) -> Any:
        await trio.sleep(0.5)
        return fails_second(item)

    pipeline = case.make(feed).map(fails_second_in_time if is_async else fails_second)
    played = run_virtual(play, pipeline, feed)
    books_hold(case, played)

    if calls < 2:
        assert played.error is None
    else:
        assert played.error is error
        assert len(played.got) == 1


# ---- it holds no more than it says


@every_case
@pytest.mark.parametrize("gap", [0, 0.25])
@pytest.mark.parametrize("pace", [None, 2.5], ids=["silent", "slow"])
def test_never_holds_more_than_its_bound(case, gap, pace):
    """At every instant, with a consumer that is slow or takes nothing at all."""
    feed = Feed(tokens(60), gap)
    pipeline = case.make(feed)

    async def watched(run: Run[Any], played: Played) -> None:
        async def consume() -> None:
            async for item in run:
                played.got.append(item)
                await trio.sleep(pace)

        async with trio.open_nursery() as nursery:
            if pace is not None:
                nursery.start_soon(consume)
            for _ in range(120):
                await trio.sleep(0.25)
                counts = run.statistics()
                gone = counts.failed + counts.dropped + counts.discarded + sum(map(tokens_in, played.got))
                assert counts.taken - gone <= pipeline.max_in_flight
            nursery.cancel_scope.cancel()

    run_case(case, feed, watched)


def tokens_in(result: Any) -> int:
    if isinstance(result, Failure):
        result = result.item
    if type(result) in (list, tuple):
        return sum(map(tokens_in, result))
    return type(result) is Token
