"""`RateLimiter`: who goes when, and what a task that is cancelled, late, cheap, dear or interrupted leaves behind.

Mutants that die here: a waiter that asks though it is not first; a token taken before a checkpoint that may be
cancelled; a place that is not given back, or given back without waking the next; `acquire_nowait` that looks at the
tokens only; a `set_rate` that does not wake the first, or forgets the tokens; the clock of the run before.
"""

import math
import signal
import sys
from fractions import Fraction

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from funcpipe_trio import Pipeline, RateLimit, RateLimiter, RateLimiterStatistics, Step
from funcpipe_trio._runtime.calls import rate_limiter
from funcpipe_trio._runtime.core import wait_queue
from funcpipe_trio._sansio import token_bucket
from funcpipe_trio.testing import interrupt_everywhere, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

SLOW = RateLimit(1, burst=1)
LOOSE = RateLimit(1, burst=4)


class Waiters:
    """Tasks that acquire, in a forced order, and when each of them got its tokens."""

    def __init__(self, limiter, nursery):
        self.limiter, self.nursery = limiter, nursery
        self.got = []
        self.gave_up = []

    async def come(self, name, cost=1, timeout=None):
        """Start a waiter, and return when it waits in line, or has its tokens."""
        scope = trio.CancelScope() if timeout is None else trio.move_on_after(timeout)

        async def wait():
            with scope:
                await self.limiter.acquire(cost)
                self.got.append((name, trio.current_time()))
            if scope.cancelled_caught:
                self.gave_up.append((name, trio.current_time()))

        self.nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        return scope


def with_waiters(limit, script):
    """Run a script of waiters on a fresh limiter; give when each got its tokens, and who gave up when."""

    async def main():
        async with trio.open_nursery() as nursery:
            waiters = Waiters(RateLimiter(limit), nursery)
            await script(waiters)
        return waiters.got, waiters.gave_up

    return run_virtual(main)


def test_a_full_bucket_lets_a_burst_go_and_then_one_at_a_time():
    """The k-th of a greedy caller goes at the first instant at which it may, to the last bit."""

    async def main():
        limiter, times = RateLimiter(RateLimit(8, burst=20)), []
        for _ in range(28):
            await limiter.acquire()
            times.append(trio.current_time())
        return times

    assert run_virtual(main) == [0] * 20 + [(k + 1) / 8 for k in range(8)]


@pytest.mark.parametrize("burst", [1, 2])
@pytest.mark.parametrize("rate", [3, 0.3, 7.7, 1e-3, 1e6])
def test_a_rate_that_no_float_holds_is_kept_exactly(rate, burst):
    """Over hundreds of calls none is early by a bit, and each is at most the last bit late.

    A bucket that holds one token loses that last bit each time it is full: what it cannot hold is gone by its rule.
    """

    async def main():
        limiter, times = RateLimiter(RateLimit(rate, burst=burst)), []
        for _ in range(300):
            await limiter.acquire()
            times.append(trio.current_time())
        return times

    late = [
        (Fraction(when) - max(0, k - burst + 1) / Fraction(rate)) / (Fraction(math.ulp(when)) + Fraction(1, 2**64))
        for k, when in enumerate(run_virtual(main))
    ]

    assert min(late) == 0
    assert all(lateness <= (k + 1 if burst == 1 else 2) for k, lateness in enumerate(late))


def test_waiters_are_served_in_the_order_in_which_they_came():
    """Whatever they cost: a dear one at the head is not passed by a cheap one that could go."""

    async def script(waiters):
        await waiters.come("first", 4)
        await waiters.come("dear", 3)
        await waiters.come("cheap", Fraction(1, 2))
        await waiters.come("dearest", 4)
        await waiters.come("last", 1)

    assert with_waiters(LOOSE, script) == (
        [("first", 0), ("dear", 3), ("cheap", 3.5), ("dearest", 7.5), ("last", 8.5)],
        [],
    )


@pytest.mark.parametrize("seed", range(10))
def test_who_asks_first_is_first_under_every_schedule(seed):
    """The place is taken at the call, before its checkpoint, in whatever order the tasks go on."""
    came, got = [], []

    async def wait(limiter, number):
        await trio.lowlevel.checkpoint()
        came.append(number)
        await limiter.acquire()
        got.append((number, trio.current_time()))

    async def main():
        limiter = RateLimiter(RateLimit(2, burst=3))
        async with trio.open_nursery() as nursery:
            for number in range(8):
                nursery.start_soon(wait, limiter, number)

    with scheduled(Schedule(seed)):
        run_virtual(main)

    assert got == list(zip(came, [0, 0, 0, 0.5, 1, 1.5, 2, 2.5], strict=True))


def test_nobody_overtakes_without_waiting():
    """`acquire_nowait` is refused while a task is in line, though its tokens are there; refused, it takes nothing."""

    async def main():
        limiter, waited = RateLimiter(LOOSE), []

        async def dear():
            await limiter.acquire(3)
            waited.append(trio.current_time())

        limiter.acquire_nowait(3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(dear)
            await wait_all_tasks_blocked()
            await trio.sleep(1)  # two tokens are there now
            for cost in (1, Fraction(1, 9)):
                with pytest.raises(trio.WouldBlock):
                    limiter.acquire_nowait(cost)
        with pytest.raises(trio.WouldBlock):
            limiter.acquire_nowait(Fraction(1, 9))
        await trio.sleep(2)
        limiter.acquire_nowait(2)
        return waited, limiter.statistics()

    assert run_virtual(main) == ([2], RateLimiterStatistics(LOOSE, 0.0, 0, 3, 8))


def test_nobody_overtakes_a_task_in_its_checkpoint():
    """A task that has called `acquire` holds its place though it has not yet run on; gone, it leaves all tokens."""

    async def main():
        limiter = RateLimiter(SLOW)
        acquiring = limiter.acquire()
        acquiring.send(None)  # as far as its checkpoint
        waiting = limiter.statistics()
        with pytest.raises(trio.WouldBlock):
            limiter.acquire_nowait()
        acquiring.close()
        limiter.acquire_nowait()
        return waiting, limiter.statistics()

    assert run_virtual(main) == (RateLimiterStatistics(SLOW, 1.0, 1, 0, 0), RateLimiterStatistics(SLOW, 0.0, 0, 1, 1))


def test_a_step_stands_in_line_like_any_other():
    """A cheap call of a step, by itself or in a stage, does not pass plain code that waits for more."""
    got = []

    async def call(item):
        got.append((item, trio.current_time()))

    async def script(waiters):
        step = Step(call).rate_limit(waiters.limiter)
        await waiters.come("first", 4)
        await waiters.come("dear", 3)
        await trio.sleep(2)  # two tokens are there now
        waiters.nursery.start_soon(step, "step")
        await wait_all_tasks_blocked()
        waiters.nursery.start_soon(Pipeline.from_iterable(["stage"]).map(step).run)
        await wait_all_tasks_blocked()
        await waiters.come("last")

    assert with_waiters(LOOSE, script) == ([("first", 0), ("dear", 3), ("last", 6)], [])
    assert got == [("step", 4), ("stage", 5)]


def test_a_task_that_gives_up_leaves_its_place_and_all_tokens():
    """At the head, in the middle or at the end: the others go when they would have without it."""

    async def script(waiters):
        await waiters.come("first")
        head = await waiters.come("head")
        await waiters.come("second")
        middle = await waiters.come("middle")
        await waiters.come("third")
        end = await waiters.come("end")
        await trio.sleep(0.5)
        for scope in (head, middle, end):
            scope.cancel()

    got, gave_up = with_waiters(SLOW, script)

    assert got == [("first", 0), ("second", 1), ("third", 2)]
    assert sorted(gave_up) == [("end", 0.5), ("head", 0.5), ("middle", 0.5)]


def test_a_dear_head_that_gives_up_lets_the_next_go_at_once():
    """What it waited for is there for the next, exactly then."""

    async def script(waiters):
        await waiters.come("first", 4)
        await waiters.come("dear", 4, timeout=2.5)
        await waiters.come("cheap", 2)
        await waiters.come("cheaper", Fraction(1, 2))
        await waiters.come("last", Fraction(1, 2))

    assert with_waiters(LOOSE, script) == (
        [("first", 0), ("cheap", 2.5), ("cheaper", 2.5), ("last", 3)],
        [("dear", 2.5)],
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_timeout_at_the_instant_of_the_token_is_a_timeout(seed):
    """It always is, and the token is not lost: the next in line goes at that instant."""

    async def script(waiters):
        await waiters.come("first")
        await waiters.come("late", timeout=1)
        await waiters.come("later", timeout=1)
        await waiters.come("next")
        await waiters.come("last")

    with scheduled(Schedule(seed)):
        got, gave_up = with_waiters(SLOW, script)

    assert got == [("first", 0), ("next", 1), ("last", 2)]
    assert sorted(gave_up) == [("late", 1), ("later", 1)]


@pytest.mark.parametrize("seed", range(20))
def test_a_cancel_at_the_instant_of_the_token_loses_nothing(seed):
    """Whichever of the two comes first: one token goes to one task at that instant."""

    async def script(waiters):
        await waiters.come("first")
        scope = await waiters.come("either")
        await waiters.come("next")
        await trio.sleep(1)
        scope.cancel()

    with scheduled(Schedule(seed)):
        got, gave_up = with_waiters(SLOW, script)

    assert (got, gave_up) in (
        ([("first", 0), ("next", 1)], [("either", 1)]),
        ([("first", 0), ("either", 1), ("next", 2)], []),
    )


def test_a_cancel_before_the_first_checkpoint_takes_nothing():
    """In a cancelled scope it is a cancel point, though the tokens are there."""

    async def main():
        limiter = RateLimiter(SLOW)
        with trio.CancelScope() as scope:
            scope.cancel()
            await limiter.acquire()
        with assert_checkpoints():
            await limiter.acquire()
        return scope.cancelled_caught, limiter.statistics()

    assert run_virtual(main) == (True, RateLimiterStatistics(SLOW, 0.0, 0, 1, 1))


def test_it_says_how_long_tasks_waited():
    """Summed over the tasks, with the waits that are not over, and with those of tasks that gave up."""

    async def main():
        limiter, seen = RateLimiter(SLOW), []
        async with trio.open_nursery() as nursery:
            waiters = Waiters(limiter, nursery)
            for name, timeout in (("served", None), ("gives up", 0.25), ("second", None), ("third", None)):
                await waiters.come(name, timeout=timeout)
            for _ in range(5):
                seen.append(limiter.statistics().waited)
                await trio.sleep(0.5)
        return seen

    assert run_virtual(main) == [0, 0.25 + 0.5 * 2, 0.25 + 1 * 2, 0.25 + 1 + 1.5, 0.25 + 1 + 2]


@pytest.mark.parametrize("clocks", [(0, 1000), (1000, 0)])
def test_waits_of_two_runs_add_up(clocks):
    """Each by its own clock, whatever the clock of the other showed."""
    limiter = RateLimiter(SLOW)

    async def main():
        await limiter.acquire()
        await limiter.acquire()
        return limiter.statistics().waited

    for start, waited in zip(clocks, (1, 3), strict=True):
        clock = trio.testing.MockClock(autojump_threshold=0)
        clock.jump(start)
        assert trio.run(main, clock=clock) == waited


def test_a_step_that_waits_for_two_limiters_counts_at_each():
    async def call(item):
        return item

    async def main():
        limiters = RateLimiter(SLOW), RateLimiter(LOOSE)
        limiters[0].acquire_nowait()
        await Step(call).rate_limit(*limiters)(0)
        return [each.statistics().waited for each in limiters]

    assert run_virtual(main) == [1, 1]


dyadic = st.sampled_from((Fraction(1, 4), Fraction(1, 2), 1, Fraction(3, 2), 2, 3))
instants = st.integers(0, 24).map(lambda eighths: eighths / 8)


def served(limit, came):
    """Say, exactly, when each task that came is served, or None: first come first served from a token bucket."""
    rate, level, since, free = (
        Fraction(limit.rate) / Fraction(limit.per),
        Fraction(limit.burst),
        Fraction(0),
        Fraction(0),
    )
    times = []
    for when, cost, deadline in came:
        head = max(free, Fraction(when))
        there = min(limit.burst, level + rate * (head - since))
        start = head + max(Fraction(0), (cost - there) / rate)
        if deadline is not None and deadline <= start:
            free = max(free, min(head, Fraction(deadline))) if deadline < head else Fraction(deadline)
            times.append(None)
            continue
        level, since, free = min(limit.burst, there + rate * (start - head)) - cost, start, start
        times.append(float(start))
    return times


@settings(max_examples=80, deadline=None)
@given(
    st.builds(RateLimit, st.sampled_from((0.25, 1, 2, 8)), per=st.sampled_from((0.5, 1.0, 2.0)), burst=st.just(3)),
    st.lists(st.tuples(instants, dyadic, st.none() | instants.filter(bool)), max_size=12),
    st.integers(0, 2**32),
)
def test_it_does_what_the_rule_says(limit, tasks, seed):
    """Every task is served at the exact instant of a first come first served token bucket, or gives up at its own."""
    came, got = [], {}

    async def wait(limiter, number, when, cost, patience):
        await trio.sleep_until(when)
        came.append((number, when, cost, None if patience is None else when + patience))
        with trio.move_on_after(patience if patience is not None else 1e6) as scope:
            await limiter.acquire(cost)
            got[number] = trio.current_time()
        if scope.cancelled_caught:
            assert trio.current_time() == when + patience

    async def main():
        limiter = RateLimiter(limit)
        async with trio.open_nursery() as nursery:
            for number, task in enumerate(tasks):
                nursery.start_soon(wait, limiter, number, *task)
        return limiter.statistics()

    with scheduled(Schedule(seed)):
        statistics = run_virtual(main)
    expected = zip([number for number, *_ in came], served(limit, [task for _, *task in came]), strict=True)

    assert got == {number: when for number, when in expected if when is not None}
    assert (statistics.tasks_waiting, statistics.acquired) == (0, len(got))
    assert statistics.acquired_cost == sum(tasks[number][1] for number in got)


# ---- another rate


def test_a_faster_rate_serves_who_waits_by_it():
    """From that instant on; the tokens that were there stay."""

    async def script(waiters):
        for name in ("first", "second", "third"):
            await waiters.come(name)
        await trio.sleep(0.5)
        waiters.limiter.set_rate(RateLimit(4, burst=1))

    assert with_waiters(SLOW, script) == ([("first", 0), ("second", 0.625), ("third", 0.875)], [])


def test_a_slower_rate_holds_who_waits_longer():
    """Nobody goes by the old rate afterwards."""

    async def script(waiters):
        for name in ("first", "second", "third"):
            await waiters.come(name)
        await trio.sleep(0.5)
        waiters.limiter.set_rate(RateLimit(0.25))

    assert with_waiters(SLOW, script) == ([("first", 0), ("second", 2.5), ("third", 6.5)], [])


def test_a_smaller_burst_is_refused_while_a_task_needs_more():
    """With the whole message, and nothing changed; once that task is served, or gone, it may be set."""
    message = r"^RateLimiter\.set_rate: burst must be >= 3, which a waiting task needs, not 2$"

    async def script(waiters):
        limiter = waiters.limiter
        await waiters.come("first", 4)
        dear = await waiters.come("dear", 3)
        await waiters.come("cheap", 2)
        with pytest.raises(ValueError, match=message):
            limiter.set_rate(RateLimit(100, burst=2))
        limiter.set_rate(RateLimit(2, burst=3))
        await trio.sleep(0.5)
        dear.cancel()
        await wait_all_tasks_blocked()
        limiter.set_rate(RateLimit(2, burst=2))

    assert with_waiters(LOOSE, script) == ([("first", 0), ("cheap", 1)], [("dear", 0.5)])


def test_a_burst_bounds_the_tokens_that_stay():
    """A smaller one takes what it cannot hold, a larger one gives nothing: exact thirds included."""

    async def main():
        limiter = RateLimiter(RateLimit(1, burst=9))
        await limiter.acquire(Fraction(10, 3))
        tokens = [limiter.statistics().tokens]
        for limit in (RateLimit(1, burst=20), RateLimit(3, burst=4), RateLimit(1, burst=9)):
            limiter.set_rate(limit)
            tokens.append(limiter.statistics().tokens)
        await trio.sleep(2)
        return [*tokens, limiter.statistics().tokens, limiter.rate_limit]

    assert run_virtual(main) == [17 / 3, 17 / 3, 4, 4, 6, RateLimit(1, burst=9)]


def test_a_limiter_that_was_never_used_is_full_under_any_limit():
    """Before the first call, another limit is as if it had been made with that."""

    async def main():
        limiter = RateLimiter(SLOW)
        limiter.set_rate(RateLimit(1, burst=9))
        return limiter.statistics().tokens

    assert run_virtual(main) == 9


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(instants, st.sampled_from((0.5, 1, 3, 8)), st.integers(2, 5)), max_size=4),
    st.lists(st.tuples(instants, st.integers(1, 2)), min_size=1, max_size=12),
    st.integers(0, 2**32),
)
def test_the_bound_holds_while_the_rate_changes(changes, tasks, seed):
    """In every window, what starts costs at most the largest burst there, and what came in by each rate in its time."""
    changes = [(0.0, 1, 2), *sorted(changes)]
    log = []

    async def wait(limiter, when, cost):
        await trio.sleep_until(when)
        await limiter.acquire(cost)
        log.append((trio.current_time(), cost))

    async def main():
        limiter = RateLimiter(RateLimit(1, burst=2))
        async with trio.open_nursery() as nursery:
            for when, cost in tasks:
                nursery.start_soon(wait, limiter, when, cost)
            for when, rate, burst in changes[1:]:
                await trio.sleep_until(when)
                limiter.set_rate(RateLimit(rate, burst=burst))

    with scheduled(Schedule(seed)):
        run_virtual(main)
    ends = [when for when, _, _ in changes[1:]] + [1e9]

    def income(start, end):
        spans = (
            (max(start, when), min(end, until), rate) for (when, rate, _), until in zip(changes, ends, strict=True)
        )
        return sum(Fraction(rate) * (Fraction(until) - Fraction(when)) for when, until, rate in spans if until > when)

    def burst(start, end):
        return max(b for (when, _, b), until in zip(changes, ends, strict=True) if when <= end and until >= start)

    over = [
        (log[i][0], log[j][0])
        for i in range(len(log))
        for j in range(i, len(log))
        if sum(cost for _, cost in log[i : j + 1]) > burst(log[i][0], log[j][0]) + income(log[i][0], log[j][0])
    ]

    assert over == []
    assert len(log) == len(tasks)


# ---- many runs, other code


def test_it_serves_several_runs_one_after_the_other():
    """Each has a clock that begins again: what the last call left is there, and fills from the next one on."""
    limiter = RateLimiter(RateLimit(1, burst=4))

    async def main(calls, wait):
        await trio.sleep(wait)
        times = []
        for _ in range(calls):
            await limiter.acquire()
            times.append(trio.current_time())
        return times, limiter.statistics().tokens

    assert run_virtual(main, 3, 100) == ([100, 100, 100], 1)
    assert run_virtual(main, 3, 0) == ([0, 1, 2], 0)
    assert run_virtual(main, 2, 0) == ([1, 2], 0)
    assert run_virtual(main, 2, 7) == ([8, 9], 0)


def test_a_run_that_is_cancelled_leaves_no_waiter_to_the_next():
    """Nobody stands in line forever because a run came to its end."""
    limiter = RateLimiter(SLOW)

    async def crowd():
        with trio.move_on_after(0.5):
            async with trio.open_nursery() as nursery:
                for _ in range(5):
                    nursery.start_soon(limiter.acquire)

    async def alone():
        await limiter.acquire()
        return trio.current_time(), limiter.statistics()

    run_virtual(crowd)

    assert run_virtual(alone) == (1, RateLimiterStatistics(SLOW, 0.0, 0, 2, 2))


def test_its_statistics_say_what_it_holds_and_gave():
    """At any instant, with fractions kept exact."""

    async def main():
        limiter, seen = RateLimiter(LOOSE), []
        async with trio.open_nursery() as nursery:
            seen.append(limiter.statistics())
            await limiter.acquire(Fraction(10, 3))
            seen.append(limiter.statistics())
            nursery.start_soon(limiter.acquire, 2)
            nursery.start_soon(limiter.acquire, 2)
            await trio.sleep(1)
            seen.append(limiter.statistics())
        seen.append(limiter.statistics())
        return [(s.tokens, s.tasks_waiting, s.acquired, s.acquired_cost) for s in seen], trio.current_time()

    seen, ended = run_virtual(main)

    assert seen[:3] == [(4, 0, 0, 0), (2 / 3, 0, 1, Fraction(10, 3)), (5 / 3, 2, 1, Fraction(10, 3))]
    assert seen[3][1:] == (0, 3, Fraction(22, 3))
    assert 0 <= seen[3][0] < 1e-12
    assert Fraction(10, 3) <= Fraction(ended) < Fraction(10, 3) + Fraction(1, 10**12)


def test_it_shows_its_limit():
    """In its repr, and as an attribute."""
    limiter = RateLimiter(RateLimit(8, burst=20))

    assert repr(limiter) == "RateLimiter(RateLimit(rate=8, per=1.0, burst=20))"
    assert limiter.rate_limit == RateLimit(8, burst=20)


@pytest.mark.parametrize(
    ("kind", "call", "message"),
    [
        (TypeError, lambda _: RateLimiter(8), "RateLimiter: rate_limit must be a RateLimit or a RollingLimit, not 8"),
        (
            TypeError,
            lambda r: r.set_rate(8),
            "RateLimiter.set_rate: rate_limit must be a RateLimit or a RollingLimit, not 8",
        ),
        (TypeError, lambda r: r.acquire_nowait(True), "RateLimiter: cost must be a positive int or Fraction, not True"),
        (
            TypeError,
            lambda r: r.acquire_nowait(0.25),
            "RateLimiter: cost must be a positive int or Fraction, not 0.25\nUse Fraction(1, 4).",
        ),
        (ValueError, lambda r: r.acquire_nowait(0), "RateLimiter: cost must be a positive int or Fraction, not 0"),
        (
            ValueError,
            lambda r: r.acquire_nowait(5),
            "RateLimiter: cost must be <= the burst of 4, or it could never be paid, not 5",
        ),
    ],
)
def test_what_it_refuses(kind, call, message):
    """With the value and the rule; nothing was taken, and nobody stands in line."""

    async def main():
        limiter = RateLimiter(LOOSE)
        with pytest.raises(kind) as caught:
            call(limiter)
        if "cost" in message:
            with pytest.raises(kind) as waiting:
                await limiter.acquire(eval(message.split("not ")[1].split("\n")[0]))
            assert str(waiting.value) == message
        return type(caught.value), str(caught.value), limiter.statistics()

    assert run_virtual(main) == (kind, message, RateLimiterStatistics(LOOSE, 4.0, 0, 0, 0))


# ---- Ctrl-C


class AtStep(trio.abc.Instrument):
    """Sends the signal of Ctrl-C before the n-th step of a task."""

    def __init__(self, step):
        self.step = step

    def before_task_step(self, task):
        if not self.step:
            signal.raise_signal(signal.SIGINT)
        self.step -= 1


def test_ctrl_c_at_any_step_leaves_it_whole(interrupts):
    """Nobody stays in line, what was acquired was taken from the bucket, and the next run can use it."""
    step, interrupted = 0, True

    async def wait(limiter, got):
        await limiter.acquire()
        got.append(trio.current_time())

    async def main(limiter, got):
        trio.lowlevel.add_instrument(AtStep(step))
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(wait, limiter, got)
            await limiter.acquire()

    while interrupted:
        limiter, got, interrupted = RateLimiter(RateLimit(1, burst=2)), [], False
        try:
            run_virtual(main, limiter, got)
        except BaseException as met:
            interrupted = True
            assert [type(leaf) for leaf in leaves(met)] == [KeyboardInterrupt]
        statistics = run_virtual(look, limiter)

        assert statistics.tasks_waiting == 0
        assert len(got) <= statistics.acquired <= len(got) + 2  # of main, and of the one that was struck
        assert run_virtual(fill, limiter) == statistics.acquired + 2
        step += 1

    assert step > 12


class AtLine:
    """Sends the signal of Ctrl-C at the n-th line of the limiter's own code that is run."""

    FILES = (rate_limiter.__file__, wait_queue.__file__, token_bucket.__file__)

    def __init__(self, number):
        self.number = number

    def __call__(self, frame, event, argument):
        if frame.f_code.co_filename not in self.FILES:
            return None
        if event == "line":
            self.number -= 1
            if not self.number:
                signal.raise_signal(signal.SIGINT)
        return self


@pytest.mark.parametrize("way", ["plain", "step"])
def test_ctrl_c_at_any_line_leaves_it_whole(way, interrupts):
    """Also inside of its own code: it is put off until everything is in its place."""
    number, interrupted, tracing = 1, True, sys.gettrace()

    async def call(item):
        return item

    async def main(shared):
        acquire = shared.acquire if way == "plain" else Step(call).rate_limit(shared).start()
        with trio.move_on_after(0.5):
            await acquire(1)
            await acquire(1)

    while interrupted:
        shared, interrupted = RateLimiter(RateLimit(1)), False
        try:
            sys.settrace(AtLine(number))
            run_virtual(main, shared)
        except BaseException as met:
            interrupted = True
            assert [type(leaf) for leaf in leaves(met)] == [KeyboardInterrupt]
        finally:
            sys.settrace(tracing)
        statistics = run_virtual(look, shared)

        assert (statistics.tasks_waiting, statistics.tokens) == (0, 1 - statistics.acquired)
        assert run_virtual(fill, shared) == statistics.acquired + 2
        number += 1

    assert number > 60


def leaves(error):
    """Every error that is no group, of one that may be."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for inner in error.exceptions for leaf in leaves(inner)]


async def look(limiter):
    return limiter.statistics()


async def fill(limiter):
    for _ in range(2):
        await limiter.acquire()
    return limiter.statistics().acquired


def test_ctrl_c_in_a_pipeline_leaves_a_shared_limiter_whole():
    """At every step of a run whose calls wait for it: nobody stays in line."""
    limiter = RateLimiter(RateLimit(1, burst=1))

    async def call(item):
        await trio.sleep(0.25)
        return item

    def pipeline():
        return Pipeline.from_iterable(range(4)).map(Step(call).rate_limit(limiter).timeout(9), concurrency=3)

    interrupt_everywhere(pipeline)

    assert run_virtual(look, limiter).tasks_waiting == 0
