"""How can somebody else take part in a run, without being part of the plan? As an observer that it is opened with.

The rule: it is told when a run begins and how it ended, and may put something around what a stage calls: a span, a
context variable, a clock. It is asked once for each stage when the run is opened, so a run without an observer pays
nothing, and one with an observer only what that does.

The invariant: an observer changes no result and no order, as long as what it puts around a call returns what the call
returns and raises what it raises.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

from ..._base import checks
from ..._plan.nodes import is_awaitable
from ..calls.calling import Calling
from ..reports.report import Report

Call: TypeAlias = Callable[..., Awaitable[Any]]


class Observation(Protocol):
    """What an `Observer` makes for one run."""

    def around(self, stage: str, call: Call) -> Call:
        """Return what a stage calls with each item, in place of `call`.

        It takes the same positional arguments, the first of which is the item, and must await `call` with them, return
        what that returns and raise what it raises. A step is called with all its policies: a call that is tried three
        times is one call.

        Args:
          stage: the name of the stage, as in the plan.
          call: an async function.
        """

    def ended(self, report: Report) -> None:
        """Called when all tasks of the run have ended; what it raises is an error of cleanup."""


class Observer(Protocol):
    """What a run can be opened with, to take part in it: see `Pipeline.open`."""

    def begin(self) -> Observation:
        """Called when a run is opened, before anything of it runs.

        It is called in the context (`contextvars`) that the tasks of the run begin with: a variable that it sets is
        seen by all calls of the run, and by nobody else.
        """


def observed(observation: Observation, stage: str, call: Calling) -> Calling:
    """Return what a stage calls, with what an observer puts around it, and around the step for its failures."""

    def around(stage: str, fn: Call) -> Call:
        return checks.callable_("Observation.around", "what it returns", observation.around(stage, fn))

    return replace(
        call,
        fn=around(stage, call.fn if call.is_layered else _awaiting(call.fn)),
        divert=None if call.divert is None else around(f"{stage} (diverting)", call.divert),
    )


def _awaiting(fn: Callable[..., Any]) -> Call:
    """Return an async function: what a `flat_map` calls may give its stream at once."""

    async def awaiting(item: Any) -> Any:
        made = fn(item)
        return await made if is_awaitable(made) else made

    return awaiting
