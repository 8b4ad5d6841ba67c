"""Before the queues of a `fair_by`: what is each item's key and cost, and what if one finds its queue full?

The gate is the last operation of its stage. It puts nothing anywhere: it answers an item with its entry, which the
stage puts into the fair link in the same turn; an item to be dropped falls here. To divert one is to wait for a step,
which an operation cannot, so its stage does: it takes the item back out of the link. An error of the step is raised by
the gate then, in the item's place, so it ends the stream as any other does.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import trio

from ..._base import checks
from ..._base.errors import BufferOverflow
from ..._base.shown import named
from ..._plan.fair_by import FairBy
from ..._sansio.fair_lanes import Entry
from ...policies.on_error import Failure
from ..calls.own_context import OwnContext
from ..core.attempt import Account, Attempt, Layered
from ..core.failures import add_note, failure_of, noted
from ..core.inlet import NOTHING
from ..core.turn import BURST
from ..core.user_code import not_awaitable
from ..links.fair_link import FairLink
from ..operations.fused import FusedOperation
from .stage import Stage


class Gate(FusedOperation):
    """Each item becomes its entry, or is dropped."""

    link: FairLink
    number: int

    def __init__(self, operation: FairBy) -> None:
        super().__init__(operation)
        self._key, self._cost = operation.key, operation.share.cost
        self._drops = operation.overflow == "drop_newest"
        self.number = 0
        """How many items came before the one at hand."""
        self.undiverted: tuple[Any, Exception] | None = None
        """The item at hand, and the error of the step that it was diverted to, until that is raised here."""

    @trio.lowlevel.enable_ki_protection
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            if value is NOTHING:
                yield NOTHING
                continue
            try:
                entry = self._entry(value)
            except BaseException as raised:  # noqa: ASYNC103  # `failing` raises
                self.stage.failing(raised, self.name, self.number, value)
            if self._drops and self.link.lanes.is_full(entry):
                self.dropped += 1
                self.stage.host.ledger.drop(value, self.name, "drop_newest")
                yield NOTHING
            else:
                yield entry
                if self.undiverted is not None:
                    (_item, error), self.undiverted = self.undiverted, None
                    self.stage.failing(error, self.name, self.number, value)
            self.number += 1

    def held(self) -> list[Any]:
        """Give the item whose diversion failed, if the stage was stopped before it could say so."""
        if self.undiverted is None:
            return []
        (item, error), self.undiverted = self.undiverted, None
        self.stage.keep_cleanup_error(error)
        return [item]

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _entry(self, value: Any) -> Entry:
        where, key = f"fair_by {named(self.name)}", not_awaitable("key", self._key(value))
        cost = 1 if self._cost is None else checks.cost(where, "cost", self._cost(value))
        return self.link.lanes.entry(value, key, cost)


class DivertingStage(Stage):
    """A sync stage that gives the items that find their queues full to a step, one at a time."""

    waits_its_own_way = True

    divert: Layered
    divert_account: Account
    failed: int
    _diverted: Any = NOTHING
    _budget = BURST
    _slice_end: float

    async def _main(self) -> None:
        self._context = OwnContext()
        with trio.CancelScope() as self._scope:  # the step waits as it likes
            await super()._main()

    async def _wait_room(self) -> None:
        gate = self.fused[-1]
        assert isinstance(gate, Gate)
        entry = gate.link.lanes.take_back()
        if entry is None:
            await super()._wait_room()
            return
        gate.link.passed -= 1  # it did not pass after all: it is this stage's again
        self._diverted = entry.item
        self.outlet.settle()
        await self._divert(gate)
        self._budget = 0 if self._context.renew() else self._budget - 1
        if not self._budget or perf_counter() > self._slice_end:  # a step may never wait
            self._budget = BURST
            await self._breathe()

    async def _divert(self, gate: Gate) -> None:
        overflow = noted(BufferOverflow("the queue of its key is full"), gate.name, gate.number)
        failure = Failure(self._diverted, overflow, gate.name, 0)
        try:
            await self.divert(failure, Attempt(self.divert_account, gate.number))
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:
                raise
            add_note(error, "diverting a BufferOverflow")
            gate.undiverted, self._diverted = (self._diverted, error), NOTHING
            return  # noqa: ASYNC104  # an Exception, kept for the report
        self._diverted = NOTHING
        self.failed += 1
        self.failures[BufferOverflow.__name__] += 1

    def _held(self) -> list[Any]:
        item, self._diverted = self._diverted, NOTHING
        return [*super()._held(), *([] if item is NOTHING else [item])]
