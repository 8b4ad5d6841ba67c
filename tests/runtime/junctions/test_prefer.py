"""One pipeline before the others, which do not starve: whose item is handed over, at each hand-over?

Mutants that die here: a choice that depends on the order in which tasks run; a window counted at the links instead of
at the hand-over; others that wait for a preferred input that has nothing.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from funcpipe_trio import Pipeline, prefer
from funcpipe_trio.testing import Script, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled


def line(name: str, count: int) -> Pipeline[str]:
    return Pipeline.from_iterable([name] * count, name=name)


@given(st.integers(2, 5), st.integers(1, 3), st.integers(1, 20), st.booleans(), st.integers(0, 9))
def test_one_of_each_window_is_for_the_others_in_turn(at_least, others, capacity, slow, seed):
    """While all have items, whatever the schedule and the sizes of links."""

    async def nap(item: str) -> str:
        await trio.sleep(slow)
        return item

    lines = [line(str(number), 40).buffer(capacity) for number in range(others + 1)]

    with scheduled(Schedule(seed)):
        items = run_virtual(prefer(*lines, at_least=at_least).map(nap).collect)

    until = min(len(items) - items[::-1].index(str(number)) for number in range(others + 1))  # the first has ended
    assert [item == "0" for item in items[:until]] == [bool(at % at_least) for at in range(1, until + 1)]
    turns = [item for item in items[:until] if item != "0"]
    assert all(len(set(turns[at : at + others])) == others for at in range(len(turns) - others + 1))
    assert sorted(items) == sorted(str(number) for number in range(others + 1) for _ in range(40))


def test_the_others_are_served_at_once_when_the_preferred_one_has_nothing():
    first = Pipeline.from_async_iterable(Script([(2, "f"), (4, "f")]))
    times = []

    async def main() -> None:
        began = trio.current_time()
        async with prefer(first, line("o", 3), at_least=9).open() as run:
            async for item in run:
                times.append((item, trio.current_time() - began))

    run_virtual(main)

    assert times == [("o", 0), ("o", 0), ("o", 0), ("f", 2), ("f", 4)]


def test_a_preferred_item_overtakes_what_waits():
    """At a slow consumer: it is next, but for the one of the others whose turn it is."""
    first = Pipeline.from_async_iterable(Script([(2.5, "f"), (2.75, "f"), (2.875, "f")]))

    async def main() -> list[str]:
        got = []
        async with prefer(first, line("o", 9), at_least=3).open() as run:
            async for item in run:
                got.append(item)
                await trio.sleep(1)
        return got

    assert "".join(run_virtual(main)) == "oooffofooooo"


@pytest.mark.parametrize("count", [0, 1])
def test_it_may_be_alone(count):
    others = [line("o", count)] * count

    assert "".join(run_virtual(prefer(line("f", 2), *others, at_least=2).collect)) == ("fof" if count else "ff")


def test_its_inputs_have_no_weights():
    async def main() -> Any:
        async with prefer(line("f", 2), line("o", 2), at_least=2, name="both").open() as run:
            with pytest.raises(KeyError, match="this run has no merge and no fair_by"):
                run.set_weight(0, 3)
            return [item async for item in run], run.report

    items, report = run_virtual(main)

    assert items == ["f", "o", "f", "o"]
    assert report.inputs == ()


def test_another_window_is_a_setting():
    plan = prefer(line("f", 4), line("o", 4), at_least=2, name="both")
    changed = plan.with_settings({"both": {"at_least": 4}})

    assert "".join(run_virtual(changed.collect)) == "fffofooo"
    assert plan.diff(changed)
    assert plan != changed
