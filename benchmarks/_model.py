"""The parts of a benchmark, as values: a question has cases, a case has targets and contenders that do the same work.

The results are also values (`CaseResult`); how they are measured is in `_harness`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from pkgutil import resolve_name
from statistics import median
from typing import Any

from ._profile import Profile

__all__ = ["Benchmark", "Case", "CaseResult", "Contender", "Metric", "Sample", "Spread", "Target", "Timed", "way"]


class Metric(Enum):
    """What is compared."""

    CPU = "CPU time"
    WALL = "elapsed time"
    """As measured by the contender itself (`Timed`), otherwise of the whole run."""
    PEAK = "peak memory"


def way(where: str, *arguments: object) -> Callable[[int], Any]:
    """Name a function of `benchmarks.contenders`, for example ``"by_trio:hop"``: it is imported when it is called.

    Its library may be missing, or be in another environment, so importing a benchmark must not import it.
    """
    return partial(_call, where, arguments)


def _call(where: str, arguments: tuple[object, ...], items: int) -> Any:
    return resolve_name(f"benchmarks.contenders.{where}")(*arguments, items)


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the work: ``run(items)`` does all of it, and returns a result.

    `view` converts the result to what all contenders must agree on; it is not timed. `times` multiplies the items of
    the measured run, for a benchmark about how cost grows. `needs` names what it imports beyond this project's own
    dependencies; `isolated` is a requirement (``"name==1.2.3"``) that gets its own environment.
    """

    name: str
    run: Callable[[int], Any]
    view: Callable[[Any], object] = lambda result: result
    times: int = 1
    needs: tuple[str, ...] = ()
    isolated: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether this project does the work."""
        if not isinstance(self.run, partial):
            return False
        return self.run.func is not _call or self.run.args[0].startswith("ours:")  # the first: in the benchmark's file

    def digest(self, items: int) -> str:
        """Do the work, and return a short text that is the same for the same result."""
        return hashlib.sha256(repr(self.view(self.run(items))).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for the ratio (or the difference) of two contenders' medians; without a bound it is only shown."""

    left: str
    right: str
    at_least: float | None = None
    at_most: float | None = None
    difference: bool = False

    def of(self, left: float, right: float) -> float:
        """Compare two measurements."""
        return left - right if self.difference else left / right

    def met(self, value: float) -> bool:
        """Return whether a value is within the bound."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        return f"{self.left} {'-' if self.difference else '/'} {self.right}"

    @property
    def bound(self) -> str:
        """The bound as text; empty if there is none."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"


@dataclass(frozen=True, slots=True)
class Case:
    """One setting of a benchmark.

    `divisor` is what an item's cost is divided by, such as its hops. `points` has the numbers that vary from case to
    case, by name: the cost is plotted over each of them.
    """

    name: str
    contenders: tuple[Contender, ...]
    targets: tuple[Target, ...]
    items: int
    quick_items: int
    check_items: int = 200
    divisor: int = 1
    points: Mapping[str, float] = field(default_factory=dict)

    def contender(self, name: str) -> Contender:
        """Find a contender."""
        return next(each for each in self.contenders if each.name == name)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One question, and the cases that answer it.

    `unit` is the unit of the cost, and `per_second` how many of them, for time, are one second. `most_rounds` is for a
    benchmark whose rounds all have the same result.
    """

    name: str
    question: str
    unit: str
    cases: tuple[Case, ...]
    metric: Metric = Metric.CPU
    per_second: float = 1e9
    most_rounds: int | None = None

    def case(self, name: str) -> Case:
        """Find a case."""
        return next(each for each in self.cases if each.name == name)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run cost: seconds, and bytes if memory is measured."""

    cpu: float
    wall: float
    peak: int = 0


@dataclass(frozen=True, slots=True)
class Timed:
    """A result of a contender that measures itself, because it needs preparation first."""

    result: Any
    sample: Sample


@dataclass(frozen=True, slots=True)
class Spread:
    """A median with the range it comes from."""

    median: float
    low: float
    high: float

    @staticmethod
    def over(values: Sequence[float]) -> Spread:
        """Sum up some values."""
        return Spread(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class CaseResult:
    """The samples of one case, one row per round; `items` is the number for a contender with `times` of 1.

    `missing` says why a contender was not measured; `profiles` where those that miss a target spend their time.
    """

    benchmark: Benchmark
    case: Case
    items: int
    rounds: tuple[dict[str, Sample], ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    profiles: Mapping[str, Profile] = field(default_factory=dict)

    @property
    def contenders(self) -> tuple[Contender, ...]:
        """The contenders that were measured."""
        return tuple(each for each in self.case.contenders if each.name not in self.missing)

    @property
    def targets(self) -> tuple[Target, ...]:
        """The targets whose contenders were both measured."""
        return tuple(each for each in self.case.targets if not {each.left, each.right} & self.missing.keys())

    @property
    def missed(self) -> tuple[Target, ...]:
        """The targets that were not reached."""
        return tuple(each for each in self.targets if not each.met(self.compared(each).median))

    def spread(self, contender: str) -> Spread:
        """Sum up a contender's cost, in the unit of the benchmark."""
        return Spread.over([self._cost(sample[contender]) for sample in self.rounds])

    def wall(self, contender: str) -> float:
        """Return the median of a contender's elapsed time, in seconds."""
        return median(sample[contender].wall for sample in self.rounds)

    def compared(self, target: Target) -> Spread:
        """Compare two contenders: their medians, and the range over the single rounds."""
        single = [target.of(self._cost(each[target.left]), self._cost(each[target.right])) for each in self.rounds]
        value = target.of(self.spread(target.left).median, self.spread(target.right).median)
        return Spread(value, min(single), max(single))

    def _cost(self, sample: Sample) -> float:
        if self.benchmark.metric is Metric.PEAK:
            return sample.peak / 2**20
        seconds = sample.wall if self.benchmark.metric is Metric.WALL else sample.cpu
        return seconds * self.benchmark.per_second / (self.items * self.case.divisor)
