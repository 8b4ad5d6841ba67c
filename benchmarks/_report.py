"""How are results shown? On the screen, and as JSON."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from ._harness import Effort
from ._model import Benchmark, CaseResult, Spread, Target
from ._profile import Profile

__all__ = [
    "as_json",
    "case_lines",
    "heading",
    "machine",
    "machine_line",
    "most",
    "parts",
    "shown",
    "summary",
    "verdict",
]

FUNCTIONS = 12
"""How many functions of a profile are shown."""


def machine(libraries: Mapping[str, str]) -> dict[str, Any]:
    """Return where this runs, and the versions of the other libraries."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "trio": version("trio"),
        "funcpipe-trio": version("funcpipe-trio"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "libraries": dict(sorted(libraries.items())),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def machine_line(facts: dict[str, Any]) -> str:
    """Format it as one line, and the libraries as a second."""
    load = "" if facts["load"] is None else f", load {facts['load']:.1f}"
    libraries = ", ".join(f"{name} {number}" for name, number in facts["libraries"].items())
    return (
        f"{facts['python']}, trio {facts['trio']}, funcpipe-trio {facts['funcpipe-trio']}, "
        f"{facts['system']}, {facts['processor']}, {facts['cores']} cores{load}\n{libraries or 'no other libraries'}"
    )


def heading(benchmark: Benchmark, effort: Effort) -> str:
    """Format the question, and the unit of the answer."""
    return (
        f"{benchmark.name}: {benchmark.question}\n  {benchmark.metric.value}, {benchmark.unit}; "
        f"median of {effort.rounds_of(benchmark)} (min..max), elapsed time of the whole run"
    )


def case_lines(result: CaseResult) -> list[str]:
    """Format one case: a line for each contender, then one for each target."""
    width = max(len(each.name) for each in result.case.contenders)
    lines = [f"  {result.case.name}, {result.items:_} items"]
    for each in result.case.contenders:
        if each.name in result.missing:
            lines.append(f"    {each.name:{width}}  {result.missing[each.name]}")
        else:
            spread = shown(result.spread(each.name))
            lines.append(f"    {each.name:{width}}  {spread:30}  {result.wall(each.name):8.3f} s")
    for target in result.targets:
        bound = f", target {target.bound}: {verdict(result, target)}" if target.bound else ""
        lines.append(f"    {target}: {shown(result.compared(target))}{bound}")
    for name, profile in result.profiles.items():
        lines.append(f"    where the time of {name} goes: {parts(profile)}")
        lines += [f"      {share:4.0%}  {function}" for share, function in most(profile)]
    return lines


def parts(profile: Profile) -> str:
    """Format the share of each package."""
    return ", ".join(f"{package} {share:.0%}" for package, share in profile.packages().items())


def most(profile: Profile) -> list[tuple[float, str]]:
    """Return the functions that take the most, each with its share."""
    return [(count / profile.looks, f"{package}.{name}") for package, name, count in profile.functions[:FUNCTIONS]]


def shown(spread: Spread) -> str:
    """Format a median and, if there was more than one value, its range; to about three digits."""
    digits = 0 if abs(spread.median) >= 100 else 1 if abs(spread.median) >= 10 else 2
    between = "" if spread.low == spread.high else f" ({spread.low:.{digits}f}..{spread.high:.{digits}f})"
    return f"{spread.median:.{digits}f}{between}"


def verdict(result: CaseResult, target: Target) -> str:
    """Return whether a target was reached, as text."""
    return "NOT REACHED" if target in result.missed else "reached"


def summary(results: Sequence[CaseResult]) -> str:
    """Return how many targets were reached, and the others by name."""
    bounds = sum(bool(target.bound) for result in results for target in result.targets)
    missed = [
        f"  {each.benchmark.name}, {each.case.name}: {target} is {shown(each.compared(target))}, not {target.bound}"
        for each in results
        for target in each.missed
    ]
    return "\n".join([f"{bounds - len(missed)} of {bounds} targets reached", *missed])


def as_json(result: CaseResult) -> dict[str, Any]:
    """Return one case with all its samples."""
    return {
        "benchmark": result.benchmark.name,
        "question": result.benchmark.question,
        "metric": result.benchmark.metric.value,
        "unit": result.benchmark.unit,
        "case": result.case.name,
        "points": dict(result.case.points),
        "items": result.items,
        "parts": result.case.divisor,
        "contenders": {
            each.name: {
                "items": result.items * each.times,
                **asdict(result.spread(each.name)),
                "samples": [asdict(samples[each.name]) for samples in result.rounds],
            }
            for each in result.contenders
        },
        "missing": dict(result.missing),
        "profiles": {name: profile.functions for name, profile in result.profiles.items()},
        "targets": [
            {
                "compared": str(target),
                **asdict(result.compared(target)),
                "bound": target.bound,
                "met": target.met(result.compared(target).median),
            }
            for target in result.targets
        ],
    }
