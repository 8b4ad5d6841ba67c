"""How is a step called outside of a pipeline? With one set of tokens, circuits and threads for all its calls."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, TypeVar

import trio

from ..._base.errors import StateError
from ..._base.frozen import dataclass
from ..._base.shown import cut, escaped, named
from ..._plan.steps import StepPlan
from ..._sansio.breaker import State
from ...policies.circuit_breaker import CircuitBreaker
from ..core.call_context import CallContext, Layered
from ..core.failures import add_note, leaves_of
from ..core.step_counters import StepCounters
from ..reports.counts import PolicyReport
from .layers import Circuits, layers_of
from .one_run import OneRun

if TYPE_CHECKING:
    from trio_util import AsyncValue

    from .resources import Block

A = TypeVar("A", contravariant=True)
B = TypeVar("B", covariant=True)


CircuitState: TypeAlias = State


@dataclass(frozen=True, slots=True)
class StartedCircuit:
    """A circuit breaker at work, as part of a started step."""

    breaker: CircuitBreaker
    """The policy that it follows."""
    state: AsyncValue[CircuitState]
    """``closed``, ``open``, or ``half-open``, as a value whose changes can be awaited: it is read-only, a
    `trio_util.AsyncValue`. It is ``half-open`` when the first call after `reset_after` is made, which is the probe, so
    without calls an open circuit stays ``open``."""


class StartedStep(Generic[A, B]):
    """A step that keeps its state (tokens, circuit, threads) from call to call; made by `Step.start`.

    It is an async function like any other: call it from any task, or give it to several pipelines, which then share its
    state. In another trio run, after the end of the first, it starts again with new state (a shared `RateLimiter` goes
    on). In two trio runs at a time, in two threads, it is refused.
    """

    def __init__(self, plan: StepPlan) -> None:
        self.plan: StepPlan = plan  # what it runs, and what it is called
        self._circuits: Circuits = []  # its circuit breakers, from the inside out; made with the layers
        self._block: Block | None = None  # holds its resources open, and has its tasks; None outside of the block
        self._nursery: Any = None  # the manager of the nursery of that block, likewise
        self._layered = layers_of(
            plan, self._keeper, self._circuits, callers_leave=True
        )  # the function with its policies, again for each trio run
        self._one_run = OneRun(f"the started step {plan.name!r}", "Use step.start() in each of them.")
        """The trio run that may use it now."""
        self._counters = StepCounters()  # what its policies did, over all runs
        self._calls = 0  # calls so far, which numbers them

    def layered(self) -> Layered:
        """Return the function with its policies, for this trio run.

        Raises:
          StateError: if another trio run uses it that is not over.
        """
        # Open circuits, and threads that were left behind, belong to the run before.
        if not self._one_run.is_current() and self._one_run.enter():
            self._circuits = []
            self._layered = layers_of(self.plan, self._keeper, self._circuits, callers_leave=True)
            self._counters.seed = None
        return self._layered

    def _keeper(self) -> Block:
        if self._block is None:
            raise StateError(
                f"the started step {self.plan.name!r}: one with using, hedge or coalesce must be called in its block\n"
                "Use `async with step.start() as call:`, which ends what belongs to it."
            )
        return self._block

    @trio.lowlevel.enable_ki_protection
    async def __aenter__(self) -> StartedStep[A, B]:
        """Begin a block, in which its resources are open and its tasks run; needed only for a step that has some.

        Raises:
          StateError: if it is in its block already, or another trio run uses it that is not over.

        Checkpoint: always.
        """
        from .resources import Block

        await trio.lowlevel.checkpoint()
        if self._block is not None:
            raise StateError(
                f"the started step {self.plan.name!r} is in its block already\nUse step.start() for another."
            )
        self.layered()
        self._nursery = trio.open_nursery()
        self._block = Block(await self._nursery.__aenter__())
        return self

    @trio.lowlevel.enable_ki_protection
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close its resources, when their calls have ended; each shielded, in at most 5 s.

        Raises:
          Exception: what closing raised, if the block raised nothing; otherwise that is a note on the error.

        Checkpoint: always.
        """
        block, nursery, self._block = self._block, self._nursery, None
        assert block is not None
        block.leave()
        try:
            await nursery.__aexit__(None, None, None)  # noqa: ASYNC102  # a nursery's exit cannot be cancelled
        except BaseExceptionGroup as group:  # what ends the program, which a task met that opens or closes
            raise next(leaves_of(group)) from None
        block.settle(error)

    def __repr__(self) -> str:
        return f"<StartedStep {cut(escaped(self.plan.name))}>"

    @property
    def __name__(self) -> str:
        return self.plan.name

    async def __call__(self, item: A) -> B:
        """Put one item through the step. For its jitter the n-th call is item n, and each start has a seed of its own.

        Raises:
          Exception: the original error of the last attempt, with notes.
          StateError: if another trio run uses it that is not over.

        Checkpoint: always.
        Cancellation: stops the call at once; nothing of the shared state is lost.
        """
        number, self._calls = self._calls, self._calls + 1
        await trio.lowlevel.checkpoint()
        context = CallContext(self._counters, number)
        try:
            return await self._run(item, context)  # type: ignore[no-any-return]  # the step gave it its type
        except Exception as error:
            add_note(error, f"in step {named(self.plan.name)}{context.attempts()}")
            raise
        finally:
            context.last_error = None  # whose frames refer to the context

    @trio.lowlevel.enable_ki_protection  # for the layers' own code; user code in them is not protected
    async def _run(self, item: Any, context: CallContext) -> Any:
        return await self.layered()(item, context)

    @property
    def circuits(self) -> tuple[StartedCircuit, ...]:
        """Its circuit breakers, from the inside out, as they are written: empty without any.

        ``(circuit,) = started.circuits; await circuit.state.wait_value("closed")``. Ask in the trio run that uses the
        step: in another, it has other circuits.

        Raises:
          StateError: outside of a trio run; or if another trio run uses it that is not over.
        """
        if not trio.lowlevel.in_trio_run():
            raise StateError("StartedStep.circuits: must be asked inside of trio.run(...), where its circuits are")
        self.layered()
        return tuple(StartedCircuit(each.policy, each.state()) for each in self._circuits)

    def statistics(self) -> PolicyReport:
        """Return what its policies did so far. Sync."""
        return PolicyReport.of(self._counters)
