"""Choose the order in which trio runs tasks. THE ONE FILE THAT USES PRIVATE NAMES OF TRIO.

In each batch of runnable tasks trio may run them in any order. Its own scheduler only reverses a batch now and then, so
many orders are never seen. There is no public way to choose; what is used here is what trio offers to Hypothesis: a
flag that sorts each batch by task, and a source of randomness that then shuffles it.

Nor is there a public way to see the scopes around a task, which is needed to end a run whose cleanup waits shielded for
ever. Without it, such a run is left, not ended (see `_guard`); and to tell threads that come back that a run which
was left is over.

`missing_private_names` says which of these a release of trio has taken away; a test asks it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio
from trio._core import _run as _trio_run

__all__ = [
    "Choices",
    "Schedule",
    "missing_private_names",
    "require_private_names",
    "scheduled",
    "shields_around",
    "shut",
]


def missing_private_names() -> list[str]:
    """Name what this file needs from trio and does not find; empty if all is well."""
    needed = {
        "trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING": hasattr(_trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING"),
        "trio._core._run._r": isinstance(getattr(_trio_run, "_r", None), random.Random),
        "trio._core._run.Task._counter": "_counter" in getattr(_trio_run.Task, "__slots__", ())
        or hasattr(_trio_run.Task, "_counter"),
        "trio._core._run.Task._cancel_status": hasattr(_trio_run.Task, "_cancel_status"),
        "trio._core._run.CancelStatus._scope": hasattr(_trio_run.CancelStatus, "_scope"),
        "trio._core._run.CancelStatus._parent": hasattr(_trio_run.CancelStatus, "_parent"),
        "trio.lowlevel.TrioToken._reentry_queue": hasattr(trio.lowlevel.TrioToken, "_reentry_queue"),
    }
    return [name for name, found in needed.items() if not found]


def require_private_names() -> None:
    """Raise what a campaign on a trio without them raises."""
    if missing := missing_private_names():
        raise RuntimeError(f"this trio has no {', '.join(missing)}: its schedules cannot be chosen")


class Schedule(random.Random):
    """Shuffle every batch of tasks fully, from a seed, and remember what was chosen.

    Args:
      seed: the same seed gives the same order of tasks.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.digest: int = 0
        """Tells schedules apart: equal for equal choices."""

    def shuffle(self, x: Any) -> None:
        """Order one batch of tasks."""
        if len(x) > 1:
            order = list(range(len(x)))
            super().shuffle(order)
            x[:] = [x[index] for index in order]
            self.digest = hash((self.digest, tuple(order)))


class Choices(Schedule):
    """Order every batch by a list of choices, then by the first order there is: for going through all schedules."""

    def __init__(self, choices: list[int]) -> None:
        super().__init__(0)
        self.taken: list[tuple[int, int]] = []
        """Each choice made, and out of how many."""
        self._choices = choices

    def shuffle(self, x: Any) -> None:
        """Order one batch of tasks."""
        if len(x) < 2:
            return
        number = len(self.taken)
        choice = self._choices[number] if number < len(self._choices) else 0
        self.taken.append((choice, math.factorial(len(x))))
        self.digest = hash((self.digest, choice))
        left, ordered = list(x), []
        while left:
            choice, index = divmod(choice, len(left))
            ordered.append(left.pop(index))
        x[:] = ordered

    def following(self) -> list[int] | None:
        """Give the choices of the next schedule, None if this was the last."""
        taken = list(self.taken)
        while taken:
            choice, ways = taken.pop()
            if choice + 1 < ways:
                return [*(before for before, _ in taken), choice + 1]
        return None


@contextmanager
def scheduled(schedule: Schedule) -> Iterator[Schedule]:
    """Let a schedule order the tasks of every `trio.run` inside of the block."""
    require_private_names()
    module: Any = _trio_run
    before = module._ALLOW_DETERMINISTIC_SCHEDULING, module._r
    module._ALLOW_DETERMINISTIC_SCHEDULING, module._r = True, schedule
    try:
        yield schedule
    finally:
        module._ALLOW_DETERMINISTIC_SCHEDULING, module._r = before


def shields_around(task: Any) -> Iterator[trio.CancelScope]:
    """Give every shielded scope around a task, near ones first; none if this trio does not tell."""
    status = getattr(task, "_cancel_status", None)
    while status is not None:
        if status._scope.shield:
            yield status._scope
        status = status._parent


def shut(token: trio.lowlevel.TrioToken) -> None:
    """Have a run take no more calls from threads, as one that has ended does not."""
    queue: Any = getattr(token, "_reentry_queue", None)
    if queue is not None:
        queue.done = True
