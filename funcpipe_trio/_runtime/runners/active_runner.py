"""What a runner is at work: who waits for what before a call begins?

A call waits for its place first. Then `admit`, if there is one, is awaited, and the call begins in the step in which
that returns: so a rate limit counts calls when they begin, and their time is their own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import trio

from ..._base.functions import AnyFunction
from ..._plan.steps import RunnerPlan
from ..core.call_context import CallContext

Admit = Callable[[Any, CallContext], Awaitable[Any]]


class ActiveRunner(Protocol):
    """A runner at work for one start of a step."""

    async def call(self, fn: AnyFunction, item: Any, context: CallContext, admit: Admit | None) -> Any:
        """Run ``fn(item)``."""


def start_runner(plan: RunnerPlan) -> ActiveRunner:
    """Make what a runner needs at work; fresh for each start of a step."""
    running: ActiveRunner = plan.start()
    return running


async def admitted(item: Any, context: CallContext, admit: Admit | None) -> None:
    """Wait until a call that has its place may begin; nothing is taken for one that is cancelled."""
    await trio.lowlevel.checkpoint_if_cancelled()
    if admit is not None:
        await admit(item, context)
