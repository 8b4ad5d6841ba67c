"""What a newcomer writes first: an error at once that says what to write instead. A plan stays a value like others."""

import asyncio

import pytest
import trio

from funcpipe_trio import CircuitBreaker, OnError, Pipeline, Retry, StateError, Step, gather
from funcpipe_trio.testing import run_virtual

PLAN = Pipeline.from_iterable(range(3))
OPEN = "Use `async with plan.open() as run: async for item in run: ...`"


async def numbers():
    yield 1


async def async_for(iterable):
    async for _item in iterable:
        pass


async def wait_for(thing):
    await thing


def enter(thing):
    with thing:
        pass


def for_each(iterable):
    for _item in iterable:
        pass


@pytest.mark.parametrize(
    ("call", "word", "use"),
    [
        (lambda: run_virtual(async_for, PLAN), "`async with plan.open()`", OPEN),
        (lambda: run_virtual(async_for, PLAN.open()), "`async with`", OPEN),
        (lambda: run_virtual(wait_for, PLAN), "`await plan.run()`", OPEN),
        (lambda: run_virtual(wait_for, PLAN.open()), "`async with`", OPEN),
        (lambda: for_each(PLAN), "`await plan.collect()`", OPEN),
        (lambda: list(PLAN), "`await plan.collect()`", OPEN),
        (lambda: for_each(PLAN.open()), "`async with`", OPEN),
        (lambda: enter(PLAN.open()), "`async with`", OPEN),
        (lambda: Pipeline.from_iterable(numbers()), "from_async_iterable", "Use Pipeline.from_async_iterable(items)."),
        (lambda: Pipeline.from_iterable(numbers), "from_async_iterable", "Use Pipeline.from_async_iterable(items)."),
    ],
)
def test_the_error_says_what_to_use(call, word, use):
    """In its first line, and in one that begins with "Use"."""
    with pytest.raises(TypeError) as met:
        call()
    first, second = str(met.value).splitlines()

    assert word in first
    assert second.startswith(use)


async def opened():
    async with PLAN.open():
        pass


@pytest.mark.parametrize(
    "call",
    [PLAN.collect, PLAN.run, PLAN.first, PLAN.count, lambda: gather(Step(wait_for), [1], concurrency=1), opened],
)
def test_on_another_event_loop_it_says_so(call):
    """Nothing was begun, so nothing is left there."""

    async def main():
        await call()

    with pytest.raises(StateError) as met:
        asyncio.run(main())
    first, second = str(met.value).splitlines()

    assert "trio.run(...)" in first
    assert second.startswith("Use `trio.run(plan.collect)`")


async def give_plan(item):
    return PLAN


@pytest.mark.parametrize(
    "line",
    [
        PLAN.take(1).map(lambda item: PLAN),
        PLAN.take(1).map(give_plan),
        PLAN.take(1).map(Step(give_plan)),
        PLAN.take(1).map(Step(give_plan).map(lambda plan: plan)),
        Pipeline.from_iterable([PLAN]).map(lambda item: item),
    ],
)
def test_a_pipeline_is_an_item_like_others(line):
    """That to await one says what to use makes it nothing to await."""
    assert run_virtual(line.collect) == [PLAN]


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("fn", [lambda item: PLAN, give_plan])
def test_a_pipeline_is_expanded_as_before(fn, concurrency):
    line = PLAN.take(1).flat_map(fn, concurrency=concurrency)

    assert run_virtual(line.collect) == [0, 1, 2]


def test_a_pipeline_that_an_iterable_was_to_be_is_an_error_of_the_stream():
    with pytest.raises(TypeError, match=r"^Pipeline: a plan holds no items; `await plan\.collect\(\)` gives a list"):
        trio.run(Pipeline.from_iterable(lambda: PLAN).collect)


@pytest.mark.parametrize("policy", [OnError.skip(), OnError.emit()], ids=["skip", "emit"])
@pytest.mark.parametrize(
    "make",
    [
        lambda line, calls, on_error: line.map(calls.sync, concurrency=2, on_error=on_error),
        lambda line, calls, on_error: line.map(Step(calls.sync).retry(Retry(3)), on_error=on_error),
        lambda line, calls, on_error: line.map(
            Step(calls.sync).circuit_breaker(CircuitBreaker(failures=1)).retry(Retry(3)), on_error=on_error
        ),
        lambda line, calls, on_error: line.map(lambda item: calls.later(item), on_error=on_error),
    ],
    ids=["a sync function", "a sync step, tried again", "behind a breaker", "a lambda that is async"],
)
def test_no_policy_hides_a_function_of_the_wrong_kind(make, policy):
    """It is a mistake in the program, not a failure of an item: it ends the run at the first one, and is made once."""

    class Calls:
        made = 0

        def sync(self, item):
            self.made += 1
            return item

        async def later(self, item):
            return item

    calls = Calls()
    with pytest.raises(TypeError, match=r"cannot be awaited|returned something to await"):
        run_virtual(make(Pipeline.from_iterable(range(9)), calls, policy).collect)
    assert calls.made <= 2
