"""Run async code in virtual time from sync code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, TypeVarTuple

from .._base import checks
from ._guard import Guard, Stuck

__all__ = ["run_virtual"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_FOREVER = 1e9


def run_virtual(async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts, max_steps: int = 1_000_000) -> T:
    """Run ``async_fn(*args)`` on trio with its own clock, which starts at 0 and jumps when every task waits.

    Sleeping takes no real time, and two runs see the same times. It suits property tests: each example gets a fresh
    clock, while a fixture would share one. Time stands still while a task waits for a thread (of `trio.to_thread`), or
    for a call on `threads`, `processes` or an `executor`.

    It always returns: a run that does not end is cancelled, and its shields are removed; a run that still does not end
    is abandoned. The only thing it cannot end is code that never awaits.

    Args:
      async_fn: the async function to run.
      args: its positional arguments.
      max_steps: the most task steps (a step goes from one wait to the next) that it may take, an int >= 1.

    Returns:
      What the function returns.

    Raises:
      BaseException: what the function raises, unchanged.
      AssertionError: if the function is not done when every task waits for another, or after 10**9 virtual seconds,
        after `max_steps`, or after 30 real seconds in which nothing happens except a call in a thread or a process. The
        message says where each task stands.
      TypeError: if `async_fn` is not a function, or `max_steps` is not an int.
      ValueError: if `max_steps` is below 1.

    Checkpoint: never (sync; it must not be called inside a trio run).
    """
    checks.integer("run_virtual", "max_steps", max_steps, at_least=1)
    given: Any = async_fn
    if not callable(given):
        if hasattr(given, "close"):
            given.close()  # a coroutine: it will never be awaited
        use = "Use run_virtual(fn, *args), as with trio.run."
        raise checks.refuse(TypeError, "run_virtual", "async_fn", "be an async function", given, use)
    try:
        return Guard(seconds=_FOREVER, steps=max_steps).run(async_fn, *args)
    except Stuck as stuck:
        problem = "not done after 10**9 virtual seconds" if stuck.out_of_time else stuck.problem
        raise AssertionError(f"run_virtual: {problem}; these tasks wait:\n{stuck.tasks}") from None
