"""Bugs planted in the policies one by one, and which campaign sees each; see `test_planted_bugs` for the idea."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from funcpipe_trio import CircuitBreaker, OnError, Pipeline, RateLimit, RateLimiter, Step, merge
from funcpipe_trio._runtime.calls.circuit import Circuit
from funcpipe_trio._runtime.core.wait_queue import Waiter, WaitQueue
from funcpipe_trio._runtime.pools.keyed import KeyedPool
from funcpipe_trio._runtime.pools.outcomes import Outcomes
from funcpipe_trio._runtime.pools.pool import Pool
from funcpipe_trio._sansio.key_order import KeyOrder
from funcpipe_trio.testing import (
    CampaignError,
    Scenario,
    cancel_everywhere,
    explore_schedules,
    fail_everywhere,
)

# ---- what the campaigns are run over


async def slow(item):
    await trio.sleep(3)
    return item


async def fails_at_odd(item):
    await trio.sleep(item % 2)
    if item % 2:
        raise ValueError(item)
    return item


async def bury(failure):
    await trio.sleep(2)


def keyed():
    return Pipeline.from_iterable(range(12)).buffer(1).map(slow, key=lambda x: x % 2, concurrency=3).buffer(3)


def limited():
    """Waiters that a timeout cancels, and one that is patient: it must get its turn."""
    limiter = RateLimiter(RateLimit(1, per=5))
    hasty, patient = Step(slow).rate_limit(limiter).timeout(4), Step(slow).rate_limit(limiter)
    return merge(
        Pipeline.from_iterable(range(3)).map(hasty, concurrency=3, on_error=OnError.skip()),
        Pipeline.from_iterable([7]).map(slow).map(patient),
    )


def guarded():
    """A probe that a timeout cancels, and a call that is patient: it must get its place."""

    async def fails_then_hangs_then_answers(item):
        calls.append(item)
        if len(calls) == 1:
            raise OSError
        await trio.sleep(9 if len(calls) == 2 else 0)

    calls = []
    started = Step(fails_then_hangs_then_answers).circuit_breaker(CircuitBreaker(1, 2.0, wait=True)).start()
    return merge(
        Pipeline.from_iterable([0, 1]).map(Step(started).timeout(4), on_error=OnError.skip()),
        Pipeline.from_iterable([7]).map(slow).map(started),
    )


def skipped():
    return Pipeline.from_iterable(range(6)).map(fails_at_odd, concurrency=3, on_error=OnError.skip()).buffer(1)


def skipped_within_limits():
    return Pipeline.from_iterable(range(9)).map(fails_at_odd, concurrency=3, on_error=OnError.skip(max_failures=1))


def diverted():
    return Pipeline.from_iterable(range(6)).map(fails_at_odd, concurrency=2, on_error=OnError.divert(bury))


async def one_and_wait(run, lab):
    async for _item in run:
        lab.delivered += 1
        await trio.sleep(9)


async def expecting_value_errors(run, lab):
    try:
        async for _item in run:
            lab.delivered += 1
    except ValueError:
        pass


# ---- the bugs


def never_free_a_key(patch):
    patch.setattr(KeyOrder, "done", lambda *_: None)


def forget_what_waits_in_lanes(patch):
    patch.setattr(KeyOrder, "withdraw", lambda *_: [])


def do_not_count_what_waits_in_lanes(patch):
    patch.setattr(KeyedPool, "occupied", Pool.occupied)


def keep_the_place_of_a_cancelled_waiter(patch):
    wait = WaitQueue.wait

    async def haunted(self, waiter, ask, *, checkpoint=False):
        try:
            await wait(self, waiter, ask, checkpoint=checkpoint)
        except trio.Cancelled:
            waiters = self.order._waiters
            waiters[ghost := Waiter()] = None
            waiters.move_to_end(ghost, last=False)
            raise

    patch.setattr(WaitQueue, "wait", haunted)


def keep_the_place_of_a_cancelled_probe(patch):
    patch.setattr(Circuit, "abandoned", lambda self, permit: None)


def lose_a_mishap(patch):
    discard_result = Pool._discard_result

    def careless(self, result, reason):
        if type(result).__name__ != "PendingSkip":
            discard_result(self, result, reason)

    patch.setattr(Pool, "_discard_result", careless)


def skip_without_counting(patch):
    def skip(self, pending):
        pass

    patch.setattr(Pool, "skip", skip)


def put_an_item_down_before_it_is_buried(patch):
    divert = Outcomes._divert

    async def hasty(self, worker, failure):
        pool, item = self._pool, worker.item
        pool.put_down(worker)
        await self.call.divert(failure, worker.context)
        worker.item = item
        pool.calls += 1
        self.call, call = Quiet(self.call), self.call
        await divert(self, worker, failure)
        self.call = call

    class Quiet:
        def __init__(self, call):
            self.is_layered, self.divert_counters = call.is_layered, call.divert_counters

        async def divert(self, failure, attempt):
            pass

    patch.setattr(Outcomes, "_divert", hasty)


def swallow_the_error_of_a_burial(patch):
    meet = Outcomes.meet

    async def careless(self, worker, error):
        divert = self.call.divert

        async def quiet(failure, attempt):
            with contextlib.suppress(Exception):
                await divert(failure, attempt)

        object.__setattr__(self.call, "divert", quiet)
        await meet(self, worker, error)
        object.__setattr__(self.call, "divert", divert)

    patch.setattr(Outcomes, "meet", careless)


@dataclass(frozen=True)
class Planted:
    plant: Callable[[Any], None]
    scenario: Scenario
    campaign: Callable[..., Any]
    telling: str


CAUGHT = [
    Planted(never_free_a_key, Scenario(keyed), explore_schedules, "deadlock"),
    Planted(forget_what_waits_in_lanes, Scenario(keyed), cancel_everywhere, "accounted for"),
    Planted(do_not_count_what_waits_in_lanes, Scenario(keyed, one_and_wait), explore_schedules, "above the bound"),
    Planted(keep_the_place_of_a_cancelled_waiter, Scenario(limited), explore_schedules, "deadlock"),
    Planted(keep_the_place_of_a_cancelled_probe, Scenario(guarded), explore_schedules, "deadlock"),
    Planted(lose_a_mishap, Scenario(skipped_within_limits, expecting_value_errors), explore_schedules, "accounted for"),
    Planted(skip_without_counting, Scenario(skipped), explore_schedules, "accounted for"),
    Planted(put_an_item_down_before_it_is_buried, Scenario(diverted), cancel_everywhere, "accounted for"),
    Planted(swallow_the_error_of_a_burial, Scenario(diverted), fail_everywhere, "neither raised"),
]


@pytest.mark.parametrize("bug", CAUGHT, ids=lambda bug: bug.plant.__name__)
def test_a_planted_bug_is_caught(bug, monkeypatch):
    """The campaign passes without the bug, and says what is wrong with it."""
    few = {"seeds": range(20)} if bug.campaign is explore_schedules else {}
    bug.campaign(bug.scenario, **few)
    bug.plant(monkeypatch)

    with pytest.raises(CampaignError, match=bug.telling):
        bug.campaign(bug.scenario, **few)
