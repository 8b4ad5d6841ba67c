"""P9a: a source may hold cancel scopes and nurseries open over its yields, as with `contextlib.aclosing` in plain trio.

A connection with a heartbeat does. Closed in whatever way, at whatever moment, it leaves what it opened in good order,
says good-bye, and is not called slow. A deadline of its own that strikes while the library waits is its own affair.

Mutants that die here: a scope opened to close in; an own deadline that ends the run, or is swallowed; a source closed
by another task; a cancellation thrown into a source that only waits.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from itertools import count, pairwise

import pytest
import trio

from funcpipe_trio import (
    Aborted,
    Pipeline,
    Retry,
    Step,
    concat,
    fair_merge,
    merge,
    zip_pipelines,
)
from funcpipe_trio.testing import Scenario, cancel_everywhere, drain_everywhere, explore_schedules, run_virtual
from tests._kit import Boom, connection


class Log:
    """What became of the feeds."""

    def __init__(self):
        self.opened = self.closed = self.said = 0
        self.inside = 0
        """Feeds inside of an await of their own: a cancellation that comes then ends them there, as in plain trio."""


@asynccontextmanager
async def holding(kind):
    """Hold open what a connection holds open."""
    if kind == "nursery":
        async with connection():
            yield
    elif kind == "bare nursery":  # whose block ends by the GeneratorExit of its closing, in a group
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            yield
    elif kind == "scope":
        with trio.CancelScope():
            yield
    elif kind == "deadline":
        with trio.fail_after(10_000):
            yield
    else:
        with trio.CancelScope(shield=True), trio.move_on_after(10_000):
            async with holding("nursery"):
                yield


KINDS = ["nursery", "bare nursery", "scope", "deadline", "many"]


def feed_of(kind, log):
    async def feed():
        log.opened += 1
        try:
            async with holding(kind):
                for number in count():
                    log.inside += 1
                    await trio.lowlevel.checkpoint()
                    log.inside -= 1
                    yield number
        finally:
            log.closed += 1
            await trio.sleep(0.1)
            log.said += 1

    return feed


class Iterated:
    """The same as an async iterable that is not a generator itself."""

    def __init__(self, feed):
        self.feed = feed()

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await self.feed.__anext__()

    async def aclose(self):
        await self.feed.aclose()


def some(item):
    return Pipeline.from_iterable(range(item, item + 9))


SOURCES = {
    "source": lambda feed: Pipeline.from_async_iterable(feed),
    "iterable": lambda feed: Pipeline.from_async_iterable(lambda: Iterated(feed)),
    "restarting": lambda feed: Pipeline.restarting(feed, Retry(3), reset_after=9),
    "using": lambda feed: Pipeline.using(connection, lambda _: feed()),
    "flat_map": lambda feed: Pipeline.from_iterable("ab").flat_map(lambda _: feed(), concurrency=2),
    "flat_map in order": lambda feed: Pipeline.from_iterable("ab").flat_map(lambda _: feed(), concurrency=1),
    "inner pipelines": lambda feed: Pipeline.from_iterable("ab").flat_map(
        lambda _: Pipeline.from_async_iterable(feed), concurrency=2
    ),
    "merge": lambda feed: merge(Pipeline.from_async_iterable(feed), Pipeline.from_async_iterable(feed)),
    "fair_merge": lambda feed: fair_merge({"a": Pipeline.from_async_iterable(feed), "b": some(0)}),
    "concat": lambda feed: concat(some(0).take(1), Pipeline.from_async_iterable(feed)),
    "zip": lambda feed: zip_pipelines(Pipeline.from_async_iterable(feed), Pipeline.from_async_iterable(feed)),
    "branches": lambda feed: Pipeline.from_async_iterable(feed).broadcast({"a": lambda p: p, "b": lambda p: p}),
    "a stage": lambda feed: Pipeline.from_async_iterable(feed).map(Step.pure(lambda item: item), concurrency=2),
    "a batch": lambda feed: Pipeline.from_async_iterable(feed).batch(2, max_delay=1),
}


async def sees(run, how, scope):
    """Take three items, wait until all is full, and end the run."""
    got = 0
    async for _ in run:
        got += 1
        if got == 3:
            await trio.sleep(1)
            if how == "drain":
                run.drain_nowait()
            elif how == "leave":
                break
            elif how == "raise":
                raise Boom
            elif how == "abort":
                run.abort()
            elif how == "cancel":
                scope.cancel()


def fails_at(number):
    numbers = count()

    def same(item):
        if next(numbers) == number:
            raise Boom
        return item

    return same


ENDINGS = {
    "take": lambda plan: plan.take(3),
    "take_while": lambda plan: plan.enumerate().take_while(lambda numbered: numbered[0] < 3),
    "failure": lambda plan: plan.map(fails_at(3)),
    "failure of a stage": lambda plan: plan.map(Step.pure(fails_at(3))),
} | dict.fromkeys(["drain", "leave", "raise", "abort", "cancel"], lambda plan: plan)


WHILE_AT_WORK = ["take", "take_while", "failure", "failure of a stage"]
"""Endings that may meet a feed inside of its own await; the others come when it waits for room."""


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_closed_in_good_order(kind, source, how):
    """Each feed that was opened says good-bye, nothing is late, and no error of cleanup is met."""
    if how == "cancel" and kind == "many":
        pytest.skip("it shields the task that iterates it, as in plain trio: the cancellation waits for its deadline")
    if how == "drain" and source in ("flat_map", "flat_map in order", "inner pipelines"):
        pytest.skip("what is taken apart there goes on for ever: a drain waits for it")
    log = Log()

    async def main():
        plan = ENDINGS[how](SOURCES[source](feed_of(kind, log)))
        start = trio.current_time()
        with trio.CancelScope() as scope:
            try:
                async with plan.open() as run:
                    await sees(run, how, scope)
            except (Boom, Aborted):
                pass
        return run.report, trio.current_time() - start

    report, lasted = run_virtual(main)

    assert report.cleanup_errors == ()
    assert log.opened >= 1
    assert log.closed == log.opened
    assert log.said >= log.opened - log.inside
    assert log.inside == 0 or how in WHILE_AT_WORK
    assert lasted <= 1 + 0.1 * 2 + 1e-9 + (1 if source == "a batch" else 0)


@pytest.mark.parametrize("campaign", [cancel_everywhere, drain_everywhere, explore_schedules])
@pytest.mark.parametrize("source", ["source", "restarting", "merge", "zip", "flat_map"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "bare nursery"])  # which never ends by itself
def test_at_whatever_moment(kind, source, campaign):
    """Under the campaigns, with feeds that end."""

    def make():
        async def feed():
            async with holding(kind):
                for number in range(4):
                    await trio.sleep(0.1)
                    yield number

        return SOURCES[source](feed).buffer(1)

    async def consume(run, lab):
        async for _item in run:
            lab.delivered += 1
            await trio.sleep(0.25)

    seeds = {"seeds": range(20)} if campaign is explore_schedules else {}
    assert campaign(Scenario(make, consume), **seeds).runs > 1


# ---- its own deadlines


def lease_of(lasts, log, *, fails=False):
    """Make a feed that takes out a lease, over and over, and gives items as long as it lasts."""

    async def feed():
        for lease in range(3):
            log.append(("begins", lease, trio.current_time()))
            with trio.fail_after(lasts) if fails else trio.move_on_after(lasts):
                for number in count():
                    yield lease, number
                    await trio.sleep(0.5)
        yield "end"

    return feed


@pytest.mark.parametrize("capacity", [1, 3])
@pytest.mark.parametrize("slow", [0, 0.3, 1, 2.5])
@pytest.mark.parametrize("lasts", [0.2, 0.5, 0.75, 1, 1.9, 4])
@pytest.mark.parametrize("source", ["source", "restarting", "flat_map", "concat", "a stage"])
def test_its_own_deadline_is_thrown_into_it(source, lasts, slow, capacity):
    """Whatever the library waits for then: the feed continues where its scope ends, and the run ends well."""
    log = []

    async def main():
        plan = SOURCES[source](lease_of(lasts, log))
        if source == "flat_map":
            plan = Pipeline.from_iterable("a").flat_map(lambda _: lease_of(lasts, log)(), concurrency=2)
        got = []
        async with plan.buffer(capacity).open() as run:
            async for item in run:
                got.append(item)
                await trio.sleep(slow)
        return got, run.report

    got, report = run_virtual(main)

    leases = [item for item in got if isinstance(item, tuple)]
    assert (report.outcome, report.cleanup_errors, got[-1]) == ("completed", (), "end")
    assert leases == sorted(leases)
    assert [lease for lease, number in leases if number == 0] == [0, 1, 2]
    begun = [at for _, _, at in log]
    if not slow:
        assert begun == pytest.approx([0, lasts, 2 * lasts])
    assert all(later >= before + lasts - 1e-9 for before, later in pairwise(begun))  # it is heard when there is room


RENEWED = ["source", "restarting", "flat_map", "flat_map in order", "inner pipelines", "concat"]


def renewed(given, lasts=1):
    """Return each item under a new lease."""

    async def feed():
        for number in count():
            with trio.move_on_after(lasts):
                given.append(number)
                yield number

    return feed


@pytest.mark.parametrize("source", RENEWED)
def test_deadlines_without_end_bring_no_items_without_end(source):
    """However many strike while nobody takes any: one that strikes then is heard when there is room again."""
    given, got = [], []

    async def main():
        plan = SOURCES[source](renewed(given)).buffer(1)
        nested = 2 * (16 + 1) if source == "inner pipelines" else 0  # of the two runs within, which no bound counts
        async with plan.open() as run:
            for _ in range(5):
                await trio.sleep(100)
                assert len(given) - len(got) <= plan.max_in_flight + nested
                got.append(await anext(run))
            run.abort()
        return run.report

    report = run_virtual(main)

    assert (report.outcome, report.cleanup_errors) == ("aborted", ())
    assert got[0] == 0


def leases_then_silence(items):
    async def feed():
        for number in range(items):
            with trio.move_on_after(1):
                yield number
        await trio.sleep_forever()

    return feed


@pytest.mark.parametrize("items", [1, 2, 3, 4])
@pytest.mark.parametrize("source", RENEWED)
def test_a_deadline_that_strikes_then_withholds_nothing(source, items):
    """A source that goes silent after it does not keep back what it gave before."""

    async def main():
        plan = SOURCES[source](leases_then_silence(items))
        if source.startswith("flat_map"):
            plan = Pipeline.from_iterable("a").flat_map(lambda _: leases_then_silence(items)(), concurrency=1)
        async with plan.buffer(1).open() as run:
            await trio.sleep(100)
            with trio.move_on_after(50):
                return [await anext(run) for _ in range(items)], trio.current_time()
        return "withheld", 0

    got, seconds = run_virtual(main)

    first = [0] if source == "concat" else []  # of what is before it
    assert got == [*first, *range(items)][:items] or source == "inner pipelines"
    assert seconds == 100


ENDS_EARLY = {
    "take": lambda plan: plan.take(2),
    "take_while": lambda plan: plan.take_while(lambda item: item < 2),
    "failure": lambda plan: plan.map(lambda item: 6 // (2 - item)),
    "of children": lambda plan: plan.flat_map(lambda item: [item] * 3).take(4),
}


@pytest.mark.parametrize("end", ENDS_EARLY)
@pytest.mark.parametrize("source", ["source", "restarting"])
def test_a_stream_that_is_over_waits_for_no_source_whose_deadline_struck(source, end):
    """Nor is one more item taken from it."""

    async def main():
        plan = ENDS_EARLY[end](SOURCES[source](leases_then_silence(5))).buffer(1)
        async with plan.open() as run:
            await trio.sleep(100)
            try:
                async for _item in run:
                    pass
            except ZeroDivisionError:
                pass
            return trio.current_time(), run.report.taken

    seconds, taken = run_virtual(main)

    assert (seconds, taken) == (100, 3 if end in ("take_while", "failure") else 2)


@pytest.mark.parametrize("capacity", [1, 64])
@pytest.mark.parametrize("source", ["source", "restarting", "concat"])
def test_a_paused_source_is_asked_for_nothing_when_its_deadline_strikes(source, capacity):
    """At most the item that it was asked for comes during the pause."""

    async def feed():
        for number in count():
            with trio.move_on_after(1):
                await trio.sleep(0.5)
                yield number

    async def main():
        async with SOURCES[source](feed).buffer(capacity).open() as run:
            await trio.sleep(0.6)
            run.pause()
            before = run.report.taken
            await trio.sleep(40)
            during = run.report.taken - before
            run.resume()
            return during, [await anext(run) for _ in range(4)]

    during, got = run_virtual(main)

    assert during <= 1
    assert got == ([0, 0, 1, 2] if source == "concat" else [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("source", "how"),
    [
        (source, how)
        for source in RENEWED
        for how in ("drain", "abort", "leave", "cancel", "pause")
        if how != "drain" or source in ("source", "restarting", "concat")  # inner streams go on in a drain
    ],
)
def test_a_stop_is_heard_while_its_deadlines_wait(source, how):
    """And a cancellation from outside, and a pause: whatever comes, it comes at once."""

    async def main():
        with trio.CancelScope() as scope:
            async with SOURCES[source](renewed([])).buffer(1).open() as run:
                await trio.sleep(10)
                began = trio.current_time()
                if how == "drain":
                    run.drain_nowait()
                    async for _item in run:
                        await trio.lowlevel.checkpoint()
                elif how == "abort":
                    run.abort()
                elif how == "cancel":
                    scope.cancel()
                    await trio.sleep_forever()
                elif how == "pause":
                    run.pause()
                    await trio.sleep(10)
                    run.resume()
                    began = trio.current_time()
                    for _ in range(5):
                        await anext(run)
        return run.report, trio.current_time() - began

    report, seconds = run_virtual(main)

    outcome = {"drain": "drained", "abort": "aborted", "cancel": "cancelled"}.get(how, "left")
    assert (report.outcome, report.error, report.cleanup_errors) == (outcome, None, ())
    assert seconds == 0


@pytest.mark.parametrize("slow", [0, 1, 5])
@pytest.mark.parametrize("lasts", [0.2, 0.75, 3])
@pytest.mark.parametrize("source", ["source", "flat_map", "merge", "a stage", "inner pipelines"])
def test_what_it_raises_then_is_its_failure(source, lasts, slow):
    """`fail_after`: a `TooSlowError` in the stream, behind all that came before it."""

    async def main():
        got = []
        with pytest.raises(trio.TooSlowError) as caught:
            async with SOURCES[source](lease_of(lasts, [], fails=True)).buffer(2).open() as run:
                async for item in run:
                    got.append(item)
                    await trio.sleep(slow)
        return got, run.report, caught.value

    got, report, met = run_virtual(main)

    assert (report.outcome, report.error) == ("failed", met)
    others = (trio.TooSlowError,) if source in ("merge", "inner pipelines", "flat_map") else ()
    assert all(isinstance(error, others) for error in report.cleanup_errors)  # of the other feed
    assert (0, 0) in got


@pytest.mark.parametrize("pause", [0, 3])
def test_it_strikes_while_the_run_is_paused(pause):
    """What the feed gives then may still come; the run continues after `resume`."""
    log = []

    async def main():
        got = []
        async with Pipeline.from_async_iterable(lease_of(1, log)).open() as run:
            got.append(await run.receive())
            run.pause()
            await trio.sleep(pause)
            run.resume()
            got += [item async for item in run]
        return got, run.report

    got, report = run_virtual(main)

    assert (report.outcome, report.cleanup_errors, got[-1]) == ("completed", (), "end")


STRAY = r"^Cancelled was raised, though no scope around it was cancelled"


class Clumsy:
    """An async iterable that opens a scope in one item and leaves it in a later one, without being a generator."""

    def __init__(self):
        self.number = 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        await trio.lowlevel.checkpoint()
        self.number += 1
        if self.number == 1:
            self.scope = trio.move_on_after(1)
            self.scope.__enter__()
        return self.number

    async def aclose(self):
        self.scope.__exit__(None, None, None)


def test_what_cannot_be_thrown_into_a_source_is_its_failure():
    """It is not a generator, so it cannot hear of it: the run fails, and says in which source."""

    async def main():
        got = []
        with pytest.raises(RuntimeError, match=STRAY) as caught:
            async with Pipeline.from_async_iterable(Clumsy()).buffer(2).open() as run:
                async for item in run:
                    got.append(item)
                    await trio.sleep(0.6)
        return got, run.report, caught.value

    got, report, met = run_virtual(main)

    assert got == [1, 2, 3, 4]
    assert (report.outcome, isinstance(met.__cause__, trio.Cancelled), report.cleanup_errors) == ("failed", True, ())
    assert met.__notes__ == ["in stage 'async_iterable', item 4"]


@pytest.mark.parametrize("kind", ["nursery", "scope", "deadline"])  # what shields itself is cut off by nobody
def test_a_good_bye_without_end_is_cut_off(kind):
    """Closing has `cleanup_timeout` seconds, and is then reported, once."""

    async def feed():
        async with holding(kind):
            try:
                for number in count():
                    yield number
            finally:
                with trio.CancelScope():
                    await trio.sleep(60)

    async def main():
        async with Pipeline.from_async_iterable(feed).open(cleanup_timeout=2) as run:
            await run.receive()
            await trio.sleep(1)
        return run.report, trio.current_time()

    report, now = run_virtual(main)

    assert now == 3
    assert [type(error) for error in report.cleanup_errors] == [trio.TooSlowError]


def test_a_sync_generator_that_holds_a_scope_ends_no_run_in_silence():
    """Its deadline strikes in the stage: that is a failure of the source, never the end of the stream."""

    def feed():
        with trio.move_on_after(1):  # noqa: ASYNC100  # it has no await of its own: that is the case
            yield from range(100)

    async def main():
        with pytest.raises(RuntimeError, match=STRAY) as caught:
            async with Pipeline.from_iterable(feed).buffer(1).open() as run:
                async for _item in run:
                    await trio.sleep(0.3)
        return run.report.outcome, isinstance(caught.value.__cause__, trio.Cancelled)

    assert run_virtual(main) == ("failed", True)


@pytest.mark.parametrize("how", ["drain", "abort", "leave"])
@pytest.mark.parametrize("steps", range(6))
@pytest.mark.parametrize("source", ["source", "restarting", "concat", "flat_map", "a stage"])
def test_its_own_deadline_and_a_stop_may_meet(source, steps, how):
    """Within a few steps of a task of each other: the deadline is the source's affair, the stop is the run's."""

    async def leased():
        with trio.move_on_after(5):
            for number in count():
                yield number

    async def main():
        plan = SOURCES[source](leased).buffer(1)
        error = None
        try:
            async with plan.open() as run:

                async def at_five():
                    await trio.sleep(5)
                    for _ in range(steps):
                        await trio.lowlevel.checkpoint()
                    if how == "drain":
                        run.drain_nowait()
                    elif how == "abort":
                        run.abort()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(at_five)
                    await trio.sleep(5 if how == "leave" else 6)
                    for _ in range(steps if how == "leave" else 0):
                        await trio.lowlevel.checkpoint()
                if how != "leave":
                    async for _item in run:
                        pass
        except Aborted as met:
            error = met
        return run.report, error

    report, error = run_virtual(main)

    assert (
        report.outcome
        in {"drain": ("drained", "completed"), "abort": ("aborted",), "leave": ("left", "completed")}[how]
    )
    assert (error is not None) == (how == "abort")
    assert (report.error, report.cleanup_errors) == (None, ())
