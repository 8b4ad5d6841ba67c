"""The stage before a `fair_by` that diverts: which task waits for the step that gets an item whose queue is full?

The task of the stage, one item at a time: it takes the item back out of the link, so it owns it until the step is done.
An error of the step is left to the operation (`FairByOp`), which raises it in the item's place.
"""

from __future__ import annotations

from typing import Any

import trio

from ..._base.errors import BufferOverflow
from ...policies.on_error import Failure
from ..calls.own_context import OwnContext
from ..core.call_context import CallContext, Layered
from ..core.failures import add_note, failure_of, noted
from ..core.signals import NO_ITEM
from ..core.step_counters import StepCounters
from ..operations.fair_by import FairByOp
from .chain import Chain
from .stage import Stage


class DivertingStage(Stage):
    """A sync stage that passes items whose queues are full to a step, one at a time."""

    def __init__(
        self, chain: Chain, fair_by: FairByOp, divert: Layered, counters: StepCounters, *, kind: str = "sync"
    ) -> None:
        super().__init__(chain, kind=kind, divert_counters=counters)
        self._fair_by = fair_by  # the last operation of the chain, which makes the entries of the queues
        self._divert_to = divert  # the step, called as a pool calls one
        self._counters = counters  # what the policies of that step count
        self._diverted: Any = NO_ITEM  # the item that is with the step
        self._context: OwnContext  # the context variables that each call of the step begins with; made in its task

    async def main(self) -> None:
        self._context = OwnContext()
        with trio.CancelScope() as self.scope:  # ends the wait for the step, which no neighbour can
            await super().main()

    async def wait_room(self) -> None:
        fair_by = self._fair_by
        entry = fair_by.link.queues.take_back()
        if entry is None:
            await super().wait_room()
            return
        fair_by.link.passed -= 1  # the item did not pass after all: this stage owns it again
        self._diverted = entry.item
        self.chain.turn_over()
        await self._divert(fair_by)
        if self._context.renew() or self.chain.turn.is_over():  # the step may not have waited at all
            await self.breathe()

    async def _divert(self, fair_by: FairByOp) -> None:
        overflow = noted(BufferOverflow("the queue of its key is full"), fair_by.name, fair_by.number)
        failure = Failure(self._diverted, overflow, fair_by.name, 0)
        try:
            await self._divert_to(failure, CallContext(self._counters, fair_by.number))
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:
                raise
            add_note(error, "diverting a BufferOverflow")
            fair_by.undiverted, self._diverted = (self._diverted, error), NO_ITEM
            return  # noqa: ASYNC104  # an Exception, kept for the report
        self._diverted = NO_ITEM
        fair_by.diverted += 1
        self.chain.failed += 1
        self.chain.failures[BufferOverflow.__name__] += 1

    def held(self) -> list[Any]:
        item, self._diverted = self._diverted, NO_ITEM
        return [*super().held(), *([] if item is NO_ITEM else [item])]
