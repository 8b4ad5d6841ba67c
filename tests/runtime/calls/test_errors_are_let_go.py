"""What an error holds is let go with the last reference to it, not when the garbage collector comes.

An error holds its traceback, that holds the frames it passed, and those hold items, responses and connections. A frame
that still holds the error closes a circle, which only the collector finds.

Mutants that die here: a layer that keeps the error of a call in a variable when it raises; a task that keeps what it
saw last until it sees something else.
"""

import gc
import weakref
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from funcpipe_trio import (
    Backoff,
    CircuitBreaker,
    FairShare,
    PlaceLimiter,
    RateLimit,
    RateLimiter,
    Retry,
    RollingLimit,
    Step,
)
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom

errors = []
"""The errors that were raised, by weak references."""


def raises(seconds, error):
    errors.append(weakref.ref(error))
    try:
        raise error
    finally:
        del error


async def fails(item):
    await trio.sleep(item)
    raises(item, Boom())


async def waits(item):
    await trio.lowlevel.checkpoint()
    return item


def fails_at_once(item):
    raises(item, Boom())


@asynccontextmanager
async def resource():
    yield "resource"


async def fails_with(_resource, item):
    await fails(item)


QUICK = Backoff(0, jitter=0)
CALL = Step(fails)
STEPS = {
    "nothing": CALL,
    "in a row": Step(waits).then(CALL),
    "a pure function": Step(fails_at_once).then(CALL),
    "timeout": CALL.timeout(60),
    "retry": CALL.retry(Retry(3, Boom, QUICK)),
    "retry in time": CALL.retry(Retry(3, Boom, Backoff(1))).timeout(1.5),
    "circuit breaker": CALL.circuit_breaker(CircuitBreaker(1, 5)),
    "fallback": CALL.fallback(Step(fails)),
    "rate limit": CALL.rate_limit(RateLimit(1000)),
    "shared rate limit": CALL.rate_limit(RateLimiter(RateLimit(1000), share=FairShare()), key=str),
    "settled": CALL.rate_limit(RateLimiter(RateLimit(1000)), cost=lambda _item: 2, settle=lambda _result: 1),
    "rolling limit": CALL.rate_limit(RollingLimit(1000, per=1)),
    "places": CALL.places(PlaceLimiter(2)),
    "hedge": CALL.hedge(after=0.25, most=3),
    "hedge before it is due": CALL.hedge(after=60),
    "coalesce": CALL.coalesce(str),
    "coalesce inside of a timeout": CALL.coalesce(str).timeout(60),
    "coalesce of hedges": CALL.hedge(after=0.25).coalesce(str).retry(Retry(2, Boom, QUICK)),
    "using": Step(fails_with).using(resource),
    "a started step": Step(CALL.start()),
}


@pytest.fixture(autouse=True)
def _no_collector():
    errors.clear()
    gc.disable()
    yield
    gc.enable()


def left():
    assert errors
    return [error() for error in errors if error() is not None]


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_of_a_started_step(step):
    async def program():
        async with step.start() as call, trio.open_nursery() as nursery:

            async def one():
                with suppress(Exception):
                    await call(1)

            for _ in range(3):
                nursery.start_soon(one)
            await trio.sleep(30)
            return left()

    assert run_virtual(program) == []
