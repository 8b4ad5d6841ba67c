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
from functools import partial
from typing import Any, Protocol, TypeAlias

from ..._base import checks
from ..._base.shown import told
from ..._plan.nodes import Plan, is_awaitable
from ..calls.calling import Calling
from ..core.ledger import OnDiscard
from ..pools.pool import Pool
from ..reports.report import Report
from .run import Consumer
from .run_context import RunContext
from .witness import Witness

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


class Observed(Witness):
    """A run that an observer takes part in: puts something around the calls of its stages.

    Args:
      observer: makes the observation when the run is opened.
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer  # takes part in the run
        self._observation: Observation | None = None  # what it made for the run; None before that is opened

    def attach(self, consumer: Consumer) -> None:
        self._observation = consumer.engine.in_its_context(self._observer.begin)
        _Inside(self._observation).attach(consumer)

    def end(self, consumer: Consumer, report: Report) -> None:
        assert self._observation is not None
        try:
            self._observation.ended(report)
        except Exception as error:
            consumer.engine.ledger.keep(error, f"then the observer raised {told(error)}")


class _Inside(Witness):
    """A run in which an observation takes part that another run began: this one, or the one that this is part of."""

    def __init__(self, observation: Observation) -> None:
        self._observation = observation  # puts something around calls

    def attach(self, consumer: Consumer) -> None:
        engine = consumer.engine
        for stage in engine.stages:
            if isinstance(stage, Pool):
                stage.call_instead(self._around(stage.name, stage.call))
        engine.open_inner = partial(self._open_inner, engine.open_inner)

    def _open_inner(
        self, open_inner: Callable[[Plan, OnDiscard], RunContext[Any]], plan: Plan, on_discard: OnDiscard
    ) -> RunContext[Any]:
        block = open_inner(plan, on_discard)
        block.admit(self)
        return block

    def _around(self, stage: str, call: Calling) -> Calling:
        """Return what a stage calls, with what the observer puts around it, and around the step for its failures."""

        def around(stage: str, fn: Call) -> Call:
            return checks.callable_("Observation.around", "what it returns", self._observation.around(stage, fn))

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
