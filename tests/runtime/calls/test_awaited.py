"""Functions that give something to await, though nobody sees that before they are called: awaited where one says so.

Mutants that die here: an answer that is an item, or a yes, though it should have been awaited; a stage that is fused,
or has one call at a time, for a function that does not look async; an answer that cannot be awaited and is taken for a
result; an error that does not say what to write; a count of calls or items in flight that is another one than for an
`async def` function.
"""

import functools
import re

import pytest
import trio

from funcpipe_trio import OnError, Pipeline, PlanError, Retry, Step, gather, threads
from funcpipe_trio.testing import cancel_everywhere, fail_everywhere, interrupt_everywhere, run_virtual
from tests._kit import one_step


class Calls:
    """Calls of a second, and how many were at work at once."""

    def __init__(self):
        self.now = self.most = 0
        self.started = []

    async def fetch(self, item):
        self.started.append((item, trio.current_time()))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await trio.sleep(1)
        finally:
            self.now -= 1
        return item + 100


class Request:
    """Something to await that is not a coroutine."""

    def __init__(self, calls, item):
        self.calls, self.item = calls, item

    def __await__(self):
        return self.calls.fetch(self.item).__await__()


class Client:
    """An object that is called."""

    def __init__(self, calls):
        self.calls = calls

    def __call__(self, item):
        return self.calls.fetch(item)

    def get(self, item):
        return self.calls.fetch(item)


FORMS = {
    "an async function": lambda calls: calls.fetch,
    "a lambda": lambda calls: lambda item: calls.fetch(item),
    "an object": Client,
    "a method": lambda calls: Client(calls).get,
    "a partial": lambda calls: functools.partial(lambda calls, item: calls.fetch(item), calls),
    "something else to await": lambda calls: lambda item: Request(calls, item),
    "a class": lambda calls: functools.partial(Request, calls),
}
every_form = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
NUMBERS = Pipeline.from_iterable(range(6))
RESULTS = [100, 101, 102, 103, 104, 105]
WAYS = {
    "map": (lambda fn, **more: NUMBERS.map(fn, **more), RESULTS),
    "map, as completed": (lambda fn, **more: NUMBERS.map(fn, ordered=False, **more), RESULTS),
    "map by key": (lambda fn, **more: NUMBERS.map(fn, key=lambda item: item, **more), RESULTS),
    "map, skipping": (lambda fn, **more: NUMBERS.map(fn, on_error=OnError.skip(), **more), RESULTS),
    "filter": (lambda fn, **more: NUMBERS.filter(fn, **more), [0, 1, 2, 3, 4, 5]),
    "tap": (lambda fn, **more: NUMBERS.tap(fn, **more), [0, 1, 2, 3, 4, 5]),
    "map of a step": (lambda fn, **more: NUMBERS.map(Step(fn), **more), RESULTS),
    "map of a step with policies": (
        lambda fn, **more: NUMBERS.map(Step(fn).timeout(9).retry(Retry(2)), **more),
        RESULTS,
    ),
    "filter by a step": (lambda fn, **more: NUMBERS.filter(Step(fn), **more), [0, 1, 2, 3, 4, 5]),
    "tap by a step": (lambda fn, **more: NUMBERS.tap(Step(fn), **more), [0, 1, 2, 3, 4, 5]),
}
every_way = pytest.mark.parametrize("way", WAYS)


@every_form
@every_way
@pytest.mark.parametrize("concurrency", [1, 2, 3])
def test_with_concurrency_whatever_it_gives_is_awaited(form, way, concurrency):
    """In a stage of its own, with so many calls at once, as of an async function."""
    calls, (make, expected) = Calls(), WAYS[way]
    plan = make(form(calls), concurrency=concurrency)

    async def main():
        return sorted(await plan.collect()), trio.current_time()

    assert run_virtual(main) == (expected, 6 / concurrency)
    assert calls.most == concurrency
    assert plan.max_in_flight == make(calls.fetch, concurrency=concurrency).max_in_flight == 32 + concurrency
    assert f", {concurrency} at a time" in plan.describe()


@every_form
def test_a_step_awaits_it_by_itself_too(form):
    calls = Calls()
    step = Step(form(calls))

    async def main():
        return await step(1), await step.start()(2), await gather(step, [3, 4], concurrency=2), trio.current_time()

    assert run_virtual(main) == (101, 102, [103, 104], 3)
    step.check()


@every_form
def test_flat_map_awaits_what_gives_the_items(form):
    calls = Calls()
    fn = form(calls)

    def twice(item):
        async def expanded():
            return [await fn(item)] * 2

        return expanded()

    plan = NUMBERS.flat_map(twice, concurrency=3)

    assert sorted(run_virtual(plan.collect)) == sorted(RESULTS * 2)
    assert calls.most == 3


@every_form
def test_dead_letters_may_go_to_one_in_a_step(form):
    async def fail(item):
        raise OSError

    calls = Calls()
    fn = form(calls)
    plan = NUMBERS.map(fail, on_error=OnError.divert(Step(lambda failure: fn(failure.item))))

    assert run_virtual(plan.collect) == []
    assert [item for item, _ in calls.started] == list(range(6))


@pytest.mark.parametrize("way", ["filter", "tap", "filter by a step", "tap by a step"])
def test_items_keep_their_order_however_long_the_calls_take(way):
    async def slow_first(item):
        await trio.sleep(6 - item)
        return item % 2

    plan = WAYS[way][0](slow_first, concurrency=6)
    expected = [1, 3, 5] if way.startswith("filter") else list(range(6))

    async def main():
        return await plan.collect(), trio.current_time()

    assert run_virtual(main) == (expected, 6)


def test_how_many_at_once_may_be_changed():
    calls = Calls()

    async def main():
        async with NUMBERS.tap(lambda item: calls.fetch(item), concurrency=1, name="calls").open() as run:
            run.set_concurrency("calls", 5)
            return [item async for item in run], trio.current_time()

    assert run_virtual(main) == ([0, 1, 2, 3, 4, 5], 2)


# ---- what cannot be awaited


def double(item):
    return item * 2


def gives_none(item):
    return None


MESSAGE = (
    "{!r} gave {} {}, which cannot be awaited: a step, or a function with concurrency, must be async\n"
    "Use Step(fn).on(threads(4)) for a sync function."
)


async def failure_of(plan):
    try:
        await plan.collect()
    except TypeError as error:
        return error
    raise AssertionError("it should fail")


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("map, skipping", "map of a step with policies")])
@pytest.mark.parametrize(("fn", "kind"), [(double, "int"), (gives_none, "NoneType"), (lambda item: [item], "list")])
def test_an_answer_that_cannot_be_awaited_is_an_error_at_its_item(way, fn, kind):
    """The first one; it says what to write, and shows no item. (What is known before to be wrong is refused.)"""
    plan = WAYS[way][0](fn, concurrency=2)
    plan.check()
    error = run_virtual(failure_of, plan)

    assert str(error) == MESSAGE.format(fn.__name__, "an" if kind == "int" else "a", kind)
    assert "item 0" in error.__notes__[0]


def test_it_is_a_mistake_in_the_program_that_no_policy_meets():
    plan = Pipeline.from_iterable([1]).map(double, concurrency=2, on_error=OnError.emit())
    error = run_virtual(failure_of, plan)

    assert str(error) == MESSAGE.format("double", "an", "int")


@pytest.mark.parametrize(
    ("fn", "name"), [(str, "str"), (print, "print"), (functools.partial(int, base=2), "int"), (list, "list")]
)
@pytest.mark.parametrize("verb", ["map", "filter", "tap"])
def test_what_surely_gives_nothing_to_await_is_a_problem_of_the_plan(verb, fn, name):
    """A class, or a function of Python's own: nothing starts. Without concurrency, it is fused as ever."""
    message = (
        f"{verb} {name!r}: with concurrency, fn must be an async function, or give something to await; "
        f"{name} never does.\nUse Step(fn).on(threads(4)), or leave out concurrency."
    )
    with pytest.raises(PlanError, match=rf"^{re.escape(message)}$"):
        getattr(NUMBERS, verb)(fn, concurrency=1).check()
    getattr(NUMBERS, verb)(fn).check()
    with pytest.raises(PlanError, match=rf"^step {name!r}: fn must be an async function, or give something to await"):
        getattr(NUMBERS, verb)(Step(fn), concurrency=1).check()


def test_a_generator_function_is_no_step():
    def generate(item):
        yield item

    with pytest.raises(PlanError, match=r"^step 'generate': fn must be an async function, or give something to await"):
        Step(generate).check()


def test_what_it_says_to_write_works():
    assert trio.run(NUMBERS.map(Step(abs).on(threads(2)), concurrency=2).collect) == list(range(6))


@every_way
def test_without_concurrency_it_is_as_sync_as_it_looks(way):
    """Nothing to await is taken for a value; a step awaits it."""
    calls, (make, expected) = Calls(), WAYS[way]
    if "step" in way:
        assert sorted(run_virtual(make(lambda item: calls.fetch(item)).collect)) == expected
        return
    if way == "map by key":
        with pytest.raises(PlanError, match=r"^map '<lambda>': key must not be given for a sync function"):
            make(lambda item: calls.fetch(item)).check()
        return
    error = run_virtual(failure_of, make(lambda item: calls.fetch(item)))

    assert str(error) == (
        "'<lambda>' is not async, but returned something to await\n"
        "Use concurrency=1, which awaits it, or an `async def` function."
    )


# ---- whatever happens to the run


def make():
    return (
        Pipeline.from_iterable(range(4))
        .map(lambda item: one_step(item), concurrency=2)
        .filter(lambda item: one_step(item), concurrency=2)
        .tap(Step(lambda item: one_step(item)).timeout(5), concurrency=2)
        .flat_map(lambda item: one_step([item]), concurrency=2)
    )


@pytest.mark.parametrize("campaign", [cancel_everywhere, fail_everywhere, interrupt_everywhere])
def test_nothing_is_lost_and_nothing_left(campaign):
    campaign(make)
