"""P17: every public async function is a checkpoint; nothing global is used or left; the same seed, the same trace.

Mutants that die here: a `receive` that returns at once when there is an item; an early return without a checkpoint; a
module that starts something when imported; `random`, `time.time` or `id()` in a decision.
"""

import importlib
import random
import subprocess
import sys

import pytest
import trio
from trio.testing import assert_checkpoints

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    FairChannel,
    FairShare,
    Pipeline,
    RateLimit,
    RateLimiter,
    Retry,
    Step,
    fair_merge,
    gather,
)
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

from ._tasks import Tasks

FEW = Pipeline.from_iterable(range(3))


def fails(item):
    raise KeyError(item)


async def raising(call, error):
    with pytest.raises(error):
        await call


async def quick(item):
    return item


STEP = (
    Step(quick)
    .rate_limit(RateLimit(1, burst=9))
    .timeout(1)
    .retry(Retry(2, backoff=Backoff(0)))
    .circuit_breaker(CircuitBreaker())
)

ENDINGS = {
    "run": lambda: FEW.run(),
    "collect": lambda: FEW.collect(),
    "collect of nothing": lambda: FEW.take(0).collect(),
    "first": lambda: FEW.first(),
    "first of nothing": lambda: raising(FEW.take(0).first(), LookupError),
    "fold": lambda: FEW.fold(max, 0),
    "count": lambda: FEW.count(),
    "run that fails": lambda: raising(FEW.map(fails).run(), KeyError),
    "collect that fails": lambda: raising(FEW.map(fails).collect(), KeyError),
    "a step": lambda: STEP(1),
    "a step that was started": lambda: STEP.start()(1),
    "a step that fails": lambda: raising(Step.pure(fails)(1), KeyError),
    "gather": lambda: gather(STEP, range(3), concurrency=2),
    "gather of nothing": lambda: gather(STEP, [], concurrency=2),
    "gather that fails": lambda: raising(gather(Step.pure(fails), range(3), concurrency=2), KeyError),
    "a limiter with tokens": lambda: RateLimiter(RateLimit(1)).acquire(),
    "a plan that cannot work": lambda: raising(FEW.map(str, concurrency=2).run(), ValueError),
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_is_a_checkpoint(ending):
    """P17, also when it raises, and when the stream is empty."""

    async def main():
        with assert_checkpoints():
            await ENDINGS[ending]()

    run_virtual(main)


def test_every_method_of_a_run_is_a_checkpoint():
    """`receive` with an item, at the end, after a failure, an abort, and leaving; `drain`, `aclose`."""

    async def main():
        with assert_checkpoints():
            opening = FEW.open()
            running = await opening.__aenter__()
        try:
            for _ in range(3):
                with assert_checkpoints():
                    await running.receive()
            for _ in range(2):
                with assert_checkpoints(), pytest.raises(trio.EndOfChannel):
                    await running.receive()
            with assert_checkpoints():
                await running.drain()
            with assert_checkpoints():
                await running.aclose()
            with assert_checkpoints(), pytest.raises(trio.ClosedResourceError, match="block of this run was left"):
                await running.receive()
        finally:
            await opening.__aexit__(None, None, None)
        async with FEW.map(fails).open() as running:
            for _ in range(2):
                with assert_checkpoints(), pytest.raises(KeyError):
                    await running.receive()
            with assert_checkpoints(), pytest.raises(KeyError):
                await running.__anext__()
        async with FEW.open() as running:
            await trio.testing.wait_all_tasks_blocked()
            running.abort()
            with assert_checkpoints(), pytest.raises(Exception, match=r"^the run was aborted$"):
                await running.receive()
            with assert_checkpoints():
                await running.drain()

    run_virtual(main)


def test_iterating_is_a_checkpoint_once_in_64_items():
    """P17: `async for item in run` with all items there."""

    async def main():
        worst, last, tasks = 0, 0, Tasks()
        async with Pipeline.from_iterable(range(1000)).buffer(1000).open() as running:
            await trio.testing.wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(tasks)
            seen = -1
            async for item in running:
                if tasks.steps != seen:
                    worst, last, seen = max(worst, item - last), item, tasks.steps
            trio.lowlevel.remove_instrument(tasks)
        return max(worst, 999 - last)

    assert run_virtual(main) <= 64


def test_the_channel_checkpoints_in_every_method():
    """P17 for `FairChannel`: send, receive, with and without waiting, closed."""

    async def main():
        channel = FairChannel()
        send = channel.open_input("a")
        with assert_checkpoints():
            await send.send(1)
        with assert_checkpoints():
            await channel.receive()
        with assert_checkpoints():
            await send.aclose()
        with assert_checkpoints(), pytest.raises(trio.EndOfChannel):
            await channel.receive()
        with assert_checkpoints():
            await channel.aclose()
        with assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await channel.receive()
        with assert_checkpoints(), pytest.raises(trio.ClosedResourceError):
            await send.send(2)

    run_virtual(main)


def test_importing_it_does_nothing():
    """No thread, no patch of trio, no warning, no output; random numbers and the clock are untouched."""
    code = """
import random, sys, threading, trio
hooks, state = sys.getswitchinterval(), random.getstate()
names = {name: getattr(trio, name) for name in dir(trio)}
import funcpipe_trio
assert random.getstate() == state
assert threading.active_count() == 1
assert all(getattr(trio, name) is value for name, value in names.items())
assert "hypothesis" not in sys.modules and "pytest" not in sys.modules
"""
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def traced(seed):
    """Every step of every task, and every item with its time, of one run."""
    steps, items, failed = [], [], set()

    class Steps(trio.abc.Instrument):
        def before_task_step(self, task):
            steps.append(task.name)

    async def call(item):
        await trio.sleep(item % 3)
        if item % 7 == 1 and item not in failed:
            failed.add(item)
            raise OSError(item)
        return item

    async def main():
        trio.lowlevel.add_instrument(Steps())
        limited = Step(call).rate_limit(RateLimiter(RateLimit(7, burst=3))).timeout(99).retry(Retry(4))
        inputs = {key: Pipeline.from_iterable(range(key, 60)).map(limited, concurrency=3) for key in range(3)}
        async with fair_merge(inputs, FairShare({1: 3})).batch(4, max_delay=1).open() as running:
            async for item in running:
                items.append((trio.current_time(), item))

    with scheduled(Schedule(seed)):
        run_virtual(main)
    return steps, items


def test_the_same_seed_gives_the_same_trace(monkeypatch):
    """P17, P17a: all steps of all tasks, with items and times, whatever the state of `random` and of the machine is.

    Real time goes in leaps here, others in each run: between any two looks a slice may be over. Kills the mutant that
    ends slices by real time under a clock that is not trio's own.
    """
    leaps = random.Random()
    importlib.import_module("funcpipe_trio._runtime.operations.again")  # loaded only where there is a loop
    modules = [each for name, each in sys.modules.items() if name.startswith("funcpipe_trio._runtime.")]
    looking = [each for each in modules if hasattr(each, "perf_counter")]
    assert {each.__name__.rpartition(".")[2] for each in looking} == {"turn", "chain", "again"}
    for module in looking:
        monkeypatch.setattr(module, "perf_counter", lambda: leaps.choice([0.0, 1e3, 1e6]) * leaps.random())
    random.seed(1)
    first = traced(5)
    random.seed(2)

    assert traced(5) == first
    assert traced(6)[0] != first[0]


def test_the_state_of_random_is_not_touched():
    """No global random numbers are drawn."""
    random.seed(3)
    state = random.getstate()
    traced(5)

    assert random.getstate() == state


def test_no_task_of_a_run_is_a_system_task():
    """P17: every task it starts lives in the nursery of its block."""
    system = []

    class Spawned(trio.abc.Instrument):
        def task_spawned(self, task):
            nursery = task.parent_nursery
            if nursery is not None and nursery.parent_task is trio.lowlevel.current_root_task():
                system.append(task.name)

    async def produce(send):
        await send.send(1)

    async def main():
        trio.lowlevel.add_instrument(Spawned())
        await fair_merge({1: FEW, 2: Pipeline.from_producer(produce)}).batch(2, max_delay=1).collect()

    run_virtual(main)
    assert system == []
