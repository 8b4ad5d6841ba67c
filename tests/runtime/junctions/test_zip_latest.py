"""Tuples of the latest items: which tuples are there, when, and what becomes of every item?

Mutants that die here: a first tuple made of the oldest items; an input that waits for room before it; a tuple for an
item that was superseded; an item that is used twice; items that are forgotten when there is never a tuple; a failure in
an item that nobody asked for, which is lost.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import FairShare, Pipeline, Run, fair_merge, zip_latest, zip_pipelines
from funcpipe_trio.testing import Script, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom


def script(*timeline: Any, name: str | None = None) -> Pipeline[Any]:
    return Pipeline.from_async_iterable(Script([*timeline]), name=name)


async def outcome(line: Pipeline[Any], told: list[Any], pause: float = 0) -> tuple[list[Any], Exception | None, Any]:
    got: list[Any] = []
    error = None
    run: Run[Any] | None = None
    began = trio.current_time()
    try:
        async with line.open(on_discard=lambda *what: told.append(what)) as run:
            async for item in run:
                got.append((trio.current_time() - began, item))
                await trio.sleep(pause)
    except Exception as raised:
        error = raised
    assert run is not None
    assert adds_up(run.report)
    assert run.report.discarded == len(told)
    return got, error, run.report


def adds_up(report: Any) -> bool:
    changed = sum(each.made - each.used for each in report.remade)
    return bool(report.taken + changed == report.delivered + report.failed + report.dropped + report.discarded)


def test_a_tuple_for_each_item_once_each_input_has_given_one():
    prices = script((1, "p1"), (2, "p2"), (4, "p3"), (7, "p4"))
    config = script((3, "c1"), (5, "c2"))

    got, error, report = run_virtual(outcome, zip_latest(prices, config), [])

    assert (error, report.outcome) == (None, "completed")
    assert got == [
        (3, ("p2", "c1")),
        (4, ("p3", "c1")),
        (5, ("p3", "c2")),
        (7, ("p4", "c2")),
    ]
    assert (report.taken, report.dropped, report.discarded) == (6, 1, 0)
    assert [(each.name, each.used, each.made) for each in report.remade] == [("zip_latest", 5, 4)]


def test_before_the_first_tuple_no_input_waits_for_room():
    """However many come: what is in the first tuple is what came last."""
    many = Pipeline.from_iterable(range(1000)).buffer(1)

    got, _error, report = run_virtual(outcome, zip_latest(many, script((3, "c"))), [])

    assert got == [(3, (999, "c"))]
    assert (report.taken, report.dropped) == (1001, 999)


def test_from_then_on_the_inputs_wait_for_a_slow_consumer():
    lines = [Pipeline.from_iterable([(name, number) for number in range(4)]).buffer(1) for name in "ab"]

    got, _error, report = run_virtual(outcome, zip_latest(*lines), [], 5)

    tuples = [pair for _, pair in got]
    assert tuples[-1] == (("a", 3), ("b", 3))
    assert len(tuples) == 7 - report.dropped
    assert all(sum(x != y for x, y in zip(one, two, strict=True)) == 1 for one, two in pairwise(tuples))


@given(
    st.lists(st.lists(st.sampled_from((0.0, 0.5, 1.0)), min_size=1, max_size=8), min_size=1, max_size=3),
    st.sampled_from((0, 0.75)),
    st.integers(0, 9),
)
def test_each_tuple_is_newer_by_one_item(gaps, pause, seed):
    """Whatever the schedule: nothing is skipped after the first tuple, and the last one has the last items."""
    lines = []
    for each in gaps:
        times = [sum(each[: at + 1]) for at in range(len(each))]
        lines.append(script(*((time, number) for number, time in enumerate(times))))

    with scheduled(Schedule(seed)):
        got, error, report = run_virtual(outcome, zip_latest(*lines), [], pause)

    tuples = [item for _, item in got]
    assert error is None
    assert tuples[-1] == tuple(len(each) - 1 for each in gaps)
    assert report.dropped == sum(tuples[0])
    for one, two in pairwise(tuples):
        assert sorted(after - before for before, after in zip(one, two, strict=True)) == [0] * (len(gaps) - 1) + [1]


@pytest.mark.parametrize("inner", [False, True])
def test_without_an_item_of_some_input_there_is_no_tuple(inner):
    """It ends at once, and closes the others, also when the end is within another fan-in."""
    closed = []

    async def endless() -> Any:
        try:
            while True:
                await trio.sleep(1)
                yield 1
        finally:
            closed.append(trio.current_time())

    empty = script((2.5, 0)).skip(1)
    told: list[Any] = []
    line = zip_latest(Pipeline.from_async_iterable(endless), script((1, "x")), empty)

    async def main() -> Any:
        began = trio.current_time()
        result = await outcome(zip_latest(line) if inner else line, told)
        assert [at - began for at in closed] == [2.5]
        return result

    got, error, report = run_virtual(main)

    assert (got, error, report.outcome) == ([], None, "completed")
    assert [(item, reason) for item, _, reason in told] == [(1, "not needed"), ("x", "not needed")]


def test_a_failure_comes_in_its_turn_and_discards_what_had_no_tuple():
    boom = Boom()

    async def fails() -> Any:
        yield 0
        await trio.sleep(3)
        raise boom

    told: list[Any] = []
    failing = Pipeline.from_async_iterable(fails)

    got, error, report = run_virtual(outcome, zip_latest(failing, script((1, "a"), (2, "b"), (9, "c"))), told)
    assert (got, error) == ([(1, (0, "a")), (2, (0, "b"))], boom)

    told.clear()
    got, error, report = run_virtual(outcome, zip_latest(failing, script((9, "c"))), told)
    assert (got, error, report.outcome) == ([], boom, "failed")
    assert [(item, reason) for item, _, reason in told] == [(0, "behind a failure")]


@pytest.mark.parametrize("left", [False, True])
def test_user_code_that_fails_while_nobody_asks_is_a_failure(left):
    """The cost function of a merge inside is called when an item is superseded."""
    boom = Boom()

    def cost(item: int) -> int:
        if item == 2:
            raise boom
        return 1

    inner = fair_merge({"a": Pipeline.from_iterable(range(4))}, FairShare(cost=cost))
    line = zip_latest(inner, script((5, "late")))

    async def leave() -> Any:
        async with line.open() as run:
            await trio.sleep(1)
        return run.report

    if left:
        report = run_virtual(leave)
        assert (report.outcome, report.error) == ("left", boom)
    else:
        got, error, report = run_virtual(outcome, line, [])
        assert (got, error, report.failed) == ([], boom, 1)
    assert adds_up(report)


def test_what_waits_for_the_first_tuple_is_counted():
    lines = [
        Pipeline.from_iterable(range(9)).buffer(2),
        Pipeline.from_iterable(range(9)).buffer(3),
        script((9, "late")),
    ]
    line = zip_latest(*lines)

    async def main() -> None:
        async with line.open(on_discard=lambda *what: told.append(what)) as run:
            await trio.sleep(1)
            counts = run.statistics()
            assert (counts.taken, counts.dropped, counts.in_flight) == (18, 16, 2)
            assert counts.in_flight <= line.max_in_flight

    told: list[Any] = []
    run_virtual(main)

    assert [(item, reason) for item, _, reason in told] == [(8, "not needed"), (8, "not needed")]


def test_it_is_ready_exactly_when_a_tuple_is_there():
    """A zip behind it takes from it when, and only when, it says so."""
    line = zip_pipelines(zip_latest(script((1, "a"), (2, "b")), script((3, 0), (4, 1))), Pipeline.from_iterable("xyz"))

    got, _error, _report = run_virtual(outcome, line, [])

    assert got == [(3, (("b", 0), "x")), (4, (("b", 1), "y"))]


def test_what_drained_inputs_gave_makes_its_tuples():
    lines = [Pipeline.from_iterable([(name, number) for number in range(3)]) for name in "ab"]

    async def main() -> Any:
        async with zip_latest(*lines).open() as run:
            first = await run.receive()
            run.drain_nowait()
            return first, [item async for item in run][-1]

    _first, last = run_virtual(main)

    assert last == (("a", 2), ("b", 2))
