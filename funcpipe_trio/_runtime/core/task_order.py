"""In which order does trio run tasks? Choose it. THE ONE FILE THAT USES PRIVATE NAMES OF TRIO.

Trio may run the tasks of each batch in any order. Its own scheduler only reverses a batch now and then, so many orders
never occur. There is no public way to choose the order; this uses what trio offers to Hypothesis: a flag that sorts
each batch by task, and a source of randomness that then shuffles it.

There is also no public way to see the scopes around a task, which is needed to end a run whose cleanup waits forever
in a shield (without it, such a run is abandoned, see `testing._guard`), or to tell returning threads that an abandoned
run is over.

`missing_private_names` returns those that a release of trio has removed; a test checks it.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import trio
from trio._core import _run as _trio_run


def missing_private_names() -> list[str]:
    """Return what this file needs from trio and does not find; empty if it finds everything."""
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
    """Raise the error of a campaign on a version of trio without these names."""
    if missing := missing_private_names():
        raise RuntimeError(f"this version of trio lacks {', '.join(missing)}: its schedules cannot be chosen")


class Schedule(random.Random):
    """Shuffle every batch of tasks fully, from a seed, and remember the choices.

    Args:
      seed: the same seed gives the same task order.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.digest: int = 0
        """Distinguishes schedules: equal for equal choices."""

    def shuffle(self, x: Any) -> None:
        """Order one batch of tasks."""
        if len(x) > 1:
            order = list(range(len(x)))
            super().shuffle(order)
            x[:] = [x[index] for index in order]
            self.digest = hash((self.digest, tuple(order)))


@contextmanager
def scheduled(schedule: Schedule) -> Iterator[Schedule]:
    """Order the tasks of every `trio.run` in the block by a schedule; those of other threads as usual."""
    require_private_names()
    before, _here.schedule = _here.schedule, schedule
    _switch.on()
    try:
        yield schedule
    finally:
        _switch.off()
        _here.schedule = before


def in_order(seed: int) -> AbstractContextManager[object]:
    """Return the block in which a seed orders the tasks, if this version of trio lets it."""
    return nullcontext() if missing_private_names() else scheduled(Schedule(seed))


class _Here(threading.local):
    """The schedule of each thread."""

    schedule: Schedule | None = None
    """None: as usual."""


_here = _Here()


class _ByThread(random.Random):
    """Trio's source of randomness, but where a thread has a schedule, that."""

    def __init__(self, usual: random.Random) -> None:
        super().__init__()
        self._usual = usual  # of threads without a schedule

    def shuffle(self, x: Any) -> None:
        """Order one batch of tasks."""
        (_here.schedule or self._usual).shuffle(x)

    def random(self) -> float:
        """Return a number that decides something else."""
        return (_here.schedule or self._usual).random()

    def getrandbits(self, k: int, /) -> int:
        """Return random bits, likewise."""
        return (_here.schedule or self._usual).getrandbits(k)


class _Switch:
    """Lets trio ask for schedules while any thread has one: its randomness is one for all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects all of this
        self._users = 0  # blocks in which there is a schedule
        self._before: tuple[bool, Any] = False, None  # what trio had before the first of them

    def on(self) -> None:
        module: Any = _trio_run
        with self._lock:
            if not self._users:
                self._before = module._ALLOW_DETERMINISTIC_SCHEDULING, module._r
                module._ALLOW_DETERMINISTIC_SCHEDULING, module._r = True, _ByThread(module._r)
            self._users += 1

    def off(self) -> None:
        module: Any = _trio_run
        with self._lock:
            self._users -= 1
            if not self._users:
                module._ALLOW_DETERMINISTIC_SCHEDULING, module._r = self._before


_switch = _Switch()


def shields_around(task: Any) -> Iterator[trio.CancelScope]:
    """Yield every shielded scope around a task, innermost first; none if this version of trio does not show them."""
    status = getattr(task, "_cancel_status", None)
    while status is not None:
        if status._scope.shield:
            yield status._scope
        status = status._parent


def shut(token: trio.lowlevel.TrioToken) -> None:
    """Make a run refuse calls from threads, as one that has ended does."""
    queue: Any = getattr(token, "_reentry_queue", None)
    if queue is not None:
        queue.done = True
