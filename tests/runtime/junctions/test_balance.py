"""Each item to one branch that has room: who gets it, who waits, and what if a branch ends, drops or fails?

Mutants that die here: an item for every branch; one that waits for a full branch while another has room; always the
first branch; a branch that drops while another has a free place; an item for a branch that has ended.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import BufferOverflow, Pipeline, PlanError, Run
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import assert_links_balance, assert_stages_balance

Line = Pipeline[Any]


def takes(name: str, seconds: float, buffer: int = 1, **how: Any) -> Any:
    """Make a branch that takes so long for each item, and gives it with its own name."""

    async def call(item: int) -> tuple[str, int]:
        await trio.sleep(seconds)
        return name, item

    return lambda line: line.buffer(buffer, **how).map(call, name=name)


async def outcome(line: Line, told: list[Any] | None = None) -> tuple[list[Any], Any, Any]:
    got: list[Any] = []
    error = None
    told = [] if told is None else told
    run: Run[Any] | None = None
    try:
        async with line.open(on_discard=lambda *what: told.append(what)) as run:
            async for item in run:
                got.append(item)
    except Exception as raised:
        error = raised
    assert run is not None
    report = run.report
    assert_stages_balance(report)
    assert_links_balance(report)
    assert report.taken == report.delivered + report.failed + report.dropped + report.discarded
    assert len(told) == report.discarded + report.dropped
    return got, error, report


def test_a_slow_branch_gets_fewer_and_holds_up_nobody():
    line = Pipeline.from_iterable(range(24)).balance({"slow": takes("slow", 5), "fast": takes("fast", 1)})

    got, _error, report = run_virtual(outcome, line)

    assert sorted(item for _, item in got) == [*range(24)]
    counts = Counter(name for name, _ in got)
    assert counts["slow"] in (4, 5, 6)
    assert report.elapsed <= 25
    assert {each.key: each.taken for each in report.inputs} == dict(counts)


def test_with_room_everywhere_they_take_turns():
    branches = {name: takes(name, 1, 9) for name in "abc"}

    got, _error, _report = run_virtual(outcome, Pipeline.from_iterable(range(9)).balance(branches))

    assert sorted(got) == [(name, 3 * turn + at) for at, name in enumerate("abc") for turn in range(3)]


@given(
    st.lists(st.tuples(st.sampled_from((0, 0.5, 3)), st.integers(1, 4)), min_size=1, max_size=4),
    st.integers(0, 30),
    st.booleans(),
    st.integers(0, 9),
)
def test_every_item_goes_to_one_branch(speeds, count, pool, seed):
    line: Line = Pipeline.from_iterable(range(count))
    if pool:
        line = line.map(nap, concurrency=3)
    branches = {str(at): takes(str(at), seconds, buffer) for at, (seconds, buffer) in enumerate(speeds)}

    with scheduled(Schedule(seed)):
        got, error, report = run_virtual(outcome, line.balance(branches))

    assert error is None
    assert sorted(item for _, item in got) == [*range(count)]
    for name in branches:
        own = [item for each, item in got if each == name]
        assert own == sorted(own)
    assert report.discarded == 0


async def nap(item: int) -> int:
    await trio.sleep(item % 3 / 4)
    return item


def test_the_trunk_waits_when_no_branch_has_room():
    line = Pipeline.from_iterable(range(99)).balance({"a": takes("a", 100), "b": takes("b", 100, 2)})

    async def main() -> None:
        async with line.open() as run:
            await trio.sleep(1)
            counts = run.statistics()
            assert counts.taken == 2 + 3  # in the links, and in the calls
            assert {each.behind: each.held for each in counts.links if each.behind.startswith("balance")} == {
                "balance.a": 1,
                "balance.b": 2,
            }

    run_virtual(main)


def test_a_branch_that_ended_gets_no_more_and_with_the_last_one_the_source_is_closed():
    closed = []

    def source() -> Any:
        try:
            yield from range(1000)
        finally:
            closed.append(True)

    branches = {"few": lambda line: line.buffer(1).take(2), "more": lambda line: line.buffer(1).take(5)}

    got, error, report = run_virtual(outcome, Pipeline.from_iterable(source).balance(branches))

    assert (len(got), error, report.outcome) == (7, None, "completed")
    assert closed == [True]


def test_what_drops_gets_an_item_only_if_no_other_has_a_free_place():
    told: list[Any] = []
    drops = takes("drops", 100, 2, overflow="drop_newest")
    line = Pipeline.from_iterable(range(20)).balance({"waits": takes("waits", 100, 3), "drops": drops})

    _got, error, report = run_virtual(outcome, line, told)

    assert error is None
    links = {each.behind: each for each in report.links}
    assert links["balance.waits"].taken >= 4
    assert links["balance.drops"].dropped == report.dropped == len(told) > 0
    assert {(stage, reason) for _, stage, reason in told} == {("balance.drops", "drop_newest")}
    assert line.max_in_flight >= 3 + 1 + 2 + 1


def test_a_branch_that_fails_when_it_is_full_fails_the_stream():
    told: list[Any] = []
    branches = {"waits": takes("waits", 9, 1), "strict": takes("strict", 9, 1, overflow="fail")}

    got, error, report = run_virtual(outcome, Pipeline.from_iterable(range(20)).balance(branches), told)

    assert type(error) is BufferOverflow
    assert report.failed == 1
    assert {reason for _, _, reason in told} <= {"behind a failure"}
    assert Counter(name for name, _ in got)["strict"] >= 1


@pytest.mark.parametrize("how", ["abort", "leave", "drain"])
def test_stopped_in_the_middle(how):
    line = Pipeline.from_iterable(range(100)).balance({"a": takes("a", 1), "b": takes("b", 2)})

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

    assert report.taken == len(got) + len(told)
    assert bool(told) == (how != "drain")


def test_what_the_plan_says():
    line = Pipeline.from_iterable(range(3)).balance({"a": takes("a", 1), "b": takes("b", 1)}, name="split")

    said = line.describe()

    assert "split: each item to one branch that has room, in turn" in said
    assert said.splitlines()[-2] == "split joined: equal shares of what is handed over (start-time fair queueing)"
    with pytest.raises(PlanError, match="balance 'balance': at least one branch must be given"):
        Pipeline.from_iterable([1]).balance({}).check()
