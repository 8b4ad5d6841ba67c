"""The state of a run, as a value to be waited for; and what other threads may ask.

Mutants that die here: an outcome that is told while tasks still end; a pause that is not told; a state that is told
only to those who asked before; a snapshot taken in the middle of a step by another thread.
"""

import contextlib
import threading

import pytest
import trio
import trio.testing
import trio_util

from funcpipe_trio import Aborted, Pipeline
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, nap


async def watch(run, seen):
    """Write down every state that the run goes through."""
    async for state in run.state.eventual_values():
        seen.append((state, trio.current_time()))


async def slow_end():
    try:
        for item in range(100):
            yield item
            await trio.sleep(1)
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep(3)


async def fail(item):
    raise Boom


def states(plan, act):
    """Return the states of a run, with their times."""
    seen = []

    async def main():
        async with trio.open_nursery() as nursery:
            try:
                async with plan.open() as run:
                    nursery.start_soon(watch, run, seen)
                    await trio.testing.wait_all_tasks_blocked()
                    await act(run)
            except (Boom, Aborted):
                pass
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

    run_virtual(main)
    return seen


async def take(run):
    async for _item in run:
        pass


async def pause(run):
    run.pause()
    await trio.sleep(2)
    run.resume()
    await trio.sleep(1)  # who watches is told the last of several states of one instant
    await take(run)


async def drain(run):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(take, run)
        await trio.sleep(2.5)
        run.drain_nowait()


async def abort(run):
    await run.receive()
    run.abort()
    await run.receive()


async def leave(run):
    await run.receive()


SOURCE = Pipeline.from_async_iterable(slow_end)
ENDS = {
    "completed": (SOURCE.take(2), take, [("running", 0), ("completed", 4)]),
    "paused": (Pipeline.from_iterable("ab"), pause, [("running", 0), ("paused", 0), ("running", 2), ("completed", 3)]),
    "drained": (SOURCE, drain, [("running", 0), ("draining", 2.5), ("drained", 5.5)]),
    "aborted": (SOURCE, abort, [("running", 0), ("aborted", 3)]),
    "left": (SOURCE, leave, [("running", 0), ("left", 3)]),
    "failed": (SOURCE.map(fail), take, [("running", 0), ("failed", 3)]),
}


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", ENDS)
def test_a_state_is_told_when_it_is_so(name, seed):
    """An outcome, when the last task has ended: the source takes three seconds for that."""
    plan, act, expected = ENDS[name]

    with scheduled(Schedule(seed)):
        assert states(plan, act) == expected


def test_the_end_can_be_waited_for():
    """As by a server that is to stop when its run is drained."""

    async def main():
        async with SOURCE.open() as run, trio.open_nursery() as nursery:
            nursery.start_soon(take, run)
            await trio.sleep(1)
            run.drain_nowait()
            state = await run.state.wait_value("drained")
            return state, trio.current_time(), isinstance(run.state, trio_util.AsyncValue)

    assert run_virtual(main) == ("drained", 4, True)


def test_who_asks_late_is_told_what_is():
    async def main():
        async with Pipeline.from_iterable("ab").open() as run:
            await take(run)
        return run.state.value

    assert run_virtual(main) == "completed"


@pytest.mark.parametrize("act", [take, pause, drain, abort], ids=lambda act: act.__name__)
def test_an_error_of_a_predicate_stops_nothing(act):
    """It is asked whenever the state changes, in the middle of what the run does; the error is in the report."""
    odd = Boom("of the predicate")

    def broken(_state):
        if done.is_set():
            raise odd
        return False

    done = trio.Event()

    async def main():
        async with trio.open_nursery() as nursery:
            with contextlib.suppress(Aborted):
                async with SOURCE.take(5).open() as run:
                    nursery.start_soon(run.state.wait_value, broken)
                    await trio.testing.wait_all_tasks_blocked()
                    done.set()
                    await act(run)
            nursery.cancel_scope.cancel()
        return run.report

    report = run_virtual(main)

    assert report.outcome in ("completed", "drained", "aborted")
    assert odd in report.cleanup_errors
    assert report.discarded + report.delivered + report.dropped == report.taken


# ---- other threads


@pytest.mark.parametrize("ask", [lambda run: run.statistics(), lambda run: run.report], ids=["statistics", "report"])
def test_any_thread_may_ask(ask):
    """While the run is at work, in a thread of trio's and in one of the user's own; and when all is over."""
    seen, own = [], []

    async def main():
        async with Pipeline.from_iterable(range(5)).map(nap).open() as run:
            seen.append(await trio.to_thread.run_sync(ask, run))
            thread = threading.Thread(target=lambda: own.append(ask(run)))
            thread.start()
            while thread.is_alive():
                await trio.lowlevel.checkpoint()
            seen.append(await run.receive())
            return run

    run = trio.run(main)
    thread = threading.Thread(target=lambda: own.append(ask(run)))
    thread.start()
    thread.join()

    assert [each.delivered for each in own] == [0, 1]
    assert (seen[0].delivered, seen[1]) == (0, 0)


def test_an_error_comes_back_to_the_thread_that_asked():
    """Whatever it is: nothing hangs."""

    async def main():
        async with Pipeline.from_iterable(range(5)).open() as run:
            with pytest.raises(Boom):
                await trio.to_thread.run_sync(run._engine.look, broken)

    def broken():
        raise Boom

    trio.run(main)
