"""`map(retries_elsewhere=)`: items that wait for their next attempt without a place.

The model is a discrete event simulation written from the promise alone: places, a line of items that came back, and
items elsewhere. Mutants that die here: an item that comes back behind new ones, or in another order than that of the
ends of the waits; one more elsewhere than n, or one fewer; a place that is not handed on when an item leaves it, fails,
is cancelled in its wait or in the line, or when concurrency is raised; an attempt that begins without a place (after a
timeout in the wait, in a divert); an item elsewhere that counts as a place in use, or whose key is free; a stage that
ends while an item is elsewhere; a worker fewer than places and items elsewhere (a result is withheld); workers beyond
the places that count as waiting; a bound that leaves out what waits.
"""

from collections import deque
from contextlib import asynccontextmanager, suppress
from heapq import heappop, heappush
from itertools import pairwise
from random import Random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import Backoff, CircuitBreaker, OnError, Pipeline, PlaceLimiter, PlanError, RateLimit, Retry, Step
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, assert_run_balances, assert_stages_balance, nap, outcome_of


class Calls:
    """An async function that fails as often as it is told for each item, and notes every attempt."""

    __name__ = "work"

    def __init__(self, seconds, fails=lambda item: 0, key=lambda item: None):
        self.seconds, self.fails, self.key = seconds, fails, key
        self.began = []  # (time, item)
        self.done = {}  # whether it succeeded, of each item that is not tried again
        self.attempts = {}
        self.at_once = self.most_at_once = 0
        self.of_key = {}
        self.order = {}

    async def __call__(self, item):
        key, number = self.key(item), self.attempts.get(item, 0)
        self.attempts[item] = number + 1
        self.began.append((trio.current_time(), item))
        if not number:
            self.order.setdefault(key, []).append(item)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await trio.sleep(self.seconds(item, number))
            if number < self.fails(item):
                if number == 2:
                    self.done[item] = False
                raise Boom(item)
            self.done[item] = True
            return item
        finally:
            self.at_once -= 1


def retried(call, wait=10.0, attempts=3):
    return Step(call).retry(Retry(attempts, Boom, Backoff(wait, factor=1, maximum=max(wait, 1), jitter=0)))


def numbers(count):
    return Pipeline.from_iterable(range(count))


def once(item):
    """Every item fails once."""
    return 1


def by_three(item):
    return item % 3


# ---- the model


class Model:
    """When which attempt begins, and when which result comes out, if there is always room for one.

    `places` attempts at once; an item that waits gives its place up, while fewer than `elsewhere` are away. Those that
    come back go before new items, in their order. A new one needs room: what is in places, comes back, or waits for an
    earlier result, is fewer than places and capacity.
    """

    def __init__(self, count, *, places, elsewhere, ordered, capacity, seconds, fails, wait):
        self.free, self.elsewhere, self.most, self.is_ordered = places, elsewhere, places + capacity, ordered
        self.places, self.seconds, self.fails, self.wait = places, seconds, fails, wait
        self.new, self.back, self.done, self.events = deque(range(count)), deque(), [], []
        self.attempt, self.away, self.next = [0] * count, 0, 0
        self.began, self.out = [], []
        self.hand_out(0.0)
        while self.events:
            now, what, item = heappop(self.events)
            what(self, now, item)
            self.hand_out(now)

    def hand_out(self, now):
        """Give free places away."""
        while self.free and self.back:
            self.away -= 1
            self.free -= 1
            self.begin(now, self.back.popleft())
        while self.free and self.new and self.places - self.free + len(self.back) + len(self.done) < self.most:
            self.free -= 1
            self.begin(now, self.new.popleft())

    def begin(self, now, item):
        self.began.append((now, item))
        end = Model.failed if self.attempt[item] < self.fails(item) else Model.succeeded
        heappush(self.events, (now + self.seconds(item, self.attempt[item]), end, item))

    def failed(self, now, item):
        self.attempt[item] += 1
        is_away = self.away < self.elsewhere
        self.away += is_away
        self.free += is_away
        heappush(self.events, (now + self.wait, Model.came_back if is_away else Model.begin, item))

    def came_back(self, now, item):
        self.back.append(item)

    def succeeded(self, now, item):
        self.free += 1
        self.done.append(item)
        while self.done and (not self.is_ordered or self.next in self.done):
            leaves = self.next if self.is_ordered else item
            self.done.remove(leaves)
            self.out.append((now, leaves))
            self.next += 1


@settings(max_examples=150, deadline=None)
@given(
    count=st.integers(1, 30),
    places=st.integers(1, 4),
    elsewhere=st.sampled_from([0, 1, 2, 3, 10]),
    ordered=st.booleans(),
    capacity=st.integers(1, 4),
    most=st.integers(0, 2),
    wait=st.sampled_from([0.5, 3.0, 40.0]),
    seed=st.integers(0, 10**9),
)
def test_it_runs_as_the_model_says(count, places, elsewhere, ordered, capacity, most, wait, seed):
    """Every start and every result, to the instant; no two things happen at the same time."""
    chance = Random(seed)
    durations = {(item, number): chance.randrange(1, 2**22) * 2.0**-20 for item in range(count) for number in range(3)}
    failures = [chance.randint(0, most) for _ in range(count)]
    how = {"seconds": lambda item, number: durations[item, number], "fails": failures.__getitem__}
    call = Calls(**how)
    line = numbers(count).map(
        retried(call, wait), concurrency=places, ordered=ordered, retries_elsewhere=elsewhere, name="work"
    )

    log = []
    report = run_virtual(line.tap(lambda item: log.append((trio.current_time(), item))).buffer(capacity).run)

    model = Model(count, places=places, elsewhere=elsewhere, ordered=ordered, capacity=capacity, wait=wait, **how)
    assert call.began == model.began
    assert log == model.out
    assert report.stages[1].elsewhere == 0
    assert report.stages[1].elsewhere_peak <= elsewhere


# ---- laws under ties, with keys, slow consumers and random schedules

plans = st.fixed_dictionaries(
    {"concurrency": st.integers(1, 4), "retries_elsewhere": st.sampled_from([1, 1, 2, 5, 50]), "ordered": st.booleans()}
)
keys = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "per_key": st.integers(1, 2),
            "waiting": st.sampled_from([0, 0, 1, 5]),
            "key_rate": st.sampled_from([None, None, RateLimit(1, burst=1)]),
        }
    ),
)


class Look(trio.abc.Instrument):
    """Notes what is in flight at every step, and each law of a snapshot that does not hold."""

    def __init__(self, run, got, elsewhere, *, gathers):
        self.run, self.got, self.elsewhere, self.gathers = run, got, elsewhere, gathers
        self.most, self.broken = 0, []

    def after_task_step(self, task):
        counts = self.run.statistics()
        stage = counts.stages[1]
        self.most = max(self.most, counts.taken - counts.failed - len(self.got))
        spent = stage.used + stage.waited_input + stage.waited_room
        laws = {
            "elsewhere": stage.elsewhere <= stage.elsewhere_peak <= self.elsewhere,
            "peak": self.gathers or stage.in_flight <= stage.in_flight_peak,
            "places": max(spent, stage.used + stage.stalled) <= stage.offered + 1e-6,
        }
        self.broken.extend(law for law, holds in laws.items() if not holds)


def is_due(good, done, got, *, ordered):
    """Whether a result is there that nothing holds up: any of them, or in order the next one."""
    if not ordered:
        return sum(done.values()) > len(got)
    ahead = next((item for item in good if item not in got), 24)
    return ahead < 24 and all(item in done for item in range(ahead + 1))


@settings(max_examples=150, deadline=None)
@given(
    how=plans,
    keyed=keys,
    seconds=st.lists(st.sampled_from([0, 0, 0.5, 1, 7]), min_size=1, max_size=5),
    fails=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    wait=st.sampled_from([0, 0.5, 1, 8]),
    timeout=st.sampled_from([None, None, 4, 9]),
    before=st.integers(0, 3),
    capacity=st.integers(0, 3),
    pace=st.sampled_from([0, 0, 0.3, 5]),
    gathers=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_its_laws(how, keyed, seconds, fails, wait, timeout, before, capacity, pace, gathers, seed):
    """At every step: calls, items elsewhere, items in flight, uses of places; at the end: order, keys, sums."""
    call = Calls(lambda item, _: seconds[item % len(seconds)], lambda item: fails[item % len(fails)], by_three)
    step = retried(call, wait) if timeout is None else retried(call, wait).timeout(timeout)
    by_key = {} if keyed is None else {"key": by_three, **keyed}
    line = numbers(24).buffer(before).map(step, on_error=OnError.skip(), **by_key, **how)
    line = (line.batch(2).unbatch() if gathers else line).buffer(capacity)
    good = [item for item in range(24) if fails[item % len(fails)] < 3]
    is_sure = timeout is None and not gathers
    got = []

    async def main():
        async with line.open() as run:
            look = Look(run, got, how["retries_elsewhere"], gathers=gathers)
            trio.lowlevel.add_instrument(look)
            with suppress(trio.EndOfChannel):
                while True:
                    is_there = is_sure and is_due(good, call.done, got, ordered=how["ordered"])
                    asked = trio.current_time()
                    got.append(await run.receive())
                    if is_there and trio.current_time() > asked:
                        look.broken.append("withheld")
                    await trio.sleep(pace)
            trio.lowlevel.remove_instrument(look)
        return run.report, look

    with scheduled(Schedule(seed)):
        report, look = run_virtual(main)

    assert look.broken == []
    assert call.most_at_once <= how["concurrency"]
    assert look.most <= line.max_in_flight + 1  # the consumer was woken with one that it has not received yet
    if timeout is None:
        assert (got if how["ordered"] else sorted(got)) == good
    elif how["ordered"]:
        assert got == sorted(set(got))
    if keyed is not None:
        assert all(begun == sorted(begun) for begun in call.order.values())
    assert_stages_balance(report)
    assert_run_balances(report)


# ---- what it is for


def test_items_that_wait_do_not_hold_up_the_others():
    """Ten items fail once and wait 60 s; with places for two, the 90 others are done meanwhile, not after 300 s."""

    def seconds_of(elsewhere):
        call = Calls(lambda item, _: 1, lambda item: item % 10 == 0)
        line = numbers(100).map(retried(call, 60), concurrency=2, ordered=False, retries_elsewhere=elsewhere)
        seen = outcome_of(line)
        assert sorted(seen.items) == [*range(100)]
        assert call.most_at_once == 2
        return seen.times[-1], seen.report.stages[1]

    waited, before = seconds_of(0)
    moved_on, after = seconds_of(10)

    assert (waited, moved_on) == (355, 107)
    assert (before.busy, before.elsewhere_peak, before.policies.waited_elsewhere) == (1, 0, 0)
    assert after.used == 110  # a second for each attempt: a place is in use while an item has it
    assert after.elsewhere_peak == 10
    assert after.policies.waited_retry == after.policies.waited_elsewhere


def test_those_that_come_back_go_before_new_items_in_the_order_of_their_waits():
    """0 and 1 come back at 11.5 and 12.5 s, while others run until 13 and 14 s: then it is their turn."""
    call = Calls(lambda item, number: 3 if item > 1 or number else item + 1, lambda item: item < 2)
    seen = outcome_of(numbers(12).map(retried(call, 10.5), concurrency=2, ordered=False, retries_elsewhere=2))

    starts = [(at, item) for at, item in call.began if at > 11]
    assert starts[:2] == [(13, 0), (14, 1)]
    assert sorted(seen.items) == [*range(12)]


def test_with_n_elsewhere_the_next_one_waits_in_its_place():
    call = Calls(lambda item, _: 1, lambda item: item < 2)
    seen = outcome_of(numbers(3).map(retried(call, 10), ordered=False, retries_elsewhere=1))

    # 0 fails at 1 and leaves; 1 fails at 2 and stays until 12; then 0, which asked at 11 but for 1's next attempt.
    assert call.began == [(0, 0), (1, 1), (12, 1), (13, 0), (14, 2)]
    assert seen.items == [1, 0, 2]


@pytest.mark.parametrize("before", [0, 1, 5])
def test_the_source_is_asked_when_a_place_is_given_up(before):
    """Also one that hands over only to a worker that waits."""
    call = Calls(lambda item, _: 1, lambda item: item == 0)
    seen = outcome_of(numbers(5).buffer(before).map(retried(call, 60), ordered=False, retries_elsewhere=1))

    assert list(zip(seen.items, seen.times, strict=True)) == [(1, 2), (2, 3), (3, 4), (4, 5), (0, 62)]


def test_a_wait_of_no_length_keeps_its_place():
    call = Calls(lambda item, _: 1, once)
    outcome_of(numbers(3).map(retried(call, 0), retries_elsewhere=3))

    assert [item for _at, item in call.began] == [0, 0, 1, 1, 2, 2]


def test_nothing_goes_elsewhere_by_default():
    assert (
        numbers(3).map(retried(nap)).max_in_flight + 4
        == numbers(3).map(retried(nap), retries_elsewhere=4).max_in_flight
    )
    seen = outcome_of(numbers(4).map(retried(Calls(lambda item, _: 1, once)), concurrency=2))
    assert (seen.report.stages[1].elsewhere_peak, seen.times[-1]) == (0, 24)


# ---- order, keys and the bound


def test_in_order_the_oldest_comes_back_though_later_results_have_all_places():
    """All places of the link and of the calls are taken by results that wait for it: it has its own."""
    call = Calls(lambda item, _: 1, lambda item: item == 0)
    seen = outcome_of(numbers(20).buffer(1).map(retried(call, 100), concurrency=2, retries_elsewhere=1).buffer(3))

    assert seen.items == [*range(20)]
    assert [item for at, item in call.began if at < 100] == [0, 1, 2, 3, 4, 5]
    assert (101, 0) in call.began


@pytest.mark.parametrize("elsewhere", [1, 2, 5])
@pytest.mark.parametrize("by", [{}, {"key": lambda item: item % 50, "waiting": 3}])
@pytest.mark.parametrize("ordered", [True, False])
def test_the_bound_is_exact(elsewhere, by, ordered):
    """Nobody receives; the first n items wait for an hour, and all places behind them are full."""
    call = Calls(lambda item, _: 1, lambda item: item < elsewhere)
    line = numbers(100).buffer(1).map(
        retried(call, 3600), concurrency=2, ordered=ordered, retries_elsewhere=elsewhere, **by
    ).buffer(2)  # fmt: skip

    async def main():
        async with line.open() as run:
            await trio.sleep(1000)
            counts = run.statistics()
            await trio.sleep(7200)
            return counts, run.statistics()

    counts, later = run_virtual(main)
    most = 1 + 2 + 2 + elsewhere
    assert counts.stages[1].elsewhere == elsewhere
    assert counts.in_flight == later.in_flight == most
    assert line.max_in_flight == most + (3 if by else 0)


def test_an_item_elsewhere_keeps_its_key():
    """0 fails and waits 50 s: 2 and 4, of its key, begin after it; 1 and 3 do not wait for it."""
    call = Calls(lambda item, _: 1, lambda item: item == 0)
    seen = outcome_of(
        numbers(6).map(retried(call, 50), key=lambda item: item % 2, ordered=False, retries_elsewhere=1, waiting=5)
    )

    assert seen.items == [1, 3, 5, 0, 2, 4]
    assert seen.times == [2, 3, 4, 52, 53, 54]


def test_a_result_goes_out_though_all_calls_run():
    """The link is full, a result waits for room, and the item that was elsewhere has the only place: it is not held up.

    Workers: one for the place, and one for the item that comes back.
    """
    call = Calls(lambda item, number: 100 if item == 0 and number else 1, lambda item: item == 0)
    line = numbers(9).map(retried(call, 10), ordered=False, retries_elsewhere=1).buffer(1)

    async def main():
        got = []
        async with line.open() as run:
            await trio.sleep(50)
            for _ in range(2):
                with trio.fail_after(1):
                    got.append((await run.receive(), trio.current_time()))
        return got

    assert run_virtual(main) == [(1, 50), (2, 50)]


# ---- waits that are cut short


def test_a_timeout_around_the_retry_counts_the_wait_for_a_place():
    """0 comes back at 6 s, but 1 has the place until 100 s: 0 is too late at 20 s, and fails without a place."""
    call = Calls(lambda item, _: {0: 1, 1: 99}.get(item, 1), lambda item: item == 0)
    step = retried(call, 5).timeout(20)
    seen = outcome_of(
        numbers(3).map(step, ordered=False, retries_elsewhere=1, on_error=OnError.emit()).map(type_name_or_item)
    )

    assert list(zip(seen.items, seen.times, strict=True)) == [("TooSlowError", 20), ("TooSlowError", 21), (2, 22)]
    assert call.began == [(0, 0), (1, 1), (21, 2)]
    stage = seen.report.stages[1]
    assert (stage.used, stage.policies.waited_elsewhere, stage.elsewhere) == (22, 19, 0)


def type_name_or_item(value):
    return type(value.error).__name__ if hasattr(value, "error") else value


def test_an_attempt_after_a_timeout_in_the_wait_has_a_place():
    """A retry around the timeout: its wait goes on elsewhere, and its attempt waits for the place that 1 has."""
    call = Calls(lambda item, _: {0: 1, 1: 40}.get(item, 1), lambda item: item == 0)
    again = Retry(2, trio.TooSlowError, Backoff(3, jitter=0))
    seen = outcome_of(numbers(2).map(retried(call, 5).timeout(43).retry(again), ordered=False, retries_elsewhere=1))
    assert (call.began, seen.times) == ([(0, 0), (1, 1), (41, 0)], [41, 42])

    call = Calls(lambda item, _: {0: 1, 1: 40}.get(item, 1), lambda item: item == 0)
    inner = Step(call).retry(Retry(2, Boom, Backoff(5, jitter=0))).timeout(20)
    seen = outcome_of(numbers(2).map(inner.retry(again), ordered=False, retries_elsewhere=1, on_error=OnError.skip()))
    # 0 is too late at 20, waits until 23, and begins when 1 is too late at 21, which waits elsewhere until 24... but
    # only one may: 0 is elsewhere, so 1 keeps its place until its second timeout at 44.
    assert call.began == [(0, 0), (1, 1), (24, 1), (44, 0)]
    assert call.most_at_once == 1
    assert seen.items == [0]


def test_a_fallback_waits_for_a_place_too():
    """0 is too late in its wait, at 4 s; 1 has the place until 10 s, and only then the other step is called."""
    called = []

    async def other(item):
        called.append((trio.current_time(), item, call.at_once))
        return -item

    call = Calls(lambda item, _: 1 if item == 0 else 9, lambda item: item == 0)
    step = Step(call).retry(Retry(2, Boom, Backoff(2, jitter=0))).timeout(9.5).fallback(Step(other))
    seen = outcome_of(numbers(3).map(step, ordered=False, retries_elsewhere=1))

    assert called == [(10, 0, 0)]
    assert (seen.items, seen.times) == ([1, 0, 2], [10, 10, 19])


@pytest.mark.parametrize("seed", range(8))
def test_a_place_is_not_lost_on_an_item_that_is_cut_short_as_it_gets_it(seed):
    """At 21 s, 1 is done and 0 too late: 0 goes on waiting for 100 s, and the place is for 2, whatever comes first."""
    call = Calls(lambda item, _: {0: 1, 1: 20}.get(item, 1), lambda item: item == 0)
    again = Retry(2, trio.TooSlowError, Backoff(100, maximum=100, jitter=0))
    step = retried(call, 5).timeout(21).retry(again)
    with scheduled(Schedule(seed)):
        run_virtual(
            numbers(3).buffer(5).map(step, ordered=False, retries_elsewhere=1).run
        )  # no consumer: it wakes workers, too

    if (21, 0) not in call.began:  # it got the place first
        assert call.began == [(0, 0), (1, 1), (21, 2), (121, 0)]
    assert len(call.done) == 3


def test_a_divert_waits_for_a_place_too():
    """0 is too late in its wait, at 4 s; 1 has the place until 10 s, and only then 0 is diverted."""
    called, at_once = [], []

    async def bury(failure):
        at_once.append(call.at_once)
        called.append((trio.current_time(), failure.item))
        await trio.sleep(1)

    call = Calls(lambda item, _: 1 if item == 0 else 9, lambda item: item == 0)
    step = Step(call).retry(Retry(2, Boom, Backoff(2, jitter=0))).timeout(12)
    line = numbers(2).map(step, ordered=False, retries_elsewhere=1, on_error=OnError.divert(bury))
    assert outcome_of(line).items == [1, 0]

    call = Calls(lambda item, _: 1 if item == 0 else 9, lambda item: item == 0)
    step = Step(call).retry(Retry(2, Boom, Backoff(2, jitter=0))).timeout(9.5)
    line = numbers(3).map(step, ordered=False, retries_elsewhere=1, on_error=OnError.divert(bury))
    seen = outcome_of(line)
    assert (called, at_once, seen.items) == ([(10, 0)], [0], [1, 2])
    assert seen.times == [10, 20]
    assert_run_balances(seen.report)


@pytest.mark.parametrize("reason", ["abort", "drain_nowait"])
@pytest.mark.parametrize("at", [5, 10.5])
def test_items_elsewhere_are_drained_and_discarded_as_all_are(at, reason):
    """At 5 s item 0 waits elsewhere, at 10.5 s it waits for the place of another."""
    call = Calls(lambda item, _: 1 if item == 0 else 3, lambda item: item == 0)
    line = numbers(9).buffer(1).map(retried(call, 9.2), ordered=False, retries_elsewhere=1).buffer(9)

    async def main():
        told, got = [], []
        async with line.open(on_discard=lambda item, stage, why: told.append((item, why))) as run:
            await trio.sleep(at)
            assert run.statistics().stages[1].elsewhere == 1
            assert run.statistics().stages[1].waits_for in ("call", "retry", "concurrency")
            getattr(run, reason)()
            try:
                got += [item async for item in run]
            except Exception:
                assert reason == "abort"
        assert_run_balances(run.report)
        return got, told

    got, told = run_virtual(main)
    if reason == "abort":
        assert (0, "aborted") in told
    else:
        assert 0 in got
        assert told == []


def test_a_failure_before_it_makes_an_item_elsewhere_superfluous():
    async def work(item):
        if item == 1:
            raise Boom(item)
        await trio.sleep(20)
        raise OSError

    line = numbers(9).buffer(1).map(
        Step(work).retry(Retry(2, Boom, Backoff(100, maximum=100, jitter=0))), concurrency=2, retries_elsewhere=3
    )  # fmt: skip
    seen = outcome_of(line)

    assert (type(seen.error), seen.report.elapsed) == (OSError, 20)
    assert (1, "behind a failure") in seen.told
    assert_run_balances(seen.report)


# ---- what changes while it runs


def test_places_that_are_added_go_to_those_that_came_back():
    """At 15 s, 0 and 1 wait for the place that 2 has until 102 s; then there are two more."""
    call = Calls(lambda item, _: 100 if item == 2 else 1, lambda item: item < 2)
    line = numbers(3).map(retried(call, 10), ordered=False, retries_elsewhere=2)

    async def main():
        async with line.open() as run:
            await trio.sleep(15)
            counts = run.statistics().stages[1]
            assert (counts.elsewhere, counts.waits_for) == (2, "concurrency")
            run.set_concurrency(line_name(run), 3)
            return [(item, trio.current_time()) async for item in run]

    assert sorted(run_virtual(main)) == [(0, 16), (1, 16), (2, 102)]


def line_name(run):
    return run.statistics().stages[1].name


def test_fewer_places_let_nobody_back_until_there_is_one():
    call = Calls(lambda item, _: 1 if item == 0 else 30, lambda item: item == 0)
    line = numbers(4).map(retried(call, 10), concurrency=2, ordered=False, retries_elsewhere=1)

    async def main():
        async with line.open() as run:
            await trio.sleep(5)
            run.set_concurrency(line_name(run), 1)
            return [item async for item in run]

    assert run_virtual(main) == [1, 2, 0, 3]
    assert call.began == [(0, 0), (0, 1), (1, 2), (31, 0), (32, 3)]


def test_pause_holds_back_new_items_and_not_those_that_come_back():
    call = Calls(lambda item, _: 1, lambda item: item == 0)
    line = numbers(30).buffer(1).map(retried(call, 10), ordered=False, retries_elsewhere=1).buffer(1)

    async def main():
        got = []
        async with line.open() as run:
            await trio.sleep(2.5)
            run.pause()
            with trio.move_on_after(100):
                async for item in run:
                    got.append(item)
            assert 0 in got
            assert len(got) < 8
            run.resume()
            got += [item async for item in run]
        return got

    assert sorted(run_virtual(main)) == [*range(30)]


# ---- what it goes with


def test_limits_and_circuits_inside_and_outside_hold():
    """A token for each attempt, a permit for each item, which it keeps while it waits elsewhere."""
    call = Calls(lambda item, _: 0.25, lambda item: item % 3 == 0)
    step = (
        Step(call)
        .rate_limit(RateLimit(2, burst=1))
        .retry(Retry(3, Boom, Backoff(2, factor=1, jitter=0)))
        .circuit_breaker(CircuitBreaker(3, 5))
    )
    seen = outcome_of(numbers(12).map(step, concurrency=3, retries_elsewhere=3))

    assert seen.items == [*range(12)]
    times = [at for at, _item in call.began]
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(times))
    assert call.most_at_once <= 3


def test_resources_are_held_in_attempts_only():
    """One for each place, and none for an item elsewhere."""
    opened, used = [], {}

    @asynccontextmanager
    async def connect():
        opened.append(len(opened))
        yield opened[-1]

    async def ask(connection, item):
        used.setdefault(item, []).append(connection)
        await trio.sleep(1)
        if len(used[item]) == 1:
            raise Boom(item)
        return item

    step = Step(ask).using(connect, per="worker").retry(Retry(2, Boom, Backoff(7, jitter=0)))
    seen = outcome_of(numbers(20).map(step, concurrency=2, ordered=False, retries_elsewhere=3))

    assert sorted(seen.items) == [*range(20)]
    assert len(opened) == 2


def test_a_started_step_gives_up_the_place_of_the_pool_that_calls_it():
    """Shared by two pipelines, each with places of its own."""

    async def main():
        call = Calls(lambda item, _: 1, lambda item: item in (0, 100))
        step = retried(call, 50).start()
        lines = [
            Pipeline.from_iterable(range(start, start + 9)).map(step, ordered=False, retries_elsewhere=most)
            for start, most in ((0, 1), (100, 0))
        ]
        seen = []
        async with trio.open_nursery() as nursery:
            for line in lines:
                nursery.start_soon(collect_into, seen, line)
        return sorted(seen)

    (first, first_end), (second, second_end) = run_virtual(main)
    assert (first[-1], first_end) == (0, 52)
    assert (second[0], second_end) == (100, 60)


async def collect_into(seen, line):
    items = await line.collect()
    seen.append((items, trio.current_time()))


@pytest.mark.parametrize("method", ["on_ok", "recover"])
def test_on_ok_and_recover_have_it_as_well(method):
    """What they do not concern passes."""
    call = Calls(lambda item, _: 1, lambda item: getattr(item, "item", item) % 4 < 2)

    async def odd(item):
        if item % 2:
            raise Boom(item)
        return item

    mixed = numbers(16).map(odd, on_error=OnError.emit())
    line = getattr(mixed, method)(retried(call, 9), ordered=False, retries_elsewhere=4)
    seen = outcome_of(line)

    assert len(seen.items) == 16
    assert seen.report.stages[2].elsewhere_peak == 4
    assert line.max_in_flight == getattr(mixed, method)(retried(call, 9), ordered=False).max_in_flight + 4


# ---- what is told


def test_a_report_tells_what_waited_elsewhere():
    call = Calls(lambda item, _: 1, once)
    line = numbers(4).map(retried(call, 10), ordered=False, retries_elsewhere=2, name="ask")
    report = outcome_of(line).report

    assert "ask: 4 retries, 46.000 s between attempts, 36.000 s of that elsewhere" in report.describe()


def test_advice_names_it_to_those_that_wait_in_their_places():
    def advice(**how):
        call = Calls(lambda item, _: 1, once)
        return outcome_of(numbers(60).map(retried(call, 10), name="ask", **how)).report.advice

    assert advice() == (
        "ask: its calls wait between attempts; fewer failures, a shorter backoff, or retries_elsewhere would help"
    )
    assert advice(retries_elsewhere=1, ordered=False) == (
        "ask: its calls wait between attempts; fewer failures, a shorter backoff, or a larger retries_elsewhere "
        "than 1 would help"
    )
    assert "concurrency" in advice(retries_elsewhere=60, ordered=False)
    assert (
        "retries_elsewhere"
        not in outcome_of(
            Pipeline.from_iterable(range(9)).tap(retried(Calls(lambda item, _: 1, once), 10))
        ).report.advice
    )


def test_those_behind_wait_for_an_item_elsewhere():
    """The source is slower than the calls: the consumer waits for the pool while an item of it waits."""

    async def slow():
        yield 0
        await trio.sleep(100)
        yield 1

    call = Calls(lambda item, _: 1, lambda item: item == 0)
    line = Pipeline.from_async_iterable(slow).map(retried(call, 49), name="ask", retries_elsewhere=1)
    report = outcome_of(line).report

    waits = {(each.waiter, each.whom): each.seconds for each in report.blame}
    assert waits["consumer", "ask"] == 1 + 49 + 1 + 1
    assert waits["consumer", "slow"] == 49


def test_describe_and_settings_name_it():
    line = numbers(3).map(retried(nap), retries_elsewhere=7, name="ask")

    assert "async map nap, 1 at a time, up to 7 retries elsewhere, in order" in line.describe()
    changed = line.with_settings({"ask": {"retries_elsewhere": 9}})
    assert changed.max_in_flight == line.max_in_flight + 2
    with pytest.raises(PlanError, match="must name a setting"):
        numbers(3).map(nap, name="ask").with_settings({"ask": {"retries_elsewhere": 1}})


NO_RETRY = (
    "retries_elsewhere must come with a step that has a Retry, which {} has not\n"
    "Use Step(fn).retry(Retry(3)), or leave out retries_elsewhere."
)


@pytest.mark.parametrize("fn", [nap, Step(nap), Step(nap).timeout(3)])
def test_without_a_retry_it_is_refused(fn):
    with pytest.raises(PlanError) as caught:
        numbers(3).map(fn, retries_elsewhere=1).check()
    assert caught.value.problems == ("map 'nap': " + NO_RETRY.format("nap"),)


IN_THE_WAY = {
    "places": lambda step: step.places(PlaceLimiter(1)),
    "a circuit that waits": lambda step: step.circuit_breaker(CircuitBreaker(9, 5, wait=True)),
    "hedge": lambda step: step.hedge(after=1000),
    "coalesce": lambda step: step.coalesce(key=lambda item: 0),
}


@pytest.mark.parametrize("around", IN_THE_WAY)
def test_what_others_wait_for_is_not_kept_elsewhere(around):
    """They have the places, and would wait for it for ever: so it is refused, and another retry keeps its place."""
    with pytest.raises(PlanError) as caught:
        numbers(3).map(IN_THE_WAY[around](retried(nap)), retries_elsewhere=1).check()
    assert caught.value.problems == (
        "map 'nap': retries_elsewhere must come with a Retry outside of places, hedge, coalesce and any circuit "
        "breaker with wait=True, where an item keeps its place: others may wait for what it has there\n"
        "Write retry behind them, or leave out retries_elsewhere.",
    )

    call = Calls(lambda item, _: 1, lambda item: 3 if item == 0 else 0)
    inner = IN_THE_WAY[around](retried(call, 5, attempts=2))
    outer = Retry(2, Boom, Backoff(50, maximum=50, jitter=0))
    seen = outcome_of(numbers(4).map(inner.retry(outer), ordered=False, retries_elsewhere=1))
    # 0 fails at 1 and, after 5 s in its place, at 7: it leaves until 57.
    assert [begun for begun in call.began if begun[1] == 0] == [(0, 0), (6, 0), (57, 0), (63, 0)]
    assert seen.items == [1, 2, 3, 0]


def test_with_latest_it_is_refused():
    with pytest.raises(PlanError) as caught:
        numbers(3).map(retried(nap), retries_elsewhere=1, latest=True).check()
    assert caught.value.problems == (
        "map 'nap': retries_elsewhere must not be given with latest=True, which works on one item at a time",
    )
