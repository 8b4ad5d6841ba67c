"""Sorted pipelines as one: the order is that of the items, whoever is fast, and an item waits for those before it.

Mutants that die here: one that hands over while an input is silent; one that holds more than the first item of each
input; a failure that waits for the ends of others, or overtakes what is surely before it; an end of an input that is
not read before it is needed, so that its sources stay open; an error of a comparison that loses an item.
"""

from __future__ import annotations

import heapq
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import Aborted, Pipeline, Run, merge, merge_sorted, zip_pipelines
from funcpipe_trio.testing import Script, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom


async def nap(item: int) -> int:
    await trio.sleep(item % 3)
    return item


@given(st.lists(st.lists(st.integers(0, 30)), max_size=4), st.integers(0, 9))
def test_the_order_depends_on_no_schedule(inputs, seed):
    inputs = [sorted(each) for each in inputs]
    lines = [Pipeline.from_iterable(each).map(nap, concurrency=number + 1) for number, each in enumerate(inputs)]

    with scheduled(Schedule(seed)):
        assert run_virtual(merge_sorted(*lines).collect) == [*heapq.merge(*inputs)]


def test_of_equal_items_that_of_the_earlier_pipeline_comes_first():
    lines = [Pipeline.from_iterable([(number, name) for number in range(3)]) for name in "abc"]

    items = run_virtual(merge_sorted(*lines, key=lambda pair: pair[0]).collect)

    assert items == [(number, name) for number in range(3) for name in "abc"]


def test_an_item_waits_for_a_silent_input_and_no_longer():
    quick = Pipeline.from_iterable([1, 2, 9])
    slow = Pipeline.from_async_iterable(Script([(4, 5)]))
    times = []

    async def main() -> None:
        began = trio.current_time()
        async with merge_sorted(quick, slow).open() as run:
            async for item in run:
                times.append((item, trio.current_time() - began))

    run_virtual(main)

    assert times == [(1, 4), (2, 4), (5, 4), (9, 4)]


async def outcome(line: Pipeline[Any], told: list[Any]) -> tuple[list[Any], Exception | None, Any]:
    got: list[Any] = []
    error = None
    run: Run[Any] | None = None
    try:
        async with line.open(on_discard=lambda *what: told.append(what)) as run:
            async for item in run:
                got.append(item)
    except Exception as raised:
        error = raised
    assert run is not None
    return got, error, run.report


def adds_up(report: Any) -> bool:
    return bool(report.taken == report.delivered + report.failed + report.dropped + report.discarded)


def test_a_failure_comes_where_the_next_item_of_its_input_would_be_needed():
    boom = Boom()

    def fail(item: int) -> int:
        if item == 4:
            raise boom
        return item

    failing = Pipeline.from_iterable([0, 3, 4]).map(fail)
    told: list[Any] = []

    got, error, report = run_virtual(outcome, merge_sorted(failing, Pipeline.from_iterable(range(9))), told)

    assert (got, error) == ([0, 0, 1, 2, 3], boom)
    assert {reason for _, _, reason in told} == {"behind a failure"}
    assert adds_up(report)


@pytest.mark.parametrize("name", ["key", "comparison"])
def test_an_error_of_user_code_is_the_failure_of_its_item(name):
    told: list[Any] = []
    inputs = [Pipeline.from_iterable([1, 4, 7]), Pipeline.from_iterable([2, "x", 8])]
    line = merge_sorted(*inputs, key=int if name == "key" else None, name="both")

    got, error, report = run_virtual(outcome, line, told)

    assert got == [1, 2]
    assert type(error) is (ValueError if name == "key" else TypeError)
    assert error.__notes__ == ["in stage 'both'"]
    assert (report.outcome, report.failed) == ("failed", 1)
    assert 4 in [item for item, _, _ in told]
    assert adds_up(report)


def test_a_key_that_is_to_be_awaited_is_refused():
    async def later(item: int) -> int:
        return item

    line = merge_sorted(Pipeline.from_iterable([1]), key=lambda item: later(item), name="both")

    _got, error, _report = run_virtual(outcome, line, [])

    assert str(error) == "'the key of both' is not async, but returned something to await\nUse a sync function."


def test_a_key_may_stop_the_run():
    told: list[Any] = []
    runs: list[Run[int]] = []

    def key(item: int) -> int:
        if item == 3:
            runs[0].abort()
        return item

    async def main() -> Any:
        lines = [Pipeline.from_iterable(range(6)) for _ in range(3)]
        with pytest.raises(Aborted):
            async with merge_sorted(*lines, key=key).open(on_discard=lambda *what: told.append(what)) as run:
                runs.append(run)
                async for _ in run:
                    pass
        return run.report

    report = run_virtual(main)

    assert report.outcome == "aborted"
    assert adds_up(report)
    assert len(told) == report.discarded


def test_it_holds_the_first_item_of_each_input_and_the_report_counts_it():
    lines = [Pipeline.from_iterable(range(99)).buffer(2) for _ in range(3)]
    line = merge_sorted(*lines)

    async def main() -> None:
        async with line.open() as run:
            assert await run.receive() == 0
            await trio.testing.wait_all_tasks_blocked()
            counts = run.statistics()
            assert line.max_in_flight == 3 * 2 + 2
            assert counts.taken - counts.delivered == line.max_in_flight
            assert counts.in_flight == line.max_in_flight

    run_virtual(main)


def test_the_end_of_an_input_is_read_while_another_is_silent():
    """So that a zip closes what it does not need any more."""
    closed = []

    async def endless() -> Any:
        try:
            while True:
                await trio.sleep(1)
                yield 1
        finally:
            closed.append(trio.current_time())

    zipped = zip_pipelines(Pipeline.from_iterable([0]), Pipeline.from_async_iterable(endless)).map(sum)
    never = Pipeline.from_async_iterable(Script([(50, 3)]))

    async def main() -> list[int]:
        began = trio.current_time()
        items = await merge_sorted(zipped, merge_sorted(zipped, never)).collect()
        assert [at - began for at in closed] == [1, 1]
        return items

    assert run_virtual(main) == [1, 1, 3]


def test_whoever_waits_waits_for_the_silent_input():
    quick = Pipeline.from_iterable(range(9), name="quick")
    slow = Pipeline.from_async_iterable(Script([(10, 0), (20, 1)]), name="slow")

    async def main() -> Any:
        async with merge_sorted(quick, slow).open() as run:
            async for _ in run:
                pass
        return run.report

    blamed = {(each.waiter, each.whom): each.seconds for each in run_virtual(main).blame if each.waiter == "consumer"}

    assert blamed == {("consumer", "slow"): 20}


def test_a_backlog_counts_what_a_sorted_merge_holds():
    lines = merge_sorted(*(Pipeline.from_iterable(range(9)).buffer(1) for _ in range(3)))

    async def main() -> None:
        async with merge(lines).open() as run:
            await run.receive()
            await trio.testing.wait_all_tasks_blocked()
            (row,) = run.statistics().inputs
            assert row.backlog == 2 + 3

    run_virtual(main)
