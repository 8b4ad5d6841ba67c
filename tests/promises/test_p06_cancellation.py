"""P6: a cancellation from outside, before any step of any task, ends the run at once, cleanly, and never as complete.

Mutants that die here: an item taken with a checkpoint behind it; a `Cancelled` caught and kept; a worker that finishes
its call; cleanup without a shield; a cancelled run whose end reads as the end of the stream; an interrupt in a group.
"""

import signal
from itertools import product

import pytest
import trio
import trio.lowlevel

from funcpipe_trio import Aborted, FairShare, Pipeline, PlanError, concat, fair_merge, merge, zip_pipelines
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import nap

from ._tasks import Tasks
from ._world import Do, From, Join, Line, World

FEW = From("iterable", 7)
LATER = From("async iterable", 5, delay=0.5, cleanup=0.5)
SENT = From("producer", 5, delay=0.5)
POOL = Do("async map", concurrency=3, delays=(1.0, 0.0, 0.25))
PLANS = {
    "a source": Line(LATER),
    "a pool": Line(FEW, (POOL,)),
    "an unordered pool behind a producer": Line(SENT, (Do("unordered", concurrency=2, delays=(1.0, 0.25)),)),
    "batches": Line(LATER, (Do("timed batch", number=2), Do("async tap", delays=(0.25,)))),
    "a flat_map": Line(FEW, (Do("async flat", number=3, concurrency=2, delays=(0.25, 1.0)), Do("filter", number=2))),
    "a merge of two": Line(Join("fair", (Line(LATER), Line(FEW, (POOL,))), (1, 10), 2), (Do("map"),)),
    "a concat": Line(Join("concat", (Line(From("channel", 3)), Line(SENT), Line(From("channel", 2)))), (POOL,)),
    "a zip of ticks": Line(Join("zip", (Line(From("ticks", 4, delay=1)), Line(LATER))), (Do("batch", number=2),)),
}


async def cancelled_before(world, pipeline, step, end):
    """Run a pipeline in a scope that is cancelled before a step; answer whether it looked complete."""
    tasks = world.tasks
    scope = trio.CancelScope()
    tasks.at, tasks.act = step, scope.cancel
    complete = False
    trio.lowlevel.add_instrument(tasks)
    try:
        with scope:
            if end == "run":
                await pipeline.tap(world.deliver).run(on_discard=world.hear)
            else:
                async with pipeline.open(on_discard=world.hear) as run:
                    try:
                        while True:
                            world.deliver(await run.receive())
                    except trio.EndOfChannel:
                        pass
                world.report = run.report
            complete = True
    finally:
        trio.lowlevel.remove_instrument(tasks)
    return complete, scope.cancel_called


def can_be_run(pipeline):
    try:
        pipeline.check()
    except PlanError:
        return False
    return True


@pytest.mark.parametrize("end", ["open", "run"])
@pytest.mark.parametrize("name", PLANS)
def test_cancelled_before_any_step_it_ends_at_once_and_clean(name, end):
    """P6 with P1 and P7: for each i, cancel before the i-th step of any task."""

    def play(step):
        world = World()
        pipeline = world.plan(PLANS[name])
        with scheduled(Schedule(7)):
            complete, called = run_virtual(cancelled_before, world, pipeline, step, end)
        if name == "a concat" and can_be_run(pipeline):
            world.closed += 2  # cancelled before the run began: it does not own the channels, and they work still
        return world, complete, called

    whole, _, _ = play(-1)

    assert whole.tasks.steps >= 9
    for step in range(whole.tasks.steps):
        world, complete, called = play(step)
        tasks = world.tasks

        assert called, step
        assert tasks.steps - step <= 12 * tasks.spawned + 20, step
        world.check()
        if complete:  # only where all was there already: nothing may be missing
            assert len(world.delivered) == len(whole.delivered), step
            assert len(world.heard) == len(whole.heard), step
        elif world.report is not None:
            assert world.report.outcome == "cancelled", step


def test_whoever_still_reads_from_a_shielded_scope_is_told():
    """A cancelled run does not look like one that ended: the reader gets `Aborted`, not the end of the stream."""

    async def main():
        met = None
        with trio.CancelScope() as outside:
            async with Pipeline.from_iterable(range(100)).map(nap, concurrency=2).open() as run:
                outside.cancel()
                with trio.CancelScope(shield=True):
                    with pytest.raises(Aborted, match=r"^the run was cancelled$") as caught:
                        async for _ in run:
                            pass
                    met = caught.value
        return met, run.report.outcome

    met, outcome = run_virtual(main)
    assert outcome == "cancelled"
    assert "cancelled" in str(met)


def test_user_code_that_turns_its_cancellation_into_an_error_does_not_hide_it():
    """The error is kept in the report; the run is cancelled, not failed."""

    async def stubborn(item):
        try:
            await trio.sleep(10)
        finally:
            raise ValueError(item)

    async def main():
        with trio.move_on_after(1) as scope:
            async with Pipeline.from_iterable(range(3)).map(stubborn, concurrency=3).open() as run:
                await run.receive()
        return scope.cancelled_caught, run.report

    caught, report = run_virtual(main)
    assert caught
    assert report.outcome == "cancelled"
    assert sorted(str(error) for error in (report.error, *report.cleanup_errors) if error) == ["0", "1", "2"]


# ---- KeyboardInterrupt and its like


def raising(kind):
    async def fn(item):
        await trio.sleep(1)
        if item == 2:
            raise kind("pressed")
        return item

    return fn


def raising_sync(kind):
    def fn(item):
        if item == 2:
            raise kind("pressed")
        return item

    return fn


def raising_source(kind):
    def source():
        yield 1
        raise kind("pressed")

    return source


def raising_async_source(kind):
    async def source():
        yield 1
        raise kind("pressed")

    return source


def raising_producer(kind):
    async def produce(send):
        await send.send(1)
        raise kind("pressed")

    return produce


NUMBERS = Pipeline.from_iterable(range(9))
KILLED = {
    "a pool": lambda kind: NUMBERS.map(raising(kind), concurrency=2),
    "a stage": lambda kind: NUMBERS.map(raising_sync(kind)),
    "a source": lambda kind: Pipeline.from_iterable(raising_source(kind)),
    "an async source": lambda kind: Pipeline.from_async_iterable(raising_async_source(kind)),
    "a producer": lambda kind: Pipeline.from_producer(raising_producer(kind)),
    "a merge": lambda kind: merge(NUMBERS.map(raising(kind)), NUMBERS.map(nap)),
    "a merge's cost": lambda kind: fair_merge({"a": NUMBERS}, FairShare(cost=lambda x: raising_sync(kind)(x) + 1)),
    "a concat": lambda kind: concat(NUMBERS.map(raising(kind)), NUMBERS),
    "a zip": lambda kind: zip_pipelines(NUMBERS.map(raising(kind)), NUMBERS),
    "a flat_map": lambda kind: NUMBERS.flat_map(lambda item: [raising_sync(kind)(item)]),
}


BODIES = ["waits", "iterates", "raises", "run"]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize(
    ("place", "body"),
    # A cost is asked in the task of the consumer, so there the body itself is interrupted: nothing to wait for or hide.
    [pair for pair in product(KILLED, BODIES) if pair not in product(["a merge's cost"], ["waits", "raises"])],
)
def test_an_interrupt_arrives_once_and_bare(place, body, kind):
    """KeyboardInterrupt and SystemExit from anywhere: not in a group, and no other exception in their place."""

    async def main():
        if body == "run":
            await KILLED[place](kind).run()
            return
        async with KILLED[place](kind).open() as run:
            if body == "waits":
                await run.receive()
                await trio.sleep_forever()
            if body == "iterates":
                async for _ in run:
                    pass
            if body == "raises":
                try:
                    async for _ in run:
                        pass
                finally:
                    raise ValueError("the body's")

    async def caught():
        with pytest.raises(kind, match=r"^pressed$"):
            await main()

    run_virtual(caught)


def test_control_c_arrives_once_and_everything_is_closed(interrupts):
    """The signal itself: it is raised in the main task, or in user code, and leaves the block bare."""
    closed = []

    async def source():
        try:
            for number in range(10**6):
                yield number
                await trio.lowlevel.checkpoint()
        finally:
            closed.append("source")

    async def press(item):
        await trio.lowlevel.checkpoint()
        if item == 20:
            signal.raise_signal(signal.SIGINT)
        return item

    async def main():
        told = []
        with pytest.raises(KeyboardInterrupt):
            async with (
                Pipeline.from_async_iterable(source).map(press).open(on_discard=lambda *w: told.append(w)) as run
            ):
                async for _ in run:
                    pass
        return run.report, told

    report, told = run_virtual(main)
    assert closed == ["source"]
    assert report.taken == report.delivered + report.failed + report.discarded
    assert report.discarded == len(told)


def test_tasks_are_counted_right():
    """The instrument of these tests sees the steps it claims to see."""
    tasks = Tasks()

    async def main():
        trio.lowlevel.add_instrument(tasks)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 1)
        trio.lowlevel.remove_instrument(tasks)

    run_virtual(main)
    assert (tasks.live, tasks.spawned) == (0, 1)
    assert [steps for name, steps in tasks.by_name.items() if name.endswith("sleep")] == [2]
