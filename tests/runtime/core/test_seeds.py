"""The seed of jitter: a fleet that fails at one instant does not come back at one, and a test sees the same each time.

Mutants that die here: a seed that all runs share; the same jitter in each stage, or for each start of a step; a place
where a `Retry` may stand that nobody draws a seed for; a seed drawn by a plan that needs none; chance under a clock
that is not trio's; a report that does not tell.
"""

import math
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

from funcpipe_trio import Backoff, FairShare, OnError, Pipeline, Retry, Step, gather, merge
from funcpipe_trio.testing import run_virtual
from funcpipe_trio.testing._schedule import Schedule, scheduled

FLEET = 30
BACKOFF = Backoff(10, maximum=1000, jitter=1)


class Down:
    """A service that is down: remembers when it was asked."""

    def __init__(self, backoff=BACKOFF):
        self.times = []
        self.retry = Retry(4, ConnectionError, backoff)
        self.step = Step(self.call, name="call").retry(self.retry)

    def feed(self):
        self.times.append(round(trio.current_time(), 6))
        raise ConnectionError

    async def call(self, item):
        self.feed()

    def source(self, number=0):
        return Pipeline.restarting(self.feed, self.retry, reset_after=60)


async def at_once(make):
    """Start a whole fleet at one instant."""

    async def one(number):
        with suppress(ConnectionError):
            await make(number)

    async with trio.open_nursery() as nursery:
        for number in range(FLEET):
            nursery.start_soon(one, number)


def fails(item):
    raise KeyError(item)


def overflowing(down):
    """Items that find no room in the queue of their key."""
    full = OnError.divert(down.step)
    share = FairShare(capacity=1)
    return Pipeline.from_iterable(range(9)).fair_by(lambda item: 0, share, max_keys=1, overflow=full)


def merged_sources(down):
    async def main():
        with pytest.raises(ConnectionError):
            await merge(*(down.source() for _ in range(FLEET))).collect()

    return main


def merged_steps(down):
    async def main():
        inputs = [Pipeline.from_iterable([0]).map(down.step, on_error=OnError.skip()) for _ in range(FLEET)]
        await merge(*inputs).run()

    return main


def shared_step(down):
    """One started step in the stages of one run."""

    async def main():
        step = down.step.start()
        inputs = [Pipeline.from_iterable([0]).map(step, on_error=OnError.skip()) for _ in range(FLEET)]
        await merge(*inputs).run()

    return main


def nested_sources(down):
    async def main():
        with pytest.raises(ConnectionError):
            await Pipeline.from_iterable(range(FLEET)).flat_map(down.source, concurrency=FLEET).run()

    return main


def items_of_a_stage(down):
    async def main():
        items = Pipeline.from_iterable(range(FLEET))
        await items.map(down.step, concurrency=FLEET, on_error=OnError.skip()).run()

    return main


def gathered(down):
    async def main():
        with pytest.raises(ConnectionError):
            await gather(down.step, range(FLEET), concurrency=FLEET)

    return main


ONE = Pipeline.from_iterable([0])

FLEETS = {
    "runs of a feed": lambda down: partial(at_once, lambda number: down.source().run()),
    "runs of feeds with names": lambda down: partial(
        at_once,
        lambda number: Pipeline.restarting(down.feed, down.retry, reset_after=60, name=f"feed {number}").run(),
    ),
    "runs of a step": lambda down: partial(at_once, lambda number: ONE.map(down.step).run()),
    "runs of a step that expands": lambda down: partial(at_once, lambda number: ONE.flat_map(down.step).run()),
    "runs that filter by a step": lambda down: partial(at_once, lambda number: ONE.filter(down.step).run()),
    "runs that divert": lambda down: partial(
        at_once, lambda number: ONE.map(fails, on_error=OnError.divert(down.step)).run()
    ),
    "runs that divert what has no room": lambda down: partial(at_once, lambda number: overflowing(down).run()),
    "steps alone": lambda down: partial(at_once, lambda number: down.step(0)),
    "steps that were started": lambda down: partial(at_once, lambda number: down.step.start()(0)),
    "calls of one started step": lambda down: partial(at_once, down.step.start()),
    "steps that are gathered": lambda down: partial(at_once, lambda number: gather(down.step, [0], concurrency=1)),
    "feeds of one run": merged_sources,
    "stages of one run": merged_steps,
    "stages that share a step": shared_step,
    "feeds within one run": nested_sources,
    "items of a stage": items_of_a_stage,
    "items that are gathered": gathered,
}


@pytest.mark.parametrize("fleet", FLEETS)
def test_a_fleet_that_fails_at_one_instant_spreads(fleet):
    """P11a: each attempt after the first has its own instant, except by coincidence; and the next time the same.

    Where the first final error ends the others, only some of the attempts are seen.
    """
    runs = []
    for _ in range(2):
        down = Down()
        with scheduled(Schedule(0)):
            run_virtual(FLEETS[fleet](down))
        runs.append(down.times)
    times = runs[0]
    later = [time for time in times if time]

    assert runs[0] == runs[1]
    assert len(times) - len(later) == FLEET
    assert len(later) >= 20
    assert len(set(later)) >= len(later) - 2


@pytest.mark.parametrize("fleet", ["runs of a feed", "runs of a step", "steps alone", "steps that were started"])
def test_a_seed_that_is_given_is_that_of_every_run(fleet):
    """A user who passes one wants runs with the same waits."""
    down = Down(Backoff(10, maximum=1000, jitter=1, seed=5))
    run_virtual(FLEETS[fleet](down))

    assert len(down.times) == 4 * FLEET
    assert len(set(down.times)) == 4


@pytest.mark.parametrize("fleet", ["feeds of one run", "stages of one run", "stages that share a step"])
def test_stages_of_one_run_spread_with_a_seed_that_is_given(fleet):
    """They differ by their names."""
    down = Down(Backoff(10, maximum=1000, jitter=1, seed=5))
    run_virtual(FLEETS[fleet](down))
    later = [time for time in down.times if time]

    assert len(set(later)) >= len(later) - 2


# ---- what the report says

ANY = Retry(2, OSError)
SEEDED = Retry(2, OSError, Backoff(seed=1))
STEADY = Retry(2, OSError, Backoff(jitter=0))
ONCE = Retry(1, OSError)


async def give(item):
    return item


PLACES = {
    "a source": lambda retry: Pipeline.restarting(lambda: iter([1]), retry, reset_after=math.inf),
    "a step": lambda retry: ONE.map(Step(give).retry(retry)),
    "inside of a step": lambda retry: ONE.map(Step(give).then(Step(give).retry(retry).timeout(9)).retry(STEADY)),
    "around other retries": lambda retry: ONE.map(Step(give).retry(STEADY).timeout(9).retry(retry)),
    "a step that was started": lambda retry: ONE.map(Step(give).retry(retry).start()),
    "a filter": lambda retry: ONE.filter(Step(give).retry(retry)),
    "a step of keys": lambda retry: ONE.map(Step(give).retry(retry), key=str),
    "a flat_map": lambda retry: Pipeline.from_iterable([[0]]).flat_map(Step(give).retry(retry)),
    "dead letters": lambda retry: ONE.map(give, on_error=OnError.divert(Step(give).retry(retry))),
    "what has no room": lambda retry: ONE.fair_by(str, max_keys=1, overflow=OnError.divert(Step(give).retry(retry))),
    "a branch": lambda retry: ONE.broadcast({"a": lambda line: line.map(Step(give).retry(retry))}),
    "an input": lambda retry: merge(ONE, ONE.map(Step(give).retry(retry))),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_report_shows_the_seed_wherever_the_retry_stands(place):
    """Also if nothing had to be tried again."""
    report = run_virtual(PLACES[place](ANY).run)

    assert report.seed == 0
    assert report.describe().splitlines().count("seed 0") == 1


@pytest.mark.parametrize("retry", [SEEDED, STEADY, ONCE], ids=["has its own", "has no jitter", "never waits"])
@pytest.mark.parametrize("place", PLACES)
def test_nothing_is_drawn_that_is_not_needed(place, retry):
    """Neither shown, nor numbered: the next run that needs one has the first number."""

    async def main():
        without = await PLACES[place](retry).run()
        return without, await PLACES[place](ANY).run(), await PLACES[place](ANY).run()

    without, first, second = run_virtual(main)

    assert (without.seed, first.seed, second.seed) == (None, 0, 1)
    assert "seed" not in without.describe()


def test_with_the_seed_of_its_report_a_run_can_be_repeated():
    """All that fails waits as it did, in each of its stages."""

    def plan(down):
        step = Step(down.call, name="first").retry(down.retry)
        calls = Pipeline.from_iterable(range(5)).map(step, concurrency=3, ordered=False, on_error=OnError.skip())
        return merge(calls, calls, Pipeline.restarting(lambda: iter([1]), down.retry, reset_after=60))

    async def later():
        for _ in range(3):
            await plan(Down()).run()
        down = Down()
        return down.times, (await plan(down).run()).seed

    times, seed = run_virtual(later)
    began, down = times[0], Down(Backoff(10, maximum=1000, jitter=1, seed=seed))
    run_virtual(plan(down).run)

    assert seed == 3
    assert all(math.isclose(time - began, again, abs_tol=1e-5) for time, again in zip(times, down.times, strict=True))


# ---- clocks


class OwnClock(trio.abc.Clock):
    """A clock that somebody wrote."""

    def __init__(self):
        self.inner = trio.testing.MockClock(autojump_threshold=0)

    def start_clock(self):
        self.inner.start_clock()

    def current_time(self):
        return self.inner.current_time()

    def deadline_to_sleep_time(self, deadline):
        return self.inner.deadline_to_sleep_time(deadline)


async def three_seeds():
    return [(await PLACES["a step"](ANY).run()).seed for _ in range(3)]


def test_under_trios_own_clock_seeds_are_drawn():
    """64 bits of chance: no two are alike, and none is the number of a run."""
    seeds = {*trio.run(three_seeds), *trio.run(three_seeds)}

    assert len(seeds) == 6
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert max(seeds) > 2**32


@pytest.mark.parametrize("clock", [OwnClock, trio.testing.MockClock, partial(trio.testing.MockClock, rate=1)])
def test_under_any_other_clock_they_are_numbered(clock):
    """From the beginning in each run of trio."""
    seeds = [trio.run(three_seeds, clock=clock()) for _ in range(2)]

    assert seeds == [[0, 1, 2]] * 2


def test_a_started_step_begins_anew_in_another_run_of_trio():
    """It is numbered there like any other; only its calls are counted on."""

    async def waits(step, down, calls):
        for _ in range(calls):
            down.times.clear()
            with pytest.raises(ConnectionError):
                await step(0)
        return [round(time - down.times[0], 5) for time in down.times]

    down = Down()
    begun, other = down.step.start(), down.step.start()
    second = run_virtual(waits, begun, down, 2)
    run_virtual(waits, other, down, 1)

    assert run_virtual(waits, other, down, 1) == second
