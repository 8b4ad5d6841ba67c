"""Where does the time of a contender go? The stack is sampled a thousand times a second.

A sample counts for the innermost function of this project, of trio or of the benchmark's own work: what these call (a
class of `outcome`, a selector) is their cost. Unlike a profiler that counts calls, it makes no function look slower
than it is; a sample is only taken late, at the next place where Python handles signals.
"""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

__all__ = ["ABLE", "Profile", "profiled"]

ABLE = hasattr(signal, "setitimer")
"""Whether this system has the timer that it needs; Windows does not."""

EVERY, ENOUGH = 0.001, 3.0
"""Seconds between two samples, and how long to continue, by running again if needed."""

_PACKAGES = ("funcpipe_trio", "trio", "benchmarks")


@dataclass(frozen=True, slots=True)
class Profile:
    """How many samples hit each function: (package, "module.function", samples), the most first."""

    functions: tuple[tuple[str, str, int], ...]

    @property
    def looks(self) -> int:
        """The number of all samples."""
        return sum(count for _package, _name, count in self.functions)

    def packages(self) -> dict[str, float]:
        """Return the share of each package, largest first."""
        found: Counter[str] = Counter()
        for package, _name, count in self.functions:
            found[package] += count
        return {package: count / self.looks for package, count in found.most_common()}


def profiled(run: Callable[[], Any]) -> Profile:
    """Profile a call, which is repeated until there are enough samples; in the main thread only."""
    found: Counter[tuple[str, str]] = Counter()

    def sample(_signal: int, frame: FrameType | None) -> None:
        signal.set_wakeup_fd(-1)  # otherwise each sample would wake trio's loop
        found[_place(frame)] += 1

    before = signal.signal(signal.SIGALRM, sample)
    signal.setitimer(signal.ITIMER_REAL, EVERY, EVERY)
    try:
        end = time.perf_counter() + ENOUGH
        while time.perf_counter() < end:
            run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    return Profile(tuple((package, name, count) for (package, name), count in found.most_common()))


def _place(frame: FrameType | None) -> tuple[str, str]:
    """Use the name of the module: the path of any library may contain a folder named like a package."""
    while frame is not None:
        package, _dot, module = frame.f_globals.get("__name__", "").partition(".")
        if package in _PACKAGES:
            return package, f"{module}.{frame.f_code.co_qualname}".lstrip(".")
        frame = frame.f_back
    return "elsewhere", "elsewhere"
