"""`Step.rate_limit(limit, per_key=fn)`: each key has the limit for itself, at the call.

Mutants that die here: one meter for all keys; tokens of a key that are taken before the shared limit is met, or a
shared token that is held while a key waits; a call that overtakes one of its key; a key that is forgotten too early, or
never; a new key that waits although there is room; a place that a cancelled call keeps, at any of the three waits; a
pause or a settlement of another key, or one that the call in the shared line does not notice.
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


def first(item):
    return item[0]


class Api:
    """Writes down when each call began."""

    def __init__(self, seconds=0):
        self.seconds, self.log = seconds, []

    async def call(self, item):
        self.log.append((trio.current_time(), item))
        await trio.sleep(self.seconds)
        return item

    def times(self, key):
        return [when for when, item in self.log if item[0] == key]


def keeps(limit, times):
    """Whether calls at these times keep to a limit: in fractions, over every window."""
    times = [Fraction(time) for time in times]
    if isinstance(limit, RollingLimit):
        return all(late - early >= Fraction(limit.per) for early, late in zip(times, times[limit.n :], strict=False))
    rate = Fraction(limit.rate) / Fraction(limit.per)
    return all(
        last - begin + 1 <= limit.burst + rate * (times[last] - times[begin])
        for begin in range(len(times))
        for last in range(begin, len(times))
    )


def test_the_measure_sees_a_broken_bound():
    assert not keeps(RollingLimit(2, per=1), [0, 0.5, 0.9])
    assert not keeps(RateLimit(1, burst=2), [0, 0, 0.5])
    assert keeps(RateLimit(1, burst=2), [0, 0, 1])


# ---- the bounds


async def stage(step, items):
    await Pipeline.from_iterable(items).map(step, concurrency=3).run()


async def at_once(step, items):
    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(step, item)


async def one_by_one(step, items):
    for item in items:
        await step(item)


own = st.sampled_from([RateLimit(2, burst=2), RateLimit(0.7), RollingLimit(2, per=1), RateLimit(1 / 3, burst=3)])
users = st.tuples(
    st.sampled_from((stage, at_once, one_by_one)),
    st.floats(0, 4),
    st.text("abcd", min_size=1, max_size=6),
    st.sampled_from((math.inf, math.inf, 0, 1.5)),
)


@settings(max_examples=80, deadline=None)
@given(
    own,
    st.none() | own,
    st.sampled_from((None, RateLimit(3, burst=2), RollingLimit(3, per=0.5))),
    st.integers(1, 4),
    st.lists(users, min_size=1, max_size=5),
    st.integers(0, 2**32),
)
def test_the_bound_of_each_key_holds_and_that_of_all(limit, second, shared, max_keys, patterns, seed):
    """Whoever calls, whoever is cancelled, in any order of tasks; every call that is not cancelled is made."""
    api, calls, done = Api(), [], []

    async def user(step, number, way, when, keys, patience):
        items = [(key, number, k) for k, key in enumerate(keys)]
        await trio.sleep(when)
        with trio.move_on_after(patience) as scope:
            await way(step, items)
        done.append(scope.cancelled_caught)
        if patience == math.inf:
            calls.extend(items)

    async def main():
        limits = [limit] if second is None else [limit, second]
        step = Step(api.call).rate_limit(*limits, per_key=first, max_keys=max_keys)
        if shared is not None:
            step = step.rate_limit(RateLimiter(shared))
        started = step.start()
        async with trio.open_nursery() as nursery:
            for number, pattern in enumerate(patterns):
                nursery.start_soon(user, started, number, *pattern)

    with scheduled(Schedule(seed)):
        run_virtual(main)
    for key in "abcd":
        assert keeps(limit, api.times(key))
        assert second is None or keeps(second, api.times(key))
    assert shared is None or keeps(shared, [when for when, _ in api.log])
    assert {item for _, item in api.log} >= set(calls)
    assert (len(api.log), len(done)) == (len({item for _, item in api.log}), len(patterns))


def test_one_key_is_never_late_and_in_order():
    api = Api()

    run_virtual(at_once, Step(api.call).rate_limit(RateLimit(2, burst=3), per_key=first).start(), ["a"] * 7)

    assert api.times("a") == [0, 0, 0, 0.5, 1, 1.5, 2]


def with_order(step, arrivals):
    """Let calls come one after the other, each when all that came wait; give when each began."""

    async def main():
        async with trio.open_nursery() as nursery:
            for item in arrivals:
                nursery.start_soon(step, item)
                await trio.testing.wait_all_tasks_blocked()

    run_virtual(main)


def test_a_key_that_waits_holds_up_no_other_key():
    api = Api()

    with_order(Step(api.call).rate_limit(RateLimit(1), per_key=first).start(), ["a0", "a1", "a2", "b0", "b1", "c0"])

    assert sorted(api.log) == [(0, "a0"), (0, "b0"), (0, "c0"), (1, "a1"), (1, "b1"), (2, "a2")]


def test_what_waits_for_its_key_holds_nothing_of_the_shared_limit():
    """With one token a second for all, b and c get those that the calls of a cannot use yet."""
    api = Api()

    async def main():
        shared = RateLimiter(RateLimit(1))
        step = Step(api.call).rate_limit(RateLimit(0.25), per_key=first).rate_limit(shared).start()
        async with trio.open_nursery() as nursery:
            for item in ("a0", "a1", "b0", "c0", "b1"):
                nursery.start_soon(step, item)
                await trio.testing.wait_all_tasks_blocked()

    run_virtual(main)
    assert api.log == [(0, "a0"), (1, "b0"), (2, "c0"), (4, "a1"), (5, "b1")]


def test_who_has_the_tokens_of_its_key_keeps_them_in_the_shared_line():
    """a waits for the shared limit for long, and its key fills up meanwhile no further than its burst."""
    api = Api()

    async def main():
        shared = RateLimiter(RateLimit(0.25))
        shared.acquire_nowait()
        step = Step(api.call).rate_limit(RateLimit(1), shared, per_key=first).start()
        async with trio.open_nursery() as nursery:
            for item in ("a0", "a1", "b0"):
                nursery.start_soon(step, item)
                await trio.testing.wait_all_tasks_blocked()

    run_virtual(main)
    assert api.log == [(4, "a0"), (8, "b0"), (12, "a1")]


def test_limits_by_different_keys_are_all_kept():
    api = Api()

    def last(item):
        return item[-1]

    async def main():
        step = Step(api.call).rate_limit(RateLimit(1), per_key=first).rate_limit(RateLimit(0.5), per_key=last)
        await at_once(step.start(), [a + b for a in "ab" for b in "xyz"])

    run_virtual(main)
    assert len(api.log) == 6
    for key in "ab":
        assert keeps(RateLimit(1), api.times(key))
    for key in "xyz":
        assert keeps(RateLimit(0.5), [when for when, item in api.log if item[-1] == key])
    assert max(when for when, _ in api.log) <= 10  # whichever of the keys goes first


def test_with_places_beside_both_are_taken_at_one_instant():
    api = Api(seconds=3)

    async def main():
        places = PlaceLimiter(1)
        step = Step(api.call).rate_limit(RateLimit(1), per_key=first).places(places).start()
        await at_once(step, ["a0", "b0", "a1"])
        async with places.hold():  # it was given back
            return trio.current_time()

    assert run_virtual(main) == 9
    assert [when for when, _ in api.log] == [0, 3, 6]


def test_a_cost_counts_and_one_that_is_too_much_fails_its_item_only():
    api = Api()

    async def main():
        step = Step(api.call).rate_limit(RateLimit(1, burst=3), per_key=first, cost=lambda item: item[1])
        await gather(step, [("a", 3), ("a", 2), ("b", 3)], concurrency=3)
        with pytest.raises(ValueError, match=r"^Step\.rate_limit: cost must be <= the burst of 3, or it could never"):
            await step(("a", 4))

    run_virtual(main)
    assert sorted(api.log) == [(0, ("a", 3)), (0, ("b", 3)), (2, ("a", 2))]


# ---- how many keys


def test_a_new_key_waits_until_one_is_full():
    """Two keys are remembered, and full again 1 s after a call; a1 is a call of one of them, and needs no room."""
    api = Api()

    with_order(
        Step(api.call).rate_limit(RateLimit(1), per_key=first, max_keys=2).start(), ["a0", "b0", "c0", "d0", "a1"]
    )

    assert sorted(api.log) == [(0, "a0"), (0, "b0"), (1, "a1"), (1, "c0"), (2, "d0")]


def test_those_without_room_come_in_the_order_of_their_keys_and_in_that_of_their_calls():
    api = Api()

    with_order(Step(api.call).rate_limit(RateLimit(1), per_key=first, max_keys=1).start(), ["a0", "b0", "c0", "b1"])

    assert api.log == [(0, "a0"), (1, "b0"), (2, "b1"), (3, "c0")]


def test_who_is_cancelled_while_it_waits_for_room_is_in_nobodys_way():
    api = Api()

    async def main():
        step = Step(api.call).rate_limit(RateLimit(1), per_key=first, max_keys=1).start()
        async with trio.open_nursery() as nursery:
            await step("a0")
            with trio.move_on_after(0.5):
                await step("b0")
            nursery.start_soon(step, "c0")

    run_virtual(main)
    assert api.log == [(0, "a0"), (1, "c0")]


def test_many_keys_take_no_more_room_than_is_allowed():
    api = Api()

    async def main():
        step = Step(api.call).rate_limit(RateLimit(10), per_key=lambda item: item % 500, max_keys=20)
        return await Pipeline.from_iterable(range(1500)).map(step, concurrency=50, ordered=False).run()

    report = run_virtual(main)
    assert (report.delivered, len(api.log)) == (1500, 1500)


# ---- where a call may be cancelled


@pytest.mark.parametrize("patience", [0, 0.5, 1.5, 2.5, 3.5])
def test_a_call_that_is_cancelled_in_any_line_loses_nothing(patience):
    """It waits for its turn, then for its key, then for the shared limit; the others come as if it had not been."""
    api = Api()

    async def main():
        shared = RateLimiter(RateLimit(0.25))
        step = Step(api.call).rate_limit(RateLimit(1), shared, per_key=first).start()
        async with trio.open_nursery() as nursery:
            for item in ("a0", "a1"):
                nursery.start_soon(step, item)
                await trio.testing.wait_all_tasks_blocked()
            with trio.move_on_after(patience):
                await step("a2")
            nursery.start_soon(step, "b0")

    run_virtual(main)
    by_then = ["a1", "b0"] if patience > 1 else ["b0", "a1"]  # the tokens of a1's key are there at 1
    assert api.log == [(0, "a0"), *zip((4, 8), by_then, strict=True)]


# ---- pauses and settlements


class TooMany(Exception):
    pass


RETRY = Retry(2, TooMany, Backoff(0, jitter=0), retry_after=lambda error: 5, pauses_limit=True)


def refusing(api, item):
    """A call that is refused once."""
    refused = []

    async def call(each):
        await api.call(each)
        if each == item and not refused:
            refused.append(each)
            raise TooMany

    return call


def test_a_pause_is_one_of_the_key_that_was_told():
    api = Api(seconds=0.25)
    call = refusing(api, "a0")

    async def main():
        step = Step(call).rate_limit(RateLimit(10), per_key=first).retry(RETRY).start()
        async with trio.open_nursery() as nursery:
            for item in ("a0", "b0"):
                nursery.start_soon(step, item)
            await trio.sleep(1)
            for item in ("a1", "b1"):
                nursery.start_soon(step, item)

    run_virtual(main)
    assert (api.times("b"), min(api.times("a")[1:])) == ([0, 1], 5.25)
    assert len(api.times("a")) == 3


def test_of_limits_by_different_keys_both_keys_pause():
    api = Api()
    call = refusing(api, "ax")

    async def main():
        one = Step(call).rate_limit(RateLimit(10), per_key=first)
        started = one.rate_limit(RateLimit(10), per_key=lambda each: each[1]).retry(RETRY).start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(started, "ax")
            await trio.sleep(1)
            for item in ("ay", "bx", "cz"):
                nursery.start_soon(started, item)

    run_virtual(main)
    began = {item: [when for when, each in api.log if each == item] for item in ("ax", "ay", "bx", "cz")}
    assert began["cz"] == [1]
    assert all(when >= 5 for when in [*began["ax"][1:], *began["ay"], *began["bx"]])


def test_a_pause_of_a_key_is_also_one_of_the_limits_beside_inside_the_retry():
    api = Api(seconds=0.25)
    call = refusing(api, "a0")

    async def main():
        shared = RateLimiter(RateLimit(0.5))
        last = Retry(1, TooMany, retry_after=lambda error: 5, pauses_limit=True)
        step = Step(call).rate_limit(RateLimit(10), per_key=first).rate_limit(shared).retry(last).start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(forgiving, step, "a0")
            await trio.sleep(0.2)
            for item in ("a1", "b0"):
                nursery.start_soon(step, item)
                await trio.testing.wait_all_tasks_blocked()
        return shared.statistics().acquired

    async def forgiving(step, item):
        with suppress(TooMany):
            await step(item)

    assert run_virtual(main) == 3
    assert [(round(when, 9), item) for when, item in api.log] == [(0, "a0"), (5.25, "b0"), (7.25, "a1")]


@pytest.mark.parametrize("leaves", [False, True])
def test_a_call_in_a_task_of_its_own_tells_its_callers_which_key_to_pause(leaves):
    """Those that share it by a coalesce, and try again: also if the one that came first has left."""
    api = Api(seconds=1)
    call = refusing(api, "a0")

    async def main():
        step = Step(call).rate_limit(RateLimit(9), per_key=first).coalesce(str).retry(RETRY)
        async with step.start() as started, trio.open_nursery() as nursery:
            nursery.start_soon(one, started, "a0", 0.5 if leaves else math.inf)
            nursery.start_soon(one, started, "a0", math.inf)
            await trio.sleep(2)
            for item in ("a1", "b0"):
                nursery.start_soon(started, item)

    async def one(started, item, patience):
        with trio.move_on_after(patience):
            await started(item)

    run_virtual(main)
    assert next((when, item) for when, item in api.log if item != "a0") == (2, "b0")
    assert all(when >= 6 for when, item in api.log[1:] if item[0] == "a")


def test_what_a_call_has_really_cost_counts_for_its_key():
    """a0 costs 4 and not 2, so its key owes 2; b has no part in that. What b0 took too much comes back at once."""
    api = Api(seconds=0.5)

    def really(item):
        return {"a0": 4, "b0": 1}.get(item, 2)

    async def main():
        step = Step(api.call).rate_limit(RateLimit(1, burst=2), per_key=first, cost=lambda _: 2, settle=really).start()
        async with trio.open_nursery() as nursery:
            for item in ("a0", "b0"):
                nursery.start_soon(step, item)
            await trio.sleep(1)
            for item in ("a1", "b1"):
                nursery.start_soon(step, item)

    run_virtual(main)
    assert sorted(api.log) == [(0, "a0"), (0, "b0"), (1, "b1"), (4, "a1")]


def test_who_waits_for_the_shared_limit_leaves_its_line_when_its_key_is_charged():
    api = Api(seconds=2)

    async def main():
        shared = RateLimiter(RateLimit(0.25))
        step = (
            Step(api.call)
            .rate_limit(RateLimit(1, burst=2), per_key=first, settle=lambda item: 9 if item == "a0" else 1)
            .rate_limit(shared)
            .start()
        )
        async with trio.open_nursery() as nursery:
            for item in ("a0", "a1", "b0"):
                nursery.start_soon(step, item)
                await trio.testing.wait_all_tasks_blocked()

    run_virtual(main)
    assert api.log == [(0, "a0"), (4, "b0"), (9, "a1")]


@pytest.mark.parametrize("refused", ["own", "shared"])
def test_a_settlement_that_is_refused_settles_nothing(refused):
    """Neither for the key nor at the limit beside: of 9 tokens one is gone, so 8 more calls start at once."""
    costs = {"own": 5, "shared": 5} | {refused: -1}

    async def main():
        shared = RateLimiter(RateLimit(1, burst=9))
        own = Step(Api().call).rate_limit(RateLimit(1, burst=9), per_key=first, settle=lambda _: costs["own"])
        step = own.rate_limit(shared, settle=lambda _: costs["shared"]).start()
        with pytest.raises(ValueError, match="settle must be"):
            await step("a")
        tokens = shared.statistics().tokens
        costs.update(own=1, shared=1)
        await at_once(step, ["a"] * 8)
        return tokens, trio.current_time()

    assert run_virtual(main) == (8, 0)


@pytest.mark.parametrize("told", ["settled", "paused"])
def test_who_waits_for_room_goes_on_when_an_earlier_call_brings_its_key_back(told):
    """The meters of a forgotten key count again, and fill the room that another key was the first to wait for."""
    log = []

    async def call(item):
        key, _comes, seconds = item
        log.append((trio.current_time(), key))
        await trio.sleep(seconds)
        if told == "paused" and seconds:
            raise TooMany
        return 3 if seconds else 1

    step = Step(call).rate_limit(RateLimit(1), per_key=first, max_keys=1, settle=lambda cost: cost)
    step = step.retry(Retry(1, TooMany, retry_after=lambda error: 2, pauses_limit=True))

    async def main():
        async def one(item):
            await trio.sleep(item[1])
            with suppress(TooMany):
                await started(item)

        started = step.start()
        async with trio.open_nursery() as nursery:
            for item in [("a", 0, 10), ("b", 9.5, 0), ("c", 9.625, 0), ("a", 9.75, 0)]:
                nursery.start_soon(one, item)

    run_virtual(main)
    assert log == [(0, "a"), (9.5, "b"), (12, "a"), (13, "c")]


# ---- in a run


def test_the_report_says_what_was_waited_for():
    api = Api()

    async def main():
        step = Step(api.call).rate_limit(RateLimit(1), per_key=first)
        return await Pipeline.from_iterable(["a0", "a1", "b0"]).map(step, concurrency=3, name="call").run()

    report = run_virtual(main)
    assert report.stages[-1].policies.waited_rate == 1


def test_each_run_begins_anew_and_a_started_step_does_not():
    api = Api()
    step = Step(api.call).rate_limit(RateLimit(1), per_key=first)
    plan, started = Pipeline.from_iterable(["a0"]).map(step), Pipeline.from_iterable(["b0"]).map(step.start())

    async def main():
        for each in (plan, plan, started, started):
            await each.run()

    run_virtual(main)
    assert api.log == [(0, "a0"), (0, "a0"), (0, "b0"), (1, "b0")]


def test_on_a_runner_a_call_counts_when_it_has_its_thread():
    async def main():
        step = Step(abs).on(threads(2)).rate_limit(RateLimit(1), per_key=lambda item: item % 2).timeout(50)
        await gather(step, [1, 2, 3], concurrency=3)
        return trio.current_time()

    assert run_virtual(main) >= 1


def test_a_key_that_fails_or_has_no_hash_is_the_failure_of_its_item():
    api = Api()

    def key_of(item):
        return [] if item == "b" else {"a": 1}[item]

    async def main():
        step = Step(api.call).rate_limit(RateLimit(1), per_key=key_of)
        results = Pipeline.from_iterable("abc").map(step, on_error=OnError.emit())
        return [getattr(each, "error", each) for each in await results.collect()]

    one, no_hash, missing = run_virtual(main)
    assert (one, type(no_hash), type(missing)) == ("a", TypeError, KeyError)
    assert api.log == [(0, "a")]


# ---- what is refused


@pytest.mark.parametrize(
    ("kind", "arguments", "how", "message"),
    [
        (TypeError, (RateLimit(1),), {"per_key": 5}, "per_key must be callable, not 5"),
        (TypeError, (RateLimit(1),), {"per_key": Api().call}, "per_key must be a sync function, not "),
        (ValueError, (RateLimit(1),), {"per_key": first, "max_keys": 0}, "max_keys must be >= 1, not 0"),
        (TypeError, (RateLimit(1),), {"per_key": first, "max_keys": None}, "max_keys must be an int >= 1, not None"),
        (TypeError, (RateLimit(1),), {"max_keys": 5}, "max_keys must come with per_key"),
        (
            ValueError,
            (RateLimiter(RateLimit(1)),),
            {"per_key": first},
            "per_key must be given with a limit that each key can have for itself\nUse RateLimit(5), say",
        ),
    ],
)
def test_what_it_refuses(kind, arguments, how, message):
    with pytest.raises(kind) as caught:
        Step(Api().call).rate_limit(*arguments, **how)
    assert str(caught.value).startswith(f"Step.rate_limit: {message}")
    assert not isinstance(caught.value, PlanError)


def test_the_plan_says_it():
    step = Step(Api().call).rate_limit(RateLimit(5), per_key=first, max_keys=7)
    lines = step.rate_limit(RollingLimit(9), per_key=first).describe().splitlines()

    assert [line.strip() for line in lines[-2:]] == [
        "rate limit of 5 in 1 s, burst 1 for each first (at most 7)",
        "rate limit of 9 in any 60 s for each first (at most 10000), at one instant with the one above",
    ]
