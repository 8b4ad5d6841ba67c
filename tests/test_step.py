"""Steps: what one is, the laws of putting steps together, the order of policies, and `gather`.

Mutants that die here: a `then` that nests; a policy applied outside in; a step that keeps state from call to call, or a
started one that does not; building that calls something; a layer that eats a cancellation, or does not put its state
right; a missing checkpoint; `gather` that gives results as they come, takes items before there is a place, waits for
the others after a failure, or lets a group out.
"""

import contextvars
import copy
import dataclasses
import math
import pickle
import tracemalloc
from collections import Counter
from fractions import Fraction
from functools import partial, reduce
from itertools import count, repeat

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    CircuitOpen,
    OnError,
    Pipeline,
    PlaceLimiter,
    PlanError,
    RateLimit,
    RateLimiter,
    Retry,
    Step,
    chunked,
    gather,
    threads,
)
from funcpipe_trio._plan.steps import Call, Limit, Places, Pure, StepPlan, Timeout, Within
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

laws = settings(max_examples=25, deadline=None)

SECOND = Backoff(1, factor=1, jitter=0)
"""Waits of exactly one second."""


async def embed(text):
    await trio.sleep(1)
    return f"<{text}>"


async def store(vector):
    await trio.sleep(2)
    return len(vector)


def parse(text):
    return int(text)


def double(number):
    return number * 2


def size(text):
    return len(text)


async def inline(fn, *args):
    """A runner that needs no thread."""
    return fn(*args)


def never(*args):
    raise AssertionError("nothing may run")


async def never_async(*args):
    never()


async def refused(call):
    """Return the outcome of a call: what it returned, or the type, arguments and notes of what it raised; and when."""
    try:
        outcome = await call
    except Exception as error:
        outcome = type(error), error.args, getattr(error, "__notes__", [])
    return trio.current_time(), outcome


# ---- a value


FULL = (
    Step(embed)
    .rate_limit(RateLimit(8, burst=20), cost=size)
    .timeout(8)
    .retry(Retry(4, on=(OSError, trio.TooSlowError)))
    .circuit_breaker(CircuitBreaker(failures=3))
    .then(Step(parse).on(threads(4)))
    .map(double)
    .timeout(30)
)


def test_steps_are_equal_when_they_say_the_same():
    """Equality and hash go by function, name, policies and their order."""

    def make():
        return Step(embed).rate_limit(RateLimit(2)).timeout(8).retry(Retry(4)).then(Step.pure(size)).map(double)

    others = [
        Step(embed),
        Step(store),
        Step(embed, name="other"),
        Step(embed, idempotent=False),
        Step(embed).timeout(8),
        Step(embed).timeout(9),
        Step(embed).timeout(8).retry(Retry(4)),
        Step(embed).retry(Retry(4)).timeout(8),
        Step(embed).rate_limit(RateLimit(2)),
        Step(embed).rate_limit(RateLimiter(RateLimit(2))),
        Step(embed).rate_limit(RateLimit(2), cost=size),
        Step(parse).on(threads(1)),
        Step(parse).on(threads(2)),
        make(),
    ]

    assert make() == make()
    assert hash(make()) == hash(make())
    assert [[left == right for right in others] for left in others] == [
        [left is right for right in others] for left in others
    ]
    assert (Step(embed) == "embed", Step(embed) != embed) == (False, True)


def test_a_shared_limiter_is_part_of_what_a_step_is():
    """Two steps with one limiter are equal, with two limiters of one limit they are not."""
    limiter = RateLimiter(RateLimit(2))

    assert Step(embed).rate_limit(limiter) == Step(embed).rate_limit(limiter)
    assert Step(embed).rate_limit(limiter) != Step(embed).rate_limit(RateLimiter(RateLimit(2)))


def test_a_step_never_changes():
    """No attribute can be set, added or deleted, and every method leaves it as it was."""
    step = Step(embed)
    with pytest.raises(AttributeError, match=r"^Step: plan cannot be set, a step never changes$"):
        step.plan = FULL.plan
    with pytest.raises(AttributeError, match=r"^Step: colour cannot be set, a step never changes$"):
        step.colour = "red"
    with pytest.raises(AttributeError, match=r"^Step: plan cannot be deleted, a step never changes$"):
        del step.plan
    step.timeout(1), step.retry(Retry(2)), step.then(Step(store)), step.map(double), step.start()

    assert step == Step(embed)


@pytest.mark.parametrize("again", [lambda step: pickle.loads(pickle.dumps(step)), copy.copy, copy.deepcopy])
def test_a_step_can_be_copied_and_pickled(again):
    """With module functions it comes back equal, and works."""
    step = again(FULL)

    assert step is not FULL or again is copy.copy
    assert (step, hash(step), step.describe()) == (FULL, hash(FULL), FULL.describe())
    assert run_virtual(again(Step(embed).retry(Retry(2)).map(size)), "abc") == 5


def test_a_step_says_its_name():
    """The function's name, or the given one; `then` shows both, a policy and `map` change nothing."""
    named = Step(embed, name="vectors")

    assert (Step(embed).name, Step(embed).__name__, repr(Step(embed))) == ("embed", "embed", "<Step embed>")
    assert [step.name for step in (named, named.timeout(1), named.map(size), named.then(Step(store)))] == [
        "vectors",
        "vectors",
        "vectors",
        "vectors > store",
    ]
    assert Step(partial(embed)).name == "embed"
    assert (Step.pure(size).name, Step.pure(size, name="length").name) == ("size", "length")
    assert (repr(named.start()), named.start().__name__) == ("<StartedStep vectors>", "vectors")


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (Step(embed), "step embed\n  call embed"),
        (Step(embed, name="vectors", idempotent=False), "step vectors\n  call embed, not idempotent"),
        (Step.pure(size), "step size\n  size"),
        (
            Step(parse).on(inline).rate_limit(RateLimiter(RateLimit(8, per=2, burst=20))),
            "step parse\n  call parse on inline\n    rate limit of 8 in 2 s, burst 20, shared",
        ),
        (
            Step(embed).retry(Retry(3)).then(Step(store).timeout(1.5)).retry(Retry(1)),
            "step embed > store\n"
            "  call embed\n"
            "    retry: up to 3 attempts on Exception, waits 0.1 s x 2 up to 10 s +-10%\n"
            "  then call store\n"
            "    timeout of 1.5 s\n"
            "    retry: up to 1 attempts on Exception around all of these",
        ),
        (
            FULL,
            "step embed > parse\n"
            "  call embed\n"
            "    rate limit of 8 in 1 s, burst 20, an item costs what size says\n"
            "    timeout of 8 s\n"
            "    retry: up to 4 attempts on OSError or TooSlowError, waits 0.1 s x 2 up to 10 s +-10%\n"
            "    circuit breaker: opens after 3 failures in a row, probes after 30 s\n"
            "  then call parse on up to 4 threads\n"
            "  then double\n"
            "    timeout of 30 s around all of these",
        ),
    ],
    ids=lambda value: value.name if isinstance(value, Step) else "",
)
def test_a_step_describes_itself(step, text):
    """A line for each call and policy, inside out."""
    assert step.describe() == text


def test_building_runs_nothing():
    """No function, cost, predicate or runner is called before an item is there, and no trio is needed."""
    step = (
        Step(never)
        .on(never_async)
        .rate_limit(RateLimit(1), cost=never)
        .timeout(1)
        .retry(Retry(3, on=never, retry_after=never))
        .circuit_breaker(CircuitBreaker(on=never))
        .then(Step.pure(never))
        .map(never)
    )
    step.check()
    started = step.start()

    assert step.describe().count("never") == 10
    assert (step == copy.copy(step), hash(step) == hash(copy.copy(step))) == (True, True)
    assert Pipeline.from_iterable(range(3)).map(step).describe()
    assert started.statistics().retries == 0


# ---- refused


SYNC = (
    "step 'int': fn must be an async function, or give something to await, unless something runs it.\n"
    "Use Step(fn).on(threads(4)), or Step.pure(fn) for one that takes no time."
)
ONCE = (
    "step 'store': a step with idempotent=False must not be retried: a failed call may have had its effect.\n"
    "Use idempotent=True if calling it again does no harm."
)


def test_a_sync_function_needs_a_runner():
    """It is a PlanError when it is used: by itself, started, gathered, or in a pipeline."""
    step = Step(embed).then(Step(int)).timeout(1)

    with pytest.raises(PlanError) as checked:
        step.check()
    with pytest.raises(PlanError) as started:
        step.start()
    with pytest.raises(PlanError) as called:
        run_virtual(step, "1")
    with pytest.raises(PlanError) as gathered:
        run_virtual(partial(gather, step, ["1"], concurrency=1))
    with pytest.raises(PlanError) as in_pipeline:
        Pipeline.from_iterable(["1"]).map(step).check()

    assert [str(caught.value) for caught in (checked, started, called, gathered, in_pipeline)] == [SYNC] * 5
    assert run_virtual(Step(parse).on(inline), "1") == 1


def test_a_step_that_is_not_idempotent_is_not_retried():
    """`retry` is a PlanError around it, also when it is one of several, or has other policies around it already."""
    once = Step(store, idempotent=False)
    for build in (
        lambda: once.retry(Retry(2)),
        lambda: once.timeout(1).map(double).retry(Retry(2)),
        lambda: Step(embed).then(once).retry(Retry(2)),
        lambda: once.then(Step(embed)).timeout(1).then(Step(store)).retry(Retry(2)),
        lambda: Step(once.start()).retry(Retry(2)),
        lambda: Step(embed).fallback(Step(once.timeout(1).start(), name="pay")).timeout(1).retry(Retry(2)),
        lambda: Step(Step(once.start()).timeout(1).start()).retry(Retry(2)),
    ):
        with pytest.raises(PlanError) as caught:
            build()

        assert str(caught.value) == ONCE
    with pytest.raises(PlanError) as both:
        once.then(Step(embed, idempotent=False)).retry(Retry(2))

    assert both.value.problems == (ONCE, ONCE.replace("store", "embed"))
    assert Step(once.start(), name="pay").timeout(1).describe().splitlines()[1] == "  call store, not idempotent"
    assert Step(embed).retry(Retry(2)).then(once).timeout(1).describe().count("retry") == 1


@pytest.mark.parametrize(
    ("kind", "build", "message"),
    [
        (TypeError, lambda: Step(1), "Step: fn must be callable, not 1"),
        (
            TypeError,
            lambda: Step(Step.pure(size)),
            "Step: fn must be a function, not a Step\nUse the step itself.",
        ),
        (TypeError, lambda: Step(embed, name=1), "Step: name must be a str, not 1"),
        (ValueError, lambda: Step(embed, name=""), "Step: name must not be empty, not ''"),
        (TypeError, lambda: Step(embed, idempotent=1), "Step: idempotent must be a bool, not 1"),
        (TypeError, lambda: Step(embed).retry(3), "Step.retry: retry must be a Retry, not 3"),
        (
            TypeError,
            lambda: Step(embed).timeout("1"),
            "Step.timeout: seconds must be a number of seconds > 0, not a str of length 1",
        ),
        (
            ValueError,
            lambda: Step(embed).timeout(math.inf),
            "Step.timeout: seconds must be a number of seconds > 0, finite, not inf",
        ),
        (
            TypeError,
            lambda: Step(embed).rate_limit(3),
            "Step.rate_limit: limit must be a RateLimit, a RollingLimit or a RateLimiter, not 3",
        ),
        (
            TypeError,
            lambda: Step(embed).circuit_breaker(3),
            "Step.circuit_breaker: breaker must be a CircuitBreaker, not 3",
        ),
        (TypeError, lambda: Step(embed).map(3), "Step.map: fn must be callable, not 3"),
        (
            TypeError,
            lambda: Step(embed).then(3),
            "Step.then: step must be a Step, not 3\nUse .then(Step(fn)), or .map(fn) for a sync function.",
        ),
        (TypeError, lambda: Step(embed).coalesce(3), "Step.coalesce: key must be callable, not 3"),
        (
            ValueError,
            lambda: Step(embed).hedge(0),
            "Step.hedge: after must be a number of seconds > 0, finite, not 0",
        ),
        (TypeError, lambda: Step(embed).hedge(1, 2.0), "Step.hedge: most must be an int >= 2, not 2.0"),
        (ValueError, lambda: Step(embed).hedge(1, most=1), "Step.hedge: most must be >= 2, not 1"),
        (
            TypeError,
            lambda: Step(embed).fallback(embed),
            "Step.fallback: step must be a Step, not the async function embed\n"
            "Use .fallback(Step(fn)), or .fallback(Step.pure(fn)) for a sync function.",
        ),
        (
            PlanError,
            lambda: Step(parse).timeout(1).on(inline),
            "step 'parse': on must come first, and once: it says where the function runs.\n"
            "Use Step(fn).on(runner), then the policies around it.",
        ),
        (
            PlanError,
            lambda: Step(parse).on(inline).on(inline),
            "step 'parse': on must come first, and once: it says where the function runs.\n"
            "Use Step(fn).on(runner), then the policies around it.",
        ),
        (
            PlanError,
            lambda: Step(embed).on(inline),
            "step 'embed': on must have a sync function, not an async one, which needs no runner.",
        ),
        (
            TypeError,
            lambda: Step(parse).on(3),
            "Step.on: runner must be threads(n), processes(n), executor(ex), "
            "or an async function runner(fn, *args), not 3",
        ),
    ],
)
def test_what_a_step_refuses(kind, build, message):
    """At the call that is wrong, with the value and the rule."""
    with pytest.raises(kind) as caught:
        build()

    assert (type(caught.value), str(caught.value)) == (kind, message)


async def many(item):
    yield item


CALL = Call(parse, "parse", idempotent=True)
ONE_CALL = (Call(embed, "embed", idempotent=True),)
LIMIT = Limit(RateLimit(1))
LIMITER = RateLimiter(RateLimit(1))
PLACES = Places(2, PlaceLimiter(2))
TWICE = "Step.rate_limit: a limiter must be met once by a call, not twice\nUse cost= to let it take more."


@pytest.mark.parametrize(
    ("kind", "node", "changes", "message"),
    [
        (TypeError, CALL, {"fn": 1}, "Step: fn must be callable, not 1"),
        (
            TypeError,
            CALL,
            {"fn": many},
            "Step: fn must be no async generator function, not the async generator function many\n"
            "Use flat_map to put many values in an item's place.",
        ),
        (TypeError, CALL, {"name": 1}, "Step: name must be a str, not 1"),
        (ValueError, CALL, {"name": ""}, "Step: name must not be empty, not ''"),
        (TypeError, CALL, {"idempotent": 1}, "Step: idempotent must be a bool, not 1"),
        (
            PlanError,
            ONE_CALL[0],
            {"runner": threads(1)},
            "step 'embed': on must have a sync function, not an async one, which needs no runner.",
        ),
        (TypeError, Pure(size), {"fn": 1}, "Step.pure: fn must be callable, not 1"),
        (TypeError, Pure(size), {"fn": embed}, "Step.pure: fn must be a sync function, not the async function embed"),
        (
            TypeError,
            Timeout(1),
            {"seconds": "1"},
            "Step.timeout: seconds must be a number of seconds > 0, not a str of length 1",
        ),
        (
            ValueError,
            Timeout(1),
            {"seconds": 0},
            "Step.timeout: seconds must be a number of seconds > 0, finite, not 0",
        ),
        (
            TypeError,
            LIMIT,
            {"rate_limit": 3},
            "Step.rate_limit: limit must be a RateLimit, a RollingLimit or a RateLimiter, not 3",
        ),
        (TypeError, LIMIT, {"cost": 1}, "Step.rate_limit: cost must be callable, not 1"),
        (
            TypeError,
            LIMIT,
            {"cost": embed},
            "Step.rate_limit: cost must be a sync function, not the async function embed",
        ),
        *(
            (TypeError, LIMIT, {name: value}, f"Step.rate_limit: {name} must be {rule}")
            for name in ("key", "settle")
            for value, rule in ((1, "callable, not 1"), (embed, "a sync function, not the async function embed"))
        ),
        (TypeError, PLACES, {"places": 1.5}, "Step.places: places must be an int >= 1, not 1.5"),
        (TypeError, PLACES, {"places": True}, "Step.places: places must be an int >= 1, not True"),
        (ValueError, PLACES, {"places": 0}, "Step.places: places must be >= 1, not 0"),
        (TypeError, PLACES, {"key": embed}, "Step.places: key must be a sync function, not the async function embed"),
        (
            ValueError,
            Within((Within((Within(ONE_CALL, PLACES),), Timeout(1)),), Timeout(1)),
            {"layer": PLACES},
            "Step.places: a call must not wait for a second place of a limiter while it holds one\n"
            "Use .places(limiter) once.",
        ),
        (
            PlanError,
            Within((Call(store, "store", idempotent=False),), Timeout(1)),
            {"layer": Retry(2)},
            ONCE,
        ),
        (
            ValueError,
            Within((Within(ONE_CALL, Limit(RateLimit(1), LIMITER)),), Timeout(1)),
            {"layer": Limit(RateLimit(1), LIMITER)},
            TWICE,
        ),
        (TypeError, StepPlan("embed", ONE_CALL), {"name": 1}, "Step: name must be a str, not 1"),
        (ValueError, StepPlan("size", (Pure(size),)), {"name": ""}, "Step.pure: name must not be empty, not ''"),
    ],
)
def test_a_part_of_a_step_refuses_what_its_method_refuses(kind, node, changes, message):
    """Made directly, or changed by `replace`: the same error with the same words."""
    present = {each.name: getattr(node, each.name) for each in dataclasses.fields(node)}
    for make in (partial(type(node), **present | changes), partial(dataclasses.replace, node, **changes)):
        with pytest.raises(kind) as caught:
            make()

        assert (type(caught.value), str(caught.value)) == (kind, message)


@pytest.mark.parametrize("fn", [embed, never_async, Step.pure], ids=["embed", "never_async", "pure"])
def test_pure_and_map_take_sync_functions(fn):
    """An async one is refused when it shows, and is an error of the item when only its result does."""
    if fn is Step.pure:

        def hidden(item):
            return embed(item)

        message = "a pure function of a step returned something to await\nUse .then(Step(fn)) for an async one."
        for step in (Step.pure(hidden), Step.pure(str).map(hidden)):
            with pytest.raises(TypeError) as caught:
                run_virtual(step, "a")

            assert str(caught.value) == message
        return
    with pytest.raises(
        TypeError, match=rf"^Step\.pure: fn must be a sync function, not the async function {fn.__name__}$"
    ):
        Step.pure(fn)
    with pytest.raises(
        TypeError, match=rf"^Step\.map: fn must be a sync function, not the async function {fn.__name__}$"
    ):
        Step(embed).map(fn)


# ---- laws


class World:
    """Functions that take time, fail, and write down when they were called with what."""

    def __init__(self):
        self.log = []
        self.calls = Counter()

    def begin(self):
        self.log, self.calls = [], Counter()

    def call(self, name, delay, failures, *policies):
        """A step that fails its first calls with each item."""

        async def fn(item):
            number, self.calls[name, item[0]] = self.calls[name, item[0]], self.calls[name, item[0]] + 1
            self.log.append((trio.current_time(), name, item))
            await trio.sleep(delay)
            if number < failures:
                raise KeyError(name, item, number)
            return *item, name

        step = Step(fn, name=name)
        for policy in policies:
            step = policy(step)
        return step

    def observed(self, step, prepare=lambda item: item):
        """Everything that can be seen of a step: results, notes, times, what was called when, and what was counted."""
        self.begin()

        async def alone(number):
            await trio.sleep(number / 4)
            seen[number] = await refused(started(prepare((number,))))

        async def main():
            async with trio.open_nursery() as nursery:
                for number in range(4):
                    nursery.start_soon(alone, number)

        async def stage():
            times, pipeline = [], Pipeline.from_iterable([prepare((number,)) for number in range(4)])
            pipeline = pipeline.map(step, concurrency=3, name="stage", on_error=OnError.emit())
            async with pipeline.open() as run:
                async for result in run:
                    told = getattr(result, "error", None)
                    what = (told.args, told.__notes__, result.attempts) if told is not None else result
                    times.append((trio.current_time(), what))
            return times, run.report.stages[-1].policies

        seen, started = {}, Step.from_plan(step.plan).start()
        with scheduled(Schedule(0)):
            run_virtual(main)
            log = self.log
            self.begin()
            return seen, log, started.statistics(), run_virtual(stage), self.log


def mapped(item):
    return *item, "mapped"


POLICIES = [
    lambda step: step.timeout(1.5),
    lambda step: step.timeout(4),
    lambda step: step.retry(Retry(2, backoff=Backoff(0.5))),
    lambda step: step.retry(Retry(3, on=trio.TooSlowError, backoff=SECOND)),
    lambda step: step.rate_limit(RateLimit(2, burst=2)),
    lambda step: step.circuit_breaker(CircuitBreaker(2, 3)),
    lambda step: step.map(mapped),
]
policies = st.lists(st.sampled_from(POLICIES), max_size=3)
delays = st.sampled_from((0, 0.5, 1, 1.5, 2))


@st.composite
def worlds(draw, names):
    """A world, and a step of it for each name."""
    world = World()
    return world, *(world.call(name, draw(delays), draw(st.integers(0, 2)), *draw(policies)) for name in names)


@laws
@given(worlds("abc"), policies)
def test_then_is_associative(world_and_steps, around):
    """(a > b) > c and a > (b > c) are one plan, with policies around, too: equal results, notes, times and counts."""
    world, a, b, c = world_and_steps
    left, right = a.then(b).then(c), a.then(b.then(c))
    for policy in around:
        left, right = policy(left), policy(right)

    assert (left, hash(left), left.describe()) == (right, hash(right), right.describe())
    assert world.observed(left) == world.observed(right)


def renamed(observed, before, after):
    """Put one name in a note in another's place."""
    seen, *rest = observed
    return {
        number: (
            when,
            (*what[:2], [note.replace(f"in step {before!r}", f"in step {after!r}") for note in what[2]])
            if isinstance(what[0], type)
            else what,
        )
        for number, (when, what) in seen.items()
    }, *rest


@laws
@given(worlds("a"))
def test_pure_is_the_identity_of_then_on_both_sides(world_and_step):
    """A pure step that changes nothing adds nothing, before or behind: no time, no note, no turn; but its name."""
    world, step = world_and_step
    same = Step.pure(lambda item: item, name="same")

    assert renamed(world.observed(same.then(step)), "same > a", "a") == world.observed(step)
    assert renamed(world.observed(step.then(same)), "a > same", "a") == world.observed(step)


@laws
@given(worlds("a"))
def test_a_pure_step_lifts_a_function(world_and_step):
    """`then` behind a pure step is the step on what the function gives, and `map` is `then` with a pure step."""
    world, step = world_and_step
    behind = step.then(Step.pure(mapped))

    assert renamed(world.observed(Step.pure(mapped).then(step)), "mapped > a", "a") == world.observed(step, mapped)
    assert step.map(mapped).plan.parts == behind.plan.parts
    assert renamed(world.observed(behind), "a > mapped", "a") == world.observed(step.map(mapped))


@laws
@given(worlds("a"))
def test_maps_compose(world_and_step):
    """Mapping one function and then another is mapping both."""
    world, step = world_and_step

    def f(item):
        return *item, "f"

    def g(item):
        return *item, "g"

    assert world.observed(step.map(f).map(g)) == world.observed(step.map(lambda item: g(f(item))))


@given(st.integers(), st.integers(-5, 5))
@settings(max_examples=30, deadline=None)
def test_pure_gives_what_the_function_gives(number, added):
    """And maps of it compose like the functions."""

    def add(item):
        return item + added

    async def main():
        return await Step.pure(add)(number), await Step.pure(add).map(add)(number), trio.current_time()

    assert run_virtual(main) == (number + added, number + 2 * added, 0)


@laws
@given(worlds("ab"))
def test_a_step_runs_any_number_of_times(world_and_steps):
    """Each start, and each run of a pipeline, begins with fresh state: twice the same."""
    world, a, b = world_and_steps
    step = a.then(b).timeout(5)

    assert world.observed(step) == world.observed(step)


def test_three_thousand_steps_in_a_row():
    """However they are nested, no stack is as deep as the row is long."""

    async def one_more(number):
        return number + 1

    one = Step(one_more)
    left = reduce(Step.then, [one] * 3000)
    right = reduce(lambda behind, step: step.then(behind), [one] * 3000)
    mapped = reduce(Step.map, [double] * 3000, one).then(one)

    async def main():
        pipeline = Pipeline.from_iterable([0]).map(left.retry(Retry(2)).timeout(1))
        return await left(0), await right(1), await mapped(-1), await pipeline.collect()

    assert run_virtual(main) == (3000, 3001, 1, [3000])
    assert (left, hash(left)) == (right, hash(right))
    assert pickle.loads(pickle.dumps(Step(embed).then(Step(store)))) == Step(embed).then(Step(store))
    assert (
        left.describe() == f"step {' > '.join(['one_more'] * 3000)}\n  call one_more" + "\n  then call one_more" * 2999
    )


# ---- policies, inside out


class Flaky:
    """A call of so many seconds that fails its first times, and remembers when it was called and when cancelled."""

    def __init__(self, seconds=1, failures=0):
        self.seconds, self.failures = seconds, failures
        self.started, self.cancelled = [], []

    async def __call__(self, item=None):
        self.started.append(trio.current_time())
        try:
            await trio.sleep(self.seconds)
        except trio.Cancelled:
            self.cancelled.append(trio.current_time())
            raise
        if len(self.started) <= self.failures:
            raise OSError(len(self.started))
        return "done"


LATE_1, LATE_4, LATE_2 = (
    (trio.TooSlowError, (f"not done after {s} s",), [f"timeout of {s} s", f"in step 'Flaky'{which}"])
    for s, which in ((1, ""), (4, ", attempt 2 of 3"), (2.5, ", attempt 2 of 3"))
)
THRICE = Retry(3, backoff=SECOND)
CUT = (
    OSError,
    (2,),
    [
        "waited 1 s between its attempts; not tried again: the next attempt is due in 2 s, its timeout is over in 1 s",
        "in step 'Flaky', attempt 2 of 3",
    ],
)
CUT_LATE = (
    trio.TooSlowError,
    ("not done after 1 s",),
    [
        "timeout of 1 s",
        "waited 1 s between its attempts; "
        "not tried again: the next attempt is due in 1 s, its timeout is over in 0.5 s",
        "in step 'Flaky', attempt 2 of 3",
    ],
)
SLOW = RateLimit(1, per=4)


@pytest.mark.parametrize(
    ("build", "call", "expected", "starts"),
    [
        (lambda s: s.timeout(4).retry(THRICE), (2, 2), (8, "done"), [0, 3, 6]),
        (lambda s: s.retry(THRICE).timeout(4), (2, 2), (4, LATE_4), [0, 3]),
        (lambda s: s.retry(Retry(3, backoff=Backoff(1, 2, jitter=0))).timeout(4), (1, 2), (3, CUT), [0, 2]),
        (lambda s: s.retry(THRICE).timeout(4), (1, 1), (3, "done"), [0, 2]),
        (
            lambda s: s.timeout(1).retry(THRICE),
            (2, 0),
            (
                5,
                (
                    trio.TooSlowError,
                    ("not done after 1 s",),
                    ["timeout of 1 s", "waited 1, 1 s between its attempts", "in step 'Flaky', attempt 3 of 3"],
                ),
            ),
            [0, 2, 4],
        ),
        (lambda s: s.timeout(1).retry(THRICE).timeout(3.5), (2, 0), (3, CUT_LATE), [0, 2]),
        (lambda s: s.timeout(1).retry(THRICE).timeout(2.5), (2, 0), (2.5, LATE_2), [0, 2]),
        (lambda s: s.rate_limit(SLOW).retry(THRICE), (1, 2), (9, "done"), [0, 4, 8]),
        (lambda s: s.retry(THRICE).rate_limit(SLOW), (1, 2), (5, "done"), [0, 2, 4]),
        (lambda s: s.rate_limit(SLOW).timeout(1.5).retry(THRICE), (1, 1), (5.5, "done"), [0, 4.5]),
        (lambda s: s.timeout(1.5).rate_limit(SLOW).retry(THRICE), (1, 2), (9, "done"), [0, 4, 8]),
        (lambda s: s.timeout(1).timeout(4), (9, 0), (1, LATE_1), [0]),
        (lambda s: s.timeout(4).timeout(1), (9, 0), (1, LATE_1), [0]),
    ],
)
def test_policies_lie_around_each_other_as_written(build, call, expected, starts):
    """What is written first is innermost: each order has instants of its own."""
    flaky = Flaky(*call)

    assert run_virtual(refused, build(Step(flaky))(0)) == expected
    assert flaky.started == starts


def test_a_circuit_counts_what_is_inside_of_it():
    """Outside of a retry it hears of one failure for all attempts, inside of each attempt."""
    breaker = CircuitBreaker(2, 60)

    async def main(step):
        started = step.start()
        return [await refused(started(number)) for number in range(2)]

    inside, outside = Flaky(1, 99), Flaky(1, 99)
    run_virtual(main, Step(inside).circuit_breaker(breaker).retry(Retry(3, backoff=SECOND)))
    run_virtual(main, Step(outside).retry(Retry(3, backoff=SECOND)).circuit_breaker(breaker))

    assert (inside.started, outside.started) == ([0, 2], [0, 2, 4, 5, 7, 9])


# ---- state


def test_a_call_has_fresh_state_and_a_started_step_keeps_it():
    """`await step(item)` never waits for an earlier call's token, `start()` does."""
    flaky = Flaky(0)
    step = Step(flaky).rate_limit(RateLimit(1))

    async def main():
        for _ in range(3):
            await step(0)
        started, other = step.start(), step.start()
        for _ in range(3):
            await started(0)
        await other(0)
        return started.statistics().waited_rate, other.statistics().waited_rate

    assert run_virtual(main) == (2, 0)
    assert flaky.started == [0, 0, 0, 0, 1, 2, 2]


def test_a_started_step_keeps_its_circuit():
    """A circuit that opened stays open for the next call; another start has its own."""

    async def main():
        step = Step(Flaky(1, 99)).circuit_breaker(CircuitBreaker(1, 60))
        started = step.start()
        outcomes = [await refused(started(0)), await refused(started(0)), await refused(step.start()(0))]
        return [(when, what[0]) for when, what in outcomes], started.statistics().refused

    assert run_virtual(main) == ([(1, OSError), (1, CircuitOpen), (2, OSError)], 1)


def test_pipelines_share_a_started_step():
    """Given to two pipelines, one limit holds for both; a plain step has one for each run."""

    async def main(step):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(Pipeline.from_iterable(range(2)).map(step, concurrency=2).run)

    shared, own = Flaky(0), Flaky(0)
    run_virtual(main, Step(shared).rate_limit(RateLimit(1)).start())
    run_virtual(main, Step(own).rate_limit(RateLimit(1)))

    assert (shared.started, own.started) == ([0, 1, 2, 3], [0, 0, 1, 1])


def test_one_step_runs_many_times_at_once():
    """A hundred calls of one step in as many tasks do not know of each other."""

    async def main():
        async def alone(number):
            results[number] = await step(number)

        async with trio.open_nursery() as nursery:
            for number in range(100):
                nursery.start_soon(alone, number)
        return trio.current_time()

    results, step = {}, Step(embed).rate_limit(RateLimit(1)).timeout(2).retry(Retry(2)).map(size)

    assert run_virtual(main) == 1
    assert results == {number: len(str(number)) + 2 for number in range(100)}


def test_the_context_is_the_callers():
    """Context variables of the step's caller, or the pipeline's opener, are seen in the function and in a runner."""
    who = contextvars.ContextVar("who", default="nobody")

    async def ask(item):
        await trio.lowlevel.checkpoint()
        return who.get()

    async def runner(fn, *args):
        return fn(*args)

    async def main():
        who.set("caller")
        policies = Step(ask).rate_limit(RateLimit(9)).timeout(1).retry(Retry(2)).circuit_breaker(CircuitBreaker())
        elsewhere = Step(lambda item: who.get()).on(runner)
        return (
            await policies(0),
            await elsewhere(0),
            await gather(policies, range(2), concurrency=2),
            await Pipeline.from_iterable(range(2)).map(policies).collect(),
        )

    assert run_virtual(main) == ("caller", "caller", ["caller"] * 2, ["caller"] * 2)


async def at_once(item):
    return item


@pytest.mark.parametrize(
    "step",
    [
        Step(at_once),
        Step.pure(double),
        Step(parse).on(inline),
        Step(at_once).timeout(1).retry(Retry(2)).rate_limit(RateLimit(1)).circuit_breaker(CircuitBreaker()),
        Step(at_once).then(Step(at_once)),
    ],
    ids=lambda step: step.describe(),
)
def test_every_call_is_a_checkpoint(step):
    """Also when the function never awaits, by itself and started, and when it raises."""

    async def fail(item):
        raise KeyError(item)

    async def main():
        started = step.start()
        with assert_checkpoints():
            await step(1)
        with assert_checkpoints():
            await started(1)
        with assert_checkpoints(), pytest.raises(KeyError):
            await Step(fail)(1)

    run_virtual(main)


# ---- cancelled in the middle


async def cancelled_at(seconds, call):
    """Cancel a call after so many seconds; tell when it was over."""
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def cancel():
                await trio.sleep(seconds)
                scope.cancel()

            await call
    assert scope.cancelled_caught
    return trio.current_time()


CANCELLED = {
    "in the call": (lambda s: s, 0.5, [0, 2.5]),
    "in the call, within a timeout": (lambda s: s.timeout(9), 0.5, [0, 2.5]),
    "in a backoff": (lambda s: s.retry(Retry(3, backoff=Backoff(5))), 1.5, [0, 3.5]),
    "in the second attempt": (lambda s: s.retry(Retry(3, backoff=SECOND)), 2.5, [0, 2, 4.5]),
    "in a circuit": (lambda s: s.circuit_breaker(CircuitBreaker(1, 60)), 0.5, [0, 2.5]),
    "in a row": (lambda s: s.then(Step(never_async)), 0.5, [0, 2.5]),
    "in all of them": (
        lambda s: s.rate_limit(RateLimit(9, burst=9)).timeout(9).retry(Retry(2)).circuit_breaker(CircuitBreaker(1)),
        0.5,
        [0, 2.5],
    ),
}


@pytest.mark.parametrize("where", CANCELLED)
def test_a_call_that_is_cancelled_ends_at_once(where):
    """At that instant; it is neither retried nor counted as a failure, and the next call goes as if it had not been."""
    build, seconds, starts = CANCELLED[where]
    flaky = Flaky(1, failures=0 if "backoff" not in where and "second" not in where else 1)
    started = build(Step(flaky)).start()

    async def main():
        over = await cancelled_at(seconds, started(0))
        await trio.sleep(2)
        with trio.move_on_after(0.5):
            await started(0)
        return over

    assert run_virtual(main) == seconds
    assert flaky.started == starts
    assert flaky.cancelled == [at for at in (seconds, seconds + 2.5) if "backoff" not in where or at > 2]


def test_a_call_that_is_cancelled_while_it_waits_for_a_token_takes_none():
    """Its place goes to the next, which starts at the instant at which the token is there."""
    flaky = Flaky(0)
    started = Step(flaky).rate_limit(RateLimit(1, per=4)).timeout(60).retry(Retry(2)).start()

    async def main():
        await started(0)
        over = await cancelled_at(3, started(1))
        await started(2)
        return over, started.statistics().waited_rate

    assert run_virtual(main) == (3, 4)
    assert flaky.started == [0, 4]


def test_a_call_that_is_cancelled_while_it_waits_for_a_circuit_leaves_it_to_the_next():
    """A waiting call that goes is no probe; the one behind it is."""
    flaky = Flaky(1, 1)
    started = Step(flaky).circuit_breaker(CircuitBreaker(1, 10, wait=True)).start()

    async def main():
        await refused(started(0))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancelled_at, 5, started(1))
            await wait_all_tasks_blocked()
            nursery.start_soon(started, 2)
        return trio.current_time(), started.statistics().waited_circuit

    assert run_virtual(main) == (12, 15)
    assert flaky.started == [0, 11]


def test_a_probe_that_is_cancelled_leaves_its_place():
    """Nobody knows what it would have come to: the next call is the probe."""
    flaky = Flaky(1, 1)
    started = Step(flaky).circuit_breaker(CircuitBreaker(1, 10)).start()

    async def main():
        await refused(started(0))
        await trio.sleep(10)
        await cancelled_at(0.5, started(1))
        return await refused(started(2))

    assert run_virtual(main) == (12.5, "done")
    assert flaky.started == [0, 11, 11.5]


# ---- gather


def test_gather_gives_results_in_the_order_of_the_items():
    """Whatever takes how long, at most `concurrency` at once."""
    running, most = 0, 0

    async def call(seconds):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(seconds)
        running -= 1
        return seconds

    async def main(concurrency):
        return await gather(Step(call), [5, 1, 4, 2, 3], concurrency=concurrency), trio.current_time()

    assert run_virtual(main, 3) == ([5, 1, 4, 2, 3], 6)
    assert most == 3
    assert [run_virtual(main, n)[1] for n in (1, 2, 4, 5, 100)] == [15, 8, 5, 5, 5]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=12), st.integers(1, 5), st.integers(0, 2**32))
def test_gather_keeps_every_place_busy(seconds, concurrency, seed):
    """A list schedule: each item starts at the instant at which the first place is free, under any order of tasks."""
    starts = []

    async def call(item):
        number, wanted = item
        starts.append((trio.current_time(), number))
        await trio.sleep(wanted)
        return number

    async def main():
        return await gather(Step(call), enumerate(seconds), concurrency=concurrency)

    free, expected = [0] * concurrency, []
    for number, wanted in enumerate(seconds):
        begin = min(free)
        expected.append((begin, number))
        free[free.index(begin)] = begin + wanted
    with scheduled(Schedule(seed)):
        results = run_virtual(main)

    assert results == list(range(len(seconds)))
    assert sorted(starts) == sorted(expected)


def test_gather_raises_the_first_error_at_once():
    """The object itself, in no group, at its instant; the others are cancelled there, and no further item starts."""
    error, flaky = ValueError("mine"), Flaky(10)
    error.__cause__ = cause = KeyError("why")

    async def call(item):
        if item == 2:
            await trio.sleep(3)
            raise error
        return await flaky()

    async def main():
        with pytest.raises(ValueError) as caught:
            await gather(Step(call), range(9), concurrency=4)
        return caught.value, trio.current_time()

    met, when = run_virtual(main)

    assert met is error
    assert (when, flaky.started, flaky.cancelled) == (3, [0] * 3, [3] * 3)
    assert (error.__notes__, error.__cause__ is cause) == (["in step 'call'"], True)


def test_gather_tells_of_errors_beside_the_first():
    """What another call raises while it is cancelled is a note on the first error; a group passes as it is."""

    async def call(item):
        try:
            await trio.sleep(item)
        finally:
            if item > 1:
                raise KeyError(item)
        raise ExceptionGroup("two", [ValueError(1), ValueError(2)])

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            await gather(Step(call), [3, 1], concurrency=2)
        return caught.value

    met = run_virtual(main)

    assert (met.message, met.__notes__) == ("two", ["in step 'call'", "then another call raised KeyError: 3"])


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program_leaves_gather_bare(kind):
    """Once, itself, in no group; the other calls are cancelled at that instant, an error of theirs takes no place."""
    killer, flaky = kind("now"), Flaky(10)

    async def call(item):
        if item == 1:
            await trio.sleep(3)
            raise killer
        try:
            await flaky()
        finally:
            raise KeyError(item)

    async def main():
        try:
            await gather(Step(call), range(5), concurrency=3)
        except BaseException as met:
            return met, trio.current_time()

    met, when = run_virtual(main)

    assert met is killer
    assert (when, flaky.cancelled) == (3, [3, 3])


def test_gather_takes_an_item_when_there_is_a_place_for_it():
    """An endless iterable is taken as far as calls have started, and no further."""
    taken = []

    def items():
        for number in count():
            taken.append((trio.current_time(), number))
            yield number

    async def call(item):
        await trio.sleep(1)
        if item == 5:
            raise EOFError
        return item

    async def main():
        with pytest.raises(EOFError):
            await gather(Step(call), items(), concurrency=2)

    run_virtual(main)

    assert taken[:6] == [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5)]
    assert len(taken) <= 7  # a call that ends beside the one that fails may take one more, which never starts


def test_gather_lets_an_error_of_the_iterable_out():
    """As if it came from a call: at once, itself, without a note of the step."""
    error = KeyError("source")

    def items():
        yield from (1, 2)
        raise error

    flaky = Flaky(5)

    async def main():
        with pytest.raises(KeyError) as caught:
            await gather(Step(flaky), items(), concurrency=3)
        return caught.value, trio.current_time()

    met, when = run_virtual(main)

    assert (met is error, when, flaky.cancelled) == (True, 0, flaky.started)
    assert not hasattr(met, "__notes__")


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=10),
    st.integers(1, 4),
    st.integers(0, 2**32),
)
def test_gather_under_every_order_of_tasks(calls, concurrency, seed):
    """Results in order; or the first failure in time, of one instant that of the earliest item."""
    starts, running, most = [], 0, 0

    async def call(numbered):
        nonlocal running, most
        number, (seconds, succeeds) = numbered
        starts.append((trio.current_time(), number))
        running += 1
        most = max(most, running)
        try:
            await trio.sleep(seconds)
            if not succeeds:
                raise LookupError(number)
        finally:
            running -= 1
        return number

    async def main():
        try:
            return await gather(Step(call), enumerate(calls), concurrency=concurrency), trio.current_time()
        except LookupError as error:
            return error.args[0], trio.current_time()

    free, ends = [0] * concurrency, []
    for number, (seconds, succeeds) in enumerate(calls):
        begin = min(free)
        free[free.index(begin)] = begin + seconds
        ends.append((begin + seconds, number, succeeds, begin))
    failures = sorted((end, number) for end, number, succeeds, _ in ends if not succeeds)
    with scheduled(Schedule(seed)):
        result, now = run_virtual(main)

    assert most <= concurrency
    if failures:
        end, _ = failures[0]
        assert now == end
        # What starts exactly then may or may not: of those that did, the earliest item's failure is raised.
        assert result in [number for at, number in failures if at == end]
        assert result == min(number for at, number in failures if at == end and number in {n for _, n in starts})
        assert all(at <= end for at, _ in starts)
    else:
        assert (result, now) == (list(range(len(calls))), max(free))


def test_gather_starts_nothing_behind_a_failure():
    """Also with a place free and items left, and those that run do not end by themselves."""
    starts = []

    async def call(number):
        starts.append(number)
        if number == 0:
            raise OSError
        await trio.sleep(1)

    async def main():
        with pytest.raises(OSError):
            await gather(Step(call), range(1000), concurrency=16)
        return trio.current_time()

    assert run_virtual(main) == 0
    assert len(starts) <= 16


def test_an_error_out_of_a_cancelled_call_is_never_the_first():
    """Even of an earlier item, at the same instant: it only failed because another had."""

    async def call(number):
        if number == 1:
            await trio.sleep(1)
            raise ValueError("first")
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise KeyError("of the cancellation") from None

    async def main():
        with pytest.raises(ValueError, match="first") as caught:
            await gather(Step(call), range(2), concurrency=2)
        return caught.value.__notes__

    assert any("KeyError" in note for note in run_virtual(main))


def test_gather_keeps_nothing_but_the_results():
    """Memory at 10^5 items as at 10^3, except for the list of results."""

    async def main(many):
        tracemalloc.start()
        try:
            await gather(Step(nothing), repeat(None, many), concurrency=10)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    async def nothing(_item):
        return None

    few, many = run_virtual(main, 1_000), run_virtual(main, 100_000)

    assert many - few < 100_000 * 16 + (1 << 20)  # pointers of a list that grows


class Unopened:
    def __iter__(self):
        raise OSError("no connection")


@pytest.mark.parametrize("items", [5, None, Unopened(), map(int, ["1", "x"])], ids=["int", "None", "unopened", "map"])
def test_what_gather_cannot_iterate_is_an_error(items):
    """Never a part that looks like the whole."""
    with pytest.raises((TypeError, OSError, ValueError)):
        run_virtual(partial(gather, Step(at_once), items, concurrency=2))


def test_a_timeout_of_a_calls_own_is_a_failure_like_others():
    """Though a `Cancelled` is among what it comes of; what another call raises when it is cancelled is a note."""

    async def call(number):
        if number == 1:
            with trio.fail_after(1):
                await trio.sleep_forever()
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("of the cancellation")

    async def main():
        with pytest.raises(trio.TooSlowError) as caught:
            await gather(Step(call), range(2), concurrency=2)
        return caught.value.__notes__

    assert any("KeyError" in note for note in run_virtual(main))


def test_gather_of_nothing_is_an_empty_list():
    """After a checkpoint, whatever the concurrency; no function is called."""

    async def main():
        with assert_checkpoints():
            empty = await gather(Step(never_async), [], concurrency=8)
        with assert_checkpoints():
            one = await gather(Step(at_once), [1], concurrency=1)
        with assert_checkpoints(), pytest.raises(ZeroDivisionError):
            await gather(Step.pure(lambda item: 1 / item), [0], concurrency=1)
        return empty, one, trio.current_time()

    assert run_virtual(main) == ([], [1], 0)


def test_gather_is_cancelled_from_outside():
    """All calls end at that instant, and the cancellation goes on to its scope."""
    flaky = Flaky(10)

    async def main():
        with trio.move_on_after(3) as scope:
            await gather(Step(flaky).timeout(60).retry(Retry(3)), range(9), concurrency=4)
        return scope.cancelled_caught, trio.current_time()

    assert run_virtual(main) == (True, 3)
    assert (flaky.started, flaky.cancelled) == ([0] * 4, [3] * 4)


def test_a_cancelled_call_that_also_raises_a_group_does_not_eat_the_cancellation(caplog):
    """A group of a cancellation and an error, as a nursery makes it: the one reaches its scope, the other the log."""

    async def call(item):
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def fail_late():
                try:
                    await trio.sleep_forever()
                finally:
                    raise KeyError("late")

            await trio.sleep_forever()

    async def main():
        with trio.move_on_after(1) as scope:
            await gather(Step(call), [1], concurrency=1)
        return scope.cancelled_caught, trio.current_time()

    assert run_virtual(main) == (True, 1)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("funcpipe_trio", "WARNING")
    assert "KeyError: 'late'" in record.getMessage()


def test_an_error_of_a_call_that_gather_cancelled_is_in_the_log_and_nothing_else(caplog):
    """What ends the pool is of no interest."""

    async def call(item):
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("late")

    async def main():
        with trio.move_on_after(1):
            await gather(Step(call), range(2), concurrency=2)

    run_virtual(main)
    (record,) = caplog.records
    assert "2 errors" in record.getMessage()
    assert "KeyError: 'late'" in record.getMessage()


def test_gather_shares_the_state_of_the_step():
    """One start for all items, or the one that was started before."""

    async def main(step):
        await gather(step, range(3), concurrency=3)
        await gather(step, range(3), concurrency=3)

    own, shared = Flaky(0), Flaky(0)
    run_virtual(main, Step(own).rate_limit(RateLimit(1)))
    run_virtual(main, Step(shared).rate_limit(RateLimit(1)).start())

    assert (own.started, shared.started) == ([0, 1, 2, 2, 3, 4], [0, 1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    ("kind", "call", "message"),
    [
        (
            TypeError,
            lambda: gather(at_once, [1], concurrency=1),
            "step must be a Step, not the async function at_once\nUse Step(fn).",
        ),
        (TypeError, lambda: gather(Step(at_once), [1], concurrency=True), "concurrency must be an int >= 1, not True"),
        (ValueError, lambda: gather(Step(at_once), [1], concurrency=0), "concurrency must be >= 1, not 0"),
    ],
)
def test_what_gather_refuses(kind, call, message):
    """With the value and the rule."""
    with pytest.raises(kind) as caught:
        run_virtual(call)

    assert (type(caught.value), str(caught.value)) == (kind, f"gather: {message}")


# ---- chunks


def test_chunked_makes_a_function_on_lists():
    """In order, picklable, with the function's name; an error says which item of the chunk it was."""
    chunk = chunked(parse)

    assert (chunk(["1", "2"]), chunk([]), chunk.__name__) == ([1, 2], [], "chunked parse")
    assert pickle.loads(pickle.dumps(chunk))(["3"]) == [3]
    assert Step(chunk).on(inline).describe() == "step chunked parse\n  call chunked parse on inline"
    with pytest.raises(ValueError) as caught:
        chunk(["1", "x", "2"])

    assert (str(caught.value), caught.value.__notes__) == (
        "invalid literal for int() with base 10: 'x'",
        ["item 1 of its chunk"],
    )
    with pytest.raises(TypeError, match=r"^chunked: fn must be a sync function, not the async function embed$"):
        chunked(embed)


def test_chunks_go_through_a_pipeline():
    """Batched, put through, taken apart again."""

    async def main():
        pipeline = Pipeline.from_iterable("12345").batch(2).map(Step(chunked(parse)).on(inline), concurrency=2)
        return await pipeline.unbatch().collect()

    assert run_virtual(main) == [1, 2, 3, 4, 5]


def test_a_cost_is_exact_or_refused():
    """A cost function that gives a float, or more than the burst, is an error of its item, and no token is taken."""

    async def main(cost):
        return await refused(Step(at_once).rate_limit(RateLimit(1, burst=3), cost=lambda item: cost)(0))

    assert run_virtual(main, Fraction(3, 2)) == (0, 0)
    assert run_virtual(main, 0.5) == (
        0,
        (
            TypeError,
            ("RateLimiter: cost must be a positive int or Fraction, not 0.5\nUse Fraction(1, 2).",),
            ["in step 'at_once'"],
        ),
    )
    assert run_virtual(main, 4) == (
        0,
        (
            ValueError,
            ("RateLimiter: cost must be <= the burst of 3, or it could never be paid, not 4",),
            ["in step 'at_once'"],
        ),
    )
