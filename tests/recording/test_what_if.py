"""What a simulation says of other settings is what a run with those settings then shows: over random plans.

Mutants that die here: a slow item that does not stay slow when items come in another order; a limit, a weight, a retry
or a place that is played instead of being real; a change that is not applied; a source that gives its items when they
came, though it waited for room, or the other way round.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import Any

import pytest
import trio

from funcpipe_trio import (
    Backoff,
    FairShare,
    OnError,
    Pipeline,
    RateLimit,
    Recorder,
    Recording,
    Report,
    Retry,
    Step,
    fair_merge,
    simulate,
)
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

Line = Pipeline[Any]


class World:
    """Services whose answers hang on the item alone, so that each run meets the same ones."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)

    def service(self, name: str, mean: float, *, fails: float = 0.0) -> Callable[[Any], Awaitable[Any]]:
        salt = self.chance.random()
        seen: dict[Any, int] = {}

        async def call(item: Any) -> Any:
            attempt = seen[item] = seen.get(item, -1) + 1
            its = Random(f"{salt} {item} {attempt}")
            await trio.sleep(its.expovariate(1 / mean))
            if its.random() < fails:
                raise OSError(item)
            return item

        call.__name__ = name
        return call

    def source(self, name: str, count: int, gap: float) -> Line:
        if not gap:
            return Pipeline.from_iterable([(name, number) for number in range(count)], name=name)
        gaps = [self.chance.expovariate(1 / gap) for _ in range(count)]

        async def feed() -> AsyncIterator[Any]:
            for number in range(count):
                await trio.sleep(gaps[number])
                yield name, number

        return Pipeline.from_async_iterable(feed, name=name)

    def line(self, name: str, count: int) -> Line:
        """Return a source and one or two stages behind it."""
        chance = self.chance
        line = self.source(f"{name} source", count, chance.choice([0.0, 0.02]))
        for stage in range(chance.randint(1, 2)):
            fails = chance.choice([0.0, 0.0, 0.1])
            step: Step[Any, Any] = Step(self.service(f"{name}{stage}", 0.2, fails=fails))
            if chance.random() < 0.3:
                step = step.timeout(0.6)
            if fails or chance.random() < 0.5:
                step = step.retry(Retry(2, (OSError, trio.TooSlowError), Backoff(0.05)))
            if chance.random() < 0.3:
                step = step.rate_limit(RateLimit(30, burst=5))
            line = line.map(
                step,
                concurrency=chance.choice([2, 4, 8]),
                ordered=chance.random() < 0.6,
                on_error=OnError.skip(),
                name=f"{name}{stage}",
            )
            if chance.random() < 0.4:
                share = chance.random()
                line = line.filter(lambda item, share=share: Random(f"{share} {item}").random() < 0.8)
            if chance.random() < 0.3:
                line = line.buffer(chance.choice([1, 4, 32]))
        return line

    def plan(self) -> Line:
        if self.chance.random() < 0.5:
            plan = self.line("a", 200)
        else:
            lines = {"a": self.line("a", 120), "b": self.line("b", 120)}
            plan = fair_merge(lines, FairShare({"a": 3}, capacity=4), name="tenants")
            if self.chance.random() < 0.6:
                plan = plan.map(self.service("last", 0.1), concurrency=4, name="last")
        return plan.batch(5) if self.chance.random() < 0.3 else plan


async def consumed(plan: Line, hold: float, recorder: Recorder | None = None) -> Report:
    async with plan.open(record=recorder) as run:
        async for _ in run:
            await trio.sleep(hold)
    return run.report


def recording_of(seed: int, hold: float) -> Recording:
    recorder = Recorder()
    run_virtual(consumed, World(seed).plan(), hold, recorder)
    return recorder.recording


def changes_of(plan: Line) -> list[dict[str, dict[str, Any]]]:
    """Give changes of a concurrency, of weights and of a rate, as far as the plan has them."""
    shown = plan.describe()
    changes: list[dict[str, dict[str, Any]]] = [{"a0": {"concurrency": 16}}, {"a0": {"concurrency": 1}}]
    if "tenants" in shown:
        changes.append({"tenants": {"weights": {"a": 1, "b": 5}}})
    if "rate limit" in shown.partition("stage a1")[0].partition("stage a0")[2].partition("stage b0")[0]:
        changes.append({"a0": {"rate_limit.rate": 12}})
    return changes


@pytest.mark.parametrize("seed", range(20))
def test_it_says_what_then_happens(seed):
    hold = Random(seed).choice([0.0, 0.01])
    recording = recording_of(seed, hold)
    for changes in changes_of(World(seed).plan()):
        said = simulate(World(seed).plan(), recording, changes)
        truths = []
        for order in range(3):  # what happens at one instant may happen in any order
            with scheduled(Schedule(order)):
                truths.append(run_virtual(consumed, World(seed).plan().with_settings(changes), hold))

        assert {said.delivered} == {truth.delivered for truth in truths}, changes
        times = [truth.elapsed for truth in truths]
        assert 0.98 * min(times) <= said.elapsed <= 1.02 * max(times), changes
