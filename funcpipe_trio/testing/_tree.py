"""Which tasks does a trio run have, and where does each one wait?"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import trio

from .._runtime.core.parking import Parking
from .._runtime.runners.outside import outside

__all__ = ["all_tasks", "frames_of", "waiting_tasks"]

_TRIO = str(Path(inspect.getfile(trio)).parent) + os.sep
_MARKS = (Parking.__await__.__code__, outside.__code__)


def waiting_tasks() -> str:
    """List the tasks, each indented under the task that holds its nursery, and where each one waits."""
    root = trio.lowlevel.current_root_task()
    return "\n".join(_told(root, 0)) if root is not None else ""


def _told(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    where = next((f"{code.co_name}, line {line}" for code, line in frames_of(task)[::-1] if not _only_parks(code)), "")
    yield f"{'  ' * depth}{task.name}: {where or 'about to run'}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _told(child, depth + 1)


def frames_of(task: trio.lowlevel.Task) -> list[tuple[CodeType, int]]:
    """Return the code and line of each function that a task is in, as far as trio can follow what it awaits."""
    frames = []
    with contextlib.suppress(TypeError):  # `anext(iterator, default)` hides the frames below it
        for frame, line in task.iter_await_frames():
            frames.append((frame.f_code, line))
    return frames


def all_tasks() -> Iterator[trio.lowlevel.Task]:
    """Yield every task of the trio run."""
    root = trio.lowlevel.current_root_task()
    tasks = [] if root is None else [root]
    while tasks:
        task = tasks.pop()
        yield task
        tasks.extend(child for nursery in task.child_nurseries for child in nursery.child_tasks)


def _only_parks(code: CodeType) -> bool:
    """Whether a frame is trio's own or only parks: such frames are skipped, since they tell a user nothing."""
    return code.co_filename.startswith(_TRIO) or code in _MARKS
