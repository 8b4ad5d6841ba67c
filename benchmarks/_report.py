"""What a result reads like: on the screen, and as JSON."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from ._harness import Benchmark, CaseResult, Metric, Spread

__all__ = ["as_json", "case_lines", "heading", "machine", "machine_line"]


def machine() -> dict[str, Any]:
    """Say where this runs."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "trio": version("trio"),
        "funcpipe-trio": version("funcpipe-trio"),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def machine_line(facts: dict[str, Any]) -> str:
    """Say it in one line."""
    load = "" if facts["load"] is None else f", load {facts['load']:.1f}"
    return (
        f"{facts['python']}, trio {facts['trio']}, funcpipe-trio {facts['funcpipe-trio']}, "
        f"{facts['system']}, {facts['processor']}, {facts['cores']} cores{load}"
    )


def heading(benchmark: Benchmark, rounds: int) -> str:
    """Say what is asked, and in what unit the answer is."""
    rounds = min(rounds, benchmark.most_rounds or rounds)
    return (
        f"{benchmark.name}: {benchmark.question}\n"
        f"  {benchmark.metric.value}, {benchmark.unit}; median of {rounds} (min..max), elapsed time of the whole run"
    )


def case_lines(result: CaseResult) -> list[str]:
    """Show one case: a line for each contender, then one for each target."""
    width = max(len(each.name) for each in result.case.contenders)
    lines = [f"  {result.case.name}, {result.items:_} items"]
    for each in result.case.contenders:
        shown = _shown(result.spread(each.name), 3 if result.benchmark.metric is Metric.PEAK else 0)
        lines.append(f"    {each.name:{width}}  {shown:30}  {result.wall(each.name):8.3f} s")
    for target in result.case.targets:
        compared = result.compared(target)
        met = "met" if target.met(compared.median) else "NOT MET"
        shown = _shown(compared, 3 if target.difference else 2)
        lines.append(f"    {target}: {shown}" + (f", target {target.bound}: {met}" if target.bound else ""))
    return lines


def _shown(spread: Spread, digits: int) -> str:
    return f"{spread.median:.{digits}f} ({spread.low:.{digits}f}..{spread.high:.{digits}f})"


def as_json(result: CaseResult) -> dict[str, Any]:
    """Give one case with all its samples."""
    return {
        "benchmark": result.benchmark.name,
        "question": result.benchmark.question,
        "metric": result.benchmark.metric.value,
        "unit": result.benchmark.unit,
        "case": result.case.name,
        "point": result.case.point,
        "items": result.items,
        "parts": result.case.parts,
        "contenders": {
            each.name: {
                "items": result.items * each.times,
                **asdict(result.spread(each.name)),
                "samples": [asdict(samples[each.name]) for samples in result.rounds],
            }
            for each in result.case.contenders
        },
        "targets": [
            {
                "compared": str(target),
                **asdict(result.compared(target)),
                "bound": target.bound,
                "met": target.met(result.compared(target).median),
            }
            for target in result.case.targets
        ],
    }
