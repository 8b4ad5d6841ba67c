"""What gives a played run its time? A clock that jumps when every task waits. An error comes without a group."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio

from .._runtime.core.failures import leaves_of

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run_played(async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run a function that opens a nursery; raise the first error in a group: Ctrl-C, or a plan that cannot work."""
    from trio.testing import MockClock

    try:
        return trio.run(async_fn, *args, clock=MockClock(autojump_threshold=0))
    except BaseExceptionGroup as group:
        raise next(leaves_of(group)) from None
