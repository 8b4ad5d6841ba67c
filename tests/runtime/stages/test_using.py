"""`Pipeline.using`: a resource is open for as long as anything of the run may use it, whatever the end.

Mutants that die here: a resource closed with the last item of its source, or when that was put into a link; one that is
closed before what is given of it, or in another task; what is given left open if nobody asked it; a closing that is not
shielded, or not told of an error; an opening that a drain has to wait for; a heartbeat whose failure is lost, or
overtakes the items before it.
"""

import json
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial

import pytest
import trio

from funcpipe_trio import Aborted, OnError, Pipeline, Retry, Step, concat, fair_merge, merge, zip_pipelines
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, assert_stages_balance, connection, in_virtual_time, nap, outcome_of


class File:
    """A resource that must be open when it is read."""

    def __init__(self, log=None):
        self.log = [] if log is None else log
        self.now = self.opened = 0

    @asynccontextmanager
    async def open(self, hold=connection):
        self.log.append("open")
        self.opened, self.now, task = self.opened + 1, self.now + 1, trio.lowlevel.current_task()
        try:
            async with hold():
                yield self
        finally:
            assert trio.lowlevel.current_task() is task
            await trio.sleep(0.5)
            self.now -= 1
            self.log.append("close")

    @property
    def is_open(self):
        return self.now > 0

    async def pages(self):
        try:
            for number in range(6):
                await trio.sleep(1)
                yield partial(self.read, number)
        finally:
            self.log.append("pages closed")

    async def read(self, number):
        await trio.sleep(2)
        assert self.is_open
        return number


async def call(page):
    return await page()


async def used(page):
    """Use the resource, also while cancelled."""
    try:
        return await page()
    finally:
        with trio.CancelScope(shield=True):
            await page()


def source(file, **how):
    return Pipeline.using(file.open, File.pages, **how)


# ---- for how long it is open

ENDS = {
    "completed": None,
    "left": lambda run, scope: True,
    "drained": lambda run, scope: run.drain_nowait(),
    "aborted": lambda run, scope: run.abort(),
    "cancelled": lambda run, scope: scope.cancel(),
}
PLANS = {
    "a call": lambda line: line.map(used),
    "calls": lambda line: line.map(used, concurrency=3),
    "calls, unordered": lambda line: line.map(used, concurrency=3, ordered=False),
    "behind links": lambda line: line.buffer(3).tap(lambda page: None).batch(2).unbatch().map(used, concurrency=2),
    "behind a batch": lambda line: line.batch(2, max_delay=5).map(lambda batch: used(batch[0]), concurrency=2),
    "in a concat": lambda line: concat(line, line).map(used, concurrency=2),
    "in a zip": lambda line: zip_pipelines(line, line).map(lambda pair: used(pair[0]), concurrency=2),
    "in a merge": lambda line: merge(line, line.take(2)).map(used, concurrency=2),
    "in a fair merge": lambda line: fair_merge({"a": line, "b": line.map(lambda page: page)}).map(used),
    "in a branch": lambda line: line.broadcast({"a": lambda p: p.map(used), "b": lambda p: p.map(used)}),
    "in a flat_map": lambda line: Pipeline.from_iterable("ab").flat_map(lambda _: line.map(used), concurrency=2),
    "in another": lambda line: Pipeline.using(nullcontext, lambda _: line.map(used, concurrency=2)),
    "by fair_by": lambda line: line.fair_by(lambda page: 0, max_keys=1).map(used, concurrency=2),
    "taken": lambda line: line.map(used, concurrency=3).take(2),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", PLANS)
def test_it_is_open_until_its_last_use(name, end):
    """Every call that was given something of it finds it open, also one that cleans up; then it is closed, once."""
    file = File()

    async def main():
        with trio.CancelScope() as scope:
            async with PLANS[name](source(file)).open() as run:
                try:
                    async for _ in run:
                        await trio.sleep(0.25)
                        assert file.is_open or name == "in a flat_map"  # each of whose runs is over with its last item
                        if ENDS[end] is not None and ENDS[end](run, scope):
                            break
                except Aborted:
                    pass
        assert not file.is_open
        return run.report

    report = run_virtual(main)

    assert file.log.count("close") == file.log.count("open") == file.opened
    assert report.outcome == end or (name == "taken" and end == "drained")
    assert report.cleanup_errors == ()
    assert_stages_balance(report)


@in_virtual_time
async def test_the_last_item_is_the_consumers_until_it_asks_for_more():
    file = File()
    async with source(file).open() as run:
        for _ in range(6):
            page = await run.receive()
        await trio.sleep(100)
        assert await page() == 5
        assert "pages closed" in file.log
        with pytest.raises(trio.EndOfChannel):
            await run.receive()
        await trio.sleep(1)
        assert not file.is_open


@in_virtual_time
async def test_the_block_is_left_when_it_is_closed():
    file = File()
    async with source(file).open() as run:
        page = await run.receive()
        assert await page() == 0

    assert file.log == ["open", "pages closed", "close"]


@pytest.mark.parametrize(
    "consume",
    ["run", "collect", "count", "first", lambda plan: plan.fold(lambda state, item: item, 0)],
    ids=["run", "collect", "count", "first", "fold"],
)
def test_without_a_consumer_it_is_closed_when_the_run_is_over(consume):
    file = File()
    plan = source(file).map(call, concurrency=2)
    run_virtual(getattr(plan, consume) if isinstance(consume, str) else partial(consume, plan))

    assert file.log == ["open", "pages closed", "close"]


def test_each_run_opens_its_own():
    opened = []

    @contextmanager
    def open_():
        opened.append([])
        mine = opened[-1]
        yield mine
        mine.append("closed")

    plan = Pipeline.using(open_, lambda mine: [mine])

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(plan.run)

    run_virtual(main)

    assert opened == [["closed"]] * 3


def test_a_source_that_never_starts_opens_nothing():
    file = File()
    run_virtual(concat(Pipeline.from_iterable([1]), source(file)).take(1).collect)

    assert file.log == []


# ---- opening


@pytest.mark.parametrize("kind", ["sync", "async", "awaited", "an object of both"])
def test_open_may_give_any_context_manager(kind):
    class Both:
        def __enter__(self):
            raise AssertionError("it has an async form")

        def __exit__(self, *_error):
            raise AssertionError("it has an async form")

        async def __aenter__(self):
            return "ab"

        async def __aexit__(self, *_error):
            pass

    async def awaited():
        await trio.lowlevel.checkpoint()
        return nullcontext("ab")

    opens = {
        "sync": lambda: contextmanager(lambda: iter(["ab"]))(),
        "async": lambda: nullcontext("ab"),
        "awaited": awaited,
        "an object of both": Both,
    }
    assert run_virtual(Pipeline.using(opens[kind], list).collect) == ["a", "b"]


def fail(*_args):
    raise Boom


async def fail_later():
    await trio.sleep(1)
    raise Boom


class Broken:
    def __enter__(self):
        raise Boom


@pytest.mark.parametrize("open_", [fail, fail_later, lambda: asynccontextmanager(lambda: failing())()])
def test_an_error_of_opening_is_one_of_the_source(open_):
    seen = outcome_of(Pipeline.using(open_, list, name="rows"))

    assert type(seen.error) is Boom
    assert seen.error.__notes__ == ["in stage 'rows', item 0"]
    assert seen.report.outcome == "failed"
    assert seen.report.cleanup_errors == ()


async def failing():
    await fail_later()
    yield


@pytest.mark.parametrize(
    ("open_", "fn", "said"),
    [
        (
            lambda: 3,
            list,
            "'rows' opened an int, which is no context manager\nUse a function with @asynccontextmanager, say.",
        ),
        (nullcontext, lambda _: 3, "'rows' gave an int, which is not iterable, sync or async"),
        (
            nullcontext,
            lambda _: fail_later(),
            "'rows' is not async, but returned something to await\n"
            "Use a callable that returns an iterable or async iterable at once.",
        ),
    ],
)
def test_what_is_given_wrongly_is_an_error_of_the_stream(open_, fn, said):
    error = outcome_of(Pipeline.using(open_, fn, name="rows")).error

    assert isinstance(error, TypeError)
    assert str(error) == said


@pytest.mark.parametrize("end", ["drain", "abort", "leave", "cancel", "take"])
def test_no_end_waits_for_an_opening(end):
    """It is cancelled there, as an await of the source."""
    log = []

    async def opening():
        try:
            await trio.sleep_forever()
        finally:
            log.append(trio.current_time())

    async def main():
        with trio.CancelScope() as scope:
            line = Pipeline.using(opening, list)
            plan = merge(line, Pipeline.from_iterable("a")).take(1) if end == "take" else line
            async with plan.open() as run:
                await trio.sleep(1)
                if end == "drain":
                    run.drain_nowait()
                elif end == "abort":
                    run.abort()
                elif end == "cancel":
                    scope.cancel()
                elif end == "take":
                    assert await run.receive() == "a"
                    with pytest.raises(trio.EndOfChannel):
                        await run.receive()
        return run.report

    report = run_virtual(main)

    assert log == [0 if end == "take" else 1]
    assert report.error is None
    assert report.cleanup_errors == ()


@pytest.mark.parametrize("end", ["drain", "abort"])
def test_what_opens_in_spite_of_an_end_is_closed(end):
    file = File()

    @asynccontextmanager
    async def stubborn():
        with trio.CancelScope(shield=True):
            await trio.sleep(3)
        async with file.open():
            yield file

    async def main():
        async with Pipeline.using(stubborn, File.pages).open() as run:
            await trio.sleep(1)
            run.drain_nowait() if end == "drain" else run.abort()
        return trio.current_time()

    assert run_virtual(main) == 3.5
    assert file.log == ["open", "close"]


# ---- closing


def test_closing_is_shielded_and_limited():
    log = []

    @asynccontextmanager
    async def slow(seconds):
        try:
            yield "a"
        finally:
            await trio.sleep(seconds)
            log.append("done")

    async def main(seconds):
        with trio.move_on_after(1):
            async with Pipeline.using(partial(slow, seconds), list).open(cleanup_timeout=4) as run:
                async for _ in run:
                    await trio.sleep_forever()
        return trio.current_time(), run.report

    now, report = run_virtual(main, 3)
    assert (now, log, report.cleanup_errors) == (4, ["done"], ())

    now, report = run_virtual(main, 9)
    assert (now, log) == (5, ["done"])
    assert [str(error) for error in report.cleanup_errors] == ["cleanup in stage 'list' took more than 4 s"]


class Told:
    """A context manager that notes what leaving it is told of, and answers."""

    def __init__(self, answer=None, act=lambda: None):
        self.answer, self.act = answer, act
        self.errors = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, kind, error, traceback):
        assert kind is (None if error is None else type(error))
        self.errors.append(error)
        await trio.lowlevel.checkpoint()
        self.act()
        return self.answer


async def breaks(_):
    yield "a"
    raise Boom


@pytest.mark.parametrize("answer", [None, True])
def test_leaving_is_told_of_the_error_of_the_source_and_cannot_take_it_back(answer):
    told = Told(answer)
    seen = outcome_of(Pipeline.using(lambda: told, breaks))

    assert seen.items == ["a"]
    assert type(seen.error) is Boom
    assert told.errors == [seen.error]
    assert seen.report.cleanup_errors == ()


@pytest.mark.parametrize("open_", [trio.open_nursery, connection, trio.CancelScope])
@pytest.mark.parametrize("error", [Boom(), ExceptionGroup("two", [Boom(), OSError(3)])], ids=["one", "a group"])
def test_one_that_raises_the_error_again_is_no_other_error(open_, error):
    """Also in a group, or as a copy of one, as a nursery raises it."""

    async def fails(_):
        yield "a"
        raise error

    seen = outcome_of(Pipeline.using(open_, fails))

    assert seen.error is error
    assert set(seen.error.__notes__) == {"in stage 'fails', item 1"}
    assert seen.report.cleanup_errors == ()


def test_an_error_of_a_later_stage_is_not_the_sources():
    told = Told()
    seen = outcome_of(Pipeline.using(lambda: told, lambda _: "ab").map(fail))

    assert type(seen.error) is Boom
    assert told.errors == [None]


def test_a_cancelled_run_tells_it():
    told = Told()

    async def main():
        with trio.move_on_after(1):
            await Pipeline.using(lambda: told, lambda _: Script()).run()

    run_virtual(main)

    assert [type(error) for error in told.errors] == [trio.Cancelled]


class Script:
    def __aiter__(self):
        return self

    async def __anext__(self):
        await trio.sleep_forever()


@pytest.mark.parametrize("fn", [lambda _: "ab", breaks])
def test_an_error_of_leaving_is_one_of_cleanup(fn):
    def worse():
        raise OSError(28)

    seen = outcome_of(Pipeline.using(lambda: Told(act=worse), fn, name="rows").map(nap))

    assert [type(error) for error in seen.report.cleanup_errors] == [OSError]
    if fn is breaks:
        assert type(seen.error) is Boom
        assert "then cleanup in stage 'rows' raised OSError: 28" in seen.error.__notes__
    else:
        assert seen.items == ["a", "b"]
        assert seen.error is None
        assert seen.report.outcome == "completed"


# ---- scopes and nurseries that it holds open


@asynccontextmanager
async def beating(at):
    """A connection whose heartbeat fails."""

    async def beat():
        await trio.sleep(at)
        raise Boom

    async with trio.open_nursery() as nursery:
        nursery.start_soon(beat)
        yield


async def each_second(_):
    for number in range(6):
        await trio.sleep(1)
        yield number


def slowly(_):
    return Pipeline.from_async_iterable(partial(each_second, None))


@pytest.mark.parametrize("fn", [each_second, slowly])
@pytest.mark.parametrize("slow", [0, 2])
def test_a_heartbeat_that_fails_is_the_error_of_the_source(fn, slow):
    """Also if it waits for room then; the items before it are delivered, and the error is the user's own group."""
    seen = outcome_of(Pipeline.using(partial(beating, 3.5), fn, name="rows").buffer(1), slow=slow)
    came = 2 if slow and fn is each_second else 3

    assert seen.items == [*range(came)]
    assert isinstance(seen.error, ExceptionGroup)
    assert [type(error) for error in seen.error.exceptions] == [Boom]
    assert seen.error.__notes__ == [f"in stage 'rows', item {came}"]
    assert seen.report.cleanup_errors == ()
    assert_stages_balance(seen.report)


def test_one_that_fails_when_all_was_given_is_an_error_of_cleanup():
    seen = outcome_of(Pipeline.using(partial(beating, 8), each_second).map(nap), slow=3)

    assert seen.items == [*range(6)]
    assert seen.error is None
    assert [type(error) for error in seen.report.cleanup_errors] == [ExceptionGroup]


@pytest.mark.parametrize("slow", [0, 2])
def test_a_deadline_of_its_own_ends_the_stream_as_it_ends_a_block(slow):
    plan = Pipeline.using(lambda: trio.move_on_after(3.5), each_second).buffer(1)
    seen = outcome_of(plan, slow=slow)

    assert seen.items == [0, 1] if slow else [0, 1, 2]
    assert seen.error is None
    assert seen.report.outcome == "completed"


def test_one_that_is_too_slow_is_the_error_of_the_source():
    seen = outcome_of(Pipeline.using(lambda: trio.fail_after(3.5), each_second))

    assert seen.items == [0, 1, 2]
    assert type(seen.error) is trio.TooSlowError


class Forgetful:
    """Does not tell its scope of the cancellation that the scope caused."""

    def __enter__(self):
        self.scope = trio.CancelScope(deadline=3.5)
        self.scope.__enter__()

    def __exit__(self, *_error):
        self.scope.__exit__(None, None, None)


def test_a_cancellation_that_it_caused_and_does_not_handle_is_the_error_of_the_source():
    """What was given so far must not pass for all."""
    seen = outcome_of(Pipeline.using(Forgetful, each_second))

    assert seen.items == [0, 1, 2]
    assert isinstance(seen.error, RuntimeError)
    assert isinstance(seen.error.__cause__, trio.Cancelled)


class Cursor:
    """What a resource gives: open from the beginning, before anybody asks for an item."""

    def __init__(self, file):
        self.file = file

    def __iter__(self):
        return self

    def __next__(self):
        return 0

    def close(self):
        assert self.file.is_open
        self.file.log.append("cursor closed")


class AsyncCursor:
    def __init__(self, file):
        self.file = file

    def __aiter__(self):
        return self

    async def __anext__(self):
        await trio.sleep(1)
        return 0

    async def aclose(self):
        await trio.sleep(1)
        assert self.file.is_open
        self.file.log.append("cursor closed")


class NoObject:
    """An operation in the stage of the source that fails before an item comes."""

    def __init__(self):
        raise Boom

    def push(self, item):
        raise AssertionError


@pytest.mark.parametrize("cursor", [Cursor, AsyncCursor])
@pytest.mark.parametrize("end", ["leave", "fail"])
def test_what_is_given_is_closed_even_if_it_was_never_asked_for_an_item(cursor, end):
    async def main():
        file = File()
        plan = Pipeline.using(file.open, cursor)
        plan = plan.buffer(0) if end == "leave" else plan.stateful(NoObject)
        try:
            async with plan.open() as run:
                await trio.sleep(5)
                if end == "fail":
                    await run.receive()
        except Boom:
            assert end == "fail"
        assert run.report.taken == 0
        assert run.report.cleanup_errors == ()
        return file.log

    assert run_virtual(main) == ["open", "cursor closed", "close"]


def test_scopes_of_the_generator_lie_within():
    log = []

    @asynccontextmanager
    async def outer():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            try:
                yield
            finally:
                log.append("outer")
                nursery.cancel_scope.cancel()

    async def inner(_):
        with trio.CancelScope():
            async with connection():
                try:
                    for number in range(9):
                        yield number
                finally:
                    log.append("inner")

    async def main():
        async with Pipeline.using(outer, inner).map(nap).open() as run:
            async for number in run:
                if number == 3:
                    break

    run_virtual(main)

    assert log == ["inner", "outer"]


# ---- one task, one context

HERE = ContextVar("HERE", default="nowhere")


def test_one_task_opens_iterates_and_closes_in_the_openers_context():
    seen = []

    def note(what):
        seen.append((what, HERE.get(), trio.lowlevel.current_task()))

    @asynccontextmanager
    async def open_():
        note("open")
        HERE.set("inside")
        yield
        note("close")

    async def rows(_):
        note("rows")
        yield 1

    async def main():
        HERE.set("opener")
        await Pipeline.using(open_, rows).run()

    run_virtual(main)

    assert [(what, here) for what, here, _ in seen] == [("open", "opener"), ("rows", "inside"), ("close", "inside")]
    assert len({task for *_, task in seen}) == 1


# ---- a pipeline of a resource


def inside(calls):
    def pages(file):
        return Pipeline.from_async_iterable(file.pages).map(calls, concurrency=2)

    return pages


def test_a_pipeline_runs_within():
    file = File()
    assert run_virtual(Pipeline.using(file.open, inside(used)).map(nap).collect) == [*range(6)]
    assert file.log == ["open", "pages closed", "close"]


def test_a_drain_drains_it():
    """What its source gave is delivered, as of any source."""
    file = File()

    async def main():
        got = []
        async with Pipeline.using(file.open, inside(used)).open() as run:
            async for number in run:
                got.append(number)
                if number == 1:
                    run.drain_nowait()
        return got, run.report

    got, report = run_virtual(main)

    assert got == [0, 1, 2, 3, 4, 5]  # it was in the last item
    assert report.outcome == "drained"
    assert report.discarded == 0


def test_what_it_gives_up_is_told_under_both_names():
    file, told = File(), []

    async def main():
        plan = Pipeline.using(file.open, inside(used), name="rows")
        async with plan.open(on_discard=lambda item, stage, reason: told.append((stage, reason))) as run:
            await run.receive()
        return run.report

    report = run_virtual(main)

    assert set(told) == {("rows > pages", "not needed"), ("rows > used", "not needed")}
    assert report.discarded == len(told)
    assert_stages_balance(report)


def test_its_failure_is_the_sources():
    seen = outcome_of(Pipeline.using(nullcontext, lambda _: Pipeline.from_iterable("ab").map(fail), name="rows"))

    assert type(seen.error) is Boom
    assert seen.error.__notes__ == ["in stage 'fail', item 0", "in stage 'rows', item 0"]
    assert seen.report.cleanup_errors == ()


def test_a_pause_holds_it_back():
    async def main():
        got = []
        plan = Pipeline.using(nullcontext, lambda _: Pipeline.from_iterable(range(99)).buffer(1)).buffer(1)
        async with plan.open() as run:
            got.append(await run.receive())
            run.pause()
            with trio.move_on_after(50):
                async for number in run:
                    got.append(number)
            before = len(got)
            run.resume()
            async for number in run:
                got.append(number)
        return before, got

    before, got = run_virtual(main)

    assert before < 9
    assert got == [*range(99)]


# ---- on top of it


class Cursor:
    """Holds something open from the moment it is made."""

    def __init__(self, log):
        self.log = log
        log.append("cursor opened")

    def __aiter__(self):
        return self

    async def __anext__(self):
        await trio.sleep(1)
        return 1

    async def aclose(self):
        self.log.append("cursor closed")


class SyncCursor:
    def __init__(self, log):
        self.log = log
        log.append("cursor opened")

    def __iter__(self):
        return self

    def __next__(self):
        raise AssertionError("nobody asks")

    def close(self):
        self.log.append("cursor closed")


class Unmade:
    def __init__(self):
        raise Boom

    def push(self, item):
        raise AssertionError("it was not made")


async def paused_and_left(line):
    async with line.open() as run:
        run.pause()
        await trio.sleep(1)


async def paused_and_drained(line):
    async with line.open() as run:
        run.pause()
        await trio.sleep(1)
        run.drain_nowait()
        async for _ in run:
            pass


async def failed_before_its_first_item(line):
    with pytest.raises(Boom):
        await line.stateful(Unmade).run()


@pytest.mark.parametrize("end", [paused_and_left, paused_and_drained, failed_before_its_first_item])
@pytest.mark.parametrize("cursor", [Cursor, SyncCursor])
def test_what_is_given_is_closed_though_it_was_never_asked(cursor, end):
    file = File()
    run_virtual(end, Pipeline.using(file.open, lambda file: cursor(file.log)))
    assert file.log == ["open", "cursor opened", "cursor closed", "close"]


def test_a_failure_that_a_policy_deals_with_does_not_close_it():
    file = File()
    plan = source(file).map(
        Step(call).then(Step(second_fails())).retry(Retry(1)), concurrency=2, on_error=OnError.skip()
    )
    assert run_virtual(plan.collect) == [0, 2, 3, 4, 5]
    assert file.log == ["open", "pages closed", "close"]


def second_fails():
    async def check(number):
        if number == 1:
            raise Boom
        return number

    return check


def test_a_plan_shows_it():
    plan = Pipeline.using(nullcontext, list, name="rows")
    written = json.loads(plan.describe("json"))

    assert plan.describe().splitlines()[1] == "source rows: list using nullcontext"
    (operation,) = written["line"]["stages"][0]["operations"]
    assert operation["source"] == "using"
    assert operation["functions"] == {"origin": "builtins:list", "open": "contextlib:nullcontext"}
