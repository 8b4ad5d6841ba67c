"""A key that cannot be one is told in our words, wherever a key is given: method, argument, rule, type, and remedy.

Mutants that die here: a place that tells it in the words of Python; an error of the key's own ``__hash__``
that is replaced; a cause that is lost.
"""

from contextlib import ExitStack

import pytest
import trio

from funcpipe_trio import FairChannel, FairShare, Pipeline, PlaceLimiter, RateLimit, RateLimiter, Step
from funcpipe_trio.testing import run_virtual


class Broken:
    def __hash__(self):
        raise LookupError("no hash")


async def call(item):
    await trio.lowlevel.checkpoint()
    return item


def tokens():
    return RateLimiter(RateLimit(5), FairShare())


def places():
    return PlaceLimiter(2, FairShare())


async def hold(key):
    async with places().hold(key=key):
        pass


async def open_input(key):
    with FairChannel() as channel, channel.open_input(key):
        await trio.lowlevel.checkpoint()


async def in_group(key):
    with FairChannel() as channel, ExitStack() as stack:
        stack.enter_context(channel.group("g").open_input(key))
        await trio.lowlevel.checkpoint()


def sync(do):
    async def main(key):
        await trio.lowlevel.checkpoint()
        do(key)

    return main


def step(make):
    """Return what calls a step whose key function gives the key."""

    async def main(key):
        made = make(Step(call), lambda item: key)
        async with made.start() as started:
            await started(1)

    return main


def stream(make):
    async def main(key):
        await make(Pipeline.from_iterable(range(3), name="numbers"), lambda item: key).collect()

    return main


async def set_weight_of_run(key):
    async with Pipeline.from_iterable(range(3)).fair_by(str, max_keys=2).open() as run:
        run.set_weight(key, 2)


class State:
    def push(self, item):
        return [item]


PLACES = {
    "RateLimiter.acquire: key": lambda key: tokens().acquire(key=key),
    "RateLimiter.acquire_nowait: key": sync(lambda key: tokens().acquire_nowait(key=key)),
    "RateLimiter.set_weight: key": sync(lambda key: tokens().set_weight(key, 2)),
    "RateLimiter.group: key": sync(lambda key: tokens().group(key)),
    "PlaceLimiter.hold: key": hold,
    "PlaceLimiter.set_weight: key": sync(lambda key: places().group("g").set_weight(key, 2)),
    "PlaceLimiter.group: key": sync(lambda key: places().group(key, 3)),
    "Step.rate_limit: what key gives": step(lambda step, key: step.rate_limit(tokens(), key=key)),
    "Step.places: what key gives": step(lambda step, key: step.places(places(), key=key)),
    "Step.rate_limit: what per_key gives": step(lambda step, key: step.rate_limit(RateLimit(3), per_key=key)),
    "Step.coalesce: what key gives": step(lambda step, key: step.coalesce(key)),
    "Pipeline.map: what key gives": stream(lambda line, key: line.map(call, key=key, concurrency=2)),
    "Pipeline.on_ok: what key gives": stream(lambda line, key: line.on_ok(call, key=key, concurrency=2)),
    "fair_by 'key': what key gives": stream(lambda line, key: line.fair_by(key, max_keys=3, name="key")),
    "batch 'packs': what key gives": stream(lambda line, key: line.batch(2, key=key, max_keys=3, name="packs")),
    "batch 'timed': what key gives": stream(
        lambda line, key: line.batch(2, max_delay=1, key=key, max_keys=3, name="timed")
    ),
    "stateful 'kept': what key gives": stream(lambda line, key: line.stateful(State, key=key, max_keys=3, name="kept")),
    "FairChannel.open_input: key": open_input,
    "FairChannel.group: key": sync(lambda key: FairChannel().group(key)),
    "FairChannel.set_weight: key": sync(lambda key: FairChannel().set_weight(key, 2)),
    "Run.set_weight: key": set_weight_of_run,
}


def error_of(main, key):
    with pytest.raises(Exception) as caught:
        run_virtual(main, key)
    return caught.value


@pytest.mark.parametrize("place", PLACES)
def test_an_unhashable_key_is_told_with_its_remedy(place):
    for key, kind in (([1], "a list of length 1"), (("a", {}), "a tuple of length 2")):
        error = error_of(PLACES[place], key)
        assert type(error) is TypeError
        assert str(error) == (f"{place} must be hashable, not {kind}\nUse a tuple, or another value that can be a key.")
        assert str(error.__cause__).startswith("unhashable type: ")


@pytest.mark.parametrize("place", PLACES)
def test_what_a_key_raises_itself_passes(place):
    assert repr(error_of(PLACES[place], Broken())) == "LookupError('no hash')"


def test_in_a_group_of_a_channel_it_is_told_too():
    assert str(error_of(in_group, [])).startswith("FairChannel.open_input: key must be hashable, not a list")
