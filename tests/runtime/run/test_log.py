"""What the log is told of a run, of circuits and of workers: once for each event, at its level, and nothing private.

Mutants that die here: a record for each item, or for a run inside another; a second record of a second call of drain,
abort or pause; a name, an item or the text of an error in a record; a filter of the user's that ends the run.
"""

import logging
from concurrent.futures import BrokenExecutor, Future

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import CircuitBreaker, OnError, Pipeline, RateLimit, Step, WorkerDied, executor, gather, processes
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, endless, in_virtual_time, nap

SECRET = "a card number"


@pytest.fixture
def told(caplog):
    """Return what was told so far, without the numbers of runs; the level is DEBUG."""
    caplog.set_level(logging.DEBUG, "funcpipe_trio")

    def told():
        assert {record.name for record in caplog.records} <= {"funcpipe_trio"}
        assert SECRET not in caplog.text
        return [(record.levelname, _without_number(record.getMessage())) for record in caplog.records]

    return told


def _without_number(message):
    if not message.startswith("run "):
        return message
    _, number, rest = message.split(" ", 2)
    assert int(number) > 0
    return rest


def test_a_run_tells_when_it_begins_and_ends(told):
    run_virtual(Pipeline.from_iterable(range(1000), name="numbers").map(nap, concurrency=1000).run)

    assert told() == [
        ("INFO", "of 'numbers': begins; stages: 2"),
        ("INFO", "of 'numbers': completed after 1.000 s; 1000 delivered, 0 discarded"),
    ]


def test_a_failure_is_told_by_its_type(told):
    """The caller gets it; the log has neither its text nor the item."""

    async def call(_item):
        raise Boom(SECRET)

    with pytest.raises(Boom):
        run_virtual(Pipeline.from_iterable([SECRET], name="cards").map(call).collect)

    assert told()[1:] == [("INFO", "of 'cards': failed after 0.000 s, after a Boom; 0 delivered, 0 discarded")]


@in_virtual_time
async def drained_and_paused(method):
    async with Pipeline.from_async_iterable(endless, name="numbers").map(nap, concurrency=2).open() as run:
        await run.receive()
        for _ in range(2):
            getattr(run, method)()
        if method == "pause":
            for _ in range(2):
                run.resume()
            run.pause()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("drain_nowait", [("INFO", "drains")]),
        ("abort", [("INFO", "is aborted")]),
        ("pause", [("DEBUG", "pauses"), ("DEBUG", "goes on"), ("DEBUG", "pauses")]),
    ],
)
def test_what_is_asked_of_a_run_is_told_once(told, method, expected):
    drained_and_paused(method=method)

    between = [(level, message.removeprefix("of 'numbers': ")) for level, message in told()[1:-1]]
    assert between == expected


def test_a_drain_that_is_too_slow_is_a_warning(told):
    @in_virtual_time
    async def main():
        async with Pipeline.from_iterable([SECRET], name="cards").map(nap).open() as run:
            await wait_all_tasks_blocked()
            await run.drain(0.5)

    main()

    assert [each for each in told() if each[0] == "WARNING"] == [
        (
            "WARNING",
            "of 'cards': is not drained within its grace period, and stops; what is under way is discarded",
        )
    ]


def test_runs_that_are_part_of_another_are_not_told(told):
    """There may be one for each item, or each call of `gather`."""

    async def main():
        await (
            Pipeline.from_iterable(range(9), name="outer")
            .flat_map(lambda n: Pipeline.from_iterable([n], name="inner").map(nap), concurrency=3)
            .run()
        )
        await gather(Step(nap), range(9), concurrency=3)

    run_virtual(main)

    assert len(told()) == 2
    assert not any("inner" in message for _, message in told())


def test_a_circuit_tells_of_each_change(told):
    """Open after two failures, a probe that fails, a probe that succeeds."""
    answers = iter([Boom(SECRET), Boom(SECRET), Boom(SECRET), None, None])

    async def ask(_item):
        answer = next(answers)
        if answer is not None:
            raise answer

    async def main():
        step = Step(ask).circuit_breaker(CircuitBreaker(2, 10, wait=True))
        await Pipeline.from_iterable([SECRET] * 5).map(step, on_error=OnError.skip()).run()

    run_virtual(main)

    assert told()[1:-1] == [
        ("INFO", "the circuit of 'ask' is open: 2 failures in a row"),
        ("INFO", "the circuit of 'ask' is half-open"),
        ("INFO", "the circuit of 'ask' is open: its probe failed"),
        ("INFO", "the circuit of 'ask' is half-open"),
        ("INFO", "the circuit of 'ask' is closed"),
    ]


class Broken:
    """An executor that breaks at each call."""

    def submit(self, _fn, _item):
        future = Future()
        future.set_exception(BrokenExecutor(SECRET))
        return future


@pytest.mark.parametrize(
    ("given", "records"),
    [(Broken(), ["the executor of 'abs' is broken, or a worker of it died"]), (Broken, 3 * [
        "the executor of 'abs' is broken, or a worker of it died; another is made for the next call"
    ])],
)  # fmt: skip
def test_an_executor_that_breaks_is_told_once(told, given, records):
    """However many calls meet the break."""

    async def main():
        step = (Step(abs).on(executor(given))).start()
        for _ in range(3):
            with pytest.raises(WorkerDied):
                await step(1)

    trio.run(main)

    assert told() == [("INFO", record) for record in records]


def leave(_item):
    import os

    os._exit(3)


def test_a_worker_process_that_dies_is_told(told):
    async def main():
        with pytest.raises(WorkerDied):
            await Step(leave).on(processes(1))(SECRET)

    trio.run(main)

    assert told() == [("INFO", "the worker process of 'leave' died: it ended with status 3")]


class Refusing(logging.Filter):
    def filter(self, record):
        raise ValueError(record)


def test_a_filter_that_raises_does_no_harm(told):
    """Nor does one that is asked in the middle of a step of the run."""
    logger = logging.getLogger("funcpipe_trio")
    refusing = Refusing()
    logger.addFilter(refusing)
    try:
        drained_and_paused(method="drain_nowait")
    finally:
        logger.removeFilter(refusing)

    assert told() == []


def test_a_filter_that_raises_does_no_harm_to_a_call_whose_loser_failed(told):
    """Its error is logged in the middle of a task of the block."""

    async def ask(number):
        try:
            await trio.sleep(3 - next(seconds))
        except trio.Cancelled:
            raise Boom from None
        return number

    async def main():
        async with Step(ask).hedge(0.5).start() as call:
            return await call(1)

    seconds = iter([0, 2])
    logger = logging.getLogger("funcpipe_trio")
    refusing = Refusing()
    logger.addFilter(refusing)
    try:
        assert run_virtual(main) == 1
    finally:
        logger.removeFilter(refusing)


def test_nobody_is_asked_for_a_name_if_nobody_listens(caplog):
    """An event costs one question."""
    from funcpipe_trio._runtime.core.log import INFO, RunLog

    caplog.set_level(logging.WARNING, "funcpipe_trio")

    RunLog(lambda: pytest.fail("asked"))(INFO, "begins")


def test_what_an_item_costs_does_not_depend_on_the_log(told):
    """As many records for ten items as for ten thousand; also with a limit and a policy."""

    async def call(number):
        if number % 2:
            raise Boom(SECRET)

    for many in (10, 10_000):
        step = Step(call).rate_limit(RateLimit(1e6, burst=1000))
        run_virtual(Pipeline.from_iterable(range(many)).map(step, on_error=OnError.skip()).run)

    assert len(told()) == 4
