"""What is a call's own time, when it must wait for a thread or a process first?

Rate limits, and the first timeout, right behind `on` begin when a call has its place, over all runners; what stands
behind another policy is around the wait, too. Time is the test's own here: it passes when the test says so.

Mutants that die here: a timeout around the wait for a place, or around the start of a worker; one that ends with the
admission, or is not begun again for a second attempt; a token taken before there is a place; a second timeout that
begins with the first.
"""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from funcpipe_trio import (
    Backoff,
    OnError,
    Pipeline,
    RateLimit,
    RateLimiter,
    Retry,
    Step,
    executor,
    gather,
    processes,
    threads,
)
from funcpipe_trio.testing import run_virtual
from tests.runtime.runners import _work

pytestmark = pytest.mark.usefixtures("quick_start")


class Pipes:
    """By which calls in any thread or process say that they begin, and are told to end."""

    def __init__(self, folder):
        self.paths = [str(folder / name) for name in ("begun", "end")]
        for path in self.paths:
            os.mkfifo(path)
        self._begun, self._end = (os.open(path, os.O_RDWR | os.O_NONBLOCK) for path in self.paths)
        self.count = 0

    async def begun(self, count):
        """Wait until so many have begun."""
        while self.count < count:
            await trio.lowlevel.wait_readable(self._begun)
            self.count += len(os.read(self._begun, 100))

    def let_end(self, count=1):
        """Let so many end."""
        os.write(self._end, b"x" * count)

    def close(self):
        os.close(self._begun)
        os.close(self._end)


@pytest.fixture
def pipes(tmp_path):
    made = Pipes(tmp_path)
    yield made
    made.close()


@contextmanager
def runner(name):
    """Make a runner with one place."""
    with ThreadPoolExecutor(1) as pool:
        yield {
            "threads": threads(1),
            "threads that are left": threads(1, abandon_on_cancel=True),
            "processes": processes(1),
            "executor": executor(pool, limit=1),
        }[name]


RUNNERS = ["threads", "threads that are left", "processes", "executor"]

PATIENT = {
    "timeout": lambda step: step.timeout(1),
    "rate limit, timeout": lambda step: step.rate_limit(RateLimit(9, burst=9)).timeout(1),
    "timeout, rate limit": lambda step: step.timeout(1).rate_limit(RateLimit(9, burst=9)),
    "timeout, retry": lambda step: step.timeout(1).retry(Retry(2)),
    "timeout, long timeout": lambda step: step.timeout(1).timeout(100),
}
"""Policies under which each call has a second from when it has its place."""

STRICT = {
    "retry, timeout": lambda step: step.retry(Retry(1)).timeout(1),
    "long timeout, timeout": lambda step: step.timeout(100).timeout(1),
    "another step, timeout": lambda step: step.then(Step.pure(lambda item: item)).timeout(1),
    "pipeline": lambda step: step.timeout(100).rate_limit(RateLimit(9, burst=9)).timeout(1),
}
"""Policies that count all the time."""


def by_hand(main):
    """Run in time that passes when ``jump`` is called; the watchdog's is real."""
    clock = MockClock()

    async def watched():
        token, scope = trio.lowlevel.current_trio_token(), trio.CancelScope()
        watchdog = threading.Timer(60, token.run_sync_soon, [scope.cancel])
        watchdog.start()
        try:
            with scope:
                return await main(clock.jump)
        finally:
            watchdog.cancel()
        raise AssertionError("it hangs")

    return trio.run(watched, clock=clock)


@pytest.mark.parametrize("policies", PATIENT)
@pytest.mark.parametrize("where", RUNNERS)
def test_the_wait_for_a_place_is_not_the_calls_time(where, policies, pipes):
    """Four calls of 0.9 s each have one place, and a second each: none is late."""

    async def main(jump):
        with runner(where) as on:
            step = PATIENT[policies](Step(partial(_work.begin_and_wait, *pipes.paths)).on(on)).start()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gather_into, results := [], step)
                for number in range(1, 5):
                    await pipes.begun(number)
                    jump(0.9)
                    pipes.let_end()
        return results, step.statistics().timeouts, trio.current_time()

    results, timeouts, elapsed = by_hand(main)

    assert results == [0, 1, 2, 3]
    assert timeouts == 0
    assert elapsed == pytest.approx(3.6)


async def gather_into(results, step):
    results += await gather(step, range(4), concurrency=4)


@pytest.mark.parametrize("where", RUNNERS)
def test_no_item_of_a_stage_is_late_for_another(where, pipes):
    """More items under way than there are places: none is late, and the report tells of none."""

    async def main(jump):
        reports = []
        with runner(where) as on:
            step = Step(partial(_work.begin_and_wait, *pipes.paths)).on(on).timeout(1)
            line = Pipeline.from_iterable(range(6)).map(step, concurrency=4, on_error=OnError.skip())

            async def drive():
                reports.append(await line.run())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(drive)
                for number in range(1, 7):
                    await pipes.begun(number)
                    jump(0.9)
                    pipes.let_end()
        return reports[0].delivered, reports[0].stages[-1].policies.timeouts

    assert by_hand(main) == (6, 0)


@pytest.mark.parametrize("policies", [name for name in PATIENT if "retry" not in name])
@pytest.mark.parametrize("where", RUNNERS)
def test_a_call_that_takes_its_second_is_late(where, policies, pipes):
    """Counted from when it has its place: the first, and the one that waited for it."""

    async def main(jump):
        ended = []
        with runner(where) as on:
            step = PATIENT[policies](Step(partial(_work.begin_and_wait, *pipes.paths)).on(on)).start()

            async def call(item):
                with pytest.raises(trio.TooSlowError, match=r"^not done after 1 s\ntimeout of 1 s\n"):
                    await step(item)
                ended.append(trio.current_time())

            async with trio.open_nursery() as nursery:
                for item in range(2):
                    nursery.start_soon(call, item)
                    await pipes.begun(1)
                for number in (1, 2):
                    await pipes.begun(number)
                    jump(1)
                    await wait_all_tasks_blocked()
                    if where != "processes":  # those are killed
                        pipes.let_end()
        return ended, step.statistics().timeouts

    ended, timeouts = by_hand(main)

    assert ended == [1, 2]
    assert timeouts == 2


@pytest.mark.parametrize("policies", STRICT)
@pytest.mark.parametrize("where", RUNNERS)
def test_an_outer_timeout_counts_all(where, policies, pipes):
    """A call that waits for its place is late a second after it was made."""

    async def main(jump):
        async def call(item):
            with pytest.raises(trio.TooSlowError, match=r"^not done after 1 s\n"):
                await step(item)

        with runner(where) as on:
            step = STRICT[policies](Step(partial(_work.begin_and_wait, *pipes.paths)).on(on)).start()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(call, 0)
                await pipes.begun(1)
                async with trio.open_nursery() as waiting:
                    waiting.start_soon(call, 1)
                    await wait_all_tasks_blocked()
                    jump(1)
                if where != "processes":
                    pipes.let_end()
        return trio.current_time(), pipes.count

    assert by_hand(main) == (1, 1)


def test_the_start_of_a_worker_is_not_the_calls_time(pipes, tmp_path, monkeypatch):
    """However long it loads the main module: before the first call, and behind one that was killed."""
    slow = tmp_path / "slow.py"
    slow.write_text(f"from tests.runtime.runners import _work; _work.begin_and_wait(*{pipes.paths}, None)")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(slow), raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    late = []

    async def main(jump):
        step = (
            Step(partial(_work.begin_and_wait, *pipes.paths))
            .on(processes(1))
            .timeout(1)
            .retry(Retry(2, on=lambda error: late.append(error) is None, backoff=Backoff(0)))
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(gather_into, results := [], step)
            await pipes.begun(1)  # the main module
            jump(1000)
            pipes.let_end()
            await pipes.begun(2)  # the call, which is late
            jump(1)
            await pipes.begun(3)  # the main module again
            jump(1000)
            pipes.let_end()
            for number in range(4, 8):
                await pipes.begun(number)
                jump(0.5)
                pipes.let_end()
        return results

    assert by_hand(main) == [0, 1, 2, 3]
    assert len(late) == 1


@pytest.mark.parametrize("policies", [name for name in PATIENT if "rate" in name])
@pytest.mark.parametrize("where", RUNNERS)
def test_a_call_that_waits_for_its_place_has_no_token(where, policies, pipes):
    """Not with a timeout between the runner and the limit, or behind it, either."""
    limiter = RateLimiter(RateLimit(1, per=1000, burst=9))
    shared = {
        "rate limit, timeout": lambda step: step.rate_limit(limiter).timeout(1),
        "timeout, rate limit": lambda step: step.timeout(1).rate_limit(limiter),
    }

    async def main(jump):
        with runner(where) as on:
            step = shared[policies](Step(partial(_work.begin_and_wait, *pipes.paths)).on(on)).start()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(gather_into, [], step)
                await pipes.begun(1)
                await wait_all_tasks_blocked()
                taken = limiter.statistics().acquired
                pipes.let_end(4)
        return taken, limiter.statistics().acquired

    assert by_hand(main) == (1, 4)


# ---- a user-defined runner, in virtual time


class Slow:
    """A runner that takes so many seconds for a call, and its log."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.log = []

    async def __call__(self, fn, *args):
        self.log.append((args[0], trio.current_time()))
        await trio.sleep(self.seconds)
        return fn(*args)


def ends(step, items=3):
    """What becomes of calls that are all made at 0: results, or when each was late."""

    async def main():
        outcomes = {}
        started = step.start()

        async def call(item):
            try:
                outcomes[item] = await started(item), trio.current_time()
            except trio.TooSlowError:
                outcomes[item] = "late", trio.current_time()

        async with trio.open_nursery() as nursery:
            for item in range(items):
                nursery.start_soon(call, item)
                await wait_all_tasks_blocked()
        return [outcomes[item] for item in range(items)]

    return run_virtual(main)


EVERY_SECOND = RateLimit(1)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        # The wait for a token is inside of this timeout: 0 s, 1 s and 2 s, and then 0.5 s of work.
        (lambda step: step.rate_limit(EVERY_SECOND).timeout(2), [(0, 0.5), (1, 1.5), ("late", 2)]),
        # And outside of this one: each has its token first.
        (lambda step: step.timeout(2).rate_limit(EVERY_SECOND), [(0, 0.5), (1, 1.5), (2, 2.5)]),
        (lambda step: step.timeout(0.5).rate_limit(EVERY_SECOND), [("late", 0.5), ("late", 1.5), ("late", 2.5)]),
        # Between two limits it counts the wait for the inner one only.
        (
            lambda step: step.rate_limit(RateLimit(1, per=3)).timeout(3).rate_limit(EVERY_SECOND),
            [(0, 0.5), (1, 3.5), ("late", 5)],
        ),
        # A second one is around all.
        (lambda step: step.timeout(2).rate_limit(EVERY_SECOND).timeout(1.5), [(0, 0.5), ("late", 1.5), ("late", 1.5)]),
        (lambda step: step.timeout(9).timeout(0.1), [("late", 0.1)] * 3),
    ],
)
def test_timeouts_and_limits_count_what_is_inside_of_them(policies, expected):
    """In the order in which they are written, exactly."""
    assert ends(policies(Step(int).on(Slow(0.5)))) == expected


def test_each_attempt_has_its_time():
    """A retry outside begins it anew; a call that was made is not made longer by it."""
    runner = Slow(2)

    async def main():
        step = (
            Step(int)
            .on(runner)
            .timeout(1)
            .retry(Retry(3, on=trio.TooSlowError, backoff=Backoff(1, factor=1, jitter=0)))
        )
        with pytest.raises(trio.TooSlowError, match=r"^not done after 1 s\n") as caught:
            await step(7)
        return caught.value.__notes__, trio.current_time()

    notes, elapsed = run_virtual(main)

    assert elapsed == 5
    assert runner.log == [(7, 0), (7, 2), (7, 4)]
    assert notes == ["timeout of 1 s", "waited 1, 1 s between its attempts", "in step 'int', attempt 3 of 3"]
