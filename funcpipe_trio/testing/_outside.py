"""Does a task wait for a thread, a process or an executor? While one does, virtual time stands still.

To trio's clock such a task is idle: the clock would jump to the next deadline, and the call would seem to have taken
that long. The stacks of the tasks show which of them wait outside: in `trio.to_thread.run_sync`, with any caller and
limiter; in a wait that a runner of the package marks as `outside`; and in a runner of the user's own that waits for a
file descriptor, as one with processes does. A runner that sleeps, sleeps in virtual time.
"""

from __future__ import annotations

import inspect
import math
import threading
from pathlib import Path
from types import CodeType

import trio

from .._runtime.runners.outside import outside
from .._runtime.runners.runners import _ByFunction
from ._tree import all_tasks, frames_of

__all__ = ["someone_is_outside", "threads_left_behind"]

_CORE = str(Path(inspect.getfile(trio)).parent / "_core")
_DESCRIPTORS = str(Path(_CORE) / "_io_")
_WAKE_UP = str(Path(_CORE) / "_wakeup_socketpair.py")
"""Where trio always waits to be woken from other threads."""
_IN_A_THREAD = inspect.unwrap(trio.to_thread.run_sync).__code__
_MARKED = outside.__code__
_RUNNER = _ByFunction.call.__code__


def someone_is_outside(statistics: trio.lowlevel.RunStatistics) -> bool:
    """Return whether any task of the trio run waits for something outside it.

    If there is no deadline, a wait for any descriptor counts as well: without such a wait the run is deadlocked.
    """
    if _is_alone(statistics.io_statistics):
        return False
    without_end = statistics.seconds_to_next_deadline == math.inf
    return any(_is_outside([code for code, _line in frames_of(task)], without_end) for task in all_tasks())


def _is_alone(descriptors: object) -> bool:
    """Whether there are no other threads and no waits for descriptors: a quick check; walking all tasks is slow."""
    waiting = getattr(descriptors, "tasks_waiting_read", 2), getattr(descriptors, "tasks_waiting_write", 1)
    return threading.active_count() == 1 and waiting[0] <= 1 and waiting[1] == 0  # one is trio's own wake-up socket


def threads_left_behind() -> int:
    """Count the threads of trio's own limiter that still work although no task waits for them."""
    waited_for = sum(_waits_for_a_thread([code for code, _line in frames_of(task)]) for task in all_tasks())
    return max(0, int(trio.to_thread.current_default_thread_limiter().borrowed_tokens) - waited_for)


def _is_outside(codes: list[CodeType], without_end: bool) -> bool:
    if _MARKED in codes or _waits_for_a_thread(codes):
        return True
    return (without_end or _RUNNER in codes) and _waits_for_a_descriptor(codes)


def _waits_for_a_descriptor(codes: list[CodeType]) -> bool:
    files = [code.co_filename for code in codes]
    return _WAKE_UP not in files and any(name.startswith(_DESCRIPTORS) for name in files)


def _waits_for_a_thread(codes: list[CodeType]) -> bool:
    """Whether it waits in that function itself: not for the limiter, and not in what its thread asked trio to run."""
    return _IN_A_THREAD in codes and _IN_A_THREAD is next(
        code for code in reversed(codes) if not code.co_filename.startswith(_CORE)
    )
