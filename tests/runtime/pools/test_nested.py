"""Pipelines within pipelines: `flat_map` with a function that gives a pipeline for each item.

Mutants that die here: an inner run that outlives its item; inner items that nobody hears of; a failure that is wrapped,
or that stops the outer run though a policy met it; an inner run that runs ahead of its consumer.
"""

import gc

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import OnError, Pipeline, PlanError, Step
from funcpipe_trio.testing import Probe, Script, run_virtual
from tests._kit import Boom, nap


def text(name, script):
    return Pipeline.from_async_iterable(Script(script), name=name)


OUTER = Pipeline.from_iterable(["ab|", "-cd|", "e|"])


def test_the_results_of_an_items_pipeline_take_its_place():
    """One item at a time: in order. The next inner run begins when the one before has ended."""

    async def main():
        async with Probe(OUTER.flat_map(lambda item: text("inner", item), concurrency=1)) as probe:
            await probe.expect("a", at=0)
            await probe.expect("b", at=1)
            await probe.expect("c", at=3)
            await probe.expect("d", at=4)
            await probe.expect("e", at=5)
            await probe.expect_end(at=6)
        return probe.run.report

    (_, stage) = run_virtual(main).stages

    assert (stage.received, stage.created, stage.absorbed, stage.emitted) == (3, 5, 3, 5)


def test_several_at_a_time_are_mixed_as_they_come():
    """P15: no result waits for another item's."""

    async def main():
        async with Probe(OUTER.flat_map(lambda item: text("inner", item), concurrency=3)) as probe:
            await probe.take(2)
            await probe.take(2)
            await probe.expect("d", at=2)
            await probe.expect_end(at=3)
        return probe.log

    log = run_virtual(main)

    assert sorted(log) == [(0.0, "a"), (0.0, "e"), (1.0, "b"), (1.0, "c"), (2.0, "d")]


@pytest.mark.parametrize("wrap", [lambda fn: fn, lambda fn: Step(fn).timeout(5)], ids=["async function", "step"])
def test_an_async_function_or_a_step_may_give_the_pipeline(wrap):
    """It is a stage of its own anyway, so it needs no `concurrency`."""

    async def find(item):
        await trio.sleep(1)
        return Pipeline.from_iterable([item, item])

    async def main():
        async with Probe(Pipeline.from_iterable([1, 2]).flat_map(wrap(find))) as probe:
            await probe.expect(1, 1, at=1)
            await probe.expect(2, 2, at=2)

    run_virtual(main)


def test_a_fused_function_that_gives_a_pipeline_is_told_what_to_do():
    """A pipeline needs somebody who waits; that it gives one is known at the call only."""
    pipeline = Pipeline.from_iterable([1]).flat_map(lambda item: OUTER, name="pages")

    with pytest.raises(
        TypeError, match=r"^'pages' returned a pipeline\nUse concurrency=1 to give it a stage of its own\.\n"
    ):
        run_virtual(pipeline.collect)


def test_an_inner_run_goes_no_further_than_there_is_room():
    """Backpressure passes through: the links and the worker's hand are full, the inner source is asked for no more."""
    asked = []

    def inner(item):
        return Pipeline.from_iterable(lambda: (asked.append(number) or number for number in range(100))).buffer(2)

    async def main():
        async with Pipeline.from_iterable([1]).flat_map(inner, concurrency=1).buffer(3).open():
            await trio.sleep(1)
            return len(asked)

    assert run_virtual(main) == 2 + 1 + 3


def test_a_slow_inner_source_delays_no_other():
    """P14, within the stage."""

    async def main():
        pipeline = Pipeline.from_iterable(["---------a|", "xyz|"]).flat_map(
            lambda item: text("inner", item), concurrency=2
        )
        async with Probe(pipeline) as probe:
            await probe.expect("x", "y", "z", at=2)
            await probe.expect("a", at=9)

    run_virtual(main)


# ---- failing


def test_an_inner_failure_is_the_items_and_arrives_as_it_is():
    """The original object, behind all that came before it, with notes of both places."""
    error = Boom("inner")

    def raising(letter):
        if letter == "d":
            raise error
        return letter

    async def main():
        pipeline = OUTER.flat_map(lambda item: text("page", item).map(raising), concurrency=1, name="pages")
        async with Probe(pipeline) as probe:
            await probe.expect("a", "b", "c", at=3)
            met = await probe.expect_error(Boom)
        return met, probe.run.report

    met, report = run_virtual(main)

    assert met is error
    assert met.__notes__ == ["in stage 'raising', item 1", "in stage 'pages', item 1"]
    assert (report.failed, report.error) == (1, error)


def test_a_policy_meets_an_inner_failure_as_that_of_the_item():
    """What came before it has gone out; the next item continues."""

    def divide(number):
        return 6 // (number - 3)

    def inner(item):
        return Pipeline.from_iterable([item, item + 1]).map(divide)

    async def main(policy):
        async with Probe(Pipeline.from_iterable([1, 2, 4]).flat_map(inner, concurrency=1, on_error=policy)) as probe:
            try:
                await probe.take(99)
            except trio.EndOfChannel:
                return probe.items, probe.run.report

    skipped, report = run_virtual(main, OnError.skip())
    emitted, _ = run_virtual(main, OnError.emit())

    assert skipped == [-3, -6, -6, 6, 3]
    assert report.stages[1].failures == (("ZeroDivisionError", 1),)
    assert [value if isinstance(value, int) else value.item for value in emitted] == [-3, -6, -6, 2, 6, 3]


def test_a_plan_that_cannot_work_is_the_failure_of_its_item():
    """A one-shot source that a run has used, here."""
    once = Pipeline.from_iterable(iter("ab"), name="once")

    async def main():
        async with Probe(Pipeline.from_iterable([1, 2]).flat_map(lambda item: once, concurrency=1)) as probe:
            await probe.expect("a", "b")
            return await probe.expect_error(PlanError)

    assert "source 'once': a one-shot iterable was already used by a run" in str(run_virtual(main))


def test_what_stood_behind_a_failure_that_a_policy_met_is_told():
    """The outer run completes all the same."""

    async def raising(number):
        await trio.sleep(0.5)
        if number == 1:
            raise Boom
        await trio.sleep(0.5)
        return number

    def inner(item):
        return Pipeline.from_iterable(range(3)).map(raising, concurrency=3)

    async def main():
        pipeline = Pipeline.from_iterable("x").flat_map(inner, concurrency=1, on_error=OnError.skip(), name="outer")
        async with Probe(pipeline) as probe:
            await probe.expect(0, at=1)
            await probe.expect_end(at=1)
        return probe

    probe = run_virtual(main)

    assert probe.discarded == [(2, "outer > raising", "behind a failure")]
    assert (probe.run.report.outcome, probe.run.report.failed) == ("completed", 1)


def test_what_an_inner_policy_met_is_seen_outside():
    """Nothing is silent: the outer report names the errors that the inner run went on after."""

    def inner(item):
        return Pipeline.from_iterable([0, 1, 0]).map(lambda number: 1 // number, on_error=OnError.skip())

    async def main():
        return await Pipeline.from_iterable([1, 2]).flat_map(inner, concurrency=1).run()

    report = run_virtual(main)

    assert report.stages[1].failures == (("ZeroDivisionError", 4),)
    assert (report.delivered, report.failed) == (2, 0)


def test_errors_of_inner_cleanup_are_kept_with_those_of_the_run():
    """P9."""
    cleanup = Boom("cleanup")

    def source():
        try:
            yield 1
            yield 2
        finally:
            raise cleanup

    async def main():
        pipeline = Pipeline.from_iterable([1]).flat_map(
            lambda item: Pipeline.from_iterable(source).take(1), concurrency=1
        )
        return await pipeline.run()

    assert run_virtual(main).cleanup_errors == (cleanup,)


# ---- stopping


@pytest.mark.parametrize("way", ["abort", "leave", "cancel", "drain without grace"])
def test_an_inner_run_is_stopped_with_its_item(way):
    """At that instant; what it held is reported under both names, with the outer run's reason; its source is closed."""
    script = Script("a-b--------------c|")

    def inner(item):
        return Pipeline.from_async_iterable(script, name="source").map(nap, concurrency=2)

    async def main():
        with trio.CancelScope() as scope:
            async with Probe(Pipeline.from_iterable(["item"]).flat_map(inner, concurrency=1, name="outer")) as probe:
                await probe.expect("a", at=1)
                await trio.sleep(1.5)
                if way == "abort":
                    probe.run.abort()
                elif way == "cancel":
                    scope.cancel()
                    await trio.sleep(1)
                elif way == "drain without grace":
                    await probe.run.drain(0)
        return trio.current_time(), probe

    time, probe = run_virtual(main)
    reason = {"abort": "aborted", "leave": "not needed", "cancel": "cancelled"}.get(way, "grace period over")
    stage = probe.run.report.stages[1]

    assert time == 2.5
    assert sorted(probe.discarded) == [("b", "outer > nap", reason), ("item", "outer", reason)]
    assert (script.opened, script.closed, script.cancelled) == (1, 1, True)
    assert (stage.received, stage.created, stage.emitted, stage.discarded) == (1, 2, 1, 2)
    assert probe.run.report.discarded == 2


def test_a_drain_lets_the_pipelines_of_items_that_were_taken_run_to_their_ends():
    """The children of an item that was taken are all delivered; no further item is taken."""

    async def main():
        outer = Pipeline.from_async_iterable(Script("xyz|"))
        async with Probe(outer.flat_map(lambda item: text("inner", "-ab-|"), concurrency=1)) as probe:
            await probe.expect("a", at=1)
            probe.run.drain_nowait()
            await probe.expect("b", at=2)
            await probe.take(2)
            await probe.expect_end(at=8)
        return probe.run.report

    report = run_virtual(main)

    assert (report.outcome, report.taken, report.delivered) == ("drained", 2, 4)


def test_a_failure_elsewhere_stops_the_inner_runs_behind_it():
    """The reason of what they held is that of the item: behind a failure."""

    async def fail_late(item):
        if item == "x":
            await trio.sleep(2.5)
            raise Boom
        return Pipeline.from_iterable([item, item]).map(nap, concurrency=2).map(nap)

    async def main():
        async with Probe(Pipeline.from_iterable("xy").flat_map(fail_late, concurrency=2, name="outer")) as probe:
            await probe.expect("y", at=2)
            await probe.expect_error(Boom)
        return probe

    assert run_virtual(main).discarded == [
        ("y", "outer > nap#2", "behind a failure"),
        ("y", "outer", "behind a failure"),
    ]


def test_an_inner_take_that_needs_no_more_gives_up_for_its_own_reason():
    """Nobody outside gave anything up."""

    def inner(item):
        return Pipeline.from_iterable(range(9)).buffer(4).take(1)

    async def main():
        async with Probe(Pipeline.from_iterable("x").flat_map(inner, concurrency=1, name="outer")) as probe:
            await probe.expect(0)
            await probe.expect_end()
        return probe

    probe = run_virtual(main)

    assert probe.discarded == [(number, "outer > iterable", "not needed") for number in range(1, 4)]
    assert probe.run.report.outcome == "completed"


def test_inner_runs_within_inner_runs_tell_their_whole_way():
    """Each stage adds its name."""

    def middle(item):
        return Pipeline.from_iterable([item]).flat_map(innermost, concurrency=1, name="middle")

    def innermost(item):
        return Pipeline.from_iterable([item]).map(nap)

    async def main():
        async with Probe(Pipeline.from_iterable("x").flat_map(middle, concurrency=1, name="outer")) as probe:
            await wait_all_tasks_blocked()
        return probe.discarded

    told = run_virtual(main)

    assert told == [
        ("x", "outer > middle > nap", "not needed"),
        ("x", "outer > middle", "not needed"),
        ("x", "outer", "not needed"),
    ]


def test_what_an_inner_buffer_drops_counts_as_dropped_outside():
    """P1: a policy dropped it, so it is reported with that policy, and is not among the discarded items."""

    def inner(item):
        return Pipeline.from_iterable("abc", name="inner").buffer(1, overflow="drop_newest").map(nap)

    async def main():
        async with Probe(Pipeline.from_iterable([1]).flat_map(inner, concurrency=1, name="outer")) as probe:
            await probe.expect("a", at=1)
            await probe.expect("b", at=2)
            await probe.expect_end(at=2)
        return probe

    probe = run_virtual(main)
    report, stage = probe.run.report, probe.run.report.stages[1]

    assert probe.items == ["a", "b"]
    assert probe.discarded == [("c", "outer > inner", "drop_newest")]
    assert (report.dropped, report.discarded) == (1, 0)
    assert (stage.created, stage.emitted, stage.dropped, stage.discarded) == (3, 2, 1, 0)


def test_a_finished_inner_run_leaves_nothing_behind():
    """Memory of a long run does not grow with the number of its items."""

    async def main():
        count = 0

        def inner(item):
            return Pipeline.from_iterable([item])

        async def sizes(item):
            nonlocal count
            if item in (200, 1000):
                gc.collect()
                count = len(gc.get_objects()) - count
            return item

        await Pipeline.from_iterable(range(1001)).flat_map(inner, concurrency=1).map(sizes).run()
        return count

    assert run_virtual(main) < 200
