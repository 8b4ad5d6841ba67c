"""What a plan is predicted to do is what it does, with calls that take so long: over random plans and times.

Mutants that die here: a limit, a concurrency or an arrival that is left out; the order of results taken for free; the
filling of the plan, or its end, counted with the rest; a formula used where calls vary.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest
import trio

from funcpipe_trio import (
    FairShare,
    OnError,
    Pipeline,
    PlanError,
    RateLimit,
    RollingLimit,
    StateError,
    Step,
    fair_merge,
    merge,
)
from funcpipe_trio.testing import run_virtual

Times = dict[str, Any]


def call(name: str, seconds: Any) -> Any:
    turns = itertools.cycle([seconds] if isinstance(seconds, float) else seconds)

    async def work(item: Any) -> Any:
        await trio.sleep(next(turns))
        return item

    work.__name__ = name
    return work


def arriving(gap: float) -> Pipeline[int]:
    async def feed() -> AsyncIterator[int]:
        for number in itertools.count():
            await trio.sleep_until((number + 1) * gap)
            yield number

    return Pipeline.from_async_iterable(feed, name="source")


def random_plan(seed: int) -> tuple[Pipeline[Any], Times, float | None]:
    """Return a plan whose calls really sleep, how long they do, and the gap of its source."""
    chance = Random(seed)
    gap = chance.choice([None, None, 0.04])
    plan: Pipeline[Any] = Pipeline.from_iterable(itertools.count, name="source") if gap is None else arriving(gap)
    times: Times = {}
    for number in range(chance.randint(1, 4)):
        name, mean = f"call {number}", chance.choice([0.02, 0.1, 0.4])
        constant, few = mean, [mean * chance.random() * 2 for _ in range(5)]
        times[name] = chance.choice([constant, few, [chance.expovariate(1 / mean) for _ in range(400)]])
        step: Step[Any, Any] = Step(call(name, times[name]))
        if chance.random() < 0.3:
            step = step.rate_limit(RateLimit(chance.choice([5, 20]), burst=1))
        plan = plan.map(step, concurrency=chance.choice([1, 3, 8]), ordered=chance.random() < 0.7, name=name)
        if chance.random() < 0.3:
            plan = plan.map(lambda item: item).buffer(chance.choice([1, 4]))
    return plan, times, gap


async def measured(plan: Pipeline[Any], first: int, last: int) -> float:
    """Return the items a second from one item to another."""
    taken = 0
    async with plan.open() as run:
        async for _ in run:
            taken += 1
            if taken == first:
                began = trio.current_time()
            if taken == last:
                return (last - first) / (trio.current_time() - began)
    raise AssertionError("it has ended")


@pytest.mark.parametrize("seed", range(14))
def test_it_is_what_the_plan_then_does(seed):
    plan, times, gap = random_plan(seed)

    said = plan.predict(times, gap)

    truth = run_virtual(measured, plan, 1000, 3000)
    assert said.throughput == pytest.approx(truth, rel=0.02), said.describe()


def straight(*stages: tuple[str, float, int]) -> tuple[Pipeline[Any], Times]:
    plan: Pipeline[Any] = Pipeline.from_iterable(itertools.count, name="source")
    for name, seconds, concurrency in stages:
        plan = plan.map(call(name, seconds), concurrency=concurrency)
    return plan, {name: seconds for name, seconds, _ in stages}


def test_a_formula_names_the_stage_of_the_least_rate():
    plan, times = straight(("fetch", 0.1, 4), ("embed", 0.5, 10), ("store", 0.02, 1))

    said = plan.predict(times)

    assert (said.method, said.throughput, said.bottleneck) == ("formula", 20.0, "embed")
    assert dict(said.utilisation) == pytest.approx({"fetch": 0.5, "embed": 1.0, "store": 0.4})
    assert said.describe().splitlines()[0] == "20 items a second, limited by embed (by formula)"


def test_arrivals_and_a_rate_limit_are_parts_of_the_formula():
    plan, times = straight(("fetch", 0.1, 4))
    limited = Pipeline.from_iterable(itertools.count).map(
        Step(call("fetch", 0.1)).rate_limit(RateLimit(15)), concurrency=4, name="fetch"
    )

    rolling = Pipeline.from_iterable(itertools.count).map(
        Step(call("fetch", 0.1)).rate_limit(RollingLimit(90, per=10)), concurrency=4, name="fetch"
    )

    assert rolling.predict(times).throughput == 9
    assert plan.predict(times, arrivals=0.05).bottleneck == "source"
    assert plan.predict(times, {"source": 0.05}).throughput == 20
    assert limited.predict(times).throughput == 15


def test_what_takes_no_time_has_no_limit():
    plan, times = straight(("fetch", 0.0, 4))

    for said in (plan.predict(times), plan.predict({}), plan.filter(bool).predict({})):
        assert (said.throughput, said.bottleneck) == (math.inf, None)


def test_what_the_formula_does_not_know_is_simulated():
    plan, times = straight(("fetch", 0.1, 4))
    kinds = [
        plan.filter(bool),
        plan.batch(10),
        plan.flat_map(lambda item: [item, item]),
        merge(plan, plan),
        plan.map(call("keyed", 0.01), key=lambda item: item, concurrency=2),
        plan.partition(lambda item: "a", {"a": lambda line: line, "b": lambda line: line}),
        plan.throttle(RateLimit(1000)),
        Pipeline.from_iterable(itertools.count).flat_map(call("fetch", 0.1), concurrency=4, name="fetch"),
        Pipeline.from_iterable(itertools.count).map(
            Step(call("fetch", 0.1)).timeout(1), concurrency=4, name="fetch", on_error=OnError.skip()
        ),
    ]
    for kind in kinds:
        said = kind.predict({**times, "fetch#2": 0.1} if kind is kinds[3] else times)
        assert said.method == "simulation"
        assert said.throughput == pytest.approx(80 if kind is kinds[3] else 40, rel=0.02), kind.describe()


def never(*_args):
    raise AssertionError("nothing of the plan's is called")


class Never:
    push = never


EACH = Pipeline.from_iterable(itertools.count, name="source")
BATCHES = EACH.batch(2)
ASKING = {
    "batch: cost": EACH.batch(2, max_cost=3, cost=never),
    "buffer: cost": EACH.buffer(4, max_cost=3, cost=never),
    "throttle: cost": EACH.throttle(RateLimit(1000), cost=never),
    "rate limit: per_key": EACH.map(Step(call("apart", 0.0)).rate_limit(RateLimit(1000), per_key=never)),
    "rate limit: cost": EACH.map(Step(call("paid", 0.0)).rate_limit(RateLimit(1000), cost=never)),
    "fair_merge: cost": fair_merge({"a": EACH, "b": EACH}, FairShare(cost=never)),
    "fair_by: cost": EACH.fair_by(never, FairShare({"a": 2}, cost=never), max_keys=2),
    "fair_by: lists": BATCHES.fair_by(never, max_keys=2),
    "batch: lists by key": BATCHES.batch(2, key=never, max_keys=3),
    "batch: dicts by key": EACH.broadcast({"a": lambda line: line}, join="zip").batch(2, key=never, max_keys=3),
    "batch: too many keys": EACH.batch(2, key=never, max_keys=3, full="fail"),
    "map: lists by key": BATCHES.map(call("keyed", 0.0), concurrency=2, key=never, key_rate=RateLimit(1), waiting=3),
    "distinct: lists by key": BATCHES.distinct(never, remember=3),
    "stateful: lists by key": BATCHES.stateful(Never, key=never, max_keys=3),
    "stateful: too many keys": EACH.stateful(Never, key=never, max_keys=3, full="fail"),
}


@pytest.mark.parametrize("asking", ASKING.values(), ids=ASKING)
def test_keys_and_costs_are_supposed_whatever_the_items_are(asking):
    plan = asking.map(call("work", 0.1), name="work")

    assert plan.predict({"work": 0.1}).throughput > 0


def test_two_inputs_share_by_weight():
    lines = {name: Pipeline.from_iterable(itertools.count, name=name) for name in "ab"}
    plan = fair_merge(lines, FairShare({"a": 3})).map(call("work", 0.1), concurrency=2)

    said = plan.predict({"work": 0.1})

    assert said.throughput == pytest.approx(20, rel=0.02)
    assert said.bottleneck == "work"


def test_a_plan_that_soon_ends_is_predicted_as_far_as_it_goes():
    plan, times = straight(("fetch", 1.0, 1))
    said = plan.take(5).predict(times)

    assert (said.method, said.bottleneck, said.utilisation["fetch"]) == ("simulation", "fetch", 1.0)


def test_a_run_that_fails_is_no_prediction():
    plan = Pipeline.from_iterable(itertools.count).map(Step(call("slow", 5.0)).timeout(1), concurrency=2, name="slow")

    with pytest.raises(ValueError, match=r"with these times the run fails, with TooSlowError\nUse shorter times"):
        plan.predict({"slow": 5.0})


@pytest.mark.parametrize(
    ("times", "arrivals", "error", "said"),
    [
        ({"nothing": 1}, None, ValueError, "times must name stages that make calls, not 'nothing'; they are 'fetch'"),
        ({"source": 1}, None, ValueError, "times must name stages that make calls, not 'source'; they are 'fetch'"),
        ([1], None, TypeError, "times must be a mapping of names of stages to seconds, not a list"),
        ({"fetch": -1}, None, ValueError, r"times\['fetch'\] must be a number of seconds >= 0, finite, not -1"),
        ({"fetch": math.nan}, None, ValueError, r"times\['fetch'\] must be"),
        ({"fetch": "1"}, None, TypeError, r"times\['fetch'\] must be a number of seconds >= 0, or a sequence"),
        ({"fetch": []}, None, ValueError, r"times\['fetch'\] must not be empty"),
        ({"fetch": [1, "x"]}, None, TypeError, r"times\['fetch'\]\[1\] must be a number of seconds >= 0"),
        ({}, -1, ValueError, "arrivals must be a number of seconds >= 0, finite, not -1"),
        ({}, {"fetch": 1}, ValueError, "arrivals must name sources, not 'fetch'; they are 'source'"),
    ],
)
def test_wrong_arguments_are_refused(times, arrivals, error, said):
    plan, _times = straight(("fetch", 0.1, 4))

    with pytest.raises(error, match=rf"^Pipeline\.predict: {said}"):
        plan.predict(times, arrivals)


def test_a_plan_that_cannot_work_is_refused():
    with pytest.raises(PlanError):
        Pipeline.from_iterable([1]).map(Step(len)).predict({})  # type: ignore[arg-type]


def test_inside_of_trio_only_the_formula_works():
    plan, times = straight(("fetch", 0.1, 4))

    async def main() -> None:
        assert plan.predict(times).method == "formula"
        with pytest.raises(StateError, match=r"inside of trio.*\nUse `await trio.to_thread.run_sync"):
            plan.filter(bool).predict(times)
        said = await trio.to_thread.run_sync(plan.filter(bool).predict, times)
        assert said.throughput == pytest.approx(40, rel=0.02)

    trio.run(main)
