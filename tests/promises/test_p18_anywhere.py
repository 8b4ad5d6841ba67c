"""P18: it works nested, many times at once, and in guest mode; context variables are those of the run's opener.

Mutants that die here: state kept in the plan; a task started in the context of the task that woke it; a group
around what leaves a block.
"""

import contextvars
import queue

import pytest
import trio

from funcpipe_trio import Pipeline, PlanError, concat, merge, zip_pipelines
from funcpipe_trio.testing import run_virtual
from tests._kit import nap

who = contextvars.ContextVar("who", default="nobody")


def stateful_plan():
    """A plan with every operation that keeps something."""
    numbers = Pipeline.from_iterable(range(40)).enumerate().map(lambda pair: sum(pair)).scan(lambda a, b: a + b, 0)
    return merge(concat(numbers.skip(3).take(9), numbers.skip_while(lambda n: n < 50))).batch(4, max_delay=1).unbatch()


def test_many_runs_of_one_plan_at_once_know_nothing_of_each_other():
    """Twenty runs, begun at different times: each gets what a single one gets."""
    plan = stateful_plan().map(nap, concurrency=4)
    alone = run_virtual(plan.collect)

    async def main():
        results = []

        async def one(delay):
            await trio.sleep(delay)
            results.append(await plan.collect())

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number * 0.7)
        return results

    assert run_virtual(main) == [alone] * 20


def test_a_run_within_a_function_of_a_run_within_nurseries():
    """Each item of a run opens a run; two levels of nurseries around it; the results are those of plain code."""

    async def inner(item):
        return sum(await Pipeline.from_iterable(range(item)).map(nap, concurrency=3).collect())

    async def main():
        async with trio.open_nursery(), trio.open_nursery():
            return await Pipeline.from_iterable(range(6)).map(inner, concurrency=2).collect()

    assert run_virtual(main) == [sum(range(item)) for item in range(6)]


def test_two_runs_opened_crosswise_in_one_task():
    """The block of one run inside that of another; the inner reads the outer."""

    async def main():
        async with (
            Pipeline.from_iterable(range(10)).open() as outer,
            Pipeline.from_channel(outer).map(nap).open() as inner,
        ):
            return [item async for item in inner]

    assert run_virtual(main) == list(range(10))


def test_guest_mode():
    """The whole thing inside of another loop's run."""
    todo, result = queue.Queue(), []

    async def main():
        return await stateful_plan().collect()

    trio.lowlevel.start_guest_run(
        main, run_sync_soon_threadsafe=todo.put, done_callback=lambda outcome: result.append(outcome)
    )
    while not result:
        todo.get(timeout=10)()

    assert result[0].unwrap() == run_virtual(main)


def test_context_variables_come_from_the_opener():
    """Sources, stages, workers started late, children, and a concat's later inputs see the opener's value."""
    seen = {}

    def see(place):
        seen.setdefault(place, set()).add(who.get())

    def source():
        see("source")
        yield from range(20)

    async def async_source():
        see("async source")
        for number in range(20):
            yield number

    async def produce(send):
        see("producer")
        await send.send(1)

    def fused(item):
        see("fused")
        return item

    async def call(item):
        see("worker")
        await trio.sleep(1)
        return item

    async def children(item):
        see("children")
        yield item

    def lazily():
        see("a later input of a concat")
        yield 1

    plan = concat(
        merge(Pipeline.from_iterable(source), Pipeline.from_async_iterable(async_source)).map(call, concurrency=9),
        Pipeline.from_producer(produce),
        Pipeline.from_iterable(lazily),
    )
    plan = plan.buffer(1).map(fused).flat_map(children).buffer(1)

    async def main():
        who.set("the opener")
        async with plan.open() as run:
            who.set("the consumer")
            async for _ in run:
                pass
            assert who.get() == "the consumer"

    run_virtual(main)
    places = ["source", "async source", "producer", "fused", "worker", "children", "a later input of a concat"]
    assert seen == {place: {"the opener"} for place in places}


def test_a_task_that_the_consumer_causes_has_the_context_of_the_opener():
    """A pull of the consumer begins the second input of a concat: its task is not in the consumer's context."""
    seen = []

    async def lazily():
        seen.append(who.get())
        yield 1

    plan = concat(Pipeline.from_iterable([0]), Pipeline.from_async_iterable(lazily))

    async def main():
        who.set("the opener")
        async with plan.open() as run:
            await trio.sleep(1)
            who.set("the consumer")
            return [item async for item in run]

    assert run_virtual(main) == [0, 1]
    assert seen == ["the opener"]


def test_a_stage_that_sets_a_variable_tells_nobody():
    """What a stage sets stays in its task."""

    def set_it(item):
        who.set("the stage")
        return item

    async def main():
        who.set("the opener")
        async with Pipeline.from_iterable(range(3)).map(set_it).open() as run:
            async for _ in run:
                assert who.get() == "the opener"

    run_virtual(main)


@pytest.mark.parametrize("where", ["function", "source", "body"])
def test_the_users_group_passes_unchanged(where):
    """P18: the same ExceptionGroup object, no group of ours around it, nothing taken out of it."""
    group = ExceptionGroup("mine", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])])

    def fail(item):
        raise group

    def source():
        yield 1
        raise group

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            plan = {"function": zip_pipelines(Pipeline.from_iterable([1])).map(fail)}.get(
                where, Pipeline.from_iterable(source if where == "source" else [1])
            )
            async with plan.open() as run:
                async for _ in run:
                    pass
                raise group
        return caught.value

    assert run_virtual(main) is group


def test_a_one_shot_source_is_used_once_and_says_so():
    """P18, P19: the second of two runs of a one-shot plan raises, and the first is not disturbed."""

    async def main():
        plan = Pipeline.from_iterable(iter(range(5)), name="once").map(nap)
        async with plan.open() as run:
            first = await run.receive()
            with pytest.raises(PlanError, match=r"source 'once': a one-shot iterable was already used by a run"):
                await plan.collect()
            return [first, *[item async for item in run]]

    assert run_virtual(main) == [0, 1, 2, 3, 4]
