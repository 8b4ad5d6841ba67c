"""What is kept of one of the user's functions? A sample of its calls, bounded, in the order in which they came.

The rule: while there is room every call is kept. From then on a call takes the place of a kept one with the chance that
makes any call as likely to be kept as any other (a reservoir, after Li's algorithm L, 1994). Samples stay in the
order of their calls, so what was slow in the evening is slow in the evening of the simulation.

A sample is made of plain numbers: seconds, and how it ended. Nothing here has seen an item.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from math import inf, log, log1p
from random import Random
from typing import Any, Final, TypeAlias

Sample: TypeAlias = Any
"""What JSON can hold, and a `FailureKind` where something failed; each role has its own form, see `roles`."""

_SLACK = 1024
"""Samples that may come before it is decided which of them are kept."""
_SPREAD = 32
"""How far from its place in time a sample may be taken that stands for a call that was not kept, in samples."""


INVALID: Final = ""
"""Stands for the answer of a policy's function that the policy refused, or that failed."""


class FailureKind:
    """A failed call: the name of the type of its error, and what the policies of the step said of it."""

    __slots__ = ("answers", "type_name")

    def __init__(self, type_name: str, answers: dict[str, Any] | None = None) -> None:
        self.type_name: str = type_name  # of the error; nothing else of it is kept
        self.answers: dict[str, Any] = {} if answers is None else answers
        """What was answered, by the path of what was asked: ``retry.on``, ``retry.retry_after``."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, FailureKind):
            return NotImplemented
        return (self.type_name, self.answers) == (other.type_name, other.answers)

    __hash__ = None  # type: ignore[assignment]  # policies still answer after it was made

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON holds it."""
        return {"type": self.type_name, "answers": self.answers}


def as_kept(plain: Callable[[Any], Any], answer: Any) -> Any:
    """Return an answer of a user's function as it is kept: what `plain` makes of it, or how that fails.

    An answer that is not plain is refused by the run. Nothing of it is kept, because it may be an item.
    """
    try:
        return plain(answer)
    except Exception as error:
        return FailureKind(type(error).__name__)


def further_path(path: str, number: int) -> str:
    """Return the path of the further calls of a hedge, each of which begins while those before it are under way."""
    return f"{path} +{number}"


class Tape:
    """Samples of one function, or of one source.

    What notes many calls appends to `samples` (and `numbers`) itself, and calls `thin` when there are more than `most`:
    a call of `add` for each would cost as much as the rest.
    """

    __slots__ = ("_before", "_chance", "_limit", "_next", "_sorted_out", "_weight", "most", "numbers", "samples")

    def __init__(self, limit: int) -> None:
        self._limit = limit  # the most samples that are kept
        self._chance = Random(0)  # decides what is kept; the same each time
        self._weight = 1.0  # the greatest of the random numbers that the kept calls would have
        self._next: int = limit  # how many calls come before the next that is kept, once there is no room
        self._before = 0  # calls that it was decided about
        self._sorted_out = 0  # how many of `samples` are kept from those
        self.most: int = limit + _SLACK  # samples after which it must be thinned out
        self.samples: list[Sample] = []  # kept ones, then all that came since
        self.numbers: list[int] = []  # of the items of those, from 0; for later samples left out if they come in order

    @property
    def seen(self) -> int:
        """How many calls there were."""
        return self._before + len(self.samples) - self._sorted_out

    def add(self, sample: Sample) -> None:
        """Keep a call, or not; a list may still be filled afterwards."""
        self.samples.append(sample)
        if len(self.samples) > self.most:
            self.thin()

    def add_number(self, sample: Sample, number: int) -> None:
        """Do the same for calls that do not come in the order of their items."""
        self.numbers.append(number)
        self.add(sample)

    def thin(self) -> None:
        """Decide which of the latest samples are kept."""
        self._number()
        samples, numbers, limit = self.samples, self.numbers, self._limit
        seen, shift = self.seen, self._before - self._sorted_out
        if len(samples) >= limit and self._weight == 1.0:
            self._skip(limit)
        while self._next < seen:
            place, new = self._chance.randrange(limit), self._next - shift
            samples[place], numbers[place] = samples[new], numbers[new]
            self._skip(self._next + 1)
        del samples[limit:], numbers[limit:]
        self._before, self._sorted_out = seen, len(samples)

    def _number(self) -> None:
        """Number what came in order."""
        missing = len(self.samples) - len(self.numbers)
        self.numbers.extend(range(self.seen - missing, self.seen))

    def _skip(self, first: int) -> None:
        """Choose the next call that is kept, from the `first` on: not each has to be decided about."""
        self._weight *= self._random() ** (1 / self._limit)
        gap = log(self._random()) / log1p(-self._weight) if 0 < self._weight < 1 else inf
        self._next = first + int(min(gap, 1e18))

    def _random(self) -> float:
        return 1 - self._chance.random()  # above 0, for its logarithm

    def kept(self) -> Kept:
        """Return what was kept, in the order of the calls."""
        if len(self.samples) > self._limit:
            self.thin()
        self._number()
        numbers = sorted(self.numbers)
        order = sorted(range(len(numbers)), key=self.numbers.__getitem__)
        last = numbers[-1] if numbers else -1  # not every item needs a call, so there may be fewer calls than items
        samples = [self.samples[place] for place in order]
        return Kept(max(self.seen, last + 1), numbers, samples)


class Kept:
    """What is left of a tape when its run is over."""

    __slots__ = ("numbers", "samples", "seen")

    def __init__(self, seen: int, numbers: list[int], samples: list[Sample]) -> None:
        self.seen: int = seen  # calls
        self.numbers: list[int] = numbers  # of the calls that were kept
        self.samples: list[Sample] = samples  # of those

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Kept):
            return NotImplemented
        return (self.seen, self.numbers, self.samples) == (other.seen, other.numbers, other.samples)

    __hash__ = None  # type: ignore[assignment]  # its lists have none

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
