"""`run_service`: what the first signal does, the second and the third, and what is as before when it is over.

Mutants that die here: a handler that is not put back, or put back over one that came later; a second signal that drains
again; a grace period that counts from the beginning; an error in a group; a signal that reaches one service of two.
"""

import math
import os
import signal
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import Pipeline, PlanError, StateError, run_service
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, in_virtual_time, nap

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.fixture(autouse=True)
def before():
    """Handlers that are not the defaults; they are in place again after each test."""
    kept = {number: signal.getsignal(number) for number in SIGNALS}

    def before(number, _frame):
        before.came.append(number)

    before.came = []
    for number in SIGNALS:
        signal.signal(number, before)
    yield before
    now = [signal.getsignal(number) for number in SIGNALS]
    for number, handler in kept.items():
        signal.signal(number, handler)
    assert now == [before, before]


def every_second():
    async def numbers():
        number = 0
        while True:
            yield number
            number += 1
            await trio.sleep(1)

    return Pipeline.from_async_iterable(numbers)


async def silent(_channel):
    await trio.sleep_forever()


async def slow(item):
    await trio.sleep(100)
    return item


class Served:
    """A service in a task of its own: its run, and how it ended."""

    def __init__(self, plan, **how):
        self.plan, self.how = plan, how
        self.discarded = []
        self.report = self.error = self.over_at = None

    async def start(self, nursery):
        self.run = await nursery.start(self._serve)
        return self

    async def _serve(self, *, task_status):
        try:
            self.report = await run_service(self.plan, on_discard=self.note, **self.how, task_status=task_status)
        except Exception as error:
            self.error = error
        self.over_at = trio.current_time()

    def note(self, item, _stage, reason):
        self.discarded.append((item, reason))


def asked_to_end(plan, moments, **how):
    """Answer how a service ended to which signals were sent at those moments."""

    async def main():
        async with trio.open_nursery() as nursery:
            served = await Served(plan, **how).start(nursery)
            for moment, number in moments:
                await trio.sleep_until(moment)
                signal.raise_signal(number)
        return served

    return run_virtual(main)


# ---- one signal, two, three


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_drains(number, before):
    """What was taken is delivered, and nothing after it."""
    served = asked_to_end(plan=every_second().map(nap, concurrency=3), moments=[(4.5, number)])

    assert (served.report.outcome, served.report.taken, served.report.delivered) == ("drained", 5, 5)
    assert (served.over_at, served.discarded, before.came) == (5, [], [])


@pytest.mark.parametrize("numbers", [(a, b) for a in SIGNALS for b in SIGNALS])
def test_the_second_aborts(numbers, before):
    served = asked_to_end(plan=every_second().map(slow), moments=[(0.5, numbers[0]), (1.5, numbers[1])])

    assert (served.report.outcome, served.over_at) == ("aborted", 1.5)
    assert served.discarded == [(0, "aborted")]
    assert before.came == []


@pytest.mark.parametrize("grace", [0, 2, 50.0])
def test_the_grace_period_counts_from_the_first_signal(grace):
    served = asked_to_end(plan=every_second().map(slow), moments=[(0.5, signal.SIGTERM)], grace=grace)

    assert (served.report.outcome, served.over_at) == ("drained", 0.5 + grace)
    assert served.discarded == [(0, "grace period over")]


def test_without_limit_it_waits():
    served = asked_to_end(plan=every_second().map(slow), moments=[(0.5, signal.SIGTERM)], grace=math.inf)

    assert (served.report.outcome, served.over_at, served.discarded) == ("drained", 100, [])


def test_a_third_signal_does_what_it_did_before(before):
    """The run is aborted, but a call cannot be cancelled."""

    async def stubborn(item):
        with trio.CancelScope(shield=True):
            await trio.sleep(100)

    moments = [(1, signal.SIGTERM), (2, signal.SIGINT), (3, signal.SIGINT), (4, signal.SIGTERM)]
    served = asked_to_end(plan=every_second().map(stubborn), moments=moments)

    assert before.came == [signal.SIGINT, signal.SIGTERM]
    assert (served.report.outcome, served.over_at) == ("aborted", 100)


def test_signals_of_one_instant_are_counted(before):
    """Also while user code holds up the event loop."""

    def block(item):
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        return item

    served = asked_to_end(plan=every_second().map(block).map(slow), moments=[])

    assert before.came == [signal.SIGTERM]
    assert (served.report.outcome, served.over_at) == ("aborted", 0)


@pytest.mark.parametrize("late", [False, True])
def test_a_signal_at_the_very_beginning_or_end_is_obeyed_or_harmless(late):
    """Before the run has begun to take, it takes nothing; in its last step, it has ended as it would."""

    class Status:
        def started(self, _run):
            signal.raise_signal(signal.SIGTERM)

    def last(item):
        signal.raise_signal(signal.SIGTERM)
        return item

    async def main():
        if late:
            return await run_service(Pipeline.from_iterable([1]).map(last))
        return await run_service(every_second(), task_status=Status())

    report = run_virtual(main)
    assert report.outcome in (("completed", "drained") if late else ("drained",))
    assert report.taken == report.delivered <= 1


# ---- how else it ends


def test_a_plan_that_ends_by_itself_is_completed():
    report = run_virtual(lambda: run_service(Pipeline.from_iterable(range(5))))

    assert (report.outcome, report.delivered) == ("completed", 5)


async def fail(_item):
    await trio.sleep(1)
    raise Boom("a secret")


@pytest.mark.parametrize("moments", [[], [(0.5, signal.SIGTERM)]])
def test_a_failure_is_raised_as_it_is(moments):
    served = asked_to_end(plan=every_second().map(fail), moments=moments)

    assert type(served.error) is Boom
    assert served.run.report.outcome == "failed"


def test_a_plan_that_cannot_work_is_refused():
    with pytest.raises(PlanError):
        run_virtual(lambda: run_service(Pipeline.from_iterable([1]).map(len, concurrency=2)))


@in_virtual_time
async def test_it_can_be_cancelled():
    with trio.move_on_after(3) as scope:
        await run_service(every_second().map(slow))

    assert scope.cancelled_caught
    assert trio.current_time() == 3


def test_what_must_end_the_program_passes_bare():
    def leave(_item):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run_virtual(lambda: run_service(every_second().map(leave)))


def test_also_if_it_is_raised_at_a_cancellation():
    """Which cancels the tasks of the service, too."""

    async def leave(_item):
        try:
            await trio.sleep_forever()
        finally:
            raise SystemExit(3)

    async def main():
        with trio.move_on_after(1):
            await run_service(every_second().map(leave))

    with pytest.raises(SystemExit):
        run_virtual(main)


# ---- with others


def test_a_signal_reaches_all_services(before):
    """They end in the order in which they began, which is not the order in which handlers would be put back."""

    async def main():
        async with trio.open_nursery() as nursery:
            first = await Served(every_second().map(nap)).start(nursery)
            second = await Served(every_second().map(slow)).start(nursery)
            await wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGTERM)
            await first.run.state.wait_value("drained")
            await trio.sleep(1)
            signal.raise_signal(signal.SIGTERM)
        return first.report.outcome, second.report.outcome

    assert run_virtual(main) == ("drained", "aborted")
    assert before.came == []


def test_each_service_counts_its_own_signals(before):
    """One that began between two signals drains at the second, when the other is aborted."""

    async def main():
        async with trio.open_nursery() as nursery:
            first = await Served(every_second().map(slow)).start(nursery)
            signal.raise_signal(signal.SIGTERM)
            second = await Served(every_second().map(slow)).start(nursery)
            signal.raise_signal(signal.SIGTERM)
            await wait_all_tasks_blocked()
            assert (first.report.outcome, second.run.state.value) == ("aborted", "draining")
            signal.raise_signal(signal.SIGTERM)
        return second.report.outcome

    assert run_virtual(main) == "aborted"
    assert before.came == []


def test_a_service_that_begins_after_another_was_aborted_is_told_of_signals(before):
    """The handlers of before are in place then, though the other waits for a call that cannot be cancelled."""

    async def stubborn(_item):
        with trio.CancelScope(shield=True):
            await trio.sleep(100)

    async def main():
        async with trio.open_nursery() as nursery:
            await Served(every_second().map(stubborn)).start(nursery)
            for _ in range(2):
                await wait_all_tasks_blocked()
                signal.raise_signal(signal.SIGTERM)
            second = await Served(every_second()).start(nursery)
            await wait_all_tasks_blocked()
            signal.raise_signal(signal.SIGTERM)
        return second.report.outcome

    assert run_virtual(main) == "drained"
    assert before.came == []


def test_a_handler_that_somebody_else_set_meanwhile_stays(before):
    def other(*_):
        pass

    async def main():
        async with trio.open_nursery() as nursery:
            served = await Served(every_second()).start(nursery)
            signal.signal(signal.SIGINT, other)
            signal.raise_signal(signal.SIGTERM)
        return served.report.outcome

    assert run_virtual(main) == "drained"
    assert signal.signal(signal.SIGINT, before) is other


def test_a_signal_that_the_program_ignores_stays_ignored(before):
    """As that of a shell's background job: Ctrl-C is meant for another."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    served = asked_to_end(plan=every_second(), moments=[(1, signal.SIGINT), (2, signal.SIGINT), (3.5, signal.SIGTERM)])

    assert (served.report.outcome, served.over_at) == ("drained", 3.5)
    assert signal.signal(signal.SIGINT, before) is signal.SIG_IGN


def test_a_handler_that_python_did_not_set_becomes_the_default(before, monkeypatch):
    """It cannot be asked for, so it cannot be put back."""
    get = signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if get(number) is before else get(number))

    run_virtual(lambda: run_service(Pipeline.from_iterable([1])))

    assert [signal.signal(number, before) for number in SIGNALS] == [signal.SIG_DFL, signal.SIG_DFL]


def test_a_real_signal_wakes_it():
    """On trio's own clock, where nothing else happens: the program sleeps until the signal comes."""

    async def main():
        async with trio.open_nursery() as nursery:
            served = await Served(Pipeline.from_producer(silent)).start(nursery)
            await served.run.state.wait_value("running")
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return served.report.outcome

    assert trio.run(main) == "drained"


# ---- wrong use


def test_only_the_main_thread_can_handle_signals():
    async def main():
        return await trio.to_thread.run_sync(lambda: trio.run(run_service, Pipeline.from_iterable([1])))

    with pytest.raises(StateError, match="run_service: must be called in the main thread, because Python lets"):
        trio.run(main)


def test_it_runs_on_trio_only():
    with pytest.raises(StateError, match=r"run_service: must be called inside of trio\.run\(\.\.\.\)"):
        run_service(Pipeline.from_iterable([1])).send(None)


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ((), TypeError, "plan"),
        (([1],), TypeError, r"run_service: plan must be a Pipeline, not a list of length 1"),
        ((every_second(), {"grace": -1}), ValueError, r"run_service: grace must be a number of seconds >= 0, not -1"),
        ((every_second(), {"grace": math.nan}), ValueError, r"run_service: grace must be .* >= 0, not nan"),
        ((every_second(), {"grace": True}), TypeError, r"run_service: grace must be .* >= 0, not True"),
        ((every_second(), {"grace": None}), TypeError, r"run_service: grace must be .* >= 0, not None"),
        ((every_second(), {"cleanup_timeout": 0}), ValueError, r"cleanup_timeout must be a number of seconds > 0"),
        ((every_second(), {"on_discard": 3}), TypeError, r"on_discard must be callable, not 3"),
    ],
)
def test_wrong_arguments_are_refused(arguments, kind, message):
    *given, named = arguments if arguments and isinstance(arguments[-1], dict) else (*arguments, {})

    with pytest.raises(kind, match=message):
        run_virtual(lambda: run_service(*given, **named))
