"""One result of each branch for each item: which belong together, and what becomes of the others when one fails.

Mutants that die here: results of different items in one dict; a dict in another order than that of the branches; a
failure of the trunk that is told twice, or overtakes what came before it; a branch that is not one to one and is let
through.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import BufferOverflow, Failure, OnError, Pipeline, PlanError, RateLimit, Run, merge
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, assert_links_balance, assert_stages_balance

Line = Pipeline[Any]


def same(line: Line) -> Line:
    return line


async def nap(item: int) -> int:
    await trio.sleep(item * 7 % 3)
    return item


def fails_at(*bad: int) -> Any:
    def fail(item: int) -> int:
        if item in bad:
            raise Boom(item)
        return item

    return fail


async def outcome(line: Line, told: list[Any] | None = None, pause: float = 0) -> tuple[list[Any], Any, Any]:
    got: list[Any] = []
    error = None
    told = [] if told is None else told
    run: Run[Any] | None = None
    try:
        async with line.open(on_discard=lambda *what: told.append(what)) as run:
            async for item in run:
                got.append(item)
                await trio.sleep(pause)
    except Exception as raised:
        error = raised
    assert run is not None
    report = run.report
    assert len(told) == report.discarded
    assert_stages_balance(report)
    assert_links_balance(report)
    changed = sum(each.made - each.used for each in report.remade)
    assert report.taken + changed == report.delivered + report.failed + report.dropped + report.discarded
    return got, error, report


BRANCHES: dict[str, Any] = {
    "plain": same,
    "fused": lambda line: line.map(lambda item: -item).tap(abs).enumerate(),
    "pool": lambda line: line.buffer(1).map(nap, concurrency=3),
    "keyed": lambda line: line.map(nap, concurrency=2, key=lambda item: item % 2),
    "summed": lambda line: line.scan(lambda total, item: total + item, 0),
    "later": lambda line: line.delay(2, max_items=2).idle_timeout(99).timeout(999),
    "paced": lambda line: line.throttle(RateLimit(2)).buffer(3),
    "nested": lambda line: line.broadcast({"x": same, "y": lambda inner: inner.map(nap)}, join="zip"),
}


def expected(names: list[str], count: int) -> list[dict[str, Any]]:
    def result(name: str, item: int) -> Any:
        if name == "fused":
            return item, -item
        if name == "nested":
            return {"x": item, "y": item}
        return sum(range(item + 1)) if name == "summed" else item

    return [{name: result(name, item) for name in names} for item in range(count)]


@given(
    st.lists(st.sampled_from(sorted(BRANCHES)), unique=True, min_size=1, max_size=4),
    st.integers(0, 20),
    st.sampled_from((0, 1)),
    st.integers(0, 9),
)
def test_results_of_one_item_are_together(names, count, pause, seed):
    line = Pipeline.from_iterable(range(count)).map(nap)

    with scheduled(Schedule(seed)):
        got, error, report = run_virtual(
            outcome, line.broadcast({name: BRANCHES[name] for name in names}, join="zip"), None, pause
        )

    assert (got, error) == (expected(names, count), None)
    assert [list(each) for each in got] == [names] * count
    assert report.discarded == 0


@given(
    st.lists(st.sampled_from(sorted(set(BRANCHES) - {"nested"})), unique=True, min_size=1, max_size=3),
    st.integers(0, 9),
    st.integers(0, 9),
    st.booleans(),
)
def test_a_failure_of_the_trunk_comes_once_behind_what_came_before_it(names, bad, seed, behind):
    line = (
        Pipeline.from_iterable(range(10))
        .map(fails_at(bad))
        .broadcast({name: BRANCHES[name] for name in names}, join="zip")
    )

    with scheduled(Schedule(seed)):
        got, error, report = run_virtual(outcome, line.buffer(2) if behind else line)

    assert got == expected(names, bad)
    assert type(error) is Boom
    assert (report.outcome, report.error, report.cleanup_errors) == ("failed", error, ())


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_failing_branch_fails_at_its_place(order):
    told: list[Any] = []
    branches: dict[str, Any] = {"a": lambda line: line.map(nap), "b": lambda line: line.map(fails_at(3))}
    line = Pipeline.from_iterable(range(100)).broadcast({name: branches[name] for name in order}, join="zip")

    got, error, report = run_virtual(outcome, line, told)

    assert got == [{"a": item, "b": item} for item in range(3)]
    assert error.args == (3,)
    assert report.failed == 1
    assert {reason for _, _, reason in told} == {"behind a failure"}


def test_of_two_that_fail_the_earlier_item_counts_and_then_the_earlier_branch():
    def run(first: int, second: int) -> Any:
        branches: dict[str, Any] = {
            "first": lambda line: line.map(nap).map(fails_at(first)),
            "second": lambda line: line.map(fails_at(second)),
        }
        return run_virtual(outcome, Pipeline.from_iterable(range(9)).broadcast(branches, join="zip"))

    _got, error, report = run(5, 2)
    assert "second" not in str(error)
    assert error.args == (2,)
    _got, error, report = run(3, 3)
    assert [each.args for each in report.cleanup_errors] == [(3,)]
    assert error is not report.cleanup_errors[0]


def test_an_emitted_failure_is_a_result():
    emitting = {"a": same, "b": lambda line: line.map(fails_at(1), on_error=OnError.emit())}

    got, _error, _report = run_virtual(outcome, Pipeline.from_iterable(range(3)).broadcast(emitting, join="zip"))

    assert [type(each["b"]) for each in got] == [int, Failure, int]
    assert [each["a"] for each in got] == [0, 1, 2]


def test_a_buffer_that_fails_is_let_through():
    strict = {"a": same, "b": lambda line: line.buffer(1, overflow="fail").map(nap)}

    got, error, _report = run_virtual(outcome, Pipeline.from_iterable(range(30)).broadcast(strict, join="zip"))

    assert type(error) is BufferOverflow
    assert got == [{"a": item, "b": item} for item in range(len(got))]


NOT_ONE_TO_ONE: dict[str, Any] = {
    "filter abs": lambda line: line.filter(abs),
    "map nap": lambda line: line.map(nap, ordered=False),
    "map abs": lambda line: line.map(abs, on_error=OnError.skip()),
    "map str": lambda line: line.map(str, on_error=OnError.divert(nap)),
    "flat_map range": lambda line: line.flat_map(range),
    "take": lambda line: line.take(1),
    "skip": lambda line: line.skip(1),
    "batch": lambda line: line.batch(2),
    "unbatch": lambda line: line.unbatch(),
    "buffer": lambda line: line.buffer(2, overflow="drop_oldest"),
    "distinct": lambda line: line.distinct(remember=2),
    "fair_by abs": lambda line: line.fair_by(abs, max_keys=3),
    "debounce": lambda line: line.debounce(1),
    "keep_alive": lambda line: line.keep_alive(1, int),
    "take_for": lambda line: line.take_for(1),
    "stop_when": lambda line: line.stop_when(trio.sleep_forever),
    "broadcast": lambda line: line.broadcast({"x": same}),
    "balance": lambda line: line.balance({"x": same}),
    "merge": lambda line: merge(line),
}


@pytest.mark.parametrize("what", NOT_ONE_TO_ONE)
@pytest.mark.parametrize("wrap", [same, lambda line: line.broadcast({"y": same}, join="zip")], ids=["", "inside"])
def test_a_branch_that_is_not_one_to_one_is_refused(what, wrap):
    branches = {"good": same, "bad": lambda line: wrap(NOT_ONE_TO_ONE[what](line).map(abs))}
    line = Pipeline.from_iterable([1]).broadcast(branches, join="zip", name="split")

    verb, _, name = what.partition(" ")
    with pytest.raises(PlanError) as raised:
        line.check()

    (problem,) = raised.value.problems
    assert problem == (
        "broadcast 'split': with join=\"zip\" branch 'bad' must give one result for each item, in their order, which "
        f'{verb} {name or verb!r} does not\nUse join="merge", or an operation that does, such as map (in order, with '
        "on_error to stop or emit), tap, scan, enumerate, buffer."
    )
    NOT_ONE_TO_ONE[what](Pipeline.from_iterable([1])).check()


def test_whoever_waits_waits_for_the_slow_branch():
    async def slow(item: int) -> int:
        await trio.sleep(3)
        return item

    line = Pipeline.from_iterable(range(4)).broadcast({"slow": lambda p: p.map(slow), "fast": same}, join="zip")

    _got, _error, report = run_virtual(outcome, line)

    assert {(each.whom, each.seconds) for each in report.blame if each.waiter == "consumer"} == {("slow", 12)}


@pytest.mark.parametrize("how", ["abort", "leave", "drain"])
def test_stopped_in_the_middle(how):
    branches = {"a": lambda line: line.map(nap, concurrency=2), "b": lambda line: line.buffer(1).map(nap)}
    line = Pipeline.from_iterable(range(100)).broadcast(branches, join="zip")

    async def main() -> Any:
        told: list[Any] = []
        async with line.open(on_discard=lambda *what: told.append(what)) as run:
            got = [await run.receive() for _ in range(5)]
            if how == "abort":
                run.abort()
            elif how == "drain":
                run.drain_nowait()
                got += [item async for item in run]
        return got, told, run.report

    got, told, report = run_virtual(main)

    assert got == [{"a": item, "b": item} for item in range(len(got))]
    assert len(told) == report.discarded
    assert (report.discarded == 0) == (how == "drain")
    assert report.outcome == {"abort": "aborted", "leave": "left", "drain": "drained"}[how]


def test_what_the_plan_says():
    line = Pipeline.from_iterable(range(3)).broadcast({"a": same, "b": lambda p: p.map(abs)}, join="zip")

    assert line.describe().splitlines()[-2:] == [
        "broadcast joined: one result of each branch for each item, as a dict",
        "consumer",
    ]
    merged = Pipeline.from_iterable(range(3)).broadcast({"a": same, "b": lambda p: p.map(abs)})
    assert "join" in line.diff(merged)
    assert line.diff(line) == ""
    assert line != merged
    make = partial(Pipeline.from_iterable(range(3)).broadcast, {"a": same}, join="other")
    with pytest.raises(ValueError, match=r"Pipeline.broadcast: join must be 'merge' or 'zip', not 'other'"):
        make()
