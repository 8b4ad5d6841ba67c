"""A step at work outside of a pipeline: one set of tokens, circuits and threads, for as many calls as are made."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import trio

from ..._base.shown import cut, escaped, named
from ..._plan.steps import StepPlan
from ..core.call_context import CallContext, Layered
from ..core.failures import add_note
from ..core.step_counters import StepCounters
from ..reports.report import PolicyReport
from .layers import layers_of
from .one_run import OneRun

A = TypeVar("A", contravariant=True)
B = TypeVar("B", covariant=True)


class StartedStep(Generic[A, B]):
    """A step that keeps its state (tokens, circuit, threads) from call to call; made by `Step.start`.

    It is an async function like any other: call it from any task, or give it to several pipelines, which then share its
    state. In another trio run, behind the end of the first, it starts anew (a shared `RateLimiter` goes on). In two
    trio runs at a time, in two threads, it is refused.
    """

    plan: StepPlan

    def __init__(self, plan: StepPlan) -> None:
        self.plan = plan
        self._layered = layers_of(plan)
        self._run_with_it = OneRun(f"the started step {plan.name!r}", "Use step.start() in each of them.")
        self._counters = StepCounters()
        self._calls = 0

    def layered(self) -> Layered:
        """Give the function with its policies, as it is at work in this trio run.

        Raises:
          StateError: if it is at work in another one, which is not over.
        """
        # Another run's are the circuits that are open, and the threads that were left behind.
        if trio.lowlevel.current_clock() is not self._run_with_it.clock and self._run_with_it.enter():
            self._layered = layers_of(self.plan)
            self._counters.seed = None
        return self._layered

    def __repr__(self) -> str:
        return f"<StartedStep {cut(escaped(self.plan.name))}>"

    @property
    def __name__(self) -> str:
        return self.plan.name

    async def __call__(self, item: A) -> B:
        """Put one item through the step; to its jitter the n-th call is item n, and each start has a seed of its own.

        Raises:
          Exception: the original error of the last attempt, with notes.
          StateError: if it is at work in another trio run, which is not over.

        Checkpoint: always.
        Cancellation: stops the call at once; nothing of the shared state is lost.
        """
        number, self._calls = self._calls, self._calls + 1
        await trio.lowlevel.checkpoint()
        context = CallContext(self._counters, number)
        try:
            return await self._run(item, context)  # type: ignore[no-any-return]  # the step gave it its type
        except Exception as error:
            tried = "" if context.of is None else f", attempt {context.tried} of {context.of}"
            add_note(error, f"in step {named(self.plan.name)}{tried}")
            raise

    @trio.lowlevel.enable_ki_protection  # the layers' own steps; user code in them is not protected
    async def _run(self, item: Any, context: CallContext) -> Any:
        return await self.layered()(item, context)

    def statistics(self) -> PolicyReport:
        """Say what its policies did so far. Sync."""
        return PolicyReport.of(self._counters)
