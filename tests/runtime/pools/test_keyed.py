"""`key=` on `map`: one item of each key at a time, in order, others at once, and what waits is bounded.

Mutants that die here: the key freed when its call ends instead of when its item has been dealt with; the lane taken
from its end; items that wait counted nowhere; a failure that gives up what waits before it, or keeps what waits behind
it; positions that are all alike when unordered; a lane kept for a key without items; an item whose key function fails
told the attempts of the item before; an intake that continues for as long as there are items and places.
"""

import tracemalloc
from contextvars import ContextVar
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import Backoff, Failure, OnError, Pipeline, Retry, Step
from funcpipe_trio._runtime.pools.keyed import KeyedPool
from funcpipe_trio.testing import Scenario, cancel_everywhere, drain_everywhere, explore_schedules, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, assert_run_balances, assert_stages_balance, outcome_of, take

of_a_call = ContextVar("of_a_call")


def assert_adds_up(report):
    """The sums of each stage and of the run; all plans here are one to one."""
    assert_stages_balance(report)
    assert_run_balances(report)


class Worked:
    """An async function that notes when each item was worked on, and by rule fails or takes its time."""

    __name__ = "work"

    def __init__(self, key, latencies=(1,), bad=()):
        self.key = key
        self.latencies = latencies
        self.bad = bad
        self.log = []
        self.busy = set()
        self.overlap = []
        self.most = 0

    async def __call__(self, item):
        key = self.key(item)
        self.log.append((trio.current_time(), item))
        if key in self.busy:
            self.overlap.append(item)
        self.busy.add(key)
        self.most = max(self.most, len(self.busy))
        try:
            await trio.sleep(self.latencies[item % len(self.latencies)])
            if item in self.bad:
                raise Boom(item)
            return item
        finally:
            self.busy.discard(key)

    def order_of_each_key(self):
        order = {}
        for _time, item in self.log:
            order.setdefault(self.key(item), []).append(item)
        return order


class Key:
    """A key that can be hashed and compared for equality, but has no order."""

    def __init__(self, number):
        self.number = number

    def __eq__(self, other):
        return self.number == other.number

    def __hash__(self):
        return hash(self.number)


def numbers(count):
    return Pipeline.from_iterable(range(count))


def keys_of(table):
    return lambda item: Key(table[item % len(table)])


# ---- order, one at a time, and many at once

tables = st.lists(st.integers(0, 4), min_size=1, max_size=9)
latencies = st.lists(st.sampled_from([0, 0, 0.5, 1, 7]), min_size=1, max_size=7)


@settings(max_examples=90, deadline=None)
@given(
    table=tables,
    latencies=latencies,
    bad=st.sets(st.integers(0, 29), max_size=8),
    concurrency=st.integers(1, 6),
    capacity=st.integers(1, 4),
    ordered=st.booleans(),
    policy=st.sampled_from([OnError.skip(), OnError.emit(), "divert"]),
    slow=st.sampled_from([0, 0, 0.7]),
    seed=st.integers(0, 10**6),
)
def test_items_of_one_key_go_one_at_a_time_and_in_order(
    table, latencies, bad, concurrency, capacity, ordered, policy, slow, seed
):
    """P3, P14: for all keys, latencies, failures and schedules; every item has its end, none waits forever."""
    key = keys_of(table)
    call, busy_at_divert = Worked(key, latencies, bad), []

    async def divert(failure):
        if key(failure.item) in call.busy:
            busy_at_divert.append(failure.item)
        call.busy.add(key(failure.item))
        await trio.sleep(0.5)
        call.busy.discard(key(failure.item))

    on_error = OnError.divert(divert) if policy == "divert" else policy
    pipeline = numbers(30).buffer(3).map(call, key=key, concurrency=concurrency, ordered=ordered, on_error=on_error)
    with scheduled(Schedule(seed)):
        seen = outcome_of(pipeline.buffer(capacity), slow=slow)

    assert (seen.error, seen.told, call.overlap, busy_at_divert) == (None, [], [], [])
    assert all(items == sorted(items) for items in call.order_of_each_key().values())
    shown = [value.item if isinstance(value, Failure) else value for value in seen.items]
    good = [item for item in range(30) if policy == OnError.emit() or item not in bad]
    assert (shown if ordered else sorted(shown)) == good
    assert call.most <= concurrency
    assert_adds_up(seen.report)
    if not ordered:  # what completed earlier left earlier: so each key's results are in order, too
        for each in {key(item) for item in shown}:
            of_key = [item for item in shown if key(item) == each]
            assert of_key == sorted(of_key)


@settings(max_examples=40, deadline=None)
@given(
    table=tables, latencies=latencies, concurrency=st.integers(1, 5), capacity=st.integers(1, 4), seed=st.integers(0)
)
def test_calls_begin_and_end_at_the_instants_of_a_simple_model(table, latencies, concurrency, capacity, seed):
    """Unordered, everything there at once, and places for all: at each instant the oldest items of free keys run."""
    key, count = keys_of(table), 12
    call = Worked(key, latencies)
    pipeline = numbers(count).map(call, key=key, concurrency=concurrency, ordered=False).buffer(20)
    with scheduled(Schedule(seed % 10**6)):
        outcome_of(pipeline)

    assert sorted(call.log) == sorted(model(range(count), key, latencies, concurrency))


def model(items, key, latencies, concurrency):
    """When each item starts: at each end of a call, the oldest items whose keys are free, while there is a worker."""
    waiting, running, now, log = list(items), [], 0.0, []
    while waiting or running:
        for item in list(waiting):
            busy = {key(other) for _end, other in running}
            earlier = {key(other) for other in waiting if other < item}
            if len(running) < concurrency and key(item) not in busy | earlier:
                waiting.remove(item)
                running.append((now + latencies[item % len(latencies)], item))
                log.append((now, item))
        now = min(end for end, _item in running)
        running = [(end, item) for end, item in running if end > now]
    return log


def test_exact_instants_of_two_keys():
    """Key 0 takes 3 s an item, key 1 one: 0 and 1 start at 0; 3, 5 go past 2, which waits for 0."""
    call = Worked(lambda item: item % 2, (3, 1))
    seen = outcome_of(numbers(6).map(call, key=lambda item: item % 2, concurrency=2, ordered=False))

    assert sorted(call.log) == [(0, 0), (0, 1), (1, 3), (2, 5), (3, 2), (6, 4)]
    assert dict(zip(seen.items, seen.times, strict=True)) == {0: 3, 1: 1, 2: 6, 3: 2, 4: 9, 5: 3}


def test_a_retry_keeps_its_key():
    """While the first item of a key waits for its next attempt, the second does not start; another key does."""
    log = []

    async def call(item):
        log.append((trio.current_time(), item))
        if item == 0 and len(log) < 3:
            raise Boom
        return item

    step = Step(call).retry(Retry(3, Boom, Backoff(5, 1, jitter=0)))
    seen = outcome_of(numbers(3).map(step, key=lambda item: item // 2, concurrency=2))

    assert sorted(log) == [(0, 0), (0, 2), (5, 0), (5, 1)]
    assert (seen.items, seen.report.stages[-1].policies.retries) == ([0, 1, 2], 1)


def test_keys_that_have_no_order_and_get_free_at_the_same_instant():
    """Two workers rest in the same instant, an item of each key gets free, a third took all in: no key is compared."""
    call = Worked(lambda item: item % 2, (1,))
    key = lambda item: Key(item % 2)  # noqa: E731
    seen = outcome_of(numbers(400).map(call, key=key, concurrency=3, ordered=False).buffer(400))

    assert (seen.error, sorted(seen.items)) == (None, list(range(400)))


# ---- places


SLOW = 1000


def one_slow_key(concurrency, capacity, ordered):
    """Item 0 of key "slow" takes very long; all other even items wait for it; odd ones have keys of their own."""
    call = Worked(lambda item: "slow" if item % 2 == 0 else item, (SLOW, 1))
    pipeline = (
        Pipeline.from_iterable(range(1000)).buffer(1).map(call, key=call.key, concurrency=concurrency, ordered=ordered)
    )
    return call, pipeline.buffer(capacity)


@pytest.mark.parametrize("capacity", [1, 3, 16])
@pytest.mark.parametrize("concurrency", [2, 5])
def test_a_slow_key_blocks_others_only_when_every_place_is_its_own(concurrency, capacity):
    """Places are concurrency + capacity: with one left, an odd item still goes past; with none, nothing starts."""
    call, pipeline = one_slow_key(concurrency, capacity, ordered=False)

    async def main():
        async with pipeline.open() as run:
            with trio.move_on_after(500):
                async for _item in run:  # the consumer takes at once, so results hold no place
                    pass
            return run.statistics(), pipeline.max_in_flight

    counts, bound = run_virtual(main)
    places = concurrency + capacity
    started = [item for _time, item in call.log]
    # 0 runs, the even ones behind it wait: at the (places)-th even item every place is the slow key's.
    last = 2 * (places - 1)
    assert started[0] == 0
    assert sorted(started[1:]) == list(range(1, last, 2))
    assert counts.stages[-1].received == last + 1
    # What is in flight: every place, and one in the link before.
    assert counts.taken - counts.delivered == bound == places + 1


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("capacity", [1, 4])
def test_a_silent_consumer_meets_the_bound_exactly(ordered, capacity):
    """P4: calls, items that wait for their key, results and the link: reached, and never more."""
    _call, pipeline = one_slow_key(3, capacity, ordered)

    async def main():
        async with pipeline.open() as run:
            await trio.sleep(500)
            return run.statistics().taken

    assert run_virtual(main) == pipeline.max_in_flight == 1 + 3 + capacity


async def taken_while_it_runs(pipeline):
    """Run it without a consumer for a while; give how many items it took."""
    async with trio.open_nursery() as nursery:
        run = await nursery.start(pipeline.run)
        await trio.sleep(500)
        taken = run.statistics().taken
        nursery.cancel_scope.cancel()
    return taken


@pytest.mark.parametrize("key", [None, "one", "few"])
@pytest.mark.parametrize("ordered", [True, False])
def test_a_run_without_a_consumer_is_bounded_too(key, ordered):
    """P4: `run()` has no last link, but what waits behind a slow call, or for its key, is bounded as if it had."""
    keys = {None: None, "one": lambda item: 0, "few": lambda item: item % 3}
    call = Worked(lambda item: item, (SLOW, *[1] * 9_999))
    options = {} if key is None else {"key": keys[key]}
    pipeline = numbers(10_000).map(call, concurrency=4, ordered=ordered, **options).tap(lambda item: done.append(item))
    done = []

    taken = run_virtual(taken_while_it_runs, pipeline)
    assert taken - len(done) <= pipeline.max_in_flight == 16 + 4 + 16
    assert taken > 16


@pytest.mark.parametrize("capacity", [1, 3])
def test_a_buffer_at_the_end_sets_the_bound_of_a_run_without_a_consumer(capacity):
    """The last `buffer` means the same there: 1 in the link before, 2 workers, and `capacity` that wait."""
    call = Worked(lambda item: item, (SLOW, *[1] * 999))
    pipeline = numbers(1000).buffer(1).map(call, concurrency=2).buffer(capacity)

    assert run_virtual(taken_while_it_runs, pipeline) == pipeline.max_in_flight == 3 + capacity


def test_an_idle_key_costs_nothing():
    """Ten thousand keys, each once: no lane is left, and the memory is that of five hundred."""

    async def call(item):
        return item

    async def main(count):
        pipeline = Pipeline.from_iterable(range(count)).map(call, key=lambda item: item, concurrency=4)
        tracemalloc.start()
        async with pipeline.open() as run:
            async for _item in run:
                pass
            _now, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            (pool,) = [stage for stage in run._engine.stages if isinstance(stage, KeyedPool)]
            return peak, pool._key_order.keys, len(pool._key_order), len(pool._keys)

    small, *_ = run_virtual(main, 500)
    large, keys, waiting, entries = run_virtual(main, 10_000)

    assert (keys, waiting, entries) == (0, 0, 0)
    assert large < small + 50_000


def test_an_intake_lets_others_run():
    """P16: a thousand items of one busy key are there, and places for all: they are not taken in one turn."""
    asked = []

    def key(item):
        asked.append(item)
        return 0

    call = Worked(key, (0,))
    call.key = lambda item: 0

    class Watch(trio.abc.Instrument):
        before = most = 0

        def before_task_step(self, task):
            self.before = len(asked)

        def after_task_step(self, task):
            self.most = max(self.most, len(asked) - self.before)

    async def main():
        watch = Watch()
        trio.lowlevel.add_instrument(watch)
        pipeline = numbers(5000).buffer(1000).map(call, key=key, concurrency=4).buffer(1000)
        async with pipeline.open() as run:
            await trio.sleep(50)  # all is full; now a thousand places get free at once
            for _ in range(1000):
                run._consumer.take()
            await trio.sleep(50)
        return watch.most, len(asked)

    most, all_asked = run_virtual(main)
    assert most <= 128
    assert all_asked > 2000


# ---- failures


@settings(max_examples=60, deadline=None)
@given(
    table=tables,
    latencies=latencies,
    bad=st.sets(st.integers(0, 29), min_size=1, max_size=4),
    concurrency=st.integers(1, 6),
    capacity=st.integers(1, 4),
    limit=st.one_of(st.none(), st.integers(0, 3)),
    seed=st.integers(0, 10**6),
)
def test_in_order_all_before_a_failure_is_delivered(table, latencies, bad, concurrency, capacity, limit, seed):
    """P5: items that wait for their key, too; what is behind is given up, once; so it is under every schedule."""
    key = keys_of(table)
    call = Worked(key, latencies, bad)
    on_error = OnError.stop() if limit is None else OnError.skip(max_failures=limit)
    pipeline = numbers(30).buffer(2).map(call, key=key, concurrency=concurrency, on_error=on_error).buffer(capacity)
    with scheduled(Schedule(seed)):
        seen = outcome_of(pipeline)

    last = dict(enumerate(sorted(bad))).get(limit or 0)
    assert call.overlap == []
    assert_adds_up(seen.report)
    assert seen.items == [item for item in range(30) if (last is None or item < last) and item not in bad]
    assert (seen.error and seen.error.args) == (None if last is None else (last,))
    assert all(reason == "behind a failure" and item > last for item, reason in seen.told)
    assert len(seen.told) == len(set(seen.told))
    assert seen.report.failed == min(len(bad), (limit or 0) + 1)


def test_items_before_a_failure_that_wait_for_their_key_are_worked_on():
    """Items 0, 1, 2 share a key and take 2 s each; 3 fails at 1 s and stands at 6 s; 4, of that key, never starts."""
    call = Worked(lambda item: "slow" if item < 3 or item == 4 else item, (2, 2, 2, 1, 2, 2), {3})
    seen = outcome_of(numbers(6).map(call, key=call.key, concurrency=3))

    assert (seen.items, seen.times, seen.error.args) == ([0, 1, 2], [2, 4, 6], (3,))
    assert call.order_of_each_key() == {"slow": [0, 1, 2], 3: [3], 5: [5]}
    assert sorted(seen.told) == [(4, "behind a failure"), (5, "behind a failure")]
    assert seen.error.__notes__ == ["in stage 'work', item 3"]


def test_an_item_behind_a_failure_never_starts_though_its_key_gets_free():
    """Item 2 fails at 1 s; 3 waits for the key of 1, free at 5 s, while 0 runs until 10 s: 3 is given up at 1 s."""
    call, told = Worked(lambda item: {0: "a", 2: "c"}.get(item, "b"), (10, 5, 1, 1), {2}), []

    async def main():
        pipeline = numbers(4).map(call, key=call.key, concurrency=4)
        async with pipeline.open(on_discard=lambda item, *_: told.append((item, trio.current_time()))) as run:
            items = [await run.receive(), await run.receive()]
            with pytest.raises(Boom):
                await run.receive()
        return items, run.report.elapsed

    assert run_virtual(main) == ([0, 1], 10)
    assert sorted(call.log) == [(0, 0), (0, 1), (0, 2)]
    assert told == [(3, 1)]


def test_unordered_a_failure_gives_up_what_waits_for_its_key():
    """Before means completed before: at 1 s item 1 fails, and 0, running, and 2, waiting, are both given up."""
    call = Worked(lambda item: item % 2, (2, 1), {1})
    seen = outcome_of(numbers(3).map(call, key=call.key, concurrency=2, ordered=False))

    assert (seen.items, seen.error.args, seen.report.elapsed) == ([], (1,), 1)
    assert sorted(seen.told) == [(0, "behind a failure"), (2, "behind a failure")]


async def at_once(item):
    return item


def no_key(item):
    if item == 1:
        raise Boom("no key")
    return 0


class Hashless:
    def __hash__(self):
        raise LookupError("no hash")  # a TypeError is told in the words of Python, which differ


def unhashable(item):
    return Hashless() if item == 1 else 0


def awaitable(item):
    return at_once(item) if item == 1 else 0


KEYS = {
    "raises": (no_key, "no key"),
    "is unhashable": (unhashable, "no hash"),
}


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("what", KEYS)
def test_an_item_without_a_key_is_a_failed_item(what, ordered):
    """Under each policy as if its call had failed: it stands in its place; other items of no key go on."""
    key, message = KEYS[what]
    letters = []

    async def divert(failure):
        letters.append((failure.item, str(failure.error), failure.stage, failure.attempts))

    def seen_with(on_error):
        return outcome_of(numbers(3).map(at_once, key=key, ordered=ordered, on_error=on_error))

    stopped, skipped, emitted, diverted = map(
        seen_with, (OnError.stop(), OnError.skip(), OnError.emit(), OnError.divert(divert))
    )

    assert (stopped.items, str(stopped.error), stopped.report.failed) == ([0], message, 1)
    assert stopped.error.__notes__ == ["in stage 'at_once', item 1"]
    assert (skipped.items, skipped.report.failed) == ([0, 2], 1)
    assert [(v.item, str(v.error), v.attempts) if isinstance(v, Failure) else v for v in emitted.items] == [
        0, (1, message, 1), 2,
    ]  # fmt: skip
    assert (diverted.items, letters) == ([0, 2], [(1, message, "at_once", 1)])
    for seen in (stopped, skipped, emitted, diverted):
        assert_adds_up(seen.report)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("policy", [OnError.stop(), OnError.skip(), OnError.emit(), OnError.divert(at_once)])
def test_a_key_to_be_awaited_is_a_mistake_that_no_policy_meets(policy, ordered):
    seen = outcome_of(numbers(3).map(at_once, key=awaitable, ordered=ordered, on_error=policy))

    assert (seen.items, seen.report.failed) == ([0], 1)
    assert str(seen.error) == "'key' is not async, but returned something to await\nUse a sync function."
    assert_adds_up(seen.report)


def test_an_item_without_a_key_was_tried_once_whatever_came_before():
    """The attempts of the item before, which a retry gave up on, are not its own."""

    async def call(item):
        raise KeyError(item)

    step = Step(call).retry(Retry(3, KeyError, Backoff(0)))
    seen = outcome_of(numbers(3).map(step, key=no_key, on_error=OnError.emit()))

    assert [(value.item, value.attempts, value.error.__notes__[-1]) for value in seen.items] == [
        (0, 3, "in stage 'call', item 0, attempt 3 of 3"),
        (1, 1, "in stage 'call', item 1"),
        (2, 3, "in stage 'call', item 2, attempt 3 of 3"),
    ]


def test_a_keyboard_interrupt_of_a_key_ends_the_run():
    """It is not a failure of the item, which is discarded, once."""

    def key(item):
        raise KeyboardInterrupt

    async def main():
        told = []
        try:
            async with numbers(1).map(at_once, key=key).open(on_discard=lambda *what: told.append(what)) as run:
                await run.receive()
        except KeyboardInterrupt:
            return told, run.report.failed
        raise AssertionError("no KeyboardInterrupt")

    assert run_virtual(main) == ([(0, "at_once", "cancelled")], 0)


# ---- disturbed


@pytest.mark.parametrize("end", ["cancel", "abort", "leave", "close"])
@pytest.mark.parametrize("ordered", [True, False])
def test_items_that_wait_for_their_key_are_discarded_once(end, ordered):
    """At 0.5 s one item is in its call and six wait for their key: each is reported once, with the reason."""
    call = Worked(lambda item: 0, (1,))
    pipeline = numbers(7).map(call, key=call.key, concurrency=2, ordered=ordered)
    told = []

    async def main():
        with trio.CancelScope() as scope:
            async with pipeline.open(on_discard=lambda *what: told.append(what)) as run:
                await trio.sleep(0.5)
                assert run.statistics().stages[-1].received == 7
                if end == "cancel":
                    scope.cancel()
                    await run.receive()
                elif end == "abort":
                    run.abort()
                elif end == "close":
                    await run.aclose()
        return run.report

    report = run_virtual(main)
    reason = {"cancel": "cancelled", "abort": "aborted"}.get(end, "not needed")
    assert sorted(told) == [(item, "work", reason) for item in range(7)]
    assert (report.discarded, report.delivered) == (7, 0)
    assert_adds_up(report)


@pytest.mark.parametrize("ordered", [True, False])
def test_drain_works_on_what_waits_for_its_key(ordered):
    """P8: all that was taken is delivered, the items in lanes, too."""
    call = Worked(lambda item: 0, (1,))

    async def main():
        pipeline = numbers(100).buffer(1).map(call, key=call.key, concurrency=2, ordered=ordered).buffer(5)
        async with pipeline.open() as run, trio.open_nursery() as nursery:
            await trio.sleep(0.5)
            nursery.start_soon(run.drain)
            items = [item async for item in run]
        return items, run.report

    items, report = run_virtual(main)
    assert sorted(items) == list(range(report.taken))
    assert (report.taken, report.elapsed) == (8, 8)
    assert (report.outcome, report.discarded, call.overlap) == ("drained", 0, [])


def test_a_drain_whose_grace_is_over_gives_up_what_waits_for_its_key():
    """After 1.5 s of a key of 1 s an item: one delivered, the others discarded with the reason."""
    call = Worked(lambda item: 0, (1,))
    told = []

    async def main():
        pipeline = numbers(5).map(call, key=call.key, concurrency=2)
        async with pipeline.open(on_discard=lambda *what: told.append(what)) as run, trio.open_nursery() as nursery:
            nursery.start_soon(partial(run.drain, grace=1.5))
            items = []
            try:
                while True:
                    items.append(await run.receive())
            except Exception as error:
                return items, type(error).__name__, run.statistics().discarded

    items, _ended, _discarded = run_virtual(main)
    assert items == [0]
    assert sorted(told) == [(item, "work", "grace period over") for item in range(1, 5)]


def test_a_source_that_fails_lets_the_lanes_empty_first():
    """Its error stands behind the items before it, those that wait for their key, too."""

    def items():
        yield from range(5)
        raise Boom("source")

    call = Worked(lambda item: 0, (1,))
    seen = outcome_of(Pipeline.from_iterable(items).map(call, key=call.key, concurrency=3))

    assert (seen.items, seen.times, seen.error.args) == ([0, 1, 2, 3, 4], [1, 2, 3, 4, 5], ("source",))


def plan(ordered=True, key=lambda item: item % 3):
    call = Worked(key, (0.5, 0, 1), {4, 5})
    return lambda: (
        numbers(12)
        .buffer(2)
        .map(call, key=key, concurrency=3, ordered=ordered, on_error=OnError.skip())
        .buffer(2)
        .map(Worked(lambda item: item, (0, 1)), key=lambda item: item % 2, concurrency=2, ordered=ordered)
    )


@pytest.mark.parametrize("ordered", [True, False])
def test_at_every_point_it_can_be_cancelled_and_drained(ordered):
    """P1, P6, P8 at every seventh step of a task."""
    cancel_everywhere(plan(ordered), every=7)
    drain_everywhere(plan(ordered), every=7)


@pytest.mark.parametrize("ordered", [True, False])
def test_it_ends_under_every_schedule_also_when_left_in_the_middle(ordered):
    """P14, P7: no schedule makes it wait forever; a consumer who leaves after five items is let go."""

    async def leave(run, lab):
        async for _item in run:
            lab.delivered += 1
            if lab.delivered == 5:
                return

    explore_schedules(plan(ordered), seeds=range(40))
    explore_schedules(Scenario(plan(ordered), leave), seeds=range(20))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("concurrency", [1, 2, 3, 8])
@pytest.mark.parametrize("first", [0, 3])
def test_no_error_of_a_key_is_lost(first, concurrency, ordered):
    raised = []

    def key(item):
        if item >= first:
            raised.append(Boom(item))
            raise raised[-1]
        return item

    async def same(item):
        of_a_call.set(item)  # the next call of this worker gets a context of its own, which takes a checkpoint
        await trio.lowlevel.checkpoint()
        return item

    async def main():
        return await take(
            Pipeline.from_iterable(range(10)).map(same, concurrency=concurrency, ordered=ordered, key=key)
        )

    def check(seen):
        assert any(seen.error is error for error in (raised[:1] if ordered else raised))
        assert {id(error) for error in raised} == {id(seen.error), *map(id, seen.report.cleanup_errors)}
        assert_adds_up(seen.report)
        raised.clear()

    for seed in range(12):
        with scheduled(Schedule(seed)):
            check(run_virtual(main))
