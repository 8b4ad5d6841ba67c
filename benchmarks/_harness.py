"""What does one contender cost compared with another, on a machine that is never quiet?

The rule: a benchmark has cases, a case has contenders that do the same work. In every round each contender gets a fresh
process, which first does a small piece of the work; only if all results agree are they timed, one at a time, in an
order that rotates from round to round. So lasting noise affects all of them, and a ratio of medians from one run is
meaningful even though the medians alone are not.

It does not compare with earlier runs, and it knows nothing about what the contenders do.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ._libraries import interpreter
from ._model import Benchmark, Case, CaseResult, Contender, Sample
from ._profile import ABLE, Profile

__all__ = ["FULL", "NAMES", "PROFILE", "QUICK", "SMOKE", "BenchmarkError", "Effort", "agreed_digest", "load", "measure"]

NAMES = (
    "hop",
    "fused",
    "pool",
    "fair",
    "channel",
    "resilience",
    "second_calls",
    "batch",
    "loop",
    "lifecycle",
    "imports",
    "report",
    "recording",
    "own",
    "keys",
    "limits",
    "adaptive",
    "processes",
    "memory",
)
"""The benchmarks, in the order in which they run."""

PROFILE = "profile"
"""Tells a contender to report where its time goes."""

_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured: the rounds, many items or few, all cases of a benchmark or only the first."""

    rounds: int
    few_items: bool = False
    first_case: bool = False
    scale: float = 1.0
    """The fraction of the items that is used, but never fewer than `--quick` uses."""
    profiles: bool = True
    """Whether to profile our contenders if a target is missed."""

    def rounds_of(self, benchmark: Benchmark) -> int:
        """Return the number of rounds for a benchmark."""
        return min(self.rounds, benchmark.most_rounds or self.rounds)


FULL, QUICK = Effort(rounds=5), Effort(rounds=3, few_items=True)
SMOKE = Effort(rounds=1, few_items=True, first_case=True, profiles=False)


class BenchmarkError(Exception):
    """A benchmark without meaning: contenders disagree, or one failed."""


def load(name: str) -> Benchmark:
    """Import a benchmark."""
    benchmark: Benchmark = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    return benchmark


def agreed_digest(case: Case, digests: dict[str, str]) -> str:
    """Return the one digest that all contenders have.

    Raises:
      BenchmarkError: if they differ.
    """
    if len(set(digests.values())) != 1:
        raise BenchmarkError(f"case {case.name!r}: the contenders must agree, not give {digests}")
    return next(iter(digests.values()))


def measure(benchmark: Benchmark, effort: Effort, missing: Callable[[Contender], str | None]) -> Iterator[CaseResult]:
    """Measure a benchmark, case by case; `missing` says why a contender cannot run.

    Raises:
      BenchmarkError: if a contender fails, or its result differs from the others.
    """
    for case in benchmark.cases[: 1 if effort.first_case else None]:
        reasons = {each.name: missing(each) for each in case.contenders}
        able = tuple(each for each in case.contenders if reasons[each.name] is None)
        items = case.quick_items if effort.few_items else max(case.quick_items, int(case.items * effort.scale))
        samples = tuple(_round(benchmark, case, able, items, n) for n in range(effort.rounds_of(benchmark)))
        result = CaseResult(benchmark, case, items, samples, {name: why for name, why in reasons.items() if why})
        yield replace(result, profiles=_profiles(result)) if effort.profiles and ABLE else result


def _profiles(result: CaseResult) -> dict[str, Profile]:
    """Profile those of our contenders that miss a target."""
    missed = {name for each in result.missed for name in (each.left, each.right)}
    found = {}
    for contender in result.contenders:
        if contender.is_ours and contender.name in missed:
            with _Process(result.benchmark.name, result.case.name, contender, result.items) as process:
                process.answer()
                found[contender.name] = process.profile()
    return found


def _round(
    benchmark: Benchmark, case: Case, contenders: tuple[Contender, ...], items: int, number: int
) -> dict[str, Sample]:
    with ExitStack() as stack:
        started = {
            each.name: stack.enter_context(_Process(benchmark.name, case.name, each, items)) for each in contenders
        }
        agreed_digest(case, {name: process.answer() for name, process in started.items()})
        names = list(started)
        turn = number % len(names)
        return {name: started[name].sample() for name in names[turn:] + names[:turn]}


class _Process:
    """A contender in its own process, which waits for its turn without using the processor."""

    def __init__(self, benchmark: str, case: str, contender: Contender, items: int) -> None:
        self._where = f"{benchmark}, {case}, {contender.name}"
        python = interpreter(contender.isolated, make=False) if contender.isolated else sys.executable
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmarks._contender", benchmark, case, contender.name, str(items)],
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
        """Wait for its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise BenchmarkError(f"{self._where}: failed with exit status {self._process.wait()}")
        return line

    def sample(self) -> Sample:
        """Let it run, and return the measurement."""
        return Sample(**self._told("go"))

    def profile(self) -> Profile:
        """Let it run, and return where its time went."""
        return Profile(tuple(tuple(each) for each in self._told(PROFILE)["functions"]))

    def _told(self, what: str) -> Any:
        assert self._process.stdin is not None
        print(what, file=self._process.stdin, flush=True)
        return json.loads(self.answer())
