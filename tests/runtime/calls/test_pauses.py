"""`RateLimiter.pause` and `Retry(pauses_limit=True)`: one "too many requests" stops all calls of a limiter.

Mutants that die here: a pause that those who wait already do not know; the shorter of two that wins; tokens lost in
it; a poke left out, so that a younger call stands back for one that is paused; a pause of the failed call only; of
limits outside of the retry; none at the last attempt, or if there is no time for another; one for an error that the
retry does not mean, or when nothing is named; places that are paused as well.
"""

import math
from contextlib import suppress
from fractions import Fraction

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import (
    Backoff,
    FairShare,
    OnError,
    Pipeline,
    PlaceLimiter,
    PlanError,
    RateLimit,
    RateLimiter,
    Retry,
    RollingLimit,
    Step,
    gather,
    threads,
)
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

KINDS = [RateLimit(2, burst=3), RollingLimit(3, per=1)]


class TooMany(Exception):
    """The answer of a server: after how long to come again."""

    def __init__(self, seconds):
        super().__init__(seconds)
        self.seconds = seconds


def named(error):
    return getattr(error, "seconds", None)


def retry(attempts=3, **how):
    return Retry(attempts, TooMany, Backoff(0, jitter=0), retry_after=named, pauses_limit=True, **how)


class Server:
    """Writes down each call; the k-th call of an item fails with the k-th answer, as long as there is one.

    The calls of item 0 take half as long as the others.
    """

    def __init__(self, answers=(), seconds=0):
        self.answers, self.seconds = dict(answers), seconds
        self.times, self.pauses, self.tried = [], [], {}

    async def call(self, item):
        self.times.append(trio.current_time())
        tried = self.tried[item] = self.tried.get(item, 0) + 1
        await trio.sleep(self.seconds * (2 if item else 1))
        answers = self.answers.get(item, ())
        if tried <= len(answers) and (answer := answers[tried - 1]) is not None:
            self.pauses.append((trio.current_time(), answer))
            raise TooMany(answer)
        return item

    def starts_in_a_pause(self):
        return [
            (start, begin, seconds)
            for start in self.times
            for begin, seconds in self.pauses
            if begin < start and Fraction(start) < Fraction(begin) + Fraction(seconds)
        ]


# ---- a limiter


@pytest.mark.parametrize("limit", KINDS, ids=str)
def test_nothing_starts_in_a_pause_and_tokens_stay(limit):
    async def main():
        limiter, times = RateLimiter(limit), []
        await limiter.acquire(3)
        limiter.pause(10)
        for _ in range(4):
            await limiter.acquire()
            times.append(trio.current_time())
        return times

    assert run_virtual(main) == [10, 10, 10, 10.5 if isinstance(limit, RateLimit) else 11]


@pytest.mark.parametrize("limit", KINDS, ids=str)
def test_those_who_wait_already_wait_for_its_end_in_their_order(limit):
    async def main():
        limiter, log = RateLimiter(limit), []

        async def user(name):
            await limiter.acquire()
            log.append((name, trio.current_time()))

        await limiter.acquire(3)
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(user, name)
                await trio.testing.wait_all_tasks_blocked()
            limiter.pause(7)
            await trio.sleep(1)
            limiter.pause(3)  # ends earlier
            assert limiter.statistics().paused_until == 7
            nursery.start_soon(user, "d")
        return log

    last = 7.5 if isinstance(limit, RateLimit) else 8
    assert run_virtual(main) == [("a", 7), ("b", 7), ("c", 7), ("d", last)]


def test_the_later_end_counts_and_who_is_cancelled_takes_nothing():
    async def main():
        limiter = RateLimiter(RateLimit(1, burst=2))
        limiter.pause(2)
        with trio.move_on_after(1):
            await limiter.acquire()
        limiter.pause(3)
        with pytest.raises(trio.WouldBlock):
            limiter.acquire_nowait()
        limiter.pause(0)
        before = limiter.statistics()
        await limiter.acquire(2)
        after = limiter.statistics()
        return before.paused_until, before.tokens, trio.current_time(), after.paused_until, after.acquired

    assert run_virtual(main) == (4, 2, 4, None, 1)


def test_a_younger_call_does_not_stand_back_for_one_that_is_paused():
    """It shares one of the limits of the older one, which will not be there before its other one goes on."""

    async def main():
        both, other, log = RateLimiter(RateLimit(1, burst=2)), RateLimiter(RateLimit(1)), []

        async def user(name, step):
            await step(name)
            log.append((name, trio.current_time()))

        async def at_once(item):
            return item

        for limiter in (both, both, other):
            limiter.acquire_nowait()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(user, "dear", Step(at_once).rate_limit(both, other, cost={both: lambda _: 2}))
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(user, "cheap", Step(at_once).rate_limit(both))
            await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(1.25)
            other.pause(5)
        return log

    assert run_virtual(main) == [("cheap", 1.25), ("dear", 6.25)]


def test_what_is_left_of_a_pause_stays_for_the_next_run():
    limiter = RateLimiter(RateLimit(1))

    async def first():
        limiter.pause(5)
        await trio.sleep(2)
        return limiter.statistics().paused_until

    async def second():
        await limiter.acquire()
        return trio.current_time()

    assert (run_virtual(first), run_virtual(second)) == (5, 3)


def test_a_pause_is_the_same_under_another_kind_of_limit():
    async def main():
        limiter = RateLimiter(RateLimit(1))
        limiter.pause(5)
        limiter.set_rate(RollingLimit(9))
        await limiter.acquire(9)
        return trio.current_time()

    assert run_virtual(main) == 5


@pytest.mark.parametrize(
    ("kind", "value", "rule"),
    [
        (TypeError, None, "be a number of seconds >= 0, not None"),
        (TypeError, True, "be a number of seconds >= 0, not True"),
        (ValueError, -1, "be a number of seconds >= 0, finite, not -1"),
        (ValueError, math.inf, "be a number of seconds >= 0, finite, not inf"),
    ],
)
def test_a_time_that_is_none_is_refused(kind, value, rule):
    async def main():
        limiter = RateLimiter(RateLimit(1))
        with pytest.raises(kind) as caught:
            limiter.pause(value)
        return str(caught.value), limiter.statistics().paused_until

    assert run_virtual(main) == (f"RateLimiter.pause: seconds must {rule}", None)


# ---- a retry


async def stage(step, items):
    await Pipeline.from_iterable(items).map(step, concurrency=3, on_error=OnError.skip()).run()


async def started(step, items):
    call = step.start()
    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(forgiving, call, item)


async def called(step, items):
    for item in items:
        await forgiving(step, item)


async def forgiving(call, item):
    with suppress(TooMany):
        await call(item)


answers = st.lists(st.sampled_from((None, 0, 0.5, 1.0, 0.1, 7)), max_size=4)
users = st.tuples(
    st.sampled_from((stage, started, called)),
    st.sampled_from((0, 0.3, 2)),
    st.lists(answers, max_size=4),
    st.sampled_from((math.inf, math.inf, 3)),
)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from((RateLimit(2, burst=3), RateLimit(0.7), RollingLimit(3, per=1 / 3))),
    st.lists(users, min_size=1, max_size=4),
    st.sampled_from((0, 0.25)),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_no_call_of_any_sharer_starts_in_a_pause(limit, patterns, seconds, attempts, seed):
    """Counted at the call, exactly, from the instant at which an answer came; of two the later end counts."""
    server = Server(seconds=seconds)

    async def user(limiter, number, way, when, scripts, patience):
        items = [(number, k) for k in range(len(scripts))]
        server.answers |= dict(zip(items, scripts, strict=True))
        await trio.sleep(when)
        with trio.move_on_after(patience):
            await way(Step(server.call).rate_limit(limiter).timeout(100).retry(retry(attempts)), items)

    async def main():
        limiter = RateLimiter(limit)
        async with trio.open_nursery() as nursery:
            for number, pattern in enumerate(patterns):
                nursery.start_soon(user, limiter, number, *pattern)
        return limiter.statistics()

    with scheduled(Schedule(seed)):
        statistics = run_virtual(main)
    assert server.starts_in_a_pause() == []
    assert (statistics.acquired, statistics.tasks_waiting) == (len(server.times), 0)


def run_of(step_of, items=(0, 1, 2, 3), concurrency=2, limit=KINDS[0]):
    """When each call began, at two at a time, and how the limiter then was."""

    async def main():
        limiter = RateLimiter(limit)
        step = step_of(limiter)
        await Pipeline.from_iterable(items).map(step, concurrency=concurrency, on_error=OnError.skip()).run()
        return limiter.statistics()

    return run_virtual(main)


def test_one_answer_stops_all_calls_and_not_only_its_own():
    """Without `pauses_limit` the others would go on."""
    server, alone = Server({0: [5]}, seconds=0.25), Server({0: [5]}, seconds=0.25)

    run_of(lambda limiter: Step(server.call).rate_limit(limiter).retry(retry()))
    run_of(lambda limiter: Step(alone.call).rate_limit(limiter).retry(Retry(3, TooMany, retry_after=named)))

    assert server.times == [0, 0, 5.25, 5.25, 5.5]
    assert alone.times == [0, 0, 0.5, 1, 5.25]


def test_the_last_attempt_pauses_too():
    server = Server({0: [5]}, seconds=0.25)

    run_of(lambda limiter: Step(server.call).rate_limit(limiter).retry(retry(attempts=1)))

    assert server.times == [0, 0, 5.25, 5.25]


def test_so_does_one_after_which_there_is_no_time_for_another():
    server = Server({0: [5]}, seconds=0.25)

    run_of(lambda limiter: Step(server.call).rate_limit(limiter).retry(retry()).timeout(1), items=(0, 1))
    assert server.times == [0, 0]
    server = Server({0: [5]}, seconds=0.25)
    statistics = run_of(lambda limiter: Step(server.call).rate_limit(limiter).retry(retry()).timeout(1), items=(0,))
    assert statistics.paused_until == 5.25


def test_an_error_that_the_retry_does_not_mean_pauses_nothing():
    async def fail(item):
        raise KeyError(item)

    def asked(error):
        raise AssertionError("asked about an error that is not meant")

    policy = Retry(2, TooMany, retry_after=asked, pauses_limit=True)
    statistics = run_of(lambda limiter: Step(fail).rate_limit(limiter).retry(policy))

    assert (statistics.paused_until, statistics.acquired) == (None, 4)


@pytest.mark.parametrize("answer", [0, -3])
def test_no_time_is_no_pause(answer):
    server = Server({0: [answer]})

    assert run_of(lambda limiter: Step(server.call).rate_limit(limiter).retry(retry())).paused_until is None
    assert server.times == [0, 0, 0, 0.5, 1.0]


def test_nothing_named_is_the_backoff_and_no_pause():
    server = Server({0: [None]})
    silent = Retry(2, TooMany, Backoff(3, jitter=0), retry_after=lambda error: None, pauses_limit=True)
    server.answers = {0: [4]}

    statistics = run_of(lambda limiter: Step(server.call).rate_limit(limiter).retry(silent), concurrency=1)

    assert (statistics.paused_until, server.times) == (None, [0, 3, 3, 3, 3.5])


def test_the_limits_of_each_run_are_paused_too():
    server = Server({0: [5]}, seconds=0.25)

    run_of(lambda _: Step(server.call).rate_limit(RateLimit(9, burst=9)).retry(retry()))

    assert server.times == [0, 0, 5.25, 5.25, 5.5]


def test_limits_outside_of_the_retry_are_not():
    server, outside = Server({0: [5]}, seconds=0.25), Server(seconds=0.25)

    async def main():
        own, around = RateLimiter(RateLimit(9, burst=9)), RateLimiter(RateLimit(9, burst=9))
        one = Step(server.call).rate_limit(own).retry(retry()).rate_limit(around)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one, 0)
            await trio.sleep(1)
            await gather(Step(outside.call).rate_limit(around), [1], concurrency=1)

    run_virtual(main)
    assert (server.times, outside.times) == ([0, 5.25], [1])


def test_places_are_not_paused_and_groups_are():
    server, others = Server({0: [5]}, seconds=0.25), Server()

    async def main():
        limiter, places = RateLimiter(RateLimit(9, burst=9), share=FairShare()), PlaceLimiter(2)
        group = limiter.group("tenant")
        step = Step(server.call).rate_limit(group, key=lambda item: item).places(places).retry(retry())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step, 0)
            await trio.sleep(1)
            async with places.hold():
                others.times.append(trio.current_time())
            await limiter.acquire(key="another")
            others.times.append(trio.current_time())

    run_virtual(main)
    assert (server.times, others.times) == ([0, 5.25], [1, 5.25])


def test_several_limits_and_those_of_a_row_are_all_paused():
    server, others = Server({0: [5]}), []

    async def main():
        limiters = [RateLimiter(RateLimit(9, burst=9)) for _ in range(3)]
        first = Step(server.call).rate_limit(*limiters[:2])
        step = first.then(Step(server.call).rate_limit(limiters[2])).retry(retry())
        await gather(step, [0], concurrency=1)
        others.extend(limiter.statistics().acquired for limiter in limiters)

    async def paused():
        limiters = [RateLimiter(RateLimit(9, burst=9)) for _ in range(3)]
        first = Step(Server({0: [5]}).call).rate_limit(*limiters[:2])
        step = first.then(Step(server.call).rate_limit(limiters[2])).retry(retry(attempts=1))
        with pytest.raises(TooMany):
            await step(0)
        return [limiter.statistics().paused_until for limiter in limiters]

    run_virtual(main)
    assert others == [2, 2, 1]
    assert run_virtual(paused) == [5, 5, 5]


def test_on_a_runner_the_limits_behind_it_are_paused():
    times = []

    def work(item):
        times.append(trio.from_thread.run_sync(trio.current_time))
        if item == 0 and len(times) == 1:
            raise TooMany(5)
        return item

    async def in_place(fn, *args):
        return await trio.to_thread.run_sync(fn, *args)

    async def main():
        step = Step(work).on(threads(1)).rate_limit(RateLimit(9, burst=9)).timeout(50).retry(retry())
        await gather(step, [0, 1, 2], concurrency=1)
        return trio.current_time()

    assert run_virtual(main) >= 5
    assert times[0] == 0
    assert min(times[1:]) >= 5


def test_of_retries_around_each_other_the_later_end_counts():
    server = Server({0: [2, 1, 9]})

    async def main():
        limiter = RateLimiter(RateLimit(99, burst=9))
        inner = Step(server.call).rate_limit(limiter).retry(retry(attempts=2))
        await gather(inner.retry(retry(attempts=3)), [0], concurrency=1)

    run_virtual(main)
    assert server.times == [0, 2, 3, 12]


def test_a_call_that_is_cancelled_in_its_wait_leaves_the_pause():
    server = Server({0: [5]})

    async def main():
        limiter = RateLimiter(RateLimit(99, burst=9))
        step = Step(server.call).rate_limit(limiter).retry(retry())
        with trio.move_on_after(1):
            await step(0)
        await limiter.acquire()
        return trio.current_time()

    assert run_virtual(main) == 5


# ---- what is refused


def test_without_retry_after_there_is_nothing_to_pause_for():
    with pytest.raises(ValueError, match=r"^Retry: pauses_limit must come with retry_after, which names the wait\n"):
        Retry(3, pauses_limit=True)
    with pytest.raises(TypeError, match=r"^Retry: pauses_limit must be a bool, not 1$"):
        Retry(3, retry_after=named, pauses_limit=1)


@pytest.mark.parametrize("place", ["none", "outside", "places"])
def test_without_a_limit_inside_there_is_nothing_to_pause(place):
    step = Step(Server().call)
    if place == "places":
        step = step.places(PlaceLimiter(2))
    rule = "Step.retry: pauses_limit must have a rate limit inside the retry, which it pauses"

    with pytest.raises(PlanError, match=f"^{rule}\nWrite .rate_limit\\(limiter\\) before .retry\\(retry\\).$"):
        step.retry(retry()).rate_limit(RateLimit(1))


def test_opening_a_source_meets_no_limit():
    rule = "^Pipeline.restarting: retry must not have pauses_limit: opening a source meets no rate limit$"
    with pytest.raises(ValueError, match=rule):
        Pipeline.restarting(list, retry(), reset_after=1)


def test_the_plan_says_it():
    assert retry().describe() == (
        "up to 3 attempts on TooMany, waits 0 s x 2 up to 10 s, or what named says, pauses its rate limits for what "
        "named says"
    )
    assert retry(attempts=1).describe() == "up to 1 attempts on TooMany, pauses its rate limits for what named says"
