"""P11: what ends a task or the program is never retried; attempts and waits are exact, however a step is run.

Mutants that die here: `except BaseException` around an attempt; a predicate that is asked about a cancellation; one
attempt more or less; a wait after the last attempt; a wait by the number of all failures instead of the item's; jitter
from a generator that all items share; `retry_after` that is added to the backoff, or ignored; a wait that is begun
though the time is over when it ends (by the outermost timeout, or the innermost, or exactly then), or one that
is not begun for a timeout that is not around it, is over, or is the caller's.
"""

import math
from itertools import pairwise

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import Backoff, CircuitBreaker, CircuitOpen, OnError, Pipeline, RateLimit, Retry, Step, gather
from funcpipe_trio._base.shown import shown
from funcpipe_trio._sansio.backoff import backoff_delay
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled


async def one_by_one(step, items):
    """As calls of one started step."""
    started = step.start()
    return [await started(item) for item in items]


async def alone(step, items):
    """As calls of the step itself, each with fresh state."""
    return [await step(item) for item in items]


async def gathered(step, items):
    """All at once."""
    return await gather(step, items, concurrency=len(items))


async def in_a_stage(step, items):
    """As a stage with a worker for each item."""
    return await Pipeline.from_iterable(items).map(step, concurrency=len(items)).collect()


async def unordered(step, items):
    """As a stage that gives results as they come."""
    return await Pipeline.from_iterable(items).map(step, concurrency=len(items), ordered=False).collect()


WAYS = [alone, one_by_one, gathered, in_a_stage, unordered]
AT_ONCE = [gathered, in_a_stage, unordered]
every_way = pytest.mark.parametrize("run", WAYS, ids=lambda run: run.__name__)
at_once = pytest.mark.parametrize("run", AT_ONCE, ids=lambda run: run.__name__)


class Calls:
    """A call of a second that fails its first times with each item; what was called when."""

    def __init__(self, failures, error=lambda: OSError("down"), seconds=1):
        self.failures, self.error, self.seconds = failures, error, seconds
        self.started = {}

    async def __call__(self, item):
        starts = self.started.setdefault(item, [])
        starts.append(trio.current_time())
        await trio.sleep(self.seconds)
        if len(starts) <= self.failures:
            raise self.error()
        return item


def never(error):
    raise AssertionError("nobody asks about this")


# ---- never retried


@every_way
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("on", [Exception, never])
def test_what_ends_the_program_is_never_retried(run, kind, on):
    """One call, at the first instant, and the object itself, in no group; no predicate is asked, nothing is noted."""
    killer = kind("now")
    calls = Calls(9, lambda: killer)

    async def main():
        try:
            await run(Step(calls).retry(Retry(5, on=on, backoff=Backoff(0))), [0])
        except BaseException as met:
            return met, trio.current_time()

    met, when = run_virtual(main)

    assert (met is killer, when, calls.started) == (True, 1, {0: [0]})
    assert not hasattr(killer, "__notes__")


@every_way
@pytest.mark.parametrize("on", [Exception, never])
def test_a_cancellation_is_never_retried(run, on):
    """The calls end at that instant, and none begins again."""
    calls = Calls(0, seconds=10)

    async def main():
        with trio.move_on_after(3) as scope:
            await run(Step(calls).retry(Retry(5, on=on, backoff=Backoff(0))).timeout(60), [0, 1])
        return scope.cancelled_caught, trio.current_time()

    assert run_virtual(main) == (True, 3)
    assert set(calls.started) <= {0, 1}
    assert all(starts == [0] for starts in calls.started.values())


@every_way
def test_a_cancellation_of_the_calls_own_is_not_retried_as_an_error(run):
    """A group of a cancellation and an error is not an `Exception`: it passes, and one call was made."""
    calls = []

    async def call(item):
        calls.append(trio.current_time())
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("cleanup")

    async def main():
        caught = None
        with trio.move_on_after(1):
            try:
                await run(Step(call).retry(Retry(5, on=trio.TooSlowError, backoff=Backoff(0))), [0])
            except KeyError as error:
                caught = error
        return trio.current_time(), caught

    assert run_virtual(main)[0] == 1
    assert calls == [0]


@every_way
def test_a_cancellation_ends_a_wait(run):
    """Between two attempts as well."""
    calls = Calls(9)

    async def main():
        with trio.move_on_after(3.5) as scope:
            await run(Step(calls).retry(Retry(9, backoff=Backoff(1, jitter=0))), [0])
        return scope.cancelled_caught, trio.current_time()

    assert run_virtual(main) == (True, 3.5)
    assert calls.started == {0: [0, 2]}


# ---- exact


retries = st.builds(
    Retry,
    st.integers(1, 7),
    backoff=st.builds(
        Backoff,
        st.sampled_from((0, 0.125, 0.5, 1, 3)),
        st.sampled_from((1, 1.5, 2, 10)),
        st.sampled_from((0, 1, 4, 1000)),
        jitter=st.just(0),
    ),
)


def instants(retry, failures, seconds, begin=0):
    """When the attempts of one item start, and when the last one ends: the formula, written once more."""
    attempts = min(failures + 1, retry.attempts)
    starts = [begin]
    for k in range(1, attempts):
        wait = min(retry.backoff.initial * retry.backoff.factor ** (k - 1), retry.backoff.maximum)
        starts.append(starts[-1] + seconds + wait)
    return starts, starts[-1] + seconds


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(AT_ONCE), retries, st.integers(0, 8), st.sampled_from((0, 0.5, 1)), st.integers(0, 2**32))
def test_attempts_and_waits_are_exact(run, retry, failures, seconds, seed):
    """P11: each item has its own attempts, at its own exact instants, whatever runs beside it, under every schedule."""
    calls = Calls(failures, seconds=seconds)

    async def main():
        try:
            await run(Step(calls).retry(retry), [0, 1, 2])
        except OSError as error:
            return str(error), trio.current_time()
        return "done", trio.current_time()

    starts, end = instants(retry, failures, seconds)
    with scheduled(Schedule(seed)):
        outcome, when = run_virtual(main)

    assert (outcome, when) == ("down" if failures >= retry.attempts else "done", end)
    if outcome == "done":
        assert calls.started == dict.fromkeys(range(3), starts)
    else:  # the others may be cancelled in the instant of their last attempt, if it takes no time
        assert starts in calls.started.values()
        assert all(starts[: len(met)] == met for met in calls.started.values())


@pytest.mark.parametrize("run", [alone, one_by_one])
@settings(max_examples=30, deadline=None)
@given(retry=retries, failures=st.integers(0, 8))
def test_attempts_and_waits_are_exact_one_item_after_the_other(run, retry, failures):
    """Nothing of an item goes on to the next: each begins with its first attempt."""
    if failures >= retry.attempts:
        failures = retry.attempts - 1
    calls = Calls(failures)

    async def main():
        return await run(Step(calls).retry(retry), [0, 1]), trio.current_time()

    first, between = instants(retry, failures, 1)
    second, end = instants(retry, failures, 1, between)

    assert run_virtual(main) == ([0, 1], end)
    assert calls.started == {0: first, 1: second}


@every_way
def test_the_last_error_is_raised_itself(run):
    """When attempts are used up: that object, with notes on attempts and waits, no group, no cause, no context."""
    errors = []

    def error():
        errors.append(OSError(f"down {len(errors)}"))
        return errors[-1]

    async def main():
        with pytest.raises(OSError) as caught:
            await run(Step(Calls(9, error)).retry(Retry(3, backoff=Backoff(0.5, jitter=0))), [0])
        return caught.value, trio.current_time()

    met, when = run_virtual(main)
    where = "in stage 'Calls', item 0" if run in (in_a_stage, unordered) else "in step 'Calls'"

    assert (met is errors[2], when, len(errors)) == (True, 4.5, 3)
    assert met.__notes__ == ["waited 0.5, 1 s between its attempts", f"{where}, attempt 3 of 3"]
    assert (met.__cause__, met.__context__) == (None, None)


@every_way
def test_an_error_that_is_not_named_passes_at_once(run):
    """One call, the object itself; the note says how many attempts it had."""
    error = KeyError("mine")
    calls = Calls(9, lambda: error)

    async def main():
        with pytest.raises(KeyError) as caught:
            await run(Step(calls).retry(Retry(5, on=(OSError, ValueError))), [0])
        return caught.value is error, trio.current_time()

    where = "in stage 'Calls', item 0" if run in (in_a_stage, unordered) else "in step 'Calls'"

    assert run_virtual(main) == (True, 1)
    assert (calls.started, error.__notes__) == ({0: [0]}, [f"{where}, attempt 1 of 5"])


@every_way
def test_a_predicate_decides(run):
    """It sees each error, and its own error is the error of the item."""
    asked = []

    def on(error):
        asked.append(error.args[0])
        if error.args[0] == 3:
            raise ZeroDivisionError("in the predicate")
        return True

    numbers = iter(range(1, 9))

    async def main():
        with pytest.raises(ZeroDivisionError) as caught:
            await run(Step(Calls(9, lambda: OSError(next(numbers)))).retry(Retry(9, on=on, backoff=Backoff(0))), [0])
        return str(caught.value), caught.value.__context__.args

    assert run_virtual(main) == ("in the predicate", (3,))
    assert asked == [1, 2, 3]


@at_once
def test_what_retry_after_says_is_waited(run):
    """Instead of the backoff; None leaves it to the backoff, and a time that has passed means at once."""
    waits = {0: iter([5, None, -3]), 1: iter([None, 0.25, 2])}
    calls = []

    async def call(item):
        calls.append((trio.current_time(), item))
        if (wait := next(waits[item], "no more")) == "no more":
            return item
        raise OSError(wait)

    retry = Retry(4, backoff=Backoff(1, factor=2, jitter=0), retry_after=lambda error: error.args[0])

    async def main():
        return await run(Step(call).retry(retry), [0, 1]), trio.current_time()

    done, when = run_virtual(main)

    assert (sorted(done), when) == ([0, 1], 7)
    assert sorted(calls) == [(0, 0), (0, 1), (1, 1), (1.25, 1), (3.25, 1), (5, 0), (7, 0), (7, 0)]


@pytest.mark.parametrize(("kind", "wrong"), [(ValueError, math.nan), (ValueError, math.inf), (TypeError, "soon")])
def test_a_retry_after_that_is_no_time_is_an_error(kind, wrong):
    """With the value and the rule, not a wait that never ends."""

    async def main():
        with pytest.raises(kind) as caught:
            await Step(Calls(9)).retry(Retry(3, retry_after=lambda error: wrong))(0)
        return type(caught.value), str(caught.value), trio.current_time()

    assert run_virtual(main) == (
        kind,
        f"Retry: what retry_after(OSError) gives must be a finite number, not {shown(wrong)}",
        1,
    )


@at_once
def test_jitter_is_the_items_own(run):
    """The waits of an item depend on its number and stage: not on what runs beside it, on latency or on concurrency."""
    stage = "" if run is gathered else "Calls"
    retry = Retry(4, backoff=Backoff(1, jitter=0.5, seed=7))

    def waits(calls):
        return {
            item: [later - before - calls.seconds for before, later in pairwise(starts)]
            for item, starts in calls.started.items()
        }

    expected = {item: [backoff_delay(retry.backoff, item, k, stage=stage) for k in (1, 2, 3)] for item in range(6)}
    met = []
    for seconds in (0, 0.3, 2):
        calls = Calls(3, seconds=seconds)
        run_virtual(run, Step(calls).retry(retry), list(range(6)))
        met.append(waits(calls))

    assert all(
        math.isclose(wait, wanted, abs_tol=1e-12)
        for one in met
        for item, wanteds in expected.items()
        for wait, wanted in zip(one[item], wanteds, strict=True)
    )
    assert len({wait for waits in expected.values() for wait in waits}) == 18


def test_an_open_circuit_is_not_hammered():
    """`CircuitOpen` is retried only if it is named."""
    breaker = CircuitBreaker(1, 10)

    async def main(on):
        calls = Calls(1)
        step = Step(calls).circuit_breaker(breaker).retry(Retry(5, on=on, backoff=Backoff(4, factor=1, jitter=0)))
        try:
            await step(0)
        except CircuitOpen as error:
            return calls.started[0], trio.current_time(), str(error)
        return calls.started[0], trio.current_time()

    refused = ([0], 5, "the circuit is open (a failure): try again in 6 s")

    assert [run_virtual(main, on) for on in (Exception, (OSError, Exception))] == [refused] * 2
    assert run_virtual(main, (Exception, CircuitOpen)) == ([0, 13], 14)


def test_attempts_are_counted_per_item_in_the_report():
    """A stage that continues says of each failed item how many attempts it had, and how long was waited in all."""
    calls = Calls(2)
    step = Step(calls).retry(Retry(2, backoff=Backoff(3, jitter=0)))

    async def main():
        pipeline = Pipeline.from_iterable(range(3)).map(step, concurrency=3, on_error=OnError.emit())
        async with pipeline.open() as run:
            failures = [(failure.item, failure.attempts, str(failure.error)) async for failure in run]
        policies = run.report.stages[-1].policies
        return failures, policies.retries, policies.waited_retry, trio.current_time()

    assert run_virtual(main) == ([(item, 2, "down") for item in range(3)], 3, 9, 5)


# ---- a wait that would be too long


AROUND = {
    "nothing": lambda step: step,
    "then": lambda step: Step(nothing_to_do).then(step),
    "map": lambda step: step.map(lambda item: item),
    "rate limit": lambda step: step.rate_limit(RateLimit(1000, burst=100)),
    "breaker": lambda step: step.circuit_breaker(CircuitBreaker(100)),
    "retry": lambda step: step.retry(Retry(9, on=ZeroDivisionError)),
}
quarters = st.integers(0, 40).map(lambda n: n / 4)


async def nothing_to_do(item):
    return item


def what_comes(seconds, waits, deadline):
    """The attempts, and what the caller gets when."""
    now, starts = 0.0, []
    for wait in [*waits, None]:
        starts.append(now)
        now += seconds
        if now >= deadline:
            return starts, trio.TooSlowError, deadline
        if wait is None or now + wait >= deadline:
            return starts, OSError, now
        now += wait
    raise AssertionError("the last wait is None")


async def met(run, step):
    try:
        await run(step, [0])
    except Exception as error:
        return type(error), trio.current_time(), error
    raise AssertionError("it fails")


@settings(deadline=None)
@given(
    run=st.sampled_from(WAYS),
    seconds=st.sampled_from([0.0, 0.25, 1.0]),
    waits=st.lists(quarters, max_size=5),
    timeouts=st.lists(quarters.filter(bool), max_size=3),
    between=st.lists(st.sampled_from(sorted(AROUND)), min_size=3, max_size=3),
)
def test_a_wait_that_would_end_behind_a_deadline_is_not_begun(run, seconds, waits, timeouts, between):
    """Then it fails at once, with the last error; the first of all timeouts around it counts, wherever it stands."""
    calls, asked = Calls(99, seconds=seconds), iter(waits)
    step = Step(calls).retry(Retry(len(waits) + 1, retry_after=lambda error: next(asked)))
    for name, timeout in zip(between, timeouts, strict=False):
        step = AROUND[name](step).timeout(timeout)
    starts, kind, when = what_comes(seconds, waits, min(timeouts, default=math.inf))
    found, now, error = run_virtual(met, run, step)

    assert (calls.started[0], found, now) == (starts, kind, when)
    is_cut = kind is OSError and len(starts) <= len(waits)
    assert any("not tried again: " in note for note in error.__notes__) is is_cut


def test_what_was_not_waited_for_is_told():
    error = OSError("429")
    retry = Retry(5, retry_after=lambda error: 2 if len(calls.started[0]) == 1 else 3600)
    calls = Calls(99, lambda: error)
    found, now, _ = run_virtual(met, alone, Step(calls).retry(retry).timeout(30))

    assert (found, now) == (OSError, 4)
    assert error.__notes__ == [
        "waited 2 s between its attempts; "
        "not tried again: the next attempt is due in 3600 s, its timeout is over in 26 s",
        "in step 'Calls', attempt 2 of 5",
    ]


@every_way
def test_only_the_timeouts_around_a_wait_count(run):
    """Not one inside the retry, of a step before or behind it, or of the item before; nor a scope of the caller's."""
    retry = Retry(2, backoff=Backoff(5, jitter=0))
    calls = Calls(1)
    before, behind = Step(nothing_to_do).timeout(3), Step(nothing_to_do).timeout(4)
    step = before.then(Step(calls).timeout(2).retry(retry)).then(behind)

    async def main():
        first = await run(step, [0, 1])
        with trio.move_on_after(10):
            await run(Step(Calls(9)).retry(Retry(9, backoff=Backoff(20, jitter=0))), [0])
        return sorted(first), trio.current_time()

    both = 14 if run in (alone, one_by_one) else 7
    assert run_virtual(main) == ([0, 1], both + 10)


def test_a_retry_around_the_deadline_hears_the_error_itself():
    """Not a timeout that never was."""
    calls = Calls(99)
    inner = Step(calls).retry(Retry(5, backoff=Backoff(60, jitter=0))).timeout(30)
    step = inner.retry(Retry(3, on=OSError, backoff=Backoff(1, 1, jitter=0)))
    found, now, _ = run_virtual(met, alone, step)

    assert (found, now, calls.started) == (OSError, 5, {0: [0, 2, 4]})
