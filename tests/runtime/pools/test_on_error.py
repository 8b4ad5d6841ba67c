"""`OnError` on `map` and `flat_map`: what is said of an item that failed, when the stream ends, and what adds up.

Each policy is held against a model on lists, under random latencies, schedules, concurrency and capacities.

Mutants that die here: limits asked in the order of completion (``self._tolerance.failed`` called in `_meet`); one
failure more or less than the limit; the ratio of finished calls instead of items that had their turn; the failure
that crosses the limit counted among those gone on after; results behind it delivered; a `Failure` behind those that
completed later; the attempts of the item before; a place in a flat_map's link kept for a child that never comes; a
diverted item put down before its step has ended, or put down twice; the error of the divert step instead of its item.
"""

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
from tests._kit import Boom, Opaque, Outcome, assert_run_balances, assert_stages_balance, outcome_of


def assert_adds_up(report):
    """The sums of each stage, and of each link: here none drops."""
    assert_stages_balance(report)
    for link in report.links:
        assert link.passed == link.taken + link.discarded, link


def assert_adds_up_one_to_one(report):
    assert_adds_up(report)
    assert_run_balances(report)


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
    """The definition of `OnError.skip`: what continues, the item that ends the stream, and the note that says why."""
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


@settings(max_examples=100, deadline=None)
@given(
    skip=skips,
    bad=bads,
    latencies=latencies,
    concurrency=st.integers(1, 8),
    capacity=st.integers(1, 5),
    slow=st.sampled_from([0, 0, 0.7]),
    seed=st.integers(0, 10**6),
)
def test_an_ordered_pool_skips_as_the_list_model_does(skip, bad, latencies, concurrency, capacity, slow, seed):
    """What is delivered, the error, its notes and the failed count depend only on the items, not time or schedule."""
    call = failing(bad, latencies)
    pipeline = numbers(30).buffer(2).map(call, concurrency=concurrency, on_error=skip).buffer(capacity)
    with scheduled(Schedule(seed)):
        seen = outcome_of(pipeline, slow=slow)

    out, last, note = skipping(skip, 30, bad)
    assert seen.items == out
    assert_adds_up_one_to_one(seen.report)
    if last is None:
        assert (seen.error, seen.report.outcome, seen.told) == (None, "completed", [])
        assert seen.report.failed == len(bad)
        return
    assert seen.error.args == (last,)
    assert notes_of(seen.error) == (f"in stage 'call', item {last}", note)
    assert seen.report.failed == len([item for item in bad if item <= last])
    assert {reason for _item, reason in seen.told} <= {"behind a failure"}
    assert all(item > last for item, _reason in seen.told)


@settings(max_examples=40, deadline=None)
@given(skip=skips, bad=bads, capacity=st.integers(1, 5), shape=st.sampled_from(["map", "step", "flat", "async flat"]))
def test_every_place_skips_as_the_list_model_does(skip, bad, capacity, shape):
    """A fused map, a step, a fused flat_map and an async one (one at a time): the same rule, note for note."""
    source = numbers(30).buffer(capacity)
    pipeline = {
        "map": lambda: source.map(failing_now(bad), on_error=skip),
        "step": lambda: source.map(Step(failing(bad)), concurrency=3, on_error=skip),
        "flat": lambda: source.flat_map(failing_children(bad), on_error=skip),
        "async flat": lambda: source.flat_map(failing_children_later(bad), on_error=skip),
    }[shape]().buffer(capacity)
    seen = outcome_of(pipeline)

    out, last, note = skipping(skip, 30, bad)
    if "flat" in shape:  # the children that came before the failure stay
        seen.items = [item for item, which in seen.items if which == "second"]
    assert seen.items == out
    assert_adds_up(seen.report)
    assert (seen.error and (seen.error.args, notes_of(seen.error))) == (
        None if last is None else ((last,), (f"in stage 'call', item {last}", note))
    )
    assert seen.report.failed == len([item for item in bad if last is None or item <= last])


@settings(max_examples=40, deadline=None)
@given(
    bad=bads,
    latencies=latencies,
    concurrency=st.integers(1, 8),
    flat=st.booleans(),
    limit=st.one_of(st.none(), st.integers(0, 6)),
    seed=st.integers(0, 10**6),
)
def test_an_unordered_stage_skips_in_the_order_of_completion(bad, latencies, concurrency, flat, limit, seed):
    """All good items come, or those that completed before one failure too many; it is raised itself."""
    skip = OnError.skip(max_failures=limit)
    if flat:
        pipeline = numbers(30).flat_map(failing_children_later(bad, latencies), concurrency=concurrency, on_error=skip)
    else:
        pipeline = numbers(30).map(failing(bad, latencies), concurrency=concurrency, ordered=False, on_error=skip)
    with scheduled(Schedule(seed)):
        seen = outcome_of(pipeline.buffer(2))

    good = set(range(30)) - bad
    items = [item for item, which in seen.items if which == "second"] if flat else seen.items
    assert_adds_up(seen.report)
    assert len(items) == len(set(items))
    if limit is None or len(bad) <= limit:
        assert (set(items), seen.error, seen.report.failed, seen.told) == (good, None, len(bad), [])
        return
    assert set(items) <= good
    assert seen.error.args[0] in bad
    assert f" items failed, more than max_failures={limit}" in notes_of(seen.error)[-1]
    assert seen.report.failed == limit + 1
    assert {reason for _item, reason in seen.told} <= {"behind a failure"}


def test_unordered_limits_look_at_items_as_they_complete():
    """Item 2 fails at 1 s, item 0 at 3 s: where one may fail, 0 is one too many, as the third item."""
    call = failing({0, 2}, (3, 2, 1))
    pipeline = numbers(3).map(call, concurrency=3, ordered=False, on_error=OnError.skip(max_failures=1))
    seen = outcome_of(pipeline)

    assert (seen.items, seen.times, seen.error.args) == ([1], [2], (0,))
    assert notes_of(seen.error) == ("in stage 'call', item 0", "2 of 3 items failed, more than max_failures=1")


@pytest.mark.parametrize("place", ["map", "flat_map"])
def test_unordered_limits_count_the_items_that_are_done_not_those_that_were_taken(place):
    """Item 2 of three that run fails first, at 1 s: one of one."""
    skip = OnError.skip(max_failures=0)
    if place == "map":
        pipeline = numbers(3).map(failing({2}, (3, 2, 1)), concurrency=3, ordered=False, on_error=skip)
    else:
        pipeline = numbers(3).flat_map(failing_children_later({2}, (3, 2, 1)), concurrency=3, on_error=skip)
    seen = outcome_of(pipeline)

    assert notes_of(seen.error) == ("in stage 'call', item 2", "1 of 1 items failed, more than max_failures=0")


def test_in_order_a_limit_is_held_against_items_in_their_order():
    """The same items in order: 0 is the first failure, so 2 is the one too many though it failed first."""
    call = failing({0, 2}, (3, 2, 1))
    pipeline = numbers(3).map(call, concurrency=3, on_error=OnError.skip(max_failures=1))
    seen = outcome_of(pipeline)

    assert (seen.items, seen.times, seen.error.args) == ([1], [3], (2,))
    assert notes_of(seen.error) == ("in stage 'call', item 2", "2 of 3 items failed, more than max_failures=1")


def test_the_failure_too_many_stops_the_source_at_once():
    """At 2 s item 1 has its turn: what is behind it is cut or given up then, though the consumer reads at 100 s."""
    ends = []

    async def source():
        try:
            for number in range(50):
                yield number
        finally:
            ends.append(("source", trio.current_time()))

    async def call(item):
        try:
            await trio.sleep({0: 0, 1: 2, 2: 1}.get(item, 1000))
        except trio.Cancelled:
            ends.append((item, trio.current_time()))
            raise
        if item == 1:
            raise Boom(item)
        return item

    async def main():
        seen = Outcome()
        pipeline = Pipeline.from_async_iterable(source).buffer(1)
        pipeline = pipeline.map(call, concurrency=3, on_error=OnError.skip(max_failures=0))
        async with pipeline.open(on_discard=lambda item, *_: seen.told.append((item, trio.current_time()))) as run:
            await trio.sleep(100)
            try:
                async for item in run:
                    seen.items.append(item)
            except Boom as error:
                seen.error = error
        seen.report = run.report
        return seen

    seen = run_virtual(main)
    assert (seen.items, seen.error.args) == ([0], (1,))
    assert sorted(ends, key=str) == [("source", 2), (3, 2), (4, 2)]
    assert [item for item, _time in sorted(seen.told)][:3] == [2, 3, 4]
    assert {time for _item, time in seen.told} == {2}
    assert_adds_up_one_to_one(seen.report)


@pytest.mark.parametrize("place", ["fused", "pool", "flat_map", "async flat_map"])
def test_skipped_errors_are_counted_by_type_without_the_one_too_many(place):
    """`StageReport.failures` names what was gone on after; the error that ended the stream is the report's `error`."""

    def call(item):
        return {}[item] if item % 2 else 1 // 0

    seen = outcome_of(PLACES[place](numbers(9), call, OnError.skip(max_failures=5)))

    stage = seen.report.stages[-1]
    assert stage.failures == (("KeyError", 2), ("ZeroDivisionError", 3))
    assert (seen.report.failed, seen.report.error) == (6, seen.error)
    assert "\n" + f"{stage.name}: went on after 2 KeyError, 3 ZeroDivisionError\n" in seen.report.describe()


def test_one_error_object_for_every_item_does_not_gather_notes_without_end():
    """P4: a client that is broken raises what broke it at each call; its notes are few, and say where it ended."""
    error = Boom("broken")

    def call(item):
        raise error

    skipped = outcome_of(numbers(1000).map(call, on_error=OnError.skip(max_failures=800)))

    assert skipped.error is error
    assert notes_of(error) == ("in stage 'call', item 800", "801 of 801 items failed, more than max_failures=800")

    outcome_of(numbers(1000).map(call, on_error=OnError.emit()))

    assert len(error.__notes__) == 32


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


@pytest.mark.parametrize("policy", [OnError.skip(), OnError.divert(bury)], ids=["skip", "divert"])
@pytest.mark.parametrize("place", ENDLESS)
def test_an_endless_stream_of_failures_lets_others_run_and_can_be_cancelled(place, policy):
    """P16: no value ever comes out, and still every other task gets its turn; a cancel closes the source."""
    source = Forever()
    pipeline = ENDLESS[place](Pipeline.from_iterable(source.items), policy)

    async def main():
        turns = 0
        with trio.CancelScope() as scope:
            async with pipeline.open() as run, trio.open_nursery() as nursery:
                nursery.start_soon(run.receive)
                for _turn in range(30):
                    turns += 1
                    failed = run.statistics().failed
                    await trio.lowlevel.checkpoint()
                    assert run.statistics().failed - failed <= 2 * 128 * len(run.statistics().stages)
                scope.cancel()
        return turns, run.report

    turns, report = run_virtual(main)
    assert (turns, source.closed, report.outcome, report.delivered) == (30, 1, "cancelled", 0)
    assert report.failed > 100
    assert_adds_up(report)


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


@pytest.mark.parametrize("plan", [disturbed, disturbed_flat])
def test_cancelled_or_drained_at_any_point_everything_adds_up(plan):
    """Each item has one end, at every step at which the run is cancelled, or drained."""
    cancel_everywhere(plan, every=9)
    drain_everywhere(plan, every=9)


@pytest.mark.parametrize("plan", [disturbed, disturbed_flat])
def test_it_ends_under_every_schedule(plan):
    """P14: no order of tasks makes it wait forever, or lose an item."""
    explore_schedules(plan, seeds=range(40))


@pytest.mark.parametrize("plan", [disturbed, disturbed_flat])
@pytest.mark.parametrize("how", ["leave", "abort", "aclose"])
def test_left_or_aborted_in_the_middle_everything_adds_up(plan, how):
    """The consumer goes after 1, 2, ... items; what failed by then is failed, what did not is discarded, once."""

    async def leave(run, lab):
        async for _item in run:
            lab.delivered += 1
            if lab.delivered == 3:
                if how == "abort":
                    run.abort()
                elif how == "aclose":
                    await run.aclose()
                break

    explore_schedules(Scenario(plan, leave), seeds=range(10))


def test_a_slow_consumer_gets_every_item_that_did_not_fail():
    """A failed item waits for its turn in a place of its own; then it takes none, and all the good ones come."""
    started = []

    async def call(item):
        started.append((item, trio.current_time()))
        if item in (1, 2, 3):
            raise Boom(item)
        return item

    async def main():
        async with numbers(6).buffer(1).map(call, on_error=OnError.skip()).buffer(1).open() as run:
            await trio.sleep(10)
            calls = list(started)
            return calls, [item async for item in run], run.statistics().failed

    calls, items, failed = run_virtual(main)
    assert calls == [(0, 0), (1, 0)]  # 0 fills the link; 1 has the place of the one call
    assert (items, failed) == ([0, 4, 5], 3)


def test_a_producer_that_fails_ends_a_stream_that_skips():
    """The policy is of the stage alone: the source's own error comes behind what went before."""

    def items():
        yield from range(4)
        raise KeyError("source")

    seen = outcome_of(Pipeline.from_iterable(items).map(failing({1}), concurrency=2, on_error=OnError.skip()))

    assert (seen.items, seen.error.args) == ([0, 2, 3], ("source",))
    assert (seen.report.failed, seen.report.outcome) == (1, "failed")


# ---- emit


@settings(max_examples=50, deadline=None)
@given(bad=bads, latencies=latencies, concurrency=st.integers(1, 8), capacity=st.integers(1, 5), seed=st.integers())
def test_in_order_each_failure_keeps_the_place_of_its_item(bad, latencies, concurrency, capacity, seed):
    """P3 for failures: one value for each item, in order, whatever failed first."""
    pipeline = numbers(30).map(failing(bad, latencies), concurrency=concurrency, on_error=OnError.emit())
    with scheduled(Schedule(seed % 10**6)):
        seen = outcome_of(pipeline.buffer(capacity))

    shown = [value.item if isinstance(value, Failure) else value for value in seen.items]
    failed = {value.item for value in seen.items if isinstance(value, Failure)}
    assert (shown, failed) == (list(range(30)), bad)
    assert (seen.report.failed, seen.report.delivered) == (0, 30)  # a value of the stream as others are
    assert_adds_up_one_to_one(seen.report)


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


@pytest.mark.parametrize("place", PLACES)
def test_a_failure_has_the_item_itself_the_error_itself_and_says_where(place):
    """P2, P5: whatever the item is, it is handed on as it is, with the object that was raised, noted."""
    errors = []

    def call(item):
        errors.append(Boom())
        raise errors[-1]

    seen = outcome_of(PLACES[place](Pipeline.from_iterable(STRANGE), call, OnError.emit()))

    assert [type(value) for value in seen.items] == [Failure] * len(STRANGE)
    assert all(value.item is item for value, item in zip(seen.items, STRANGE, strict=True))
    assert all(value.error is error for value, error in zip(seen.items, errors, strict=True))
    assert {(value.stage, value.attempts) for value in seen.items} == {("place", 1)}
    assert [notes_of(value.error) for value in seen.items] == [
        (f"in stage 'place', item {number}",) for number in range(len(STRANGE))
    ]
    assert [stage.failures for stage in seen.report.stages if stage.failures] == [(("Boom", len(STRANGE)),)]
    assert_adds_up(seen.report)


def test_a_failure_counts_the_attempts_of_its_own_item():
    """An item that a retry gave up on says how often it was tried; the next one begins from 1."""

    async def call(item):
        raise Boom if item in (0, 2) else KeyError

    step = Step(call).retry(Retry(3, Boom, Backoff(0)))
    seen = outcome_of(numbers(4).map(step, on_error=OnError.emit()))

    assert [value.attempts for value in seen.items] == [3, 1, 3, 1]
    assert [notes_of(value.error)[-1] for value in seen.items] == [
        "in stage 'call', item 0, attempt 3 of 3",
        "in stage 'call', item 1, attempt 1 of 3",
        "in stage 'call', item 2, attempt 3 of 3",
        "in stage 'call', item 3, attempt 1 of 3",
    ]


def test_a_failure_counts_the_attempts_that_a_timeout_cut_short():
    """Two attempts of 1 s with 1 s between, then the third: a timeout of 4.5 s in all ends the third, not the first."""

    async def call(item):
        await trio.sleep(1)
        raise Boom

    step = Step(call).retry(Retry(9, Boom, Backoff(1, 1, jitter=0))).timeout(4.5)
    (value,) = outcome_of(numbers(1).map(step, on_error=OnError.emit())).items

    assert (type(value.error), value.attempts) == (trio.TooSlowError, 3)


@pytest.mark.parametrize("stage", ["fused", "stage"])
def test_the_failure_of_a_flat_map_is_behind_the_children_that_came(stage):
    """The children stay, then the Failure with the parent, then the children of the next item."""
    fn = failing_children({1}) if stage == "fused" else failing_children_later({1})
    seen = outcome_of(numbers(3).flat_map(fn, on_error=OnError.emit()).buffer(1))

    shown = [(value.item, "failure") if isinstance(value, Failure) else value for value in seen.items]
    assert shown == [
        (0, "first"), (0, "second"), (1, "first"), (1, "failure"), (2, "first"), (2, "second"),
    ]  # fmt: skip
    assert_adds_up(seen.report)
    counts = seen.report.stages[0 if stage == "fused" else 1]
    assert (counts.failed, counts.created, counts.absorbed) == (0, 6, 3)  # the Failure is a child like the others


# ---- flat_map: no places are kept


@pytest.mark.parametrize("policy", [OnError.skip(), OnError.divert(bury_slowly)], ids=["skip", "divert"])
def test_a_parent_that_is_silent_and_then_fails_holds_up_no_other(policy):
    """Two parents, and room for one child: the other's children come at once."""

    async def children(item):
        if item == 0:
            await trio.sleep(1)
            raise Boom
        yield 1
        yield 2

    pipeline = numbers(2).flat_map(children, concurrency=2, on_error=policy).buffer(1)
    seen = outcome_of(pipeline)

    assert (seen.items, seen.times) == ([1, 2], [0, 0])


# ---- divert


@settings(max_examples=50, deadline=None)
@given(
    bad=bads,
    worse=st.sets(st.integers(0, 29), max_size=2),
    latencies=latencies,
    concurrency=st.integers(1, 8),
    capacity=st.integers(1, 4),
    seed=st.integers(0, 10**6),
)
def test_divert_goes_on_without_the_item_until_its_own_step_fails(bad, worse, latencies, concurrency, capacity, seed):
    """In order: up to the first item at which the divert step raises; its error stands there, whatever the schedule."""
    buried = []

    async def divert(failure):
        await trio.sleep(latencies[-1 - failure.item % len(latencies)])
        if failure.item in worse:
            raise KeyError(failure.item)
        buried.append(failure.item)

    on_error = OnError.divert(divert)
    pipeline = numbers(30).buffer(2).map(failing(bad, latencies), concurrency=concurrency, on_error=on_error)
    with scheduled(Schedule(seed)):
        seen = outcome_of(pipeline.buffer(capacity))

    last = min(bad & worse, default=None)
    good = [item for item in range(30) if item not in bad]
    assert_adds_up_one_to_one(seen.report)
    if last is None:
        assert (seen.items, seen.error, sorted(buried)) == (good, None, sorted(bad))
        assert (seen.report.failed, seen.told) == (len(bad), [])
        return
    assert seen.items == [item for item in good if item < last]
    assert isinstance(seen.error, KeyError)
    assert seen.error.args == (last,)
    assert notes_of(seen.error) == ("diverting a Boom", f"in stage 'call', item {last}")
    assert type(seen.error.__context__) is Boom
    assert notes_of(seen.error.__context__) == (f"in stage 'call', item {last}",)
    assert {reason for _item, reason in seen.told} <= {"behind a failure"}
    # Every error behind it is kept somewhere: counted as diverted, or with the others.
    assert len(seen.told) == len({item for item, _reason in seen.told})


def test_divert_runs_within_the_concurrency_of_its_stage():
    """Two workers: while one diverts for 5 s, the other calls; never more than two at work."""
    log = []

    async def call(item):
        log.append((trio.current_time(), "call", item))
        await trio.sleep(1)
        if item < 2:
            raise Boom
        return item

    async def divert(failure):
        log.append((trio.current_time(), "divert", failure.item))
        await trio.sleep(5)

    pipeline = numbers(4).map(call, concurrency=2, on_error=OnError.divert(divert))
    seen = outcome_of(pipeline)

    assert sorted(log) == [
        (0, "call", 0), (0, "call", 1), (1, "divert", 0), (1, "divert", 1), (6, "call", 2), (6, "call", 3),
    ]  # fmt: skip
    assert (seen.items, seen.times, seen.report.failed) == ([2, 3], [7, 7], 2)


def test_divert_makes_a_stage_of_a_sync_function():
    """The step waits, so the function gets a stage of its own; what it returns continues, one item at a time."""
    letters = []

    async def divert(failure):
        await trio.sleep(3)
        letters.append((failure.item, repr(failure.error), failure.stage, failure.attempts, trio.current_time()))

    pipeline = numbers(4).map(failing_now({1, 2}), on_error=OnError.divert(divert))
    seen = outcome_of(pipeline)

    assert (seen.items, seen.times) == ([0, 3], [0, 6])
    assert letters == [(1, "Boom(1)", "call", 1, 3), (2, "Boom(2)", "call", 1, 6)]
    assert [stage.name for stage in seen.report.stages] == ["iterable", "call"]
    assert_adds_up_one_to_one(seen.report)


def test_a_sync_function_with_divert_must_not_return_something_to_await():
    """As everywhere; it is a mistake in the program, so it is not diverted."""
    letters = []

    async def divert(failure):
        letters.append(str(failure.error))

    seen = outcome_of(numbers(1).map(lambda item: bury(item), on_error=OnError.divert(divert)))

    assert (seen.items, str(seen.error), seen.report.failed, letters) == (
        [],
        "'<lambda>' is not async, but returned something to await\n"
        "Use concurrency=1, which awaits it, or an `async def` function.",
        1,
        [],
    )


def test_a_divert_step_that_cannot_run_is_a_problem_of_the_plan():
    """P19: found before anything runs, in `map` and `flat_map`."""
    policy = OnError.divert(Step(int))
    problem = (
        r"^step 'int': fn must be an async function, or give something to await, unless something runs it\.\n"
        r"Use Step\(fn\)\.on\(threads\(4\)\), or Step\.pure\(fn\) for one that takes no time\.$"
    )
    for pipeline in (numbers(1).map(bury, on_error=policy), numbers(1).flat_map(at_once_children, on_error=policy)):
        with pytest.raises(PlanError, match=problem):
            pipeline.check()


def test_policies_of_the_divert_step_work():
    """A timeout of 2 s around each of three attempts with 1 s between: the third is in time."""
    calls = []

    async def divert(failure):
        calls.append(trio.current_time())
        await trio.sleep(10 if len(calls) < 3 else 1)

    step = Step(divert).timeout(2).retry(Retry(3, trio.TooSlowError, Backoff(1, 1, jitter=0)))
    seen = outcome_of(numbers(2).map(failing({0}), on_error=OnError.divert(step)))

    assert calls == [0, 3, 6]
    assert (seen.items, seen.times, seen.error) == ([1], [7], None)


def test_a_divert_step_that_is_too_slow_ends_the_stream_there():
    """Its TooSlowError is the error, with the error of the call as its context."""

    async def divert(failure):
        await trio.sleep(10)

    seen = outcome_of(numbers(3).map(failing({1}), on_error=OnError.divert(Step(divert).timeout(2))))

    assert (seen.items, type(seen.error), type(seen.error.__context__)) == ([0], trio.TooSlowError, Boom)
    assert notes_of(seen.error) == ("timeout of 2 s", "diverting a Boom", "in stage 'call', item 1")


def test_a_started_step_as_divert_keeps_its_state_over_runs():
    """The rate of one letter per 10 s holds over two runs that share the step; a fresh Step starts again."""
    times = []

    async def divert(failure):
        times.append(trio.current_time())

    async def main(step):
        times.clear()
        pipeline = numbers(2).map(failing({0, 1}), on_error=OnError.divert(step))
        await pipeline.run()
        await pipeline.run()
        return list(times)

    limited = Step(divert).rate_limit(RateLimit(0.1))
    assert run_virtual(main, limited.start()) == [0, 10, 20, 30]
    assert run_virtual(main, limited) == [0, 10, 10, 20]


def test_an_item_cancelled_in_its_divert_is_discarded_once():
    """Cancelled from outside while the step has it: reported once, not failed; its error is kept with the others."""

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
    assert_adds_up_one_to_one(report)


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


def test_a_divert_that_cannot_be_cut_short_is_behind_the_failure_all_the_same():
    """As above, but shielded until 9 s: when it comes back its item is no longer wanted, and is given up, once."""

    async def divert(failure):
        if failure.item == 0:
            await trio.sleep(2)
            raise KeyError(failure.item)
        with trio.CancelScope(shield=True):
            await trio.sleep(8)

    pipeline = numbers(2).map(failing({0, 1}, (1,)), concurrency=2, on_error=OnError.divert(divert))
    seen = outcome_of(pipeline)

    assert (seen.error.args, seen.told, seen.report.elapsed) == ((0,), [(1, "behind a failure")], 9)
    assert [repr(error) for error in seen.report.cleanup_errors] == ["Boom(1)"]
    assert_adds_up_one_to_one(seen.report)


def test_drain_waits_for_a_divert():
    """P8: an item that was taken goes where it would have gone."""
    letters = []

    async def divert(failure):
        await trio.sleep(5)
        letters.append((failure.item, trio.current_time()))

    async def main():
        pipeline = numbers(100).buffer(1).map(failing({0}), on_error=OnError.divert(divert)).buffer(1)
        async with pipeline.open() as run, trio.open_nursery() as nursery:
            nursery.start_soon(run.drain)
            items = [item async for item in run]
        return items, run.report

    items, report = run_virtual(main)
    assert letters == [(0, 5)]
    assert (report.outcome, report.failed, report.discarded) == ("drained", 1, 0)
    assert items == list(range(1, report.taken))


def test_a_consumer_that_leaves_while_a_divert_runs_discards_its_item():
    """The item is given up as the others are, `not needed`."""

    async def main():
        told = []
        pipeline = numbers(2).map(failing({1}), concurrency=2, on_error=OnError.divert(bury_slowly))
        async with pipeline.open(on_discard=lambda *what: told.append(what)) as run:
            await run.receive()
            await wait_all_tasks_blocked()
        return told, run.report

    told, report = run_virtual(main)
    assert told == [(1, "call", "not needed")]
    assert (report.outcome, report.elapsed) == ("left", 0)


def test_a_failed_item_beside_the_merge_goes_on_in_its_input_only():
    """In a merge a policy of one input touches no other."""
    pipeline = fair_merge(
        {"a": numbers(4).map(failing_now({1}), on_error=OnError.skip()), "b": Pipeline.from_iterable(range(10, 14))}
    )
    seen = outcome_of(pipeline)

    assert sorted(seen.items) == [0, 2, 3, 10, 11, 12, 13]
    assert (seen.report.failed, seen.report.taken) == (1, 8)


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


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("place", PLACES)
def test_an_end_that_user_code_raises_is_a_failure_under_each_policy(place, policy, end):
    """Never an end of the stream: the items behind it come, or the RuntimeError does, whose cause is the object."""

    def call(item):
        if item == 1:
            raise ENDS[end]
        return item

    pipeline = PLACES[place](numbers(3), call, POLICIES[policy])
    seen = outcome_of(pipeline)

    failures = [value for value in seen.items if isinstance(value, Failure)]
    if policy in ("stop", "skip none"):
        assert (seen.items, root_of(seen.error)) == ([0], ENDS[end])
        assert isinstance(seen.error, RuntimeError)
        return
    assert seen.error is None
    assert [value for value in seen.items if value not in failures] == [0, 2]
    assert [root_of(failure.error) for failure in failures] == ([ENDS[end]] if policy == "emit" else [])
    assert all(isinstance(failure.error, RuntimeError) for failure in failures)


@pytest.mark.parametrize("place", PLACES)
def test_a_group_of_the_users_passes_unchanged(place):
    """P18: an ExceptionGroup is one error; it is not taken apart, for any policy."""
    group = ExceptionGroup("mine", [Boom(1), KeyError(2)])

    def call(item):
        raise group

    emitted = outcome_of(PLACES[place](numbers(1), call, OnError.emit()))
    stopped = outcome_of(PLACES[place](numbers(1), call, OnError.skip(max_failures=0)))

    assert [value.error for value in emitted.items] == [group]
    assert stopped.error is group
    assert [type(error) for error in group.exceptions] == [Boom, KeyError]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("place", PLACES)
def test_a_keyboard_interrupt_is_met_by_no_policy(place, policy):
    """It ends the run and arrives once, itself; the item is discarded, and counts as failed nowhere."""
    diverted = []

    async def divert(failure):
        diverted.append(failure)

    def call(item):
        raise KeyboardInterrupt

    on_error = OnError.divert(divert) if policy == "divert" else POLICIES[policy]

    async def main():
        told = []
        try:
            async with PLACES[place](numbers(1), call, on_error).open(
                on_discard=lambda *what: told.append(what)
            ) as run:
                await run.receive()
        except KeyboardInterrupt:
            return told, run.report
        raise AssertionError("no KeyboardInterrupt")

    told, report = run_virtual(main)
    assert [(item, reason) for item, _stage, reason in told] == [(0, "cancelled")]
    assert (report.failed, diverted, report.stages[-1].failures) == (0, [], ())
