"""The stage that awaits a time beside its input: its one scope is used up by each time that comes, and made again.

And the stage of a sync iterable, which needs none, for it is silent only while it is paused. Mutants that die there: a
time that is not awaited while paused, is awaited before that only, or for the first of several operations only; a time
that is not looked at while a filter lets nothing through.
"""

import itertools

import pytest
import trio

from funcpipe_trio import Aborted, Pipeline
from funcpipe_trio.testing import Script, run_virtual


def log_of(pipeline, *, busy=0.0):
    """Return when each value was taken, by a consumer that is busy for so long after each."""

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
    """Catches a deadline that stands while the stage waits for room: it would be started again without end."""
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


# ---- in the stage of a sync iterable

GATHERED = {"batch": lambda line: line.batch(3, max_delay=2.0), "window": lambda line: line.window(3, period=2.0)}


def paused_at(number, items, gather, acts):
    """Pause a run from within at an item, and act on it later; give what came when, what was given up, the report."""

    async def main():
        log, given_up = [], []

        def look(item):
            if item == number:
                run.pause()

        async def act():
            for at, method in acts:
                await trio.sleep_until(at)
                getattr(run, method)()

        line = gather(Pipeline.from_iterable(items, name="feed").tap(look))
        async with (
            line.open(on_discard=lambda *what: given_up.append(what)) as run,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(act)
            try:
                async for value in run:
                    log.append((trio.current_time(), value))
            except Aborted:
                log.append((trio.current_time(), "aborted"))
        return log, given_up, run.report

    log, given_up, report = run_virtual(main)
    assert [stage.name for stage in report.stages] == ["feed"]
    return log, given_up, report


@pytest.mark.parametrize("gather", GATHERED.values(), ids=GATHERED)
def test_what_was_gathered_leaves_in_its_time_though_the_source_is_paused(gather):
    """It was taken, and timers continue; the next one's time counts from its own first item."""
    log, given_up, report = paused_at(4, range(8), gather, [(5.0, "resume")])

    assert log == [(0.0, [0, 1, 2]), (2.0, [3, 4]), (5.0, [5, 6, 7])]
    assert (given_up, report.outcome, report.paused) == ([], "completed", 5.0)


@pytest.mark.parametrize("gather", GATHERED.values(), ids=GATHERED)
def test_what_was_gathered_leaves_at_once_in_a_drain(gather):
    """The source takes no more, so there is nothing to wait for."""
    log, given_up, report = paused_at(4, range(8), gather, [(1.0, "drain_nowait")])

    assert log == [(0.0, [0, 1, 2]), (1.0, [3, 4])]
    assert (given_up, report.outcome, report.taken) == ([], "drained", 5)


@pytest.mark.parametrize("gather", GATHERED.values(), ids=GATHERED)
def test_what_was_gathered_is_given_up_with_the_run(gather):
    """Item by item, with the reason and the name of the stage, and at that instant."""
    log, given_up, report = paused_at(4, range(8), gather, [(1.0, "abort")])

    assert log == [(0.0, [0, 1, 2]), (1.0, "aborted")]
    assert given_up == [(3, "feed", "aborted"), (4, "feed", "aborted")]
    assert (report.outcome, report.elapsed) == ("aborted", 1.0)


def test_each_of_several_has_its_time():
    """The first lets its batch out at 1 s, the second at 4 s: its time counts from then."""

    def gather(line):
        return line.batch(9, max_delay=1.0).batch(9, max_delay=3.0)

    assert paused_at(4, range(8), gather, [(9.0, "resume")])[0] == [(4.0, [[0, 1, 2, 3, 4]]), (9.0, [[5, 6, 7]])]


@pytest.mark.parametrize("gather", GATHERED.values(), ids=GATHERED)
def test_what_was_gathered_leaves_though_nothing_else_gets_as_far(gather):
    """A filter lets nothing through; the clock continues meanwhile: at most one burst late."""

    def is_first(number):
        trio.lowlevel.current_clock().jump(0.01)
        return number == 0

    async def main():
        got = await gather(Pipeline.from_iterable(itertools.count()).filter(is_first)).first()
        return got, trio.current_time()

    got, now = run_virtual(main)
    assert got == [0]
    assert 2.0 <= now <= 2.0 + 0.65 + 0.01


@pytest.mark.parametrize("gather", GATHERED.values(), ids=GATHERED)
def test_what_was_gathered_leaves_before_a_failure(gather):
    """The source's, which says its own name and number."""

    def broken():
        yield from range(4)
        raise ValueError("broken")

    async def main():
        got = []
        async with gather(Pipeline.from_iterable(broken, name="feed")).open() as run:
            with pytest.raises(ValueError, match=r"^broken\nin stage 'feed', item 4$"):
                async for value in run:
                    got.append(value)
        return got, trio.current_time()

    assert run_virtual(main) == ([[0, 1, 2], [3]], 0.0)


@pytest.mark.parametrize("gather", GATHERED.values(), ids=GATHERED)
def test_a_take_behind_advances_the_source_exactly_so_often(gather):
    """It is fused with its source now; whatever was gathered beyond is none."""
    advanced = []

    async def main():
        source = Pipeline.from_iterable(advanced.append(n) or n for n in itertools.count())
        return await gather(source).take(2).collect()

    assert run_virtual(main) == [[0, 1, 2], [3, 4, 5]]
    assert advanced == [*range(6)]


def test_a_source_that_holds_a_scope_open_over_its_items_may_be_paused():
    """Catches a scope of the stage around its whole drive: the source's own would be left open inside of it."""

    def scoped():
        with trio.CancelScope():  # noqa: ASYNC100  # the awaits are those of its stage
            yield from range(8)

    assert paused_at(4, scoped, GATHERED["batch"], [(5.0, "resume")])[0][1:] == [(2.0, [3, 4]), (5.0, [5, 6, 7])]
