"""Which operations of time share the stage of a sync iterable: the plan says it as the run does it.

Mutants that die here: one that joins behind a buffer, another source, a throttle, or a full chain; a throttle that
joins behind another operation; a step of a fair_by in a stage that waits for the clock.
"""

import pytest
import trio

from funcpipe_trio import FairShare, OnError, Pipeline, RateLimit, concat
from funcpipe_trio.testing import run_virtual

FEED = Pipeline.from_iterable(range(3), name="feed")
LIMIT = RateLimit(9, burst=9)


def inc(number):
    return number + 1


async def rest(failure):
    await trio.sleep(1)


def first(batch):
    return batch[0]


def stages(line):
    """The names of the stages that the plan shows; the run must have the same."""
    said = line.describe().splitlines()
    shown = [text.split()[1].rstrip(":") for text in said if text.strip().startswith(("source ", "stage "))]

    async def main():
        names = [stage.name for stage in (await line.run()).stages]
        return [name for name in names if not name.endswith("(out)")]  # who takes from a fair_by for `run`

    assert run_virtual(main) == shown
    assert said[0].startswith(f"pipeline: {len(shown)} stage")
    return shown


PLANS = {
    "batch": (FEED.batch(2, max_delay=1), ["feed"]),
    "window": (FEED.window(period=1), ["feed"]),
    "behind others": (FEED.map(inc).filter(bool).batch(2, max_delay=1).unbatch(), ["feed"]),
    "several": (FEED.batch(2, max_delay=1).window(2, period=1), ["feed"]),
    "throttle": (FEED.throttle(LIMIT).map(inc), ["feed"]),
    "throttle behind others": (FEED.map(inc).throttle(LIMIT), ["feed", "throttle"]),
    "throttle behind a throttle": (FEED.throttle(LIMIT).throttle(LIMIT), ["feed", "throttle#2"]),
    "throttle behind a batch": (FEED.batch(2, max_delay=1).throttle(LIMIT), ["feed", "throttle"]),
    "batch behind a throttle": (FEED.throttle(LIMIT).map(inc).batch(2, max_delay=1), ["feed", "batch"]),
    "behind a buffer": (FEED.buffer(2).batch(2, max_delay=1), ["feed", "batch"]),
    "throttle behind a buffer": (FEED.buffer(2).throttle(LIMIT), ["feed", "throttle"]),
    "behind ticks": (Pipeline.ticks(1, name="feed").take(3).batch(2, max_delay=1), ["feed", "batch"]),
    "behind a fan-in": (concat(FEED).batch(2, max_delay=1), ["feed", "batch"]),
    "another time": (FEED.delay(1), ["feed", "delay"]),
    "queues": (FEED.batch(2, max_delay=1).fair_by(first, max_keys=9), ["feed"]),
    "queues that divert": (
        FEED.batch(2, max_delay=1).fair_by(first, FairShare(), max_keys=9, overflow=OnError.divert(rest)),
        ["feed", "first"],
    ),
    "queues that divert, behind a throttle": (
        FEED.throttle(LIMIT).fair_by(inc, FairShare(), max_keys=9, overflow=OnError.divert(rest)),
        ["feed", "inc"],
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_says_which_stages_there_are(name):
    """As the report of a run does."""
    line, expected = PLANS[name]

    assert stages(line) == expected


def test_a_chain_that_is_full_is_joined_by_none():
    """A hundred operations are in the stage of the source; the next begins one."""
    line = FEED
    for _ in range(100):
        line = line.map(inc)

    assert stages(line.batch(2, max_delay=1)) == ["feed", "batch"]


def test_there_is_no_link_behind_a_trunk():
    """Not even behind ticks, whose link holds one."""
    plan = Pipeline.ticks(1).broadcast({"a": lambda items: items, "b": lambda items: items})

    assert plan.max_in_flight == 2
    assert plan.describe().count("link of 1") == 2
