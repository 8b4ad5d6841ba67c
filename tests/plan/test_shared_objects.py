"""`check` warns where all runs of a plan share an object of the user's that may keep state, and nowhere else."""

import warnings
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import pytest

from funcpipe_trio import OnError, Pipeline, RateLimit, Step, fair_merge, threads
from funcpipe_trio.codecs import Lines

LINE = Pipeline.from_iterable([1, 2])


class Counting:
    """An operation that keeps its state in itself."""

    def __init__(self):
        self.count = 0

    def __call__(self, item):
        self.count += 1
        return [self.count]


class SlotCounting:
    __slots__ = ("count",)

    def __init__(self):
        self.count = 0

    def __call__(self, item):
        self.count += 1
        return self.count


class SlotCountingAgain(SlotCounting):
    """With a dict, too, which is empty."""


class Pair(NamedTuple):
    of: int

    def __call__(self, item):
        return item % self.of


@dataclass(frozen=True, slots=True)
class FrozenSlots:
    of: int

    def __call__(self, item):
        return item % self.of


class AsyncCounting(Counting):
    async def __call__(self, item):
        return self.count


@dataclass(frozen=True)
class Frozen:
    of: int

    def __call__(self, item):
        return item % self.of


class Stateless:
    def __call__(self, item):
        return item


async def call(item):
    return item


SHARED = {
    "flat_map": lambda: LINE.flat_map(Counting()),
    "map": lambda: LINE.map(Counting(), name="count"),
    "async map": lambda: LINE.map(AsyncCounting()),
    "a partial": lambda: LINE.map(partial(Counting(), 1)),
    "a step": lambda: LINE.map(Step(AsyncCounting()).timeout(3)),
    "a key": lambda: LINE.fair_by(Counting(), max_keys=3),
    "a diversion": lambda: LINE.map(call, on_error=OnError.divert(AsyncCounting())),
    "in a branch": lambda: LINE.broadcast({"a": lambda p: p.tap(Counting()), "b": lambda p: p}),
    "with slots": lambda: LINE.map(SlotCounting()),
    "with slots of its base": lambda: LINE.map(SlotCountingAgain()),
    "in an input": lambda: fair_merge({"a": LINE.scan(Counting(), 0)}),
}
SEPARATE = {
    "a function": lambda: LINE.map(str).map(call).filter(lambda item: True),
    "a method": lambda: LINE.map(Counting().__call__),
    "a class": lambda: LINE.stateful(lambda: Lines()),
    "a codec": lambda: LINE.stateful(Lines(max_length=3)),
    "frozen": lambda: LINE.map(Frozen(3)),
    "frozen, with slots": lambda: LINE.map(FrozenSlots(3)),
    "a tuple": lambda: LINE.map(Pair(3)),
    "without attributes": lambda: LINE.map(Stateless()),
    "a step": lambda: LINE.map(Step(str).on(threads(2)).rate_limit(RateLimit(3))),
    "a started step": lambda: LINE.map(Step(call).start()),
    "a type": lambda: LINE.map(int).flat_map(range),
    "a partial": lambda: LINE.map(partial(max, 3)),
}


@pytest.mark.parametrize("place", SHARED)
def test_it_warns_of_an_object_that_runs_share(place):
    with pytest.warns(
        UserWarning, match=r"all runs of the plan share one '(Async|Slot)?Counting(Again)?' object"
    ) as caught:
        SHARED[place]().check()

    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_name_is_one_line():
    with pytest.warns(UserWarning, match=r"^two\\nlines: all runs"):
        LINE.map(Counting(), name="two\nlines").check()


@pytest.mark.parametrize("place", SEPARATE)
def test_and_of_nothing_else(place):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SEPARATE[place]().check()
