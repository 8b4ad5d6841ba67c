"""A stage that chooses how many calls to make at once: what is told to the machine, and what follows from that.

Its laws are those of the machine, `tests/sansio/test_adaptive_limit.py`; here is what lies between it and the calls.
Mutants that die here: a wait for a policy that counts as latency; an attempt before the last that is not told; a
cancellation, an open circuit or an item that is passed on told as a call; an error that `on` does not name told as a
failure; a limit that grows while the source or the consumer is slower; a limit that is set by hand; one
machine for two runs; a bound from the minimum.
"""

import math
from functools import partial

import pytest
import trio

from funcpipe_trio import (
    Adaptive,
    Backoff,
    CircuitBreaker,
    Failure,
    OnError,
    Pipeline,
    PlaceLimiter,
    PlanError,
    RateLimit,
    RateLimiter,
    Recorder,
    Retry,
    Step,
    gather,
    review,
    simulate,
)
from funcpipe_trio._sansio.adaptive_limit import AdaptiveLimit
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom
from tests._services import Degrading, Failing, Overloaded, Refusing, Saturating, Slowing, calling, played

WIDE = Adaptive(1, 64)


def numbers(count=2000):
    return Pipeline.from_iterable(range(count))


def report_of(plan):
    return run_virtual(plan.run)


def stage_of(report):
    return next(stage for stage in report.stages if stage.adapted is not None)


def highest(plan):
    """Return the most calls at once that the one adaptive stage of a plan came to."""
    return stage_of(report_of(plan)).adapted.highest


async def brief(item):
    await trio.sleep(0.1)
    return item


# ---- the services, in a run


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(("make", "best"), [(Saturating, 200), (Slowing, 100)])
def test_it_settles_near_the_best_fixed_number(make, best, ordered):
    """Within 20 %, over a run of some twenty seconds, its beginning included."""
    report = report_of(numbers(25 * best).map(calling(make()), concurrency=WIDE, ordered=ordered))

    assert report.delivered / report.elapsed >= 0.8 * best
    assert report.advice.endswith("only quicker calls would help")


def test_a_service_that_refuses_with_a_retry_behind():
    """No item is lost; each attempt that was refused was told, at once."""
    step = Step(calling(Failing(12))).retry(Retry(20, on=Overloaded, backoff=Backoff(0.1, factor=1, jitter=0)))
    report = report_of(numbers(2500).map(step, concurrency=WIDE, ordered=False))

    assert report.delivered == 2500
    assert report.delivered / report.elapsed >= 0.8 * 120
    assert stage_of(report).adapted.highest <= 32
    assert stage_of(report).policies.retries <= 250


@pytest.mark.parametrize("elsewhere", [0, 40])
def test_a_service_that_refuses_for_a_moment_with_a_long_wait_behind(elsewhere):
    """One call more than ten, all the time, and all fail; each waits for a second. So that is hardly ever tried."""
    step = Step(calling(Refusing(10))).retry(Retry(20, on=Overloaded, backoff=Backoff(1, factor=1)))
    report = report_of(numbers(4000).map(step, concurrency=WIDE, ordered=False, retries_elsewhere=elsewhere))

    assert report.delivered / report.elapsed >= 0.8 * 100
    assert stage_of(report).policies.retries <= 250


def test_it_follows_a_service_that_degrades_and_recovers():
    """As the machine alone does, in a world without a loop: the same rates, within a few in a hundred."""
    times = []

    async def noted(item):
        await call(item)
        times.append(trio.current_time() - began)

    async def main():
        nonlocal began
        began = trio.current_time()
        with trio.move_on_after(90):
            await numbers(10**6).map(noted, concurrency=WIDE, ordered=False).run()

    began, call = 0.0, calling(Degrading())
    run_virtual(main)
    rates = [sum(start <= at < end for at in times) / (end - start) for start, end in ((5, 30), (32, 60), (66, 90))]

    assert [rate / whole >= 0.8 for rate, whole in zip(rates, (210, 70, 210), strict=True)] == [True] * 3


def test_a_run_is_as_the_machine_alone():
    """A source that is always ready, and a consumer that takes all: as many answers as without any loop."""
    report = report_of(numbers(1700).map(calling(Slowing()), concurrency=WIDE, ordered=False))
    alone = played(Slowing(), AdaptiveLimit(WIDE), report.elapsed)

    assert report.delivered == pytest.approx(len(alone.answered), rel=0.03)


# ---- the limit in use


def test_the_bound_is_that_of_the_maximum_and_holds():
    most = 0

    async def call(item):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(1)
        running -= 1

    running = 0
    plan = numbers(500).map(call, concurrency=Adaptive(2, 23)).buffer(5)
    report = report_of(plan)

    assert plan.max_in_flight == 16 + 23 + 5
    assert most == 23
    assert report.stages[1].in_flight_peak <= 23 + 5


def test_it_begins_with_the_minimum():
    async def main():
        async with numbers().map(brief, concurrency=Adaptive(3, 9)).open() as run:
            await trio.sleep(0.05)
            return run.statistics().stages[1]

    stage = run_virtual(main)

    assert (stage.concurrency, stage.in_flight, stage.adapted.highest) == (3, 3, 3)


def test_with_a_slow_source_it_does_not_grow():
    async def slow():
        for number in range(300):
            await trio.sleep(1)
            yield number

    assert highest(Pipeline.from_async_iterable(slow).map(brief, concurrency=WIDE)) <= 2


def test_with_a_slow_consumer_it_does_not_grow():
    async def main():
        async with numbers(300).map(brief, concurrency=WIDE).buffer(1).open() as run:
            async for _ in run:
                await trio.sleep(1)
        return stage_of(run.report)

    assert run_virtual(main).adapted.highest <= 2


def test_under_a_rate_limit_it_grows_to_what_that_lets_through():
    """Ten a second of 0.1 s are one at a time; more would only wait for tokens, and that is no latency of theirs."""
    step = Step(brief).rate_limit(RateLimit(10, burst=1))
    stage = stage_of(report_of(numbers(300).map(step, concurrency=WIDE)))

    assert stage.adapted.highest <= 4
    assert stage.policies.waited_rate > 10


def test_one_slow_item_in_order_holds_nothing_down():
    """While its results wait for it there is no room, so the limit is not in use; then all goes on as before."""

    async def call(item):
        await trio.sleep(60 if item == 1000 else 0.1)
        return item

    report = report_of(numbers(6000).map(call, concurrency=Adaptive(1, 32)))

    assert stage_of(report).concurrency == 32
    assert stage_of(report).adapted.changes == 5
    assert report.elapsed < 60 + 6000 / 320 + 10


def test_a_call_that_never_ends_takes_a_place_and_no_more():
    async def call(item):
        await trio.sleep(math.inf if item == 0 else 0.1)

    async def main():
        async with numbers(10**6).map(call, concurrency=Adaptive(1, 8), ordered=False).open() as run:
            with trio.move_on_after(20):
                async for _ in run:
                    pass
            return run.statistics()

    with_it = run_virtual(main)
    assert with_it.stages[1].adapted.highest == 1  # its only place
    assert with_it.delivered == 0


# ---- what counts as latency


@pytest.mark.parametrize(
    "wrap",
    [
        lambda call: Step(call).rate_limit(RateLimit(30, burst=1)),
        lambda call: Step(call).rate_limit(RateLimit(30, burst=1)).timeout(100),
        lambda call: Step(call).rate_limit(RateLimiter(RateLimit(30, burst=1))).retry(Retry(2)),
    ],
)
def test_a_wait_for_a_rate_limit_is_no_latency(wrap):
    """Three at once give thirty a second; it comes to some more, and never falls."""
    adapted = stage_of(report_of(numbers(600).map(wrap(brief), concurrency=Adaptive(2, 64)))).adapted

    assert 4 <= adapted.highest <= 8
    assert adapted.lowest == 2
    assert adapted.changes <= 2


def test_a_wait_between_attempts_is_no_latency():
    """Every call in thirty fails once, and is tried again a minute later."""

    async def call(item):
        await trio.sleep(0.1)
        if item % 30 == 0 and item not in tried:
            tried.add(item)
            raise Boom

    tried = set()
    step = Step(call).retry(Retry(2, backoff=Backoff(60, maximum=60, jitter=0)))
    adapted = stage_of(report_of(numbers(1200).map(step, concurrency=Adaptive(1, 16), ordered=False))).adapted

    assert (adapted.highest, adapted.changes) == (16, 4)


def test_items_that_wait_elsewhere_take_no_place():
    """Every thirtieth call fails once; while it waits, its place is another's, and the number is what calls bear."""

    async def call(item):
        await trio.sleep(0.1)
        if item % 30 == 0 and item not in tried:
            tried.add(item)
            raise Boom

    tried = set()
    step = Step(call).retry(Retry(2, backoff=Backoff(5, jitter=0)))
    plan = numbers(3000).map(step, concurrency=Adaptive(1, 16), ordered=False, retries_elsewhere=50)
    report = report_of(plan)

    assert plan.max_in_flight == 16 + 16 + 50 + 16
    assert stage_of(report).concurrency >= 8
    assert report.elapsed <= 35


def test_a_wait_for_a_circuit_is_no_latency_and_no_call():
    """It opens at the first failure, and the others wait ten seconds for the probe."""

    async def call(item):
        await trio.sleep(0.1)
        if item == 500:
            raise Boom

    step = Step(call).circuit_breaker(CircuitBreaker(1, 10, wait=True))
    plan = numbers(1500).map(step, concurrency=Adaptive(1, 16), ordered=False, on_error=OnError.skip())
    adapted = stage_of(report_of(plan)).adapted

    assert (adapted.highest, adapted.changes) == (16, 4)


def test_an_open_circuit_is_no_failure_of_a_call():
    """Thousands are refused while it is open, and none of them was a call."""

    async def call(item):
        await trio.sleep(0.1)
        if item == 500:
            raise Boom

    async def paced():
        for number in range(1500):
            if number > 500:
                await trio.sleep(0.001)
            yield number

    step = Step(call).circuit_breaker(CircuitBreaker(1, 10))
    line = Pipeline.from_async_iterable(paced)
    report = report_of(line.map(step, concurrency=Adaptive(1, 16), ordered=False, on_error=OnError.skip()))

    assert stage_of(report).policies.refused > 900
    assert stage_of(report).adapted.changes == 4


def test_the_opening_of_a_resource_is_no_latency():
    class Slow:
        async def __aenter__(self):
            await trio.sleep(5)

        async def __aexit__(self, *_):
            pass

    async def call(resource, item):
        await brief(item)

    step = Step(call).using(Slow, per="worker")
    adapted = stage_of(report_of(numbers(1500).map(step, concurrency=Adaptive(1, 16), ordered=False))).adapted

    assert (adapted.highest, adapted.changes) == (16, 4)


def test_a_wait_for_another_call_is_no_latency():
    """Equal calls under way are one: who comes late waits for the rest of it only."""
    step = Step(brief).coalesce(lambda item: item // 8)
    adapted = stage_of(report_of(numbers(4000).map(step, concurrency=Adaptive(1, 16), ordered=False))).adapted

    assert (adapted.highest, adapted.changes) == (16, 4)


def test_a_wait_for_a_place_is_no_latency():
    """Four places that others could use as well: it comes to some more, and never falls."""
    step = Step(brief).places(PlaceLimiter(4))
    adapted = stage_of(report_of(numbers(2000).map(step, concurrency=Adaptive(1, 64), ordered=False))).adapted

    assert 4 <= adapted.highest <= 8
    assert adapted.changes <= 3


@pytest.mark.parametrize("around", [lambda step: step, lambda step: step.timeout(99), lambda step: step.hedge(50)])
def test_what_another_step_made_good_has_failed(around):
    """In whatever task the call is made."""
    step = around(Step(failing_in(0.1)).fallback(Step(brief)).coalesce(lambda item: item))

    assert highest(numbers(400).map(step, concurrency=WIDE)) == 1


# ---- what counts as a failure


def failing_in(seconds, error=Boom):
    async def call(item):
        await trio.sleep(seconds)
        if item % 4 == 0:
            raise error
        return item

    return call


EMIT = OnError.emit()


@pytest.mark.parametrize("policy", [EMIT, OnError.skip(), OnError.divert(Step(brief))])
def test_failures_make_it_smaller_whatever_becomes_of_the_items(policy):
    plan = numbers(1000).map(failing_in(0.1), concurrency=Adaptive(1, 64), ordered=False, on_error=policy)

    assert highest(plan) == 1


def test_a_group_counts_as_a_failure():
    plan = numbers(400).map(failing_in(0.1, ExceptionGroup("both", [Boom()])), concurrency=WIDE, on_error=EMIT)

    assert highest(plan) == 1


def test_a_timeout_counts_as_a_failure():
    """Also when the call itself never learns of it."""

    async def call(item):
        await trio.sleep(10 if item % 4 == 0 else 0.1)

    assert highest(numbers(400).map(Step(call).timeout(1), concurrency=WIDE, on_error=EMIT)) == 1


def test_each_attempt_counts():
    """Three in four attempts fail, and every item comes through."""

    async def call(item):
        nonlocal calls
        calls += 1
        await trio.sleep(0.1)
        if calls % 4:
            raise Boom

    calls = 0
    step = Step(call).retry(Retry(100, backoff=Backoff(0.1, jitter=0)))

    assert highest(numbers(200).map(step, concurrency=WIDE)) == 1


@pytest.mark.parametrize("on", [Overloaded, (Overloaded, OSError), lambda error: isinstance(error, Overloaded)])
def test_what_on_does_not_name_is_an_answer(on):
    """A quarter of the items are bad: that is no reason for fewer calls."""
    plan = numbers(3000).map(failing_in(0.1), concurrency=Adaptive(1, 64, on=on), on_error=EMIT)

    assert highest(plan) == 64


def test_what_on_names_is_none():
    plan = numbers(1000).map(failing_in(0.1), concurrency=Adaptive(1, 64, on=Boom), on_error=EMIT)

    assert highest(plan) == 1


def test_a_predicate_that_fails_is_an_error_of_the_call():
    def wrong(error):
        raise ValueError("wrong")

    plan = numbers(8).map(failing_in(0.1), concurrency=Adaptive(1, 64, on=wrong), on_error=EMIT)
    got = run_virtual(plan.collect)

    assert [type(each.error) for each in got if isinstance(each, Failure)] == [ValueError] * 2
    assert isinstance(got[0].error.__context__, Boom)


def test_a_predicate_that_fails_at_an_attempt_is_so_too():
    def wrong(error):
        raise ValueError("wrong")

    step = Step(failing_in(0.1)).retry(Retry(3, on=Boom))
    plan = numbers(8).map(step, concurrency=Adaptive(1, 64, on=wrong), on_error=EMIT)

    assert [type(each.error) for each in run_virtual(plan.collect) if isinstance(each, Failure)] == [ValueError] * 2


def test_cancelled_calls_are_not_told():
    """A run that is aborted in the middle: the machine hears of what ended, and of nothing else."""

    async def main():
        async with numbers(1000).map(brief, concurrency=Adaptive(8, 64), ordered=False).open() as run:
            await trio.sleep(0.05)
        return run.report

    report = run_virtual(main)
    assert stage_of(report).adapted.changes == 0
    assert report.outcome == "left"


# ---- which operations, and items


@pytest.mark.parametrize("operation", ["filter", "tap"])
def test_others_that_make_calls_adapt_as_well(operation):
    plan = getattr(numbers(3000), operation)(brief, concurrency=WIDE)
    report = report_of(plan)

    assert stage_of(report).adapted.highest == 64
    assert report.delivered == 3000 - (operation == "filter")  # 0 is false


def test_items_that_a_function_does_not_concern_are_no_calls():
    """Failures pass in no time: they are neither latencies nor failures of this stage."""
    failed = numbers(4000).map(failing_in(0, Boom), concurrency=8, on_error=EMIT, name="first")
    ok = report_of(failed.on_ok(brief, concurrency=Adaptive(1, 32), ordered=False))
    mended = report_of(failed.recover(lambda failure: brief(0), concurrency=Adaptive(1, 16), ordered=False))

    for report, most in ((ok, 32), (mended, 16)):
        assert report.delivered == 4000
        assert stage_of(report).adapted.changes == math.log2(most)
        assert stage_of(report).concurrency == most


@pytest.mark.parametrize("waiting", [0, 1000])
def test_by_key(waiting):
    """Ten keys, one call of each at a time: more places than ten are not in use, so there are hardly more."""
    plan = numbers(3000).map(brief, concurrency=WIDE, key=lambda item: item % 10, waiting=waiting, ordered=False)
    adapted = stage_of(report_of(plan)).adapted

    assert 10 <= adapted.highest <= 16


def test_a_key_that_cannot_be_told_is_no_failure_of_a_call():
    def key(item):
        if item % 4 == 0:
            raise Boom
        return item

    assert highest(numbers(3000).map(brief, concurrency=Adaptive(1, 16), key=key, on_error=EMIT)) == 16


# ---- one plan, many runs


def test_two_runs_of_one_plan_adapt_apart():
    async def main():
        plan = numbers(900).map(brief, concurrency=Adaptive(1, 32))
        async with plan.open() as first:
            async for _ in first:
                pass
            async with plan.open() as second:
                await trio.sleep(0.05)
                return stage_of(first.report).concurrency, stage_of(second.report).concurrency

    assert run_virtual(main) == (32, 1)


def test_a_started_step_that_two_pipelines_share():
    """Each adapts to the calls that it makes itself; together they slow each other down, and share."""

    async def main():
        call = Step(calling(Slowing(10))).retry(Retry(2)).start()
        reports = []

        async def run(policy):
            reports.append(await numbers(1500).map(call, concurrency=policy, ordered=False).run())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, WIDE)
            nursery.start_soon(run, Adaptive(1, 40))
        return reports

    reports = run_virtual(main)
    assert all(report.outcome == "completed" for report in reports)
    assert 3000 / max(report.elapsed for report in reports) >= 60


def test_a_drain_and_an_error_end_it_as_any_stage():
    async def main():
        async with numbers(10**6).map(brief, concurrency=WIDE).open() as run:
            await trio.sleep(3)
            run.drain_nowait()
            got = [item async for item in run]
        return got, run.report

    got, report = run_virtual(main)
    assert got == [*range(report.taken)]
    assert report.outcome == "drained"

    with pytest.raises(Boom):
        run_virtual(numbers(100).map(failing_in(0.1), concurrency=WIDE).collect)


# ---- set by hand


@pytest.mark.parametrize("number", [1, 5, 64, 65, 1000])
def test_no_number_is_set_by_hand(number):
    """Neither one in its range: it would adapt on; nor one above its maximum, from which the bound follows."""

    async def main():
        async with numbers(300).map(brief, concurrency=WIDE, name="call").open() as run:
            async for item in run:
                if item == 30:
                    before = stage_of(run.statistics())
                    with pytest.raises(ValueError, match=r"Run\.set_concurrency") as caught:
                        run.set_concurrency("call", number)
                    assert stage_of(run.statistics()) == before
        return str(caught.value), run.report

    said, report = run_virtual(main)
    assert said == (
        "Run.set_concurrency: stage must have a number as its concurrency; that of 'call' is an Adaptive, "
        "which chooses it\nUse concurrency=n in the plan, or another minimum and maximum of its Adaptive."
    )
    plain = run_virtual(numbers(300).map(brief, concurrency=WIDE, name="call").run)
    assert stage_of(report).adapted == stage_of(plain).adapted


# ---- reports


def test_a_report_says_where_it_was():
    report = report_of(numbers(3000).map(calling(Slowing()), concurrency=WIDE, name="call"))
    stage = report.stages[1]

    assert stage.adapted.lowest == 1
    assert stage.adapted.highest == 16
    assert 7 <= stage.concurrency <= 13
    assert f"call: concurrency {stage.concurrency} now, 1 to 16, changed {stage.adapted.changes} times" in (
        report.describe()
    )
    assert report.to_dict()["stages"][1]["adapted"] == {
        "lowest": 1,
        "highest": 16,
        "changes": stage.adapted.changes,
        "maximum": 64,
    }
    assert (report.stages[0].concurrency, report.stages[0].adapted) == (0, None)


def test_a_fixed_number_is_reported_without():
    stage = report_of(numbers(10).map(brief, concurrency=3)).stages[1]

    assert (stage.concurrency, stage.adapted) == (3, None)


def test_since_counts_the_changes_between():
    async def main():
        async with numbers(3000).map(brief, concurrency=WIDE).open() as run:
            async for item in run:
                if item == 25:
                    first = run.statistics()
            second = run.statistics()
        return first, second, second.since(first)

    first, second, between = run_virtual(main)
    changes = [stage_of(each).adapted.changes for each in (first, between, second)]

    assert changes[0] > 0 < changes[1]
    assert changes[0] + changes[1] == changes[2]


def test_advice_does_not_tell_to_raise_what_adapts():
    """At the maximum it says so; below it there is nothing to raise."""
    at_most = report_of(numbers(1000).map(brief, concurrency=Adaptive(1, 4), name="call")).advice
    below = report_of(numbers(2000).map(calling(Slowing()), concurrency=WIDE, name="call")).advice

    assert at_most == "call: it would bear more than 4 calls at once; raise the maximum of its Adaptive"
    assert "raise" not in below
    assert below.endswith("is what it bears, as far as its latency says; only quicker calls would help")


# ---- plans


def test_a_plan_says_it():
    plan = (
        numbers().map(brief, concurrency=Adaptive(1, 64)).tap(brief, concurrency=Adaptive(2, 3, target=2, on=OSError))
    )
    text = plan.describe()

    assert "stage brief: async map brief, concurrency 1 to 64, adaptive, in order\n" in text
    assert "    adaptive: fewer when calls take 1.3 times their floor, or more than 1 in 20 fails\n" in text
    assert "async tap brief, concurrency 2 to 3, adaptive, in order" in text
    assert "    adaptive: fewer when calls take 2 times their floor, or more than 1 in 20 fails with OSError\n" in text


def test_its_settings_can_be_changed_and_compared():
    plan = numbers().map(brief, concurrency=Adaptive(1, 64), name="call")

    assert plan.diff(plan.with_settings({"call": {"concurrency.maximum": 32}})).splitlines() == [
        "map call: concurrency.maximum 64 -> 32",
        "items in flight: at most 96 -> 64 (call 80 -> 48)",
    ]
    fixed = plan.with_settings({"call": {"concurrency": 8}})
    assert fixed.max_in_flight == 16 + 8 + 16
    assert fixed.with_settings({"call": {"concurrency": Adaptive(1, 64)}}).diff(plan) == ""
    with pytest.raises(ValueError, match="maximum must be >= minimum"):
        plan.with_settings({"call": {"concurrency.minimum": 65}})
    with pytest.raises(PlanError, match="must name a setting"):
        fixed.with_settings({"call": {"concurrency.maximum": 65}})


def test_the_latest_item_only_is_one_call():
    with pytest.raises(PlanError, match="with latest=True, concurrency must be 1"):
        numbers().map(brief, concurrency=Adaptive(1, 1), latest=True).check()


def test_what_is_not_a_stream_of_calls_refuses_it():
    with pytest.raises(TypeError, match="flat_map: concurrency must be an int >= 1, not an Adaptive"):
        numbers().flat_map(brief, concurrency=Adaptive(1, 2))
    with pytest.raises(TypeError, match="gather: concurrency must be an int >= 1, not an Adaptive"):
        run_virtual(partial(gather, Step(brief), [1], concurrency=Adaptive(1, 2)))


def test_review_counts_the_maximum():
    plan = numbers().map(brief, concurrency=Adaptive(1, 64))

    assert [each.rule for each in review(plan, 95)] == ["bound"]
    assert review(plan, 96) == ()


# ---- what if


def test_a_simulation_adapts_as_the_run_did():
    """Of steady calls: the same time and the same limits; and with another maximum another."""
    plan = numbers(2000).map(brief, concurrency=Adaptive(1, 64), name="call")
    recorder = Recorder()
    report = run_virtual(partial(plan.run, record=recorder))
    again = simulate(plan, recorder.recording)
    other = simulate(plan, recorder.recording, {"call": {"concurrency.maximum": 8}})
    fixed = simulate(plan, recorder.recording, {"call": {"concurrency": 2}})

    assert again.elapsed == pytest.approx(report.elapsed, abs=0.25)  # in whatever order the tasks of an instant run
    assert stage_of(again).adapted == stage_of(report).adapted
    assert stage_of(other).concurrency == 8
    assert fixed.elapsed == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize("on", [Boom, lambda error: isinstance(error, Boom), OSError])
def test_a_simulation_knows_which_errors_counted(on):
    step = Step(failing_in(0.1)).retry(Retry(2, backoff=Backoff(0.1, jitter=0)))
    plan = numbers(400).map(step, concurrency=Adaptive(1, 16, on=on), on_error=OnError.skip(), name="call")
    recorder = Recorder()
    report = run_virtual(partial(plan.run, record=recorder))
    again = simulate(plan, recorder.recording)

    assert stage_of(again).adapted.highest == stage_of(report).adapted.highest
    assert again.elapsed == pytest.approx(report.elapsed, rel=0.03)


def test_a_prediction_runs_the_machine():
    predicted = numbers().map(brief, concurrency=Adaptive(1, 16), name="call").predict({"call": 0.1})

    assert predicted.method == "simulation"
    assert predicted.throughput == pytest.approx(160, rel=0.02)


def test_few_failures_of_a_slow_stream_do_not_add_up():
    """One in a hundred, of a source that uses a part of the places: however long it lasts, nothing changes."""

    async def paced():
        for number in range(4000):
            await trio.sleep(0.02)
            yield number

    async def call(item):
        await trio.sleep(0.1)
        if item % 100 == 50:
            raise Boom

    plan = Pipeline.from_async_iterable(paced).map(call, concurrency=Adaptive(8, 64), on_error=OnError.skip())

    assert stage_of(report_of(plan)).adapted.changes == 0


def test_few_failures_behind_a_rate_limit_do_not_add_up():
    """Calls that waited for a token say nothing of latency, and yet they are calls that did not fail."""

    async def call(item):
        await trio.sleep(0.1)
        if item % 100 == 50:
            raise Boom

    step = Step(call).rate_limit(RateLimit(50, burst=1))
    adapted = stage_of(report_of(numbers(4000).map(step, concurrency=Adaptive(8, 64), on_error=EMIT))).adapted

    assert adapted.changes <= 1
