"""What a simulation makes of limiters that are shared: it repeats the run, and says what other settings would do.

Over random plans of tenants whose calls share tokens and places, at one instant or one after the other, by key, in
groups, with costs that are settled. The truth of a change is a run whose limiters were made so.

Mutants that die here: a limiter for each step that shares one; a group that is the limiter itself; a key of one step
that is another one at the next; a weight that is not that of the limiter, or stays; a settlement that is not played; a
change in one part that undoes that of another.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from fractions import Fraction
from random import Random
from typing import Any

import pytest
import trio

from funcpipe_trio import (
    FairShare,
    Pipeline,
    PlaceLimiter,
    PlanError,
    RateLimit,
    RateLimiter,
    Recorder,
    Recording,
    Report,
    Retry,
    Step,
    merge,
    simulate,
)
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

TENANTS = ("a", "b", "c")


@dataclass(frozen=True)
class Made:
    """The settings of the limiters of a plan."""

    rate: int = 6
    places: int = 3
    tokens_of: tuple[tuple[Any, int | Fraction], ...] = (("a", 3), (("g", "b"), 2))
    places_of: tuple[tuple[Any, int | Fraction], ...] = (("b", 2),)


def tenant(item: Any) -> Any:
    return item[0]


def said(item: Any) -> int:
    return 1 + int(item[1] % 2)


def cost(item: Any) -> int | Fraction:
    return (0, Fraction(3, 2), 2)[item[1] % 3]


def plan(seed: int, made: Made) -> Pipeline[Any]:
    """Two lines that share tokens and places, and a stage behind them that shares the places."""
    tokens = RateLimiter(RateLimit(made.rate, burst=4), FairShare(dict(made.tokens_of)))
    few = PlaceLimiter(made.places, FairShare(dict(made.places_of)))
    tokens.group("g", 2)

    def line(name: str) -> Pipeline[Any]:
        chance = Random(f"{seed} {name}")
        failed: set[Any] = set()

        async def call(item: Any) -> Any:
            its = Random(f"{seed} {name} {item}")
            await trio.sleep(its.expovariate(4))
            if its.random() < 0.1 and item not in failed:
                failed.add(item)
                raise OSError
            return item

        step: Step[Any, Any] = Step(call)
        settled = {"cost": said, "settle": cost} if chance.random() < 0.5 else {}
        step = step.rate_limit(chance.choice([tokens, tokens.group("g")]), key=tenant, **settled)
        if chance.random() < 0.3:
            step = step.timeout(99)
        step = step.places(chance.choice([few, few.group("b")]), key=tenant).retry(Retry(2, OSError))

        async def items() -> AsyncIterator[Any]:
            """Come quickly, but no two at one instant, at which the order would be that of tasks."""
            its = Random(f"{seed} {name} items")
            for number in range(30):
                await trio.sleep(its.expovariate(99))
                yield its.choice(TENANTS), number

        source = Pipeline.from_async_iterable(items, name=f"{name} items")
        return source.map(step, concurrency=chance.choice([3, 6]), ordered=chance.random() < 0.5, name=name)

    async def store(item: Any) -> Any:
        await trio.sleep(0.1)
        return item

    behind = Step(store).places(few, key=tenant)
    return merge(line("x"), line("y")).map(behind, concurrency=2, name="store")


def recorded(pipeline: Pipeline[Any]) -> tuple[Report, Recording]:
    recorder = Recorder()
    report = run_virtual(lambda: pipeline.run(record=recorder))
    return report, recorder.recording


@pytest.fixture(autouse=True)
def same_order() -> Any:
    """Record and play in one order of tasks."""
    with scheduled(Schedule(0)):
        yield


@pytest.mark.parametrize("seed", range(8))
def test_it_repeats_the_run(seed: int) -> None:
    """To the instant, with all waits of the policies and who waited."""
    pipeline = plan(seed, Made())
    report, recording = recorded(pipeline)

    again = simulate(pipeline, recording)

    assert again.elapsed == pytest.approx(report.elapsed, abs=1e-9)
    assert (again.taken, again.delivered, again.failed) == (report.taken, report.delivered, report.failed)
    for one, other in zip(again.stages, report.stages, strict=True):
        assert one.used == pytest.approx(other.used, abs=1e-6)
        if one.policies is not None and other.policies is not None:
            assert one.policies.waited_rate == pytest.approx(other.policies.waited_rate, abs=1e-6)
            assert one.policies.waited_places == pytest.approx(other.policies.waited_places, abs=1e-6)
            waits = [
                sorted((each.calls, round(each.waited, 6)) for each in stage.policies.limits)
                for stage in (one, other)
                if stage.policies is not None
            ]
            assert waits[0] == waits[1]


CHANGES: dict[str, tuple[dict[str, dict[str, Any]], Made]] = {
    "more places": ({"store": {"places": 9}}, Made(places=9)),
    "one place": ({"x": {"places": 1}}, Made(places=1)),
    "another rate": ({"y": {"rate_limit.rate": 20}}, Made(rate=20)),
    "other weights": (
        {"x": {"rate_limit.weights": {"a": 1, ("g", "b"): 9}}},
        Made(tokens_of=(("a", 1), (("g", "b"), 9))),
    ),
    "other weights of places": ({"store": {"places.weights": {"b": 9}}}, Made(places_of=(("b", 9),))),
    "two settings, in two parts": (
        {"x": {"places": 6}, "store": {"places.weights": {"b": 5}}, "y": {"rate_limit.rate": 9}},
        Made(rate=9, places=6, places_of=(("b", 5),)),
    ),
}


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("change", CHANGES)
def test_it_says_what_other_settings_do(change: str, seed: int) -> None:
    """Within a twentieth of the run with those limiters; the user's own are as they were."""
    changes, made = CHANGES[change]
    pipeline = plan(seed, Made())
    _, recording = recorded(pipeline)
    before = pipeline.describe("json")

    said_of_it = simulate(pipeline, recording, changes)

    truth, _ = recorded(plan(seed, made))
    assert said_of_it.elapsed == pytest.approx(truth.elapsed, rel=0.05)
    assert (said_of_it.delivered, said_of_it.failed) == (truth.delivered, truth.failed)
    assert pipeline.describe("json") == before


def test_a_plan_cannot_change_what_is_shared() -> None:
    """Only a simulation can: the limiter belongs to others, too."""
    for changes, _ in CHANGES.values():
        with pytest.raises(PlanError, match="must not be changed: it is shared with others, by a limiter"):
            plan(0, Made()).with_settings(changes)
