"""A circuit breaker around the call of a stage: when it opens, which calls pass, which wait, and in which order.

Mutants that die here: a second probe; a probe that is let through before, or after, its instant; a probe that is
cancelled and keeps its place; the late failure of a call from before it opened that opens it again; a late success
that closes it; waiting calls that ask in turns, or overtake each other; a refused call that counts as failed; one
circuit for two runs; an error that the policy does not mean counted as a failure, or not counted as an answer.
"""

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    CircuitOpen,
    Failure,
    OnError,
    Pipeline,
    Retry,
    StateError,
    Step,
    merge,
)
from funcpipe_trio.testing import cancel_everywhere, drain_everywhere, explore_schedules, run_virtual
from tests._kit import Boom


class Service:
    """What is called: it notes each call, takes its time, and fails when it is told to."""

    __name__ = "service"

    def __init__(self, *, down=lambda now: False, takes=0.0, error=Boom):
        self.down = down
        self.takes = takes
        self.error = error
        self.calls = []
        self.at_once = self.most = 0

    async def __call__(self, item):
        self.calls.append((trio.current_time(), item))
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await trio.sleep(self.takes(item) if callable(self.takes) else self.takes)
            if self.down(trio.current_time()):
                raise self.error(item)
            return item
        finally:
            self.at_once -= 1


def each_second(count, start=0.0):
    """A source of 0, 1, 2, ... at `start`, `start` + 1, ..."""

    async def items():
        await trio.sleep(start)
        for number in range(count):
            if number:
                await trio.sleep(1)
            yield number

    return Pipeline.from_async_iterable(items)


async def receive_all(pipeline):
    """Answer what came, each with its instant: an item, or the name of an error and what a CircuitOpen says."""
    seen = []
    async with pipeline.open() as run:
        async for value in run:
            if isinstance(value, Failure):
                value = f"{type(value.error).__name__} {value.item}"
            seen.append((trio.current_time(), value))
    return seen, run.report


def guarded(service, breaker):
    return Step(service).circuit_breaker(breaker)


def between(start, end):
    return lambda now: start <= now < end


def test_a_row_of_failures_opens_it_and_a_probe_closes_it():
    """Down from 1 to 5: fails at 1 and 2, so open until 6; the call at 6 is the probe, and those behind go through."""
    service = Service(down=between(1, 5))
    pipeline = each_second(9).map(guarded(service, CircuitBreaker(2, 4)), on_error=OnError.emit())
    seen, report = run_virtual(receive_all, pipeline)

    assert seen == [
        (0, 0), (1, "Boom 1"), (2, "Boom 2"), (3, "CircuitOpen 3"), (4, "CircuitOpen 4"), (5, "CircuitOpen 5"),
        (6, 6), (7, 7), (8, 8),
    ]  # fmt: skip
    assert service.calls == [(time, int(time)) for time in (0, 1, 2, 6, 7, 8)]
    assert report.stages[-1].failures == (("Boom", 2), ("CircuitOpen", 3))
    assert (report.stages[-1].policies.refused, report.stages[-1].policies.waited_circuit) == (3, 0)
    assert "\nservice: 1 opening of the circuit, 3 refused by an open circuit\n" in report.describe()


def test_an_answer_in_between_ends_the_row():
    """Two failures, an answer, two failures: no three in a row, so it never opens."""
    service = Service(down=lambda now: now != 2)
    pipeline = each_second(5).map(guarded(service, CircuitBreaker(3, 4)), on_error=OnError.skip())

    run_virtual(receive_all, pipeline)
    assert [item for _time, item in service.calls] == [0, 1, 2, 3, 4]


def test_a_probe_that_fails_opens_it_again_from_its_own_instant():
    """The probe starts at 4 and fails at 5.5: open until 9.5, so the call at 9 is refused and the one at 10 is not."""
    service = Service(down=between(0, 7), takes=lambda item: 1.5 if item == 4 else 0)
    step = guarded(service, CircuitBreaker(1, 4))
    pipeline = each_second(12).map(step, concurrency=3, ordered=False, on_error=OnError.emit())
    seen, _report = run_virtual(receive_all, pipeline)

    assert service.calls == [(0, 0), (4, 4), (10, 10), (11, 11)]
    assert seen == [
        (0, "Boom 0"), *((item, f"CircuitOpen {item}") for item in (1, 2, 3)), (5, "CircuitOpen 5"), (5.5, "Boom 4"),
        *((item, f"CircuitOpen {item}") for item in (6, 7, 8, 9)), (10, 10), (11, 11),
    ]  # fmt: skip


def test_a_ratio_opens_it_when_the_window_is_full():
    """Of the last four calls half failed at the 4th, at 3; not before, though the first two failed, too."""
    service = Service(down=lambda now: now in (0, 1))
    breaker = CircuitBreaker(None, 3, ratio=0.5, window=4)
    pipeline = each_second(8).map(guarded(service, breaker), on_error=OnError.emit())
    seen, _report = run_virtual(receive_all, pipeline)

    # The 4th call is an answer; the share of failures is looked at when a call fails, so the 5th may go.
    assert [value for _time, value in seen] == ["Boom 0", "Boom 1", 2, 3, 4, 5, 6, 7]

    service = Service(down=lambda now: now in (1, 3))
    pipeline = each_second(8).map(guarded(service, breaker), on_error=OnError.emit())
    seen, _report = run_virtual(receive_all, pipeline)

    assert [value for _time, value in seen] == [0, "Boom 1", 2, "Boom 3", "CircuitOpen 4", "CircuitOpen 5", 6, 7]


@pytest.mark.parametrize("breaker", [CircuitBreaker(3, 10), CircuitBreaker(None, 10, ratio=1, window=3)])
def test_what_circuit_open_says(breaker):
    """How it opened, and how long to wait; the note of the stage as on any error."""
    service = Service(down=lambda now: True)
    pipeline = each_second(6).map(guarded(service, breaker), on_error=OnError.emit())

    errors = run_virtual(collect, pipeline)[3:]
    why = "3 failures in a row" if breaker.failures else "3 of the last 3 calls failed"
    assert [(type(error), str(error), error.retry_after, error.__notes__) for error in errors] == [
        (CircuitOpen, f"the circuit is open ({why}): try again in {left} s", left, [f"in stage 'service', item {item}"])
        for item, left in ((3, 9), (4, 8), (5, 7))
    ]


async def collect(pipeline):
    return [value.error for value in await pipeline.collect()]


def test_one_probe_among_many_concurrent_calls():
    """Eight calls come at the instant of the probe, which takes 3 s: seven are refused, told that it is under way."""
    service = Service(down=lambda now: now < 5, takes=lambda item: 0 if item == 0 else 3)

    async def items():
        yield 0
        await trio.sleep(10)
        for number in range(1, 9):
            yield number
        await trio.sleep(4)
        yield 9

    pipeline = Pipeline.from_async_iterable(items)
    pipeline = pipeline.map(guarded(service, CircuitBreaker(1, 10)), concurrency=8, on_error=OnError.emit())

    async def main():
        return await pipeline.collect()

    values = run_virtual(main)
    probe, *_rest = [item for time, item in service.calls if time == 10]
    refused = [value for value in values if isinstance(value, Failure)][1:]

    assert [time for time, _item in service.calls] == [0, 10, 14]
    assert len(refused) == 7
    assert {(str(value.error), value.error.retry_after) for value in refused} == {
        ("the circuit is half-open (a failure): its probe has no answer yet", None)
    }
    assert [value for value in values if not isinstance(value, Failure)] == [probe, 9]


def test_late_results_of_calls_from_before_it_opened_change_nothing():
    """Opened at 1; a call from before fails at 3 (no longer open for it) and one ends well at 4 (it stays open)."""
    takes = {0: 1, 1: 3, 2: 4}
    service = Service(down=lambda now: now in (1, 3), takes=lambda item: takes.get(item, 0))

    async def items():
        for number in range(3):
            yield number
        for number, at in ((3, 4.5), (4, 5.5), (5, 6)):
            await trio.sleep(at - trio.current_time())
            yield number

    step = guarded(service, CircuitBreaker(1, 5))
    pipeline = Pipeline.from_async_iterable(items).map(step, concurrency=3, ordered=False, on_error=OnError.emit())
    seen, _report = run_virtual(receive_all, pipeline)

    assert seen == [(1, "Boom 0"), (3, "Boom 1"), (4, 2), (4.5, "CircuitOpen 3"), (5.5, "CircuitOpen 4"), (6, 5)]


def test_a_cancelled_probe_leaves_its_place_to_the_next():
    """The probe at 5 hangs until its timeout of 2 s, which is outside of the circuit: no answer, no failure."""
    service = Service(down=lambda now: now < 1, takes=lambda item: 100 if item == 5 else 0)
    step = guarded(service, CircuitBreaker(1, 5)).timeout(2)
    pipeline = each_second(10).map(step, concurrency=3, on_error=OnError.emit())
    seen, _report = run_virtual(receive_all, pipeline)

    assert [value for _time, value in seen][4:] == [
        "CircuitOpen 4", "TooSlowError 5", "CircuitOpen 6", 7, 8, 9,
    ]  # fmt: skip
    assert (7, 7) in service.calls


def test_only_the_errors_it_means_count():
    """Other errors are answers: a KeyError closes the row. A predicate that raises is the error, and no answer."""
    service = Service(down=lambda now: True, error=lambda item: KeyError(item) if item % 2 else Boom(item))
    pipeline = each_second(6).map(guarded(service, CircuitBreaker(2, 9, on=Boom)), on_error=OnError.emit())
    run_virtual(receive_all, pipeline)

    assert len(service.calls) == 6

    def means(error):
        raise LookupError("predicate")

    pipeline = each_second(1).map(guarded(service, CircuitBreaker(2, 9, on=means)), on_error=OnError.emit())
    (error,) = run_virtual(collect, pipeline)
    assert (type(error), type(error.__context__)) == (LookupError, Boom)


def test_a_probe_whose_error_the_predicate_cannot_judge_leaves_its_place_to_the_next():
    """Nobody knows what became of it: it neither closes nor opens the circuit, and the next call is the probe."""
    service = Service(down=lambda now: now < 3)

    def means(error):
        if error.args == (2,):
            raise LookupError("predicate")
        return True

    pipeline = each_second(5).map(guarded(service, CircuitBreaker(1, 2, on=means)), on_error=OnError.emit())
    seen, _report = run_virtual(receive_all, pipeline)

    assert seen == [(0, "Boom 0"), (1, "CircuitOpen 1"), (2, "LookupError 2"), (3, 3), (4, 4)]


# ---- waiting


def waiting(service, *, reset_after=10.0, failures=1):
    return guarded(service, CircuitBreaker(failures, reset_after, wait=True))


def test_waiting_calls_go_one_by_one_in_the_order_in_which_they_came():
    """Open from 0 to 10: the first that waited is the probe; when it has its answer, at 12, all others go, in order."""
    service = Service(down=lambda now: now < 1, takes=lambda item: 2 if item else 0)
    pipeline = each_second(6).map(waiting(service), concurrency=6, on_error=OnError.skip())
    seen, report = run_virtual(receive_all, pipeline)

    assert service.calls == [(0, 0), (10, 1), (12, 2), (12, 3), (12, 4), (12, 5)]
    assert seen == [(12, 1), (14, 2), (14, 3), (14, 4), (14, 5)]
    assert report.stages[-1].policies.waited_circuit == (10 - 1) + sum(12 - item for item in (2, 3, 4, 5))
    assert report.stages[-1].policies.refused == 0
    assert "service: 1 opening of the circuit, 43.000 s waiting for the circuit" in report.describe()


def test_a_probe_that_fails_makes_the_others_wait_again():
    """Probes at 10, 20 and 30, one waiting call each, in order; the third succeeds, and the rest go at once."""
    service = Service(down=lambda now: now < 25)
    pipeline = each_second(6).map(waiting(service), concurrency=6, on_error=OnError.skip())
    seen, _report = run_virtual(receive_all, pipeline)

    assert service.calls == [(0, 0), (10, 1), (20, 2), (30, 3), (30, 4), (30, 5)]
    assert seen == [(30, 3), (30, 4), (30, 5)]


def test_nobody_polls_while_it_is_open_or_its_probe_is_under_way():
    """Fifty calls wait until 1000 s, and 49 on until 2000 s: one task wakes for each change, then each in its turn."""
    service = Service(down=lambda now: now < 1, takes=lambda item: 1000 if item == 1 else 0)

    class Steps(trio.abc.Instrument):
        meanwhile = at_end = 0

        def before_task_step(self, task):
            now = trio.current_time()
            self.meanwhile += 100 < now < 1000 or 1000 < now < 2000
            self.at_end += now in (1000, 2000)

    async def main():
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        step = waiting(service, reset_after=1000)
        pipeline = each_second(51).map(step, concurrency=50, ordered=False, on_error=OnError.skip())
        await receive_all(pipeline)
        return steps.meanwhile, steps.at_end

    meanwhile, at_end = run_virtual(main)
    assert meanwhile == 0
    assert at_end < 50 * 8
    assert service.calls == [(0, 0), (1000, 1), *((2000, item) for item in range(2, 51))]


def test_a_call_that_comes_while_others_go_does_not_overtake_them():
    """The circuit closes at 12; a call that comes at that instant stands behind the five that waited."""
    service = Service(down=lambda now: now < 1, takes=lambda item: 2 if item == 1 else 0)

    async def items():
        for number in range(7):
            yield number
            await trio.sleep(1)
        await trio.sleep(5)
        yield 7

    pipeline = Pipeline.from_async_iterable(items)
    pipeline = pipeline.map(waiting(service), concurrency=8, on_error=OnError.skip())
    run_virtual(receive_all, pipeline)

    assert service.calls == [(0, 0), (10, 1), *((12, item) for item in range(2, 8))]


@pytest.mark.parametrize("which", ["first", "middle", "probe"])
def test_a_waiting_call_that_is_cancelled_gives_its_place_on(which):
    """Cut by a timeout of 4 s of its own: the one behind it is next, at the instant it would have been."""
    takes = {1: 100} if which == "probe" else {}
    service = Service(down=lambda now: now < 1, takes=lambda item: takes.get(item, 0))
    patience = {"first": {1: 4}, "middle": {2: 4}, "probe": {1: 14}}[which]
    started = waiting(service).start()
    ended = {}

    async def call(item):
        with trio.move_on_after(patience.get(item, 1000)):
            try:
                await started(item)
                ended[item] = trio.current_time()
            except Boom:
                ended[item] = "failed"

    async def main():
        async with trio.open_nursery() as nursery:
            for item in range(5):
                nursery.start_soon(call, item)
                await wait_all_tasks_blocked()

    run_virtual(main)
    assert (
        ended
        == {
            "first": {0: "failed", 2: 10, 3: 10, 4: 10},
            "middle": {0: "failed", 1: 10, 3: 10, 4: 10},
            "probe": {0: "failed", 2: 14, 3: 14, 4: 14},
        }[which]
    )


# ---- with a retry


def test_a_retry_that_names_it_waits_as_long_as_the_circuit_says():
    """Open until 10: all come again exactly then; those for which the probe has no answer yet try after the backoff."""
    service = Service(down=lambda now: now < 1, takes=lambda item: 0 if trio.current_time() == 0 else 0.5)
    waits = lambda error: getattr(error, "retry_after", None)  # noqa: E731
    retry = Retry(4, (CircuitOpen, Boom), Backoff(1, 1, jitter=0), retry_after=waits)
    step = guarded(service, CircuitBreaker(1, 10)).retry(retry)
    seen, report = run_virtual(receive_all, each_second(3).map(step, concurrency=3))

    policies = report.stages[-1].policies
    assert [item for _time, item in seen] == [0, 1, 2]
    assert [time for time, _item in service.calls] == [0, 10, 11, 11]
    # Item 0 is refused at 1, item 1 at 1, item 2 at 2; two of them at 10.
    assert (policies.refused, policies.retries, policies.waited_retry) == (5, 6, (1 + 9) + 9 + 8 + 2 * 1)


def test_a_retry_of_exception_alone_does_not_try_an_open_circuit():
    """The circuit would be asked for nothing: the error passes at once, though CircuitOpen is an Exception."""
    service = Service(down=lambda now: True)
    step = guarded(service, CircuitBreaker(1, 10)).retry(Retry(5, Exception))
    pipeline = Pipeline.from_iterable([0]).map(step, on_error=OnError.emit())

    async def main():
        (value,) = await pipeline.collect()
        return type(value.error), value.attempts

    assert run_virtual(main) == (CircuitOpen, 2)
    assert len(service.calls) == 1


# ---- a model


def circuit_of(outcomes, gaps, failures, reset_after):
    """The definition, for one call at a time: what becomes of each."""
    now, row, until, out = 0.0, 0, None, []
    for failed, gap in zip(outcomes, gaps, strict=True):
        now += gap
        if until is not None and now < until:
            out.append("CircuitOpen")
            continue
        probing, until = until is not None, None
        out.append("Boom" if failed else "answer")
        row = row + 1 if failed else 0
        if failed and (probing or row >= failures):
            row, until = 0, now + reset_after
    return out


@settings(max_examples=80, deadline=None)
@given(
    calls=st.lists(st.tuples(st.booleans(), st.sampled_from([0, 0.5, 1, 3])), max_size=30),
    failures=st.integers(1, 4),
    reset_after=st.sampled_from([0.5, 1, 4]),
)
def test_one_call_at_a_time_is_as_the_definition_says(calls, failures, reset_after):
    """What is called, what fails, what is refused, at every instant."""

    async def items():
        for failed, gap in calls:
            await trio.sleep(gap)
            yield failed

    async def call(failed):
        if failed:
            raise Boom
        return "answer"

    step = guarded(call, CircuitBreaker(failures, reset_after))
    pipeline = Pipeline.from_async_iterable(items).map(step, on_error=OnError.emit())

    async def main():
        values = await pipeline.collect()
        return [type(value.error).__name__ if isinstance(value, Failure) else value for value in values]

    outcomes, gaps = [failed for failed, _gap in calls], [gap for _failed, gap in calls]
    assert run_virtual(main) == circuit_of(outcomes, gaps, failures, reset_after)


# ---- state, and ends


def test_each_run_has_a_circuit_of_its_own_unless_the_step_was_started():
    """A plan is a value: what opened in one run is closed in the next; a started step keeps it."""
    service = Service(down=lambda now: True)

    async def main(step):
        service.calls.clear()
        pipeline = Pipeline.from_iterable([0, 1]).map(step, on_error=OnError.skip())
        await pipeline.run()
        await pipeline.run()
        return len(service.calls)

    step = guarded(service, CircuitBreaker(1, 10))
    assert (run_virtual(main, step), run_virtual(main, step.start())) == (2, 1)


def test_two_stages_share_the_circuit_of_a_started_step():
    """What one stage finds out spares the other its calls."""
    service = Service(down=lambda now: True)
    step = guarded(service, CircuitBreaker(1, 10)).start()
    pipeline = merge(
        each_second(1).map(step, on_error=OnError.emit()), each_second(1, start=1).map(step, on_error=OnError.emit())
    )
    seen, _report = run_virtual(receive_all, pipeline)

    assert seen == [(0, "Boom 0"), (1, "CircuitOpen 0")]


@pytest.mark.parametrize("end", ["cancel", "leave", "abort"])
def test_a_stage_whose_calls_wait_for_the_circuit_can_be_ended(end):
    """Each item that waits is discarded, once, at that instant; the one that failed is failed."""
    service = Service(down=lambda now: True)
    told = []

    async def main():
        step = waiting(service, reset_after=1e6)
        pipeline = each_second(4).map(step, concurrency=4, on_error=OnError.skip())
        with trio.CancelScope() as scope:
            async with pipeline.open(on_discard=lambda item, _stage, reason: told.append((item, reason))) as run:
                await trio.sleep(5)
                if end == "cancel":
                    scope.cancel()
                    await run.receive()
                elif end == "abort":
                    run.abort()
        return run.report

    report = run_virtual(main)
    reason = {"cancel": "cancelled", "leave": "not needed", "abort": "aborted"}[end]
    assert (service.calls, sorted(told)) == ([(0, 0)], [(item, reason) for item in (1, 2, 3)])
    assert (report.elapsed, report.failed, report.discarded) == (5, 1, 3)


def test_a_source_that_fails_waits_for_the_calls_before_it():
    """The producer's error stands behind the items that wait for the circuit until 10."""

    def items():
        yield from range(3)
        raise KeyError("source")

    service = Service(down=lambda now: now < 1)
    pipeline = Pipeline.from_iterable(items).map(waiting(service), on_error=OnError.skip())

    async def main():
        seen = []
        with pytest.raises(KeyError, match=r"^'source'\nin stage 'items', item 3$"):
            async with pipeline.open() as run:
                async for item in run:
                    seen.append((item, trio.current_time()))
        return seen

    assert run_virtual(main) == [(1, 10), (2, 10)]


def plan(*, wait):
    async def call(item):
        await trio.sleep(0.5 * (item % 3))
        if item in (1, 2, 5):
            raise Boom
        return item

    step = Step(call).circuit_breaker(CircuitBreaker(1, 2, wait=wait))
    return lambda: Pipeline.from_iterable(range(8)).map(step, concurrency=3, on_error=OnError.skip()).buffer(2)


@pytest.mark.parametrize("wait", [True, False])
def test_at_every_point_it_can_be_cancelled_and_drained_and_under_every_schedule_it_ends(wait):
    """No permit and no place in the line is lost, whatever is cancelled when."""
    cancel_everywhere(plan(wait=wait), every=5)
    drain_everywhere(plan(wait=wait), every=5)
    explore_schedules(plan(wait=wait), seeds=range(30))


# ---- steps in the other operations

OPERATIONS = {
    "filter": (lambda p, step: p.filter(step), [1, 2, 0, 1]),
    "tap": (lambda p, step: p.tap(step), [1, 2, 0, 3, 1]),
    "take_while": (lambda p, step: p.take_while(step), [1, 2]),
    "skip_while": (lambda p, step: p.skip_while(step), [0, 3, 1]),
}


class Flaky:
    """Fails at its first call for each item; then says whether an item is 1 or 2."""

    __name__ = "flaky"

    def __init__(self):
        self.calls = []

    async def __call__(self, item):
        self.calls.append((trio.current_time(), item))
        if len(self.calls) % 2:
            raise Boom
        return item in (1, 2)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_step_in_another_operation_is_retried_and_reported(operation):
    """filter, tap, take_while, skip_while: each item's call is tried again after 1 s, and the report says so."""
    apply, expected = OPERATIONS[operation]
    if operation == "filter":
        expected = [1, 2, 1]
    flaky = Flaky()
    step = Step(flaky).retry(Retry(2, Boom, retry_after=lambda error: 1))
    seen, report = run_virtual(receive_all, apply(Pipeline.from_iterable([1, 2, 0, 3, 1]), step))

    stage = report.stages[-1]
    asked = {"take_while": 3, "skip_while": 3}.get(operation, 5)
    assert [value for _time, value in seen] == expected
    assert (len(flaky.calls), stage.policies.retries, stage.policies.waited_retry) == (2 * asked, asked, asked)
    assert stage.received == len(expected) + stage.dropped + stage.discarded
    assert report.elapsed == asked


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_step_in_another_operation_that_fails_says_its_attempts(operation):
    """The note names the stage, the item and the attempts, and what came before is delivered."""

    async def call(item):
        raise Boom

    apply, _expected = OPERATIONS[operation]
    pipeline = apply(Pipeline.from_iterable([7]), Step(call).retry(Retry(2, Boom, retry_after=lambda error: 0.5)))

    async def main():
        with pytest.raises(Boom) as caught:
            await pipeline.run()
        return caught.value.__notes__

    assert run_virtual(main) == ["waited 0.5 s between its attempts", "in stage 'call', item 0, attempt 2 of 2"]


def test_a_step_in_a_flat_map_opens_its_children_under_its_policies():
    """The step gives the list; its policies are around that, its children come one by one."""
    calls = []

    async def expand(item):
        calls.append(trio.current_time())
        if len(calls) == 1:
            raise Boom
        return [item] * item

    step = Step(expand).retry(Retry(2, Boom, retry_after=lambda error: 3))
    seen, report = run_virtual(receive_all, Pipeline.from_iterable([1, 2]).flat_map(step))

    assert (seen, calls) == ([(3, 1), (3, 2), (3, 2)], [0, 3, 3])
    assert (report.stages[-1].policies.retries, report.stages[-1].created, report.stages[-1].absorbed) == (1, 3, 2)


def test_a_report_has_policies_where_a_step_is_and_only_there():
    """None for a plain function; the lines of `describe` are there only if something happened."""

    async def call(item):
        return item

    seen, report = run_virtual(receive_all, Pipeline.from_iterable([1]).map(call).map(Step(call)))

    assert [stage.policies is None for stage in report.stages] == [True, True, False]
    assert seen == [(0, 1)]
    assert "call#2:" not in report.describe()


# ---- who waits for its state


async def call_all(step, count=1):
    """Make calls, and answer the types of what they raised."""
    raised = []
    for _ in range(count):
        try:
            await step(0)
        except Exception as error:
            raised.append(type(error))
    return raised


def test_the_state_of_a_started_circuit_can_be_awaited():
    """Down until 5: open at 0, probes at 2 and 4 fail, the one at 6 closes it; each change is seen at its instant."""

    async def main():
        started = guarded(Service(down=between(0, 5)), CircuitBreaker(2, 2)).start()
        (circuit,) = started.circuits
        seen = []

        def note(value):
            seen.append((trio.current_time(), value))
            return (trio.current_time(), value) == (6, "closed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(circuit.state.wait_value, note)
            await wait_all_tasks_blocked()
            await call_all(started)
            for _ in range(4):
                await call_all(started)
                await trio.sleep(2)
        return seen

    probes = [(2, "half-open"), (2, "open"), (4, "half-open"), (4, "open"), (6, "half-open"), (6, "closed")]
    assert run_virtual(main) == [(0, "closed"), (0, "open"), *probes]


def test_the_probe_is_seen_while_it_is_under_way():
    async def main():
        service = Service(down=between(0, 1.5), takes=1.0)
        started = guarded(service, CircuitBreaker(1, 2)).start()
        (circuit,) = started.circuits
        states = [circuit.state.value]
        await call_all(started)
        states.append(circuit.state.value)
        await trio.sleep(2)
        states.append(circuit.state.value)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(started, 0)
            await wait_all_tasks_blocked()
            states.append(circuit.state.value)
        return [*states, circuit.state.value]

    assert run_virtual(main) == ["closed", "open", "open", "half-open", "closed"]


def test_a_step_has_its_circuits_from_the_inside_out():
    """Also behind `then`; one without any has none; and the next trio run has others."""
    inner, outer, then = CircuitBreaker(1), CircuitBreaker(2), CircuitBreaker(3)
    step = guarded(Service(), inner).timeout(3).circuit_breaker(outer).then(guarded(Service(), then))
    started = step.start()

    async def main():
        assert Step(Service()).start().circuits == ()
        await started(0)
        assert started.circuits == started.circuits
        return started.circuits

    first, second = trio.run(main), trio.run(main)
    assert [each.breaker for each in first] == [each.breaker for each in second] == [inner, outer, then]
    assert not {id(each.state) for each in first} & {id(each.state) for each in second}


def test_circuits_are_of_a_trio_run():
    with pytest.raises(StateError, match=r"StartedStep\.circuits: must be asked inside of trio\.run"):
        guarded(Service(), CircuitBreaker()).start().circuits


@pytest.mark.parametrize("kind", ["wait", "refuse"])
def test_a_predicate_that_raises_changes_no_call(kind, caplog):
    """It is asked in the middle of a call of somebody else; the log is told of its type."""

    def refuse(_value):
        raise KeyError("a secret")

    async def main():
        started = guarded(Service(down=between(0, 1)), CircuitBreaker(1, 2, wait=kind == "wait")).start()
        (circuit,) = started.circuits
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def wait():
                with pytest.raises(KeyError):
                    await circuit.state.wait_value(refuse)

            await wait_all_tasks_blocked()
            circuit.state._level_results[refuse] = None  # as if it was asked before, and waits
            raised = await call_all(started)
            await trio.sleep(3)
            raised += await call_all(started)
            del circuit.state._level_results[refuse]
        return raised, circuit.state.value

    assert run_virtual(main) == ([Boom], "closed")
    assert {record.getMessage() for record in caplog.records} == {
        "a predicate that waits for the circuit of 'service' raised KeyError"
    }


@given(st.lists(st.sampled_from(["call", "down", "up", "wait", "cancel"]), max_size=30), st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_is_told_is_the_state_of_the_machine(deeds, waits):
    """After any calls, failures, waits and cancellations."""

    async def main():
        service = Service(takes=0.5)
        started = guarded(service, CircuitBreaker(2, 2, wait=waits)).start()
        (circuit,) = started.circuits
        (inside,) = started._circuits
        down = False
        service.down = lambda now: down
        for deed in deeds:
            down = {"down": True, "up": False}.get(deed, down)
            if deed == "wait":
                await trio.sleep(1)
            elif deed in ("call", "cancel"):
                with trio.move_on_after(0.25 if deed == "cancel" else 10):
                    await call_all(started)
            assert circuit.state.value == inside._breaker.state

    run_virtual(main)
