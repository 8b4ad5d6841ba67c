"""Streams that end at an item, a time or an event: which item is the last, and what is left of the rest?

All in virtual time. Mutants that die here: an item is taken, or a call made, behind the last one; an item at the very
instant passes as the scheduler likes; the wait for a function outlives its run, or is shared by two; what is upstream
goes on while the end waits for room; an error of the function overtakes items, or is lost.
"""

import pytest
import trio

from funcpipe_trio import Pipeline, concat, merge, zip_pipelines
from funcpipe_trio.testing import Probe, Script, run_virtual

from .test_timing import played, script, under_schedules


async def never():
    await trio.sleep_forever()


def after(seconds, error=None):
    async def wait():
        await trio.sleep(seconds)
        if error is not None:
            raise error

    return wait


# ---- take_until


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("capacity", [1, 16])
def test_the_item_that_says_so_is_the_last_and_no_call_is_made_behind_it(waits, capacity):
    """Also while its consumer is slow: no further item is given to the function."""
    asked = []

    def is_last(item):
        asked.append(item)
        return item == "c"

    async def is_last_in_time(item):
        await trio.sleep(0.5)
        return is_last(item)

    feed = Script("(abcdef)|")
    line = Pipeline.from_async_iterable(feed).take_until(is_last_in_time if waits else is_last).buffer(capacity)
    log, error, _, probe = played(line, pause=5)

    assert ([item for _, item in log], error, asked) == ([*"abc"], None, [*"abc"])
    assert probe.run.report.outcome == "completed"
    assert {reason for *_, reason in probe.discarded} <= {"not needed"}


@pytest.mark.parametrize("waits", [False, True])
def test_a_sync_source_is_advanced_to_the_last_item_only(waits):
    numbers = iter(range(10))

    async def is_two(item):
        return item == 2

    line = Pipeline.from_iterable(numbers)
    line = line.buffer(1).take_until(is_two) if waits else line.take_until(lambda item: item == 2)

    assert run_virtual(line.collect) == [0, 1, 2]
    assert next(numbers) <= (5 if waits else 3)


def test_an_item_that_fails_is_not_the_last_but_the_end():
    def is_last(item):
        return item == 2 or 1 / (1 - item) > 9

    with pytest.raises(ZeroDivisionError) as caught:
        run_virtual(Pipeline.from_iterable([3, 1, 2]).take_until(is_last).collect)
    assert caught.value.__notes__ == ["in stage 'is_last', item 1"]


# ---- take_for


def test_a_stream_ends_when_its_time_is_over_even_in_silence():
    """From the start of the run; what comes at that instant is too late."""
    feed = Script("ab------------c|")
    log, error, ended, probe = played(Pipeline.from_async_iterable(feed).take_for(5))

    assert (log, error, ended) == ([(0, "a"), (1, "b")], None, 5)
    assert (feed.closed, feed.cancelled, probe.run.report.outcome) == (1, True, "completed")

    def main():
        return script("abcdef|").map(lambda item: item).take_for(3).collect()

    assert under_schedules(main) == [[*"abc"]] * 40


def test_what_nobody_took_in_time_is_not_needed():
    """The time of a slow consumer counts, and so does a pause; upstream stops at once, the end waits for room."""
    feed = Script("abcdefgh|")
    line = Pipeline.from_async_iterable(feed).buffer(1).take_for(2.5).buffer(1)

    async def main():
        async with Probe(line) as probe:
            await trio.sleep(2.5)
            await trio.testing.wait_all_tasks_blocked()
            assert feed.closed == 1
            await trio.sleep(5)
            await probe.expect("a")
            await probe.expect_end()
        return probe

    probe = run_virtual(main)
    assert [(item, reason) for item, _, reason in probe.discarded] == [("b", "not needed")]

    async def paused():
        async with script("abcdefgh|").take_for(3.5).open() as run:
            run.pause()
            await trio.sleep(3)
            run.resume()
            return [item async for item in run]

    assert len(run_virtual(paused)) == 1


# ---- stop_when


def test_nothing_passes_once_an_event_is_set():
    """Whoever sets it: a function upstream, one downstream in the same burst, the consumer; under every schedule."""

    async def main():
        event, seen = trio.Event(), []
        line = Pipeline.from_iterable(range(100)).buffer(50).stop_when(event)
        line = line.tap(lambda item: event.set() if item == 7 else None)
        async with line.open() as run:
            seen = [item async for item in run]
        again = await line.collect()
        return seen, again, run.report.outcome

    assert under_schedules(main) == [([*range(8)], [], "completed")] * 40


def test_an_event_ends_a_silent_stream():
    async def main():
        event, feed = trio.Event(), Script("a---------b|")
        async with Probe(Pipeline.from_async_iterable(feed).stop_when(event)) as probe:
            await probe.expect("a")
            await trio.sleep(3)
            event.set()
            await probe.expect_end()
            assert trio.current_time() == 3
        assert feed.closed == 1

    run_virtual(main)


def test_each_run_waits_anew_and_its_wait_ends_with_it():
    """A function is called by each run; what still waits is cancelled when the stream ends otherwise."""
    log = []

    async def stop():
        log.append("begins")
        try:
            await trio.sleep(2.5)
            log.append("stops")
        except trio.Cancelled:
            log.append("cancelled")
            raise

    plan = script("abcdef|").stop_when(stop)

    async def main():
        assert await plan.collect() == [*"abc"]
        assert await plan.take(1).collect() == ["a"]
        assert await plan.first() == "a"
        async with plan.open() as run:
            await run.receive()
            run.abort()
        async with plan.open() as run:
            await run.receive()
            run.drain_nowait()
            assert [item async for item in run] == []
        with trio.move_on_after(1):
            await plan.run()

    run_virtual(main)
    assert log == ["begins", "stops", *["begins", "cancelled"] * 5]


def test_an_error_of_the_function_is_a_failure_behind_what_came():
    fault = OSError("no more")
    log, error, ended, probe = played(script("abcdef|").stop_when(after(2.5, fault), name="stop"))

    assert (log, error, ended) == ([(0, "a"), (1, "b"), (2, "c")], fault, 2.5)
    assert fault.__notes__ == ["in stage 'stop'"]
    assert (probe.run.report.outcome, probe.run.report.failed) == ("failed", 0)


def test_an_error_that_comes_too_late_is_one_of_cleanup():
    """When the stream has ended, or where the end stands before the failure."""
    fault = OSError("too late")

    async def stop():
        try:
            await trio.sleep_forever()
        finally:
            raise fault

    async def main(line):
        async with line.open() as run:
            return [item async for item in run], run

    got, run = run_virtual(main, script("ab|").stop_when(stop))
    assert (got, run.report.outcome, run.report.cleanup_errors) == ([*"ab"], "completed", (fault,))

    async def late():
        async with script("(abc)|").buffer(3).stop_when(after(1, fault)).take(1).buffer(1).open() as run:
            await trio.sleep(2)
            return [item async for item in run], run

    got, run = run_virtual(late)
    assert (got, run.report.outcome) == (["a"], "completed")


def test_a_stray_cancelled_of_the_function_is_its_failure():
    async def stop():
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await trio.sleep(1)
            except trio.Cancelled as error:
                kept = error
        await trio.sleep(1.5)
        raise kept

    log, error, *_ = played(script("abc|").stop_when(stop))
    assert (log, type(error), type(error.__cause__)) == ([(0, "a"), (1, "b")], RuntimeError, trio.Cancelled)


def test_streams_that_stop_within_others():
    """Before and behind fan-ins, in branches, in nested pipelines; a later input of a concat waits from its start."""
    lines = [script("abcdef|").stop_when(after(1.5)), script("ABCDEF|").take_for(2.5)]

    async def main():
        assert sorted(await merge(*lines).collect()) == [*"ABCab"]
        assert await concat(*lines).collect() == [*"abABC"]
        assert await merge(*lines).take_for(0.5).stop_when(never).count() == 2
        assert len(await zip_pipelines(*lines).collect()) == 2
        branches = {"some": lambda line: line.stop_when(after(1.5)), "all": lambda line: line.take_until("c".__eq__)}
        assert sorted(await script("abcdef|").broadcast(branches).collect()) == [*"aabbc"]
        inner = Pipeline.from_iterable([1, 2]).flat_map(lambda _: lines[0], concurrency=2)
        assert sorted(await inner.collect()) == [*"aabb"]

    run_virtual(main)


# ---- keep_alive


def ping():
    return "-"


def test_an_item_is_made_whenever_none_came_for_a_time():
    """From the start, from each item, made or not; none at the end; before an item of the same instant."""
    log, error, ended, probe = played(script("--a----b|").keep_alive(1.5, ping))

    assert log == [(1.5, "-"), (2, "a"), (3.5, "-"), (5, "-"), (6.5, "-"), (7, "b")]
    assert (error, ended) == (None, 8)
    (made,) = probe.run.report.remade
    assert (made.used, made.made) == (0, 4)
    assert probe.run.report.describe().startswith("completed after 8.000 s; of 2 taken, 4 made (keep_alive): 6 deli")

    def main():
        return script("a-b-c|").keep_alive(2, ping).collect()

    assert under_schedules(main) == [["a", "-", "b", "-", "c"]] * 40


def test_none_is_made_for_a_consumer_that_is_slow():
    """Its time does not count; the wait begins anew when there is room."""
    log, error, *_ = played(script("ab------------------c|").keep_alive(4, ping).buffer(1), pause=7)

    assert error is None
    assert log == [(0, "a"), (7, "b"), (14, "-"), (21, "-"), (28, "c")]


def test_a_pause_is_no_silence():
    async def main():
        async with Probe(script("a---b|").keep_alive(3, ping)) as probe:
            await probe.expect("a")
            probe.run.pause()
            await trio.sleep(20)
            probe.run.resume()
            await probe.expect("b")
            await probe.expect_end()
        return probe.log

    assert [item for _, item in run_virtual(main)] == ["a", "b"]


@pytest.mark.parametrize("made", ["raises", "awaitable"])
def test_an_error_of_what_makes_it_ends_the_stream_there(made):
    fault = OSError("no ping")

    async def later():
        pass

    def make():
        if made == "raises":
            raise fault
        return later()

    feed = Script("a----b|")
    log, error, ended, probe = played(Pipeline.from_async_iterable(feed).keep_alive(2, make, name="ping"))
    assert (log, ended, feed.closed) == ([(0, "a")], 2, 1)
    assert error is fault or "returned something to await" in str(error)
    assert error.__notes__ == ["in stage 'ping'"]
    assert probe.run.report.failed == 0
