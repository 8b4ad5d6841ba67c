"""P14a: a silent inner stream of a `flat_map` delays nobody, and those that wait for room are served in turn.

Mutants that die here: a place of the link kept for a stream that is silent; a child in hand that is lost, or leaves out
of turn; a worker that is woken for each child of another.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import count

import pytest
import trio

from funcpipe_trio import Aborted, OnError, Pipeline, Step
from funcpipe_trio.testing import run_virtual


async def connection(name):
    number = 0
    while True:
        await trio.sleep(0.1 if name == "busy" else math.inf)
        number += 1
        yield name, number


async def called(name):
    return connection(name)


class Connection:
    """An async iterable that is not a generator."""

    def __init__(self, name):
        self.inner = connection(name)

    def __aiter__(self):
        return self

    def __anext__(self):
        return self.inner.__anext__()

    async def aclose(self):
        await self.inner.aclose()


INNER = {
    "async generators": connection,
    "async iterables": Connection,
    "awaited generators": called,
    "a step": Step(called).timeout(5),
    "pipelines": lambda name: Pipeline.from_async_iterable(lambda: connection(name)),
    "pipelines of pipelines": lambda name: Pipeline.from_iterable([name]).flat_map(connection, concurrency=2),
}
BEHIND = {
    "nothing": lambda line: line,
    "a buffer of 1": lambda line: line.buffer(1),
    "a stage": lambda line: line.map(Step.pure(lambda item: item)),
    "a filter": lambda line: line.filter(lambda item: True),
    "a map that takes apart": lambda line: line.flat_map(lambda item: [item, item]).buffer(1),
    "a batch by time": lambda line: line.batch(1, max_delay=9).unbatch(),
    "a branch": lambda line: line.broadcast({"x": lambda branch: branch}),
    "drop_oldest": lambda line: line.buffer(1, overflow="drop_oldest"),
    "fair_by": lambda line: line.fair_by(lambda item: item[0], max_keys=99),
}


@pytest.mark.parametrize("idle", [1, 16, 40])
@pytest.mark.parametrize("behind", BEHIND)
@pytest.mark.parametrize("inner", INNER)
def test_a_silent_one_delays_nobody(inner, behind, idle):
    """The items of the busy one come when it gives them, however many others are silent."""

    async def main():
        names = [f"idle {n}" for n in range(idle)] + ["busy"]
        line = Pipeline.from_iterable(names).flat_map(INNER[inner], concurrency=idle + 1)
        times = []
        async with BEHIND[behind](line).open() as run:
            async for _item in run:
                times.append(trio.current_time())
                if len(times) == 6:
                    break
        return times

    times = run_virtual(main)

    step = 2 if behind == "a map that takes apart" else 1
    assert times == pytest.approx([0.1 * (1 + n // step) for n in range(6)])


@pytest.mark.parametrize("capacity", [1, 2, 7])
@pytest.mark.parametrize("width", [2, 5, 30])
def test_those_that_wait_for_room_are_served_in_turn(width, capacity):
    """Between two children of one stream each other one has its turn: the most and the least served differ by one."""

    async def endless(name):
        for number in count():
            yield name, number

    async def main():
        taken, worst = Counter(), 0
        pipeline = Pipeline.from_iterable(range(width)).buffer(width).flat_map(endless, concurrency=width)
        async with pipeline.buffer(capacity).open() as run:
            await trio.sleep(1)
            for _ in range(capacity + 2 * width):  # what came before all were at work
                await run.receive()
                await trio.sleep(1)
            for _ in range(20 * width):
                name, _number = await run.receive()
                taken[name] += 1
                worst = max(worst, max(taken.values()) - min(taken[each] for each in range(width)))
                await trio.sleep(1)
        return worst

    assert run_virtual(main) <= 1 + capacity // width + 1


@pytest.mark.parametrize("width", [1, 10, 100, 400])
def test_a_child_wakes_no_other_stream(width):
    """Steps of tasks for each child do not grow with the number of streams."""

    class Steps(trio.abc.Instrument):
        taken = 0

        def before_task_step(self, task):
            self.taken += 1

    async def children(_item):
        for number in range(20):
            yield number

    async def main():
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        line = Pipeline.from_iterable(range(width)).flat_map(children, concurrency=width).buffer(4)
        async with line.open() as run:
            async for _item in run:
                await trio.sleep(1)
        return steps.taken / (20 * width)

    assert run_virtual(main) < 4


@pytest.mark.parametrize("how", ["abort", "leave", "take"])
def test_a_child_in_hand_is_told(how):
    """It was made, so it is delivered or discarded, and its item, which is not through, too."""

    async def children(item):
        for number in range(5):
            yield item, number

    async def main():
        told, got = [], []
        line = Pipeline.from_iterable("abc").flat_map(children, concurrency=3).buffer(1)
        async with (line.take(2) if how == "take" else line).open(on_discard=lambda *what: told.append(what)) as run:
            await trio.sleep(1)
            got.append(await run.receive())
            await trio.sleep(1)
            if how == "abort":
                run.abort()
            elif how == "take":
                got += [item async for item in run]
        return run.report, told, got

    report, told, got = run_virtual(main)

    stage = next(stage for stage in report.stages if stage.name == "children")
    assert stage.received + stage.created == stage.emitted + stage.absorbed + stage.discarded
    assert {item for item, _, _ in told if isinstance(item, str)} == {"a", "b", "c"}
    assert len(told) == report.discarded
    assert len(set(map(repr, got + [item for item, _, _ in told]))) == len(got) + len(told)


@pytest.mark.parametrize("policy", [OnError.stop(), OnError.skip(), OnError.emit()])
def test_children_in_hand_come_before_the_failure_of_their_stream(policy):
    """Nothing overtakes them."""

    async def children(item):
        yield item, 0
        yield item, 1
        raise KeyError(item)

    async def main():
        got = []
        try:
            async with (
                Pipeline.from_iterable("ab").flat_map(children, concurrency=2, on_error=policy).buffer(1).open()
            ) as run:
                async for item in run:
                    got.append(item)
                    await trio.sleep(1)
        except (KeyError, Aborted):
            got.append("failed")
        return got

    got = run_virtual(main)

    for name in "ab":
        numbers = [item[1] for item in got if isinstance(item, tuple) and item[0] == name]
        assert numbers == list(range(len(numbers)))
    if policy == OnError.stop():
        assert got[-1] == "failed"
        assert ("a", 1) in got or ("b", 1) in got
    else:
        assert sum(isinstance(item, tuple) for item in got) == 4
