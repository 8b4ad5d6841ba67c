"""The latest items of several inlets: what is held until each has given one, and what is superseded?

The inputs take turns as in a merge, and each item that is chosen makes a tuple with the latest of the others. Before
every input has given one there is no tuple to make: then items are taken as they come, also while nobody asks, and a
newer one supersedes the one before it, which counts as dropped. So the first tuple is not made of what waited longest.
The item that completes it stays where it is until it is asked for.

An item is used when it is in a tuple for the first time; that later tuples contain it as well counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import trio

from ..._sansio.fair_queue import FairQueue
from ...policies.fair_share import FairShare
from ..core.ledger import Ledger
from ..core.protocols import Inlet
from ..core.signals import END, ENDED, FAILED, IDLE, NO_ITEM, NOT_NEEDED, PENDING, READY, REFILLING, Readiness
from .fan_in import MergeInlet, MergeInput


class LatestInlet(MergeInlet):
    """Tuples of the latest item of each input, one for each item that comes."""

    def __init__(self, name: str, ledger: Ledger, inlets: Sequence[Inlet]) -> None:
        super().__init__(name, ledger, [*enumerate(inlets)], FairShare(), FairQueue())
        for number, each in enumerate(self.inputs):
            each.items = _numbered(number, each.items)
        self._chosen = super().items()  # numbers of inputs and items, in turn
        self._latest = [NO_ITEM] * len(inlets)  # of each input; counted as held until the first tuple
        self._missing = len(inlets)  # inputs that have given nothing
        self._used = 0  # items that are in a tuple
        self._choosing = False  # within `_chosen`, which cannot be asked again there
        self._over = False  # it ended while nobody asked

    @property
    def held(self) -> int:
        return sum(item is not NO_ITEM for item in self._latest) if self._missing else 0

    def remade(self) -> tuple[int, int]:
        return self._used, self.taken

    def refresh(self, each: MergeInput) -> None:
        if self._serving or self._choosing:
            self._changed.append(each)
            return
        self._look(each)
        self._supersede()
        if self._missing and not self._over and not self._closed and self._is_hopeless():
            self._over = True
            self._close_inputs(NOT_NEEDED)
        self.receiver.on_input()

    def _is_hopeless(self) -> bool:
        """Whether an input ended without an item, so that there will be no tuple."""
        return any(each.ended and item is NO_ITEM for each, item in zip(self.inputs, self._latest, strict=True))

    def _supersede(self) -> None:
        """Take what is there, until what is next would complete the first tuple."""
        while self._missing and not self._over and super().state() is READY and not self._completes():
            chosen = self._next()
            if chosen is END:  # it failed in this pull (in the cost function of a merge, say)
                self._over, self.exhausted = True, False
                return
            number, item = chosen
            self.taken -= 1  # that is of tuples
            if self._over or self._closed:  # within this pull: what was held is gone
                self.discard(item, self._reason)
                return
            if self._latest[number] is NO_ITEM:
                self._missing -= 1
            else:
                self.dropped += 1
            self._latest[number] = item

    def _completes(self) -> bool:
        flow = self._queue.select()
        return self._missing == 1 and flow is not None and self._latest[flow.key] is NO_ITEM

    def _next(self) -> Any:
        """Return the number and the item of the input whose turn it is; or `PENDING`, or `END`."""
        self._choosing = True
        try:
            return next(self._chosen, END)
        finally:
            self._choosing = False
            while self._changed:
                self._look(self._changed.pop())

    def state(self) -> Readiness:
        if self._over:
            return ENDED if self.failure is None else FAILED
        state = super().state()
        return IDLE if state is READY and self._missing and not self._completes() else state

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        while not self._closed:
            state = self.state()
            if state is IDLE or state is REFILLING:
                yield PENDING
                continue
            if self._over or (chosen := self._next()) is END:
                break
            made = self._made(*chosen)
            if made is None:
                return
            yield made
        self.exhausted = True

    def _made(self, number: int, item: Any) -> tuple[Any, ...] | None:
        """Return the tuple of an item; None if user code stopped the run in this pull: what was held is gone."""
        if self._closed and self._missing:
            self.taken -= 1
            self.discard(item, self._reason)
            return None
        self._used += len(self._latest) if self._missing else 1
        self._missing = 0
        self._latest[number] = item
        return tuple(self._latest)

    def close(self, reason: str) -> None:
        if self._over and not self.exhausted and not self._closed and self.failure is not None:
            self.ledger.unread(self.failure, reason)
        super().close(reason)

    def _close_inputs(self, reason: str) -> None:
        if self._missing:
            held, self._latest = self._latest, [NO_ITEM] * len(self._latest)
            for item in held:
                if item is not NO_ITEM:
                    self.discard(item, reason)
        super()._close_inputs(reason)


def _numbered(number: int, items: Iterator[Any]) -> Iterator[Any]:
    for item in items:
        yield item if item is PENDING else (number, item)
