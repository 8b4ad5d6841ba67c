"""What the system before this one said of retries and timeouts, and where that failed, as tests of this one.

R1 to R10 and D1 are its laws, with exact executions, waits and instants instead of bounds; the tests of defects name
its R-1 to R-7: a timeout of the call's own taken for the policy's, a warning instead of a refusal, a policy of one
attempt that changed errors, a default that could not be made, jitter that depended on other calls, no bound on the
whole, and a timeout that cancelled nothing.

Mutants that die here: one attempt too many; a timeout that lets the call go on; a generator of jitter that is shared;
a wait that is not capped; an error replaced by "failed after n attempts".
"""

import random

import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    CircuitOpen,
    OnError,
    Pipeline,
    PlaceLimiter,
    PlanError,
    RateLimit,
    Retry,
    Step,
)
from funcpipe_trio._sansio.backoff import backoff_delay
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

laws = settings(max_examples=30, deadline=None)
backoffs = st.builds(
    Backoff,
    st.sampled_from((0, 0.125, 1, 3)),
    st.sampled_from((1, 1.5, 2)),
    st.sampled_from((0.25, 2, 1000)),
    jitter=st.just(0),
)


class Call:
    """A call that fails its first times; what was started, and what of it ended how."""

    def __init__(self, failures=0, error=OSError("down"), seconds=1):  # noqa: B008  # one object, compared by identity
        self.failures, self.error, self.seconds = failures, error, seconds
        self.started, self.ended = [], []

    async def __call__(self, item):
        self.started.append(trio.current_time())
        number = len(self.started)
        try:
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            self.ended.append(("cancelled", trio.current_time()))
            raise
        self.ended.append(("done", trio.current_time()))
        if number <= self.failures:
            raise self.error
        return item


def outcome_of(step, item=0):
    """What a step gives or raises (the object), and when."""

    async def main():
        try:
            return await step(item), trio.current_time()
        except Exception as error:
            return error, trio.current_time()

    return run_virtual(main)


# ---- laws


@pytest.mark.parametrize("build", [lambda step: step, lambda step: step.retry(Retry(1))])
@pytest.mark.parametrize("failures", [0, 1])
def test_r1_nothing_is_added_to_a_call_without_policies(build, failures):
    """R1, R-3: no policy, and one attempt, are the call itself: its result, or its own error, at its own time."""
    call = Call(failures)

    assert outcome_of(build(Step(call)), 7) == (call.error if failures else 7, 1)
    assert call.started == [0]


@laws
@given(st.integers(1, 8), st.integers(0, 9), backoffs)
def test_r2_executions(attempts, failures, backoff):
    """One for each failure and one more, at most `attempts`."""
    call = Call(failures)
    outcome_of(Step(call).retry(Retry(attempts, backoff=backoff)))

    assert len(call.started) == min(failures + 1, attempts)


@laws
@given(st.integers(1, 6), backoffs, st.sampled_from((0.5, 1, 2.5)))
def test_r3_time_in_all(attempts, backoff, timeout):
    """A call that hangs takes exactly attempts * timeout and the waits in between; R8: each attempt is cancelled."""
    call = Call(seconds=1e6)
    waits = [min(backoff.initial * backoff.factor**k, backoff.maximum) for k in range(attempts - 1)]
    error, when = outcome_of(Step(call).timeout(timeout).retry(Retry(attempts, backoff=backoff)))

    assert (type(error), when) == (trio.TooSlowError, attempts * timeout + sum(waits))
    assert call.ended == [("cancelled", begin + timeout) for begin in call.started]


@laws
@given(st.integers(2, 9), backoffs)
def test_r4_the_k_th_wait(attempts, backoff):
    """min(initial * factor**(k-1), maximum), to the last bit."""
    call = Call(attempts)
    outcome_of(Step(call).retry(Retry(attempts, backoff=backoff)))
    waits = [later - 1 - before for before, later in zip(call.started, call.started[1:], strict=False)]

    assert waits == [min(backoff.initial * backoff.factor**k, backoff.maximum) for k in range(attempts - 1)]


@laws
@given(st.floats(0, 1), st.integers(), st.integers(0, 10**9), st.integers(1, 30))
@example(1, 0, 0, 1)
def test_r5_jitter_is_bounded(jitter, seed, item, attempt):
    """Each wait is at most that part off what it is without, and a function of seed, item and attempt."""
    backoff = Backoff(0.5, jitter=jitter, seed=seed)
    plain = backoff_delay(Backoff(0.5, jitter=0), item, attempt)
    wait = backoff_delay(backoff, item, attempt)

    assert plain * (1 - jitter) <= wait <= plain * (1 + jitter)
    assert wait == backoff_delay(Backoff(0.5, jitter=jitter, seed=seed), item, attempt)


def waits_of(latencies, concurrency, seed):
    """The waits of each item of a stage whose items take different times."""
    failed = {}

    async def call(item):
        failed.setdefault(item, []).append(trio.current_time())
        await trio.sleep(latencies[item])
        failed[item].append(trio.current_time())
        raise OSError(item)

    async def main():
        step = Step(call).retry(Retry(4, backoff=Backoff(1, jitter=0.5)))
        pipeline = Pipeline.from_iterable(range(len(latencies)))
        await pipeline.map(step, concurrency=concurrency, on_error=OnError.skip(), ordered=False).run()

    with scheduled(Schedule(seed)):
        run_virtual(main)
    return {
        item: [round(start - end, 9) for end, start in zip(times[1::2], times[2::2], strict=False)]
        for item, times in failed.items()
    }


@laws
@given(
    st.lists(st.sampled_from((0, 0.25, 1, 7)), min_size=5, max_size=5),
    st.integers(1, 5),
    st.integers(0, 2**32),
)
def test_r5_waits_do_not_depend_on_what_runs_beside(latencies, concurrency, seed):
    """R-5: with any latencies, concurrency and order of tasks, an item waits as it does with none of them."""
    assert waits_of(latencies, concurrency, seed) == waits_of([0] * 5, 1, 0)


def test_r6_an_error_that_is_not_retried():
    """One execution, the object itself."""
    error = KeyError("mine")
    call = Call(9, error)

    assert outcome_of(Step(call).retry(Retry(5, on=OSError))) == (error, 1)
    assert call.started == [0]


def test_r7_what_must_not_be_repeated_is_not():
    """R-2: it is refused when it is written, before the second effect and not behind it."""
    call = Call(9)
    with pytest.raises(PlanError, match=r"^step 'Call': a step with idempotent=False must not be retried"):
        Step(call, idempotent=False).retry(Retry(2))

    assert call.started == []


@pytest.mark.parametrize("seed", range(5))
def test_r8_a_timeout_leaves_no_zombie(seed):
    """R-7: a late call is cancelled at the deadline, and nothing of it happens later."""
    effects = []

    async def call(item):
        await trio.sleep(10)
        effects.append("late")

    async def main():
        with pytest.raises(trio.TooSlowError, match=r"^not done after 0\.01 s\n"):
            await Step(call).timeout(0.01)(0)
        ended = trio.current_time()
        await trio.sleep(1000)
        return ended

    with scheduled(Schedule(seed)):
        ended = run_virtual(main)

    assert (ended, effects) == (0.01, [])


@pytest.mark.parametrize(("on", "executions"), [(trio.TooSlowError, 3), (OSError, 1), (Exception, 3)])
def test_r9_a_timeout_is_retried_if_it_is_named(on, executions):
    """Like any other error."""
    call = Call(seconds=9)
    error, when = outcome_of(Step(call).timeout(1).retry(Retry(3, on=on, backoff=Backoff(0))))

    assert (type(error), when, len(call.started)) == (trio.TooSlowError, executions, executions)


@laws
@given(st.integers(0, 60).map(lambda eighths: eighths / 8 + 1 / 16), st.integers(0, 2**32))
def test_r10_a_cancellation_ends_it_at_once(when, seed):
    """At any instant, in a call or between two: it ends there, and no attempt begins after it."""
    call = Call(99)

    async def main():
        with trio.move_on_after(when) as scope:
            await Step(call).retry(Retry(99, backoff=Backoff(0.5, factor=1, jitter=0))).timeout(1e6)(0)
        ended = trio.current_time()
        await trio.sleep(100)
        return scope.cancelled_caught, ended

    with scheduled(Schedule(seed)):
        met = run_virtual(main)

    assert met == (True, when)
    assert call.started == [k * 1.5 for k in range(99) if k * 1.5 < when]


def test_d1_the_same_seed_gives_the_same_run():
    """Twice the same steps of items, times, waits and results, whatever `random` holds; another seed, other waits."""

    def once(seed):
        log = []

        async def call(item):
            log.append((trio.current_time(), item))
            await trio.sleep(item % 3 / 10)
            if len(log) % 3:
                raise OSError(item)
            return item

        async def main():
            step = Step(call).rate_limit(RateLimit(7, burst=3)).timeout(5).retry(Retry(4, backoff=Backoff(seed=seed)))
            pipeline = Pipeline.from_iterable(range(12)).map(step, concurrency=4, on_error=OnError.emit())
            async with pipeline.open() as running:
                async for result in running:
                    log.append((trio.current_time(), getattr(result, "item", result)))
            return running.report.stages[-1].policies

        with scheduled(Schedule(1)):
            return run_virtual(main), log

    random.seed(1)
    first = once(5)
    random.seed(2)

    assert once(5) == first
    assert once(6) != first


# ---- places that calls share


def starts_behind_one_place(build, failures=0):
    """Two items, one place; a call takes 1 s, and the first ones fail: when calls started, and what came when."""
    call, ended = Call(failures), []

    async def put(step, item):
        try:
            ended.append((await step(item), trio.current_time()))
        except Exception as error:
            ended.append((type(error), trio.current_time()))

    async def main():
        step = build(Step(call), PlaceLimiter(1)).start()
        async with trio.open_nursery() as nursery:
            for item in "ab":
                nursery.start_soon(put, step, item)
                await trio.testing.wait_all_tasks_blocked()

    run_virtual(main)
    return call.started, ended


def test_a_place_inside_a_retry_is_free_between_attempts_and_one_around_it_is_kept():
    """The first attempt of "a" fails at 1, the next one is due at 3."""
    retry = Retry(2, OSError, Backoff(2, jitter=0))

    inside = starts_behind_one_place(lambda step, places: step.places(places).retry(retry), failures=1)
    around = starts_behind_one_place(lambda step, places: step.retry(retry).places(places), failures=1)

    assert inside == ([0, 1, 3], [("b", 2), ("a", 4)])
    assert around == ([0, 3, 4], [("a", 4), ("b", 5)])


def test_the_wait_for_a_place_counts_in_a_timeout_around_it():
    """And not in one inside; a call that is late gives its place back at that instant."""
    inside = starts_behind_one_place(lambda step, places: step.timeout(1.5).places(places))
    around = starts_behind_one_place(lambda step, places: step.places(places).timeout(1.5))
    late = starts_behind_one_place(lambda step, places: step.timeout(0.75).places(places))

    assert inside == ([0, 1], [("a", 1), ("b", 2)])
    assert around == ([0, 1], [("a", 1), (trio.TooSlowError, 1.5)])
    assert late == ([0, 0.75], [(trio.TooSlowError, 0.75), (trio.TooSlowError, 1.5)])


def test_a_circuit_that_is_open_takes_no_place():
    """The breaker around the place refuses at once; within it, a call first waits for a place."""
    breaker = CircuitBreaker(1, 100)

    around = starts_behind_one_place(lambda step, places: step.places(places).circuit_breaker(breaker), failures=9)
    inside = starts_behind_one_place(lambda step, places: step.circuit_breaker(breaker).places(places), failures=9)

    assert around == ([0, 1], [(OSError, 1), (OSError, 2)])  # both had begun before it opened
    assert inside == ([0], [(OSError, 1), (CircuitOpen, 1)])


# ---- defects


@pytest.mark.parametrize("kind", [TimeoutError, trio.TooSlowError])
@pytest.mark.parametrize("build", [lambda step: step, lambda step: step.timeout(5), lambda step: step.retry(Retry(1))])
def test_defect_r1_a_timeout_of_the_calls_own_is_an_error_like_another(kind, build):
    """With a timeout around it and without: the object itself, at its instant, with no word of a timeout of ours."""
    error = kind("mine")

    assert outcome_of(build(Step(Call(9, error)))) == (error, 1)
    assert "timeout of 5 s" not in error.__notes__


def test_defect_r3_an_error_is_never_replaced():
    """With any policies and any number of attempts, the last error itself; how often it was tried is a note."""
    for attempts in (1, 2, 5):
        error = OSError("TRANSIENT")
        step = Step(Call(99, error)).rate_limit(RateLimit(99, burst=9)).timeout(9)
        met, _ = outcome_of(step.retry(Retry(attempts, backoff=Backoff(0))).timeout(99))

        assert met is error
        assert error.__notes__[-1] == f"in step 'Call', attempt {attempts} of {attempts}"


def test_defect_r4_every_default_can_be_made():
    """And is what the docstrings say."""
    assert Retry() == Retry(3, Exception, Backoff(0.1, 2.0, None, 0.1, None), retry_after=None)


def test_defect_r6_there_is_a_bound_on_the_whole():
    """A timeout around a retry ends its attempts at its instant, with the cause that the last one met; and a wait that
    would end behind it does not even begin.
    """
    error = OSError("down")
    retry = Retry(10_000, backoff=Backoff(1, jitter=0))
    in_a_wait, in_a_call = Call(99, error), Call(99, error)
    met, when = outcome_of(Step(in_a_wait).timeout(8).retry(retry).timeout(28))
    late, then = outcome_of(Step(in_a_call).timeout(8).retry(retry).timeout(19.5))

    assert (met is error, when, in_a_wait.started) == (True, 20, [0, 2, 5, 10, 19])
    assert (type(late), then, late.__cause__ is error) == (trio.TooSlowError, 19.5, True)
    assert in_a_call.started == [0, 2, 5, 10, 19]


def test_defect_r6_an_attempt_far_out_waits_like_one_that_is_capped():
    """Where the power is beyond any float, it neither overflows nor waits longer than the maximum."""
    call = Call(10**6, seconds=0)
    error, when = outcome_of(Step(call).retry(Retry(1200, backoff=Backoff(0.5, factor=2, maximum=4, jitter=0))))

    assert (error, len(call.started)) == (call.error, 1200)
    assert when == 0.5 + 1 + 2 + 4 * 1196
    assert backoff_delay(Backoff(3, factor=10**9, maximum=7, jitter=0), 0, 10_000) == 7


def test_defect_r6_what_the_service_asks_for_is_waited():
    """`retry_after` is read from the error, instead of the backoff."""

    class Busy(Exception):
        retry_after = 42.0

    call = Call(1, Busy("busy"))

    assert outcome_of(Step(call).retry(Retry(retry_after=lambda error: error.retry_after))) == (0, 44)
    assert call.started == [0, 43]
