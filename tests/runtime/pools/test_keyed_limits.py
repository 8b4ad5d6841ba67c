"""`per_key`, `key_rate` and `waiting` of `map(key=)`: what each key may do, and what it may not do to the others.

Mutants that die here: a limit of all keys together; a token taken when the item came, or at each attempt; a second item
of a key that begins before the first; an item in a lane that takes a place, or waits for one although others wait for
it (the stage hangs); a bound that leaves out what waits; a bucket that is kept for ever, or forgotten too early; a time
that nobody waits for.
"""

from fractions import Fraction
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import Backoff, OnError, Pipeline, RateLimit, Retry, Step
from funcpipe_trio._runtime.pools.keyed import KeyedPool
from funcpipe_trio.testing import Scenario, cancel_everywhere, drain_everywhere, explore_schedules, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, assert_run_balances, assert_stages_balance, nap, outcome_of, take


class Calls:
    """An async function that notes when calls of each key begin, and how many there are at once."""

    __name__ = "work"

    def __init__(self, key, seconds=(1,), bad=()):
        self.key, self.seconds, self.bad = key, seconds, bad
        self.began = {}
        self.now, self.most = {}, {}
        self.at_once = self.most_at_once = 0

    async def __call__(self, item):
        key = self.key(item)
        self.began.setdefault(key, []).append((trio.current_time(), item))
        self.now[key] = self.now.get(key, 0) + 1
        self.most[key] = max(self.most.get(key, 0), self.now[key])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await trio.sleep(self.seconds[item % len(self.seconds)])
            if item in self.bad:
                raise Boom(item)
            return item
        finally:
            self.now[key] -= 1
            self.at_once -= 1

    def assert_within(self, per_key, limit):
        assert max(self.most.values(), default=0) <= per_key
        for begun in self.began.values():
            assert [item for _at, item in begun] == sorted(item for _at, item in begun)
            if limit is not None:
                assert_bound_holds([Fraction(at) for at, _item in begun], limit)


def assert_bound_holds(times, limit):
    """P12: in every window from one start to another."""
    rate = Fraction(limit.rate) / Fraction(limit.per)
    for first, begin in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= limit.burst + rate * (times[last] - begin)


def numbers(count):
    return Pipeline.from_iterable(range(count))


def by_table(table):
    return lambda item: table[item % len(table)]


limits = st.one_of(
    st.none(),
    st.builds(lambda rate, burst: RateLimit(rate, burst=burst), st.sampled_from([0.5, 1, 3]), st.integers(1, 3)),
)
plans = st.fixed_dictionaries(
    {
        "concurrency": st.integers(1, 4),
        "per_key": st.integers(1, 3),
        "key_rate": limits,
        "waiting": st.sampled_from([0, 1, 2, 7, 100]),
        "ordered": st.booleans(),
    }
)
tables = st.lists(st.integers(0, 7), min_size=1, max_size=12)
seconds = st.lists(st.sampled_from([0, 0, 0.5, 1, 7]), min_size=1, max_size=7)


# ---- no combination waits for ever


@settings(max_examples=100, deadline=None)
@given(
    how=plans,
    table=tables,
    seconds=seconds,
    before=st.integers(1, 4),
    capacity=st.integers(1, 4),
    slow=st.sampled_from([0, 0, 0.7]),
    bad=st.sets(st.integers(0, 29), max_size=5),
    seed=st.integers(0, 10**6),
)
def test_every_item_has_its_end_and_no_key_more_than_its_due(how, table, seconds, before, capacity, slow, bad, seed):
    """More keys than places, every option, a consumer that is slow, failures that are skipped, random schedules."""
    call = Calls(by_table(table), seconds, bad)
    line = numbers(30).buffer(before).map(call, key=call.key, on_error=OnError.skip(), **how).buffer(capacity)

    with scheduled(Schedule(seed)):
        seen = outcome_of(line, slow=slow)

    good = [item for item in range(30) if item not in bad]
    assert (seen.error, seen.told) == (None, [])
    assert (seen.items if how["ordered"] else sorted(seen.items)) == good
    assert call.most_at_once <= how["concurrency"]
    call.assert_within(how["per_key"], how["key_rate"])
    assert_stages_balance(seen.report)
    assert_run_balances(seen.report)


@settings(max_examples=40, deadline=None)
@given(
    how=plans,
    table=tables,
    inner=st.sampled_from(["batch", "map", "merge", "partition", "fair_by"]),
    max_keys=st.integers(1, 3),
    capacity=st.integers(1, 2),
    seed=st.integers(0, 10**6),
)
def test_nor_do_several_of_them_behind_each_other(how, table, inner, max_keys, capacity, seed):
    """Batches by key, branches and merges around it: what each holds up ends with what it holds."""
    key = by_table(table)
    work = partial(Pipeline.map, fn=Calls(key, (0.5, 0, 2)), key=key, **how)
    ways = {
        "batch": lambda line: work(line.batch(3, key=key, max_keys=max_keys).unbatch()).buffer(capacity),
        "map": lambda line: work(work(line).buffer(capacity)).buffer(capacity),
        "merge": lambda line: work(line).broadcast({"a": lambda p: p.buffer(capacity)}).map(nap, concurrency=2),
        "partition": lambda line: line.partition(
            lambda item: "ab"[item % 2], {"a": lambda p: work(p.buffer(capacity)), "b": lambda p: p.buffer(1)}
        ),
        "fair_by": lambda line: (
            work(line.fair_by(key, max_keys=max_keys)).batch(2, key=key, max_keys=max_keys).unbatch()
        ),
    }
    with scheduled(Schedule(seed)):
        seen = outcome_of(ways[inner](numbers(20)))

    assert (seen.error, sorted(seen.items)) == (None, [*range(20)])


@settings(max_examples=50, deadline=None)
@given(
    how=plans,
    table=tables,
    seconds=seconds,
    bad=st.sets(st.integers(0, 29), min_size=1, max_size=4),
    capacity=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_in_order_all_before_a_failure_is_delivered(how, table, seconds, bad, capacity, seed):
    """P5: also what waits for its key's rate; what is behind it is given up once."""
    call = Calls(by_table(table), seconds, bad)
    with scheduled(Schedule(seed)):
        seen = outcome_of(numbers(30).buffer(2).map(call, key=call.key, **how).buffer(capacity))

    assert isinstance(seen.error, Boom)
    assert len(seen.told) == len(set(seen.told))
    if how["ordered"]:
        assert (seen.items, seen.error.args) == ([*range(min(bad))], (min(bad),))
        assert all(reason == "behind a failure" for _item, reason in seen.told)
    call.assert_within(how["per_key"], how["key_rate"])
    assert_stages_balance(seen.report)
    assert_run_balances(seen.report)


# ---- when calls begin


@settings(max_examples=40, deadline=None)
@given(
    table=tables,
    seconds=seconds,
    concurrency=st.integers(1, 5),
    per_key=st.integers(1, 3),
    limit=st.sampled_from([None, RateLimit(0.5), RateLimit(1, burst=2), RateLimit(2, burst=3)]),
    seed=st.integers(0, 10**6),
)
def test_calls_begin_at_the_instants_of_a_simple_model(table, seconds, concurrency, per_key, limit, seed):
    """Unordered, everything there at once, and places for all: the oldest items whose keys may start one run."""
    call = Calls(by_table(table), seconds)
    how = {"concurrency": concurrency, "per_key": per_key, "key_rate": limit, "ordered": False}
    with scheduled(Schedule(seed)):
        outcome_of(numbers(12).map(call, key=call.key, **how).buffer(20))

    began = sorted(each for begun in call.began.values() for each in begun)
    assert began == sorted(model(12, call.key, seconds, concurrency, per_key, limit))


def model(count, key, seconds, concurrency, per_key, limit):
    waiting, running, now, log = [*range(count)], [], Fraction(0), []
    levels = {}  # key: (tokens, at)

    def tokens(of):
        level, at = levels.get(of, (Fraction(limit.burst), now))
        return min(Fraction(limit.burst), level + Fraction(limit.rate) * (now - at))

    while waiting or running:
        for item in [*waiting]:
            mine = key(item)
            earlier = any(key(other) == mine for other in waiting if other < item)
            busy = sum(key(other) == mine for _end, other in running)
            if len(running) < concurrency and not earlier and busy < per_key and (limit is None or tokens(mine) >= 1):
                if limit is not None:
                    levels[mine] = (tokens(mine) - 1, now)
                waiting.remove(item)
                running.append((now + Fraction(seconds[item % len(seconds)]), item))
                log.append((float(now), item))
        times = [end for end, _item in running]
        if limit is not None and len(running) < concurrency:
            times += [now + (1 - tokens(key(item))) / Fraction(limit.rate) for item in waiting if tokens(key(item)) < 1]
        now = min(times)
        running = [(end, item) for end, item in running if end > now]
    return log


def test_a_key_at_two_at_once_and_two_a_second():
    call = Calls(lambda item: "a", (3,))
    seen = outcome_of(numbers(5).map(call, key=call.key, concurrency=9, per_key=2, key_rate=RateLimit(2)))

    assert call.began["a"] == [(0, 0), (0.5, 1), (3, 2), (3.5, 3), (6, 4)]
    assert (seen.items, seen.report.elapsed) == ([0, 1, 2, 3, 4], 9)


def test_each_key_has_a_bucket_of_its_own():
    call = Calls(lambda item: item % 2, (0,))
    outcome_of(numbers(6).map(call, key=call.key, concurrency=9, key_rate=RateLimit(1, burst=2)))

    assert call.began == {0: [(0, 0), (0, 2), (1, 4)], 1: [(0, 1), (0, 3), (1, 5)]}


def test_a_retry_is_no_new_start():
    attempts = []

    async def call(item):
        attempts.append((trio.current_time(), item))
        if len(attempts) < 3:
            raise Boom
        return item

    step = Step(call).retry(Retry(3, Boom, Backoff(1, 1, jitter=0)))
    seen = outcome_of(numbers(2).map(step, key=lambda item: 0, concurrency=2, key_rate=RateLimit(0.1, burst=1)))

    assert attempts == [(0, 0), (1, 0), (2, 0), (10, 1)]
    assert seen.items == [0, 1]


def test_more_of_a_key_at_once_may_overtake_each_other_as_completed():
    call = Calls(lambda item: 0, (5, 1))
    seen = outcome_of(numbers(2).map(call, key=call.key, concurrency=2, per_key=2, ordered=False))

    assert seen.items == [1, 0]


# ---- what a slow key does to the others


def hosts(seconds_of_slow, **how):
    """Three hosts in turn, one of them slow; when the last item of a quick one is there."""

    async def fetch(item):
        await trio.sleep(seconds_of_slow if item % 3 == 0 else 0.1)
        return item

    line = numbers(240).map(fetch, key=lambda item: item % 3, concurrency=6, ordered=False, **how)
    seen = outcome_of(line)
    return max(at for at, item in zip(seen.times, seen.items, strict=True) if item % 3)


@pytest.mark.parametrize("per_key", [1, 2])
def test_one_slow_host_among_three_does_not_hold_up_the_others(per_key):
    """With lanes that hold its items, exactly as if it were quick; without them, as slow as it is."""
    alone = hosts(0.1, per_key=per_key)

    assert hosts(2, per_key=per_key, waiting=100) == hosts(2, per_key=per_key, waiting=1000) == alone
    assert hosts(2, per_key=per_key) > 5 * alone


def test_nor_does_one_whose_rate_is_low():
    def last_of_others(**how):
        call = Calls(lambda item: "limited" if item % 4 == 0 else item, (0.1,))
        rates = {"key_rate": RateLimit(1, burst=1)}
        seen = outcome_of(numbers(200).map(call, key=call.key, concurrency=4, ordered=False, **rates, **how))
        call.assert_within(1, rates["key_rate"])
        return max(at for at, item in zip(seen.times, seen.items, strict=True) if item % 4)

    assert last_of_others(waiting=60) == pytest.approx(150 * 0.1 / 4, abs=0.3)
    assert last_of_others() > 20


# ---- places


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("waiting", [0, 1, 5, 40])
@pytest.mark.parametrize("capacity", [1, 4])
def test_a_silent_consumer_meets_the_bound_exactly(ordered, waiting, capacity):
    """P4: one item of a key in its call, the others in its lane, in the place of any other, and none elsewhere."""
    how = {"key": lambda item: "slow", "concurrency": 3, "ordered": ordered, "waiting": waiting}
    line = numbers(1000).buffer(1).map(Calls(how["key"], (1000,)), **how).buffer(capacity)

    async def main():
        async with line.open() as run:
            await trio.sleep(500)
            return run.statistics().taken

    assert line.max_in_flight == 1 + 3 + capacity + waiting
    assert run_virtual(main) == line.max_in_flight


@pytest.mark.parametrize("waiting", [1, 5, 40])
def test_items_in_lanes_hold_no_place_until_there_are_too_many(waiting):
    call = Calls(lambda item: "slow" if item % 2 == 0 else item, (1000, 1))
    line = numbers(1000).map(call, key=call.key, concurrency=2, ordered=False, waiting=waiting).buffer(3)

    async def main():
        async with line.open() as run:
            with trio.move_on_after(500):
                async for _item in run:
                    pass

    run_virtual(main)
    # 0 runs; the even ones wait: `waiting` of them for nothing, then one in each place but that of 0.
    last = 2 * (waiting + 2 + 3 - 1)
    assert [key for key in call.began if key != "slow"] == [*range(1, last, 2)]


@settings(max_examples=40, deadline=None)
@given(how=plans, table=tables, seconds=seconds, capacity=st.integers(1, 3), pace=st.sampled_from([None, 0.3, 2]))
def test_no_more_is_in_flight_than_the_bound(how, table, seconds, capacity, pace):
    """P4, at every step."""
    call, most, got = Calls(by_table(table), seconds), [], []
    line = numbers(40).buffer(1).map(call, key=call.key, **how).buffer(capacity)

    async def main():
        async with line.open() as run:

            class Look(trio.abc.Instrument):
                def after_task_step(self, task):
                    counts = run.statistics()
                    most.append(counts.taken - len(got))
                    assert counts.stages[-1].in_flight <= counts.stages[-1].in_flight_peak

            look = Look()
            trio.lowlevel.add_instrument(look)
            await trio.sleep(9)
            if pace is not None:
                async for item in run:
                    got.append(item)
                    await trio.sleep(pace)
            trio.lowlevel.remove_instrument(look)

    run_virtual(main)

    assert max(most) <= line.max_in_flight == 1 + how["concurrency"] + how["waiting"] + capacity


def test_keys_that_are_idle_are_forgotten_when_their_buckets_are_full():
    """Two thousand keys once each, 100 a second, and a bucket that fills in a tenth: about ten lanes."""

    async def feed():
        for item in range(2000):
            await trio.sleep(0.01)
            yield item

    async def main():
        line = Pipeline.from_async_iterable(feed).map(nothing, key=lambda item: item, key_rate=RateLimit(10, burst=1))
        most = 0
        async with line.open() as run:
            (pool,) = [stage for stage in run._engine.stages if isinstance(stage, KeyedPool)]
            async for _item in run:
                most = max(most, pool._key_order.keys)
        return most

    assert run_virtual(main) <= 14


async def nothing(item):
    await trio.lowlevel.checkpoint()
    return item


# ---- disturbed


@pytest.mark.parametrize("ordered", [True, False])
def test_a_drain_works_on_what_waits_for_its_rate(ordered):
    call = Calls(lambda item: 0, (0.25,))

    async def main():
        line = numbers(100).map(call, key=call.key, concurrency=2, key_rate=RateLimit(1), waiting=3, ordered=ordered)
        async with line.buffer(1).open() as run, trio.open_nursery() as nursery:
            await trio.sleep(0.5)
            nursery.start_soon(run.drain)
            return [item async for item in run], run.report

    items, report = run_virtual(main)

    assert items == [*range(report.taken)]
    assert (report.outcome, report.discarded, report.elapsed) == ("drained", 0, report.taken - 1 + 0.25)


@pytest.mark.parametrize("end", ["cancel", "abort", "leave"])
def test_what_waits_for_its_rate_is_discarded_once(end):
    call, told = Calls(lambda item: 0, (0.25,)), []
    line = numbers(7).map(call, key=call.key, concurrency=2, key_rate=RateLimit(0.01), waiting=9)

    async def main():
        with trio.CancelScope() as scope:
            async with line.open(on_discard=lambda item, stage, reason: told.append((item, reason))) as run:
                await trio.sleep(5)
                assert run.statistics().stages[-1].waits_for == "rate limit"
                if end == "cancel":
                    scope.cancel()
                    await run.receive()
                elif end == "abort":
                    run.abort()
        return trio.current_time()

    assert run_virtual(main) == 5
    reason = {"cancel": "cancelled", "abort": "aborted", "leave": "not needed"}[end]
    assert sorted(told) == [(item, reason) for item in range(7)]


def test_it_goes_on_after_a_pause():
    """A pause stops the source only: what was taken goes on at its rate."""
    call = Calls(lambda item: 0, (0,))
    line = numbers(4).map(call, key=call.key, concurrency=2, key_rate=RateLimit(1), waiting=1).buffer(1)

    async def main():
        async with line.open() as run, trio.open_nursery() as nursery:
            items = []

            async def read():
                async for item in run:
                    items.append((trio.current_time(), item))

            nursery.start_soon(read)
            await trio.sleep(0.5)
            run.pause()
            await trio.sleep(20)
            run.resume()
        return items

    items = run_virtual(main)
    assert [item for _at, item in items] == [0, 1, 2, 3]
    assert [at for at, _item in call.began[0]] == [0, 1, 2, 3]


def test_its_rate_limits_a_pool_whose_number_of_places_changes():
    call = Calls(lambda item: item % 2, (1,))
    line = numbers(12).map(
        call, key=call.key, concurrency=1, per_key=2, key_rate=RateLimit(1), ordered=False, waiting=4
    )

    async def main():
        async with line.open() as run:
            items = []
            async for item in run:
                items.append(item)
                run.set_concurrency("work", 1 + len(items) % 4)
        return sorted(items)

    assert run_virtual(main) == [*range(12)]
    call.assert_within(2, RateLimit(1))


def test_two_runs_of_a_plan_have_buckets_of_their_own():
    call = Calls(lambda item: 0, (0,))
    line = numbers(2).map(call, key=call.key, key_rate=RateLimit(1))

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(line.collect)

    run_virtual(main)
    assert sorted(at for at, _item in call.began[0]) == [0, 0, 1, 1]


def plan(ordered):
    key = lambda item: item % 3  # noqa: E731
    limits = {"per_key": 2, "key_rate": RateLimit(2, burst=1), "waiting": 2}
    return lambda: (
        numbers(9)
        .buffer(2)
        .map(Calls(key, (0.5, 0, 1), {4}), key=key, concurrency=3, ordered=ordered, on_error=OnError.skip(), **limits)
        .buffer(2)
        .map(nothing, key=lambda item: 0, concurrency=2, ordered=ordered, waiting=1)
    )


@pytest.mark.parametrize("ordered", [True, False])
def test_at_every_point_it_can_be_cancelled_and_drained(ordered):
    cancel_everywhere(plan(ordered), every=5)
    drain_everywhere(plan(ordered), every=5)


@pytest.mark.parametrize("ordered", [True, False])
def test_it_ends_under_every_schedule_also_when_left_in_the_middle(ordered):
    async def leave(run, lab):
        async for _item in run:
            lab.delivered += 1
            if lab.delivered == 4:
                return

    explore_schedules(plan(ordered), seeds=range(30))
    explore_schedules(Scenario(plan(ordered), leave), seeds=range(20))


def test_nested_in_a_flat_map():
    inner = partial(Pipeline.map, fn=nothing, key=lambda item: 0, key_rate=RateLimit(1), waiting=2)
    line = numbers(3).flat_map(lambda item: inner(numbers(3)), concurrency=3)

    seen = run_virtual(take, line)

    assert sorted(seen.items) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert seen.report.elapsed == 2
