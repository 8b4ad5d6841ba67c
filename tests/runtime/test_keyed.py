"""`key=` on `map`: one item of each key at a time, in order, others at once, and what waits is bounded.

Mutants that die here: the key freed when its call ends in place of when its item has been dealt with; the lane taken
from its end; a free item of a key taken before an older one of another; items that wait counted nowhere; a failure
that gives up what waits before it, or keeps what waits behind it; positions that are all alike when unordered; a lane
kept for a key without items; a key whose function fails counted on the attempts of the item before; an intake that
goes on for as long as there are items and places.
"""

import tracemalloc
from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import Backoff, Failure, OnError, Pipeline, Retry, Step
from funcpipe_trio.runtime.keyed import KeyedPool
from funcpipe_trio.testing import Scenario, cancel_everywhere, drain_everywhere, explore_schedules, run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled


class Boom(Exception):
    """A failure of user code."""


class Outcome:
    """What a consumer who took everything it could has seen."""

    def __init__(self):
        self.items = []
        self.times = []
        self.told = []
        self.error = None
        self.report = None

    def tell(self, item, stage, reason):
        self.told.append((item, reason))


async def take(pipeline, *, slow=0.0):
    seen = Outcome()
    try:
        async with pipeline.open(on_discard=seen.tell) as run:
            async for item in run:
                seen.items.append(item)
                seen.times.append(trio.current_time())
                if slow:
                    await trio.sleep(slow)
    except Exception as error:
        seen.error = error
    seen.report = run.report
    return seen


def outcome_of(pipeline, **how):
    return run_virtual(partial(take, pipeline, **how))


def adds_up(report):
    """Whether the sums hold, of each stage and of the run; all plans here are one-to-one."""
    stages = all(
        s.received + s.created == s.emitted + s.absorbed + s.failed + s.dropped + s.discarded for s in report.stages
    )
    return stages and report.taken == report.delivered + report.failed + report.dropped + report.discarded


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
        return watch.most

    assert 30 < run_virtual(main) <= 128


# ---- failures


async def at_once(item):
    return item


def no_key(item):
    if item == 1:
        raise Boom("no key")
    return 0


def unhashable(item):
    return [] if item == 1 else 0


def awaitable(item):
    return at_once(item) if item == 1 else 0


KEYS = {
    "raises": (no_key, "no key"),
    "is unhashable": (unhashable, "unhashable type: 'list'"),
    "must be awaited": (awaitable, "key must be a sync function, but returned something to await"),
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
    assert all(adds_up(seen.report) for seen in (stopped, skipped, emitted, diverted))


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


# ---- disturbed


def plan(ordered=True, key=lambda item: item % 3):
    call = Worked(key, (0.5, 0, 1), {4, 5})
    return lambda: (
        numbers(12)
        .buffer(2)
        .map(call, key=key, concurrency=3, ordered=ordered, on_error=OnError.skip())
        .buffer(2)
        .map(Worked(lambda item: item, (0, 1)), key=lambda item: item % 2, concurrency=2, ordered=ordered)
    )


