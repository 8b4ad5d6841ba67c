"""Limiters with shares: who gets tokens or a place, and when exactly; judged by a model of the promise.

The model is a queue of keys by start-time tags in Fractions, and a bucket in Fractions; it knows no tasks.

Mutants that die here: a place that a cancelled task keeps; a first task that is not woken when it becomes the first by
its key; a wake-up that goes to the one that was first; a charge before the tokens are there, or after another step; a
weight that counts only for tasks that come later; places given back twice, or not on a failure; tokens of one limit
taken while the other is waited for; first tasks that stand back for one another for ever; a debt that another key pays,
or that nobody pays; a refund that wakes nobody, or that lifts a bucket above its burst.
"""

import random
from collections import Counter, defaultdict
from contextlib import suppress
from fractions import Fraction
from itertools import combinations

import pytest
import trio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import FairShare, PlaceLimiter, RateLimit, RateLimiter, RollingLimit, Step
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests.sansio.test_fair_lines import Model

KEYS = "abcd"
MANY = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from(KEYS), st.integers(1, 3), st.none() | st.integers(0, 300)),
    min_size=1,
    max_size=24,
)


def moments(calls):
    """Make instants of which no two are equal, nor differ by whole tokens: (comes, key, cost, gives up), in order."""
    made = []
    for number, (at, key, cost, patience) in enumerate(calls):
        comes = Fraction(at, 64) + Fraction(number, 4096)
        gives_up = None if patience is None else comes + Fraction(patience, 64) + Fraction(1, 8192)
        made.append((comes, key, cost, gives_up, number))
    return sorted(made)


def expected(calls, weight_of, rate, burst):
    """Return who got its tokens when: the first by the model, at the first instant at which the bucket has them."""
    model, level, since = Model(weight_of), Fraction(burst), Fraction(0)
    events = [(comes, "comes", call) for call in calls for comes in call[:1]]
    events += [(call[3], "gives up", call) for call in calls if call[3] is not None]
    events.sort(key=lambda event: event[0])
    got, now, cost_of = [], Fraction(0), {call[4]: call[2] for call in calls}

    def serve(until):
        nonlocal level, since, now
        while (place := model.first(0)) is not None:
            cost = cost_of[place[2]]
            held = min(Fraction(burst), level + rate * (now - since))
            ready = now + max(Fraction(0), (cost - held) / rate)
            if ready > until:
                return
            now = ready
            level, since = min(Fraction(burst), level + rate * (now - since)) - cost, now
            model.serve(0, cost)
            got.append((float(now), place[2]))

    for at, what, call in events:
        serve(at)
        now = at
        if what == "comes":
            model.come(0, call[1], call[4])
        elif (place := next((place for place in model.waiting if place[2] == call[4]), None)) is not None:
            model.leave(place)
        serve(at)
    serve(10**9)
    return got


def real(calls, limiter):
    async def main():
        got = []

        async def call(comes, key, cost, gives_up, number):
            await trio.sleep_until(float(comes))
            with trio.CancelScope(deadline=float("inf") if gives_up is None else float(gives_up)):
                await limiter.acquire(cost, key)
                got.append((trio.current_time(), number))

        async with trio.open_nursery() as nursery:
            for each in calls:
                nursery.start_soon(call, *each)
        return got, limiter.statistics()

    return run_virtual(main)


@given(MANY, st.tuples(*[st.sampled_from([1, 2, 4])] * 4), st.sampled_from([1, 2, 4]), st.integers(3, 5))
@settings(max_examples=120, deadline=None)
def test_who_gets_tokens_and_when(many, weights, rate, burst):
    """To the tick, with calls that give up: nothing is idle while one waits, and who gave up cost nobody anything."""
    calls, weight_of = moments(many), dict(zip(KEYS, weights, strict=True))
    got, statistics = real(calls, RateLimiter(RateLimit(rate, burst=burst), FairShare(weight_of)))
    assert got == expected(calls, weight_of, rate, burst)
    assert (statistics.tasks_waiting, statistics.acquired) == (0, len(got))
    counted = Counter()
    for _, number in got:
        counted[next(key for _, key, _, _, other in calls if other == number)] += 1
    assert {each.key: each.acquired for each in statistics.keys if each.acquired} == counted


@given(MANY, st.integers(1, 3), st.sampled_from([1, 2, 4]))
@settings(max_examples=100, deadline=None)
def test_without_shares_keys_are_ignored(many, burst, rate):
    calls = moments([(at, key, min(cost, burst), patience) for at, key, cost, patience in many])
    one = [(at, "a", cost, patience, number) for at, _, cost, patience, number in calls]
    assert real(calls, RateLimiter(RateLimit(rate, burst=burst)))[0] == expected(one, {"a": 1}, rate, burst)


# ---- places


def expected_places(calls, weight_of, size):
    """The same for places, which a call holds for as long as it costs."""
    model, free, now = Model(weight_of), size, Fraction(0)
    events = [(call[0], 0, call) for call in calls] + [(call[3], 1, call) for call in calls if call[3] is not None]
    got = []
    while events:
        events.sort(key=lambda event: event[:2])
        now, what, call = events.pop(0)
        if what == 0:
            model.come(0, call[1], call[4])
        elif what == 2:
            free += 1
        elif (place := next((place for place in model.waiting if place[2] == call[4]), None)) is not None:
            model.leave(place)
        while free and (place := model.first(0)) is not None:
            model.serve(0, 1)
            free -= 1
            got.append((float(now), place[2]))
            served = next(each for each in calls if each[4] == place[2])
            ends = now + served[2] + Fraction(1, 3 * 8192)
            if served[3] is not None:
                ends = min(ends, max(served[3], now))
            events = [event for event in events if event[1:] != (1, served)] + [(ends, 2, served)]
    return got


@given(MANY, st.tuples(*[st.sampled_from([1, 2, 4])] * 4), st.integers(1, 3))
@settings(max_examples=120, deadline=None)
def test_who_gets_a_place_and_when(many, weights, size):
    """A place is held until the block ends, also if it is cancelled; then the next one has it at that instant."""
    calls, weight_of = moments(many), dict(zip(KEYS, weights, strict=True))
    limiter = PlaceLimiter(size, FairShare(weight_of))

    async def main():
        got, inside = [], 0

        async def call(comes, key, cost, gives_up, number):
            nonlocal inside
            await trio.sleep_until(float(comes))
            with trio.CancelScope(deadline=float("inf") if gives_up is None else float(gives_up)):
                async with limiter.hold(key):
                    got.append((trio.current_time(), number))
                    inside += 1
                    assert inside <= size
                    try:
                        await trio.sleep(cost + 1 / (3 * 8192))
                    finally:
                        inside -= 1

        async with trio.open_nursery() as nursery:
            for each in calls:
                nursery.start_soon(call, *each)
        return got, limiter.statistics()

    got, statistics = run_virtual(main)
    assert [number for _, number in got] == [number for _, number in expected_places(calls, weight_of, size)]
    assert [at for at, _ in got] == pytest.approx([at for at, _ in expected_places(calls, weight_of, size)])
    assert (statistics.held, statistics.tasks_waiting, statistics.acquired) == (0, 0, len(got))


@pytest.mark.parametrize("seed", range(10))
def test_places_are_changed_at_run_time(seed):
    async def main():
        limiter, inside, most = PlaceLimiter(1), 0, []

        async def call():
            nonlocal inside
            async with limiter.hold():
                inside += 1
                most.append((trio.current_time(), inside))
                await trio.sleep(1)
                inside -= 1

        async with trio.open_nursery() as nursery:
            for _ in range(9):
                nursery.start_soon(call)
            await trio.sleep(1.5)
            limiter.set_places(4)
            await wait_all_tasks_blocked()
            assert inside == 4
            limiter.set_places(2)
        return (
            max(count for at, count in most if at < 1.5),
            max(count for at, count in most if at > 3),
            trio.current_time(),
        )

    with scheduled(Schedule(seed)):
        assert run_virtual(main) == (1, 2, 4.5)


# ---- several limits


SETS = st.lists(
    st.tuples(
        st.sets(st.integers(0, 2), min_size=1),
        st.sampled_from(KEYS),
        st.integers(0, 60),
        st.none() | st.integers(0, 90),
    ),
    min_size=1,
    max_size=30,
)


ALL = {0, 1, 2}
CHARGED_ELSEWHERE = [
    (ALL, "c", 23, None),
    (ALL, "d", 9, None),
    ({2}, "a", 8, None),
    (ALL, "c", 8, None),
    (ALL, "d", 14, None),
]
"""A key is served in a line that another limit orders; then another key is the first of its own line."""


@given(SETS, st.tuples(*[st.booleans()] * 3), st.integers(0, 3), st.booleans())
@example(CHARGED_ELSEWHERE, (True, False, True), 2, False)
@settings(max_examples=150, deadline=None)
def test_calls_of_several_limits_neither_break_one_nor_stand_still(many, shared, seed, has_places):
    """Any sets of three limits, of which any have shares: all calls are made in the end, each within every limit."""
    weights = FairShare({"a": 3, "b": 2})
    limits = [RateLimit(2, burst=2), RateLimit(1, burst=3), RollingLimit(2, per=2)]
    starts, inside = defaultdict(list), 0

    async def main():
        limiters = [RateLimiter(each, weights if has else None) for each, has in zip(limits, shared, strict=True)]
        places = PlaceLimiter(2, weights)

        async def note(item):
            nonlocal inside
            numbers, _key = item
            for number in numbers:
                starts[number].append(Fraction(trio.current_time()))
            inside += 1
            assert inside <= (2 if has_places else 99)
            try:
                await trio.sleep(0.25)
            finally:
                inside -= 1

        steps = {}

        async def call(numbers, key, comes, patience):
            order = tuple(sorted(numbers, key=lambda number: (number + comes) % 3))  # as different steps may name them
            if order not in steps:
                step = Step(note).rate_limit(*[limiters[number] for number in order], key=lambda item: item[1])
                steps[order] = (step.places(places, key=lambda item: item[1]) if has_places else step).start()
            await trio.sleep(comes / 8)
            with trio.CancelScope(deadline=float("inf") if patience is None else trio.current_time() + patience / 8):
                await steps[order]((order, key))

        async with trio.open_nursery() as nursery:
            for each in many:
                nursery.start_soon(call, *each)
        assert [each.statistics().tasks_waiting for each in limiters] == [0, 0, 0]
        assert (places.statistics().held, places.statistics().tasks_waiting) == (0, 0)

    with scheduled(Schedule(seed)):
        run_virtual(main)
    for number, times in starts.items():
        for one, other in combinations(range(len(times)), 2):
            length = times[other] - times[one]
            if number == 2:
                assert length >= 2 or other - one + 1 <= 2
            else:
                assert other - one + 1 <= limits[number].burst + Fraction(limits[number].rate) * length


@pytest.mark.parametrize("seed", range(6))
def test_first_tasks_that_would_stand_back_in_a_circle_go_on(seed):
    """Each of three lines has a limiter whose shares put another line first."""

    async def main():
        one, two, three = (RateLimiter(RateLimit(1, burst=1), FairShare()) for _ in range(3))
        done = []

        async def note(name):
            await trio.lowlevel.checkpoint()
            done.append(name)

        lines = [(one, two), (two, three), (three, one)]
        steps = [Step(note).rate_limit(*pair, key=lambda name: name).start() for pair in lines]
        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(steps[number % 3], f"{number % 3}-{number % 5}")
                if number % 4 == seed % 4:
                    await wait_all_tasks_blocked()
            for limiter in (one, two, three):
                for key in ("0-0", "1-1", "2-2"):
                    limiter.set_weight(key, seed + 1)
        return len(done), trio.current_time()

    with scheduled(Schedule(seed)):
        made, at = run_virtual(main)
    assert made == 12
    assert at <= 12


@pytest.mark.parametrize("seed", range(4))
def test_keys_share_a_limiter_that_two_steps_need_with_and_without_another(seed):
    """The calls of one need the shared limiter only, those of the other also a wide one: they share as in one step."""

    async def main():
        shared = RateLimiter(RateLimit(4, burst=1), FairShare({"x": 3}))
        wide, calls = RateLimiter(RateLimit(100, burst=100)), Counter()

        async def note(key):
            await trio.lowlevel.checkpoint()
            calls[key] += 1

        narrow = Step(note).rate_limit(shared, key=str).start()
        both = Step(note).rate_limit(shared, wide, key=str).start()
        with trio.move_on_after(20):
            async with trio.open_nursery() as nursery:
                for key, step in (("x", both), ("y", narrow), ("z", both)):
                    for _ in range(100):
                        nursery.start_soon(step, key)
        return calls

    with scheduled(Schedule(seed)):
        calls = run_virtual(main)
    assert sum(calls.values()) in (80, 81)
    assert abs(calls["x"] / 3 - calls["y"]) <= 1 + 1 / 3 + 1
    assert abs(calls["y"] - calls["z"]) <= 2


# ---- settlements


def test_what_was_taken_too_much_is_given_back_at_once():
    async def main():
        limiter, times = RateLimiter(RateLimit(1, burst=10)), []

        async def call(item):
            times.append((item, trio.current_time()))
            await trio.sleep(1)
            return item

        step = Step(call).rate_limit(limiter, cost=lambda _: 10, settle=lambda result: 4 if result == "first" else 10)
        started = step.start()
        async with trio.open_nursery() as nursery:
            for name in ("first", "second"):
                nursery.start_soon(started, name)
                await wait_all_tasks_blocked()
        return times, limiter.statistics().acquired_cost

    # At 1 s it holds 1, and gets 6 back: the second waits for 3 more.
    assert run_virtual(main) == ([("first", 0), ("second", 4)], 14)


@pytest.mark.parametrize("has_shares", [False, True])
def test_a_debt_is_paid_by_its_key_and_without_shares_by_all(has_shares):
    async def main():
        limiter, times = RateLimiter(RateLimit(1, burst=2), FairShare() if has_shares else None), []

        async def call(item):
            times.append((item, trio.current_time()))
            await trio.lowlevel.checkpoint()
            return item

        step = Step(call).rate_limit(limiter, key=lambda item: item[0], settle=lambda item: 6 if item == "a1" else 1)
        started = step.start()
        await started("a1")  # takes 1, and has cost 6: the other 1 is taken at once, 4 are owed
        assert limiter.statistics().tokens == 0
        async with trio.open_nursery() as nursery:
            for name in ("a2", "b1", "b2"):
                nursery.start_soon(started, name)
                await wait_all_tasks_blocked()
        return dict(times)

    times = run_virtual(main)
    assert max(times.values()) == 7  # 2 held at first and 7 gained: 6 + 1 + 1 + 1
    if has_shares:  # a and b share until b has what it needs
        assert times["b1"] <= 3
        assert times["b2"] <= 5
        assert times["a2"] == 7
    else:
        assert (times["a2"], times["b1"], times["b2"]) == (5, 6, 7)


@pytest.mark.parametrize("limit", [RateLimit(1, burst=100), RollingLimit(100, per=100)])
def test_while_a_key_pays_a_large_debt_others_get_their_share(limit):
    """It pays in small parts, each in its turn; a part as large as the burst would have kept them waiting for that."""

    async def main():
        limiter, times = RateLimiter(limit, FairShare()), []

        async def call(item):
            times.append((trio.current_time(), item))
            await trio.lowlevel.checkpoint()
            return item

        started = Step(call).rate_limit(limiter, key=str, settle=lambda item: 150 if len(times) == 1 else 1).start()
        await started("a")  # takes 1, and has cost 150: the other 99 are taken at once, 50 are owed
        async with trio.open_nursery() as nursery:
            for name in ["a"] + ["b", "c"] * 20:
                nursery.start_soon(started, name)
                await wait_all_tasks_blocked()
        return times[1:], limiter.statistics().acquired_cost

    times, cost = run_virtual(main)
    assert [item for _, item in times] == ["b", "c"] * 20 + ["a"]
    assert cost == 150 + 1 + 40
    if isinstance(limit, RateLimit):
        assert all(when <= 3 * number for number, (when, _) in enumerate(times, 1))
        assert times[-1][0] == pytest.approx(91)


@given(
    st.lists(st.tuples(st.sampled_from(KEYS), st.integers(1, 4), st.integers(0, 12)), min_size=1, max_size=30),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_in_the_long_run_the_true_cost_keeps_the_rate(calls, has_shares, is_rolling):
    """When all debts are paid, what was taken is what the calls have really cost; and no sooner."""
    limit = RollingLimit(4, per=2) if is_rolling else RateLimit(2, burst=4)

    async def main():
        limiter = RateLimiter(limit, FairShare({"a": 3}) if has_shares else None)

        async def call(item):
            await trio.sleep(0.125)
            return item[2]

        step = Step(call).rate_limit(
            limiter, key=lambda item: item[0], cost=lambda item: item[1], settle=lambda cost: cost
        )
        started = step.start()

        async with trio.open_nursery() as nursery:
            for each in calls:
                nursery.start_soon(started, each)
        for key in KEYS if has_shares else "a":  # whoever comes pays first
            await limiter.acquire(4, key)
        return limiter.statistics().acquired_cost, trio.current_time()

    acquired, end = run_virtual(main)
    true = sum(cost for _, _, cost in calls)
    extra = 16 if has_shares else 4
    assert acquired == true + extra
    assert true + extra <= 4 + (4 * (end // 2 + 1) if is_rolling else 2 * end)


def test_a_call_that_fails_settles_nothing_and_gives_its_place_back():
    async def main():
        limiter, places = RateLimiter(RateLimit(1, burst=4)), PlaceLimiter(1)

        async def call(item):
            await trio.lowlevel.checkpoint()
            raise OSError("it failed")

        step = Step(call).rate_limit(limiter, cost=lambda _: 3, settle=lambda _: 0).places(places).start()
        with pytest.raises(OSError, match="it failed"):
            await step(1)
        return limiter.statistics().tokens, places.statistics().held

    assert run_virtual(main) == (1, 0)


@pytest.mark.parametrize("settled", [-1, 1.5, "1", None, True, float("nan")])
def test_a_settlement_that_is_no_cost_fails_the_call(settled):
    async def main():
        limiter, places = RateLimiter(RateLimit(1, burst=4)), PlaceLimiter(1)

        async def call(item):
            await trio.lowlevel.checkpoint()

        step = Step(call).rate_limit(limiter, settle=lambda _: settled).places(places).start()
        with pytest.raises((TypeError, ValueError), match="settle"):
            await step(1)
        return limiter.statistics().tokens, places.statistics().held

    assert run_virtual(main) == (3, 0)


def step_that_notes(limiter, asked, got):
    """Return a started step that notes whose call asks, and whose starts."""

    def key_of(place):
        asked.append(place)
        return place[0]

    async def note(place):
        got.append(place)

    return Step(note).rate_limit(limiter, key=key_of).start()


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("burst", [1, 3, 20])
def test_who_asks_first_with_a_key_is_first_also_at_one_instant(burst, seed):
    """Some ask while others are in the checkpoint of asking; some are cancelled there; steps ask without one."""

    async def main():
        limiter, asked, got, gone = RateLimiter(RateLimit(1, burst=burst), FairShare({"a": 2})), [], [], set()
        choice = random.Random(seed)
        step = step_that_notes(limiter, asked, got)

        async def call(number, key, scope):
            asked.append((key, number))
            with scope:
                await limiter.acquire(key=key)
                got.append((key, number))
            if scope.cancelled_caught:
                gone.add((key, number))

        async with trio.open_nursery() as nursery:
            for number in range(12):
                scope = trio.CancelScope()
                nursery.start_soon(call, number, choice.choice("ab"), scope)
                if choice.random() < 0.2:
                    nursery.start_soon(step, ("a", 100 + number))
                if choice.random() < 0.3:
                    nursery.start_soon(async_cancel, scope)
                if choice.random() < 0.3:
                    await trio.lowlevel.checkpoint()
                if choice.random() < 0.1:
                    with suppress(trio.WouldBlock):
                        limiter.acquire_nowait(key="b")
        statistics = limiter.statistics()
        return asked, got, gone, statistics

    async def async_cancel(scope):
        await trio.lowlevel.checkpoint()
        scope.cancel()

    with scheduled(Schedule(seed)):
        asked, got, gone, statistics = run_virtual(main)
    for key in "ab":
        assert [place for place in got if place[0] == key] == [
            place for place in asked if place[0] == key and place not in gone
        ]
    assert (len(got) + len(gone), statistics.tasks_waiting) == (len(asked), 0)


def test_debts_of_ever_new_keys_do_not_cost_more_than_the_rate():
    """What a key owes that does not come back is the limiter's, once so much has come in; one that comes back pays."""

    async def main():
        limiter = RateLimiter(RateLimit(10, burst=10), FairShare())

        async def call(item):
            await trio.lowlevel.checkpoint()
            return item

        step = Step(call).rate_limit(limiter, key=lambda item: item, settle=lambda _: 10).start()
        made = 0
        with trio.move_on_after(100):
            while True:
                await step(made)
                made += 1
        return made

    assert 100 <= run_virtual(main) <= 125


def test_what_each_of_many_keys_has_waited_is_told_exactly():
    """Of more keys than are told, which come and go: by the limiter, and by the step for what its calls waited."""
    chance, waited = random.Random(1), defaultdict(Fraction)
    limiter = RateLimiter(RateLimit(64, burst=1), FairShare())

    async def main():
        async def call(item):
            key, began = item
            waited[key] += Fraction(trio.current_time()) - began

        step = Step(call).rate_limit(limiter, key=lambda item: item[0]).start()
        for _ in range(40):
            async with trio.open_nursery() as nursery:
                for key in chance.sample(range(400), 20):
                    nursery.start_soon(step, (key, Fraction(trio.current_time())))
        return step.statistics().limits, limiter.statistics().keys

    told = run_virtual(main)

    longest = sorted((seconds for seconds in waited.values() if seconds), reverse=True)[:100]
    for rows in told:
        assert [each.waited for each in rows] == pytest.approx([float(seconds) for seconds in longest])
        assert {each.key: each.waited for each in rows} == pytest.approx(
            {each.key: float(waited[each.key]) for each in rows}
        )
