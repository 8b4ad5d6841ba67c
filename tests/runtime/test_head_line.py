"""The first line of a report: what was taken, and what became of it, in numbers that a person can add up.

That the sum holds for every operation, ending and failure is tested over the catalogue (`tests/operators/`) and random
plans (`tests/promises/_world.py`). Here: how it reads, and that it holds while the run is at work.

Mutants that die here: a batch that counts as an item; copies, tuples or children that nobody mentions; a failure that
went on and is called no failure; what is under way left out.
"""

import re

import pytest
import trio

from funcpipe_trio import OnError, Pipeline, Step, zip_pipelines
from funcpipe_trio.testing import run_virtual


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
        "of 10 taken: 10 delivered, 0 failed (1 more went on as a Failure), 0 dropped, 0 discarded",
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


async def nap(item):
    await trio.sleep(1)
    return item
