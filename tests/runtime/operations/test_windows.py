"""Windows and `distinct` in a run: when a window leaves, what it says of the items in none, and what a stop gives up.

That they are what their models on lists are, for every source and ending, is in `test_operations.py`.
"""

import re

import pytest
import trio

from funcpipe_trio import Pipeline, concat
from funcpipe_trio.testing import Probe, Script, run_virtual
from tests._kit import Boom


def fails_at_the_end(items):
    yield from items
    raise Boom


def timed(pipeline):
    """Return the probe's log of a whole run, and the report."""

    async def main():
        async with Probe(pipeline) as probe:
            try:
                while True:
                    await probe.take()
            except trio.EndOfChannel:
                pass
        return probe.log, probe.run.report

    return run_virtual(main)


def test_a_window_leaves_exactly_at_its_end_though_the_source_stalls():
    """At multiples from the start of the run; an empty period gives nothing; the rest leaves at the end."""
    script = Script("-a-b---(cd)----------e|")

    log, report = timed(Pipeline.from_async_iterable(script).window(period=2.0))

    assert log == [(2.0, ["a"]), (4.0, ["b"]), (8.0, ["c", "d"]), (19.0, ["e"])]
    assert report.taken == 5


def test_an_item_at_a_multiple_is_in_the_later_window():
    """The window before it leaves at that instant, too, and first."""
    log, _ = timed(Pipeline.from_async_iterable(Script("a-b-c|")).window(period=2.0))

    assert log == [(2.0, ["a"]), (4.0, ["b"]), (5.0, ["c"])]


def test_a_full_window_leaves_at_once_and_its_period_goes_on():
    """Number or time, whichever comes first."""
    log, _ = timed(Pipeline.from_async_iterable(Script("(abcde)---f|")).window(2, period=3.0))

    assert log == [(0.0, ["a", "b"]), (0.0, ["c", "d"]), (3.0, ["e"]), (5.0, ["f"])]


def test_windows_in_a_later_input_of_a_concat_count_from_its_start():
    """Its stages begin when the input before it has ended."""
    first = Pipeline.from_async_iterable(Script([(0.5, 1)]))
    second = Pipeline.from_async_iterable(Script([(0.25, 2), (5, 3)])).window(period=1.0)

    log, _ = timed(concat(first, second))

    assert log == [(0.5, 1), (1.5, [2]), (5.5, [3])]


def test_a_window_waits_for_a_slow_consumer_and_loses_nothing():
    """What could not be taken in time belongs to the period in which it was taken."""

    async def main():
        got = []
        async with Pipeline.from_iterable(range(6)).buffer(1).window(2, period=1.0).buffer(1).open() as run:
            async for window in run:
                got.append((trio.current_time(), window))
                await trio.sleep(2.25)
        return got

    assert run_virtual(main) == [(0.0, [0, 1]), (2.25, [2, 3]), (4.5, [4, 5])]


@pytest.mark.parametrize("limits", [{"max_items": 4}, {"period": 1.0}, {"max_items": 4, "period": 1.0}])
def test_a_failure_comes_behind_the_window_of_what_came_before_it(limits):
    """P5: nothing before the failing item is lost."""

    async def main():
        async with Probe(Pipeline.from_iterable(lambda: fails_at_the_end(range(3))).window(**limits)) as probe:
            await probe.expect([0, 1, 2], at=0)
            await probe.expect_error(Boom)

    run_virtual(main)


def test_an_open_window_is_given_up_item_by_item():
    """Each with its reason, once."""

    async def main():
        async with Probe(Pipeline.from_async_iterable(Script("ab----------|")).window(period=100.0)) as probe:
            await probe.expect_nothing(5)
            probe.run.abort()
        return probe

    probe = run_virtual(main)

    assert probe.discarded == [("a", "window", "aborted"), ("b", "window", "aborted")]
    assert probe.run.report.discarded == 2


# ---- sliding


def test_the_sums_of_a_sliding_stage_hold_over_overlaps_and_gaps():
    """An item is absorbed once, however many windows it is in; what is in none is dropped."""
    for arguments, absorbed, created in (
        ((3, 1), 10, 8),
        ((4, 3), 10, 3),
        ((3, 2), 9, 4),
        ((2, 4), 6, 3),
        ((11, 1), 0, 0),
    ):
        _, report = timed(Pipeline.from_iterable(range(10)).buffer(1).sliding(*arguments))
        stage = report.stages[1]

        assert (stage.absorbed, stage.created, stage.emitted) == (absorbed, created, created)
        assert stage.dropped == report.dropped == 10 - absorbed


def test_a_stop_gives_up_only_what_is_in_no_window_that_went_out():
    """The overlap that the operation keeps for the next window has left with the last."""

    async def main():
        async with Probe(Pipeline.from_async_iterable(Script("abcde---------|")).sliding(4, 2)) as probe:
            await probe.expect(("a", "b", "c", "d"), at=3)
            await probe.expect_nothing(3)
        return probe

    assert run_virtual(main).discarded == [("e", "async_iterable", "not needed")]


def test_a_failure_comes_behind_the_full_windows_and_the_rest_is_dropped():
    """As at the end of the stream, so the counts do not depend on when the failure is met."""

    async def main():
        async with Probe(Pipeline.from_iterable(lambda: fails_at_the_end(range(4))).sliding(3, 2)) as probe:
            await probe.expect((0, 1, 2), at=0)
            await probe.expect_error(Boom)
        return probe.run.report

    report = run_virtual(main)

    assert (report.dropped, report.discarded) == (1, 0)


@pytest.mark.parametrize(
    ("arguments", "bound"), [((3, 1), 1 * 2 + 2 + 4), ((3, 2), 2 * 2 + 1 + 4), ((3, 7), 3 * 2 + 4), ((1, 1), 2 + 4)]
)
def test_the_bound_counts_each_item_of_overlapping_windows_once(arguments, bound):
    """P4: it is reached with a silent consumer, and never exceeded."""

    async def main():
        pipeline = Pipeline.from_iterable(range(1000)).buffer(4).sliding(*arguments).buffer(2)
        async with pipeline.open() as run:
            await trio.sleep(1)
            return pipeline.max_in_flight, run.statistics()

    most, counts = run_virtual(main)

    assert most == bound == counts.taken - counts.dropped


def test_pairwise_of_one_item_is_nothing():
    """As in itertools; the item is accounted for."""
    log, report = timed(Pipeline.from_iterable([1]).pairwise())

    assert (log, report.dropped) == ([], 1)


# ---- distinct


def test_a_key_that_keeps_coming_is_not_forgotten():
    """Least recently seen, first forgotten: the third 1 was seen lately, 2 was not."""
    log, report = timed(Pipeline.from_iterable([1, 2, 1, 3, 1, 2, 3]).distinct(remember=2))

    assert [item for _, item in log] == [1, 2, 3, 2, 3]
    assert report.dropped == 2


def test_every_run_begins_without_memory():
    """No state is shared between runs of a plan."""
    pipeline = Pipeline.from_iterable([1, 1, 2]).distinct(remember=5)

    assert [run_virtual(pipeline.collect) for _ in range(2)] == [[1, 2], [1, 2]]


@pytest.mark.parametrize(
    ("key", "what"), [(None, "an item of type list"), (lambda item: {item[0]}, "a key of type set")]
)
def test_what_has_no_hash_is_an_error_that_says_what_to_do(key, what):
    """At that item, and behind those before it."""

    async def main():
        async with Probe(Pipeline.from_iterable([[1]]).distinct(key, remember=5)) as probe:
            return await probe.expect_error(TypeError)

    error = run_virtual(main)

    assert re.match(rf"'distinct': {what} has no hash, so .*\nUse key= with .*", str(error))
    assert error.__notes__ == ["in stage 'distinct', item 0"]


def test_a_key_that_would_have_to_be_awaited_is_refused():
    """It would be another object each time, so nothing would ever be dropped."""

    async def key(item):
        return item

    with pytest.raises(TypeError, match=r"^'distinct' is not async, but returned something to await\n"):
        run_virtual(Pipeline.from_iterable([1]).distinct(lambda item: key(item), remember=5).collect)


def test_they_read_in_a_plan():
    """Names, limits and functions, and the bound."""
    pipeline = (
        Pipeline.from_iterable([1]).distinct(abs, remember=9).window(2, period=0.5).sliding(3, 2).pairwise(name="pairs")
    )

    assert pipeline.describe().splitlines()[1:3] == [
        "source iterable: iterable -> distinct by abs among the last 9"
        " -> window of 2 items or all within a period of 0.5 s -> sliding of 3 items, every 2"
        " -> sliding as pairs of 2 items, every 1",
        "  | link of 16 (of an open run; run(), collect() and the like need none)",
    ]
