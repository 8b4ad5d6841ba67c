"""`Pipeline.from_iterable(items, on=threads(1))`: an iterable that blocks holds nobody up, and no item of it is lost.

Mutants that die here: an iterator made, advanced or closed in the event loop; two pulls at a time; a run that ends
while a pull is under way, or waits for one that is to be left behind; an item that a pull gives after the end, and
nobody is told of; an iterator that is closed while a thread is in it, or never.
"""

import threading
from contextvars import ContextVar

import pytest
import trio
import trio.testing

from funcpipe_trio import Aborted, Pipeline, PlanError, merge, threads
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, assert_run_balances, every, outcome_of, run_real

HERE = ContextVar("HERE", default="nowhere")


class Rows:
    """Blocks at each item until it is let on; notes in which threads it ran, and never two at a time."""

    def __init__(self, count=4, error=None):
        self.left, self.error = count, error
        self.gates = [threading.Event() for _ in range(count + 1)]
        self.asked = [trio.Event() for _ in range(count + 1)]
        self.is_closed = trio.Event()
        self.threads, self.log, self.contexts = set(), [], set()
        self.inside = threading.Lock()
        self.token = None

    def note(self, what):
        self.threads.add(threading.current_thread() is threading.main_thread())
        self.contexts.add(HERE.get())
        self.log.append(what)

    def open_gates(self):
        for gate in self.gates:
            gate.set()

    def __call__(self):
        self.note("made")
        return self

    def __iter__(self):
        self.note("opened")
        return self

    def __next__(self):
        assert self.inside.acquire(blocking=False)
        try:
            number = len(self.gates) - 1 - self.left
            if self.token is not None:
                self.token.run_sync_soon(self.asked[number].set)
            assert self.gates[number].wait(30)
            self.note(number)
            if not self.left:
                raise self.error or StopIteration
            self.left -= 1
            return number
        finally:
            self.inside.release()

    def close(self):
        assert self.inside.acquire(blocking=False)
        self.inside.release()
        self.note("closed")
        if self.token is not None:
            self.token.run_sync_soon(self.is_closed.set)


def lazily(rows):
    return Pipeline.from_iterable(lambda: rows(), name="rows", on=threads(1))


def test_all_of_it_runs_in_a_thread_in_the_openers_context():
    rows = Rows()
    rows.open_gates()

    async def main():
        HERE.set("opener")
        return await lazily(rows).collect()

    assert run_real(main) == [0, 1, 2, 3]
    assert rows.log == ["made", "opened", 0, 1, 2, 3, 4, "closed"]
    assert rows.threads == {False}
    assert rows.contexts == {"opener"}


def test_it_holds_nobody_up():
    """What another source gives comes while it blocks."""
    rows = Rows(2)

    async def main():
        got = []
        async with merge(lazily(rows), Pipeline.from_iterable("abc")).open() as run:
            async for item in run:
                got.append(item)
                if item == "c":
                    rows.open_gates()
        return got

    assert run_real(main) == ["a", "b", "c", 0, 1]


def test_virtual_time_stands_still_meanwhile():
    rows = Rows()
    threading.Timer(0.05, rows.open_gates).start()

    async def main():
        got = []
        async with merge(lazily(rows), every(1, "ab")).open() as run:
            async for item in run:
                got.append((trio.current_time(), item))
        return got

    got = run_virtual(main)

    assert [item for at, item in got if at == 0] == [0, 1, 2, 3]
    assert [each for each in got if each[0]] == [(1, "a"), (2, "b")]


def test_an_error_is_that_of_the_stream():
    boom = Boom()
    rows = Rows(2, boom)
    rows.open_gates()
    seen = outcome_of(lazily(rows))

    assert seen.items == [0, 1]
    assert seen.error is boom
    assert boom.__notes__ == ["in stage 'rows', item 2"]
    assert rows.log[-1] == "closed"


def test_an_error_of_making_it_too():
    def broken():
        raise Boom

    assert type(outcome_of(Pipeline.from_iterable(broken, on=threads(1))).error) is Boom


def test_an_error_of_closing_it_is_one_of_cleanup():
    class Clumsy(Rows):
        def close(self):
            raise Boom

    rows = Clumsy(1)
    rows.open_gates()
    seen = outcome_of(lazily(rows))

    assert seen.items == [0]
    assert [type(error) for error in seen.report.cleanup_errors] == [Boom]


ENDS = {
    "aborted": lambda run, scope: run.abort(),
    "drained": lambda run, scope: run.drain_nowait(),
    "cancelled": lambda run, scope: scope.cancel(),
    "left": lambda run, scope: None,
}


@pytest.mark.parametrize("end", ENDS)
def test_the_run_waits_for_a_pull_and_loses_none_of_it(end):
    """A drain delivers what it gives, any other end discards it and tells."""
    rows, told, got = Rows(), [], []

    async def main():
        rows.token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            async with lazily(rows).open(on_discard=lambda item, stage, reason: told.append((item, stage))) as run:
                rows.gates[0].set()
                got.append(await run.receive())
                await rows.asked[1].wait()
                ENDS[end](run, scope)
                threading.Timer(0.05, rows.gates[1].set).start()
                if end == "drained":
                    got.extend([item async for item in run])
                await trio.lowlevel.checkpoint()
        assert rows.log == ["made", "opened", 0, 1, "closed"]
        return run.report

    report = run_real(main)

    assert (got, told) == (([0, 1], []) if end == "drained" else ([0], [(1, "rows")]))
    assert report.outcome == end
    assert report.taken == 2
    assert report.cleanup_errors == ()
    assert_run_balances(report)


@pytest.mark.parametrize("end", ENDS)
def test_one_that_is_left_behind_is_not_waited_for_and_closes_the_iterator(end):
    rows = Rows()
    plan = Pipeline.from_iterable(rows, name="rows", on=threads(1, abandon_on_cancel=True))

    async def main():
        rows.token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as scope:
            async with plan.open() as run:
                rows.gates[0].set()
                assert await run.receive() == 0
                await rows.asked[1].wait()
                ENDS[end](run, scope)
                if end == "drained":
                    assert [item async for item in run] == []
                await trio.lowlevel.checkpoint()
        assert rows.log == ["opened", 0]
        rows.open_gates()
        await rows.is_closed.wait()
        return run.report

    report = run_real(main)

    assert rows.log == ["opened", 0, 1, "closed"]
    assert rows.threads == {False}
    assert report.outcome == end
    assert report.stages[0].policies.abandoned == 1
    assert report.describe().splitlines()[-1] == "rows: 1 left behind, outcome unknown"
    assert_run_balances(report)


def test_a_pull_may_ask_whether_it_is_cancelled():
    def rows():
        yield 0
        while True:
            trio.from_thread.check_cancelled()
            trio.from_thread.run(trio.sleep, 0.001)

    async def main():
        async with Pipeline.from_iterable(rows, on=threads(1)).open() as run:
            assert await run.receive() == 0
            run.abort()
            with pytest.raises(Aborted):
                await run.receive()
        return run.report

    assert run_real(main).outcome == "aborted"


def test_it_is_asked_only_while_there_is_room():
    rows = Rows(9)
    rows.open_gates()

    async def main():
        plan = lazily(rows).buffer(2)
        async with plan.open() as run:
            await run.receive()
            await trio.testing.wait_all_tasks_blocked(0.02)
            assert len(rows.log) - 2 <= 1 + plan.max_in_flight

    run_real(main)


def test_an_iterator_works_for_one_run():
    plan = Pipeline.from_iterable(iter("ab"), on=threads(1))

    assert run_virtual(plan.collect) == ["a", "b"]
    with pytest.raises(PlanError):
        run_virtual(plan.collect)


def test_a_plan_shows_it():
    plan = Pipeline.from_iterable([1], on=threads(1))
    left = Pipeline.from_iterable([1], on=threads(1, abandon_on_cancel=True))

    assert plan.describe().splitlines()[1] == "source iterable: iterable, in a thread"
    assert left.describe().splitlines()[1] == "source iterable: iterable, in a thread, left behind when cancelled"
    assert left != plan
