"""Run async code in virtual time, from sync code."""

from __future__ import annotations

import inspect
import os
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import TypeVar, TypeVarTuple

import trio
import trio.testing

from ..runtime.parking import Parking

__all__ = ["run_virtual", "waiting_tasks"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_FOREVER = 1e9
_TRIO = str(Path(inspect.getfile(trio)).parent) + os.sep


def run_virtual(async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run ``async_fn(*args)`` on trio with a clock of its own, which starts at 0 and jumps when every task waits.

    Sleeping takes no real time, and two runs see the same times. Fit for property tests: each example gets a fresh
    clock, where a fixture would share one. A deadlock ends the run, too.

    Args:
      async_fn: the async function to run.
      args: its positional arguments.

    Returns:
      What the function returns.

    Raises:
      BaseException: what the function raises, unchanged.
      AssertionError: if the function is not done after 10**9 virtual seconds: every task waits for another.

    Checkpoint: never (sync; it may not be called inside of a trio run).
    """
    stuck = ""

    async def watch() -> None:
        nonlocal stuck
        await trio.sleep(_FOREVER)
        stuck = waiting_tasks()
        scope.cancel()

    async def main() -> T:
        # Without a last deadline a deadlock would spin for ever: the clock has nothing to jump to.
        error: BaseException | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            try:
                with scope:
                    result = await async_fn(*args)
            except BaseException as met:  # noqa: ASYNC103  # not Cancelled: the scope keeps its own; raised below
                error = met
            nursery.cancel_scope.cancel()
        if error is not None:
            raise error  # outside of the nursery, which would put it into a group
        if scope.cancelled_caught:
            raise AssertionError(f"run_virtual: not done after 10**9 virtual seconds; these tasks wait:\n{stuck}")
        return result

    scope = trio.CancelScope()
    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def waiting_tasks() -> str:
    """Tell which tasks there are, indented under the task that holds their nursery, and where each one waits."""
    root = trio.lowlevel.current_root_task()
    return "\n".join(_told(root, 0)) if root is not None else ""


def _told(task: trio.lowlevel.Task, depth: int) -> Iterator[str]:
    frames = [(frame.f_code, line) for frame, line in task.iter_await_frames()]
    where = next((f"{code.co_name}, line {line}" for code, line in reversed(frames) if not _only_parks(code)), "")
    yield f"{'  ' * depth}{task.name}: {where or 'about to run'}"
    for nursery in task.child_nurseries:
        for child in nursery.child_tasks:
            yield from _told(child, depth + 1)


def _only_parks(code: CodeType) -> bool:
    """Whether a piece of code is trio's own, or does what trio's does: where that waits says nothing to a user."""
    return code.co_filename.startswith(_TRIO) or code is Parking.__await__.__code__
