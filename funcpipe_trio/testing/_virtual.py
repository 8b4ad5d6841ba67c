"""Run async code in virtual time, from sync code."""

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
    """Run ``async_fn(*args)`` on trio with a clock of its own, which starts at 0 and jumps when every task waits.

    Sleeping takes no real time, and two runs see the same times. Fit for property tests: each example gets a fresh
    clock, where a fixture would share one. While a task waits for a thread (of `trio.to_thread`), or for a call on
    `threads`, `processes` or an `executor`, time stands still.

    It comes back in any case: a run that does not end is cancelled, and its shields are taken down; what does not end
    then is left where it stands. One thing it cannot end: code that never awaits.

    Args:
      async_fn: the async function to run.
      args: its positional arguments.
      max_steps: steps of tasks (a step goes from one wait to the next) to be done in, an int >= 1.

    Returns:
      What the function returns.

    Raises:
      BaseException: what the function raises, unchanged.
      AssertionError: if the function is not done when every task waits for another, or after 10**9 virtual seconds,
        after `max_steps`, or after 30 real seconds in which nothing happens but a call in a thread or a process. Says
        which task stands where.
      TypeError: if `async_fn` is no function, or `max_steps` no int.
      ValueError: if it is below 1.

    Checkpoint: never (sync; it may not be called inside of a trio run).
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
