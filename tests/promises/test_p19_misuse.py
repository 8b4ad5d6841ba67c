"""P19: misuse is reported before any task starts, and all problems of a plan at once.

Mutants that die here: a check that runs when the first item comes; one that stops at the first problem; a plan whose
one-shot source is marked as used although nothing began.
"""

import pytest
import trio

from funcpipe_trio import FairShare, Pipeline, PlanError, concat, fair_merge, merge
from funcpipe_trio.testing import run_virtual

from ._schedules import Tasks

begun = []


def source():
    begun.append("source")
    return [1]


def bad_plan():
    """Three problems in three places, and a good source that must not be opened."""
    used = iter([1, 2])
    once = Pipeline.from_iterable(used, name="once")
    return merge(
        Pipeline.from_iterable(source).map(str, concurrency=2, name="first"),
        concat(once, once),
        Pipeline.from_iterable(source).map(str).map(int, concurrency=3, name="second"),
    )


ENDINGS = ["check", "open", "run", "collect", "count", "first", "fold"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_all_problems_are_told_at_once_and_nothing_starts(ending):
    """One PlanError, three problems, no task, no source opened."""
    begun.clear()
    tasks = Tasks()

    async def main():
        plan = bad_plan()
        trio.lowlevel.add_instrument(tasks)
        with pytest.raises(PlanError) as caught:
            if ending == "check":
                plan.check()
            elif ending == "open":
                async with plan.open():
                    pass
            elif ending == "fold":
                await plan.fold(max, 0)
            else:
                await getattr(plan, ending)()
        return str(caught.value)

    text = run_virtual(main)
    assert all(part in text for part in ("'first'", "'second'", "'once'"))
    assert begun == []
    assert tasks.spawned == 0


def test_a_plan_that_was_refused_has_used_nothing():
    """The one-shot source of a plan that cannot work is still good for another."""

    async def main():
        once = Pipeline.from_iterable(iter([1, 2]))
        with pytest.raises(PlanError):
            await merge(once, Pipeline.from_iterable([1]).map(str, concurrency=2)).collect()
        return await once.collect()

    assert run_virtual(main) == [1, 2]


def test_weights_for_inputs_that_do_not_exist_are_told_at_once():
    """Each of them, with the inputs there are."""
    inputs = {"a": Pipeline.from_iterable([1]), "b": Pipeline.from_iterable([1])}
    with pytest.raises(PlanError) as caught:
        fair_merge(inputs, FairShare({"a": 1, "c": 2, "d": 3}))

    text = str(caught.value)
    assert all(part in text for part in ("'c'", "'d'", "'a', 'b'"))


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda p: p.open(on_discard=3), TypeError),
        (lambda p: p.open(cleanup_timeout=0), ValueError),
        (lambda p: p.open(cleanup_timeout=float("nan")), ValueError),
        (lambda p: p.open(cleanup_timeout="1"), TypeError),
        (lambda p: p.map(str, concurrency=True), TypeError),
        (lambda p: p.map(str, concurrency=0), ValueError),
        (lambda p: p.buffer(0), ValueError),
        (lambda p: p.take(-1), ValueError),
        (lambda p: p.batch(), ValueError),
        (lambda p: p.batch(1, max_delay=float("inf")), ValueError),
        (lambda p: FairShare({"a": 0.5}), TypeError),
        (lambda p: FairShare({"a": 0}), ValueError),
        (lambda p: FairShare(capacity=0), ValueError),
        (lambda p: Pipeline.ticks(0), ValueError),
    ],
)
def test_wrong_values_are_told_at_the_call(call, error):
    """Not when the run begins: outside of trio, at the line that says it."""
    with pytest.raises(error):
        call(Pipeline.from_iterable([1]))
