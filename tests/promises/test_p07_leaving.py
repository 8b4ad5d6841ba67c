"""P7: leaving the block, in whatever way, closes every source once, in the task that opened it, before the block ends.

Mutants that die here: a source closed by the task that left; a source closed twice (at its end, and when left); a
channel in a part of the plan that never ran, left open; a body's exception wrapped in a group, or lost to a source's.
"""

import contextlib
import subprocess
import sys
from contextlib import aclosing

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import Pipeline, RateLimit, concat, fair_merge, merge, zip_pipelines
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, nap

from ._world import End, Mine, World, lines

WAYS = ("break", "return", "raise", "aclose", "cancel")


class Source:
    """Notes who opens and closes it, and when."""

    def __init__(self, cleanup=0):
        self.notes = []
        self.cleanup = cleanup

    def note(self, what):
        self.notes.append((what, trio.lowlevel.current_task().name, trio.current_time()))

    async def __call__(self):
        self.note("opened")
        try:
            for number in range(10**6):
                yield number
                await trio.lowlevel.checkpoint()
        finally:
            if self.cleanup:
                with trio.CancelScope(shield=True):
                    await trio.sleep(self.cleanup)
            self.note("closed")

    def sync(self):
        self.note("opened")
        try:
            yield from range(10**6)
        finally:
            self.note("closed")


async def leave(pipeline, way):
    """Take three items and leave the block in one of the ways."""
    with trio.CancelScope() as scope:
        async with pipeline.open() as run:
            for _ in range(3):
                await run.receive()
            if way == "return":
                return
            if way == "raise":
                raise Mine
            if way == "aclose":
                await run.aclose()
            if way == "cancel":
                scope.cancel()
                await trio.lowlevel.checkpoint()
            if way == "break":
                async for _ in run:
                    break


SHAPES = {
    "alone": lambda p: p,
    "before a pool": lambda p: p.map(nap, concurrency=3),
    "before a batch": lambda p: p.batch(2, max_delay=1),
    "before a throttle": lambda p: p.throttle(RateLimit(9)),
    "merged": lambda p: merge(p, Pipeline.from_iterable(range(9))),
    "by weight": lambda p: fair_merge({"a": p}),
    "first of a concat": lambda p: concat(p, Pipeline.from_iterable(range(9))),
    "second of a concat": lambda p: concat(Pipeline.from_iterable([1]), p),
    "zipped": lambda p: zip_pipelines(p, Pipeline.from_iterable(range(9))),
    "enough": lambda p: p.take(4),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_source_is_closed_once_by_the_task_that_opened_it(way, shape, kind):
    """P7, for every way to leave."""
    source = Source(cleanup=3)

    async def main():
        origin = (
            Pipeline.from_async_iterable(source, name="source")
            if kind == "async"
            else Pipeline.from_iterable(source.sync, name="source")
        )
        try:
            await leave(SHAPES[shape](origin), way)
        except Mine:
            source.note("left")
        else:
            source.note("left")

    run_virtual(main)
    (opened, opener, _), (closed, closer, closing), (left, _, leaving) = source.notes

    assert (opened, closed, left) == ("opened", "closed", "left")
    assert opener == closer
    assert closing <= leaving


@pytest.mark.parametrize("way", WAYS)
def test_a_channel_of_a_part_that_never_ran_is_closed_too(way):
    """The run owns a channel: a sender must learn that nothing will be taken, even if nothing was asked for."""

    async def main():
        send, receive = trio.open_memory_channel(0)
        first = Pipeline.from_iterable(range(10**6))
        nested = merge(Pipeline.from_channel(receive), Pipeline.from_iterable([1])).map(nap)
        with contextlib.suppress(Mine):
            await leave(concat(first, nested.batch(2)), way)
        with pytest.raises(trio.BrokenResourceError):
            await send.send("too late")

    run_virtual(main)


def test_a_drain_closes_the_channel_of_a_part_that_will_not_run():
    """As above, for a drain: nothing is taken from the later input of a concat, and nobody waits at it."""

    async def main():
        send, receive = trio.open_memory_channel(0)
        async with concat(Pipeline.from_iterable(range(100)), Pipeline.from_channel(receive)).open() as run:
            run.drain_nowait()
            taken = [item async for item in run]
            with pytest.raises(trio.BrokenResourceError):
                await send.send("too late")
            return taken, run.report.outcome

    taken, outcome = run_virtual(main)
    assert taken == list(range(len(taken)))
    assert outcome == "drained"


@pytest.mark.parametrize(
    "error",
    [Mine(), ExceptionGroup("mine", [Mine(), Mine()]), StopIteration(1), trio.EndOfChannel(), KeyError("mine")],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("where", ["nowhere", "source", "function", "cleanup"])
def test_the_exception_of_the_body_passes_unchanged(error, where):
    """The same object, in no group and without a cause of ours, whatever else goes wrong in the run."""

    async def items():
        try:
            for number in range(10):
                yield number
            if where == "source":
                raise Boom
            await trio.sleep_forever()
        finally:
            if where == "cleanup":
                raise Boom

    def same(item):
        if where == "function" and item == 5:
            raise Boom
        return item

    async def main():
        with pytest.raises(type(error)) as caught:  # here: a StopIteration may not leave a coroutine at all
            async with Pipeline.from_async_iterable(items).map(same).open() as run:
                await run.receive()
                await trio.sleep(1)
                raise error
        return caught.value

    assert run_virtual(main) is error
    assert error.__cause__ is None
    assert getattr(error, "__notes__", []) == []


def test_receive_after_the_block_was_left_says_so():
    """The handle of a run that is over gives nothing silently."""

    async def main():
        async with Pipeline.from_iterable(range(3)).open() as run:
            await run.receive()
        with pytest.raises(trio.ClosedResourceError, match=r"^the block of this run was left$"):
            await run.receive()

    run_virtual(main)


@settings(max_examples=100, deadline=None)
@given(line=lines(), after=st.integers(0, 30), kind=st.sampled_from(["break", "raise", "aclose"]), seed=st.integers())
def test_every_source_of_any_plan_is_closed_when_it_is_left_anywhere(line, after, kind, seed):
    """P7 over random plans, left after any item; channels of parts that never ran included."""
    world = World()
    world.play(world.plan(line), End(kind, after=after), seed)

    world.check_closed()


# ---- in another task


def test_a_run_that_is_left_in_another_task_says_so_and_ends():
    """An async generator around it, given up by `break`, is closed by trio in a task of its own: never a hang."""
    program = """
import trio
from funcpipe_trio import Pipeline, merge

async def up():
    number = 0
    while True:
        await trio.sleep(0.01)
        yield number
        number += 1

async def results():
    async with merge(Pipeline.from_async_iterable(up)).open() as run:
        async for item in run:
            yield item

async def main():
    async for item in results():
        if item == 2:
            break
    await trio.sleep(0.1)
    print("goes on")

trio.run(main)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert "goes on" in done.stdout
    assert "a run was left in another task than the one that opened it" in done.stderr
    assert "Use `async with contextlib.aclosing(...)`" in done.stderr


def test_closed_where_it_was_opened_it_ends_in_silence():
    """As the message says: `aclosing` closes the generator in the task that iterates it."""

    async def results():
        async with Pipeline.from_iterable(range(9)).open() as run:
            async for item in run:
                yield item

    async def main():
        async with aclosing(results()) as items:
            async for item in items:
                if item == 2:
                    break
        return item

    assert run_virtual(main) == 2


def test_left_by_hand_in_another_task_it_stops_its_tasks():
    """It raises at once, and nothing of the run is at work afterwards."""
    closed = []

    async def source():
        try:
            while True:
                await trio.sleep(1)
                yield 1
        finally:
            closed.append(trio.current_time())

    async def leave(manager):
        with pytest.raises(RuntimeError, match="in another task than the one that opened it"):
            await manager.__aexit__(None, None, None)

    async def main():
        manager = Pipeline.from_async_iterable(source).open()
        await manager.__aenter__()
        await trio.sleep(0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave, manager)
        await trio.sleep(1)
        assert closed == [0.5]
        await manager.__aexit__(None, None, None)  # in the right one

    run_virtual(main)
