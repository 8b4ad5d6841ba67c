"""Whatever the code under test does, unless it never awaits: the kit returns, and says where it stood.

The law is put through every way of not ending that is known, under `run_virtual` and under every campaign, with
warnings as errors.
"""

import contextlib
import gc
import subprocess
import sys
import textwrap
import threading

import pytest
import trio
import trio.testing

from funcpipe_trio import Pipeline
from funcpipe_trio.testing import (
    CampaignError,
    Scenario,
    cancel_everywhere,
    drain_everywhere,
    explore_schedules,
    fail_everywhere,
    interrupt_everywhere,
    run_virtual,
)
from tests._kit import pairs

CAMPAIGNS = [cancel_everywhere, drain_everywhere, explore_schedules, fail_everywhere, interrupt_everywhere]


async def waits(item=None):
    await trio.sleep_forever()


async def waits_shielded(item=None):
    with trio.CancelScope(shield=True):
        await trio.sleep_forever()


async def cleans_up_for_ever(item=None):
    try:
        await trio.sleep(1)
    finally:
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()


async def shields_again_and_again(item=None):
    with trio.CancelScope(shield=True):
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep_forever()


async def polls(item=None):
    while True:  # noqa: ASYNC110
        await trio.sleep(1)


async def polls_shielded(item=None):
    while True:
        with trio.CancelScope(shield=True):
            await trio.sleep(1)


async def spins(item=None):
    while True:
        await trio.lowlevel.checkpoint()


async def spins_shielded(item=None):
    with trio.CancelScope(shield=True):
        while True:
            await trio.lowlevel.checkpoint()


async def never_gives_in(item=None):
    while True:
        with contextlib.suppress(BaseException):
            await trio.sleep(1)


async def hangs_in_a_child(item=None):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(waits_shielded)
        nursery.start_soon(never_gives_in)


async def hides_what_it_awaits(item=None):
    async def generate():
        with trio.CancelScope(shield=True):
            await trio.sleep_forever()
        yield

    await anext(generate(), None)


async def passes_the_end_of_time(item=None):
    while True:  # noqa: ASYNC110
        await trio.sleep(1e7)  # noqa: ASYNC116


ENDLESS = [
    waits,
    waits_shielded,
    cleans_up_for_ever,
    shields_again_and_again,
    polls,
    polls_shielded,
    spins,
    spins_shielded,
    never_gives_in,
    hangs_in_a_child,
    hides_what_it_awaits,
    passes_the_end_of_time,
]
every_endless = pytest.mark.parametrize("endless", ENDLESS, ids=lambda fn: fn.__name__)


@pytest.fixture(autouse=True)
def fewer_steps(monkeypatch):
    """The same sooner."""
    monkeypatch.setattr("funcpipe_trio.testing._trial.LIVELOCK", 2000)
    monkeypatch.setattr("funcpipe_trio.testing._trial.STEPS", 4000)


@every_endless
def test_run_virtual_comes_back(endless):
    """It names the function that does not end."""
    with pytest.raises(AssertionError) as met:
        run_virtual(endless, max_steps=4000)
    gc.collect()

    assert str(met.value).startswith("run_virtual: ")
    assert f": {endless.__name__}, line " in str(met.value)


@pytest.mark.parametrize(("endless", "campaign"), pairs(ENDLESS, CAMPAIGNS), ids=lambda fn: fn.__name__)
def test_every_campaign_comes_back(endless, campaign):
    """It names the stage, and the function in it."""
    with pytest.raises(CampaignError) as met:
        campaign(lambda: Pipeline.from_iterable(range(3)).map(endless, concurrency=2, name="the stage"))
    gc.collect()

    assert f"the stage: {endless.__name__}, line " in str(met.value)
    assert f"To reproduce it, add to the arguments of {campaign.__name__}: only=(0, 0)" in str(met.value)


@pytest.mark.parametrize("campaign", [cancel_everywhere, interrupt_everywhere], ids=lambda fn: fn.__name__)
def test_what_is_endless_only_once_it_is_disturbed(campaign):
    """The undisturbed run is fine, and what the disturbance raised is not what is told."""

    async def lookup(item):
        try:
            await trio.sleep(1)
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.sleep_forever()

    with pytest.raises(CampaignError, match=r"(?s)after [1-9]\d* good runs: deadlock: .* lookup: lookup, line \d+"):
        campaign(lambda: Pipeline.from_iterable(range(3)).map(lookup))


@pytest.mark.parametrize("endless", [waits_shielded, never_gives_in], ids=lambda fn: fn.__name__)
def test_a_campaign_comes_back_from_a_consumer_that_does_not(endless):
    async def consume(run, lab):
        await endless()

    with pytest.raises(CampaignError, match=rf": {endless.__name__}, line \d+"):
        explore_schedules(Scenario(lambda: Pipeline.from_iterable(range(3)), consume, name="scenario"))


def test_a_source_that_is_never_closed():
    """Its cleanup is the run's, which has a deadline: that is none of these ways."""

    async def numbers():
        try:
            yield 1
            yield 2
        finally:
            await waits_shielded()

    with pytest.raises(CampaignError, match=r": waits_shielded, line \d+"):
        explore_schedules(lambda: Pipeline.from_async_iterable(numbers))


@pytest.mark.parametrize(
    ("endless", "problem"),
    [
        (waits_shielded, "not done after 10**9 virtual seconds"),
        (passes_the_end_of_time, "not done after 10**9 virtual seconds"),
        (spins, "livelock: 900 steps and no time has passed"),
        (polls, "no end: 900 steps of tasks, in 898 virtual seconds"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_run_virtual_says_in_which_way(endless, problem):
    with pytest.raises(AssertionError) as met:
        run_virtual(endless, max_steps=900)

    assert str(met.value).splitlines()[0] == f"run_virtual: {problem}; these tasks wait:"


def test_what_waits_for_idleness_or_ends_in_time_is_not_stuck():
    """No deadline is to come, and yet it continues; nor does a year hurt, nor as many steps as are allowed."""

    async def main():
        await trio.testing.wait_all_tasks_blocked(0.01)
        for _ in range(90):
            await trio.sleep(1e6)  # noqa: ASYNC116
        return "done"

    assert run_virtual(main, max_steps=100) == "done"


def test_cleanup_that_ends_is_done():
    """A run that is stuck is cancelled first, so what can be cleaned up is."""
    log = []

    async def main():
        try:
            await waits_shielded()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
                log.append("clean")

    with pytest.raises(AssertionError, match=r"^run_virtual: not done"):
        run_virtual(main)
    assert log == ["clean"]


def test_nothing_is_said_when_python_ends():
    """A run that had to be left where it stood is kept; its tasks are not finalized outside of trio."""
    code = """
        import trio
        from funcpipe_trio.testing import run_virtual

        async def never_gives_in():
            while True:
                try:
                    await trio.sleep(1)
                except BaseException:
                    pass

        async def main():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(never_gives_in)

        try:
            run_virtual(main, max_steps=1000)
        except AssertionError as error:
            print(str(error).splitlines()[-1].strip().split(":")[1])
        print(run_virtual(trio.sleep, 1))
    """
    program = [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(code)]

    done = subprocess.run(program, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [" never_gives_in, line 8", "None"]


@pytest.mark.parametrize("abandon", [False, True])
def test_a_thread_that_does_not_come_back(abandon, monkeypatch):
    """Nobody can end it, but the run ends, and names who waits for it; and when it comes back, it hears that."""
    monkeypatch.setattr("funcpipe_trio.testing._guard.PATIENCE", 0.05)
    tokens, go_on = [], threading.Event()

    async def waits_for_a_thread():
        tokens.append(trio.lowlevel.current_trio_token())
        await trio.to_thread.run_sync(go_on.wait, abandon_on_cancel=abandon)

    with pytest.raises(AssertionError) as met:
        run_virtual(waits_for_a_thread)
    with pytest.raises(trio.RunFinishedError):
        tokens[0].run_sync_soon(print)
    go_on.set()

    told = "run_virtual: no answer from a thread, a process or a socket in 0.05 s of real time; these tasks wait:"
    assert str(met.value).splitlines()[0] == told
    assert ": waits_for_a_thread, line " in str(met.value)


@pytest.mark.parametrize(
    ("steps", "kind", "message"),
    [
        (0, ValueError, "run_virtual: max_steps must be >= 1, not 0"),
        (1.5, TypeError, "run_virtual: max_steps must be an int >= 1, not 1.5"),
    ],
)
def test_the_bound_of_steps_is_checked(steps, kind, message):
    with pytest.raises(kind) as met:
        run_virtual(trio.sleep, 1, max_steps=steps)
    assert str(met.value) == message
