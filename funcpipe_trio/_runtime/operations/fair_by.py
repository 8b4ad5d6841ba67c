"""Before the queues of a `fair_by`: what is each item's key and cost, and what if one finds its queue full?

It is the last operation of its stage. It puts nothing anywhere: it turns an item into its entry, which the stage puts
into the fair link in the same turn; an item to be dropped is dropped here. To divert an item is to wait for a step,
which an operation cannot do, so its stage does it (`DivertingStage`): it takes the item back out of the link. An error
of the step is then raised here, in the place of the item, so it ends the stream as any other does.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio

from ..._base import checks
from ..._base.shown import named
from ..._plan.fair_by import FairBy
from ..._sansio.keyed_fair_queue import Entry
from ..core.signals import PENDING
from ..core.user_code import not_awaitable
from ..links.fair_link import FairLink
from .base import FusedOperation


class FairByOp(FusedOperation):
    """Each item becomes its entry, or is dropped."""

    def __init__(self, operation: FairBy, link: FairLink) -> None:
        super().__init__(operation)
        self.link = link  # its stage puts the entries into it
        self._key = operation.key  # returns the key of an item
        self._cost = operation.share.cost  # returns what an item costs; None: each costs 1
        self._drops = operation.overflow == "drop_newest"  # an item whose queue is full
        self.diverted = 0  # items whose queue was full, with which a step has dealt
        self.number = 0  # of the item at hand in the stream, which errors name
        self.undiverted: tuple[Any, Exception] | None = None
        """The item at hand and the error of the step that it was diverted to, until that is raised here; else None."""

    @trio.lowlevel.enable_ki_protection
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        for value in values:
            if value is PENDING:
                yield PENDING
                continue
            try:
                entry = self._entry(value)
            except BaseException as raised:  # noqa: ASYNC103  # `failing` raises
                self.chain.failing(raised, self.name, self.number, value)
            if self._drops and self.link.queues.is_full(entry):
                self.dropped += 1
                self.chain.host.ledger.drop(value, self.name, "drop_newest")
                yield PENDING
            else:
                yield entry
                if self.undiverted is not None:
                    (_item, error), self.undiverted = self.undiverted, None
                    self.chain.failing(error, self.name, self.number, value)
            self.number += 1

    def held(self) -> list[Any]:
        """Return the item whose diversion failed, if the stage was stopped before the error could be raised."""
        if self.undiverted is None:
            return []
        (item, error), self.undiverted = self.undiverted, None
        self.chain.keep_cleanup_error(error)
        return [item]

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _entry(self, value: Any) -> Entry:
        where, key = f"fair_by {named(self.name)}", not_awaitable("key", self._key(value))
        cost = 1 if self._cost is None else checks.cost(where, "cost", self._cost(value))
        try:
            return self.link.queues.entry(value, key, cost, self.chain.now())
        except TypeError:
            checks.hashable(where, "what key gives", key)
            raise
