"""A step in the place of another that fails: when it is called, with what, which error remains, and what counts where.

Mutants that die here: a fallback after a success, or after a cancellation; one that a mistake in the program is hidden
by; the first error in the place of the second, or lost; a circle of contexts; attempts of the first step told of the
second; a circuit, limit, resource or call of the other step that a run, a plan, a review or a recording does not see;
a policy around it that sees the failure it has dealt with.
"""

from contextlib import asynccontextmanager

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    CircuitOpen,
    Failure,
    MisuseError,
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
from funcpipe_trio.testing import Scenario, cancel_everywhere, explore_schedules, run_virtual
from tests._kit import Boom, stray_cancelled

QUICK = Backoff(0, jitter=0)


def failing(error=Boom):
    async def first(item):
        await trio.lowlevel.checkpoint()
        raise error if isinstance(error, BaseException) else error(item)

    return first


async def second(item):
    await trio.lowlevel.checkpoint()
    return ("second", item)


def outcome_of(step, item=0):
    """What a step gives or raises (the object)."""

    async def main():
        try:
            return await step(item)
        except Exception as error:
            return error

    return run_virtual(main)


# ---- the law


class Sum:
    """A step as a formula: what each call of a step of random shape gives, by a few lines that know nothing of it."""

    def __init__(self, draw):
        self.draw = draw
        self.calls = []  # of the step that ran
        self.expected = []  # of the formula
        self.numbers = iter(range(1000))

    def leaf(self):
        number, fails = next(self.numbers), self.draw(st.booleans())

        async def call(item):
            self.calls.append(number)
            if fails:
                raise Boom(number)
            return number

        def formula():
            self.expected.append(number)
            return (fails, number)

        return Step(call), formula

    def step(self, depth):
        kind = self.draw(st.sampled_from(["leaf", "fallback", "then", "retry"])) if depth else "leaf"
        if kind == "leaf":
            return self.leaf()
        one, first = self.step(depth - 1)
        if kind == "retry":
            return one.retry(Retry(2, backoff=QUICK)), lambda: answer if not (answer := first())[0] else first()
        other, then = self.step(depth - 1)

        def formula():
            fails, number = first()
            return then() if fails is (kind == "fallback") else (fails, number)

        return (one.fallback(other) if kind == "fallback" else one.then(other)), formula


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_step_of_any_shape_is_its_formula(data):
    """fallback(a, b) is a if that succeeds, else b; with retries and rows around and inside, any number of them."""
    made = Sum(data.draw)
    step, formula = made.step(3)

    async def main():
        try:
            return (False, await step(None))
        except Boom as error:
            return (True, error.args[0])

    assert run_virtual(main) == formula()
    assert made.calls == made.expected


# ---- which failures


@pytest.mark.parametrize("error", [Boom("x"), trio.TooSlowError(), CircuitOpen("open"), ExceptionGroup("", [Boom()])])
def test_any_exception_is_a_failure(error):
    assert outcome_of(Step(failing(error)).fallback(Step(second))) == ("second", 0)


def test_a_timeout_inside_and_an_open_circuit_are_failures():
    async def hangs(item):
        await trio.sleep(100)

    step = Step(hangs).timeout(1).circuit_breaker(CircuitBreaker(1, 1000)).fallback(Step(second))

    async def main():
        results = await gather(step, range(3), concurrency=1)
        return results, trio.current_time()

    assert run_virtual(main) == ([("second", 0), ("second", 1), ("second", 2)], 1)


def test_a_stray_cancelled_is_a_failure():
    async def stray(item):
        raise await stray_cancelled()

    assert outcome_of(Step(stray).fallback(Step(second))) == ("second", 0)


def test_a_mistake_in_the_program_is_not_dealt_with():
    step = Step(lambda item: item, name="wrong").fallback(Step(second))

    assert isinstance(outcome_of(step), MisuseError)


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_is_not_dealt_with(kind):
    with pytest.raises(kind):
        run_virtual(Step(failing(kind())).fallback(Step(second)), 0)


def test_a_cancellation_is_not_dealt_with():
    """Neither of the first step nor of the second; nobody is called after it."""
    calls = []

    async def waits(item):
        calls.append("first")
        try:
            await trio.sleep(2)
        except trio.Cancelled:
            calls.append("cancelled")
            raise
        raise Boom

    async def other(item):
        calls.append("second")
        await trio.sleep(2)

    async def main(seconds):
        with trio.move_on_after(seconds):
            await Step(waits).fallback(Step(other))(0)
        return trio.current_time()

    assert run_virtual(main, 1) == 1
    assert run_virtual(main, 3) == 3
    assert calls == ["first", "cancelled", "first", "second"]


# ---- which error remains


def test_if_both_fail_the_second_error_has_the_first_as_its_context():
    first, other = Boom("first"), ValueError("second")
    error = outcome_of(Step(failing(first)).fallback(Step(failing(other))))

    assert error is other
    assert error.__context__ is first
    assert error.__notes__ == ["in step 'first'"]


def test_an_error_with_a_context_of_its_own_keeps_that():
    first = Boom("first")

    async def other(item):
        try:
            raise ValueError
        except ValueError:
            raise KeyError from None

    error = outcome_of(Step(failing(first)).fallback(Step(other)))
    assert [type(error), type(error.__context__), error.__context__.__context__] == [KeyError, ValueError, first]


def test_out_of_a_nursery_too():
    first = Boom("first")

    async def other(item):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failing(ValueError), item)

    error = outcome_of(Step(failing(first)).fallback(Step(other)))
    assert isinstance(error, ExceptionGroup)
    assert error.__context__ is first


def test_errors_that_are_raised_again_and_again_make_no_circle():
    one, two = Boom("one"), ValueError("two")
    step = Step(failing(one)).fallback(Step(failing(two))).fallback(Step(failing(one))).fallback(Step(failing(two)))
    for _ in range(2):
        error = outcome_of(step)
        seen = []
        while error is not None:
            assert all(error is not each for each in seen)
            seen.append(error)
            error = error.__context__


def test_attempts_are_those_of_the_step_whose_error_it_is():
    """Of the first step with four attempts nothing is told of the second with none; the one around counts its own."""
    first = Step(failing()).retry(Retry(4, backoff=QUICK))

    error = outcome_of(first.fallback(Step(failing(ValueError))))
    assert error.__notes__ == ["in step 'first'"]
    error = outcome_of(first.fallback(Step(failing(ValueError)).retry(Retry(3, backoff=QUICK))))
    assert error.__notes__[-1] == "in step 'first', attempt 3 of 3"
    error = outcome_of(first.fallback(Step(failing(ValueError))).retry(Retry(2, backoff=QUICK)))
    assert error.__notes__[-1] == "in step 'first', attempt 2 of 2"


def test_a_timeout_around_both_tells_what_failed_first():
    async def hangs(item):
        await trio.sleep(100)

    first = Boom("first")
    error = outcome_of(Step(failing(first)).fallback(Step(hangs)).timeout(5))

    assert isinstance(error, trio.TooSlowError)
    assert error.__cause__ is None or error.__cause__ is first


# ---- what is around it, and what is in the other step


def test_a_circuit_around_it_sees_no_failure_and_a_retry_around_it_none():
    calls = []

    async def first(item):
        calls.append(item)
        raise Boom

    step = Step(first).fallback(Step(second)).retry(Retry(3)).circuit_breaker(CircuitBreaker(1))
    assert run_virtual(lambda: gather(step, range(3), concurrency=1)) == [("second", number) for number in range(3)]
    assert calls == [0, 1, 2]


def test_its_circuits_are_those_of_the_step_from_the_inside_out_as_written():
    inner, other, outer = CircuitBreaker(1), CircuitBreaker(2), CircuitBreaker(3)
    step = (
        Step(failing())
        .circuit_breaker(inner)
        .fallback(Step(failing(ValueError)).circuit_breaker(other))
        .circuit_breaker(outer)
    )

    async def main():
        started = step.start()
        with pytest.raises(ValueError):
            await started(0)
        return [(each.breaker, each.state.value) for each in started.circuits]

    assert run_virtual(main) == [(inner, "open"), (other, "closed"), (outer, "closed")]


def test_its_limits_and_retries_count_in_the_stage():
    limiter = RateLimiter(RateLimit(1))
    other = Step(second).rate_limit(limiter)
    step = Step(failing()).retry(Retry(2, backoff=QUICK)).fallback(other)

    async def main():
        return await Pipeline.from_iterable(range(3)).map(step).run(), trio.current_time()

    report, now = run_virtual(main)
    policies = report.stages[-1].policies
    assert (policies.fallbacks, policies.retries, policies.waited_rate, now) == (3, 3, 2, 2)
    assert "3 fallbacks" in report.describe()


def test_its_resource_is_opened_and_closed():
    opened = []

    async def with_it(resource, item):
        opened.append(resource)
        return item

    @asynccontextmanager
    async def connection():
        yield "open"
        opened.append("closed")

    step = Step(failing()).fallback(Step(with_it).using(connection))
    report = run_virtual(Pipeline.from_iterable(range(3)).map(step).run)
    assert opened == ["open", "open", "open", "closed"]
    assert report.stages[-1].policies.resources == 1
    assert run_virtual(step, 5) == 5

    async def outside():
        await step.start()(1)

    with pytest.raises(StateError, match="must be called in its block"):
        run_virtual(outside)


def test_what_is_wrong_with_the_other_step_is_found_in_the_plan():
    step = Step(second).fallback(Step(abs))
    with pytest.raises(PlanError, match="'abs': fn must be an async function"):
        step.check()
    with pytest.raises(PlanError, match="'abs': fn must be an async function"):
        Pipeline.from_iterable([1]).map(step).check()
    once = Step(second, idempotent=False)
    with pytest.raises(PlanError, match="must not be retried"):
        Step(failing()).fallback(once).retry(Retry())
    assert Step(failing()).retry(Retry()).fallback(once)


def test_a_started_step_may_be_the_other_one_and_counts_for_itself():
    async def main():
        started = Step(second).retry(Retry(2)).start()
        step = Step(failing()).fallback(Step(started))
        return await Pipeline.from_iterable(range(2)).map(step).collect(), started.statistics().fallbacks

    assert run_virtual(main) == ([("second", 0), ("second", 1)], 0)


def test_a_sync_function_and_a_thread_in_its_place():
    assert outcome_of(Step(failing()).fallback(Step.pure(lambda item: None))) is None
    assert outcome_of(Step(failing()).fallback(Step(abs).on(threads(1))), -3) == 3


# ---- the plan


def test_it_reads_as_a_step_in_the_step():
    step = (
        Step(second, name="fetch")
        .timeout(2)
        .then(Step(second, name="parse"))
        .fallback(Step(second, name="cached").timeout(1).fallback(Step.pure(bool)))
        .timeout(9)
    )

    assert step.describe() == "\n".join(
        [
            "step fetch > parse",
            "  call second",
            "    timeout of 2 s",
            "  then call second",
            "    fallback around all of these, after any failure:",
            "      call second",
            "        timeout of 1 s",
            "        fallback, after any failure:",
            "          bool",
            "    timeout of 9 s",
        ]
    )


def test_its_settings_are_numbered_with_those_of_the_step():
    def plan(one, two, three):
        step = Step(second).timeout(one).fallback(Step(second).timeout(two)).timeout(three)
        return Pipeline.from_iterable([1]).map(step, name="s")

    changed = plan(1, 2, 3).with_settings({"s": {"timeout#2": 5, "timeout#3": 6}})
    assert changed.describe("json") == plan(1, 5, 6).describe("json")
    assert plan(1, 2, 3).diff(plan(1, 5, 3)) == "map s: timeout#2 2 -> 5"


def test_another_step_is_a_difference():
    one, other, third = (
        Pipeline.from_iterable([1]).map(step)
        for step in (Step(second), Step(second).fallback(Step.pure(abs)), Step(second).fallback(Step.pure(bool)))
    )

    assert "map second: fallback added: step abs" in one.diff(other)
    assert "map second: fallback step abs -> step bool" in other.diff(third)


def test_a_review_finds_what_is_in_it_and_that_it_deals_with_an_open_circuit():
    breaking = Step(second).timeout(1).circuit_breaker(CircuitBreaker())

    def found(step):
        return [each.rule for each in review(Pipeline.from_iterable([1]).map(step, on_error=OnError.skip()))]

    assert found(breaking) == ["open-circuit"]
    assert found(breaking.fallback(Step(second).timeout(1))) == []
    assert found(breaking.fallback(Step(second))) == ["timeout"]
    assert found(Step(second).timeout(1).fallback(breaking)) == ["open-circuit"]


def test_a_simulation_plays_both_steps():
    """It takes as long as the recorded run, and as long as it would with another timeout."""

    async def slow(item):
        await trio.sleep(3 if item % 2 else 0.5)
        return item

    async def other(item):
        await trio.sleep(2)
        return item

    plan = Pipeline.from_iterable(range(6), name="numbers").map(Step(slow).timeout(1).fallback(Step(other)), name="s")
    recorder = Recorder()
    report = run_virtual(lambda: plan.run(record=recorder))

    assert report.elapsed == 3 * 0.5 + 3 * 3
    assert simulate(plan, recorder.recording).elapsed == report.elapsed
    assert simulate(plan, recorder.recording).stages[-1].policies.fallbacks == 3


# ---- everywhere


def plan():
    async def first(item):
        await trio.sleep(item % 3)
        if item % 2:
            raise Boom(item)
        return item

    async def other(item):
        await trio.sleep(1)
        if item == 5:
            raise ValueError(item)
        return -item

    step = Step(first).timeout(1.5).fallback(Step(other).timeout(2)).timeout(9)
    return Pipeline.from_iterable(range(8)).map(step, concurrency=3, on_error=OnError.emit())


async def consume(run, lab):
    got = []
    async for each in run:
        lab.delivered += 1
        got.append(each.item if isinstance(each, Failure) else each)
    assert got == [0, -1, -2, -3, 4, 5, 6, -7][: len(got)]


def test_under_every_schedule_and_cancelled_everywhere():
    scenario = Scenario(plan, consume)

    explore_schedules(scenario, seeds=range(20))
    cancel_everywhere(scenario)
