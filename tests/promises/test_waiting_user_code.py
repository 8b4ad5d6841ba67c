"""Whatever user code a run waits for, stopping it ends that at once, and nothing takes longer than closing takes.

P6, P7: a call, an attempt that is to come, a token, a stream, a diversion: each is an await that a stop must reach.

Mutants that die here: a worker that is woken where it should be cancelled; a wait that is shielded though it cleans
nothing up; a next item that is begun behind a stop.
"""

from __future__ import annotations

import contextlib

import pytest
import trio

from funcpipe_trio import (
    Aborted,
    Backoff,
    CircuitBreaker,
    FairShare,
    OnError,
    Pipeline,
    RateLimit,
    Retry,
    Step,
    concat,
    merge,
)
from funcpipe_trio.testing import run_virtual
from tests._kit import assert_stages_balance

FOREVER = 1e7


async def waits(*_args):
    await trio.sleep(FOREVER)


async def waits_from_the_second(item):
    if item:
        await trio.sleep(FOREVER)
    return item


async def fails(item):
    raise OSError(item)


async def gives(item):
    yield item
    await trio.sleep(FOREVER)


async def gives_and_fails(item):
    yield item
    raise OSError(item)


def pipeline_that_waits(item):
    return Pipeline.from_iterable([item, item]).map(waits_from_the_second)


def pipeline_that_fails(item):
    return Pipeline.from_iterable([item]).map(fails)


async def silent():
    yield 0
    await trio.sleep(FOREVER)


async def produce(channel):
    await channel.send(0)
    await trio.sleep(FOREVER)


def opened():
    _send, receive = trio.open_memory_channel(0)
    waits.kept = _send
    return receive


def line():
    return Pipeline.from_iterable(range(1, 9))


DIVERTS = OnError.divert(waits)
WAITING = {
    "map": lambda: line().map(waits),
    "a pool": lambda: line().map(waits, concurrency=3),
    "a key": lambda: line().map(waits, key=bool, concurrency=3),
    "a step": lambda: line().map(Step(waits).timeout(2 * FOREVER)),
    "the next attempt": lambda: line().map(Step(fails).retry(Retry(3, OSError, Backoff(FOREVER, maximum=FOREVER)))),
    "a token": lambda: line().map(Step.pure(str).rate_limit(RateLimit(1 / FOREVER, burst=1))),
    "a circuit": lambda: line().map(
        Step(fails).circuit_breaker(CircuitBreaker(1, FOREVER, wait=True)), on_error=OnError.skip()
    ),
    "a hedge": lambda: line().map(Step(waits).hedge(1)),
    "a coalesce": lambda: line().map(Step(waits).coalesce(bool), concurrency=2),
    "a coalesce in a task": lambda: line().map(Step(waits).coalesce(bool).timeout(2 * FOREVER), concurrency=2),
    "a fallback": lambda: line().map(Step(fails).fallback(Step(waits))),
    "filter": lambda: line().filter(waits),
    "tap": lambda: line().tap(waits),
    "scan": lambda: line().scan(waits, 0),
    "take_while": lambda: line().take_while(waits),
    "flat_map": lambda: line().flat_map(waits, concurrency=2),
    "a child": lambda: line().flat_map(gives, concurrency=2),
    "a child of a pipeline": lambda: line().flat_map(pipeline_that_waits, concurrency=2),
    "a diversion": lambda: line().map(fails, on_error=DIVERTS),
    "a diversion of a stream": lambda: line().flat_map(gives_and_fails, concurrency=2, on_error=DIVERTS),
    "a diversion of a pipeline": lambda: line().flat_map(pipeline_that_fails, concurrency=2, on_error=DIVERTS),
    "a diversion of fair_by": lambda: (
        line().fair_by(bool, FairShare(capacity=1), max_keys=2, overflow=DIVERTS).map(waits)
    ),
    "a source": lambda: Pipeline.from_async_iterable(silent),
    "a channel": lambda: Pipeline.from_channel(opened()),
    "a producer": lambda: Pipeline.from_producer(produce),
    "ticks": lambda: Pipeline.ticks(FOREVER),
    "a restart": lambda: Pipeline.restarting(
        lambda: gives_and_fails(0), Retry(3, OSError, Backoff(FOREVER, maximum=FOREVER)), reset_after=1
    ),
    "a throttle": lambda: line().throttle(RateLimit(1 / FOREVER, burst=1)),
    "a delay": lambda: line().delay(FOREVER),
    "a batch": lambda: Pipeline.from_async_iterable(silent).batch(9, max_delay=FOREVER),
    "an input of a merge": lambda: merge(Pipeline.from_async_iterable(silent), line()),
    "an input of a concat": lambda: concat(line(), Pipeline.from_async_iterable(silent)),
    "a branch": lambda: line().broadcast({"a": lambda p: p.map(waits), "b": lambda p: p}),
}


@pytest.mark.parametrize("behind", ["nothing", "a stage", "a small buffer"])
@pytest.mark.parametrize("how", ["abort", "leave", "cancel", "grace", "paused"])
@pytest.mark.parametrize("what", WAITING)
def test_a_stop_ends_it_at_once(what, how, behind):
    """At the instant of the stop, with everything accounted for."""

    async def take(run):
        async for _item in run:
            pass

    async def main():
        plan = WAITING[what]()
        plan = {"nothing": plan, "a stage": plan.map(Step.pure(lambda item: item)), "a small buffer": plan.buffer(1)}[
            behind
        ]
        told = []
        with trio.CancelScope() as scope:
            async with plan.open(on_discard=lambda *item: told.append(item)) as run, trio.open_nursery() as nursery:
                if how in ("abort", "grace"):

                    async def reading():
                        with contextlib.suppress(Aborted):
                            await take(run)

                    nursery.start_soon(reading)
                await trio.sleep(5)
                if how == "abort":
                    run.abort()
                elif how == "grace":
                    await run.drain(grace=0)
                elif how == "cancel":
                    scope.cancel()
                elif how == "paused":
                    run.pause()
        report = run.report
        assert report.discarded == len(told)
        assert_stages_balance(report)
        return trio.current_time()

    assert run_virtual(main) == 5
