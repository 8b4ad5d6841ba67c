"""Before the queues of a `fair_by`: what is each item's key and cost, and what if one finds its queue full?

The gate is the last operation of its stage. It puts nothing anywhere: it answers an item with its entry, which the
stage puts into the fair link in the same turn; an item to be dropped falls here. To divert one is to wait for a step,
which an operation cannot, so its stage does: it takes the item back out of the link. An error of the step is raised by
the gate then, in the item's place, so it ends the stream as any other does.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from ..core.user_code import not_awaitable
from ..links.fair_link import FairLink
from ..operations.fused import FusedOperation
from .chain import Chain
from .stage import Stage


class Gate(FusedOperation):
    """Each item becomes its entry, or is dropped."""

    def __init__(self, operation: FairBy, link: FairLink) -> None:
        super().__init__(operation)
        self.link = link  # what its stage puts the entries into
        self._key, self._cost = operation.key, operation.share.cost
        self._drops = operation.overflow == "drop_newest"
        self.number = 0  # how many items came before the one at hand
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
                self.chain.failing(raised, self.name, self.number, value)
            if self._drops and self.link.lanes.is_full(entry):
                self.dropped += 1
                self.chain.host.ledger.drop(value, self.name, "drop_newest")
                yield NOTHING
            else:
                yield entry
                if self.undiverted is not None:
                    (_item, error), self.undiverted = self.undiverted, None
                    self.chain.failing(error, self.name, self.number, value)
            self.number += 1

    def held(self) -> list[Any]:
        """Give the item whose diversion failed, if the stage was stopped before it could say so."""
        if self.undiverted is None:
            return []
        (item, error), self.undiverted = self.undiverted, None
        self.chain.keep_cleanup_error(error)
        return [item]

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _entry(self, value: Any) -> Entry:
        where, key = f"fair_by {named(self.name)}", not_awaitable("key", self._key(value))
        cost = 1 if self._cost is None else checks.cost(where, "cost", self._cost(value))
        return self.link.lanes.entry(value, key, cost)


class DivertingStage(Stage):
    """A sync stage that gives the items that find their queues full to a step, one at a time."""

    def __init__(self, chain: Chain, gate: Gate, divert: Layered, account: Account, *, kind: str = "sync") -> None:
        super().__init__(chain, kind=kind, divert_account=account)
        self._gate = gate  # the last operation of the chain
        self._divert_to = divert  # the step, called as a pool calls one
        self._account = account  # what the policies of that step count
        self._diverted: Any = NOTHING  # the item that is with the step

    async def main(self) -> None:
        self._context = OwnContext()
        with trio.CancelScope() as self.scope:  # the step waits as it likes
            await super().main()

    async def wait_room(self) -> None:
        gate = self._gate
        entry = gate.link.lanes.take_back()
        if entry is None:
            await super().wait_room()
            return
        gate.link.passed -= 1  # it did not pass after all: it is this stage's again
        self._diverted = entry.item
        self.chain.outlet.settle()
        await self._divert(gate)
        if self._context.renew() or self.chain.turn.is_over():  # a step may never wait
            await self.breathe()

    async def _divert(self, gate: Gate) -> None:
        overflow = noted(BufferOverflow("the queue of its key is full"), gate.name, gate.number)
        failure = Failure(self._diverted, overflow, gate.name, 0)
        try:
            await self._divert_to(failure, Attempt(self._account, gate.number))
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:
                raise
            add_note(error, "diverting a BufferOverflow")
            gate.undiverted, self._diverted = (self._diverted, error), NOTHING
            return  # noqa: ASYNC104  # an Exception, kept for the report
        self._diverted = NOTHING
        self.chain.failed += 1
        self.chain.failures[BufferOverflow.__name__] += 1

    def held(self) -> list[Any]:
        item, self._diverted = self._diverted, NOTHING
        return [*super().held(), *([] if item is NOTHING else [item])]
