"""`OnError` on `map` and `flat_map`: what is said of an item that failed, when the stream ends, and what adds up.

Each policy is held against a model on lists, under random latencies, schedules, concurrency and capacities.

Mutants that die here: limits asked in the order of completion (``self._tolerance.failed`` called in `_meet`); one
failure more or less than the limit; the ratio of finished calls in place of items that had their turn; the failure
that crosses the limit counted among those gone on after; results behind it delivered; a `Failure` behind those that
completed later; the attempts of the item before; a place in a flat_map's link kept for a child that never comes; a
diverted item put down before its step has ended, or put down twice; the error of the divert step in place of its item.
"""

from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import (
    Backoff,
    Failure,
    OnError,
    Pipeline,
    PlanError,
    RateLimit,
    Retry,
    Step,
    fair_merge,
)
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


async def take(pipeline, *, slow=0.0, after=None, then=None):
    """Receive to the end, or until `after` items, then do `then(run)`; answer what came of it."""
    seen = Outcome()
    try:
        async with pipeline.open(on_discard=seen.tell) as run:
            async for item in run:
                seen.items.append(item)
                seen.times.append(trio.current_time())
                if len(seen.items) == after:
                    if then is None:
                        break
                    then(run)
                if slow:
                    await trio.sleep(slow)
    except Exception as error:
        seen.error = error
    seen.report = run.report
    return seen


def outcome_of(pipeline, **how):
    return run_virtual(partial(take, pipeline, **how))


def adds_up(report):
    """Whether the sums hold: of each stage, each link, and (for one-to-one plans) the run."""
    stages = all(
        s.received + s.created == s.emitted + s.absorbed + s.failed + s.dropped + s.discarded for s in report.stages
    )
    return stages and all(link.passed == link.taken + link.discarded for link in report.links)


def adds_up_one_to_one(report):
    ends = report.delivered + report.failed + report.dropped + report.discarded
    return adds_up(report) and report.taken == ends


def notes_of(error):
    return tuple(error.__notes__)


# ---- functions that fail at some items


def failing(bad, latencies=(0,), *, error=Boom):
    """Make an async function ``call``: it takes its time, then fails at the items in `bad`."""

    async def call(item):
        await trio.sleep(latencies[item % len(latencies)])
        if item in bad:
            raise error(item)
        return item

    return call


def failing_now(bad):
    def call(item):
        if item in bad:
            raise Boom(item)
        return item

    return call


def failing_children(bad):
    """Make a function that gives two children, and fails between them at the items in `bad`."""

    def call(item):
        yield item, "first"
        if item in bad:
            raise Boom(item)
        yield item, "second"

    return call


def failing_children_later(bad, latencies=(0,)):
    async def call(item):
        yield item, "first"
        await trio.sleep(latencies[item % len(latencies)])
        if item in bad:
            raise Boom(item)
        yield item, "second"

    return call


def numbers(count):
    return Pipeline.from_iterable(range(count))


# ---- skip, against a model


def skipping(skip, count, bad):
    """The definition of `OnError.skip`: what goes on, the item that ends the stream, and the note that says why."""
    out, failures = [], 0
    for number in range(count):
        if number not in bad:
            out.append(number)
            continue
        failures, items = failures + 1, number + 1
        if skip.max_failures is not None and failures > skip.max_failures:
            return out, number, f"{failures} of {items} items failed, more than max_failures={skip.max_failures}"
        if skip.max_ratio is not None and items >= skip.min_items and failures / items > skip.max_ratio:
            return out, number, f"{failures} of {items} items failed, more than max_ratio={skip.max_ratio:g}"
    return out, None, None


skips = st.builds(
    OnError.skip,
    max_failures=st.one_of(st.none(), st.integers(0, 6)),
    max_ratio=st.one_of(st.none(), st.sampled_from([0, 0.25, 0.5, 1])),
    min_items=st.integers(1, 12),
)
latencies = st.lists(st.sampled_from([0, 0, 0.5, 1, 7]), min_size=1, max_size=7)
bads = st.sets(st.integers(0, 29), max_size=20)


# ---- skip, disturbed


class Forever:
    """A source without end, all of whose items fail."""

    def __init__(self):
        self.closed = 0

    def items(self):
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            self.closed += 1


async def at_once(item):
    raise Boom


def at_once_now(item):
    raise Boom


def at_once_children(item):
    yield from ()
    raise Boom


async def at_once_children_later(item):
    raise Boom
    yield


ENDLESS = {
    "a fused map": lambda p, on: p.map(at_once_now, on_error=on),
    "a pool": lambda p, on: p.map(at_once, concurrency=3, on_error=on),
    "an unordered pool": lambda p, on: p.map(at_once, concurrency=3, ordered=False, on_error=on),
    "keys": lambda p, on: p.map(at_once, concurrency=3, key=lambda item: item % 5, on_error=on),
    "a flat_map": lambda p, on: p.flat_map(at_once_children, on_error=on),
    "an async flat_map": lambda p, on: p.flat_map(at_once_children_later, concurrency=2, on_error=on),
}


async def bury(failure):
    """A dead letter office that never waits."""


def disturbed():
    """One plan with every policy but `stop`, and failures everywhere."""
    return (
        numbers(12)
        .buffer(2)
        .map(failing({1, 5, 6}, (0.5, 0, 1)), concurrency=3, on_error=OnError.skip(), name="skips")
        .buffer(1)
        .map(failing({2, 7}, (0, 1)), concurrency=2, on_error=OnError.divert(Step(bury_slowly)), name="diverts")
        .map(failing({3, 11}), on_error=OnError.emit(), name="emits")
        .filter(lambda value: not isinstance(value, Failure))
    )


def disturbed_flat():
    return (
        numbers(8)
        .flat_map(failing_children({1, 4}), on_error=OnError.skip(), name="fused")
        .map(lambda pair: pair[0])
        .flat_map(failing_children_later({2, 5}, (0.5, 0)), concurrency=2, on_error=OnError.skip(), name="skips")
        .map(lambda pair: pair[0])
        .buffer(1)
        .flat_map(failing_children_later({3}), concurrency=2, on_error=OnError.divert(bury_slowly), name="diverts")
    )


async def bury_slowly(failure):
    await trio.sleep(1)


# ---- emit


PLACES = {
    "fused": lambda p, call, on: p.map(lambda item: call(item), on_error=on, name="place"),
    "pool": lambda p, call, on: p.map(later(call), on_error=on, name="place"),
    "step": lambda p, call, on: p.map(Step(later(call)), on_error=on, name="place"),
    "keys": lambda p, call, on: p.map(later(call), key=id, on_error=on, name="place"),
    "flat_map": lambda p, call, on: p.flat_map(lambda item: [call(item)], on_error=on, name="place"),
    "flat_map of a stage": lambda p, call, on: p.flat_map(
        lambda item: [call(item)], concurrency=1, on_error=on, name="place"
    ),
    "flat_map of a step": lambda p, call, on: p.flat_map(Step(later(call, list=True)), on_error=on, name="place"),
    "async flat_map": lambda p, call, on: p.flat_map(bit_by_bit(call), on_error=on, name="place"),
}


def later(call, *, list=False):
    async def fn(item):
        await trio.lowlevel.checkpoint()
        return [call(item)] if list else call(item)

    return fn


def bit_by_bit(call):
    async def fn(item):
        yield call(item)

    return fn


class Opaque:
    """An item that must not be looked at."""

    def _refuse(self, *_args):
        raise AssertionError("an item was looked at")

    __eq__ = __hash__ = __bool__ = __repr__ = __str__ = __len__ = __iter__ = _refuse


STRANGE = [
    None,
    float("nan"),
    ValueError("an item"),
    StopIteration(),
    trio.EndOfChannel(),
    Opaque(),
    [],
    NotImplemented,
]


def test_a_failure_counts_the_attempts_that_a_timeout_cut_short():
    """Two attempts of 1 s with 1 s between, then the third: a timeout of 4.5 s in all ends the third, not the first."""

    async def call(item):
        await trio.sleep(1)
        raise Boom

    step = Step(call).retry(Retry(9, Boom, Backoff(1, 1, jitter=0))).timeout(4.5)
    (value,) = outcome_of(numbers(1).map(step, on_error=OnError.emit())).items

    assert (type(value.error), value.attempts) == (trio.TooSlowError, 3)


# ---- flat_map: places that are kept


@pytest.mark.parametrize("policy", [OnError.skip(), OnError.divert(bury_slowly)], ids=["skip", "divert"])
def test_a_place_kept_for_a_child_is_free_again_when_the_parent_fails(policy):
    """Two parents, room for one child, and the one who had the place fails: the other's children come at once."""

    async def children(item):
        if item == 0:
            await trio.sleep(1)
            raise Boom
        yield 1
        yield 2

    pipeline = numbers(2).flat_map(children, concurrency=2, on_error=policy).buffer(1)
    seen = outcome_of(pipeline)

    assert (seen.items, seen.times) == ([1, 2], [1, 1])


# ---- divert


def test_a_sync_function_with_divert_must_not_return_something_to_await():
    """As everywhere; it is a failure of the item, so it is diverted."""
    letters = []

    async def divert(failure):
        letters.append(str(failure.error))

    seen = outcome_of(numbers(1).map(lambda item: bury(item), on_error=OnError.divert(divert)))

    assert (seen.items, seen.error, seen.report.failed) == ([], None, 1)
    assert letters == ["'<lambda>' is not async, but returned something to await\nUse an `async def` function."]


def test_a_divert_step_that_cannot_run_is_a_problem_of_the_plan():
    """P19: found before anything runs, in `map` and `flat_map`."""
    policy = OnError.divert(Step(failing_now({})))
    problem = (
        r"^step 'call': fn must be an async function, not a sync one, unless something runs it\.\n"
        r"Use Step\(fn\)\.on\(threads\(4\)\), or Step\.pure\(fn\) for one that takes no time\.$"
    )
    for pipeline in (numbers(1).map(bury, on_error=policy), numbers(1).flat_map(at_once_children, on_error=policy)):
        with pytest.raises(PlanError, match=problem):
            pipeline.check()


def test_an_item_cancelled_in_its_divert_is_discarded_once():
    """Cancelled from outside while the step has it: told once, not failed; its error is kept with the others."""

    async def main():
        told = []
        with trio.CancelScope() as scope:
            pipeline = numbers(1).map(failing({0}), on_error=OnError.divert(bury_slowly))
            async with pipeline.open(on_discard=lambda *what: told.append(what)) as run:
                await trio.sleep(0.5)
                scope.cancel()
                await run.receive()
        return told, run.report

    told, report = run_virtual(main)
    assert told == [(0, "call", "cancelled")]
    assert (report.outcome, report.failed, report.discarded) == ("cancelled", 0, 1)
    assert [repr(error) for error in report.cleanup_errors] == ["Boom(0)"]
    assert adds_up_one_to_one(report)


def test_a_divert_behind_an_earlier_failure_is_cut_short():
    """Item 1 is diverted from 1 to 9 s; the divert of item 0 fails at 3 s: 1 is discarded, its error kept."""

    async def divert(failure):
        await trio.sleep(2 if failure.item == 0 else 8)
        raise KeyError(failure.item)

    pipeline = numbers(2).map(failing({0, 1}, (1,)), concurrency=2, on_error=OnError.divert(divert))
    seen = outcome_of(pipeline)

    assert (seen.error.args, seen.told, seen.report.elapsed) == ((0,), [(1, "behind a failure")], 3)
    assert [repr(error) for error in seen.report.cleanup_errors] == ["Boom(1)"]
    assert seen.report.failed == 1


# ---- what no policy may mistake


ENDS = {
    "StopIteration": StopIteration(7),
    "StopAsyncIteration": StopAsyncIteration(),
    "EndOfChannel": trio.EndOfChannel(),
}
POLICIES = {
    "stop": OnError.stop(),
    "skip": OnError.skip(),
    "skip none": OnError.skip(max_failures=0),
    "emit": OnError.emit(),
    "divert": OnError.divert(bury),
}


def root_of(error):
    """The original object: ours or Python's RuntimeErrors around it taken away."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


