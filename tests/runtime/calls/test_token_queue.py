"""Several limits at one call, with tasks: together, in any order, cancelled, under any schedule, changed meanwhile.

Mutants that die here: a token taken of one limiter while another has none, or kept by a task that is cancelled; limits
that are met one after the other, because they were written so; a call that waits for one limiter and holds up others at
the next, or is held up by them forever; a task that is not woken when the one before it left, became later, or must
wait for another limit while there are tokens for two; a cost that is asked of the wrong limiter, or of one only.
"""

import gc
import random
import re
from fractions import Fraction

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import Backoff, FairShare, Pipeline, RateLimit, RateLimiter, Retry, Step, threads
from funcpipe_trio._runtime.calls.limiter_keys import shared_of
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

SLOW = RateLimit(1, burst=1)


def excess(limit, starts):
    """By how much the worst window of (time, cost) is above the bound."""
    starts = sorted((Fraction(when), cost) for when, cost in starts)
    rate = Fraction(limit.rate) / Fraction(limit.per)
    return max(
        (
            sum(cost for _, cost in starts[i : j + 1]) - limit.burst - rate * (starts[j][0] - begin)
            for i, (begin, _) in enumerate(starts)
            for j in range(i, len(starts))
        ),
        default=0,
    )


class Calls:
    """What started when."""

    def __init__(self):
        self.log = []

    async def __call__(self, item):
        self.log.append((item, trio.current_time()))
        return item

    @property
    def times(self):
        return [when for _, when in self.log]


limits = st.builds(RateLimit, st.sampled_from([0.5, 1, 2, 4]), burst=st.integers(2, 5))
eighths = st.integers(0, 40).map(lambda n: n / 8)
costs = st.sampled_from([Fraction(1, 2), 1, 2])
tasks = st.tuples(
    st.sets(st.integers(0, 2), min_size=1),  # which limiters
    eighths,  # when it comes
    costs,
    st.none() | eighths.filter(bool),  # its patience
)


@settings(max_examples=150, deadline=None)
@given(st.tuples(limits, limits, limits), st.lists(tasks, max_size=14), st.integers(0, 2**32))
def test_the_bounds_are_exact_and_no_token_is_lost(three, program, seed):
    """Patient tasks are served, in order of arrival among those that need the same; others leave nothing behind."""
    limiters = [RateLimiter(limit) for limit in three]
    calls, came, gave_up = Calls(), {}, []  # in the order in which they came to the limiters

    def cost_of(number):
        came[number] = None
        return program[number][2]

    lines = {}
    for needed in {frozenset(each[0]) for each in program}:
        step = Step(calls).rate_limit(*(limiters[n] for n in sorted(needed)), cost=cost_of)
        lines[needed] = step.start()

    async def call(number, needed, when, cost, patience):
        await trio.sleep_until(when)
        with trio.move_on_after(1e6 if patience is None else patience) as scope:
            await lines[frozenset(needed)](number)
        if scope.cancelled_caught:
            gave_up.append(number)

    async def main():
        async with trio.open_nursery() as nursery:
            for number, each in enumerate(program):
                nursery.start_soon(call, number, *each)
        found = [limiter.statistics() for limiter in limiters]
        await trio.sleep(1000)
        return found, [limiter.statistics().tokens for limiter in limiters]

    with scheduled(Schedule(seed)):
        found, rested = run_virtual(main)
    started = [number for number, _ in calls.log]

    assert sorted(started + gave_up) == list(range(len(program)))
    assert all(program[number][3] is not None for number in gave_up)
    for n, limit in enumerate(three):
        taken = [(when, program[number][2]) for number, when in calls.log if n in program[number][0]]
        assert excess(limit, taken) <= 0
        assert (found[n].tasks_waiting, found[n].acquired, found[n].acquired_cost) == (
            0,
            len(taken),
            sum(cost for _, cost in taken),
        )
    for needed in lines:
        assert [n for n in started if program[n][0] == needed] == [
            n for n in came if program[n][0] == needed and n in started
        ]
    assert rested == [limit.burst for limit in three]


REQUESTS, TOKENS = RateLimit(1, burst=1), RateLimit(1, burst=10)
COSTS = [10, 10] + [Fraction(1, 100)] * 10


def tokens_of(number):
    return COSTS[number]


WRITTEN = {
    "both": lambda step: step.rate_limit(REQUESTS, TOKENS, cost=[None, tokens_of]),
    "both, by name": lambda step: step.rate_limit(TOKENS, REQUESTS, cost={TOKENS: tokens_of}),
    "one behind the other": lambda step: step.rate_limit(TOKENS, cost=tokens_of).rate_limit(REQUESTS),
    "and the other way round": lambda step: step.rate_limit(REQUESTS).rate_limit(TOKENS, cost=tokens_of),
    "in a step": lambda step: step.then(Step.pure(abs)).rate_limit(REQUESTS, TOKENS, cost=(None, tokens_of)),
    "inside a timeout": lambda step: step.rate_limit(REQUESTS).rate_limit(TOKENS, cost=tokens_of).timeout(99),
    "inside a retry": lambda step: step.rate_limit(REQUESTS).rate_limit(TOKENS, cost=tokens_of).retry(Retry(2)),
}


@pytest.mark.parametrize("write", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("seed", range(3))
def test_however_they_are_written_both_are_kept_at_the_call(write, seed):
    calls = Calls()
    with scheduled(Schedule(seed)):
        run_virtual(Pipeline.from_iterable(range(12)).map(write(Step(calls)), concurrency=12).run)

    assert excess(REQUESTS, [(when, 1) for when in calls.times]) <= 0
    assert excess(TOKENS, [(when, COSTS[number]) for number, when in calls.log]) <= 0
    assert calls.times[:2] == [0, 10]  # and no call waits longer than it must
    assert calls.times[-1] == pytest.approx(20, abs=0.2)


def test_behind_on_they_are_met_together_when_there_is_a_thread():
    """Both are behind the same wait for a place."""

    async def main():
        first, second = RateLimiter(RateLimit(1, burst=2)), RateLimiter(RateLimit(1, burst=2))
        await second.acquire(2)
        step = Step(abs).on(threads(1)).rate_limit(first).rate_limit(second).start()
        with trio.move_on_after(0.5):
            await step(-1)
        return first.statistics().acquired, second.statistics().acquired

    assert run_virtual(main) == (0, 1)


def test_a_tenant_without_tokens_holds_up_no_other():
    """All share a limit of requests, each has a budget of its own; the one that is out of it waits by itself."""

    async def main():
        requests, calls = RateLimiter(RateLimit(1, burst=1)), Calls()
        budgets = {"poor": RateLimit(1, per=10, burst=1), "rich": RateLimit(100, burst=100)}
        async with trio.open_nursery() as nursery:
            for name, budget in budgets.items():
                step = Step(calls).rate_limit(requests, budget)
                nursery.start_soon(Pipeline.from_iterable([name] * 9).map(step, concurrency=9).take(9).run)
                await wait_all_tasks_blocked()
        return calls.log

    log = run_virtual(main)

    assert [when for name, when in log if name == "poor"] == [10.0 * k for k in range(9)]
    assert [when for name, when in log if name == "rich"] == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_call_that_needs_both_is_not_kept_waiting_by_those_that_need_one():
    """However many come, each when it may start at once: it starts when its slower limiter lets it."""

    async def main():
        fast, slow, calls = RateLimiter(RateLimit(2, burst=3)), RateLimiter(RateLimit(1, per=8, burst=1)), Calls()
        one, both = Step(calls).rate_limit(fast).start(), Step(calls).rate_limit(fast, slow, cost=lambda _: 1).start()
        dear = Step(calls).rate_limit(fast, slow, cost={fast: lambda _: 3}).start()
        async with trio.open_nursery() as nursery:
            await both("both")
            nursery.start_soon(dear, "dear")
            await wait_all_tasks_blocked()
            for _ in range(60):
                nursery.start_soon(one, "one")
                await trio.sleep(0.25)
        return calls.log

    log = run_virtual(main)

    assert ("dear", 8) in log
    assert excess(RateLimit(2, burst=3), [(when, 3 if name == "dear" else 1) for name, when in log]) <= 0
    assert sum(when < 8 for name, when in log if name == "one") >= 12  # what it does not need is not kept from them


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("lines", [2, 4])
def test_what_waits_for_another_limit_leaves_no_token_lying(lines, seed):
    """Large calls wait for words, each step in a line of its own, and small ones behind them; others need no words.

    A small call that has its words waits for a large one before it; who needs none must not wait with it.
    """
    requests, words = RateLimiter(RateLimit(20, burst=5)), RateLimiter(RateLimit(10, burst=100))
    calls, choice = Calls(), random.Random(seed)

    async def use(step, sizes):
        while True:
            await step(choice.choice(sizes))

    async def main():
        with trio.move_on_after(100):
            async with trio.open_nursery() as nursery:
                for _ in range(lines):
                    step = Step(calls).rate_limit(requests, words, cost={words: lambda item: item}).start()
                    for _ in range(3):
                        nursery.start_soon(use, step, (1, 5, 100))
                step = Step(calls).rate_limit(requests).start()
                for _ in range(5):
                    nursery.start_soon(use, step, (0,))

    with scheduled(Schedule(seed)):
        run_virtual(main)
    assert len(calls.log) >= 5 + 20 * 100 - 6, "what was there, and came; less what the first of two lines may need"


@pytest.mark.parametrize("how", ["cancelled", "served"])
def test_who_waits_behind_another_is_woken_when_it_left(how):
    """In the instant in which the one it must not delay is gone, or has become later."""

    async def main():
        shared, slow, calls = RateLimiter(SLOW), RateLimiter(RateLimit(1, per=100, burst=1)), Calls()
        both, one = Step(calls).rate_limit(shared, slow).start(), Step(calls).rate_limit(shared).start()
        await slow.acquire()
        await trio.sleep(99.5)
        async with trio.open_nursery() as nursery:
            scope = trio.CancelScope()

            async def first():
                with scope:
                    await both("both")

            nursery.start_soon(first)
            await wait_all_tasks_blocked()
            nursery.start_soon(one, "one")
            await wait_all_tasks_blocked()
            assert calls.log == []  # though there is a token: it would be missed in half a second
            if how == "cancelled":
                scope.cancel()
        return calls.log

    assert run_virtual(main) == ([("one", 99.5)] if how == "cancelled" else [("both", 100), ("one", 101)])


def test_who_waits_behind_another_is_woken_when_that_became_later():
    """By another rate."""

    async def main():
        shared, slow, calls = RateLimiter(SLOW), RateLimiter(SLOW), Calls()
        both, one = Step(calls).rate_limit(shared, slow).start(), Step(calls).rate_limit(shared).start()
        await slow.acquire()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both, "both")
            await wait_all_tasks_blocked()
            await trio.sleep(0.5)
            nursery.start_soon(one, "one")
            await wait_all_tasks_blocked()
            assert calls.log == []
            slow.set_rate(RateLimit(1, per=20, burst=1))
            await wait_all_tasks_blocked()
        return calls.log

    assert run_virtual(main) == [("one", 0.5), ("both", 10.5)]


def test_a_limiter_counts_all_who_wait_for_it():
    """And its burst may not become less than the dearest of them needs."""

    async def main():
        wide, narrow = RateLimiter(RateLimit(1, burst=5)), RateLimiter(RateLimit(1, burst=5))
        await narrow.acquire(5)
        step = Step(Calls()).rate_limit(wide, narrow, cost={wide: lambda _: 4}).start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step, 0)
            await wait_all_tasks_blocked()
            nursery.start_soon(wide.acquire, 5)
            await wait_all_tasks_blocked()
            waiting = wide.statistics().tasks_waiting, narrow.statistics().tasks_waiting
            with pytest.raises(ValueError, match=r"^RateLimiter\.set_rate: burst must be >= 5, which a waiting task"):
                wide.set_rate(RateLimit(1, burst=3))
            narrow.set_rate(RateLimit(1, burst=1))
        return waiting

    assert run_virtual(main) == (2, 1)


@pytest.mark.parametrize("seed", range(10))
def test_tasks_that_name_the_same_limiters_in_other_orders_do_not_wait_for_each_other(seed):
    async def main():
        a, b, c = (RateLimiter(SLOW) for _ in range(3))
        calls = Calls()
        steps = [Step(calls).rate_limit(*each).start() for each in ((a, b), (b, a), (b, c), (c, a), (a, b, c))]
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(steps[number % 5], number)
        return calls

    with scheduled(Schedule(seed)):
        calls = run_virtual(main)

    for limiter in ((0, 1, 3, 4), (0, 1, 2, 4), (2, 3, 4)):
        assert excess(SLOW, [(when, 1) for number, when in calls.log if number % 5 in limiter]) <= 0
    assert max(calls.times) <= 19


# ---- how it is written


def test_one_call_of_rate_limit_is_the_same_as_several():
    shared = RateLimiter(SLOW)
    together = Step(abs).rate_limit(shared, TOKENS, cost={TOKENS: tokens_of})

    assert together == Step(abs).rate_limit(shared).rate_limit(TOKENS, cost=tokens_of)
    assert together.describe().splitlines()[2:] == [
        "    rate limit of 1 in 1 s, burst 1, shared",
        "    rate limit of 1 in 1 s, burst 10, an item costs what tokens_of says, at one instant with the one above",
    ]
    apart = Step(abs).rate_limit(shared).timeout(9).rate_limit(TOKENS)
    assert "at one instant" not in apart.describe()


@pytest.mark.parametrize("bad", [0, 6, 1.5])
def test_a_cost_that_one_limit_cannot_take_is_the_calls_error_and_takes_nothing(bad):
    async def main():
        first, second = RateLimiter(RateLimit(1, burst=9)), RateLimiter(RateLimit(1, burst=5))
        with pytest.raises((ValueError, TypeError), match=r"^RateLimiter: cost must be "):
            await Step(Calls()).rate_limit(first, second, cost=[None, lambda _: bad])(0)
        return first.statistics().acquired, second.statistics().acquired

    assert run_virtual(main) == (0, 0)


async def call(item):
    return item


ANOTHER = RateLimiter(SLOW)


@pytest.mark.parametrize(
    ("arguments", "keywords", "kind", "message"),
    [
        ((), {}, TypeError, "at least one limit must be given\nUse RateLimit(8), say."),
        ((SLOW, 8), {}, TypeError, "limit must be a RateLimit, a RollingLimit or a RateLimiter, not 8"),
        (
            (ANOTHER, ANOTHER),
            {},
            ValueError,
            "a limiter must be met once by a call, not twice\nUse cost= to let it take more.",
        ),
        (
            (SLOW, TOKENS),
            {"cost": [abs]},
            ValueError,
            "cost must have a function (or None) for each of the 2 limits, not 1",
        ),
        ((SLOW,), {"cost": {TOKENS: abs}}, ValueError, "cost must name limits that are given, not a RateLimit"),
        ((SLOW, TOKENS), {"cost": [None, 8]}, TypeError, "cost must be callable, not 8"),
        (
            (SLOW, TOKENS),
            {"cost": {SLOW: call}},
            TypeError,
            "cost must be a sync function, not the async function call",
        ),
        ((SLOW,), {"cost": 8}, TypeError, "cost must be callable, not 8"),
    ],
)
def test_what_cannot_be_is_refused_at_once(arguments, keywords, kind, message):
    with pytest.raises(kind, match=rf"^{re.escape('Step.rate_limit: ' + message)}$"):
        Step(call).rate_limit(*arguments, **keywords)


def test_a_limiter_twice_is_refused_however_it_is_written():
    step = Step(call).rate_limit(ANOTHER).rate_limit(SLOW)
    with pytest.raises(ValueError, match=r"^Step\.rate_limit: a limiter must be met once by a call, not twice\n"):
        step.rate_limit(ANOTHER)
    step.retry(Retry(2, backoff=Backoff(0))).rate_limit(ANOTHER)  # something lies between


class Steps(trio.abc.Instrument):
    """How many steps tasks made."""

    count = 0

    def before_task_step(self, task):
        self.count += 1


@pytest.mark.parametrize("share", [None, FairShare()], ids=["by arrival", "by key"])
@pytest.mark.parametrize("lines", [5, 60])
def test_a_token_wakes_few_however_many_wait(lines, share):
    """A task that leaves wakes the one that may be next, not the first of each line."""

    async def main():
        shared, steps = RateLimiter(RateLimit(10, burst=2), share), Steps()
        async with trio.open_nursery() as nursery:
            started = [
                Step(Calls()).rate_limit(shared, RateLimit(1000, burst=2), key=lambda item: item).start()
                for _ in range(lines)
            ]
            arrivals = [*range(lines)] * 3
            random.Random(1).shuffle(arrivals)  # another order than that of the keys' turns
            for number in arrivals:
                nursery.start_soon(started[number], number)
                await wait_all_tasks_blocked()
            trio.lowlevel.add_instrument(steps)
        trio.lowlevel.remove_instrument(steps)
        return trio.current_time(), steps.count / lines / 3

    now, steps = run_virtual(main)

    assert now == pytest.approx((3 * lines - 2) / 10)
    assert steps < 4


def test_who_needs_the_same_limits_stands_in_one_line_however_often_a_step_is_started():
    """A call asks the first of each line: a line for each start made each call as slow as there were starts."""

    async def main():
        several = RateLimiter(RateLimit(10, burst=1)), RateLimiter(RateLimit(5, burst=1))
        calls = Calls()
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(Step(calls).rate_limit(*several).start(), number)
                await wait_all_tasks_blocked()
            shared = [shared_of(limiter) for limiter in several]
            lines = [len(each.lines) for each in shared]
        gc.collect()
        return calls.log, lines, [len(each.queues) for each in shared]

    log, lines, kept = run_virtual(main)

    assert log == [(number, pytest.approx(number / 5)) for number in range(40)]  # first come, first served
    assert lines == [1, 1]
    assert kept == [0, 0]  # nobody uses it any more
