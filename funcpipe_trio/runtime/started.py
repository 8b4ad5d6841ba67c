"""A step at work outside of a pipeline: one set of tokens, circuits and threads, for as many calls as are made."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import trio

from ..plan.steps import StepPlan
from .attempt import Account, Attempt, Layered
from .failures import add_note
from .layers import layers_of
from .report import PolicyReport

__all__ = ["StartedStep"]

A = TypeVar("A", contravariant=True)
B = TypeVar("B", covariant=True)


class StartedStep(Generic[A, B]):
    """A step that keeps its state (tokens, circuit, threads) from call to call; made by `Step.start`.

    It is an async function like any other: call it from any task, or give it to several pipelines, which then share its
    state. In another trio run, which has a clock of its own, it starts anew (a shared `RateLimiter` goes on).
    """

    plan: StepPlan

    def __init__(self, plan: StepPlan) -> None:
        self.plan = plan
        self._layered = layers_of(plan)
        self._clock: trio.abc.Clock | None = None
        self._account = Account()
        self._calls = 0

    def layered(self) -> Layered:
        """Give the function with its policies, as it is at work in this trio run."""
        clock = trio.lowlevel.current_clock()
        if clock is not self._clock:
            if self._clock is not None:  # circuits that are open, threads that were left behind: all of another run
                self._layered = layers_of(self.plan)
            self._clock = clock
        return self._layered

    def __repr__(self) -> str:
        return f"<StartedStep {self.plan.name}>"

    @property
    def __name__(self) -> str:
        return self.plan.name

    async def __call__(self, item: A) -> B:
        """Put one item through the step; the n-th call is item n to its jitter.

        Raises:
          Exception: the original error of the last attempt, with notes.

        Checkpoint: always.
        Cancellation: stops the call at once; nothing of the shared state is lost.
        """
        number, self._calls = self._calls, self._calls + 1
        await trio.lowlevel.checkpoint()
        attempt = Attempt(self._account, number)
        try:
            return await self._run(item, attempt)  # type: ignore[no-any-return]  # the step gave it its type
        except Exception as error:
            tried = "" if attempt.of is None else f", attempt {attempt.tried} of {attempt.of}"
            add_note(error, f"in step {self.plan.name!r}{tried}")
            raise

    @trio.lowlevel.enable_ki_protection  # the layers' own steps; user code in them is not protected
    async def _run(self, item: Any, attempt: Attempt) -> Any:
        return await self.layered()(item, attempt)

    def statistics(self) -> PolicyReport:
        """Say what its policies did so far. Sync."""
        return PolicyReport.of(self._account)
