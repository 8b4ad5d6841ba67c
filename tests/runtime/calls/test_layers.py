"""From a plan to a call: what each layer counts, notes and hands on, and how layers share one attempt.

Mutants that die here: a retry that tells of another retry's attempts; a cause that belongs to the item before; waits
counted though nobody waited, or not counted when they were cut short; a token taken before there is a place for the
call; user code that Ctrl-C cannot reach; a line whose head leaves without waking the next.
"""

import math
import signal
from dataclasses import dataclass

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    CircuitOpen,
    Pipeline,
    PolicyReport,
    RateLimit,
    RateLimiter,
    Retry,
    Step,
)
from funcpipe_trio._runtime.core.wait_queue import WaitQueue
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

SECOND = Backoff(1, factor=1, jitter=0)
AT_ONCE = Backoff(0)


def report(**counts):
    """What a policy report says, where not everything is nothing."""
    return PolicyReport(**(dict.fromkeys(PolicyReport.__slots__, 0) | counts))


class Fails:
    """A call of a second that fails as often as it is told, with errors of its own."""

    def __init__(self, *failures, seconds=1):
        self.failures, self.seconds = list(failures), seconds
        self.started = []

    async def __call__(self, item):
        self.started.append(trio.current_time())
        await trio.sleep(self.seconds)
        if self.failures and (error := self.failures.pop(0)) is not None:
            raise error
        return item


async def error_of(call):
    """What a call raises."""
    try:
        await call
    except Exception as error:
        return error
    raise AssertionError("it did not fail")


# ---- what is counted


def test_each_policy_counts_what_it_did():
    """Retries, timeouts, refusals, and the seconds of each kind of wait, over all calls of a start."""

    async def main():
        limited = Step(Fails(seconds=0)).rate_limit(RateLimit(1)).start()
        retried = Step(Fails(*[OSError()] * 3)).retry(Retry(3, backoff=SECOND)).start()
        timed = Step(Fails(seconds=5)).timeout(2).start()
        guarded = Step(Fails(OSError())).circuit_breaker(CircuitBreaker(1, 9)).start()
        waiting = Step(Fails(OSError())).circuit_breaker(CircuitBreaker(1, 9, wait=True)).start()
        await limited(0)
        await limited(0)
        await error_of(retried(0))
        await error_of(timed(0))
        for _ in range(3):
            await error_of(guarded(0))
        await error_of(waiting(0))
        await waiting(0)
        return [started.statistics() for started in (limited, retried, timed, guarded, waiting)]

    assert run_virtual(main) == [
        report(waited_rate=1),
        report(retries=2, waited_retry=2),
        report(timeouts=1),
        report(refused=2, opened=1),
        report(waited_circuit=9, opened=1),
    ]


def test_a_wait_that_is_cut_short_counts_as_far_as_it_went():
    """A cancellation or a timeout in the middle of it."""

    async def main():
        limited = Step(Fails(seconds=0)).rate_limit(RateLimit(1, per=100)).timeout(3).start()
        retried = Step(Fails(OSError())).retry(Retry(2, backoff=Backoff(5, jitter=0))).start()
        await limited(0)
        await error_of(limited(0))
        with trio.move_on_after(4):
            await retried(0)
        return limited.statistics(), retried.statistics()

    assert run_virtual(main) == (report(waited_rate=3, timeouts=1), report(retries=1, waited_retry=3))


def test_a_stage_reports_what_its_policies_did():
    """Added up over its workers, in the report and in the description of it."""

    async def main():
        step = Step(Fails(OSError(), seconds=0)).rate_limit(RateLimit(1)).retry(Retry(2, backoff=SECOND))
        return (await Pipeline.from_iterable(range(3)).map(step, concurrency=3).run()).stages[-1].policies

    policies = run_virtual(main)

    assert (policies.retries, policies.waited_retry, policies.waited_rate) == (1, 1, 1 + 2 + 2)
    assert policies.describe() == "1 retry, 5.000 s waiting for the rate limit, 1.000 s between attempts"


# ---- what is noted


def test_the_notes_tell_of_the_retry_that_gave_up():
    """The outer one when both did, the inner one alone when nothing is retried outside; none for what went well."""
    inner, outer = Retry(2, on=OSError, backoff=AT_ONCE), Retry(3, on=OSError, backoff=SECOND)

    async def main():
        both = await error_of(Step(Fails(*(OSError() for _ in range(9)))).retry(inner).retry(outer)(0))
        one = await error_of(Step(Fails(*(OSError() for _ in range(9)))).retry(inner).timeout(60)(0))
        later = await error_of(Step(Fails(OSError())).retry(inner).then(Step(Fails(KeyError())))(0))
        return [error.__notes__ for error in (both, one, later)]

    assert run_virtual(main) == [
        [
            "waited 0 s between its attempts",
            "waited 1, 1 s between its attempts",
            "in step 'Fails', attempt 3 of 3",
        ],
        ["waited 0 s between its attempts", "in step 'Fails', attempt 2 of 2"],
        ["in step 'Fails > Fails'"],
    ]


def test_a_started_step_carries_nothing_from_call_to_call():
    """Neither the attempts nor the last error of a call are seen in the next one's."""

    async def main():
        first = OSError("first")
        started = Step(Fails(first, first)).retry(Retry(2, on=OSError, backoff=AT_ONCE)).timeout(60).start()
        again = Step(Fails(first, first, KeyError())).retry(Retry(2, on=OSError, backoff=AT_ONCE)).start()
        slow = Step(Fails(first, seconds=2)).retry(Retry(2, backoff=AT_ONCE)).timeout(3).start()
        await error_of(started(0))
        await started(0)
        await error_of(again(0))
        second = await error_of(again(0))
        causes = [(await error_of(slow(0))).__cause__]
        return second.__notes__, causes == [first], (await slow(0))

    assert run_virtual(main) == (["in step 'Fails', attempt 1 of 2"], True, 0)


def test_a_timeout_names_what_a_retry_inside_was_about():
    """Its cause is the last error inside of it; none if there was none, or if the retry got through."""
    error = OSError("down")
    retry, called = Retry(5, on=OSError, backoff=SECOND), []

    async def fail_then_hang(item):
        called.append(item)
        if len(called) == 1:
            raise error
        await trio.sleep_forever()

    async def main():
        no_wait = await error_of(Step(Fails(error)).retry(retry).timeout(1.5)(0))
        assert no_wait is error
        in_the_call = await error_of(Step(Fails(error)).retry(retry).timeout(2.5)(0))
        at_first = await error_of(Step(Fails(error)).retry(retry).timeout(0.5)(0))
        behind = await error_of(Step(Fails(error)).retry(retry).then(Step(Fails(seconds=9))).timeout(4)(0))
        inside = await error_of(Step(fail_then_hang).timeout(3).retry(Retry(2, backoff=SECOND))(0))
        return [late.__cause__ for late in (in_the_call, at_first, behind, inside)]

    assert run_virtual(main) == [error, None, None, None]


def test_an_error_that_takes_no_notes_goes_without():
    """A frozen exception passes through every layer, itself."""

    @dataclass(frozen=True)
    class Frozen(Exception):
        code: int

    error = Frozen(7)

    async def main():
        step = Step(Fails(*[error] * 9)).rate_limit(RateLimit(9, burst=9)).timeout(9).circuit_breaker(CircuitBreaker())
        return await error_of(step.retry(Retry(2, backoff=AT_ONCE))(0))

    assert run_virtual(main) is error


def test_many_waits_are_summed_up():
    """A note tells of the first eight, and of how many and how long in all."""

    async def main():
        return (await error_of(Step(Fails(*[OSError()] * 20)).retry(Retry(12, backoff=SECOND))(0))).__notes__

    assert run_virtual(main) == [
        "waited 1, 1, 1, 1, 1, 1, 1, 1, ... (11 waits, 11 s in all) between its attempts",
        "in step 'Fails', attempt 12 of 12",
    ]


# ---- rows


def test_a_row_hands_each_result_to_the_next():
    """Each part with its own policies; what fails ends the row."""
    second = Fails(KeyError("second"), seconds=2)

    async def main():
        row = (
            Step.pure(lambda item: item + 1)
            .then(Step(Fails()))
            .map(lambda item: item * 10)
            .then(Step(second).timeout(3))
        )
        started = row.start()
        failed = await error_of(started(1))
        return repr(failed), await started(1), trio.current_time()

    assert run_virtual(main) == ("KeyError('second')", 20, 6)


def test_a_policy_around_a_row_is_for_all_of_it():
    """A retry begins with its first part again; a token lets the whole of it go."""
    first, second = Fails(), Fails(OSError())

    async def main():
        row = Step(first).then(Step(second)).rate_limit(RateLimit(1, per=10)).retry(Retry(2, backoff=SECOND))
        return await row(5), trio.current_time()

    assert run_virtual(main) == (5, 12)
    assert (first.started, second.started) == ([0, 10], [1, 11])


def test_a_runner_admits_at_the_last_instant():
    """With one place and calls of 3 s, a token is taken when the place is there: none is held in the queue for it."""
    places, log = trio.CapacityLimiter(1), []

    def work(item):
        log.append(item)
        return item

    async def one_at_a_time(fn, *args):
        async with places:
            result = fn(*args)
            await trio.sleep(3)
        return result

    async def main():
        limiter = RateLimiter(RateLimit(1, burst=4))
        step = Step(work).on(one_at_a_time).rate_limit(limiter).start()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step, 0)
            await wait_all_tasks_blocked()
            nursery.start_soon(step, 1)
            await trio.sleep(1)
            between = limiter.statistics().acquired, list(log)
        return between, log, trio.current_time()

    assert run_virtual(main) == ((2, [0]), [0, 1], 6)  # a runner of the user's own queues behind the token


# ---- the line


async def stand(line, name, answers, log, seconds=math.inf):
    """Stand in line until the answers give a yes."""
    with trio.move_on_after(seconds) as scope:
        await line.join(lambda: answers.pop(0) if answers else None)
        log.append((name, trio.current_time()))
    if scope.cancelled_caught:
        log.append((f"{name} left", trio.current_time()))


def with_line(script):
    """Run a script with a line, a way to join it, and what happened."""

    async def main():
        line, log = WaitQueue(), []
        async with trio.open_nursery() as nursery:

            async def join(name, *answers, seconds=math.inf):
                nursery.start_soon(stand, line, name, list(answers), log, seconds)
                await wait_all_tasks_blocked()

            await script(line, join)
        return log, len(line)

    return run_virtual(main)


def test_only_the_first_in_line_asks():
    """The second is asked about when the first has left: then at once, then when it was told."""

    async def script(line, join):
        await join("a", 2, 5)
        await join("b")
        await join("c", 7, 8)
        await join("d")

    assert with_line(script) == ([("a", 5), ("b", 5), ("c", 8), ("d", 8)], 0)


def test_the_head_that_leaves_wakes_the_next():
    """Cancelled at the head, at the end, and in a row at one instant."""

    async def script(line, join):
        await join("a", math.inf, seconds=3)
        await join("b", math.inf, seconds=3)
        await join("c")
        await join("d", math.inf, seconds=1)

    assert sorted(with_line(script)[0]) == [("a left", 3), ("b left", 3), ("c", 3), ("d left", 1)]


@pytest.mark.parametrize("seed", range(8))
def test_a_head_that_is_woken_and_cancelled_at_once_wakes_the_next(seed):
    """What woke it is not lost with it."""

    async def script(line, join):
        await join("a", math.inf, seconds=3)
        await join("b", math.inf)
        await join("c")
        await trio.sleep(3)
        line.poke()
        await wait_all_tasks_blocked()
        line.poke()

    with scheduled(Schedule(seed)):
        log, left = with_line(script)

    assert (log[-1], left) == (("c", 3), 0)


def test_a_task_that_is_cancelled_does_not_ask():
    """Also when it was woken before, in the same step: what there is goes to the next."""

    async def main():
        line, asked = WaitQueue(), []
        scope = trio.CancelScope()

        async def first():
            with scope:
                await line.join(lambda: asked.append(trio.current_time()) or math.inf)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(first)
            await wait_all_tasks_blocked()
            line.poke()
            scope.cancel()
        return asked, len(line)

    assert run_virtual(main) == ([0], 0)


def test_a_poke_lets_the_first_ask_before_its_time():
    """However often; an empty line is not troubled."""

    async def script(line, join):
        line.poke()
        await join("a", 100, 100)
        await join("b", 100)
        for _ in range(3):
            await trio.sleep(1)
            line.poke()
            line.poke()

    assert with_line(script) == ([("a", 2), ("b", 3)], 0)


def test_an_error_of_the_question_leaves_the_line_to_the_next():
    """It goes to the caller."""

    async def script(line, join):
        def fail():
            raise KeyError("ask")

        with pytest.raises(KeyError):
            await line.join(fail)
        await join("a")

    assert with_line(script) == ([("a", 0)], 0)


# ---- Ctrl-C


went_on = []


def strike(*args):
    signal.raise_signal(signal.SIGINT)
    went_on.append("it was not struck at once")


async def strike_async(*args):
    strike()


@pytest.mark.parametrize(
    "build",
    [
        lambda: Step(strike_async).timeout(1).retry(Retry(3)),
        lambda: Step(strike).on(run_inline),
        lambda: Step.pure(strike).timeout(1).retry(Retry(3)),
        lambda: Step(Fails(OSError())).retry(Retry(3, on=strike)),
        lambda: Step(Fails(OSError())).retry(Retry(3, retry_after=strike)),
        lambda: Step(Fails(OSError())).circuit_breaker(CircuitBreaker(on=strike)),
        lambda: Step(Fails()).rate_limit(RateLimit(1), cost=strike),
    ],
    ids=["call", "runner", "pure", "predicate", "retry_after", "breaker", "cost"],
)
def test_ctrl_c_strikes_in_user_code(build, interrupts):
    """Where it is when it comes: in every function of the user's that a step calls; it is not retried."""
    went_on.clear()
    with pytest.raises(KeyboardInterrupt):
        run_virtual(build().start(), 0)

    assert went_on == []


async def run_inline(fn, *args):
    return fn(*args)


def test_ctrl_c_in_a_breakers_predicate_gives_its_permit_back(interrupts):
    """The next call is the probe; nobody waits for the one that was struck."""
    answers = [lambda error: True, strike, lambda error: True]
    fails = Fails(OSError("first"), OSError("struck"), OSError("last"))
    step = Step(fails).circuit_breaker(CircuitBreaker(1, 9, on=lambda error: answers.pop(0)(error))).start()

    async def main():
        await error_of(step(0))
        await trio.sleep(9)
        with pytest.raises(KeyboardInterrupt):
            await step(0)
        return type(await error_of(step(0))), type(await error_of(step(0)))

    assert run_virtual(main) == (OSError, CircuitOpen)
