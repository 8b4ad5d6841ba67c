"""The stage that awaits a time beside its input: its one scope is used up by each time that comes, and made anew."""

import trio

from funcpipe_trio import Pipeline
from funcpipe_trio.testing import Script, run_virtual


def log_of(pipeline, *, busy=0.0):
    """Give when each value was taken, by a consumer that is busy for so long after each."""

    async def main():
        log = []
        async with pipeline.open() as run:
            async for value in run:
                log.append((trio.current_time(), value))
                await trio.sleep(busy)
        assert run.report.outcome == "completed"
        return log

    return run_virtual(main)


def test_every_batch_leaves_at_its_age():
    """Catches a scope that is used up by the first time, and one whose deadline is that of the batch before."""
    line = Pipeline.from_async_iterable(Script("ab---c-----de----f|")).batch(9, max_delay=2.0)

    assert log_of(line) == [(2.0, ["a", "b"]), (7.0, ["c"]), (13.0, ["d", "e"]), (18.0, ["f"])]


def test_a_batch_that_is_full_takes_its_age_with_it():
    """Catches a deadline that stays behind when its batch has left: the next batch would leave too early."""
    line = Pipeline.from_async_iterable(Script("ab-c-------d|")).batch(2, max_delay=4.0)

    assert log_of(line) == [(1.0, ["a", "b"]), (7.0, ["c"]), (12.0, ["d"])]


def test_an_item_at_the_very_instant_of_the_age_is_in_the_next_batch_under_any_order():
    """Woken by an item and by the clock at once, the stage does neither twice, and forgets neither."""
    line = Pipeline.from_async_iterable(Script("a-b-c-d|")).batch(9, max_delay=2.0)

    assert log_of(line) == [(2.0, ["a"]), (4.0, ["b"]), (6.0, ["c"]), (7.0, ["d"])]


def test_an_age_that_comes_while_there_is_no_room_does_not_keep_the_loop_busy():
    """Catches a deadline that stands while the stage waits for room: it would be begun anew without end."""
    line = Pipeline.from_async_iterable(Script("abcdefgh|")).batch(1, max_delay=0.5).buffer(1)

    assert [value for _at, value in log_of(line, busy=3.0)] == [[letter] for letter in "abcdefgh"]


def test_a_stage_that_waits_for_its_time_is_left_at_once():
    """Stopped while it waits, it gives up its batch, and leaves no deadline behind that the clock would jump to."""

    async def main():
        given_up = []
        line = Pipeline.from_async_iterable(Script("ab" + "-" * 50 + "|")).batch(9, max_delay=20.0)
        async with line.open(on_discard=lambda item, _stage, reason: given_up.append((item, reason))):
            await trio.sleep(3)
        return trio.current_time(), given_up

    assert run_virtual(main) == (3.0, [("a", "not needed"), ("b", "not needed")])
