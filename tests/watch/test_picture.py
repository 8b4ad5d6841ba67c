"""From the reports of a run to the rows of a picture: pure, so tested without an event loop where that is possible.

Mutants that die here: a rate over the whole run instead of the last seconds; a key of a `fair_by` in a row; a row that
is lost, or in another place than in the plan; a bottleneck that is left out for lack of room.
"""

import json
from dataclasses import replace
from fractions import Fraction
from functools import partial

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import FairShare, OnError, Pipeline
from funcpipe_trio._runtime.reports.plain import plain
from funcpipe_trio._watch.picture import (
    ENDED,
    SPAN,
    LinkRow,
    Recent,
    ShareRow,
    StageRow,
    most_interesting,
    most_unequal,
    picture,
)
from funcpipe_trio.testing import run_virtual
from tests._kit import every, nap
from tests.watch._plans import SECRET, hostile, large, small

STAGE = StageRow("a", "async", 1.0, 1.0, 0, 0.5, None, None, 0.0, None, 0, 0, 0, is_limit=False)
LINK = LinkRow("a", 0, 4, 1.0, 0)


async def looked_at(plan, *times):
    """Look at a run at these times, while a consumer takes what comes; give the reports."""
    reports = []

    async def consume(run):
        async for _ in run:
            await trio.lowlevel.checkpoint()

    async with plan.open() as run, trio.open_nursery() as nursery:
        nursery.start_soon(consume, run)
        for time in times:
            await trio.sleep_until(run._engine.began + time)
            reports.append(run.report)
        nursery.cancel_scope.cancel()
    return [*reports, run.report]


def reports_of(plan, *times):
    return run_virtual(partial(looked_at, plan, *times))


def slowing():
    """One item a second for a hundred seconds, then one in ten."""

    async def source():
        for number in range(1000):
            await trio.sleep(1 if number < 100 else 10)
            yield number

    return Pipeline.from_async_iterable(source, name="source").map(nap, name="nap")


def test_rates_are_those_of_the_last_seconds():
    early, before, now, end = reports_of(slowing(), 99.5, 140.5, 160.5)

    shown = picture(now, before, "running")
    assert (shown.seconds, shown.rate, shown.stages[1].emitted) == (20, 0.1, 0.1)
    assert shown.stages[1].busy == pytest.approx(0.1)
    assert shown.delivered == now.delivered > 100
    assert (shown.limit, picture(now, early, "running").seconds) == ("source", 61)
    last = picture(end, now, "cancelled")
    assert (last.seconds, last.rate) == (end.elapsed, end.throughput)


def test_the_first_picture_knows_no_rates():
    first, *_ = reports_of(slowing(), 3.5)
    shown = picture(first, None, "running")

    assert (shown.rate, shown.limit, shown.stages[0].emitted, shown.links[0].rate) == (None, None, None, None)
    assert shown.taken == first.taken == 3
    assert picture(first, first, "running") == shown


def test_what_a_latency_is_of_the_last_seconds():
    before, now, _ = reports_of(slowing(), 152.5, 158.5)

    assert picture(now, before, "running").stages[1].p99 is None
    assert picture(now, None, "completed").stages[1].p99 == pytest.approx(1, rel=0.051)


@given(st.lists(st.floats(0.001, 5), min_size=1, max_size=80), st.sampled_from([1.0, 4.0, float("inf")]))
def test_a_report_is_compared_with_the_youngest_that_is_old_enough(steps, longest):
    recent, kept, time = Recent(longest), [], 0.0
    (report, *_) = REPORTS
    for step in steps:
        time += step
        earlier = recent.earlier(replace(report, elapsed=time))
        if kept and time - kept[-1] > longest:
            kept.clear()
        old_enough = [each for each in kept[-64:] if time - each >= SPAN]
        expected = max(old_enough, default=min(kept[-64:], default=None))
        assert (None if earlier is None else earlier.elapsed) == expected
        kept.append(time)


REPORTS = reports_of(Pipeline.from_iterable(range(3)).map(nap), 0.5)


@pytest.mark.parametrize("make", [small, large, hostile])
def test_a_picture_adds_up_and_can_be_sent(make):
    """Whatever the plan: each stage and link is one row, in the order of the plan; nothing of the user's is in it."""
    reports = reports_of(make(), 0.4, 1.7, 2.6)
    for earlier, now in zip([None, *reports], reports, strict=False):
        state = "running" if now is not reports[-1] else "cancelled"
        shown = picture(now, earlier, state)
        rows = shown.rows()

        assert [stage.name for stage, _ in rows if stage is not None] == [stage.name for stage in now.stages]
        assert [link.behind for _, link in rows if link is not None] == [link.behind for link in now.links]
        assert all(link is None or stage is None or link.behind == stage.name for stage, link in rows)
        assert SECRET not in json.dumps(plain(shown), allow_nan=False)
        assert shown.failed == now.failed
        assert sum(stage.is_limit for stage in shown.stages) <= 1
        assert shown.is_over == (state in ENDED)


def test_what_a_link_lost_is_what_it_dropped_and_did_not_admit():
    now, end = reports_of(small(), 1.0)
    lossy = [replace(link, dropped=2, turned_away=3) for link in now.links]

    assert {link.lost for link in picture(replace(now, links=tuple(lossy)), None, "running").links} == {5}
    assert {link.lost for link in picture(end, None, "left").links} == {0}


def test_shares_are_beside_what_is_due():
    before, now, _ = reports_of(small(), 1.0, 3.0)
    big, little = picture(now, before, "running").shares

    assert [(each.merge, each.key, each.weight, each.due) for each in (big, little)] == [
        ("tenants", "big", 3, 0.75),
        ("tenants", "small", 1, 0.25),
    ]
    assert (big.backlog, big.longest) == (now.inputs[0].backlog, now.inputs[0].longest_wait)
    assert picture(now, before, "running").advice == now.since(before).advice
    assert picture(now, None, "running").advice == ""
    assert big.rate == (now.inputs[0].taken - before.inputs[0].taken) / 2 > 100


def test_keys_are_called_as_the_user_says_or_by_rank():
    plan = every(1, range(100)).fair_by(
        lambda item: (SECRET, item % 2), FairShare({(SECRET, 1): Fraction(5, 2)}), max_keys=9
    )
    before, now, _ = reports_of(plan.map(nap, concurrency=2), 2.5, 20.5)

    assert [each.key for each in picture(now, before, "running").shares] == ["#1", "#2"]
    told = picture(now, before, "running", keys=lambda key: f"tenant {key[1]}").shares
    assert {(each.key, each.weight, round(each.due, 3)) for each in told} == {
        ("tenant 0", 1, 0.286),
        ("tenant 1", 2.5, 0.714),
    }
    assert sum(each.got for each in told) == pytest.approx(1)


def test_branches_have_no_due():
    line = every(1, range(100)).broadcast({"a": lambda items: items, "b": lambda items: items.filter(lambda n: n % 2)})
    before, now, _ = reports_of(line, 2.5, 22.5)

    assert [(each.key, each.due, round(each.got, 2)) for each in picture(now, before, "running").shares] == [
        ("a", None, 0.67),
        ("b", None, 0.33),
    ]


def test_errors_are_told_by_their_types_and_failures_count_as_failed():
    async def fail(number):
        raise ValueError(SECRET)

    plan = every(1, range(9)).map(fail, on_error=OnError.emit(), name="fail")
    now, _ = reports_of(plan, 4.5)
    shown = picture(now, None, "running")

    assert (shown.errors, shown.failed, shown.stages[1].failed) == ((("fail", "ValueError", 4),), 4, 4)


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.integers(0, 1)), max_size=60), st.integers(-1, 60))
def test_the_most_interesting_rows_keep_their_order(kinds, most):
    """What limits the run is always among them, then what failed, then what is fullest or busiest."""
    rows = []
    for place, (busy, held, failed) in enumerate(kinds):
        stage = replace(STAGE, name=str(place), busy=busy, failed=failed, is_limit=place == len(kinds) // 2)
        rows.append((stage, replace(LINK, behind=str(place), held=held)))
    shown = most_interesting(rows, most)

    assert len(shown) == max(0, min(most, len(rows)))
    assert [int(stage.name) for stage, _ in shown] == sorted(int(stage.name) for stage, _ in shown)
    if shown:
        assert any(stage.is_limit for stage, _ in shown)
        left_out = [row for row in rows if row not in shown]
        others = [row for row in shown if not row[0].is_limit]
        least = min((row[0].failed, max(row[0].busy, row[1].held / 4)) for row in others) if others else (9, 9)
        assert all((stage.failed, max(stage.busy, link.held / 4)) <= least for stage, link in left_out)


def test_the_link_of_a_branch_is_a_row_of_its_own():
    now, _ = reports_of(large(), 1.0)
    rows = picture(now, None, "running").rows()
    alone = [link.behind for stage, link in rows if stage is None]

    assert alone == ["broadcast.store", "broadcast.log"]
    assert most_interesting([(None, LINK)], 1) == [(None, LINK)]


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40), st.integers(-1, 40))
def test_the_most_unequal_shares_keep_their_order(pairs, most):
    shares = [ShareRow("m", str(place), "merge", 1.0, due, got, 1.0, 0, 0.0) for place, (due, got) in enumerate(pairs)]
    shown = most_unequal(shares, most)

    assert len(shown) == max(0, min(most, len(shares)))
    assert shown == [each for each in shares if each in shown]
    least = min((abs(each.got - each.due) for each in shown), default=1)
    assert all(abs(each.got - each.due) <= least + 0.01 for each in shares if each not in shown)
