"""Which of a pool's workers comes when: what a call costs in task steps, and that no item waits for lack of one."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio

from funcpipe_trio import OnError, Pipeline
from funcpipe_trio.testing import run_virtual
from tests._kit import one_step


class Steps(trio.abc.Instrument):
    """Counts the steps that tasks of a name take."""

    def __init__(self, name: str) -> None:
        self.name, self.count = name, 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task.name == self.name


def test_workers_are_not_woken_for_items_that_others_take() -> None:
    """A call of one checkpoint needs one step. Fault: each item that is taken wakes another of 100 workers: 2.1."""
    steps = Steps("one_step")

    async def main() -> int:
        trio.lowlevel.add_instrument(steps)
        return await Pipeline.from_iterable(range(2000)).map(one_step, concurrency=100).count()

    assert run_virtual(main) == 2000
    assert steps.count / 2000 < 1.5


@pytest.mark.parametrize("ordered", [True, False])
def test_all_workers_are_at_work_when_items_come_at_once(ordered: bool) -> None:
    """Each worker calls the next one in, idle or not yet employed. Fault: one is waited for in vain."""

    async def main() -> list[tuple[float, int]]:
        started = []

        async def call(item: int) -> None:
            started.append((trio.current_time(), item))
            await trio.sleep(10)

        async def bursts() -> AsyncIterator[int]:
            for burst in range(3):
                for number in range(8):
                    yield 10 * burst + number
                await trio.sleep(20)

        await Pipeline.from_async_iterable(bursts).map(call, concurrency=8, ordered=ordered).run()
        return started

    assert run_virtual(main) == [(20.0 * burst, 10 * burst + number) for burst in range(3) for number in range(8)]


def test_an_item_that_comes_while_children_fill_the_link_is_taken_at_once() -> None:
    """There is a worker for it. Fault: a worker that waits for room is woken, cannot take it, and calls no other in."""

    async def main() -> list[tuple[float, int]]:
        opened = []

        async def children(item: int) -> AsyncIterator[int]:
            opened.append((trio.current_time(), item))
            for child in range(5):
                yield 10 * item + child
            await trio.sleep(10)

        async def items() -> AsyncIterator[int]:
            yield 0
            await trio.sleep(2)
            yield 1
            await trio.sleep(20)  # or its end would call somebody in

        pipeline = Pipeline.from_async_iterable(items).flat_map(children, concurrency=2).buffer(2)
        async with pipeline.open() as run:
            await trio.sleep(3)
            async for _child in run:
                pass
        return opened

    assert run_virtual(main) == [(0.0, 0), (2.0, 1)]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("capacity", [1, 16])
def test_results_that_go_straight_out_and_those_that_waited_keep_their_order(ordered: bool, capacity: int) -> None:
    """Straight out goes only what has its turn. Fault: it overtakes one that waits, or is skipped by the count."""

    async def call(item: int) -> int:
        if item % 5 == 3:
            raise ValueError(item)
        await trio.sleep(item % 3)
        return item

    async def main() -> list[int]:
        source = Pipeline.from_iterable(range(40))
        mapped = source.map(call, concurrency=4, ordered=ordered, on_error=OnError.skip(max_failures=8))
        return await mapped.buffer(capacity).map(one_step).collect()

    results = run_virtual(main)
    expected = [item for item in range(40) if item % 5 != 3]

    assert (results if ordered else sorted(results)) == expected
