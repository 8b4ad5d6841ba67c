"""Who made whom wait: sums that hold for every pipeline, and programs whose blame is known by construction.

Mutants that die here: a wait that is counted for nobody, or twice; a pause that is blamed on a source; a merge that
blames an input that has ended, a zip one that has an item, a fan-out a branch that has room; a pool that is passed by
while it is at work, or that hides whom its results wait for; a child that waits for room blamed on its own pool.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from math import inf
from typing import Any

import pytest
import trio

from funcpipe_trio import Blame, Pipeline, RateLimit, Run, RunStatistics, concat, fair_merge, merge, zip_pipelines
from funcpipe_trio._runtime.run import engine
from funcpipe_trio.testing import Lab, Scenario, cancel_everywhere, drain_everywhere, explore_schedules, run_virtual
from tests._kit import STRIDE, in_virtual_time, run_real
from tests.campaigns.pipelines import SCENARIOS
from tests.operators.catalogue import CASES, Feed, tokens


def near(seconds: float) -> Any:
    return pytest.approx(seconds, abs=1e-6)


def assert_blame_adds_up(snapshot: RunStatistics) -> None:
    """All that a part waited is blamed on somebody, and nobody waits for itself but a pool for its own places."""
    rows = Counter[str]()
    for row in snapshot.blame:
        rows[row.waiter] += row.seconds  # type: ignore[assignment]  # a sum of floats
    for stage in snapshot.stages:
        assert rows.pop(stage.name, 0) == near(stage.waited_input + stage.waited_room), stage
    assert set(rows) <= {"consumer"}
    waited = snapshot._basis.waited
    watched = [0.0] * len(waited.totals())
    for (waiter, _whom), seconds in waited.pairs().items():
        watched[waiter] += seconds
    assert watched == near(waited.totals())  # under a virtual clock nothing is missed
    pools = {stage.name for stage in snapshot.stages if stage.kind == "async"}
    assert all(row.waiter != row.whom or row.waiter in pools for row in snapshot.blame)


def assert_state_is_true(run: Run[Any]) -> None:
    """What was added to the state, change by change, is what the parts say of themselves."""
    run.statistics()
    times = run._engine.state_times
    if times.is_on:
        assert times._state == sum(read() << shift for shift, read in times._fields)


def looked_at(consume: Callable[[Run[Any], Lab], Awaitable[None]], runs: list[Run[Any]]) -> Any:
    """Look at the statistics of a run again and again, and keep it."""

    async def look(run: Run[Any], lab: Lab) -> None:
        runs.append(run)
        before = run.statistics()
        try:
            await consume(run, lab)
        finally:
            after = run.statistics()
            assert_blame_adds_up(after)
            assert_blame_adds_up(after.since(before))
            assert_state_is_true(run)

    return look


every_scenario = pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)


@every_scenario
@pytest.mark.parametrize(
    "campaign",
    [
        lambda scenario: explore_schedules(scenario, seeds=range(5)),
        lambda scenario: cancel_everywhere(scenario, every=7 * STRIDE),
        lambda scenario: drain_everywhere(scenario, every=11 * STRIDE),
    ],
    ids=["schedules", "cancelled", "drained"],
)
def test_all_that_was_waited_is_blamed(scenario, campaign):
    runs: list[Run[Any]] = []

    campaign(Scenario(scenario.make, looked_at(scenario.consume, runs), scenario.name))

    for run in runs:
        assert_blame_adds_up(run.report)


@pytest.mark.parametrize("gap", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_all_that_was_waited_in_each_operation_is_blamed(case, gap):
    @in_virtual_time
    async def main() -> None:
        async with case.make(Feed(tokens(9), gap)).open() as run, trio.open_nursery() as nursery:

            async def pause() -> None:
                for _ in range(3):
                    await trio.sleep(0.7)
                    run.pause()
                    assert_blame_adds_up(run.statistics())
                    await trio.sleep(1.4)
                    run.resume()

            nursery.start_soon(pause)
            async for _item in run:
                await trio.sleep(0.2)
                assert_blame_adds_up(run.statistics())
                assert_state_is_true(run)
            nursery.cancel_scope.cancel()
        assert_blame_adds_up(run.report)

    main()


# ---- known by construction


def blamed(pipeline: Pipeline[Any], *, slow: float = 0.0, then: Callable[[Run[Any]], object] | None = None) -> Any:
    """Run a pipeline in virtual time, and return the seconds by waiter and whom it waited for."""

    async def main() -> dict[tuple[str, str], float]:
        async with trio.open_nursery() as nursery:
            async with pipeline.open() as run:
                if then is not None:
                    nursery.start_soon(then, run)
                async for _item in run:
                    await trio.sleep(slow)
            nursery.cancel_scope.cancel()
        assert_blame_adds_up(run.report)
        return {(row.waiter, row.whom): row.seconds for row in run.report.blame}

    return run_virtual(main)


def takes(seconds: float, name: str) -> Any:
    async def call(item: Any) -> Any:
        await trio.sleep(seconds)
        return item

    call.__name__ = name
    return call


def numbers(count: int, period: float, name: str) -> Pipeline[int]:
    async def arrivals() -> AsyncIterator[int]:
        for number in range(count):
            await trio.sleep(period)
            yield number

    return Pipeline.from_async_iterable(arrivals, name=name)


def test_a_line_waits_for_the_first_that_is_at_work():
    """The stage before the slow one waits for room, those behind it for input: all for that one."""
    slow, quick = takes(1, "slow"), takes(0, "quick")
    line = Pipeline.from_iterable(range(10), name="source").buffer(1).map(quick, concurrency=1).buffer(1).map(slow)

    table = blamed(line.map(takes(0, "last"), concurrency=1))

    assert {whom for _, whom in table} == {"slow"}
    assert table["consumer", "slow"] == table["last", "slow"] == 10
    assert table["quick", "slow"] == 9  # until there was room for the end behind its last item


def test_a_wait_ends_where_work_is_done_in_turn():
    """A source of a second, and a call of three quarters: the consumer waits for each while that is at work."""
    table = blamed(numbers(4, 1, "source").map(takes(0.75, "call")))

    assert table == {("consumer", "source"): 1.75, ("consumer", "call"): 3.0, ("call", "source"): 1.75}


def test_a_slow_consumer_is_blamed_through_full_links():
    table = blamed(Pipeline.from_iterable(range(5), name="source").buffer(1).map(takes(0, "call")).buffer(1), slow=2)

    assert set(table) == {("source", "consumer"), ("call", "consumer")}
    assert table["call", "consumer"] == 8


def test_a_merge_waits_for_its_inputs_in_equal_parts():
    """One input ends after two seconds; from then on the merge waits for the other alone."""
    table = blamed(merge(numbers(2, 1, "short"), numbers(2, 2, "long")))

    assert table == {("consumer", "short"): 1, ("consumer", "long"): 3}


def test_a_merge_of_merges_parts_at_each():
    inner = merge(numbers(1, 4, "a"), numbers(1, 4, "b")).map(takes(0, "inner"))

    table = blamed(fair_merge({"inner": inner, "c": numbers(1, 4, "c")}))

    assert table["consumer", "a"] == table["consumer", "b"] == 1
    assert table["consumer", "c"] == 2
    assert table["inner", "a"] == 2


def test_a_concat_waits_for_the_input_that_runs():
    table = blamed(concat(numbers(2, 1, "first"), numbers(3, 1, "second")))

    assert table == {("consumer", "first"): 2, ("consumer", "second"): 3}


def test_a_zip_waits_for_what_it_lacks():
    """The quick input has an item in its link, and then waits itself, in the end for the slow one."""
    table = blamed(zip_pipelines(numbers(3, 1, "quick").buffer(1), numbers(3, 5, "slow")))

    assert table["consumer", "quick"] == 1.5  # the first second of each tuple is waited for both
    assert table["consumer", "slow"] == 13.5
    assert table["quick", "slow"] == 12


async def two_at_once() -> AsyncIterator[int]:
    yield 0
    yield 1
    await trio.sleep(100)


@pytest.mark.parametrize(
    ("behind", "waiter"),
    [
        (lambda p: p, "consumer"),
        (lambda p: p.debounce(0.5), "debounce"),
        (lambda p: p.map(takes(0, "call"), concurrency=1), "call"),
    ],
)
def test_a_zip_does_not_wait_for_an_input_that_has_an_item_left(behind, waiter):
    """After the first tuple the quick input has its second item, though it is at work on a third."""
    quick = Pipeline.from_async_iterable(two_at_once, name="quick")

    table = blamed(behind(zip_pipelines(numbers(2, 5, "slow"), quick)))

    assert table[waiter, "slow"] == 10
    assert (waiter, "quick") not in table


def test_a_debounce_behind_a_zip_waits_for_what_the_zip_lacks():
    table = blamed(zip_pipelines(numbers(3, 1, "quick"), numbers(3, 5, "slow")).debounce(0.5))

    assert table["debounce", "quick"] == 0.5
    assert table["debounce", "slow"] == 14.5


def test_a_fan_out_waits_for_the_branches_that_are_full():
    slow = Pipeline.from_iterable(range(4), name="source").broadcast(
        {
            "slow": lambda items: items.buffer(1).map(takes(2, "slow")),
            "quick": lambda items: items.buffer(1).map(takes(1, "quick")),
        }
    )

    table = blamed(slow)

    assert table["source", "slow"] > table["source", "quick"] > 0
    assert table["quick", "slow"] == 2  # it has done its own, and no more comes


def test_a_partition_waits_for_the_branch_of_the_item_in_its_hand():
    line = Pipeline.from_iterable([0, 0, 0, 1], name="source").partition(
        lambda item: "ab"[item],
        {"a": lambda items: items.buffer(1).map(takes(1, "a")), "b": lambda items: items.buffer(1).map(takes(1, "b"))},
    )

    table = blamed(line)

    assert table["source", "a"] == 1
    assert table["b", "a"] == 1


def test_a_partition_does_not_wait_for_another_branch_that_is_full():
    line = Pipeline.from_iterable([1, 1, 0, 0, 0], name="source").partition(
        lambda item: "ab"[item],
        {"a": lambda items: items.buffer(1).map(takes(1, "a")), "b": lambda items: items.buffer(1).map(takes(9, "b"))},
    )

    table = blamed(line)

    assert table["source", "a"] == 1
    assert ("source", "b") not in table


def test_places_that_wait_for_an_earlier_item_wait_for_their_own_stage():
    async def first_is_slow(item: int) -> int:
        await trio.sleep(0 if item else 10)
        return item

    table = blamed(Pipeline.from_iterable(range(9), name="source").map(first_is_slow, concurrency=2).buffer(1))

    assert table["first_is_slow", "first_is_slow"] == 10


def test_a_child_that_waits_for_room_waits_for_what_is_behind_it():
    async def children(item: int):
        for child in range(3):
            yield child

    table = blamed(Pipeline.from_iterable([0]).flat_map(children, concurrency=2).buffer(1), slow=1)

    assert table["children", "consumer"] >= 1
    assert ("children", "children") not in table or table["children", "children"] < 3


def test_a_throttle_is_at_work_while_it_waits_for_the_clock():
    table = blamed(Pipeline.from_iterable(range(3)).buffer(1).throttle(RateLimit(1, burst=1), name="throttle"))

    assert table["consumer", "throttle"] == 2


def test_what_is_kept_when_all_has_ended_waits_for_the_clock():
    table = blamed(Pipeline.from_iterable([0]).buffer(1).delay(3))

    assert table == {("consumer", "the clock"): 3, ("delay", "the clock"): 3}


@pytest.mark.parametrize(
    ("source", "seconds"),
    [(Pipeline.from_iterable(range(9), name="s").buffer(1), 4.5), (numbers(9, 1, "s"), 5)],
    ids=["sync, which has no room for half a second", "async"],
)
def test_while_paused_all_wait_for_the_pause(source, seconds):
    async def pause(run: Run[Any]) -> None:
        await trio.sleep(0.5)
        run.pause()
        await trio.sleep(5)
        run.resume()

    table = blamed(source.map(takes(1, "call")), then=pause)

    assert table["s", "the pause"] == seconds
    assert table["consumer", "the pause"] >= 2


def test_a_snapshot_and_a_difference_have_their_own_blame():
    @in_virtual_time
    async def main() -> None:
        async with numbers(4, 1, "source").map(takes(3, "call")).open() as run:
            await run.receive()
            before = run.statistics()
            await run.receive()
            later = run.statistics()

        assert before.blame[0] == Blame("consumer", "call", 3.0)
        assert later.since(before).blame == (Blame("consumer", "call", 3.0),)
        assert later.to_dict()["blame"][0] == {"waiter": "consumer", "whom": "call", "seconds": 6.0}

    main()


@pytest.mark.parametrize("share", [inf, 1e-9], ids=["watched always", "watched now and then"])
def test_in_real_time_rows_add_up_whether_all_is_watched_or_not(share, monkeypatch):
    """Also of those that were never watched."""
    monkeypatch.setattr(engine, "WATCHED_FOR", share)

    async def at_once(item: int) -> int:
        await trio.lowlevel.checkpoint()
        return item

    async def main() -> None:
        line = zip_pipelines(Pipeline.from_iterable(range(4000)), Pipeline.from_iterable(range(4000)).map(abs))
        pool = line.buffer(4).map(at_once, concurrency=3).buffer(2).map(lambda item: item)
        async with pool.open() as run:
            async for item in run:
                if item[0] % 500 == 0:
                    assert_state_is_true(run)
        rows = Counter[str]()
        for row in run.report.blame:
            rows[row.waiter] += row.seconds  # type: ignore[assignment]  # a sum of floats
        for stage in run.report.stages:
            assert rows[stage.name] == near(stage.waited_input + stage.waited_room)

    run_real(main)


def test_a_long_line_is_followed_without_recursion():
    line = numbers(2, 1, "source")
    for _ in range(1500):
        line = line.buffer(1).map(lambda item: item)

    table = blamed(line)

    assert {whom for _, whom in table} == {"source"}
