"""A source that is opened again: exact times, what is closed when, what ends it, and what it says of itself.

Mutants that die here: a broken iterator left open, or closed after the wait; a wait that nothing can end; a failure
that is retried though the run is being stopped; a restart that ends the stream, because the same generator came again.
"""

import math
import re

import pytest
import trio

from funcpipe_trio import Backoff, Pipeline, Retry, merge
from funcpipe_trio.testing import Probe, Script, run_virtual

RETRY = Retry(3, OSError, Backoff(1, factor=2, jitter=0))


class Feed:
    """A callable that makes feeds: each gives some items, one a second, and then breaks, or ends."""

    def __init__(self, *lives, sync=False, opening=None):
        self.lives = [*lives]
        self.sync = sync
        self.opening = opening
        self.log = []
        self.errors = []

    def __call__(self):
        life = self.lives.pop(0)
        self.note("open")
        if self.opening is not None and life is None:
            raise self.opening
        return self.now(life) if self.sync else self.later(life)

    def note(self, what):
        self.log.append((what, trio.current_time()))

    def broken(self, life):
        if self.lives:
            self.errors.append(OSError(f"broke after {life}"))
            raise self.errors[-1]

    async def later(self, life):
        try:
            for item in life:
                await trio.sleep(1)
                yield item
            self.broken(life)
        finally:
            self.note("close")

    def now(self, life):
        try:
            yield from life
            self.broken(life)
        finally:
            self.note("close")


def test_it_is_closed_and_opened_again_after_the_backoff():
    """Earlier items continue, the second wait is twice the first, and the end of a feed is the end of the stream."""
    feed = Feed("ab", "", "c")

    async def main():
        async with Probe(Pipeline.restarting(feed, RETRY, reset_after=10)) as probe:
            await probe.expect("a", "b", at=2)
            await probe.expect("c", at=6)
            await probe.expect_end(at=6)
        return probe.run.report

    report = run_virtual(main)

    assert feed.log == [("open", 0), ("close", 2), ("open", 3), ("close", 3), ("open", 5), ("close", 6)]
    assert (report.outcome, report.taken, report.discarded) == ("completed", 3, 0)
    assert (report.stages[0].policies.retries, report.stages[0].policies.waited_retry) == (2, 3)
    assert "restarting" not in report.describe().splitlines()[0]
    assert "Feed: 2 retries, 3.000 s between attempts" in report.describe()


def test_a_sync_feed_is_restarted_in_the_same_way():
    """One callable may give either kind."""
    feed = Feed("ab", "c", sync=True)

    async def main():
        async with Probe(Pipeline.restarting(feed, RETRY, reset_after=10)) as probe:
            await probe.expect("a", "b", at=0)
            await probe.expect("c", at=1)
            await probe.expect_end(at=1)

    run_virtual(main)

    assert feed.log == [("open", 0), ("close", 0), ("open", 1), ("close", 1)]


def test_the_last_error_itself_is_raised_when_the_openings_are_used_up():
    """With notes that tell the place, the openings, and the waits."""
    feed = Feed("a", "b", "", "never")

    async def main():
        async with Probe(Pipeline.restarting(feed, RETRY, reset_after=10, name="feed")) as probe:
            await probe.expect("a", "b")
            return await probe.expect_error(OSError), probe.run.report

    error, report = run_virtual(main)

    assert error is feed.errors[-1]
    assert error.__notes__ == ["waited 1, 2 s between its attempts", "in stage 'feed', item 2, attempt 3 of 3"]
    assert error.__context__ is None
    assert len(feed.lives) == 1
    assert report.error is error


def test_a_feed_that_was_healthy_begins_a_new_row():
    """Each of these lasts 2 s, which is `reset_after`: with two openings in a row it continues forever."""
    feed = Feed("ab", "ab", "ab", "ab", "c")

    got = run_virtual(Pipeline.restarting(feed, Retry(2, OSError, Backoff(1, jitter=0)), reset_after=2).collect)

    assert got == [*"abababab", "c"]
    assert [time for what, time in feed.log if what == "open"] == [0, 3, 6, 9, 12]


def test_an_opening_that_fails_is_a_failure_like_any_other():
    """The callable itself may raise."""
    feed = Feed("a", None, "b", opening=ConnectionError("refused"))

    assert run_virtual(Pipeline.restarting(feed, RETRY, reset_after=10).collect) == ["a", "b"]


def test_an_error_that_is_not_meant_ends_the_stream_at_once():
    """`Retry.on` says which are."""
    script = Script("ab#")

    async def main():
        async with Probe(Pipeline.restarting(lambda: script, RETRY, reset_after=10, name="feed")) as probe:
            await probe.expect("a", "b", at=1)
            error = await probe.expect_error(RuntimeError)
            return error, trio.current_time(), script.opened

    error, time, opened = run_virtual(main)

    assert error.__notes__ == ["in stage 'feed', item 2, attempt 1 of 3"]
    assert (time, opened) == (2, 1)


def test_an_error_may_say_how_long_to_wait():
    """`Retry.retry_after` instead of the backoff."""
    feed = Feed("a", "b")
    retry = Retry(3, OSError, retry_after=lambda error: 30)

    async def main():
        async with Probe(Pipeline.restarting(feed, retry, reset_after=math.inf)) as probe:
            await probe.expect("a", at=1)
            await probe.expect("b", at=32)

    run_virtual(main)


@pytest.mark.parametrize("way", ["abort", "drain", "leave", "cancel"])
def test_nothing_waits_for_the_end_of_a_backoff(way):
    """However the run ends in it, it ends at that instant, and nothing is opened or closed any more."""
    feed = Feed("a", "b")
    retry = Retry(3, OSError, Backoff(1000, maximum=1000, jitter=0))

    async def main():
        with trio.CancelScope() as scope:
            async with Probe(Pipeline.restarting(feed, retry, reset_after=10)) as probe:
                await probe.expect("a", at=1)
                await trio.sleep(1)
                if way == "abort":
                    probe.run.abort()
                elif way == "drain":
                    probe.run.drain_nowait()
                    await probe.expect_end(at=2)
                elif way == "cancel":
                    scope.cancel()
                    await trio.sleep(5)
        return trio.current_time(), probe.run.report

    time, report = run_virtual(main)

    assert time == 2
    assert feed.log == [("open", 0), ("close", 1)]
    assert report.cleanup_errors == ()


def test_an_error_of_closing_the_broken_one_is_kept_and_changes_nothing():
    """P9: also when the cleanup awaits; the restart continues."""
    cleanup = ValueError("cleanup")

    class Broken:
        def __init__(self, items):
            self.items = iter(items)

        def __aiter__(self):
            return self

        async def __anext__(self):
            for item in self.items:
                return item
            raise OSError

        async def aclose(self):
            await trio.sleep(0.5)
            raise cleanup

    made = [Broken("a"), Script("b")]

    async def main():
        async with Probe(Pipeline.restarting(lambda: made.pop(0), RETRY, reset_after=10)) as probe:
            await probe.expect("a", at=0)
            await probe.expect("b", at=1.5)
            await probe.expect_end(at=1.5)
        return probe.run.report

    report = run_virtual(main)

    assert report.outcome == "completed"
    assert report.cleanup_errors == (cleanup,)


def test_an_error_of_a_source_that_is_being_stopped_is_no_reason_to_open_it_again():
    """It is kept as one of cleanup."""
    answered = OSError("cancelled")
    opened = []

    async def feed():
        opened.append(trio.current_time())
        yield 1
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise answered  # noqa: B904

    async def main():
        async with Probe(Pipeline.restarting(feed, RETRY, reset_after=10)) as probe:
            await probe.expect(1, at=0)
            await trio.sleep(1)
            probe.run.drain_nowait()
            await probe.expect_end(at=1)
        return probe.run.report

    assert run_virtual(main).cleanup_errors == (answered,)
    assert opened == [0]


def test_the_same_generator_once_more_is_an_error_and_no_end():
    """One that has failed is over: asked again it would end the stream as if all had come."""
    feed = Feed("a", "b")

    async def main():
        one = feed()
        async with Probe(Pipeline.restarting(lambda: one, RETRY, reset_after=10, name="feed")) as probe:
            await probe.expect("a", at=1)
            return await probe.expect_error(TypeError)

    error = run_virtual(main)

    assert str(error) == "'feed' gave the same iterator again, which has failed\nUse a callable that makes a new one."


@pytest.mark.parametrize("gives", [3, None])
def test_what_is_no_iterable_is_an_error_that_no_retry_meets(gives):
    """The next try would be no better."""

    async def main():
        pipeline = Pipeline.restarting(lambda: gives, Retry(5), reset_after=10, name="feed")
        async with Probe(pipeline) as probe:
            return await probe.expect_error(TypeError), trio.current_time()

    error, time = run_virtual(main)

    assert time == 0
    assert re.match(r"^'feed' gave (an int|a NoneType), which is not iterable, sync or async$", str(error))


def test_a_predicate_that_raises_is_the_error():
    """With a note on what it was asked about."""

    def on(error):
        raise ZeroDivisionError

    async def main():
        async with Probe(Pipeline.restarting(Feed("", "a"), Retry(3, on), reset_after=10)) as probe:
            return await probe.expect_error(ZeroDivisionError)

    assert run_virtual(main).__notes__ == ["asking the Retry about a OSError", "in stage 'Feed', item 0"]


def test_one_feed_that_restarts_delays_no_other():
    """P14: a merge continues with the inputs that have something."""

    async def main():
        feed = Pipeline.restarting(Feed("a", "b"), Retry(3, OSError, Backoff(9, jitter=0)), reset_after=99)
        async with Probe(merge(feed, Pipeline.from_async_iterable(Script("--xyz")))) as probe:
            await probe.expect("a", at=1)
            await probe.expect("x", "y", "z", at=4)
            await probe.expect("b", at=11)

    run_virtual(main)


def test_every_run_counts_for_itself_and_the_plan_shows_the_policy():
    """A plan with it is replayable."""
    made = []

    def feed():
        made.append(trio.current_time())
        return Script("a#") if len(made) % 2 else Script("b")

    pipeline = Pipeline.restarting(feed, Retry(2, RuntimeError, Backoff(1, jitter=0)), reset_after=60)

    assert [run_virtual(pipeline.collect) for _ in range(2)] == [["a", "b"]] * 2
    assert pipeline.describe().splitlines()[1] == (
        "source feed: restarting feed: up to 2 attempts on RuntimeError, waits 1 s x 2 up to 10 s, "
        "counted anew after 60 s"
    )
