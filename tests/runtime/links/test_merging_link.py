"""`buffer(n, overflow=OnFull.merge(fn))`: what waits when there is no room, and what is counted?

Mutants that die here: a merge while there is room, or into another than the newest; a value that is counted twice, or
not at all; an error of the function that loses what waits, or both; a function that is called for what nobody needs.
"""

from operator import add

import pytest
import trio

from funcpipe_trio import OnFull, Pipeline, PlanError
from funcpipe_trio.testing import run_virtual

from ..stages.test_timing import played, script, under_schedules


def spread(first, second):
    return first + second


def test_what_finds_no_room_is_merged_into_the_newest():
    """In order; two count as made into one, and the first line adds up."""
    log, error, _, probe = played(script("abcdefghij|").buffer(2, overflow=OnFull.merge(spread)), pause=3.25)

    assert error is None
    assert [item for _, item in log] == ["a", "b", "cd", "efg", "hij"]
    report = probe.run.report
    assert [(each.used, each.made) for each in report.remade] == [(10, 5)]
    assert "of 10 taken, 10 made into 5 (feed): 5 delivered" in report.describe().splitlines()[0]
    assert (report.dropped, report.stages[0].emitted, report.links[0].peak) == (0, 5, 2)


def test_with_a_receiver_that_keeps_up_nothing_is_merged():
    def main():
        return Pipeline.from_iterable(range(100)).buffer(1, overflow=OnFull.merge(add)).map(str).collect()

    assert under_schedules(main, 10) == [[*map(str, range(100))]] * 10


@pytest.mark.parametrize("is_awaited", [False, True])
def test_an_error_is_a_failure_at_the_new_item(is_awaited):
    """What waits is delivered before it."""
    fault = OSError("cannot merge")

    async def later():
        pass

    def fails(_waiting, item):
        if item == "d":
            if is_awaited:
                return later()
            raise fault
        return item

    line = script("abcdef|").buffer(1, overflow=OnFull.merge(fails))
    log, error, _, probe = played(line, pause=10)

    assert [item for _, item in log] == ["a", "c"]
    assert error is fault or "returned something to await" in str(error)
    assert error.__notes__ == ["in stage 'feed', item 3"]
    assert (probe.run.report.failed, probe.run.report.discarded) == (1, 0)


def test_a_function_that_stops_the_run():
    """What waited was given up meanwhile, and so is the new item: each once."""
    discarded = []

    async def main():
        def merges(_waiting, item):
            run.abort()
            return item

        line = Pipeline.from_iterable("abcde").buffer(1, overflow=OnFull.merge(merges))
        async with line.open(on_discard=lambda *args: discarded.append(args)) as run:
            await trio.sleep(1)
        return run.report

    report = run_virtual(main)
    assert [item for item, *_ in discarded] == ["a", "b"]
    assert (report.taken, report.discarded, report.outcome) == (2, 2, "aborted")


def test_in_a_branch_it_holds_up_no_other():
    """The function is called in a stage of the branch, so its error ends that branch, not the trunk."""

    async def slowly(item):
        await trio.sleep(5)
        return item

    branches = {
        "all": lambda line: line.map(str.upper),
        "some": lambda line: line.buffer(1, overflow=OnFull.merge(spread)).map(slowly),
    }
    log, *_ = played(script("abcdefgh|").broadcast(branches))

    assert [(at, item) for at, item in log if item.isupper()] == [*enumerate("ABCDEFGH")]
    assert "".join(item for _, item in log if item.islower()) == "abcdefgh"
    assert len(log) < 16


def test_behind_a_pool_and_as_what_the_plan_says():
    def fails(_waiting, _item):
        raise OSError

    async def main():
        line = Pipeline.from_iterable(range(8)).map(trio.sleep, concurrency=3, ordered=False)
        assert await line.buffer(1, overflow=OnFull.merge(lambda one, other: None)).map(str).count() <= 8
        assert await Pipeline.from_iterable([1, 2]).buffer(1, overflow=OnFull.merge(fails)).collect() == [1, 2]

    run_virtual(main)
    plan = Pipeline.from_iterable("ab").buffer(3, overflow=OnFull.merge(spread))
    assert "  | link of 3, merges into the newest by spread when full" in plan.describe()
    assert '"merge": "tests.runtime.links.test_merging_link:spread"' in plan.describe("json")
    assert plan.max_in_flight == 3
    assert plan == Pipeline.from_iterable("ab").buffer(3, overflow=OnFull.merge(spread))
    assert "overflow" in plan.diff(plan.with_settings({"iterable": {"overflow": "block"}}))
    with pytest.raises(PlanError, match="not a function"):
        plan.with_settings({"iterable": {"overflow.fn": add}})
