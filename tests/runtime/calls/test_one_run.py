"""What belongs to one trio run at a time: the second one, in another thread, is refused, and told what to do.

Mutants that die here: a run that is over and still has it; a use that goes by without a look; a refusal that changes
something; two runs that come at once and both have it.
"""

import threading

import pytest
import trio
import trio.testing
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import (
    CircuitBreaker,
    OnError,
    Pipeline,
    RateLimit,
    RateLimiter,
    Retry,
    StateError,
    Step,
    gather,
)
from funcpipe_trio.testing import run_virtual
from tests._kit import one_step

SLOW = RateLimit(1, per=1000, burst=2)
QUICK = RateLimit(1000, burst=99)


async def refuse(item):
    raise ValueError(item)


def started():
    return Step(one_step).rate_limit(RateLimit(1000, burst=9)).circuit_breaker(CircuitBreaker()).start()


async def nowait(limiter):
    limiter.acquire_nowait()


async def set_rate(limiter):
    limiter.set_rate(QUICK)


async def statistics(limiter):
    limiter.statistics()


STEP = (
    r"^the started step 'one_step' must not be used in two trio runs at a time\nUse step\.start\(\) in each of them\."
)
LIMITER = (
    r"^RateLimiter: it must not be used in two trio runs at a time\n"
    r"Use a RateLimiter in each of them, with a part of the rate\."
)
USES = {
    "a call": (started, lambda step: step(1), STEP),
    "gather": (started, lambda step: gather(step, range(3), concurrency=2), STEP),
    "a stage": (started, lambda step: Pipeline.from_iterable(range(3)).map(step, concurrency=2).run(), STEP),
    "a stage that skips": (
        started,
        lambda step: Pipeline.from_iterable([1]).map(step, on_error=OnError.skip()).run(),
        STEP,
    ),
    "dead letters": (
        started,
        lambda step: Pipeline.from_iterable([1]).map(refuse, on_error=OnError.divert(step)).run(),
        STEP,
    ),
    "acquire": (lambda: RateLimiter(QUICK), lambda limiter: limiter.acquire(), LIMITER),
    "acquire_nowait": (lambda: RateLimiter(QUICK), nowait, LIMITER),
    "set_rate": (lambda: RateLimiter(QUICK), set_rate, LIMITER),
    "statistics": (lambda: RateLimiter(QUICK), statistics, LIMITER),
    "a step with it": (lambda: RateLimiter(QUICK), lambda limiter: Step(one_step).rate_limit(limiter)(1), LIMITER),
    "a stage with it": (
        lambda: RateLimiter(QUICK),
        lambda limiter: Pipeline.from_iterable([1]).map(Step(one_step).rate_limit(limiter)).run(),
        LIMITER,
    ),
}


async def in_another_run(use, thing):
    """Use a thing in a trio run of its own, in a thread."""
    await trio.to_thread.run_sync(trio.run, use, thing)


PAIRS = [
    (first, second)
    for first in ("a call", "a stage", "acquire", "a step with it")
    for second in USES
    if USES[first][2] == USES[second][2]
]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_the_second_run_is_refused(first, second):
    """Whatever it wants, while the first is not over; the first one continues, and nothing was changed."""
    make, use, message = USES[first]
    thing = make()

    async def main():
        await use(thing)
        before = thing.statistics()
        with pytest.raises(StateError, match=message):
            await in_another_run(USES[second][1], thing)
        after = thing.statistics()
        assert getattr(after, "acquired", 0) == getattr(before, "acquired", 0)
        await use(thing)

    trio.run(main)


@pytest.mark.parametrize("name", USES)
def test_the_next_run_may_have_it(name):
    """When the first is over: in the same thread, in another, and in that of the first again."""
    make, use, _message = USES[name]
    thing = make()

    trio.run(use, thing)
    trio.run(use, thing)
    thread = threading.Thread(target=trio.run, args=(use, thing))
    thread.start()
    thread.join()
    trio.run(use, thing)
    run_virtual(use, thing)


def test_a_run_whose_tasks_wait_is_not_disturbed():
    """One that comes while others stand in line is refused before it stands there, too."""

    async def main():
        limiter = RateLimiter(SLOW)
        limiter.acquire_nowait(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(limiter.acquire)
            await wait_all_tasks_blocked()
            for use in (lambda limiter: limiter.acquire(), nowait, set_rate):
                with pytest.raises(StateError, match=LIMITER):
                    await in_another_run(use, limiter)
            seen = limiter.statistics()
            nursery.cancel_scope.cancel()
        return seen.tasks_waiting, seen.acquired, seen.rate_limit == SLOW

    assert trio.run(main) == (1, 1, True)


@pytest.mark.parametrize("name", ["a call", "acquire"])
def test_of_runs_that_come_at_once_one_has_it(name):
    """Eight threads, each with a run that is not over before all have tried."""
    make, use, _message = USES[name]
    for _ in range(20):
        thing, barrier, got = make(), threading.Barrier(8), []

        async def main(thing=thing, barrier=barrier, got=got):
            barrier.wait(60)
            try:
                await use(thing)
            except StateError:
                got.append(False)
            else:
                got.append(True)
            barrier.wait(60)

        threads = [threading.Thread(target=trio.run, args=(main,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(got) == [False] * 7 + [True]


def test_a_refusal_is_no_reason_to_try_again_for_ever():
    """A retry may mean it; it is told with its attempts like any other error."""
    thing = RateLimiter(SLOW)

    async def main():
        await thing.acquire()
        step = Step(one_step).rate_limit(thing).retry(Retry(1))
        with pytest.raises(StateError, match=LIMITER):
            await in_another_run(step, 1)

    trio.run(main)


@pytest.mark.parametrize("name", ["a call", "acquire"])
def test_two_runs_with_one_clock_are_two(name):
    """A clock object may be used again; the run that it belonged to is over all the same."""
    make, use, message = USES[name]
    thing, clock = make(), trio.testing.MockClock(rate=1)

    async def main():
        await use(thing)
        with pytest.raises(StateError, match=message):
            await in_another_run(use, thing)

    trio.run(use, thing, clock=clock)
    trio.run(main, clock=clock)
