"""What is a runner at work, and what does a call wait for before it begins?

A call waits for its place first. Then `admit`, if there is one, is awaited, and the call begins in the step in which
that returns: so a rate limit counts calls when they begin, and a timeout does not count their waiting.
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
        """Run ``fn(item)``, and return what it returns."""


def start_runner(plan: RunnerPlan) -> ActiveRunner:
    """Make what a runner needs at work; called for each start of a step."""
    running: ActiveRunner = plan.start()
    return running


async def admitted(item: Any, context: CallContext, admit: Admit | None) -> None:
    """Wait until a call that has its place may begin; a cancelled call takes no tokens."""
    await trio.lowlevel.checkpoint_if_cancelled()
    if admit is not None:
        await admit(item, context)
