"""The methods of a run may be called at any moment, from any user function, `on_discard` and closing code included.

A poison pill, a watchdog, a listener that has seen enough: each calls them in the middle of what the run is at.

Mutants that die here: a stage that parks after it was stopped in its own turn; a list that is changed while it is gone
through; an item in the hands of a burst that ends in no account; a call that begins behind an abort.
"""

from __future__ import annotations

import contextlib
import threading
from fractions import Fraction
from functools import partial
from itertools import product

import pytest
import trio
import trio.lowlevel

from funcpipe_trio import Aborted, FairShare, OnError, Pipeline, StateError, Step, concat, fair_merge, merge
from funcpipe_trio.testing import run_virtual
from tests._kit import assert_links_balance, assert_stages_balance

from ._places import PLACES, Code


def look(run):
    run.statistics()
    run.report.describe()


def pause_a_while(run):
    run.pause()
    trio.lowlevel.spawn_system_task(resume_later, run)


async def resume_later(run):
    await trio.sleep(5)
    run.resume()


def set_weights(run):
    for key in ("a", "b", 0, 1):
        with contextlib.suppress(KeyError, ValueError):
            run.set_weight(key, Fraction(1, 7))


def set_concurrencies(run):
    for stage in run.statistics().stages:
        if stage.kind == "async":
            with contextlib.suppress(ValueError):  # one that works on the latest item only refuses it
                run.set_concurrency(stage.name, 2)


METHODS = {
    "abort": (lambda run: run.abort(), {"aborted"}),
    "abort twice": (lambda run: (run.abort(), run.abort()), {"aborted"}),
    "drain_nowait": (lambda run: run.drain_nowait(), {"drained", "completed"}),
    "drain and abort": (lambda run: (run.drain_nowait(), run.abort()), {"aborted"}),
    "pause and resume": (lambda run: (run.pause(), run.resume()), {"completed"}),
    "pause for a while": (pause_a_while, {"completed"}),
    "pause and abort": (lambda run: (run.pause(), run.abort()), {"aborted"}),
    "pause and drain": (lambda run: (run.pause(), run.drain_nowait()), {"drained", "completed"}),
    "set_weight": (set_weights, {"completed"}),
    "set_concurrency": (set_concurrencies, {"completed"}),
    "statistics": (look, {"completed"}),
}
CANNOT_SUCCEED = ["a predicate of a retry", "a predicate of an adaptive pool"]  # its call fails


def books_hold(report, got, told, *, told_all=True):
    assert report.delivered == got
    assert not told_all or report.discarded == sum(reason != "latest" for _item, _stage, reason in told)
    assert all(isinstance(error, OSError) for error in report.cleanup_errors)  # what was to be diverted
    assert_stages_balance(report)
    assert_links_balance(report)


def call_once(call, holder, calls):
    """Call a method of the run that is held, the first time that user code comes here."""
    if not calls:
        calls.append(True)
        call(holder[0])


async def drive(plan, holder, on_discard, slow):
    """Take everything, quickly or slowly; give the report, and how many items came."""
    got = 0
    async with plan.open(on_discard=on_discard) as run:
        holder.append(run)
        try:
            async for _item in run:
                got += 1
                await trio.sleep(slow)
        except Aborted:
            pass
    return run.report, got


@pytest.mark.parametrize("slow", [0, 0.3])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", [place for place in PLACES if place not in CANNOT_SUCCEED])
def test_from_every_user_function(place, method, slow):
    """The run ends as the method says, and everything is accounted for."""
    call, outcomes = METHODS[method]
    holder, told, calls = [], [], []
    act = partial(call_once, call, holder, calls)

    async def main():
        return await drive(PLACES[place](Code(act)), holder, lambda *what: told.append(what), slow)

    report, got = run_virtual(main)

    assert calls
    assert report.outcome in outcomes
    books_hold(report, got, told)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("place", [place for place in PLACES if place not in CANNOT_SUCCEED])
def test_from_every_user_function_of_a_run_that_drives_itself(place, method):
    """The same for `run()`, whose last stage fills the sink."""
    call, outcomes = METHODS[method]
    holder, told, calls = [], [], []
    act = partial(call_once, call, holder, calls)

    class Status:
        def started(self, run):
            holder.append(run)

    async def main():
        return await PLACES[place](Code(act)).run(on_discard=lambda *what: told.append(what), task_status=Status())

    report = run_virtual(main)

    assert calls
    assert report.outcome in outcomes
    books_hold(report, report.delivered, told)


def feed(gap):
    async def items():
        for number in range(9):
            await trio.sleep(gap)
            yield number

    return Pipeline.from_async_iterable(items)


def one(item):
    return item


DISCARDING = {
    "a link": lambda: feed(0).map(Step.pure(one)).take(3),
    "a merge": lambda: merge(feed(0), feed(1)).take(3),
    "a concat": lambda: concat(feed(0), feed(0)).map(Step.pure(one)).take(2),
    "a concat of iterables": lambda: concat(Pipeline.from_iterable(range(9)), feed(0)).map(Step.pure(one)).take(1),
    "branches": lambda: feed(0).broadcast({"a": lambda p: p.take(1), "b": lambda p: p.take(2)}),
    "a partition": lambda: feed(0).partition(lambda item: "ab"[item % 2], {"a": lambda p: p.take(1), "b": lambda p: p}),
    "drop_oldest": lambda: merge(feed(0)).buffer(1, overflow="drop_oldest"),
    "drop_newest": lambda: feed(0).buffer(2, overflow="drop_newest").map(Step.pure(one)),
    "fair_by": lambda: merge(feed(0)).fair_by(bool, FairShare(capacity=1), max_keys=3, overflow="drop_newest"),
    "debounce": lambda: feed(0).debounce(1).take(1),
    "a batch": lambda: feed(0).batch(3, max_delay=1).take(1),
    "a pool": lambda: feed(0).map(Step.pure(one), concurrency=3).take_while(lambda item: item < 2),
    "a key": lambda: feed(0).map(Step.pure(one), key=bool, concurrency=3).take(2),
    "flat_map": lambda: feed(0).flat_map(lambda item: feed(0), concurrency=3).take(3),
    "zip": lambda: fair_merge({"a": feed(0), "b": feed(0)}).take(2),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", DISCARDING)
@pytest.mark.parametrize("how", ["to the end", "slowly", "left"])
def test_from_on_discard(shape, method, how):
    """At the first item that is given up, whatever the run is at."""
    call, _ = METHODS[method]
    holder, told = [], []

    def on_discard(*what):
        told.append(what)
        if len(told) == 1 and holder:
            call(holder[0])

    async def main():
        got = 0
        async with DISCARDING[shape]().open(on_discard=on_discard) as run:
            holder.append(run)
            await trio.sleep(3)
            try:
                async for _item in run:
                    got += 1
                    await trio.sleep(2 if how == "slowly" else 0)
                    if how == "left":
                        break
            except Aborted:
                pass
        return run.report, got

    report, got = run_virtual(main)

    overflowed = sum(reason in ("drop_oldest", "drop_newest") for _, _, reason in told)
    books_hold(report, got, told[overflowed:])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["async generator", "generator", "producer", "flat_map"])
def test_from_closing_code(kind, method):
    """While the run is being stopped already, or is only closing this source."""
    call, _ = METHODS[method]
    holder, told = [], []

    async def items(*_):
        try:
            for number in range(9):
                await trio.lowlevel.checkpoint()
                yield number
        finally:
            call(holder[0])

    def at_once():
        try:
            yield from range(9)
        finally:
            call(holder[0])

    async def produce(channel):
        try:
            for number in range(9):
                await channel.send(number)
        finally:
            call(holder[0])

    plans = {
        "async generator": merge(Pipeline.from_async_iterable(items), feed(1)),
        "generator": merge(Pipeline.from_iterable(at_once), feed(1)),
        "producer": merge(Pipeline.from_producer(produce), feed(1)),
        "flat_map": Pipeline.from_iterable("ab").flat_map(items, concurrency=2),
    }

    async def main(most):
        got = 0
        async with plans[kind].open(on_discard=lambda *what: told.append(what)) as run:
            holder[:] = [run]
            try:
                async for _item in run:
                    got += 1
                    if got == most:
                        break
            except Aborted:
                pass
        return run.report, got

    for most in (3, 12, 99):
        told.clear()
        report, got = run_virtual(main, most)
        books_hold(report, got, told)


# ---- from elsewhere


@pytest.mark.parametrize("method", ["abort", "drain_nowait", "pause", "resume"])
def test_another_thread_is_refused_before_anything_has_changed(method):
    """With how to do it right; and the run continues as if nothing had been."""
    caught = []

    def thread(run):
        try:
            getattr(run, method)()
        except StateError as error:
            caught.append(str(error))

    async def main():
        got = []
        async with merge(feed(0)).batch(3).open() as run:
            got.append(await run.receive())
            worker = threading.Thread(target=thread, args=(run,))
            worker.start()
            worker.join()
            got += [item async for item in run]
        return got, run.report.outcome

    got, outcome = run_virtual(main)

    assert (got, outcome) == ([[0, 1, 2], [3, 4, 5], [6, 7, 8]], "completed")
    assert caught == [
        f"Run.{method}: must be called in the trio run that opened the run, and in its thread\n"
        f"Use trio.from_thread.run_sync(run.{method}) from another thread."
    ]


def test_another_trio_run_is_refused_too():
    """A trio run in another thread has tasks of its own."""
    caught = []

    def thread(run):
        async def main():
            try:
                run.abort()
            except StateError as error:
                caught.append(error)

        trio.run(main)

    async def main():
        async with feed(0).open() as run:
            worker = threading.Thread(target=thread, args=(run,))
            worker.start()
            worker.join()
        run.abort()  # it is over: nothing to be changed, so nothing to be refused

    run_virtual(main)

    assert len(caught) == 1


def test_by_way_of_trio_a_thread_may():
    """`trio.from_thread.run_sync` calls it in the right thread."""

    async def main():
        async with merge(feed(0.1)).filter(lambda _: False).open() as run:
            await trio.to_thread.run_sync(lambda: trio.from_thread.run_sync(run.abort))
            with pytest.raises(Aborted, match=r"^the run was aborted$"):
                await run.receive()
        return run.report.outcome

    assert trio.run(main) == "aborted"


@pytest.mark.parametrize(("ending", "capacity"), list(product(["abort", "leave"], [1, 3])))
def test_a_failed_diversion_is_in_an_account_when_the_run_stops(ending, capacity):
    """The item was handed to the step, which failed, and the run stops before the failure has its turn."""
    boom, told = ConnectionError("the store is down"), []

    async def bury(_failure):
        broken.set()
        raise boom

    plan = Pipeline.from_iterable("abcdefgh").fair_by(
        lambda _: 0, FairShare(capacity=capacity), max_keys=2, overflow=OnError.divert(bury)
    )

    async def main():
        nonlocal broken
        broken = trio.Event()
        async with plan.open(on_discard=lambda *what: told.append(what)) as run:
            await broken.wait()
            if ending == "abort":
                run.abort()
        return run.report

    broken = None
    for _ in range(8):
        told.clear()
        report = run_virtual(main)
        assert report.taken == report.discarded + report.failed == len(told) + report.failed
        assert boom in (report.error, *report.cleanup_errors)


def test_a_stop_from_below_reaches_a_stage_that_is_about_to_park():
    """What it settles before it parks may end a merge below it, which stops it: nobody would wake it afterwards."""

    async def main():
        other = Pipeline.from_iterable(range(5)).fair_by(lambda number: number % 3, max_keys=1)
        failing = Pipeline.from_iterable(range(1)).broadcast(
            {"a": lambda branch: merge(branch.map(lambda number: 1 // number), other)}
        )
        async with failing.open() as run:
            with pytest.raises(ZeroDivisionError):
                async for _item in run:
                    pass
        return trio.current_time()

    assert [run_virtual(main) for _ in range(20)] == [0] * 20


@pytest.mark.parametrize("place", ["map", "filter", "the key of fair_by", "a key", "distinct", "behind a merge"])
def test_the_reason_to_abort_is_kept(place):
    """A function that aborts the run and raises: its error is in the report."""
    boom = ValueError("why")

    def act(_item):
        holder[0].abort()
        raise boom

    line = feed(0)
    plans = {
        "map": lambda: line.map(act),
        "filter": lambda: line.filter(act),
        "the key of fair_by": lambda: line.fair_by(act, max_keys=2),
        "a key": lambda: line.map(Step.pure(one), key=act),
        "distinct": lambda: line.distinct(act, remember=2),
        "behind a merge": lambda: merge(line).map(act),
    }
    holder = []

    async def main():
        async with plans[place]().open() as run:
            holder[:] = [run]
            with pytest.raises(Aborted, match=r"^the run was aborted$"):
                async for _item in run:
                    pass
        return run.report

    report = run_virtual(main)

    assert report.outcome == "aborted"
    assert boom in (report.error, *report.cleanup_errors)
