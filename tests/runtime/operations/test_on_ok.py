"""`on_ok` and `recover`: which values is the function called with, what becomes of the others, and in which order?

Mutants that die here: a `Failure` that is copied, or made again; a failure that takes a token of a rate limit, waits
for a key, or counts as a call; one that overtakes an item before it in an ordered pool, or waits in an unordered one; a
policy that is not applied, or applied to what passes.
"""

import pytest
import trio

from funcpipe_trio import Failure, OnError, Pipeline, PlanError, RateLimit, Step
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, assert_run_balances, assert_stages_balance, outcome_of

LOST = Failure("lost", Boom("first"), "earlier", 2)


def line(*items):
    return Pipeline.from_iterable(items)


async def slow(item):
    await trio.sleep(3)
    return item, "done"


def never(_item):
    raise AssertionError("called with what does not concern it")


@pytest.mark.parametrize("concurrency", [None, 2])
def test_what_does_not_concern_it_is_the_same_object(concurrency):
    async def later(item):
        return never(item)

    fn = never if concurrency is None else later
    how = {} if concurrency is None else {"concurrency": concurrency}

    assert run_virtual(line(LOST).on_ok(fn, **how).collect)[0] is LOST
    assert run_virtual(line("fine").recover(fn, **how).collect) == ["fine"]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_failure_keeps_its_turn_where_there_is_an_order(ordered):
    made = run_virtual(line(1, LOST).on_ok(slow, concurrency=2, ordered=ordered).collect)

    assert made == ([(1, "done"), LOST] if ordered else [LOST, (1, "done")])


def test_a_failure_takes_no_token_and_is_no_call():
    """Ten failures pass at once although the step may be called once a second; only two calls have a latency."""
    step = Step(slow).rate_limit(RateLimit(1, burst=1))

    report = run_virtual(line(1, *[LOST] * 10, 2).on_ok(step, concurrency=3).run)

    stage = report.stages[-1]

    assert report.elapsed == 4
    assert (stage.received, stage.latency.count, stage.latency.max) == (12, 2, 4)  # with the wait for its token
    assert_stages_balance(report)


def test_a_failure_waits_for_no_key_and_has_none():
    def key(item):
        return 0 if item in (1, 2) else never(item)

    plan = line(1, LOST, LOST, 2).on_ok(slow, concurrency=4, key=key, ordered=False)

    async def times():
        async with plan.open() as run:
            return [(item, trio.current_time()) async for item in run]

    assert run_virtual(times) == [(LOST, 0), (LOST, 0), ((1, "done"), 3), ((2, "done"), 6)]


def test_a_failure_leaves_no_bucket_behind():
    """Each failure has a key of its own, and a rate of each key would keep its bucket for as long as it refills."""
    items = (LOST if number % 2 else number for number in range(120))
    plan = Pipeline.from_iterable(items).on_ok(
        slow,
        concurrency=4,
        key=lambda item: item % 4,
        key_rate=RateLimit(1, per=1000, burst=90),
        waiting=9,
        ordered=False,
    )
    keys = []

    async def main():
        async with plan.open() as run:
            (pool,) = [stage for stage in run._engine.stages if stage.name == "slow"]
            async for _ in run:
                keys.append(pool._key_order.keys)

    run_virtual(main)

    assert len(keys) == 120
    assert max(keys) <= 2 + 4 + 9 + 16


@pytest.mark.parametrize("is_async", [False, True])
def test_the_policy_is_for_what_it_is_called_with(is_async):
    def fails(item):
        raise Boom(item)

    async def fails_later(item):
        raise Boom(item)

    fn = fails_later if is_async else fails
    emitting = line(1, LOST).on_ok(fn, on_error=OnError.emit())
    first, second = run_virtual(emitting.collect)
    recovering = line(1, LOST).recover(fn, on_error=OnError.emit())
    third, fourth = run_virtual(recovering.collect)

    assert (first.item, type(first.error), second) == (1, Boom, LOST)
    assert (third, fourth.item, fourth.error.args) == (1, LOST, (LOST,))
    assert run_virtual(line(1, LOST, 2).on_ok(fn, on_error=OnError.skip(2)).collect) == [LOST]
    assert type(outcome_of(line(LOST, 1, LOST).on_ok(fn)).error) is Boom
    assert outcome_of(line(LOST, 1, LOST).on_ok(fn)).items == [LOST]
    for plan in (emitting, recovering):
        report = run_virtual(plan.run)
        assert (report.failed, sum(stage.as_failures for stage in report.stages)) == (0, 1)
        assert_run_balances(report)


def test_a_chain_of_calls_in_which_each_may_fail():
    """As the docs write it."""

    async def fetch(item):
        await trio.sleep(1)
        if item == 2:
            raise OSError("no such page")
        return item

    def parse(item):
        return 10 // item

    plan = (
        line(0, 1, 2, 5)
        .map(fetch, concurrency=4, on_error=OnError.emit())
        .on_ok(parse, on_error=OnError.emit())
        .on_ok(slow, concurrency=2)
        .recover(lambda failure: (failure.stage, failure.item, type(failure.error).__name__))
    )

    assert run_virtual(plan.collect) == [
        ("parse", 0, "ZeroDivisionError"),
        (10, "done"),
        ("fetch", 2, "OSError"),
        (2, "done"),
    ]


def test_a_key_for_a_sync_function_is_refused_in_its_own_name():
    with pytest.raises(PlanError, match=r"^on_ok 'never': key must not be given for a sync function"):
        line(1).on_ok(never, key=never).check()


def test_in_a_prediction_nothing_fails_so_nothing_is_recovered():
    plan = line(*range(9)).map(slow, name="call").recover(slow, name="saved")

    assert plan.predict({"call": 1, "saved": 100}).bottleneck == "call"
    assert line(*range(9)).on_ok(slow, name="call").predict({"call": 2}).throughput == 0.5
