"""A second call when the first is slow: when it begins, which result counts, and what becomes of the others.

The law compares with a few lines of arithmetic that know nothing of tasks (`Expected`).

Mutants that die here: a call that begins though one has ended; one too many; the result of a later success; a loser
that goes on, or is not waited for; a failure that is final while another call runs; the first error in the place of the
last; a loser's error that is raised, or lost; a token, resource or place that a loser keeps; a call that begins with
what another has set in its context; a scope that ends the next call of a worker; a task where none is needed;
an error in a reference cycle.
"""

import gc
import logging
import signal
import weakref
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    Failure,
    OnError,
    Pipeline,
    PlanError,
    RateLimit,
    RateLimiter,
    Recorder,
    Retry,
    StateError,
    Step,
    gather,
    review,
    simulate,
    threads,
)
from funcpipe_trio._runtime.calls.hedging import _Race
from funcpipe_trio._sansio.hedging import SlowCalls
from funcpipe_trio.testing import (
    Scenario,
    cancel_everywhere,
    drain_everywhere,
    explore_schedules,
    interrupt_everywhere,
    run_virtual,
)
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, stray_cancelled
from tests.promises._tasks import Tasks

QUICK = Backoff(0, jitter=0)


class Service:
    """What is called: the k-th call of an item takes its time, and fails if it is told to."""

    __name__ = "service"

    def __init__(self, *plan, at_end=None):
        self.plan = plan  # of each call of an item: seconds, or seconds and an error
        self.at_end = at_end  # called with the number of a call that is cancelled
        self.calls = {}
        self.log = []

    async def __call__(self, item):
        number = self.calls[item] = self.calls.get(item, -1) + 1
        seconds, error = self.plan[min(number, len(self.plan) - 1)]
        self.log.append(("begins", number, trio.current_time()))
        try:
            await trio.sleep(seconds)
        except trio.Cancelled:
            self.log.append(("cancelled", number, trio.current_time()))
            if self.at_end is not None:
                await self.at_end(number)
            raise
        self.log.append(("ends", number, trio.current_time()))
        if error is not None:
            raise error
        return number


def outcome_of(step, item=0):
    """What a step gives or raises, and when."""

    async def main():
        try:
            return await step(item), trio.current_time()
        except Exception as error:
            return error, trio.current_time()

    return run_virtual(main)


# ---- the law


class Expected:
    """What must become of calls that take so long, and fail or not."""

    def __init__(self, plan, after, most):
        begins = {}
        for number, (seconds, _error) in enumerate(plan[:most]):
            ended = [other for other, (_begin, end) in begins.items() if end <= number * after]
            if number and (len(ended) == len(begins) or any(plan[other][1] is None for other in ended)):
                break
            begins[number] = (number * after, number * after + seconds)
        ends = sorted((end, number) for number, (_begin, end) in begins.items())
        good = [(end, number) for end, number in ends if plan[number][1] is None]
        self.end, self.winner = good[0] if good else (ends[-1][0], None)
        self.errors = [plan[number][1] for end, number in ends if plan[number][1] and end <= self.end]
        self.log = sorted(
            [("begins", number, begin) for number, (begin, _end) in begins.items()]
            + [("ends", number, end) for end, number in ends if end <= self.end]
            + [("cancelled", number, self.end) for end, number in ends if end > self.end]
        )


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=4, max_size=4), st.integers(1, 4), st.integers(2, 4)
)
def test_the_first_success_counts_and_the_last_error(drawn, after, most):
    """Durations differ by a part that no sum of others has, so that no two calls end at one instant."""
    plan = [
        (seconds + 2.0**-number / 8, Boom(number) if fails else None) for number, (seconds, fails) in enumerate(drawn)
    ]
    service, expected = Service(*plan), Expected(plan, after, most)
    result, end = outcome_of(Step(service).hedge(after, most))

    assert sorted(service.log) == expected.log
    assert end == expected.end
    if expected.winner is not None:
        assert result == expected.winner
    else:
        met = []
        while result is not None:
            met.append(result)
            result = result.__context__
        assert met == expected.errors[::-1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_many_items_at_once_are_each_for_itself(seconds, after, concurrency, ordered):
    """A second call takes no time: each item is done after its first call, or when the second begins."""

    async def call(item):
        calls[item] = calls.get(item, 0) + 1
        if calls[item] == 1:
            await trio.sleep(seconds[item] + 0.5)
        return item

    calls = {}
    line = Pipeline.from_iterable(range(len(seconds)))
    plan = line.map(Step(call).hedge(after), concurrency=concurrency, ordered=ordered)
    report = run_virtual(plan.run)

    assert calls == {item: 1 + (took + 0.5 > after) for item, took in enumerate(seconds)}
    assert report.stages[-1].policies.hedges == sum(count - 1 for count in calls.values())
    assert report.delivered == len(seconds)


# ---- instants and failures


def test_a_call_that_ends_just_then_has_ended():
    """Also one that fails."""
    error = Boom()
    for seed in range(8):
        with scheduled(Schedule(seed)):
            service = Service((2, None))
            assert outcome_of(Step(service).hedge(2)) == (0, 2)
            assert [kind for kind, *_ in service.log] == ["begins", "ends"]
            service = Service((2, error))
            assert outcome_of(Step(service).hedge(2)) == (error, 2)
            assert [kind for kind, *_ in service.log] == ["begins", "ends"]


def test_a_failure_before_the_second_call_is_final_and_untouched():
    error = Boom()
    result, end = outcome_of(Step(Service((1, error))).hedge(2))

    assert (result, end, result.__context__, result.__notes__) == (error, 1, None, ["in step 'service'"])


def test_further_calls_begin_behind_a_failure_while_another_runs():
    """The first fails at 5, the second hangs: the third begins at 6."""
    service = Service((5, Boom()), (90, None), (2, None))

    assert outcome_of(Step(service).hedge(3, 3)) == (2, 8)


def test_no_further_call_begins_when_none_runs():
    """Both fail before the third would begin, at 6: that ends it."""
    first, second = Boom(), Boom()
    result, end = outcome_of(Step(Service((4, first), (2, second), (0, None))).hedge(3, 3))

    assert (result, end, result.__context__) == (second, 5, first)


def test_no_further_call_begins_behind_a_cancellation():
    """The second takes its time to end; the third would have begun meanwhile."""

    async def at_end(number):
        with trio.CancelScope(shield=True):
            await trio.sleep(9 if number == 1 else 0)

    service = Service((90, None), at_end=at_end)

    async def main():
        with trio.move_on_after(5):
            await Step(service).hedge(3, 3)(0)
        return trio.current_time()

    assert run_virtual(main) == 14
    assert [number for kind, number, _ in service.log if kind == "begins"] == [0, 1]


def test_a_stray_cancelled_is_a_failure_like_others():
    async def call(item):
        calls.append(item)
        if len(calls) == 1:
            await trio.sleep(3)
            raise await stray_cancelled()
        await trio.sleep(4)
        return "second"

    calls = []
    assert outcome_of(Step(call).hedge(2)) == ("second", 6)

    async def second(item):
        calls.append(item)
        if len(calls) == 2:
            raise await stray_cancelled()
        await trio.sleep(3)
        return "first"

    calls = []
    assert outcome_of(Step(second).hedge(2)) == ("first", 3)


def test_a_group_and_a_late_call_are_failures_too():
    for error in (ExceptionGroup("", [Boom()]), trio.TooSlowError()):
        assert outcome_of(Step(Service((3, error), (2, None))).hedge(2)) == (1, 4)


# ---- losers


def test_a_loser_is_waited_for():
    async def at_end(number):
        with trio.CancelScope(shield=True):
            await trio.sleep(5)

    assert outcome_of(Step(Service((9, None), (1, None), at_end=at_end)).hedge(2)) == (1, 8)
    assert outcome_of(Step(Service((3, None), (9, None), at_end=at_end)).hedge(2)) == (0, 8)

    async def main(plan, seconds):
        """Say when the caller goes on; the block would wait for the tasks in any case."""
        async with Step(Service(*plan, at_end=at_end)).hedge(2).start() as call:
            with trio.move_on_after(seconds):
                await call(0)
            return trio.current_time()

    assert run_virtual(main, ((3, None), (9, None)), 99) == 8
    assert run_virtual(main, ((2.5, Boom()), (9, None)), 4) == 9
    assert run_virtual(main, ((9, None), (9, None)), 4) == 14  # the second is cancelled when the first has ended


@pytest.mark.parametrize("plan", [((9, None), (1, None)), ((3, None), (9, None))])
def test_what_a_loser_raises_is_an_error_of_cleanup(plan, caplog):
    error = Boom("in cleanup")

    async def at_end(number):
        raise error

    step = Step(Service(*plan, at_end=at_end)).hedge(2)

    async def main():
        async with Pipeline.from_iterable([0]).map(step).open() as run:
            results = [item async for item in run]
        return results, run.report

    results, report = run_virtual(main)
    assert len(results) == 1
    assert report.cleanup_errors == (error,)
    caplog.set_level(logging.WARNING, "funcpipe_trio")
    assert outcome_of(Step(Service(*plan, at_end=at_end)).hedge(2))[0] in (0, 1)
    assert "step 'service': 1 errors in addition to the result" in caplog.text


def test_a_loser_that_ends_well_anyway_changes_nothing():
    async def call(item):
        calls.append(item)
        if len(calls) == 1:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            return "late"
        await trio.sleep(1)
        return "second"

    calls = []
    assert outcome_of(Step(call).hedge(2)) == ("second", 5)


def test_the_next_calls_of_a_worker_are_not_ended_by_a_scope_that_was():
    """The scope of the first call stays open from call to call, unless it was cancelled."""

    async def call(item):
        calls[item] = calls.get(item, 0) + 1
        if calls[item] == 1 and item % 2:
            with trio.CancelScope(shield=item in (3, 5)):
                await trio.sleep(5)
            if item == 5:  # it ends well, though it was cancelled
                return item
        await trio.sleep(1)
        return item

    for around in (lambda step: step, lambda step: step.timeout(50), lambda step: step.timeout(40).timeout(50)):
        calls = {}
        step = around(Step(call).timeout(20).hedge(2))
        assert run_virtual(Pipeline.from_iterable(range(8)).map(step).collect) == list(range(8))


# ---- cancelled from outside


@pytest.mark.parametrize("seconds", [1, 3, 6])
def test_a_cancelled_caller_cancels_all_and_waits_for_them(seconds):
    async def at_end(number):
        with trio.CancelScope(shield=True):
            await trio.sleep(1)

    service = Service((20, None), (4.5, Boom()), (20, None), at_end=at_end)

    async def main():
        with trio.move_on_after(seconds) as scope:
            await Step(service).hedge(2, 3)(0)
        assert scope.cancelled_caught
        return trio.current_time()

    ended = run_virtual(main)
    begun = sum(kind == "begins" for kind, *_ in service.log)
    assert sum(kind != "begins" for kind, *_ in service.log) == begun
    assert seconds < ended <= seconds + 2


def test_a_timeout_around_it_ends_all_calls_and_one_inside_each():
    service = Service((20, None))
    result, end = outcome_of(Step(service).hedge(2, 3).timeout(7))
    assert (type(result), end) == (trio.TooSlowError, 7)
    assert sorted(service.log[3:]) == [("cancelled", number, 7) for number in range(3)]

    service = Service((20, None))
    result, end = outcome_of(Step(service).timeout(3).hedge(2, 3))
    assert (type(result), end) == (trio.TooSlowError, 7)  # the third begins at 4
    begun = [when for what, _number, when in service.log if what == "begins"]
    assert begun == [0, 2, 4]


# ---- what is inside


def test_each_call_takes_its_own_token_and_gives_its_place_back():
    """The second waits for a token until 10; the first ends at 3: the place is free for the next item at 10."""
    limiter = RateLimiter(RateLimit(0.1))
    service = Service((3, None))
    step = Step(service).rate_limit(limiter).hedge(2)

    async def main():
        first = await step(0), trio.current_time()
        return first, await step(1), trio.current_time()

    assert run_virtual(main) == ((0, 3), 0, 13)


def test_attempts_are_those_of_the_call_whose_error_it_is():
    """The first call has two attempts until 3; the second begins at 2 and has two until 5."""
    service = Service((1.5, Boom()))
    error, end = outcome_of(Step(service).retry(Retry(2, backoff=QUICK)).hedge(2))

    assert (end, error.__notes__[-1]) == (5, "in step 'service', attempt 2 of 2")


def test_the_attempts_of_another_call_are_told_if_its_error_is():
    """The first fails at 3, with what is not retried; the second at 5, with its second attempt."""
    service = Service((3, Boom()), (1, OSError()), (2, OSError()))
    error, end = outcome_of(Step(service).retry(Retry(2, OSError, QUICK)).hedge(2))

    assert (type(error), end, error.__notes__[-1]) == (OSError, 5, "in step 'service', attempt 2 of 2")


def test_a_further_call_knows_of_a_timeout_around_it():
    """Its second attempt would begin when the time is over."""
    service = Service((4, Boom()), (1, OSError()))
    error, end = outcome_of(Step(service).retry(Retry(2, OSError, Backoff(9, jitter=0))).hedge(2).timeout(8))

    assert (type(error), end) == (Boom, 4)
    assert error.__context__.__notes__ == [
        "not tried again: the next attempt is due in 9 s, its timeout is over in 5 s"
    ]


def test_a_further_call_does_not_know_of_the_timeout_inside_the_first():
    """The first is late at 5; the second begins at 3 and has until 8: its second attempt begins at 7."""
    service = Service((9, None), (0, OSError()), (0.5, None))
    step = Step(service).retry(Retry(2, OSError, Backoff(4, jitter=0))).timeout(5).hedge(3)

    assert outcome_of(step) == (2, 7.5)


def test_each_call_has_a_resource_of_its_own_for_each_worker():
    """Two calls of one item at once never use one; for each run they share it."""
    opened, used = [], []

    @asynccontextmanager
    async def connection():
        opened.append(len(opened))
        yield opened[-1]

    async def with_it(resource, item):
        used.append(resource)
        await trio.sleep(9 if len(used) == 1 else 1)
        return item

    for per, most in (("worker", 2), ("run", 1)):
        opened.clear(), used.clear()
        step = Step(with_it).using(connection, per=per).hedge(2)
        run_virtual(Pipeline.from_iterable(range(3)).map(step).run)
        assert len(opened) == most
        assert (used[0] != used[1]) is (per == "worker")


def test_a_circuit_sees_each_call_inside_of_it_and_the_outcome_outside():
    inner, outer = CircuitBreaker(2, 100), CircuitBreaker(1, 100)
    step = Step(Service((3, Boom()), (4, Boom()))).circuit_breaker(inner).hedge(2).circuit_breaker(outer)

    async def main():
        async with step.start() as call:
            with pytest.raises(Boom):
                await call(0)
            return [each.state.value for each in call.circuits]

    assert run_virtual(main) == ["open", "open"]


def test_a_call_in_a_thread_is_waited_for():
    report = run_virtual(Pipeline.from_iterable(range(3)).map(Step(abs).on(threads(2)).hedge(50)).run)

    assert report.delivered == 3


request: ContextVar[str] = ContextVar("request", default="none")


@pytest.mark.parametrize("kind", ["run", "block"])
def test_each_call_begins_with_what_is_set_when_its_item_does(kind):
    """Also in the block of a started step, whose tasks have the context of another."""
    seen = []

    async def call(item):
        seen.append((item, request.get()))
        request.set(f"of {item}")
        await trio.sleep(5 if len(seen) % 2 else 1)
        seen[-1] += (request.get(),)
        return item

    step = Step(call).hedge(2)

    async def main():
        request.set("outside")
        if kind == "run":
            await Pipeline.from_iterable(range(2)).map(step).run()
            return "outside"
        async with step.start() as started:
            request.set("inside")
            await started(0)
            request.set("inside")
            await started(1)
            return "inside"

    before = run_virtual(main)
    assert [each[:2] for each in seen] == [(0, before), (0, before), (1, before), (1, before)]


# ---- where it does not strike


def test_it_costs_one_task_for_the_run_where_no_call_is_slow():
    async def call(item):
        await trio.sleep(1)
        return item

    def counted(step):
        async def main():
            tasks = Tasks()
            trio.lowlevel.add_instrument(tasks)
            await Pipeline.from_iterable(range(50)).map(step, concurrency=3).run()
            return tasks.spawned, tasks.steps

        return run_virtual(main)

    (spawned, steps), (more, more_steps) = counted(Step(call)), counted(Step(call).hedge(2))
    assert more == spawned + 1
    assert more_steps <= steps + 20  # it looks at the clock every two seconds, at most


# ---- where it may be called


def test_a_started_step_is_called_in_its_block():
    step = Step(Service((9, None), (1, None))).hedge(2)

    async def outside():
        await step.start()(1)

    with pytest.raises(StateError, match="one with using, hedge or coalesce must be called in its block"):
        run_virtual(outside)

    async def inside():
        async with step.start() as call:
            results = await gather(call, [1, 2], concurrency=2), await Pipeline.from_iterable([3]).map(call).collect()
        async with call:
            await call(4)
        return results, call.statistics().hedges, trio.current_time()  # that of the pipeline counts in its stage

    assert run_virtual(inside) == (([1, 1], [1]), 3, 9)


def test_a_block_that_is_left_while_a_call_runs_waits_for_it():
    step = Step(Service((9, None), (3, None))).hedge(2)

    async def main():
        results = []

        async def use(call):
            results.append(await call(0))

        async with trio.open_nursery() as nursery:
            async with step.start() as call:
                nursery.start_soon(use, call)
                await trio.sleep(3)
            assert trio.current_time() == 5
        return results

    assert run_virtual(main) == [1]


def test_a_block_that_is_left_at_once_and_one_that_a_loser_outlives():
    """Neither the task that watches, nor one that is cancelled, asks for the block when that is left."""

    async def at_once(item):
        return item

    async def at_end(number):
        raise Boom

    async def main():
        async with Step(at_once).hedge(2).start() as call:
            await call(0)
        async with trio.open_nursery() as nursery:
            async with Step(Service((9, None), (1, None), at_end=at_end)).hedge(2).start() as call:
                nursery.start_soon(call, 0)
                await trio.sleep(2.5)
            return trio.current_time()

    assert run_virtual(main) == 3


def test_a_block_that_is_cancelled_leaves_the_first_call_of_another_task():
    """The second call runs in the block and ends with it; the first is the caller's own."""
    step = Step(Service((9, None), (30, None))).hedge(2)

    async def main():
        results = []

        async def use(call):
            results.append(await call(0))

        async with trio.open_nursery() as nursery:
            with trio.move_on_after(3):
                async with step.start() as call:
                    nursery.start_soon(use, call)
                    await trio.sleep_forever()
        return results, trio.current_time()

    assert run_virtual(main) == ([0], 9)


# ---- the plan


def test_it_is_refused_for_what_must_not_be_called_twice():
    once = Step(abs, name="pay", idempotent=False).on(threads(1))
    rule = "step 'pay': a step with idempotent=False must not be hedged: both calls may have their effect."
    for build in (
        lambda: once.hedge(1),
        lambda: Step(abs).fallback(once).timeout(2).hedge(1),
        lambda: Step(once.start()).hedge(1),
        lambda: Step(Step(once.start()).timeout(2).start(), name="again").hedge(1),
    ):
        with pytest.raises(PlanError) as caught:
            build()
        assert str(caught.value) == f"{rule}\nUse idempotent=True if calling it again does no harm."


def test_how_it_reads_and_what_can_be_set():
    async def embed(item):
        raise AssertionError

    def plan(after, most):
        return Pipeline.from_iterable([1]).map(Step(embed).timeout(5).hedge(after, most), concurrency=3)

    assert Step(embed).hedge(0.25).describe() == (
        "step embed\n  call embed\n    hedge: up to 2 calls, one more after each 0.25 s"
    )
    changed = plan(1, 2).with_settings({"embed": {"hedge.after": 3, "hedge.most": 4}})
    assert changed.describe("json") == plan(3, 4).describe("json")
    assert plan(1, 2).max_in_flight == plan(1, 4).max_in_flight
    assert review(plan(1, 2)) == ()


def test_a_simulation_hedges_too():
    """The second calls of items are played as they were."""
    service = Service((4, None), (1, None))
    plan = Pipeline.from_iterable(range(5), name="numbers").map(Step(service).hedge(2), name="s")
    recorder = Recorder()
    report = run_virtual(lambda: plan.run(record=recorder))
    played = simulate(plan, recorder.recording)

    assert (report.elapsed, report.stages[-1].policies.hedges) == (15, 5)
    assert (played.elapsed, played.stages[-1].policies.hedges) == (15, 5)
    later = simulate(plan, recorder.recording, {"s": {"hedge.after": 2.5}})
    assert (round(later.elapsed, 4), later.stages[-1].policies.hedges) == (15, 5)  # the first calls were cut off at 3
    more = simulate(plan, recorder.recording, {"s": {"hedge.after": 0.75, "hedge.most": 3}})
    assert more.delivered == 5


# ---- everywhere


def plan():
    calls = {}

    async def call(item):
        number = calls[item] = calls.get(item, 0) + 1
        await trio.sleep(((item * 7 + number * 3) % 5) + item / 64)
        if (item + number) % 4 == 0:
            raise Boom(item)
        return item

    step = Step(call).rate_limit(RateLimit(3, burst=4)).timeout(6).hedge(1, 3).timeout(9)
    return Pipeline.from_iterable(range(7)).map(step, concurrency=3, on_error=OnError.emit()).buffer(1)


async def consume(run, lab):
    got = []
    async for each in run:
        lab.delivered += 1
        got.append(each.item if isinstance(each, Failure) else each)
    assert got == list(range(len(got)))


def test_under_every_schedule_and_ended_everywhere():
    scenario = Scenario(plan, consume)

    explore_schedules(scenario, seeds=range(30))
    cancel_everywhere(scenario)
    drain_everywhere(Scenario(plan))
    interrupt_everywhere(Scenario(plan))


@pytest.mark.parametrize(
    "plan",
    [[(0.5, "no")], [(2, "no"), (9, None)], [(2, "no"), (3, "no")], [(3, "no"), (1, "no")], [(5, None), (1, "no")]],
    ids=["alone", "first", "then the second", "the second before", "only the second"],
)
def test_its_errors_are_gone_with_the_last_reference(plan):
    """What an error holds (a response, say) is let go at once, not when the garbage collector comes."""
    errors = []

    async def call(number):
        seconds, is_wrong = plan[number]
        await trio.sleep(seconds)
        if is_wrong:
            error = Boom()
            errors.append(weakref.ref(error))
            try:
                raise error
            finally:
                del error

    async def program():
        numbers = iter(range(2))
        async with Step(lambda _item: call(next(numbers))).hedge(after=1).start() as hedged:
            gc.disable()
            try:
                with suppress(Boom):
                    await hedged(0)
                await trio.testing.wait_all_tasks_blocked()
                return [each() for each in errors]
            finally:
                gc.enable()

    alive = run_virtual(program)
    assert alive == [None] * len(errors)
    assert errors


@pytest.mark.parametrize("struck", ["due", "add", "further_context"])
def test_ctrl_c_while_a_call_is_started_leaves_nothing_behind(struck, interrupts, monkeypatch):
    """It comes when one more call is due: the caller is cancelled, and the step's next block knows nothing of it."""
    owner = SlowCalls if struck == "due" else _Race
    original, strikes = getattr(owner, struck), [signal.SIGINT]

    def striking(self, *args):
        result = original(self, *args)
        if strikes and result != []:
            signal.raise_signal(strikes.pop())
        return result

    monkeypatch.setattr(owner, struck, striking)
    called, met = [], []

    async def call(item):
        called.append(item)
        await trio.sleep(3 if item == "slow" else 0.25)

    async def program():
        step = Step(call).hedge(after=1, most=3).start()
        with pytest.raises(KeyboardInterrupt):
            async with step as hedged:
                try:
                    await hedged("slow")
                except BaseException as error:
                    met.append(type(error))
                    raise
        async with step as hedged:
            await hedged("quick")
            await trio.sleep(10)

    run_virtual(program)
    assert called[-1:] == ["quick"]
    assert called.count("quick") == 1
    assert not strikes
    assert met in ([trio.Cancelled], [KeyboardInterrupt])
