"""`or_else`: when is the other pipeline made, and what becomes of it when the run around it ends in another way?

Mutants that die here: a function that is called in vain, or twice; one that is called after a failure, or in a drain; a
drain or a pause that the run inside does not hear of; an item that is lost when it is stopped between the two runs; an
error of the other pipeline that overtakes its items, or is raised and kept; room that is not asked for.
"""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from funcpipe_trio import Failure, MisuseError, OnError, Pipeline, PlanError, concat, merge, zip_pipelines
from funcpipe_trio.testing import cancel_everywhere, drain_everywhere, fail_everywhere, run_virtual
from tests._kit import Boom, assert_stages_balance, endless, every, outcome_of

EMPTY = Pipeline.from_iterable([])


def never():
    raise AssertionError("it was not needed")


def numbers(count=3, period=1):
    return lambda: every(period, range(count))


def fails_at_two(item):
    if item == 2:
        raise Boom(item)
    return item


async def silent(channel):
    await trio.sleep_forever()


async def produce_forever(channel):
    for number in range(10**6):
        await trio.sleep(1)
        await channel.send(number)


# ---- when it is called


@pytest.mark.parametrize("item", [None, 0, (), Failure(1, Boom(), "s", 1)])
def test_any_item_makes_it_superfluous(item):
    assert run_virtual(Pipeline.from_iterable([item]).or_else(never).collect) == [item]


def test_it_is_called_once_for_each_run_that_ends_empty():
    calls = []

    def make():
        calls.append(None)
        return Pipeline.from_iterable([1, 2])

    plan = EMPTY.or_else(make)

    async def twice_at_once():
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(plan.run)

    assert run_virtual(plan.collect) == [1, 2]
    run_virtual(twice_at_once)

    assert len(calls) == 3


def test_items_that_were_dropped_before_it_do_not_count():
    plan = Pipeline.from_iterable(range(9)).filter(lambda item: False).or_else(numbers())
    report = run_virtual(plan.run)

    assert (report.taken, report.dropped, report.delivered) == (9, 9, 3)
    assert [(each.name, each.used, each.made) for each in report.remade] == [("<lambda>#2", 0, 3)]
    assert_stages_balance(report)


def test_a_failure_is_no_end():
    assert type(outcome_of(Pipeline.from_iterable([2]).map(fails_at_two).or_else(never)).error) is Boom
    skipping = Pipeline.from_iterable([2]).map(fails_at_two, on_error=OnError.skip())
    assert outcome_of(skipping.or_else(numbers())).items == [0, 1, 2]


def test_what_ends_ahead_of_it_is_an_end():
    assert outcome_of(Pipeline.from_async_iterable(endless).take(0).or_else(numbers())).items == [0, 1, 2]
    assert outcome_of(Pipeline.from_iterable([1]).or_else(never).take(0)).items == []
    assert outcome_of(EMPTY.or_else(never).take(0)).items == []


def test_each_input_of_a_fan_in_may_have_one():
    other = EMPTY.or_else(numbers())

    assert outcome_of(concat(other, Pipeline.from_iterable([7]))).items == [0, 1, 2, 7]
    assert outcome_of(zip_pipelines(other, Pipeline.from_iterable("ab"))).items == [(0, "a"), (1, "b")]
    assert outcome_of(merge(other, other)).items == [0, 0, 1, 1, 2, 2]
    assert outcome_of(concat(EMPTY, EMPTY, name="both").or_else(numbers())).items == [0, 1, 2]
    assert outcome_of(Pipeline.from_iterable("ab").flat_map(lambda _: other, concurrency=1)).items == [0, 1, 2] * 2


# ---- what it gives


def test_in_the_body_of_a_loop_it_would_be_another_source():
    plan = Pipeline.from_iterable([1]).loop(lambda body: body.or_else(numbers()), again=lambda item: [], room=9)

    with pytest.raises(PlanError, match="its body must take all items from the pipeline that it is given"):
        plan.check()


def test_its_failure_stands_behind_what_it_gave():
    seen = outcome_of(EMPTY.or_else(lambda: numbers(9)().map(fails_at_two)))

    assert (seen.items, type(seen.error), seen.times) == ([0, 1], Boom, [1, 2])
    assert seen.error.__notes__ == ["in stage 'fails_at_two', item 2", "in stage '<lambda>'"]
    assert (seen.report.outcome, seen.report.error, seen.report.cleanup_errors) == ("failed", seen.error, ())


def test_what_cannot_be_run_is_the_failure_of_the_stream():
    async def wrong():
        return EMPTY

    used = Pipeline.from_iterable(iter([1]))
    run_virtual(used.collect)

    assert type(outcome_of(EMPTY.or_else(lambda: 3)).error) is MisuseError
    assert type(outcome_of(EMPTY.or_else(lambda: wrong())).error) is MisuseError
    assert type(outcome_of(EMPTY.or_else(lambda: used)).error) is PlanError
    assert type(outcome_of(EMPTY.or_else(lambda: fails_at_two(2))).error) is Boom


def test_it_is_asked_only_while_there_is_room():
    taken = []

    def other():
        return Pipeline.from_iterable(range(100)).tap(taken.append).buffer(1)

    async def main():
        async with EMPTY.or_else(other).buffer(2).open() as run:
            await wait_all_tasks_blocked()
            before = len(taken)
            await run.receive()
            await wait_all_tasks_blocked()
            return before, len(taken), run.statistics()

    before, after, statistics = run_virtual(main)

    assert (before, after) == (3, 4)  # two in the link behind, one in the link inside
    assert sum(link.held for link in statistics.links) == 2


# ---- how it ends


def test_in_a_drain_nothing_is_started():
    async def main():
        async with Pipeline.from_producer(silent).or_else(never).open() as run:
            await wait_all_tasks_blocked()
            run.drain_nowait()
            assert [item async for item in run] == []
        return run.report

    assert run_virtual(main).outcome == "drained"


@pytest.mark.parametrize("steps", range(12))
def test_a_drain_at_the_moment_of_the_change(steps):
    """Whatever the step: it ends at once, and what the other gave by then is delivered."""

    async def main():
        items = []
        async with EMPTY.or_else(lambda: Pipeline.from_async_iterable(endless)).open() as run:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            run.drain_nowait()
            with trio.fail_after(1):
                async for item in run:
                    items.append(item)
        return items, run.report

    items, report = run_virtual(main)

    assert items == [*range(len(items))]
    assert (report.outcome, report.discarded) == ("drained", 0)
    assert_stages_balance(report)


@pytest.mark.parametrize("steps", range(16))
def test_a_stop_at_any_moment_of_the_change(steps):
    """Whatever the step: what was taken of the run inside is passed on or given up."""

    async def main():
        told = []
        plan = EMPTY.or_else(lambda: Pipeline.from_iterable(range(9), name="inner"), name="other").buffer(2)
        async with plan.open(on_discard=lambda *what: told.append(what)) as run:
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            run.abort()
        return run.report, told

    report, told = run_virtual(main)

    assert_stages_balance(report)
    assert report.discarded == len(told)
    assert sorted(item for item, _stage, _reason in told) == [*range(len(told))]


def test_a_drain_and_a_pause_reach_the_run_inside():
    async def main():
        came = []
        plan = EMPTY.or_else(lambda: Pipeline.from_producer(produce_forever))
        async with plan.open() as run, trio.open_nursery() as nursery:

            async def consume():
                async for item in run:
                    came.append((item, trio.current_time()))

            nursery.start_soon(consume)
            await trio.sleep(2.5)
            run.pause()
            await trio.sleep(10)
            run.resume()
            await trio.sleep(1.25)
            await run.drain()
        return came, run.report

    came, report = run_virtual(main)

    assert came == [(0, 1), (1, 2), (2, 3), (3, 12.5), (4, 13.5)]  # the source was asked for one before the pause
    assert report.outcome == "drained"


def test_paused_before_it_begins_it_gives_nothing_until_the_run_goes_on():
    async def main():
        send, receive = trio.open_memory_channel(1)
        async with Pipeline.from_channel(receive).or_else(numbers(1)).open() as run:
            await wait_all_tasks_blocked()
            run.pause()
            send.close()
            with trio.move_on_after(5):
                await run.receive()
            run.resume()
            return await run.receive(), trio.current_time()

    assert run_virtual(main)[0] == 0


@pytest.mark.parametrize("end", ["left", "aborted", "cancelled"])
def test_what_it_holds_is_given_up_in_both_names(end):
    told = []

    async def main():
        with trio.CancelScope() as scope:
            plan = EMPTY.or_else(lambda: Pipeline.from_iterable(range(9), name="inner").buffer(3), name="other").buffer(
                1
            )
            async with plan.open(on_discard=lambda *what: told.append(what)) as run:
                await wait_all_tasks_blocked()
                if end == "aborted":
                    run.abort()
                elif end == "cancelled":
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
        return run.report

    report = run_virtual(main)
    reason = "not needed" if end == "left" else end

    assert sorted(told) == sorted([(0, "other", reason), *((item, "other > inner", reason) for item in range(1, 3))])
    assert (report.discarded, report.outcome) == (3, end)
    assert_stages_balance(report)


def test_errors_of_cleanup_inside_are_those_of_the_run():
    async def feed():
        try:
            yield 1
            await trio.sleep(9)
        finally:
            raise Boom("closing")

    async def main():
        async with EMPTY.or_else(lambda: Pipeline.from_async_iterable(feed)).open() as run:
            assert await run.receive() == 1
        return run.report

    (error,) = run_virtual(main).cleanup_errors

    assert type(error) is Boom


@pytest.mark.parametrize("campaign", [cancel_everywhere, drain_everywhere, fail_everywhere])
def test_everywhere(campaign):
    def make():
        return (
            every(1, range(2))
            .filter(lambda item: item > 5)
            .or_else(lambda: every(1, range(5)).map(fails_at_two, on_error=OnError.emit()).buffer(1))
            .batch(2)
            .buffer(1)
        )

    campaign(make)


def test_the_advice_names_what_is_inside():
    report = outcome_of(EMPTY.or_else(numbers(9), name="other")).report

    assert report.bottleneck == "other"
    assert report.advice == "other: nothing else limits; only a pipeline inside it that gives more would help"
