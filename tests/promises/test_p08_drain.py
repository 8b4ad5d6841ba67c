"""P8: a drain stops the taking and nothing else: all that was handed over is delivered, then the stream ends.

Mutants that die here: a drain that cancels the stages; that waits for a source which does not come; that lets a concat
begin its next part; that forgets an item between the source and its link; a grace that discards silently.
"""

import gc
import math
import re
import weakref

import pytest
import trio

from funcpipe_trio import FairShare, Pipeline, StateError, concat, fair_merge, merge
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import endless, nap


async def collect(run, items):
    async for item in run:
        items.append(item)


async def drained_at(pipeline, at, grace=math.inf, told=None):
    """Drain at a time, from another task than the consumer's; answer the items, the report, and when drain returned."""
    items = []
    on_discard = None if told is None else lambda *what: told.append(what)
    async with pipeline.open(on_discard=on_discard) as run, trio.open_nursery() as nursery:
        nursery.start_soon(collect, run, items)
        await trio.sleep(at)
        await run.drain(grace)
        returned = trio.current_time()
    return items, run.report, returned


def counting(taken):
    """A source without an end that notes what it handed over."""

    async def source():
        for number in range(10**6):
            await trio.sleep(0.25)
            taken.append(number)
            yield number

    return Pipeline.from_async_iterable(source)


SHAPES = {
    "alone": lambda p: p,
    "a pool": lambda p: p.map(nap, concurrency=3),
    "an unordered pool": lambda p: p.map(nap, concurrency=3, ordered=False),
    "batches": lambda p: p.batch(10, max_delay=100).unbatch(),
    "a fused batch": lambda p: p.batch(7).unbatch(),
    "stages": lambda p: p.map(nap).buffer(1).map(nap),
    "a merge": lambda p: merge(p),
    "weights": lambda p: fair_merge({"a": p, "b": Pipeline.from_iterable([])}, FairShare({"a": 5}, capacity=2)),
    "a concat": lambda p: concat(p, Pipeline.from_iterable(["never"])),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("at", [0, 0.25, 1, 3.1])
def test_everything_that_was_taken_is_delivered(shape, at):
    """P8: the drain returns when the run has ended; taken = delivered, in order of the source when sorted."""
    taken = []
    items, report, returned = run_virtual(drained_at, SHAPES[shape](counting(taken)), at)

    assert sorted(items) == taken
    assert report.outcome == "drained"
    assert (report.taken, report.discarded) == (len(taken), 0)
    assert returned - at <= 2 * len(taken) + 1


@pytest.mark.parametrize("kind", ["iterable", "async", "producer", "channel", "ticks"])
def test_a_source_that_is_being_waited_for_does_not_hold_up_a_drain(kind):
    """The source is inside `__anext__`, `send` or `receive` for 1000 s more; the drain ends the run at once."""

    async def silent():
        yield 1
        await trio.sleep(1000)
        yield 2

    async def produce(send):
        await send.send(1)
        await trio.sleep(1000)
        await send.send(2)

    send, receive = trio.open_memory_channel(5)
    send.send_nowait(1)
    source = {
        "iterable": lambda: Pipeline.from_iterable([1]).map(nap),
        "async": lambda: Pipeline.from_async_iterable(silent),
        "producer": lambda: Pipeline.from_producer(produce),
        "channel": lambda: Pipeline.from_channel(receive),
        "ticks": lambda: Pipeline.ticks(1000).map(lambda number: number + 1),
    }[kind]()
    items, report, returned = run_virtual(drained_at, source, 5)

    assert items == [1]
    assert returned == 5
    assert report.outcome == ("completed" if kind == "iterable" else "drained")


def test_a_drain_hears_a_source_that_never_waits():
    """An async iterator with no checkpoint in it: the drain still stops the taking."""

    async def main():
        items = []
        async with Pipeline.from_async_iterable(endless).open() as run:
            for _ in range(40):
                items.append(await run.receive())
            run.drain_nowait()
            with trio.fail_after(100):
                async for item in run:
                    items.append(item)
        return items, run.report

    items, report = run_virtual(main)
    assert items == list(range(len(items)))
    assert (report.outcome, report.taken, report.discarded) == ("drained", len(items), 0)


def test_drain_nowait_in_the_task_of_the_consumer():
    """It returns at once; what was taken comes, then the end; a second call is harmless."""

    async def main():
        taken = []
        async with counting(taken).map(nap, concurrency=2).open() as run:
            items = [await run.receive()]
            run.drain_nowait()
            handed_over = list(taken)
            run.drain_nowait()
            items += [item async for item in run]
        return items, handed_over, taken, run.report

    items, handed_over, taken, report = run_virtual(main)
    assert items == handed_over == taken
    assert report.outcome == "drained"


def test_a_drain_in_the_middle_of_a_concat_begins_no_further_part():
    """The part that runs is finished, the next is never opened."""
    begun = []

    def later():
        begun.append("later")
        return [1]

    taken = []
    items, report, _ = run_virtual(drained_at, concat(counting(taken), Pipeline.from_iterable(later)), 2)

    assert items == taken
    assert begun == []
    assert report.outcome == "drained"


def test_a_drain_finishes_a_flat_map_that_is_expanding():
    """The item was taken before the drain, so all its children come."""

    async def children(item):
        for number in range(5):
            await trio.sleep(1)
            yield item, number

    taken = []
    pipeline = counting(taken).flat_map(children, concurrency=2)
    items, report, _ = run_virtual(drained_at, pipeline, 1.5)

    assert sorted(items) == [(item, number) for item in taken for number in range(5)]
    assert report.discarded == 0


@pytest.mark.parametrize("grace", [0, 0.5, 2.5])
def test_a_grace_that_is_over_discards_the_rest_and_says_so(grace):
    """It takes as long as the grace; delivered and discarded together are all that was taken."""
    told, taken = [], []
    pipeline = counting(taken).map(nap)
    items, report, returned = run_virtual(drained_at, pipeline, 3, grace, told)

    assert returned == 3 + grace
    assert report.outcome == "drained"
    assert items + sorted(item for item, _stage, _reason in told) == taken
    assert {reason for _item, _stage, reason in told} == {"grace period over"}


def test_a_grace_with_a_source_that_hangs_in_its_cleanup_takes_the_grace_and_the_limit():
    """P8 with P9: at most t plus the cleanup limit."""

    async def hangs():
        try:
            yield 1
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)

    async def main():
        async with Pipeline.from_async_iterable(hangs).open(cleanup_timeout=4) as run:
            await trio.sleep(1)
            await run.drain(grace=2)
            return trio.current_time(), run.report.outcome

    assert run_virtual(main) == (4, "drained")


def test_a_failure_during_a_drain_is_the_failure():
    """A drain does not hide what goes wrong on the way."""

    async def fails(item):
        await trio.sleep(1)
        if item == 2:
            raise KeyError(item)
        return item

    async def main():
        items, taken = [], []
        async with counting(taken).map(fails).open() as run:
            await trio.sleep(2)
            run.drain_nowait()
            with pytest.raises(KeyError, match=r"^2\n"):
                await collect(run, items)
        return items, run.report.outcome

    assert run_virtual(main) == ([0, 1], "failed")


def test_a_drain_of_a_run_that_has_ended_returns():
    """From any state: complete, failed, aborted."""

    async def main():
        async with Pipeline.from_iterable([1]).open() as run:
            await run.receive()
            with pytest.raises(trio.EndOfChannel):
                await run.receive()
            await run.drain()
        async with Pipeline.from_iterable(range(100)).open() as run:
            run.abort()
            await run.drain()
        return trio.current_time(), run.report.outcome

    assert run_virtual(main) == (0, "aborted")


def test_a_cancelled_drain_goes_on_draining():
    """`drain` may be given up by its caller; the run ends all the same when the rest was received."""

    async def main():
        taken, items = [], []
        async with counting(taken).open() as run:
            await trio.sleep(1.1)
            with trio.move_on_after(1) as scope:
                await run.drain()
            await collect(run, items)
        return scope.cancelled_caught, items, taken

    caught, items, taken = run_virtual(main)
    assert caught
    assert items == taken == [0, 1, 2, 3]


def test_a_grace_must_be_a_number_of_seconds():
    """P19 for `drain`."""

    async def main():
        async with Pipeline.from_iterable([1]).open() as run:
            with pytest.raises(ValueError, match=re.escape("Run.drain: grace must be")):
                await run.drain(-1)
            with pytest.raises(TypeError, match=re.escape("Run.drain: grace must be")):
                await run.drain("1")
            return await run.receive()

    assert run_virtual(main) == 1


def test_who_would_wait_for_itself_is_told_so():
    """The only task that takes items, and a function of the run: both would wait without end."""

    async def call(item, runs):
        await runs[0].drain()

    async def main():
        said, runs = [], []
        async with Pipeline.from_iterable(range(9)).open() as run:
            async for item in run:
                if item == 2:
                    with pytest.raises(StateError, match="the task that takes its items") as caught:
                        await run.drain()
                    said.append(str(caught.value))
                    await run.drain(grace=1)  # this ends
        async with Pipeline.from_iterable(range(9)).map(lambda item: call(item, runs), concurrency=1).open() as run:
            runs.append(run)
            with pytest.raises(StateError, match="a function of this run"):
                await run.receive()
        async with Pipeline.from_iterable(range(9)).open() as run, trio.open_nursery() as nursery:
            nursery.start_soon(run.drain)  # another task waits
            async for _item in run:
                pass
        return said

    (said,) = run_virtual(main)

    assert said.endswith("\nUse drain_nowait(), and go on.")


@pytest.mark.parametrize("seed", range(20))
def test_who_hands_over_the_rest_may_wait_for_it(seed):
    """Another task was started to take it, and has not come to that yet; in every order of tasks."""

    async def rest(run, got):
        async for item in run:
            got.append(item)

    async def main():
        got = []
        async with Pipeline.from_iterable(range(9)).buffer(1).open() as run, trio.open_nursery() as nursery:
            async for item in run:
                got.append(item)
                break
            nursery.start_soon(rest, run, got)
            await run.drain()
        return got

    with scheduled(Schedule(seed)):
        got = run_virtual(main)

    assert got == list(range(len(got)))
    assert got


def test_a_run_keeps_no_task_that_took_items():
    """One that serves for days is iterated by any number of them."""

    async def take_one(run, tasks):
        tasks.append(weakref.ref(trio.lowlevel.current_task()))
        async for _item in run:
            return

    async def main():
        tasks = []
        async with Pipeline.from_iterable(range(9)).open() as run:
            for _ in range(5):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(take_one, run, tasks)
            gc.collect()
            return [task() for task in tasks]

    assert run_virtual(main) == [None] * 5
