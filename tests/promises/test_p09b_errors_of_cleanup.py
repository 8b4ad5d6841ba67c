"""P9b: an error of cleanup is never silent, whatever stage it comes from, and what is kept of such errors is bounded.

It is a note on the error that the caller gets; an entry of the report, the first 100 of them, and a count; and where
the call gives no report, a warning in the log. An odd exception (one that is false, has no text or refuses notes) is an
error like others.

Mutants that die here: a note on the error of the same stage only; a list without an end; an exception asked for its
truth or text where it matters; a failure that is nowhere because the run was stopped before it was read.
"""

from __future__ import annotations

import contextlib
import logging
import tracemalloc

import pytest
import trio
import trio.testing

from funcpipe_trio import Aborted, FairShare, OnError, Pipeline, Retry, Step, gather, merge
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled
from tests._kit import Boom, nap


class Feed:
    """Numbers, and a close that fails."""

    def __init__(self, error):
        self.error, self.number = error, 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        await trio.lowlevel.checkpoint()
        self.number += 1
        return self.number

    async def aclose(self):
        if self.error is not None:
            raise self.error


class Iterated:
    def __init__(self, error):
        self.error = error

    def __iter__(self):
        return self

    def __next__(self):
        return 1

    def close(self):
        raise self.error


class Odd(Exception):
    """Refuses whatever can be refused."""

    __notes__ = None

    def __str__(self):
        raise RuntimeError("no text")

    __repr__ = __str__

    def __bool__(self):
        return False

    def __eq__(self, _other):
        raise RuntimeError("not compared")

    __hash__ = None


class NoText(Exception):
    def __str__(self):
        return self.message  # a common slip


class Refuses(Exception):
    __notes__ = None


class IsFalse(Exception):
    def __bool__(self):
        return False

    def __len__(self):
        return 0


CLOSING = OSError("the last commit failed")
ODD = [Odd, NoText, Refuses, IsFalse]


def feed(error=CLOSING):
    return Pipeline.from_async_iterable(lambda: Feed(error))


@pytest.mark.parametrize("broken", range(3))
def test_it_is_noted_on_the_error_that_the_caller_gets(broken):
    """Also if it comes from the source of another input, before the error was read or behind it."""

    async def call(number):
        if number == 2:
            raise ValueError("first")
        return number

    async def main():
        errors = [CLOSING if number == broken else None for number in range(3)]
        with pytest.raises(ValueError) as caught:
            await merge(*map(feed, errors)).map(call).collect()
        return caught.value.__notes__

    assert any("then cleanup in stage" in note and "the last commit failed" in note for note in run_virtual(main))


CALLS = {
    "collect": lambda line: line.take(3).collect(),
    "first": lambda line: line.first(),
    "count": lambda line: line.take(3).count(),
    "fold": lambda line: line.take(3).fold(lambda a, b: a + b, 0),
}


@pytest.mark.parametrize("error", [CLOSING, *(kind() for kind in ODD)], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("source", ["async", "sync"])
@pytest.mark.parametrize("name", CALLS)
def test_it_is_in_the_log_where_there_is_no_report(name, source, error, caplog):
    """One warning of the logger `funcpipe_trio`, with the error itself; the result is what it would be."""
    line = feed(error) if source == "async" else Pipeline.from_iterable(Iterated(error))

    run_virtual(lambda: CALLS[name](line))

    (record,) = caplog.records
    assert (record.name, record.levelno) == ("funcpipe_trio", logging.WARNING)
    assert record.getMessage().startswith(f"{name}: ")
    assert type(error).__name__ in record.getMessage()
    assert record.exc_info[1] is error


def test_nothing_is_logged_where_there_is_a_report(caplog):
    """The caller that gets it can look."""
    report = run_virtual(feed().take(3).run)

    assert report.cleanup_errors == (CLOSING,)
    assert caplog.records == []


@pytest.mark.parametrize("many", [5, 100, 10_000])
def test_what_is_kept_is_bounded(many):
    """The first hundred, and how many there were: by `on_discard`, say."""

    def on_discard(*_):
        raise OSError("the log is full")

    async def main():
        line = Pipeline.from_iterable(range(many + 1)).fair_by(
            lambda _: 0, FairShare(capacity=1), max_keys=1, overflow="drop_newest"
        )
        async with line.open(on_discard=on_discard) as run:
            async for _item in run:
                pass
        return run.report

    report = run_virtual(main)

    assert report.cleanup_error_count == report.dropped > many * 0.9
    assert len(report.cleanup_errors) == min(100, report.cleanup_error_count)
    assert ("not kept" in report.describe()) == (report.cleanup_error_count > 100)


def test_so_is_the_memory():
    """At 10^5 errors as at 10^3, within 1 MiB (P4)."""

    def on_discard(*_):
        raise OSError("the log is full")

    async def main(many):
        line = Pipeline.from_iterable(range(many)).fair_by(
            lambda _: 0, FairShare(capacity=1), max_keys=1, overflow="drop_newest"
        )
        async with line.open(on_discard=on_discard) as run:
            async for _item in run:
                pass
            return tracemalloc.get_traced_memory()[0]

    used = []
    for many in (1_000, 100_000):
        tracemalloc.start()
        used.append(run_virtual(main, many))
        tracemalloc.stop()

    assert used[1] - used[0] < 1 << 20


# ---- odd exceptions


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("is_async", [False, True])
def test_an_odd_exception_is_a_failure_like_others(kind, is_async):
    """The very object, the outcome, and a report that can be shown."""
    error = kind()

    def fails(item):
        if item == 2:
            raise error
        return item

    async def fails_later(item):
        return fails(item)

    async def main():
        got = []
        try:
            async with Pipeline.from_iterable(range(5)).map(fails_later if is_async else fails).open() as run:
                async for item in run:
                    got.append(item)
        except kind as met:
            return got, met is error, run.report.outcome, run.report.error is error, run.report.describe()
        return got

    got, is_same, outcome, is_kept, shown = run_virtual(main)

    assert (got, is_same, outcome, is_kept) == ([0, 1], True, "failed", True)
    assert f"error: {kind.__name__}" in shown


@pytest.mark.parametrize("kind", ODD)
def test_it_takes_no_other_errors_place(kind):
    """In cleanup, while the run fails for another reason; and while others are cancelled."""

    async def call(item):
        if item == 0:
            raise ValueError("first")
        try:
            await trio.sleep_forever()
        finally:
            raise kind

    async def main():
        with pytest.raises(ValueError) as closing:
            await feed(kind()).map(lambda item: 1 // 0 if item < 0 else int("x")).collect()
        with pytest.raises(ValueError) as cancelled:
            await Pipeline.from_iterable(range(3)).map(call, concurrency=3).collect()
        with pytest.raises(ValueError) as gathered:
            await gather(Step(call), [1, 0], concurrency=2)
        return closing.value, cancelled.value, gathered.value

    closing, _cancelled, gathered = run_virtual(main)

    assert any(kind.__name__ in note for note in closing.__notes__)
    assert any(kind.__name__ in note for note in gathered.__notes__)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize("policy", [OnError.skip(), OnError.emit()])
def test_policies_deal_with_it(kind, policy):
    """As with any other."""

    def fails(item):
        if item == 2:
            raise kind
        return item

    async def main():
        return [
            type(item).__name__ for item in await Pipeline.from_iterable(range(4)).map(fails, on_error=policy).collect()
        ]

    assert run_virtual(main) == ["int", "int", *(["Failure"] if policy == OnError.emit() else []), "int"]


class FatalAndFalse(BaseException):
    def __bool__(self):
        return False


@pytest.mark.parametrize("where", ["map", "async map", "on_discard", "closing", "gather"])
def test_what_ends_the_program_does_so_even_if_it_is_false(where):
    """Bare, itself."""
    fatal = FatalAndFalse()

    def raising(*_):
        raise fatal

    async def raising_later(*_):
        raise fatal

    async def main():
        five = Pipeline.from_iterable(range(5))
        if where == "map":
            await five.map(raising).run()
        elif where == "async map":
            await five.map(raising_later).run()
        elif where == "gather":
            await gather(Step(raising_later), [1], concurrency=1)
        elif where == "on_discard":
            async with five.open(on_discard=raising) as run:
                await run.receive()
        else:
            await feed(fatal).take(1).run()

    with pytest.raises(FatalAndFalse) as caught:
        run_virtual(main)

    assert caught.value is fatal


# ---- failures that nobody reads


@pytest.mark.parametrize("ending", ["abort", "cancel"])
@pytest.mark.parametrize("way", ["run", "open"])
@pytest.mark.parametrize("waits", ["for its turn", "for the end"])
def test_a_failure_that_nobody_has_read_is_in_the_report(way, ending, waits):
    """When the run is stopped before, in whatever way it is driven."""
    boom = ValueError("broken")

    async def source():
        try:
            yield 1
            yield 2
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)

    async def call(item):
        if item == 1:
            raise boom
        await trio.sleep(5)
        return item

    if waits == "for its turn":
        plan = Pipeline.from_iterable(range(3)).map(call, concurrency=3)
    else:
        plan = Pipeline.from_async_iterable(source).map(call)
    runs = []

    class Status:
        def started(self, run):
            runs.append(run)

    async def drive():
        if way == "run":
            with contextlib.suppress(ValueError):  # it may have been read just before
                await plan.run(task_status=Status())
        else:
            async with plan.open() as run:
                runs.append(run)
                await trio.sleep_forever()

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drive)
            await trio.sleep(1)
            if ending == "abort" and way == "run":
                runs[0].abort()
            else:
                nursery.cancel_scope.cancel()
        return runs[0].report

    report = run_virtual(main)

    assert report.error is boom
    assert report.failed == 1


@pytest.mark.parametrize("way", ["cancelled", "not needed"])
def test_so_is_what_a_producer_raises_when_it_is_cancelled(way, caplog):
    """It is an error of its cleanup, as that of a source that is closed."""

    async def produce(channel):
        try:
            await channel.send(0)
            await trio.sleep_forever()
        finally:
            raise CLOSING

    async def main():
        plan = Pipeline.from_producer(produce)
        with trio.move_on_after(1):
            await (plan if way == "cancelled" else plan.take(1)).collect()

    run_virtual(main)

    assert [record.exc_info[1] for record in caplog.records] == [CLOSING]


# ---- failures of a source that has just raised


@pytest.mark.parametrize("ending", ["a later failure", "abort"])
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("asked", [1, 2, 63, 64, 65, 128])
def test_a_failure_of_a_source_is_read_or_kept(asked, seed, ending):
    """However many items it gave at once before, and whatever ends the run in the same tick."""
    broken = ValueError("of the source")

    async def main():
        raised = trio.Event()

        async def source():
            for item in range(asked - 1):
                yield item
            await trio.sleep(1)
            raised.set()
            raise broken

        async def call(item):
            if ending == "a later failure":
                await raised.wait()
                raise Boom
            return item

        plan = Pipeline.from_async_iterable(source).buffer(200).map(call)
        async with plan.open() as run, trio.open_nursery() as nursery:

            async def stop():
                await raised.wait()
                if ending == "abort":
                    run.abort()

            nursery.start_soon(stop)
            with contextlib.suppress(ValueError, Boom, Aborted):
                async for _item in run:
                    pass
        return run.report

    with scheduled(Schedule(seed)):
        report = run_virtual(main)

    assert broken in (report.error, *report.cleanup_errors)


@pytest.mark.parametrize("of", ["async iterable", "producer", "restarting"])
def test_what_a_source_gave_is_in_a_link_before_others_run(of):
    """More items than a turn has, all there at once: none is in the source's hands at a checkpoint."""

    async def feed():
        for item in range(200):
            yield item

    async def produce(send):
        for item in range(200):
            await send.send(item)

    sources = {
        "async iterable": lambda: Pipeline.from_async_iterable(feed),
        "producer": lambda: Pipeline.from_producer(produce),
        "restarting": lambda: Pipeline.restarting(feed, Retry(2), reset_after=1),
    }
    seen = []

    class Between(trio.abc.Instrument):
        run = None

        def after_task_step(self, task):
            if self.run is not None:
                (source, *_rest) = self.run.statistics().stages
                seen.append(source.received - source.emitted)

    async def main():
        between = Between()
        trio.lowlevel.add_instrument(between)
        async with sources[of]().buffer(300).map(nap).open() as run:
            between.run = run
            await trio.testing.wait_all_tasks_blocked()
            between.run = None

    run_virtual(main)

    assert len(seen) > 5
    assert set(seen) == {0}
