"""Virtual time stands still while a thread, a process or an executor is at work, wherever the work came from.

Each kind of runner gives its results under `run_virtual` and passes the campaigns; a timeout of virtual seconds never
strikes during a call that takes none of them.
"""

import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import anyio.to_process
import anyio.to_thread
import pytest
import trio

from funcpipe_trio import Pipeline, RateLimit, Retry, Step, executor, processes, threads
from funcpipe_trio.testing import (
    cancel_everywhere,
    drain_everywhere,
    explore_schedules,
    fail_everywhere,
    run_virtual,
)


def work(item):
    time.sleep(0.02)
    return item * 2


async def in_a_thread(fn, *args):
    return await trio.to_thread.run_sync(fn, *args, limiter=trio.CapacityLimiter(1))


async def in_a_process(fn, *args):
    return await anyio.to_process.run_sync(fn, *args)


async def in_virtual_time(fn, *args):
    await trio.sleep(3)
    return fn(*args)


@pytest.fixture(scope="module")
def pools():
    with ThreadPoolExecutor(2) as of_threads, ProcessPoolExecutor(2) as of_processes:
        yield {
            "threads": threads(2),
            "threads left behind": threads(2, abandon_on_cancel=True),
            "processes": processes(2),
            "executor of threads": executor(of_threads),
            "executor of processes": executor(of_processes),
            "made executor": executor(lambda: of_threads, limit=1),
            "runner with threads": in_a_thread,
            "runner with processes": in_a_process,
            "runner in virtual time": in_virtual_time,
        }


QUICK = ["threads", "threads left behind", "executor of threads", "executor of processes", "made executor"]
QUICK += ["runner with threads", "runner in virtual time"]
SLOW = ["processes", "runner with processes"]  # each trial starts its own


@pytest.mark.parametrize("kind", [*QUICK, *SLOW])
@pytest.mark.parametrize("policies", ["none", "timeout", "retries, rate"])
def test_every_runner_works_in_virtual_time(kind, policies, pools):
    step = Step(work).on(pools[kind])
    if policies == "timeout":
        step = step.timeout(5)
    elif policies == "retries, rate":
        step = step.retry(Retry(2)).rate_limit(RateLimit(1, burst=1))
    plan = Pipeline.from_iterable(range(3)).map(step, concurrency=2)

    assert run_virtual(plan.collect) == [0, 2, 4]


@pytest.mark.parametrize("kind", QUICK)
@pytest.mark.parametrize(
    "campaign", [cancel_everywhere, drain_everywhere, fail_everywhere], ids=lambda campaign: campaign.__name__
)
def test_every_runner_passes_the_campaigns(kind, campaign, pools):
    """A call that takes long in its thread costs no more steps than one that does not."""
    step = Step(work).on(pools[kind]).timeout(5)

    assert campaign(lambda: Pipeline.from_iterable(range(3)).map(step, concurrency=2)).runs > 4


@pytest.mark.parametrize("kind", SLOW)
def test_processes_pass_the_campaigns(kind, pools):
    """What is under watch is the call, not its function: that goes to the process as it is."""

    def make():
        return Pipeline.from_iterable(range(2)).map(Step(work).on(pools[kind]), concurrency=2)

    assert explore_schedules(make, seeds=range(1)).runs == 1
    assert fail_everywhere(make, every=2).runs == 3
    assert cancel_everywhere(make, only=(0, 4)).runs == 1


async def measured(call):
    """Return what else went on in virtual time while a call was made."""
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await trio.sleep(1)
            ticks += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(tick)
        await trio.sleep(2.5)
        with trio.fail_after(0.25):
            await call()
        nursery.cancel_scope.cancel()
    return ticks, trio.current_time()


async def by_trio():
    await trio.to_thread.run_sync(time.sleep, 0.05)


async def by_anyio():
    await anyio.to_thread.run_sync(time.sleep, 0.05)


async def by_a_path():
    assert await trio.Path(__file__).exists()


@pytest.mark.parametrize("call", [by_trio, by_anyio, by_a_path], ids=lambda call: call.__name__)
def test_time_stands_still_for_any_thread_of_trio(call):
    """Not only for those of a pipeline."""
    assert run_virtual(measured, call) == (2, 2.5)


def test_time_goes_on_while_one_waits_for_a_place():
    """A place among the threads that somebody holds who sleeps comes in virtual time."""

    async def main():
        limiter = trio.CapacityLimiter(1)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def hold():
                async with limiter:
                    await trio.sleep(10)

            await trio.sleep(1)
            await trio.to_thread.run_sync(time.sleep, 0.01, limiter=limiter)
            return trio.current_time()

    assert run_virtual(main) == 10


def test_time_goes_on_for_what_a_thread_asks_for():
    """A thread that sleeps in trio sleeps in virtual time."""

    async def main():
        await trio.to_thread.run_sync(trio.from_thread.run, trio.sleep, 10)
        return trio.current_time()

    assert run_virtual(main) == 10


def test_nothing_is_waited_for_once_a_thread_is_back():
    """If its end were not seen, nothing would happen for too long, and the run be called stuck."""

    async def main():
        for _ in range(200):
            await trio.to_thread.run_sync(int)
            await trio.sleep(1)
        return trio.current_time()

    assert run_virtual(main) == 200


def test_many_short_calls_are_an_answer_each(monkeypatch):
    """However long they take together."""
    monkeypatch.setattr("funcpipe_trio.testing._guard.PATIENCE", 0.5)

    async def main():
        for _ in range(20):
            await trio.to_thread.run_sync(time.sleep, 0.05)
        return "done"

    assert run_virtual(main) == "done"
