"""Which waits are for a thread or a process, and so end by the real clock only?

A clock that jumps when every task waits would jump over a call that is at work in a thread: to trio's scheduler its
task is idle too. So these waits are marked: code that installs such a clock can find the mark in the stack of a task
(`funcpipe_trio.testing` does). The mark costs one coroutine, and decides nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def outside(wait: Awaitable[T]) -> T:
    """Wait for what a thread or a process will do.

    Checkpoint: as `wait`. Cancellation: as `wait`.
    """
    return await wait
