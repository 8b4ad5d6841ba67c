"""Run async code in virtual time, from sync code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio
import trio.testing

__all__ = ["run_virtual"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_FOREVER = 1e9


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
      AssertionError: if the function is not done after 10**9 virtual seconds: every task waits for another.

    Checkpoint: never (sync; it may not be called inside of a trio run).
    """

    async def main() -> T:
        # Without a last deadline a deadlock would spin for ever: the clock has nothing to jump to.
        with trio.move_on_after(_FOREVER):
            return await async_fn(*args)
        raise AssertionError("run_virtual: not done after 10**9 virtual seconds; every task waits for another")

    return trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
