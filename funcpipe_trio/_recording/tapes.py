"""What is kept of one of the user's functions? A sample of its calls, bounded, in the order in which they came.

The rule: while there is room every call is kept. From then on a call takes the place of a kept one with the chance that
makes any call as likely to be kept as any other (a reservoir, after Li's algorithm L, 1994). Samples stay in the
order of their calls, so what was slow in the evening is slow in the evening of the simulation.

A sample is made of plain numbers: seconds, and how it ended. Nothing here has seen an item.
"""

from __future__ import annotations

from bisect import bisect_left
from math import inf, log, log1p
from random import Random
from typing import Any, TypeAlias

Sample: TypeAlias = Any
"""What JSON can hold, and a `FailureKind` where something failed; each role has its own form, see `roles`."""

_SPREAD = 32
"""How far from its place in time a sample may be taken that stands for a call that was not kept, in samples."""


class FailureKind:
    """A failed call: the name of the type of its error, and what the policies of the step said of it."""

    __slots__ = ("answers", "type_name")

    def __init__(self, type_name: str, answers: dict[str, Any] | None = None) -> None:
        self.type_name: str = type_name  # of the error; nothing else of it is kept
        self.answers: dict[str, Any] = {} if answers is None else answers
        """What was answered, by the path of what was asked: ``retry.on``, ``retry.retry_after``."""

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {"type": self.type_name, "answers": self.answers}


class Tape:
    """Samples of one function, or of one source."""

    __slots__ = ("_chance", "_limit", "_next", "_places", "_weight", "samples", "seen")

    def __init__(self, limit: int) -> None:
        self._limit = limit  # the most samples
        self._chance = Random(0)  # decides what is kept; the same each time
        self._weight = 1.0  # the greatest of the random numbers that the kept calls would have
        self._next: int = limit  # how many calls come before the next that is kept, once there is no room
        self._places: list[int] = []  # numbers of the calls that are kept, in the order of `samples`; not sorted
        self.seen: int = 0  # calls
        self.samples: list[Sample] = []  # of the calls that are kept

    def add(self, sample: Sample, number: int | None = None) -> None:
        """Keep a call, or not; a list may still be filled afterwards.

        Args:
          sample: of the call.
          number: of its item, from 0; None if calls come in the order of the items.
        """
        seen = self.seen
        self.seen = seen + 1
        if seen < self._limit:
            self._places.append(seen if number is None else number)
            self.samples.append(sample)
        elif seen == self._next:
            place = self._chance.randrange(self._limit)
            self._places[place] = seen if number is None else number
            self.samples[place] = sample
        if seen >= self._next or self.seen == self._limit:
            self._skip()

    def _skip(self) -> None:
        """Choose the next call that is kept: not each has to be asked for."""
        self._weight *= self._random() ** (1 / self._limit)
        gap = log(self._random()) / log1p(-self._weight) if self._weight > 0 else inf
        self._next = self.seen + int(min(gap, 1e18))

    def _random(self) -> float:
        return 1 - self._chance.random()  # above 0, for its logarithm

    def kept(self) -> Kept:
        """Return what was kept, in the order of the calls."""
        pairs = sorted(zip(self._places, self.samples, strict=True), key=lambda pair: pair[0])
        last = pairs[-1][0] if pairs else -1  # not every item needs a call, so there may be fewer calls than items
        return Kept(max(self.seen, last + 1), [number for number, _ in pairs], [sample for _, sample in pairs])


class Kept:
    """What is left of a tape when its run is over."""

    __slots__ = ("numbers", "samples", "seen")

    def __init__(self, seen: int, numbers: list[int], samples: list[Sample]) -> None:
        self.seen: int = seen  # calls
        self.numbers: list[int] = numbers  # of the calls that were kept
        self.samples: list[Sample] = samples  # of those

    @property
    def is_whole(self) -> bool:
        """Whether every call was kept."""
        return self.seen == len(self.samples)

    def at(self, number: int, chance: Random) -> Sample:
        """Return the sample for a call, by its number; of one that was not kept, one from about its place in time.

        Args:
          number: from 0; past the last call, any sample may be returned.
          chance: decides which.
        """
        if number >= self.seen:
            return chance.choice(self.samples)
        if self.is_whole:
            return self.samples[number]
        place = bisect_left(self.numbers, number)
        if place < len(self.numbers) and self.numbers[place] == number:
            return self.samples[place]
        near = place + chance.randint(-_SPREAD, _SPREAD)
        return self.samples[min(max(near, 0), len(self.samples) - 1)]
