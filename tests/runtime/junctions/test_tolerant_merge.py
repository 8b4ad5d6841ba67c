"""`merge` and `fair_merge` with `on_error`: what takes the place of an input that failed, when, and what adds up?

Mutants that die here: a `Failure` that comes before the items of its input, or out of its turn; one that is charged to
the shares, or passed to the cost function; an input that is skipped and still counts as open; one failed input more or
less than allowed; a failure that is dealt with and raised; one that is lost when the run is stopped before its turn; a
run that was stopped, or a `MisuseError`, taken for a failure of an input; inputs of an inner merge that become those of
the outer one, with its policy.
"""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import Failure, FairShare, MisuseError, OnError, Pipeline, concat, fair_merge, merge, zip_pipelines
from funcpipe_trio.testing import Scenario, cancel_everywhere, drain_everywhere, explore_schedules, run_virtual
from tests._kit import Boom, assert_run_balances, assert_stages_balance, every, outcome_of

EMIT, SKIP = OnError.emit(), OnError.skip()


def breaking(*items, period=1.0):
    """Give the items, and then fail."""

    async def feed():
        for item in items:
            await trio.sleep(period)
            yield item
        await trio.sleep(period)
        raise Boom(*items)

    return Pipeline.from_async_iterable(feed)


def adds_up(report):
    assert_stages_balance(report)
    made = sum(each.made - each.used for each in report.remade)
    assert report.taken + made == report.delivered + report.failed + report.dropped + report.discarded


def failures(report):
    return {each.key: each.failure for each in report.inputs}


# ---- emit


def test_a_failure_stands_behind_the_items_of_its_input_and_the_others_go_on():
    seen = outcome_of(merge(breaking("a"), every(1.25, "xyz"), on_error=EMIT))
    (failure,) = [item for item in seen.items if isinstance(item, Failure)]

    assert seen.items == ["a", "x", failure, "y", "z"]
    assert seen.times == [1, 1.25, 2, 2.5, 3.75]
    assert (failure.item, failure.stage, failure.attempts, failure.error.args) == (None, "0", 0, ("a",))
    assert failure.error.__notes__ == ["in stage 'feed', item 1", "input 0 of 'merge' failed"]
    assert (seen.report.outcome, seen.report.error, seen.report.cleanup_errors) == ("completed", None, ())
    assert failures(seen.report) == {0: "Boom", 1: None}
    assert [(each.name, each.used, each.made) for each in seen.report.remade] == [("merge", 0, 1)]
    assert "merge / 0: failed with Boom" in seen.report.describe().splitlines()
    adds_up(seen.report)


def test_the_key_of_the_input_is_its_stage():
    inputs = {"eu": breaking(), 7: breaking(), ("a", 1): breaking()}
    stages = [failure.stage for failure in run_virtual(fair_merge(inputs, on_error=EMIT).collect)]

    assert sorted(stages) == ["('a', 1)", "7", "eu"]


def test_an_item_that_failed_counts_as_failed_and_its_failure_as_made():
    report = outcome_of(merge(Pipeline.from_iterable([1, 0]).map(lambda item: 1 // item), on_error=EMIT)).report

    assert (report.taken, report.failed, report.delivered) == (2, 1, 2)
    assert failures(report) == {0: "ZeroDivisionError"}
    adds_up(report)


def test_it_costs_nothing():
    """Neither is the cost function asked, nor are shares moved."""

    def cost(item):
        assert not isinstance(item, Failure)
        return 1

    inputs = {"a": Pipeline.from_iterable(range(3)), "b": breaking(period=0)}
    report = outcome_of(fair_merge(inputs, FairShare(cost=cost), on_error=EMIT)).report

    assert [(each.key, each.taken, each.cost) for each in report.inputs] == [("a", 3, 3), ("b", 0, 0)]


def test_when_all_inputs_failed_the_stream_ends():
    seen = outcome_of(merge(breaking(), breaking(), on_error=EMIT))

    assert (len(seen.items), seen.error, seen.report.outcome) == (2, None, "completed")


def test_a_zip_takes_it_as_the_item_that_it_is():
    seen = outcome_of(zip_pipelines(merge(breaking(1), on_error=EMIT), every(1, "xy")))

    assert [type(first) for first, _second in seen.items] == [int, Failure]
    assert [second for _first, second in seen.items] == ["x", "y"]


def test_as_an_input_of_other_fan_ins():
    assert outcome_of(concat(merge(breaking(1), on_error=SKIP), every(1, "x"))).items == [1, "x"]
    assert outcome_of(merge(merge(breaking(1), on_error=SKIP), every(5, "x"))).items == [1, "x"]
    assert outcome_of(zip_pipelines(merge(breaking(1), every(3, [2]), on_error=SKIP), every(1, "xy"))).items == [
        (1, "x"),
        (2, "y"),
    ]


def test_what_branches_give_may_fail_alone():
    def failing(line):
        return merge(line.map(lambda item: 1 // item), on_error=EMIT)

    seen = outcome_of(Pipeline.from_iterable([1, 0, 2]).broadcast({"bad": failing, "good": lambda line: line}))

    assert sum(isinstance(item, Failure) for item in seen.items) == 1
    assert [item for item in seen.items if not isinstance(item, Failure)].count(2) == 1


def test_a_failure_of_the_trunk_with_which_a_branch_deals_is_no_error_of_the_run():
    """Though it stands behind the other branch as well, which has ended before."""
    plan = breaking(1, 2, 3).broadcast(
        {"deals": lambda line: merge(line, on_error=EMIT), "ended": lambda line: line.take(1)}
    )
    seen = outcome_of(plan)

    assert sum(isinstance(item, Failure) for item in seen.items) == 1
    assert (seen.error, seen.report.error, seen.report.outcome) == (None, None, "completed")


@pytest.mark.parametrize("end", ["left", "aborted"])
def test_a_failure_that_was_not_read_is_given_up_as_a_value(end):
    told = []

    async def main():
        plan = merge(breaking(1), every(1, [2]), on_error=EMIT)
        async with plan.open(on_discard=lambda *what: told.append(what)) as run:
            await trio.sleep(5)
            if end == "aborted":
                run.abort()
        return run.report

    report = run_virtual(main)
    reason = "not needed" if end == "left" else end

    assert sorted((type(item), stage, why) for item, stage, why in told if isinstance(item, int)) == [
        (int, "arrivals", reason),
        (int, "feed", reason),
    ]
    assert report.outcome == end
    assert report.taken + sum(each.made for each in report.remade) == report.discarded == len(told)


def test_one_whose_turn_had_come_is_discarded_in_the_name_of_the_merge():
    told = []

    async def main():
        plan = merge(breaking(), name="both", on_error=EMIT)
        async with plan.open(on_discard=lambda *what: told.append(what)) as run:
            await trio.sleep(5)
        return run.report

    report = run_virtual(main)

    ((failure, stage, reason),) = told
    assert (type(failure), stage, reason) == (Failure, "both", "not needed")
    assert (report.discarded, sum(each.made for each in report.remade)) == (1, 1)


# ---- skip


def test_the_others_go_on_and_nothing_comes():
    seen = outcome_of(merge(breaking("a"), every(1.25, "xyz"), on_error=SKIP))

    assert (seen.items, seen.error, seen.report.outcome) == (["a", "x", "y", "z"], None, "completed")
    assert failures(seen.report) == {0: "Boom", 1: None}
    assert_run_balances(seen.report)


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_one_failed_input_too_many_ends_the_stream(most):
    inputs = [breaking(number, period=number + 1) for number in range(3)]
    seen = outcome_of(merge(*inputs, every(2.5, "xyz"), on_error=OnError.skip(most)))

    assert (seen.error is None) is (most == 3)
    if seen.error is not None:
        assert seen.error.args == (most,)
        assert seen.error.__notes__[-1] == f"{most + 1} of 4 inputs failed, more than max_failures={most}"
        assert seen.report.outcome == "failed"
    assert sum(failure is not None for failure in failures(seen.report).values()) == min(most + 1, 3)


# ---- what is no failure of an input


def test_a_misuse_ends_the_stream():
    async def later(item):
        return item

    wrong = Pipeline.from_iterable([1]).map(lambda item: later(item))

    for policy in (EMIT, SKIP):
        assert type(outcome_of(merge(wrong, every(1, "x"), on_error=policy)).error) is MisuseError


def test_a_failing_cost_function_is_no_failure_of_an_input():
    plan = fair_merge({"a": Pipeline.from_iterable([0])}, FairShare(cost=lambda item: 1 // item), on_error=EMIT)

    assert type(outcome_of(plan).error) is ZeroDivisionError


def test_a_cancelled_run_has_no_failures():
    async def main():
        with trio.CancelScope() as scope:
            async with merge(every(1, range(9)), every(1, range(9)), on_error=EMIT).open() as run:
                await run.receive()
                scope.cancel()
                await trio.lowlevel.checkpoint()
        return run.report

    report = run_virtual(main)

    assert (report.outcome, failures(report)) == ("cancelled", {0: None, 1: None})


def test_within_an_item_they_are_failures_of_the_stage_around():
    plan = Pipeline.from_iterable([1]).flat_map(lambda item: merge(breaking(item), on_error=SKIP), concurrency=1)
    report = outcome_of(plan).report

    assert report.outcome == "completed"
    assert report.stages[-1].failures == (("Boom", 1),)


# ---- the plan


def test_an_inner_merge_keeps_its_own_policy():
    """Only merges that end with their first failure become one."""
    inner, other = merge(breaking(), every(3, "x")), every(5, "y")

    assert outcome_of(merge(merge(breaking(), every(3, "x"), on_error=SKIP), other)).items == ["x", "y"]
    seen = outcome_of(merge(inner, other, on_error=EMIT))
    assert [item if isinstance(item, str) else item.stage for item in seen.items] == ["0", "y"]
    assert merge(merge(other, other), other) == merge(other, other, other)
    assert merge(other, other) != merge(other, other, on_error=SKIP)


def test_it_is_in_the_plan():
    plan = merge(every(1, "x"), on_error=OnError.skip(2))

    assert "an input that fails: skip, at most 2" in plan.describe()
    assert '"on_error.max_failures": 2' in plan.describe("json")
    assert "at most 3" in plan.with_settings({"merge": {"on_error.max_failures": 3}}).describe()
    assert "emit" in plan.with_settings({"merge": {"on_error": EMIT}}).describe()


@pytest.mark.parametrize("policy", [EMIT, SKIP])
def test_everywhere(policy):
    def make():
        return merge(
            breaking(1, 2).map(one, concurrency=2), every(0.75, range(4)), breaking(period=0), on_error=policy
        ).buffer(2)

    async def one(item):
        await trio.sleep(0.5)
        return item

    for campaign in (cancel_everywhere, drain_everywhere, explore_schedules):
        campaign(Scenario(make))


def test_the_shares_of_the_others_stay_exact():
    async def main():
        inputs = {
            "a": Pipeline.from_iterable(range(40)),
            "b": Pipeline.from_iterable(range(40)),
            "c": breaking(period=0),
        }
        async with fair_merge(inputs, FairShare({"a": 3}), on_error=EMIT).open() as run:
            await wait_all_tasks_blocked()
            for _ in range(41):
                await run.receive()
            return {each.key: each.taken for each in run.statistics().inputs}

    assert run_virtual(main) == {"a": 30, "b": 10, "c": 0}
