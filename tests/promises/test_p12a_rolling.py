"""P12 under a `RollingLimit`: in no window of its length do more than n calls start, over all who share the limiter.

Mutants that die here: a bucket in its place; a window that is closed at both ends, or begins anew at fixed instants; a
throttle or a key that takes its tokens when an item comes, and not when it goes; records that keys share; a cost that
counts as one; a change of kind that forgets what was started, or keeps who waits from asking again.
"""

from fractions import Fraction

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import FairShare, OnError, Pipeline, RateLimit, RateLimiter, RollingLimit, Step, fair_merge
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

from .test_p12_rate import WAYS, Api, greedy_gather, greedy_mix, greedy_plain, greedy_stage, greedy_started


def most_in_any_window(log, per):
    """Return the most that starts in any half-open window of a length."""
    return max(
        sum(cost for when, cost in log if Fraction(last) - Fraction(per) < Fraction(when) <= last) for last, _ in log
    )


def test_the_measure_sees_a_broken_bound():
    assert most_in_any_window([(0, 2), (0.5, 1), (1.5, 1)], 1) == 3
    assert most_in_any_window([(0, 2), (0.5, 1), (1.5, 1)], Fraction(1, 2)) == 2


limits = st.builds(RollingLimit, st.integers(3, 6), per=st.sampled_from((0.5, 1 / 3, 1.0, 2.7)))
users = st.tuples(
    st.sampled_from(WAYS),
    st.floats(0, 4),
    st.lists(st.sampled_from((1, 1, 1, 2, 3, Fraction(2))), min_size=1, max_size=5),
    st.just(1e6) | st.floats(0, 6),
)


@settings(max_examples=40, deadline=None)
@given(limits, st.lists(users, min_size=1, max_size=6), st.sampled_from((0, 0.25)), st.integers(0, 2**32))
def test_the_bound_holds_over_all_who_share_the_limiter(limit, patterns, seconds, seed):
    """Plain code, steps, gathers and pipelines together, cancelled at random, under random schedules: exactly."""
    api = Api(seconds)

    async def user(limiter, way, when, items, patience):
        await trio.sleep(when)
        with trio.move_on_after(patience):
            await way(limiter, api, items)

    async def main():
        limiter = RateLimiter(limit)
        async with trio.open_nursery() as nursery:
            for pattern in patterns:
                nursery.start_soon(user, limiter, *pattern)
        return limiter.statistics()

    with scheduled(Schedule(seed)):
        statistics = run_virtual(main)

    assert most_in_any_window(api.log, limit.per) <= limit.n if api.log else not statistics.acquired
    assert (statistics.acquired, statistics.acquired_cost) == (len(api.log), sum(cost for _, cost in api.log))


@pytest.mark.parametrize("use", [greedy_plain, greedy_started, greedy_gather, greedy_stage, greedy_mix])
@pytest.mark.parametrize("limit", [RollingLimit(1, per=1), RollingLimit(7, per=0.25), RollingLimit(60)], ids=str)
def test_a_greedy_caller_is_never_late(use, limit):
    """All n at once, and the (n+1)-th exactly a length after the first."""
    api = Api()

    run_virtual(use, RateLimiter(limit), api, 40)

    assert api.times == [k // limit.n * limit.per for k in range(40)]


def test_between_several_limits_all_bounds_hold_and_nothing_is_held():
    api, window = Api(), RateLimiter(RollingLimit(3, per=2))

    async def main():
        step = Step(api.call).rate_limit(window, RateLimit(2, burst=2), cost={window: lambda item: item}).start()
        async with trio.open_nursery() as nursery:
            for item in (1, 2, 1, 1, 2, 1):
                nursery.start_soon(step, item)
                await wait_all_tasks_blocked()  # they come in this order

    run_virtual(main)
    assert api.log == [(0, 1), (0, 2), (2, 1), (2, 1), (4, 2), (4, 1)]


# ---- in pipelines


class Source:
    """Items at given times, each a cost."""

    def __init__(self, gaps):
        self.gaps = gaps

    async def __aiter__(self):
        for gap in self.gaps:
            await trio.sleep(gap)
            yield 1


@settings(max_examples=40, deadline=None)
@given(limits, st.lists(st.sampled_from((0, 0, 0.1, 0.25, 3)), min_size=1, max_size=20), st.sampled_from([None, 1, 2]))
def test_what_leaves_a_throttle_keeps_to_the_bound_and_is_never_late(limit, gaps, cost):
    """Counted when an item leaves; each at the first instant from which on it may."""
    pipeline = Pipeline.from_async_iterable(lambda: Source(gaps).__aiter__())
    log = []

    async def main():
        paced = pipeline.throttle(limit, cost=cost and (lambda item: cost))
        async with paced.open() as run:
            async for _ in run:
                log.append(trio.current_time())

    run_virtual(main)
    came, expected = 0.0, []
    for number, gap in enumerate(gaps):
        came += gap
        fits = limit.n // (cost or 1)
        due = Fraction(expected[number - fits]) + Fraction(limit.per) if number >= fits else 0
        expected.append(max(came, float(due), expected[-1] if expected else 0.0))
    assert log == pytest.approx(expected, abs=1e-9)
    assert most_in_any_window([(when, cost or 1) for when in log], limit.per) <= limit.n


def test_a_throttle_of_an_iterable_lets_all_go_at_once_and_again():
    async def main():
        seen = []
        async with Pipeline.from_iterable(range(7)).throttle(RollingLimit(3, per=2)).open() as run:
            async for _ in run:
                seen.append(trio.current_time())
        return seen

    assert run_virtual(main) == [0, 0, 0, 2, 2, 2, 4]


@pytest.mark.parametrize("seed", range(3))
def test_each_key_has_a_window_of_its_own(seed):
    """Which is forgotten when nothing counts in it any more: then all may start at once again."""
    log = {"a": [], "b": []}

    async def call(item):
        log[item].append(trio.current_time())

    async def main():
        items = Pipeline.from_iterable("aaabaaab").map(
            call, key=lambda item: item, concurrency=8, per_key=8, key_rate=RollingLimit(2, per=3)
        )
        await items.run()

    with scheduled(Schedule(seed)):
        run_virtual(main)
    assert log == {"a": [0, 0, 3, 3, 6, 6], "b": [0, 0]}


def test_a_tenant_cannot_use_a_fair_merge_to_break_it():
    api = Api()

    async def main():
        tenants = {tenant: Pipeline.from_iterable([1] * 9) for tenant in range(3)}
        step = Step(api.call).rate_limit(RollingLimit(10, per=1))
        await fair_merge(tenants, FairShare({0: 3})).map(step, concurrency=8).run()

    run_virtual(main)
    assert api.times == [k // 10 for k in range(27)]


# ---- costs


HALF = Fraction(1, 2)
RULE = "cost must be a whole number under a RollingLimit: it counts as so many starts, not"


def test_a_cost_that_is_not_whole_is_refused():
    async def main():
        limiter = RateLimiter(RollingLimit(3))
        for call in (
            limiter.acquire,
            limiter.acquire_nowait,
            Step(Api().call).rate_limit(limiter, cost=lambda _: HALF),
        ):
            with pytest.raises(ValueError, match=f"^RateLimiter: {RULE} Fraction\\(1, 2\\)"):
                result = call(HALF)
                if result is not None:
                    await result
        return limiter.statistics().acquired

    assert run_virtual(main) == 0


def test_so_is_that_of_a_throttled_item():
    async def main(cost):
        return await Pipeline.from_iterable([1]).throttle(RollingLimit(3), cost=lambda _: cost).collect()

    assert [run_virtual(main, cost) for cost in (1, 2.0, Fraction(3))] == [[1]] * 3
    for cost in (0.5, HALF):
        with pytest.raises(ValueError, match=f"^throttle 'throttle': {RULE} "):
            run_virtual(main, cost)


def test_what_costs_more_than_n_could_never_start():
    async def main():
        with pytest.raises(ValueError, match=r"^RateLimiter: cost must be <= the burst of 3, or it "):
            await RateLimiter(RollingLimit(3)).acquire(4)

    run_virtual(main)


# ---- another kind of limit


def with_waiters(limit, change):
    """Three take what they can at time 0 and wait for more; at 0.5 the limit is changed."""
    limiter, log = RateLimiter(limit), []

    async def user(cost):
        await limiter.acquire(cost)
        log.append((trio.current_time(), cost))

    async def main():
        async with trio.open_nursery() as nursery:
            for cost in (2, 1, 2):
                nursery.start_soon(user, cost)
                await trio.testing.wait_all_tasks_blocked()
            await trio.sleep(0.5)
            limiter.set_rate(change)

    run_virtual(main)
    return log


def test_from_a_rate_to_a_window_what_was_there_stays():
    """Half a token is no start, so all three count as made at the change."""
    assert with_waiters(RateLimit(1, burst=2), RollingLimit(3, per=1)) == [(0, 2), (1.5, 1), (1.5, 2)]
    assert with_waiters(RateLimit(1, burst=3), RollingLimit(3, per=1)) == [(0, 2), (0, 1), (1.5, 2)]


def test_from_a_window_to_a_rate_what_was_there_stays():
    assert with_waiters(RollingLimit(2, per=10), RateLimit(2, burst=3)) == [(0, 2), (1.0, 1), (2.0, 2)]


def test_what_waits_with_a_part_of_a_token_takes_a_whole_start():
    async def main():
        limiter = RateLimiter(RateLimit(1))
        await limiter.acquire()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(limiter.acquire, HALF)
            await trio.testing.wait_all_tasks_blocked()
            limiter.set_rate(RollingLimit(2, per=4))
        return trio.current_time(), limiter.statistics().tokens

    assert run_virtual(main) == (4.0, 1.0)


def test_a_smaller_n_than_someone_waits_for_is_refused():
    async def main():
        limiter = RateLimiter(RateLimit(1, burst=3))
        await limiter.acquire(3)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(limiter.acquire, 2)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ValueError, match=r"^RateLimiter\.set_rate: burst must be >= 2, "):
                limiter.set_rate(RollingLimit(1))
            nursery.cancel_scope.cancel()
        return limiter.rate_limit

    assert run_virtual(main) == RateLimit(1, burst=3)


def test_of_a_failed_item_a_start_counts_as_of_any_other():
    api = Api(fails=lambda number: number % 2)

    async def main():
        step = Step(api.call).rate_limit(RollingLimit(2, per=1))
        await Pipeline.from_iterable([1] * 5).map(step, concurrency=5, on_error=OnError.skip()).run()

    run_virtual(main)
    assert api.times == [0, 0, 1, 1, 2]
