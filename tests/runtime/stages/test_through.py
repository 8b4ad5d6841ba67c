"""A generator over the stream: who asks whom, what happens at each end, and what does it cost the others?

That it keeps all promises, for every ending, is in `tests/operators`. Mutants that die here: an upstream failure that
gets a second note, or is raised although it was handled; a source that goes on when the generator has returned; an item
that is told as lost though a value was made of it; a scope of the generator's that corrupts those of the run.
"""

from collections import Counter
from contextlib import suppress

import pytest
import trio
import trio.testing

from funcpipe_trio import Aborted, MisuseError, Pipeline, concat, merge
from funcpipe_trio.testing import (
    Script,
    cancel_everywhere,
    drain_everywhere,
    fail_everywhere,
    interrupt_everywhere,
    run_virtual,
)
from tests._kit import Boom, play, read_ahead

from .test_timing import under_schedules


async def slowly():
    for item in range(9):
        await trio.sleep(1)
        yield item


async def never():
    await trio.sleep_forever()
    yield


async def passed(items):
    async for item in items:
        yield item


def fails(item):
    if item == 2:
        raise Boom
    return item


# ---- ends


def test_it_sees_the_end_and_may_give_a_last_word():
    async def counted(items):
        count = 0
        async for _ in items:
            count += 1
        yield count

    log, report, _ = play(Pipeline.from_async_iterable(slowly).through(counted))

    assert log == [(9.0, 9)]
    assert (report.taken, report.delivered, report.discarded) == (9, 1, 0)
    assert [(each.name, each.used, each.made) for each in report.remade] == [("counted", 9, 1)]


def test_a_drain_ends_its_items():
    async def with_end(items):
        async for item in items:
            yield item
        yield "end"

    log, report, discarded = play(
        Pipeline.from_async_iterable(slowly).through(with_end),
        stop=lambda run: run.drain_nowait(),
    )

    assert [item for _, item in log] == [0, "end"]
    assert (report.outcome, discarded) == ("drained", [])


def test_it_may_return_early_and_everything_upstream_stops():
    closed = []

    async def feed():
        try:
            for item in range(9):
                await trio.sleep(1)
                yield item
        finally:
            closed.append(trio.current_time())

    async def two(items):
        for _ in range(2):
            yield await anext(items)

    log, report, discarded = play(Pipeline.from_async_iterable(feed).buffer(1).through(two))

    assert log == [(1.0, 0), (2.0, 1)]
    assert closed == [2.0]
    assert report.outcome == "completed"
    assert {reason for _, _, reason in discarded} <= {"not needed"}


def test_everything_upstream_stops_before_the_generator_is_closed():
    """Which may take its time."""
    closed = []

    async def feed():
        try:
            for item in range(9):
                await trio.sleep(1)
                yield item
        finally:
            closed.append(trio.current_time())

    async def slow_to_leave(items):
        try:
            async for item in items:
                yield item
        finally:
            await trio.sleep(4)
            closed.append(trio.current_time())

    log, report, _ = play(Pipeline.from_async_iterable(feed).through(slow_to_leave).take(2))

    assert log == [(1.0, 0), (2.0, 1)]
    assert closed == [2.0, 6.0]
    assert (report.taken, report.discarded) == (2, 0)


# ---- failures


def test_a_failure_upstream_is_raised_from_its_items_and_stays_what_it_is():
    met = []

    async def seeing(items):
        try:
            async for item in items:
                yield item
        except Boom as error:
            met.append(error)
            yield "before it"
            raise

    log, report, _ = play(Pipeline.from_iterable(range(5)).map(fails).through(seeing))

    error = log[-1][1]
    assert [item for _, item in log[:-1]] == [0, 1, "before it"]
    assert met == [error]
    assert error.__notes__ == ["in stage 'fails', item 2"]
    assert (report.failed, report.outcome) == (1, "failed")


def test_one_that_it_handles_is_no_failure_of_the_run():
    async def handling(items):
        try:
            async for item in items:
                yield item
        except Boom:
            yield "handled"

    log, report, _ = play(Pipeline.from_iterable(range(5)).map(fails).through(handling))

    assert [item for _, item in log] == [0, 1, "handled"]
    assert (report.failed, report.outcome, report.error) == (1, "completed", None)


def test_one_that_a_nursery_of_its_own_passes_on_is_not_in_a_group():
    async def in_a_nursery(items):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0)
            async for item in items:
                yield item

    log, _, _ = play(Pipeline.from_iterable(range(5)).map(fails).through(in_a_nursery))

    assert type(log[-1][1]) is Boom


def test_its_own_error_is_that_of_the_item_in_its_hands():
    async def failing(items):
        async for item in items:
            yield fails(item)

    log, report, discarded = play(Pipeline.from_iterable(range(5)).buffer(1).through(failing))

    assert [item for _, item in log[:-1]] == [0, 1]
    assert log[-1][1].__notes__ == ["in stage 'failing', item 2"]
    assert report.failed == 1
    assert 2 not in [item for item, _, _ in discarded]
    assert {reason for _, _, reason in discarded} <= {"behind a failure"}


def test_a_failure_that_it_does_not_reach_is_kept_and_not_raised():
    async def one(items):
        yield await anext(items)

    log, report, _ = play(Pipeline.from_iterable(range(5)).map(fails).buffer(9).through(one))

    assert [item for _, item in log] == [0]
    assert (type(report.error), report.failed, report.outcome) == (Boom, 1, "completed")


async def reads_ahead(items):
    """Reads in a task of its own, so the failure comes while it waits, or gives a value."""
    async with trio.open_nursery() as nursery:
        send, receive = trio.open_memory_channel(9)

        async def read():
            with send:
                async for item in items:
                    await send.send(item)

        nursery.start_soon(read)
        async for item in receive:
            yield item


async def reads_beside(items):
    """Gives values of its own while a task reads, though that has failed."""
    async with trio.open_nursery() as nursery:

        async def read():
            async for _ in items:
                pass

        nursery.start_soon(read)
        for number in range(9):
            with trio.CancelScope(shield=True):
                await trio.sleep(6)
            yield number


@pytest.mark.parametrize("end", ["taken", "left", "aborted"])
@pytest.mark.parametrize("fn", [reads_ahead, reads_beside])
def test_a_failure_that_it_passes_on_when_it_is_stopped_is_kept_as_any_that_is_not_read(fn, end):
    async def slow(item):
        await trio.sleep(10)
        return item

    async def main():
        line = Pipeline.from_async_iterable(slowly).map(fails).through(fn, holds=9).buffer(2).map(slow)
        async with (line.take(2) if end == "taken" else line).open() as run:
            with suppress(Aborted):
                async for _ in run:
                    if end == "left":
                        break
                    if end == "aborted":
                        run.abort()
        return run.report

    for report in under_schedules(main):
        assert (report.outcome, type(report.error)) == ("completed" if end == "taken" else end, Boom)
        assert report.cleanup_errors == ()


# ---- what it holds open


def test_it_may_hold_a_deadline_over_its_yields():
    """As a source may: its own deadline is its own to handle."""

    async def for_three_seconds(items):
        with trio.move_on_after(3.5):
            async for item in items:
                yield item
        yield "over"

    log, report, _ = play(Pipeline.from_async_iterable(slowly).through(for_three_seconds))

    assert log == [(1.0, 0), (2.0, 1), (3.0, 2), (3.5, "over")]
    assert report.outcome == "completed"


@pytest.mark.parametrize("end", ["left", "aborted", "cancelled"])
def test_its_cleanup_is_awaited(end):
    said = []

    async def polite(items):
        try:
            async with trio.open_nursery():
                async for item in items:
                    yield item
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(0.5)
            said.append("good-bye")

    async def main():
        with trio.CancelScope() as scope:
            async with Pipeline.from_async_iterable(slowly).through(polite).open() as run:
                async for _ in run:
                    if end == "left":
                        break
                    if end == "cancelled":
                        scope.cancel()
                    else:
                        run.abort()
                        break
        return run.report

    report = run_virtual(main)

    assert said == ["good-bye"]
    assert report.cleanup_errors == ()


async def asks_shielded(items):
    with trio.CancelScope(shield=True):
        async for item in items:
            yield item


async def reads_shielded(items):
    send, receive = trio.open_memory_channel(1)

    async def read():
        with send, trio.CancelScope(shield=True):
            async for item in items:
                await send.send(item)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        async for item in receive:
            yield item


@pytest.mark.parametrize("fn", [asks_shielded, reads_shielded])
@pytest.mark.parametrize("end", ["left", "aborted", "cancelled", "failed"])
def test_one_that_asks_in_a_shielded_scope_is_told_the_end_when_the_run_stops(fn, end):
    """Nothing can cancel it there, and nothing more comes."""

    def failing(item):
        if end == "failed":
            raise Boom
        return item

    async def main():
        line = Pipeline.from_async_iterable(Script("a" + "-" * 30 + "b|")).through(fn).buffer(1).map(failing)
        with trio.CancelScope() as scope:
            async with line.open() as run:
                with suppress(Boom):
                    await run.receive()
                await trio.testing.wait_all_tasks_blocked()
                if end == "aborted":
                    run.abort()
                if end == "cancelled":
                    scope.cancel()
        return run.report.outcome, trio.current_time()

    assert run_virtual(main) == (end, 0)


def test_a_task_of_its_own_may_ask_for_the_items():
    """Such as one that reads ahead."""

    log, report, _ = play(Pipeline.from_async_iterable(slowly).through(read_ahead, holds=3))

    assert [item for _, item in log] == [*range(9)]
    assert (report.taken, report.delivered) == (9, 9)


@pytest.mark.parametrize("behind", [0, 1, 16])
def test_a_task_of_its_own_gets_what_is_handed_over_to_it(behind):
    """It waits for an item, while the stage waits for room, or for nothing."""

    async def slow(item):
        await trio.sleep(1)
        return item

    def main():
        line = Pipeline.from_iterable(range(9)).buffer(0).through(reads_ahead, holds=9).buffer(behind)
        return line.map(slow).collect()

    assert under_schedules(main) == [[*range(9)]] * 40


def test_only_one_task_at_a_time_may_ask():
    async def greedy(items):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(anext, items)
            await trio.testing.wait_all_tasks_blocked()
            yield await anext(items)

    log, _, _ = play(Pipeline.from_async_iterable(slowly).through(greedy))

    assert isinstance(log[-1][1], ExceptionGroup)
    assert [type(error) for error in log[-1][1].exceptions] == [trio.BusyResourceError]


def test_two_tasks_that_ask_by_turns_lose_no_wake_up():
    """One may ask while the other, which has asked often, lets others run."""

    async def in_turns(items):
        count = 0

        async def ask():
            nonlocal count
            while True:
                try:
                    await anext(items)
                except trio.BusyResourceError:
                    await trio.lowlevel.checkpoint()
                except StopAsyncIteration:
                    return
                else:
                    count += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
        yield count

    for _ in range(5):  # the order in which they run is random
        log, _, _ = play(Pipeline.from_iterable(range(300)).through(in_turns))

        assert [item for _, item in log] == [300]


@pytest.mark.parametrize("end", ["returns", "not needed", "aborted"])
def test_a_task_that_outlives_it_is_told_that_no_more_come(end):
    async def main():
        async with trio.open_nursery() as nursery:
            ended = trio.Event()

            async def read(items):
                async for _ in items:
                    pass
                ended.set()

            async def handing_on(items):
                nursery.start_soon(read, items)
                await trio.testing.wait_all_tasks_blocked()
                yield 1
                if end != "returns":
                    await trio.sleep_forever()

            line = Pipeline.from_async_iterable(never).through(handing_on)
            async with (line.take(1) if end == "not needed" else line).open() as run:
                await run.receive()
                if end == "aborted":
                    run.abort()
                with trio.fail_after(1):
                    await ended.wait()

    run_virtual(main)


@pytest.mark.parametrize("values", [0, 1, 2, 3])
def test_others_run_though_it_never_waits(values):
    """However many values it gives for each item."""

    async def several(items):
        yield None
        async for item in items:
            for _ in range(values):
                yield item

    class Steps(trio.abc.Instrument):
        number = 0

        def before_task_step(self, task):
            self.number += 1

    async def main():
        steps, seen = Steps(), Counter()

        def note(_item):
            seen[steps.number] += 1
            return False

        async def noted(items):
            async for item in several(watched(items)):
                yield item

        async def watched(items):
            async for item in items:
                note(item)
                yield item

        trio.lowlevel.add_instrument(steps)
        await Pipeline.from_iterable(range(1000)).buffer(1000).through(noted).filter(note).collect()
        return max(seen.values())

    assert run_virtual(main) <= 128


async def by_two(items):
    """Two tasks work at once, in a nursery that stays open over the yields."""
    into, work = trio.open_memory_channel(0)
    done, results = trio.open_memory_channel(0)

    async def feed():
        with into:
            async for item in items:
                await into.send(item)

    async def worker(work, done):
        with work, done:
            async for item in work:
                await trio.sleep(0.25)
                await done.send(item)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed)
        with work, done:
            for _ in range(2):
                nursery.start_soon(worker, work.clone(), done.clone())
        async for item in results:
            yield item


async def for_a_while(items):
    """Its deadline comes while it waits for room."""
    with trio.move_on_after(0.5):
        async for item in items:
            yield item
    yield "over"


@pytest.mark.parametrize("campaign", [cancel_everywhere, drain_everywhere, fail_everywhere, interrupt_everywhere])
@pytest.mark.parametrize("fn", [by_two, for_a_while])
def test_campaigns_close_it_as_a_run_does(campaign, fn):
    """What a campaign puts around it opens no scope inside, and passes on what is thrown into it."""

    async def slow(item):
        await trio.sleep(0.375)
        return item

    def line():
        return Pipeline.from_iterable(range(5)).buffer(1).through(fn, holds=3).buffer(1).map(slow)

    campaign(line)


# ---- where it stands


def test_it_is_an_input_like_any_other():
    lines = [Pipeline.from_iterable(range(3)).through(passed), Pipeline.from_iterable(range(3, 6)).through(passed)]

    for fan_in, view in ((merge, sorted), (concat, list)):
        assert view(run_virtual(fan_in(*lines).through(passed).collect)) == [*range(6)]


def test_it_runs_again_and_waits_are_told():
    plan = Pipeline.from_async_iterable(slowly).buffer(1).through(passed)

    log, report, _ = play(plan)
    again, _, _ = play(plan)

    assert again == log
    stage = report.stages[-1]
    assert (stage.kind, stage.waited_input, stage.used) == ("through", 9.0, 0.0)
    assert report.bottleneck == "slowly"


def test_one_that_takes_its_time_is_the_limit():
    async def slow(items):
        async for item in items:
            await trio.sleep(1)
            yield item

    _, report, _ = play(Pipeline.from_iterable(range(30)).through(slow))

    assert report.bottleneck == "slow"
    assert report.advice.startswith("slow: its generator is the limit, one item at a time")


def test_what_is_no_async_iterator_is_an_error_of_the_stream():
    for fn in (lambda items: 3, lambda items: passed(items).asend(None)):
        log, _, _ = play(Pipeline.from_async_iterable(Script("a|")).through(fn))

        assert isinstance(log[-1][1], MisuseError)


def test_how_it_reads_in_a_plan():
    pipeline = Pipeline.from_iterable([1]).through(passed, holds=4, name="again").map(str)

    assert "stage again: through passed, holding at most 4 -> map str" in pipeline.describe()
    assert pipeline.max_in_flight == 16 + 5 + 16
