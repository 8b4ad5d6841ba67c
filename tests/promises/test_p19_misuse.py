"""P19: misuse is reported before any task starts, and all problems of a plan at once.

Mutants that die here: a check that runs when the first item comes; one that stops at the first problem; a plan whose
one-shot source is marked as used although nothing began.
"""

import pytest
import trio

from funcpipe_trio import FairShare, Pipeline, PlanError, concat, fair_merge, merge
from funcpipe_trio.testing import run_virtual

from ._tasks import Tasks

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
        with pytest.raises(PlanError, match=r"^map 'str': with concurrency, fn must be an async function"):
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
    ("call", "error", "says"),
    [
        (lambda p: p.open(on_discard=3), TypeError, "Pipeline: on_discard must be callable, not 3$"),
        (lambda p: p.open(cleanup_timeout=0), ValueError, "Pipeline: cleanup_timeout must be a number of seconds > 0"),
        (lambda p: p.open(cleanup_timeout=float("nan")), ValueError, "Pipeline: cleanup_timeout must .* not nan$"),
        (lambda p: p.open(cleanup_timeout="1"), TypeError, "Pipeline: cleanup_timeout must .* not a str of length 1$"),
        (lambda p: p.map(str, concurrency=True), TypeError, "Pipeline.map: concurrency must be an int >= 1, not True$"),
        (lambda p: p.map(str, concurrency=0), ValueError, "Pipeline.map: concurrency must be >= 1, not 0$"),
        (lambda p: p.buffer(-1), ValueError, "Pipeline.buffer: capacity must be >= 0, not -1$"),
        (lambda p: p.take(-1), ValueError, "Pipeline.take: n must be >= 0, not -1$"),
        (lambda p: p.batch(), ValueError, "Pipeline.batch: one of max_items, max_delay, max_cost must be given$"),
        (
            lambda p: p.batch(1, max_delay=float("inf")),
            ValueError,
            "Pipeline.batch: max_delay must .* finite, not inf$",
        ),
        (lambda p: FairShare({"a": 0.5}), TypeError, r"FairShare: weights\['a'\] must be a positive int or Fraction"),
        (lambda p: FairShare({"a": 0}), ValueError, r"FairShare: weights\['a'\] must be a positive int or Fraction"),
        (lambda p: FairShare(capacity=0), ValueError, "FairShare: capacity must be >= 1, not 0$"),
        (lambda p: Pipeline.ticks(0), ValueError, "Pipeline.ticks: period must be a number of seconds > 0"),
    ],
)
def test_wrong_values_are_told_at_the_call(call, error, says):
    """Not when the run begins: outside of trio, at the line that says it."""
    with pytest.raises(error, match=f"^{says}"):
        call(Pipeline.from_iterable([1]))
