"""What holds for every operator, whatever it does; one test for each law, over all rows of the catalogue.

Mutants that die here, in whatever operator they stand: an item kept when the run is stopped, or given up twice; a
result withheld until the next item or the end; a failure that overtakes what came before it, or is lost; a source left
open; a second item of memory that no bound counts; an item that is compared, printed or asked whether it is true; a
state that two runs share.
"""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pytest
import trio

import funcpipe_trio
from funcpipe_trio import Failure, Pipeline, Report, Run
from funcpipe_trio.testing import (
    Lab,
    Scenario,
    cancel_everywhere,
    drain_everywhere,
    explore_schedules,
    fail_everywhere,
    run_virtual,
)
from tests._kit import Boom, assert_links_balance, assert_stages_balance

from .catalogue import CASES, OPERATORS, Case, Feed, Token, Trouble, after, plain, tokens

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


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
    """Every source is closed, each discarded item was reported once, and all sums hold."""
    report = played.report
    assert played.left_open == 0
    assert report.delivered == len(played.got)
    assert report.discarded == len(played.lab.discarded)
    assert all(isinstance(error, Trouble) for error in report.cleanup_errors)  # those of items that were given up
    if case.alone:
        assert report.taken == played.feed.handed
    assert_stages_balance(report)
    changed = sum(each.made - each.used for each in report.remade)
    became = report.delivered + report.failed + report.dropped + report.discarded
    assert report.taken + changed == became, report.describe()
    assert_links_balance(report)


def seen(case: Case, results: list[Any]) -> Any:
    """Return what is compared of results: a list, or how often each is there where order is not promised."""
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
@pytest.mark.parametrize("consume", [take_all, receive_all])
def test_gives_what_its_model_says(case, consume):
    for gap in (0, 1):
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
    """What its stage is called in reports is for the user to say; two make none."""
    operation = getattr(Pipeline, case.operation, None) or getattr(funcpipe_trio, case.operation)

    assert case.operation in ("pipe", "with_settings") or "name" in inspect.signature(operation).parameters


# ---- it is stopped


@every_case
@pytest.mark.parametrize("consume", [take_all, take_slowly])
def test_cancelled_in_the_middle_gives_everything_up_once(case, consume):
    for when in (0, 0.5, 1.5, 3, 4.25):
        feed = Feed(tokens(12), 1)
        begun = []

        async def note(run: Run[Any], played: Played, begun: list[Played] = begun) -> None:
            begun.append(played)
            await consume(run, played)

        async def main(feed: Feed = feed, when: float = when, note: Consume = note) -> None:
            with trio.move_on_after(when):
                await play(case.make(feed), feed, note)

        run_virtual(main)
        for played in begun:
            books_hold(case, played)
            if played.report.outcome != "cancelled":
                assert played.report.outcome == "completed"
                assert seen(case, played.got) == seen(case, case.model(feed.items))


@every_case
@pytest.mark.parametrize("campaign", [cancel_everywhere, drain_everywhere, fail_everywhere])
def test_stopped_anywhere_loses_nothing(case, campaign):
    campaign(Scenario(lambda: case.make(Feed(tokens(5), 0.5)), name=case.name), every=6)


@every_case
def test_holds_under_many_orders_of_tasks(case):
    explore_schedules(Scenario(lambda: case.make(Feed(tokens(6), 0.5)), name=case.name), seeds=range(4))


@every_case
def test_a_consumer_that_leaves_early_stops_it(case):
    for count, gap in product((0, 1, 2), (0, 1)):

        async def some(run: Run[Any], played: Played, count: int = count) -> None:
            while len(played.got) < count:
                try:
                    played.got.append(await run.receive())
                except trio.EndOfChannel:
                    return

        played = run_case(case, Feed(tokens(12), gap), some)
        assert played.report.outcome in ("left", "completed")
        assert {reason for _, _, reason in played.lab.discarded} <= {"not needed"}


@every_case
@pytest.mark.parametrize("consume", [take_all, take_slowly])
def test_drained_in_the_middle_delivers_what_was_taken(case, consume):
    for when in (0, 0.5, 2.25, 4.5):
        feed = Feed(tokens(12), 1)

        async def drained(run: Run[Any], played: Played, when: float = when) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(consume, run, played)
                await trio.sleep(when)
                await run.drain()

        played = run_case(case, feed, drained)
        assert played.report.outcome in ("drained", "completed")
        assert {reason for _, _, reason in played.lab.discarded} <= {
            "not needed",
            *(["drained"] if case.rounds else []),
        }
        if case.alone and not played.lab.overflowed:
            expected, got = seen(case, case.model(feed.items[: feed.handed])), seen(case, played.got)
            assert got == expected or (case.rounds and seen(case, feed.items[: feed.handed]) <= got <= expected)


# ---- something fails


class FailsAbove(Feed):
    """A feed with a map behind it that fails at the last item."""

    def __init__(self, items: list[Any], gap: float, seconds: float | None) -> None:
        super().__init__(items, gap)
        self.fault = Boom()
        self.fn = self.fail if seconds is None else after(self.fail, lambda _: seconds)

    def fail(self, item: Any) -> Any:
        if item is self.items[-1]:
            raise self.fault
        return item

    def line(self) -> Pipeline[Any]:
        return super().line().map(self.fn)


@pytest.mark.parametrize("case", OPERATORS, ids=lambda case: case.name)
@pytest.mark.parametrize("seconds", [None, 0.5], ids=["fused", "async"])
def test_a_failure_of_the_operation_before_arrives_behind_what_came_before_it(case, seconds):
    """A fused operation meets it in the middle of its loop: what it holds goes out first."""
    for count, gap in product((1, 2, 6), (0, 1)):
        feed = FailsAbove(tokens(count), gap, seconds)

        played = run_case(case, feed)

        assert played.error is feed.fault or (case.stops and played.error is None)
        before, got = seen(case, (case.before or case.model)(feed.items[:-1])), seen(case, played.got)
        assert before == got or (case.before is not None and not case.ordered and before <= got)


class FailsAtSecond:
    """Fail at the second call."""

    def __init__(self) -> None:
        self.calls = 0
        self.error = Boom()

    def __call__(self, item: Any) -> Any:
        self.calls += 1
        if self.calls == 2:
            raise self.error
        return item


@every_case
@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_failure_above_arrives_behind_what_came_before_it(case, count):
    """The very object, with a note, and nothing held back or lost before it."""
    for gap in (0, 1):
        error = Boom()
        feed = Feed(tokens(count), gap, error)

        played = run_case(case, feed)

        if case.stops or not case.fails:
            assert played.error in (None, error)
        else:
            assert played.error is error
            assert played.report.outcome == "failed"
            assert any(note.startswith("in stage ") for note in error.__notes__)
        before, got = seen(case, (case.before or case.model)(feed.items)), seen(case, played.got)
        assert before == got or (case.before is not None and not case.ordered and before <= got)


@every_case
@pytest.mark.parametrize("seconds", [None, 0.5])
def test_a_failure_below_stops_it(case, seconds):
    """What came out before the failing result is delivered; the sources are closed."""
    for gap in (0, 1):
        feed = Feed(tokens(12), gap)
        failing = FailsAtSecond()
        pipeline = case.make(feed).map(failing if seconds is None else after(failing, lambda _: seconds))

        played = run_virtual(play, pipeline, feed)

        books_hold(case, played)
        assert played.error is (None if failing.calls < 2 else failing.error)
        assert played.error is None or len(played.got) == 1


# ---- it holds no more than it says


@every_case
@pytest.mark.parametrize("pace", [math.inf, 2.5], ids=["silent", "slow"])
def test_never_holds_more_than_its_bound(case, pace):
    """At every instant, with a consumer that is slow, or takes nothing at all."""
    for gap in (0, 0.25):
        feed = Feed(tokens(60), gap)
        pipeline = case.make(feed)
        bound = pipeline.max_in_flight

        async def consume(run: Run[Any], played: Played) -> None:
            async for item in run:
                played.got.append(item)
                await trio.sleep(pace)

        async def watched(run: Run[Any], played: Played, bound: float = bound) -> None:
            async with trio.open_nursery() as nursery:
                if pace < math.inf:
                    nursery.start_soon(consume, run, played)
                for _ in range(80):
                    await trio.sleep(0.25)
                    counts = run.statistics()
                    gone = counts.failed + counts.dropped + counts.discarded + sum(map(tokens_in, played.got))
                    if case.operation == "buffer":  # two that were merged are one
                        gone += sum(each.used - each.made for each in counts.remade)
                    assert counts.taken - gone <= bound
                nursery.cancel_scope.cancel()

        run_case(case, feed, watched)


def tokens_in(result: Any) -> int:
    if isinstance(result, Failure):
        result = result.item
    if type(result) is dict:
        result = (*result.values(),)
    if type(result) in (list, tuple):
        return sum(map(tokens_in, result))
    return type(result) is Token
