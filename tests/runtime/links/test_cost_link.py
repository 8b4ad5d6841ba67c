"""`buffer(max_cost=, cost=)`: how much is in it, what waits in front, and what does not fit?

Mutants that die here: a sum that drifts, or counts an item twice, or not when it leaves; a second item in front; an
oversized item that never gets in, or gets in beside others; a sender that is not told of room; a cost that is asked for
an item that nobody needs; an error that loses what waits.
"""

import math

import pytest
import trio

from funcpipe_trio import BufferOverflow, Pipeline
from funcpipe_trio.testing import run_virtual

from ..stages.test_timing import played, script, under_schedules


def texts(*sizes):
    return ["x" * size for size in sizes]


@pytest.mark.parametrize("capacity", [None, 2])
def test_it_holds_what_fits_and_one_waits_in_front(capacity):
    """At every moment: the cost of what is inside is at most that, or it is a single item."""
    sizes = [3, 3, 4, 1, 25, 10, 1, 1, 1, 1, 1, 1, 0, 0, 0, 9, 2, 30, 30, 5]

    async def main():
        line = Pipeline.from_iterable(texts(*sizes)).buffer(capacity, max_cost=10, cost=len)
        got = []
        async with line.open() as run:
            while True:
                await trio.testing.wait_all_tasks_blocked()
                statistics = run.statistics()
                waiting = sizes[len(got) : statistics.taken]
                inside = waiting if sum(waiting) <= 10 and len(waiting) <= (capacity or 99) else waiting[:-1]
                assert sum(inside) <= 10 or len(inside) == 1
                assert len(inside) <= (capacity or 99)
                assert statistics.links[0].held == len(waiting)
                if len(got) == len(sizes):
                    return [len(item) for item in got]
                got.append(await run.receive())

    assert under_schedules(main, 5) == [sizes] * 5


def test_a_burst_fills_it():
    async def main():
        async with Pipeline.from_iterable(texts(*[1] * 50)).buffer(max_cost=10, cost=len).open() as run:
            await trio.testing.wait_all_tasks_blocked()
            taken = run.statistics().taken
            await run.receive()
            return taken, run.statistics().links[0].capacity

    assert run_virtual(main) == (11, math.inf)


def test_the_sum_is_exact():
    """Floats are taken as they are: nothing drifts, however many items pass."""
    line = Pipeline.from_iterable([0.1, 0.2, 0.7] * 500).buffer(max_cost=1, cost=lambda item: item)

    async def main():
        async with line.map(lambda item: item).open() as run:
            assert len([item async for item in run]) == 1500
        return run.report.links[0].peak

    assert run_virtual(main) <= 4


@pytest.mark.parametrize(("overflow", "left"), [("drop_oldest", [1, 2, 1]), ("drop_newest", [3, 1]), ("fail", [3, 1])])
def test_what_does_not_fit_is_dropped_or_fails(overflow, left):
    sizes = [3, 1, 12, 4, 1, 2, 1]

    async def main():
        got, error = [], None
        async with Pipeline.from_iterable(texts(*sizes)).buffer(max_cost=4, cost=len, overflow=overflow).open() as run:
            await trio.sleep(1)
            try:
                async for item in run:
                    got.append(len(item))
            except BufferOverflow as met:
                error = met
        return got, error, run.report

    got, error, report = run_virtual(main)
    assert got == left
    assert report.taken == report.delivered + report.dropped + report.failed + report.discarded
    if overflow == "fail":
        assert str(error) == "the buffer of cost 4 behind 'iterable' was full"
        assert error.__notes__ == ["in stage 'iterable', item 2"]


def test_a_receiver_that_keeps_up_loses_nothing():
    def main():
        line = Pipeline.from_iterable(texts(*[3] * 40)).buffer(max_cost=4, cost=len, overflow="drop_newest")
        return line.map(len).count()

    assert under_schedules(main, 10) == [40] * 10


@pytest.mark.parametrize(
    ("cost", "kind", "message"),
    [
        (-1, ValueError, "cost must be a finite number >= 0, not -1"),
        (math.inf, ValueError, "cost must be a finite number >= 0, not inf"),
        (math.nan, ValueError, "cost must be a finite number >= 0, not nan"),
        (True, TypeError, "cost must be a finite number >= 0, not True"),
        ("1", TypeError, "cost must be a finite number >= 0, not a str of length 1"),
    ],
)
def test_a_cost_that_is_none_fails_at_its_item(cost, kind, message):
    line = script("(abc)|").buffer(max_cost=5, cost=lambda item: cost if item == "b" else 1)
    log, error, _, probe = played(line, pause=1)

    assert [item for _, item in log] == ["a"]
    assert (type(error), str(error)) == (kind, f"buffer behind 'feed': {message}")
    assert error.__notes__ == ["in stage 'feed', item 1"]
    assert probe.run.report.failed == 1


def test_what_is_held_is_given_up_once():
    """Also the one in front, whatever ends the run."""

    async def main(end):
        gone = []
        line = Pipeline.from_iterable(texts(3, 4, 5, 6)).buffer(max_cost=8, cost=len)
        async with line.open(on_discard=lambda item, *_: gone.append(len(item))) as run:
            await trio.testing.wait_all_tasks_blocked()
            if end == "drained":
                run.drain_nowait()
                gone = [len(item) async for item in run]
            elif end == "aborted":
                run.abort()
        return gone, run.report.taken

    assert [run_virtual(main, end) for end in ("left", "aborted", "drained")] == [([3, 4, 5], 3)] * 3


def test_a_pool_keeps_no_results_in_front_of_it():
    """Without a number of items, results that wait for an earlier one have only the places of the calls."""

    async def slow_at_first(item):
        await trio.sleep(0 if item else 50)
        return item

    async def main(capacity):
        line = Pipeline.from_iterable(range(40)).map(slow_at_first, concurrency=3)
        async with line.buffer(capacity, max_cost=100, cost=abs).open() as run:
            await trio.sleep(20)
            return run.statistics().stages[1].received

    assert run_virtual(main, None) == 3
    assert run_virtual(main, 4) == 7


def test_what_the_plan_says():
    feed = Pipeline.from_iterable(["a"])
    unlimited, limited = feed.buffer(max_cost=64e6, cost=len), feed.buffer(1000, max_cost=64_000_000, cost=len)

    assert "  | link of cost 6.4e+07 by len (of an open run" in unlimited.describe()
    assert "  | link of 1000 or cost 6.4e+07 by len (of an open run" in limited.describe()
    assert (unlimited.max_in_flight, limited.max_in_flight) == (math.inf, 1001)
    assert limited.with_settings({"iterable": {"max_cost": 5, "capacity": 7}}) == feed.buffer(7, max_cost=5, cost=len)
    assert "max_cost" in limited.diff(limited.with_settings({"iterable": {"max_cost": 5}}))
    assert "stage buffer: pass on" in feed.broadcast({"a": lambda line: line.buffer(max_cost=1, cost=len)}).describe()
