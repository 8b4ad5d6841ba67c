"""What becomes of an item whose call failed?

The policy (`OnError`) decides: the failure ends the stream at the item's position; or the item's place there is taken
by nothing, in its turn (`PendingSkip`, so that a limit counts items in their order and not in the order in which calls
end), by a `Failure`, or by nothing once another step has handled the `Failure`.

A failure of an item that is no longer needed ends nothing: it is kept with the errors of cleanup. No policy covers a
mistake in the program (`is_misuse`).
"""

from __future__ import annotations

from typing import Any, Protocol

from ..._base.errors import is_misuse
from ..._sansio.reorder import AsCompleted, InOrder
from ..._sansio.tolerance import Tolerance
from ...policies.on_error import Divert, Failure, Skip, Stop
from ..calls.calling import Calling
from ..core.call_context import CallContext
from ..core.failures import add_note, failure_of, is_caused_by_cancelling, noted
from ..core.signals import FailureMark
from ..stages.chain import Chain
from .crew import Worker
from .results import PendingSkip


class PoolOfOutcomes(Protocol):
    """The pool, as far as outcomes know it."""

    chain: Chain
    order: InOrder | AsCompleted

    def is_superfluous(self, worker: Worker) -> bool:
        """Whether what a worker does is no longer needed."""

    def note_end(self, worker: Worker) -> None:
        """Count how long a call took, which has ended."""

    def give_up(self, worker: Worker) -> None:
        """Give up the item in a worker's hands, which is no longer needed."""

    def put_down(self, worker: Worker) -> Any:
        """Take the item out of a worker's hands."""

    def items_seen(self) -> int:
        """How many items had their turn."""

    def emit(self, worker: Worker, failure: Failure[Any]) -> None:
        """Put the failure in the item's place."""

    def pass_over(self, worker: Worker) -> None:
        """Let nothing come in the item's place."""

    def end_with(self, replaced: FailureMark | None, behind: list[Any]) -> None:
        """Give up everything behind the failure that now ends the stream."""


class Outcomes:
    """Handles failed calls as the policy of the pool says."""

    def __init__(self, pool: PoolOfOutcomes, call: Calling) -> None:
        self._pool = pool  # whose calls failed
        self.call: Calling = call  # what it calls, with the policy
        self._tolerance = Tolerance(call.on_error) if isinstance(call.on_error, Skip) else None
        """How much may be skipped; None if the policy does not skip."""

    async def meet(self, worker: Worker, raised: BaseException) -> None:
        """Handle an item whose call failed as the policy says; called in the handler of what was raised."""
        pool, policy, error = self._pool, self.call.on_error, failure_of(raised)
        if error is None:
            raise raised
        if not pool.is_superfluous(worker):
            pool.note_end(worker)
        if isinstance(policy, Stop) or is_misuse(error) or pool.is_superfluous(worker):
            self._fail(worker, error)
            return
        if isinstance(policy, Skip):
            attempts = self._attempts(worker)
            pool.order.complete(worker.position, PendingSkip(pool.put_down(worker), error, worker.number, attempts))
            return
        failure = self._failure_of(worker, error)
        if isinstance(policy, Divert):
            await self._divert(worker, failure)
        else:
            self._count(failure.error)
            pool.put_down(worker)
            pool.chain.as_failures += 1
            pool.emit(worker, failure)

    def skip(self, pending: PendingSkip) -> None:
        """Skip a failed item whose turn has come, or end the stream there if it is one too many."""
        assert self._tolerance is not None
        pool = self._pool
        pool.chain.failed += 1
        limit = self._tolerance.failed(pool.items_seen())
        if limit is None:
            self._count(pending.error)
            return
        met = noted(pending.error, pool.chain.name, pending.number, pending.attempts)
        add_note(met, limit)
        pool.end_with(*pool.order.end(FailureMark(met, pool.chain, pending.item)))

    def _fail(self, worker: Worker, error: Exception) -> None:
        """End the stream at the item's position; what is behind that is given up."""
        pool = self._pool
        if pool.is_superfluous(worker):
            self.keep(error)
            pool.give_up(worker)
            return
        met = noted(error, pool.chain.name, worker.number, self._attempts(worker))
        item = pool.put_down(worker)
        pool.chain.failed += 1
        pool.end_with(*pool.order.fail(worker.position, FailureMark(met, pool.chain, item)))

    def keep(self, error: Exception) -> None:
        """Keep the error of an item that is no longer needed."""
        if is_caused_by_cancelling(error):
            self._pool.chain.keep_cleanup_error(error)
        else:
            self._pool.chain.host.ledger.keep(error)

    async def _divert(self, worker: Worker, failure: Failure[Any]) -> None:
        """Pass the failure to the step for it; the worker keeps the item until that is done."""
        assert self.call.divert is not None
        assert self.call.divert_counters is not None
        pool = self._pool
        is_kept = True  # or the error that was to be handled would be lost
        try:
            if worker.context.place is not None:
                await worker.context.place.take()
            await self.call.divert(failure, CallContext(self.call.divert_counters, worker.number))
            is_kept = False
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            # The error of the item is the context of this one: `meet` is called in its handler.
            error = failure_of(raised)
            if error is None:
                raise
            is_kept = pool.is_superfluous(worker)
            add_note(error, f"diverting a {type(failure.error).__name__}")
            self._fail(worker, error)
            return  # noqa: ASYNC104  # the error is kept at its place
        finally:
            if is_kept or pool.is_superfluous(worker):
                pool.chain.host.ledger.keep(failure.error)
        if pool.is_superfluous(worker):
            pool.give_up(worker)
            return
        self._count(failure.error)
        pool.put_down(worker)
        pool.chain.failed += 1
        pool.pass_over(worker)

    def _failure_of(self, worker: Worker, error: Exception) -> Failure[Any]:
        name = self._pool.chain.name
        met = noted(error, name, worker.number, self._attempts(worker))
        return Failure(worker.item, met, name, worker.context.attempt if self.call.is_layered else 1)

    def _attempts(self, worker: Worker) -> str:
        return worker.context.attempts() if self.call.is_layered else ""

    def _count(self, error: Exception) -> None:
        self._pool.chain.failures[type(error).__name__] += 1
