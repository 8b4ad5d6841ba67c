"""What does one contender cost next to another, on a machine that is never quiet?

The rule: a benchmark has cases, a case has contenders that do the same work. In every round each contender gets a fresh
process, which first does a small piece of the work; only if all give the same result are they timed, one at a time, in
an order that rotates from round to round. So noise that lasts meets all of them, and a ratio of medians from one run
means something where the medians alone do not.

It does not compare with an earlier run, and it knows nothing about what the contenders do.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from statistics import median
from typing import Any

__all__ = [
    "NAMES",
    "Benchmark",
    "BenchmarkError",
    "Case",
    "CaseResult",
    "Contender",
    "Metric",
    "Sample",
    "Spread",
    "Target",
    "Timed",
    "agreed_digest",
    "load",
    "measure",
]

NAMES = ("hop", "fused", "pool", "fair", "processes", "memory")
"""The benchmarks, in the order in which they run."""

_ROOT = Path(__file__).parents[1]


class BenchmarkError(Exception):
    """A benchmark that has no meaning: contenders that disagree, or one that failed."""


class Metric(Enum):
    """What is compared."""

    CPU = "CPU time"
    WALL = "elapsed time"
    """As the contender itself took it (`Timed`), else of the whole run."""
    PEAK = "peak memory"


@dataclass(frozen=True, slots=True)
class Contender:
    """One way to do the work: ``run(items)`` does it all, and gives a result.

    `view` makes of the result what all contenders must agree on; it is not timed. `times` multiplies the items of the
    measured run, for a benchmark that asks how cost grows.
    """

    name: str
    run: Callable[[int], Any]
    view: Callable[[Any], object] = lambda result: result
    times: int = 1

    def digest(self, items: int) -> str:
        """Do the work, and give a short text that is the same for the same result."""
        return hashlib.sha256(repr(self.view(self.run(items))).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Target:
    """A bound for the ratio (or the difference) of two contenders' medians; without one it is only shown."""

    left: str
    right: str
    at_least: float | None = None
    at_most: float | None = None
    difference: bool = False

    def of(self, left: float, right: float) -> float:
        """Compare two measurements."""
        return left - right if self.difference else left / right

    def met(self, value: float) -> bool:
        """Tell whether a value keeps the bound."""
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        return f"{self.left} {'-' if self.difference else '/'} {self.right}"

    @property
    def bound(self) -> str:
        """Say the bound; empty if there is none."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"


@dataclass(frozen=True, slots=True)
class Case:
    """One setting of a benchmark.

    `point` is the number that changes from case to case; `parts` is what one item's cost is divided by, its hops say.
    """

    name: str
    contenders: tuple[Contender, ...]
    targets: tuple[Target, ...]
    items: int
    quick_items: int
    check_items: int = 200
    parts: int = 1
    point: int | None = None

    def contender(self, name: str) -> Contender:
        """Find a contender."""
        return next(each for each in self.contenders if each.name == name)


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One question, and the cases that answer it.

    `most_rounds` is for a benchmark whose rounds all give the same.
    """

    name: str
    question: str
    unit: str
    cases: tuple[Case, ...]
    metric: Metric = Metric.CPU
    most_rounds: int | None = None

    def case(self, name: str) -> Case:
        """Find a case."""
        return next(each for each in self.cases if each.name == name)


@dataclass(frozen=True, slots=True)
class Sample:
    """What one run cost: seconds, and bytes where memory is the question."""

    cpu: float
    wall: float
    peak: int = 0


@dataclass(frozen=True, slots=True)
class Timed:
    """A result of a contender that measures itself, because it has to get ready first."""

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
    """The samples of one case, a row for each round; `items` is what a contender with `times` of 1 was given."""

    benchmark: Benchmark
    case: Case
    items: int
    rounds: tuple[dict[str, Sample], ...]

    def spread(self, contender: str) -> Spread:
        """Sum up a contender's cost, in the unit of the benchmark."""
        return Spread.over([self._cost(sample[contender]) for sample in self.rounds])

    def wall(self, contender: str) -> float:
        """Give the median of a contender's elapsed time, in seconds."""
        return median(sample[contender].wall for sample in self.rounds)

    def compared(self, target: Target) -> Spread:
        """Compare two contenders: their medians, and the range of what the single rounds would have said."""
        single = [target.of(self._cost(each[target.left]), self._cost(each[target.right])) for each in self.rounds]
        value = target.of(self.spread(target.left).median, self.spread(target.right).median)
        return Spread(value, min(single), max(single))

    def _cost(self, sample: Sample) -> float:
        if self.benchmark.metric is Metric.PEAK:
            return sample.peak / 2**20
        seconds = sample.wall if self.benchmark.metric is Metric.WALL else sample.cpu
        return seconds * 1e9 / (self.items * self.case.parts)


def load(name: str) -> Benchmark:
    """Import a benchmark."""
    benchmark: Benchmark = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    return benchmark


def agreed_digest(case: Case, digests: dict[str, str]) -> str:
    """Give the one digest that all contenders came to.

    Raises:
      BenchmarkError: if they differ.
    """
    if len(set(digests.values())) != 1:
        raise BenchmarkError(f"case {case.name!r}: the contenders must agree, not give {digests}")
    return next(iter(digests.values()))


def measure(benchmark: Benchmark, *, rounds: int, quick: bool) -> Iterator[CaseResult]:
    """Measure a benchmark, case by case.

    Raises:
      BenchmarkError: if a contender fails, or gives another result than the others.
    """
    rounds = min(rounds, benchmark.most_rounds or rounds)
    for case in benchmark.cases:
        items = case.quick_items if quick else case.items
        samples = tuple(_round(benchmark, case, items, number) for number in range(rounds))
        yield CaseResult(benchmark, case, items, samples)


def _round(benchmark: Benchmark, case: Case, items: int, number: int) -> dict[str, Sample]:
    with ExitStack() as stack:
        started = {
            each.name: stack.enter_context(_Process(benchmark.name, case.name, each.name, items))
            for each in case.contenders
        }
        agreed_digest(case, {name: process.answer() for name, process in started.items()})
        names = list(started)
        turn = number % len(names)
        return {name: started[name].sample() for name in names[turn:] + names[:turn]}


class _Process:
    """A contender in a process of its own, which waits for its turn without using the processor."""

    def __init__(self, benchmark: str, case: str, contender: str, items: int) -> None:
        self._where = f"{benchmark}, {case}, {contender}"
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks._contender", benchmark, case, contender, str(items)],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        with self._process:  # closes the pipes, and waits
            pass

    def answer(self) -> str:
        """Wait for what it has to say next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise BenchmarkError(f"{self._where}: failed with exit status {self._process.wait()}")
        return line

    def sample(self) -> Sample:
        """Let it run, and take the measurement."""
        assert self._process.stdin is not None
        print("go", file=self._process.stdin, flush=True)
        return Sample(**json.loads(self.answer()))
