"""A simulation in a thread: the same answer, and it can be cancelled whether or not the recorded run had a consumer.

Mutants that die here: a run without a consumer that nobody can cancel; a question after each item in place of now and
then.
"""

import threading

import pytest
import trio

from funcpipe_trio import Pipeline, Recorder, Recording, simulate, simulate_async
from funcpipe_trio._recording import simulation
from funcpipe_trio.testing import run_virtual

ITEMS = 600  # more than twice as many as may pass until it is asked whether to go on


async def call(number: int) -> int:
    await trio.sleep(1)
    return number


def plan() -> Pipeline[int]:
    return Pipeline.from_iterable(range(ITEMS), name="numbers").map(call)


def recorded(has_consumer: bool) -> Recording:
    recorder = Recorder()

    async def main() -> None:
        if not has_consumer:
            await plan().run(record=recorder)
            return
        async with plan().open(record=recorder) as run:
            async for _item in run:
                pass

    run_virtual(main)
    return recorder.recording


@pytest.mark.parametrize("has_consumer", [True, False])
def test_it_is_what_simulate_says(has_consumer):
    recording = recorded(has_consumer)

    async def main() -> float:
        return (await simulate_async(plan(), recording, {"call": {"concurrency": 4}})).elapsed

    assert trio.run(main) == simulate(plan(), recording, {"call": {"concurrency": 4}}).elapsed == ITEMS / 4


@pytest.mark.parametrize("has_consumer", [True, False])
def test_it_ends_when_it_is_cancelled(has_consumer, monkeypatch):
    """It is cancelled when it asks for the first time, so it has only to end its tasks."""
    recording, is_cancelled, asked = recorded(has_consumer), simulation._is_cancelled, []

    async def main() -> bool:
        token = trio.lowlevel.current_trio_token()

        def cancel_and_ask() -> bool:
            done = threading.Event()
            token.run_sync_soon(scope.cancel)
            token.run_sync_soon(done.set)
            done.wait(60)
            asked.append(is_cancelled())
            return asked[-1]

        monkeypatch.setattr(simulation, "_is_cancelled", cancel_and_ask)
        with trio.CancelScope() as scope:
            await simulate_async(plan(), recording)
        return scope.cancelled_caught

    assert trio.run(main)
    assert asked[0]
    assert len(asked) < ITEMS / 4
