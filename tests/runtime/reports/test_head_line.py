"""The first line of a report: what was taken, and what became of it, in numbers that a person can add up.

That the sum holds for every operation, ending and failure is tested over the catalogue (`tests/operators/`) and random
plans (`tests/promises/_world.py`). Here: how it reads, and that it holds while the run is at work.

Mutants that die here: a batch that counts as an item; copies, tuples or children that nobody mentions; a failure that
went on and is called no failure; what is under way left out.
"""

import re

import pytest

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    OnError,
    Pipeline,
    PlaceLimiter,
    RateLimit,
    Retry,
    Step,
    zip_pipelines,
)
from funcpipe_trio.testing import run_virtual
from tests._kit import nap


def head(plan):
    """Run a plan, and give its report's first line, without the time."""

    async def main():
        async with plan.open() as run:
            try:
                async for _item in run:
                    pass
            except ZeroDivisionError:
                pass
        return run.report

    return re.sub(r" after [\d.]+ s", "", run_virtual(main).describe().split("\n")[0])


NUMBERS = Pipeline.from_iterable(range(10))
RECIPROCAL = Step.pure(lambda item: 1 / item)
LINES = {
    "items": (NUMBERS.filter(lambda item: item > 2), "of 10 taken: 7 delivered, 0 failed, 3 dropped, 0 discarded"),
    "batches": (
        NUMBERS.filter(lambda item: item > 2).batch(3),
        "of 10 taken, 7 made into 3 (batch): 3 delivered, 0 failed, 3 dropped, 0 discarded",
    ),
    "batches and back": (
        NUMBERS.batch(4).unbatch(),
        "of 10 taken, 10 made into 3 (batch), 3 made into 10 (unbatch): 10 delivered, 0 failed, 0 dropped, 0 discarded",
    ),
    "children": (
        NUMBERS.flat_map(lambda item: [item] * item, name="grow"),
        "of 10 taken, 10 made into 45 (grow): 45 delivered, 0 failed, 0 dropped, 0 discarded",
    ),
    "tuples": (
        zip_pipelines(NUMBERS, NUMBERS, name="pairs"),
        "of 20 taken, 20 made into 10 (pairs): 10 delivered, 0 failed, 0 dropped, 0 discarded",
    ),
    "copies": (
        NUMBERS.broadcast({"a": lambda p: p, "b": lambda p: p.filter(lambda item: item < 3)}, name="both"),
        "of 10 taken, 10 made into 20 (both): 13 delivered, 0 failed, 7 dropped, 0 discarded",
    ),
    "routes": (
        NUMBERS.partition(lambda item: "ab"[item % 2], {"a": lambda p: p, "b": lambda p: p}),
        "of 10 taken: 10 delivered, 0 failed, 0 dropped, 0 discarded",
    ),
    "failures that are skipped": (
        NUMBERS.map(RECIPROCAL, on_error=OnError.skip()),
        "of 10 taken: 9 delivered, 1 failed, 0 dropped, 0 discarded",
    ),
    "failures that go on": (
        NUMBERS.map(RECIPROCAL, on_error=OnError.emit()),
        "of 10 taken: 10 delivered, 0 failed (1 more became a Failure), 0 dropped, 0 discarded",
    ),
    "in the order of the stream": (
        zip_pipelines(NUMBERS, NUMBERS, name="pairs")
        .batch(2)
        .broadcast({"a": lambda p: p.unbatch(), "b": lambda p: p}),
        "of 20 taken, 20 made into 10 (pairs), 10 made into 5 (batch), 5 made into 10 (broadcast), "
        "5 made into 10 (unbatch): 15 delivered, 0 failed, 0 dropped, 0 discarded",
    ),
    "a long name": (
        NUMBERS.batch(2, name="n" * 5000),
        f"of 10 taken, 10 made into 5 ({'n' * 57}...): 5 delivered, 0 failed, 0 dropped, 0 discarded",
    ),
    "many makers": (
        NUMBERS.batch(2).unbatch().batch(2).unbatch().batch(5).unbatch(),
        "of 10 taken, 10 made into 5 (batch), 5 made into 10 (unbatch), 10 made into 5 (batch#2), "
        "5 made into 10 (unbatch#2), 12 made into 12 (2 more): 10 delivered, 0 failed, 0 dropped, 0 discarded",
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_it_adds_up_for_a_person(name):
    plan, said = LINES[name]

    assert head(plan) in {f"{outcome}; {said}" for outcome in ("completed", "failed")}


def test_what_is_under_way_is_said():
    """So the line adds up at every moment of a run at work; of one that has ended there is none."""

    async def main():
        said = []
        async with NUMBERS.batch(2).buffer(2).map(nap).open() as run:
            async for _item in run:
                said.append((run.report.describe().split("\n")[0], run.statistics()))
        return said, run.report

    said, report = run_virtual(main)

    for line, counts in said:
        changed = sum(each.made - each.used for each in counts.remade)
        left = counts.taken + changed - counts.delivered
        assert ("under way" in line) == (left > 0)
        assert line.endswith(f", {left} under way" if left else "0 discarded")
    assert any("under way" in line for line, _counts in said)
    assert "under way" not in report.describe()
    used = {each.used for line, counts in said for each in counts.remade}
    assert used <= {10 - sum(each.used for each in report.since(counts).remade) for _line, counts in said}


def slow(item):
    """Hold the loop, as what is written without async does."""
    return item


LIMITS = {
    "its functions": (lambda: NUMBERS.map(slow).map(nap), "limited by: nap"),
    "what runs in a source": (lambda: NUMBERS.throttle(RateLimit(1)).map(slow).buffer(1), "limited by: iterable (with"),
    "waits between attempts": (
        lambda: NUMBERS.map(Step(fails).retry(Retry(3, OSError, Backoff(2))), on_error=OnError.skip()),
        "limited by: fails (its waits between attempts)",
    ),
    "an open circuit": (
        lambda: NUMBERS.map(
            Step(fails).circuit_breaker(CircuitBreaker(failures=1, reset_after=9, wait=True)), on_error=OnError.skip()
        ),
        "limited by: fails (its open circuit)",
    ),
    "places": (
        lambda: NUMBERS.map(Step(nap).places(PlaceLimiter(1)), concurrency=9),
        "limited by: nap (the places that it shares)",
    ),
    "a rate limit": (lambda: NUMBERS.map(Step(call).rate_limit(RateLimit(1))), "limited by: call (its rate limit)"),
}


async def call(item):
    return item


async def fails(item):
    raise OSError


@pytest.mark.parametrize("name", LIMITS)
def test_what_limits_the_run_is_said_with_its_cause(name):
    """A stage that waits by a policy, or runs the functions of others, is not all that there is to say."""
    make, said = LIMITS[name]

    async def main():
        async with make().open() as run:
            async for _item in run:
                pass
        return run.report.describe()

    assert said in run_virtual(main)


def test_a_run_at_work_is_running():
    async def main():
        async with NUMBERS.open() as run:
            await anext(run)
            return run.report.outcome, run.report.describe().split()[0]

    assert run_virtual(main) == ("running", "running")


def test_what_on_discard_answers_is_not_lost_in_silence():
    """Nor is one taken that cannot be called as it will be."""

    async def tell(item, stage, reason):
        raise AssertionError("nobody awaits it")

    async def main():
        async with NUMBERS.open(on_discard=lambda *told: tell(*told)) as run:
            await anext(run)
        return run.report.cleanup_errors

    errors = run_virtual(main)

    assert errors
    assert all(isinstance(error, TypeError) for error in errors)
    for wrong in (lambda: None, lambda item: None, lambda a, b, c, d: None):
        with pytest.raises(TypeError, match=r"^Pipeline: on_discard must take 3 arguments: "):
            NUMBERS.open(on_discard=wrong)
