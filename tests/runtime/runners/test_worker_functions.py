"""A function in a worker process may do whatever a program may: nothing hangs, nothing is lost, no worker loses step.

Each deed of `_deeds` is done under each policy, in one trio run, and behind each of them the workers answer as before.
Processes are real here, and so is the clock: it only ends a test that hangs.

Mutants that die here: an answer that is written where a function opened a file; a forked child that answers; an error
that is not told in words beside its pickle; an exception that is asked for its truth; the death of a worker that is
told only when all who hold its connection are gone; a worker that is ended by what a handler raises while it waits; an
idle worker that has died and gets an order; orders by standard input; output that waits in a buffer for the end.
"""

import os
import re
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest
import trio

from funcpipe_trio import (
    Backoff,
    Failure,
    OnError,
    Pipeline,
    RateLimit,
    Retry,
    Step,
    WorkerDied,
    WorkerError,
    processes,
)
from tests._kit import run_real
from tests.runtime.runners import _deeds, _work

ROOT = Path(__file__).parents[3]
LIMIT = 60
"""Real seconds in which a test is done, or hangs."""


pytestmark = pytest.mark.usefixtures("quick_start")


# ---- what becomes of a call


@dataclass
class Gives:
    """It returns a value."""

    value: object = "done"


@dataclass
class Raises:
    """It raises an error; the words are in what is told of it."""

    kind: type[BaseException]
    words: list[str] = field(default_factory=list)

    def __init__(self, kind, *words):
        self.kind, self.words = kind, list(words)


DIED = "the worker process of "

DEEDS = {
    _deeds.prints: Gives(),
    _deeds.prints_much: Gives(),
    _deeds.writes_to_descriptors: Gives(),
    _deeds.writes_to_what_was_stdin: Gives(),
    _deeds.reads_lines: Raises(EOFError),
    _deeds.reads_all: Gives(("", b"", b"")),
    _deeds.closes_streams: Gives(),
    _deeds.closes_standard_descriptors: Gives(),
    _deeds.replaces_stdout: Gives(),
    _deeds.closes_many: Gives(),
    _deeds.closes_all: Raises(WorkerDied, "closed the descriptor that its answer goes by"),
    _deeds.opens_where_it_closed: Raises(WorkerDied, "closed the descriptor that its answer goes by"),
    _deeds.puts_a_file_over_all: Raises(WorkerDied, "closed the descriptor that its answer goes by"),
    _deeds.runs_a_program: Gives(b""),
    _deeds.runs_a_program_that_keeps_descriptors: Gives(),
    _deeds.leaves_a_program: Gives(),
    _deeds.forks_a_process: Gives(),
    _deeds.spawns_a_process: Gives(),
    _deeds.forks_and_both_return: Gives(),
    _deeds.forks_and_the_child_raises: Gives(),
    _deeds.dies_and_a_child_lives: Raises(WorkerDied, "it ended with status 4"),
    _deeds.leaves_a_daemon_thread_that_prints: Gives(),
    _deeds.leaves_a_thread: Gives(),
    _deeds.fails_in_a_thread: Gives(),
    _deeds.dies_in_a_thread: Raises(WorkerDied, "it ended with status 5"),
    _deeds.leaves: Raises(WorkerDied, "it ended with status 3"),
    _deeds.leaves_well: Raises(WorkerDied, "it ended with status 0"),
    _deeds.exits: Raises(SystemExit, "3"),
    _deeds.exits_with_a_text: Raises(SystemExit, "that was it"),
    _deeds.interrupts: Raises(KeyboardInterrupt),
    _deeds.interrupts_itself: Gives(),
    _deeds.stops: Raises(_deeds.Stop, "enough"),
    _deeds.stops_by_what_cannot_be_sent: Raises(BaseException, "StopThatCannotBeSent", "enough"),
    _deeds.exits_by_what_cannot_be_sent: Raises(SystemExit, "ExitThatCannotBeSent", "enough"),
    _deeds.closes_a_generator: Raises(GeneratorExit, "enough"),
    _deeds.is_killed: Raises(WorkerDied, "it was killed (SIGKILL)"),
    _deeds.is_terminated: Raises(WorkerDied, "it was killed (SIGTERM)"),
    _deeds.aborts: Raises(WorkerDied, "it was killed (SIGABRT)"),
    _deeds.becomes_another_program: Raises(WorkerDied),
    _deeds.becomes_a_program_that_waits: Raises(WorkerDied),
    _deeds.changes_folder: Gives(),
    _deeds.works_in_no_folder: Gives(),
    _deeds.forgets_the_path: Gives(),
    _deeds.clears_its_environment: Gives(),
    _deeds.uses_faulthandler: Gives(),
    _deeds.is_ended_by_faulthandler: Raises(WorkerDied, "it ended with status 1"),
    _deeds.is_alarmed: Raises(TimeoutError, "my own alarm"),
    _deeds.holds_signals_back: Gives(),
    _deeds.sets_limits: Gives(),
    _deeds.lowers_the_recursion_limit: Gives(),
    _deeds.turns_warnings_into_errors: Gives(),
    _deeds.recurses: Raises(RecursionError),
    _deeds.recurses_by_two: Raises(RecursionError),
    _deeds.gives_nothing: Gives(None),
    _deeds.gives_much: Gives(bytes(3_000_000)),
    _deeds.dies_when_reduced: Raises(WorkerDied, "it ended with status 9"),
    _deeds.exits_when_sent: Raises(TypeError, "the result of exits_when_sent", "SystemExit"),
}


async def call(policy, fn, item):
    """What a call under a policy gives, or raises."""
    step = Step(fn, name="deed").on(processes(1))
    if policy == "retry":
        started = step.retry(Retry(2, backoff=Backoff(0))).start()
        try:
            return await started(item)
        except Exception:
            assert started.statistics().retries == 1
            raise
    if policy == "timeout":
        return await step.timeout(LIMIT)(item)
    if policy == "plain":
        return await step(item)
    (outcome,) = await Pipeline.from_iterable([item]).map(step, on_error=OnError.emit()).collect()
    if policy == "skip":
        report = await Pipeline.from_iterable([item]).map(step, on_error=OnError.skip()).run()
        assert sum(count for _name, count in report.stages[-1].failures) == (outcome is not outcome)
    return outcome


POLICIES = ["plain", "retry", "emit", "timeout"]


async def outcomes(fn, folder):
    """What becomes of a deed under each policy, with a check of the workers behind each."""
    seen = {}
    for policy in POLICIES:
        try:
            value = await call(policy, fn, folder)
        except BaseException as error:
            if isinstance(error, trio.Cancelled):
                raise
            seen[policy] = error
        else:
            seen[policy] = getattr(value, "error", value) if policy == "emit" else value
        double = Step(_work.double).on(processes(2)).start()
        assert [await double(number) for number in range(3)] == [0, 2, 4]
    return seen


def everything(error):
    """All that is told of an error: of itself, what went before, and its parts."""
    texts, todo, met = [], [error], []
    while todo:
        error = todo.pop()
        if error is None or any(error is other for other in met):
            continue
        met.append(error)
        texts.append(type(error).__name__)
        for tell in (str, lambda error: "\n".join(error.__notes__)):
            try:
                texts.append(tell(error))
            except BaseException:
                texts.append("")
        todo += [BaseException.__cause__.__get__(error), BaseException.__context__.__get__(error)]
        todo += getattr(error, "exceptions", ())
    return "\n".join(texts)


@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_a_function_may_do_what_a_program_may(deed, tmp_path):
    """Its result or its error arrives, under every policy, and the workers go on."""
    expected = DEEDS[deed]

    try:
        seen = run_real(outcomes, deed, str(tmp_path))
    finally:
        for child in tmp_path.glob("child *"):
            os.kill(int(child.name.split()[1]), signal.SIGKILL)

    for outcome in seen.values():
        if isinstance(expected, Gives):
            assert outcome == expected.value
            continue
        assert type(outcome) is expected.kind
        told = everything(outcome)
        assert [word for word in expected.words if word not in told] == []
    assert {path.read_bytes() for path in tmp_path.glob("mine*")} <= {b""}


NOT_THEMSELVES = {
    "own",
    "needs two",
    "unpicklable",
    "cannot be reduced",
    "reduces to nothing",
    "reduces to None",
    "exits when reduced",
    "cannot be made again",
    "shows an odd text",
    "frozen",
    "has its own notes",
    "fails to have notes",
    "another module",
    "local",
    "notes that cannot be sent",
    "huge and unpicklable",
    "unpicklable arguments",
    "a large group",
}
"""Errors that no pickle carries."""


@pytest.mark.parametrize("name", _deeds.ERRORS)
def test_an_error_arrives_as_itself_or_as_what_stands_for_it(name, tmp_path):
    """Of its own type if a pickle can carry it; with its type, its text and the lines that raised it in any case."""
    original = _deeds.ERRORS[name]()
    kind = WorkerError if name in NOT_THEMSELVES else type(original)
    kinds = {kind} | ({RuntimeError} if "stop" in name else set())  # coroutines and stages do not let those out
    seen = run_real(outcomes, partial(_deeds.raises, name), str(tmp_path))

    for outcome in seen.values():
        told = everything(outcome)
        assert type(outcome) in kinds
        assert type(original).__name__ in told
        assert re.search(r'File ".*_deeds\.py", line \d+, in raise_it\n', told)
        assert text_of(original)[:1000] in told
        assert len(told) < 200_000 or name == "huge"


def text_of(error):
    try:
        return re.sub(" object at .*", "", str(error))
    except BaseException:
        return ""


@pytest.mark.parametrize("name", _deeds.RESULTS)
def test_a_result_that_does_not_get_through_says_so(name, tmp_path):
    """That it was the result, of which function, and why."""
    seen = run_real(outcomes, partial(_deeds.gives, name), str(tmp_path))

    verb = "load from its pickle" if name == "cannot be loaded" else "be picklable"
    for outcome in seen.values():
        assert type(outcome) is TypeError
        assert str(outcome).startswith(f"processes: the result of gives must {verb}, which it ")
        assert outcome.__cause__ is not None


@pytest.mark.parametrize("name", _deeds.RESULTS)
def test_an_item_that_does_not_get_through_says_so(name):
    """That it was the item, of which function, and why; its call is never made."""
    verb = "load from its pickle" if name == "cannot be loaded" else "be picklable"

    async def main():
        for policy in POLICIES:
            try:
                outcome = await call(policy, _deeds.prints, _deeds.RESULTS[name]())
            except TypeError as error:
                outcome = error
            outcome = outcome.error if policy == "emit" else outcome
            assert str(outcome).startswith(f"processes: the item of prints must {verb}, which it ")
            assert outcome.__cause__ is not None
            assert await Step(_work.double).on(processes(1))(4) == 8

    run_real(main)


def test_an_error_that_is_given_is_a_result(tmp_path):
    """Not raised."""
    seen = run_real(outcomes, _deeds.gives_an_error, str(tmp_path))

    assert {repr(outcome) for outcome in seen.values()} == {"ValueError('as a value')"}


@pytest.mark.parametrize(
    ("name", "chain"),
    [
        ("a cause", [ValueError, OSError]),
        ("an unpicklable cause", [ValueError, WorkerError]),
        ("an unpicklable context", [ValueError, WorkerError]),
    ],
)
def test_what_went_before_an_error_comes_with_it(name, chain, tmp_path):
    """Its cause or its context, each with its own lines."""
    error = run_real(outcomes, partial(_deeds.raises, name), str(tmp_path))["plain"]

    assert [type(error), type(error.__cause__ or error.__context__)] == chain


@pytest.mark.parametrize(
    ("name", "leaves"),
    [("a group", [ValueError, OSError]), ("an unpicklable group", [ValueError, WorkerError])],
)
def test_a_group_stays_a_group(name, leaves, tmp_path):
    """Each of its parts arrives as itself, or as what stands for it."""
    error = run_real(outcomes, partial(_deeds.raises, name), str(tmp_path))["plain"]

    assert type(error) is ExceptionGroup
    assert error.message == "two"
    assert [type(leaf) for leaf in error.exceptions] == leaves


HANGING = [
    _deeds.hangs,
    _deeds.hangs_and_holds_all_signals,
    _deeds.computes_for_ever,
    _deeds.is_stopped,
    _deeds.hangs_when_sent,
    _deeds.waits_for_a_program,
]


@pytest.mark.parametrize("deed", HANGING, ids=lambda deed: deed.__name__)
def test_a_function_that_never_ends_is_ended(deed, tmp_path):
    """By a timeout, in each attempt of it; each next call works."""
    step = Step(deed).on(processes(1)).timeout(0.1)

    async def main():
        for policies in (step, step.retry(Retry(2, backoff=Backoff(0)))):
            with pytest.raises(trio.TooSlowError, match=r"^not done after 0\.1 s\n"):
                await policies(str(tmp_path))
            assert await Step(_work.double).on(processes(1))(4) == 8
        return (await Pipeline.from_iterable([str(tmp_path)]).map(step, on_error=OnError.skip()).run()).outcome

    assert run_real(main) == "completed"


# ---- workers between two calls


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM], ids=lambda number: number.name)
def test_a_handler_that_a_function_left_strikes_no_later_call(number, capfd, tmp_path):
    """What it raises while the worker waits is nobody's: it is shown, and the worker continues."""
    os.mkfifo(tmp_path / "struck")
    struck = os.open(tmp_path / "struck", os.O_RDWR | os.O_NONBLOCK)

    async def main():
        step = Step(_work.own_pid).on(processes(1)).start()
        pid = await Step(_deeds.leaves_handlers).on(processes(1))(str(tmp_path / "struck"))
        for _ in range(20):
            os.kill(pid, number)
            await trio.lowlevel.wait_readable(struck)
            os.read(struck, 100)
        for _ in range(20):
            os.kill(pid, number)  # and one that meets the order
            assert await step(0) == pid

    run_real(main)
    os.close(struck)
    assert "TimeoutError: of a handler" in capfd.readouterr().err


def test_what_a_handler_raises_in_a_call_is_told_as_what_it_is(capfd, tmp_path):
    """Never as an error of what the call is made of: signals are let in while the function runs, and not before."""
    os.mkfifo(tmp_path / "struck")
    struck = os.open(tmp_path / "struck", os.O_RDWR | os.O_NONBLOCK)

    async def main():
        step = Step(_work.own_pid).on(processes(1)).start()
        pid = await Step(_deeds.leaves_handlers).on(processes(1))(str(tmp_path / "struck"))
        raised, is_over = set(), threading.Event()

        def rain():
            while not is_over.wait(0.002):
                os.kill(pid, signal.SIGUSR1)
                with suppress(BlockingIOError):
                    os.read(struck, 1000)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, rain)
            for _ in range(300):
                try:
                    assert await step(0) == pid
                except Exception as error:
                    raised.add((type(error), str(error)))
            is_over.set()
        return raised

    raised = run_real(main)
    os.close(struck)
    assert raised <= {(TimeoutError, "of a handler")}
    capfd.readouterr()


def test_ctrl_c_strikes_no_worker_that_has_its_handler_back():
    """Python's own handler raises KeyboardInterrupt, which is for the run to hear of."""

    async def main():
        step = Step(_work.own_pid).on(processes(1)).start()
        pid = await Step(_deeds.leaves_python_s_own_handler).on(processes(1))("")
        for _ in range(20):
            os.kill(pid, signal.SIGINT)
            await trio.sleep(0.001)
            assert await step(0) == pid
        return True

    assert run_real(main)


@pytest.mark.parametrize(
    "around",
    [
        lambda step: step,
        lambda step: step.timeout(60),
        lambda step: step.rate_limit(RateLimit(99, burst=99), settle=lambda _: 1),
    ],
    ids=["nothing", "timeout", "settle"],
)
def test_an_idle_worker_that_died_costs_no_call(around):
    """However it died, and whether or not the system has told of it: the next call has another."""

    async def main():
        step = around(Step(_work.own_pid).on(processes(1))).start()
        pids = []
        for _ in range(20):
            pids.append(await step(0))
            os.kill(pids[-1], signal.SIGKILL)
        return len(set(pids))

    assert run_real(main) == 20


def test_a_worker_that_dies_behind_its_answer_costs_no_other_call():
    """It has answered, and is gone when the next order comes, or has not read it."""

    async def main():
        dying = Step(_deeds.dies_behind_its_answer).on(processes(1)).start()
        double = Step(_work.double).on(processes(1)).start()
        return [(await dying(number), await double(number)) for number in range(20)]

    assert run_real(main) == [("done", 2 * number) for number in range(20)]


def test_many_calls_at_once_have_their_own_answers():
    """Some die, some hang and are ended, some raise; each of the others has its own result."""
    fate = Step(_deeds.meets_its_fate).on(processes(3)).timeout(3)
    line = Pipeline.from_iterable(range(40)).map(fate, concurrency=6, on_error=OnError.emit())

    results = run_real(line.collect)

    kinds = {0: WorkerDied, 1: ValueError, 2: trio.TooSlowError}
    seen = [type(result.error) if isinstance(result, Failure) else result for result in results]
    assert seen == [kinds.get(number % 20, number * 10) for number in range(40)]
