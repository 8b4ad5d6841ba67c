"""The operation that makes batches of the items of each key: what does it ask the user, and what does it hold?

It holds the open batch of each key, and closed ones for which there was no room yet. All that is due closes before the
burst in which the time has come, so batches of several keys leave one after the other, while there is room.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

import trio

from ..._base import checks
from ..._base.shown import named
from ..._plan import operations as plan
from ..._sansio.keyed_batcher import KeyedBatcher
from ..core.signals import PENDING
from ..core.user_code import interruptibly
from .batching import GroupingOp, cost_of


class KeyedBatchOp(GroupingOp):
    """Lists of values of one key each, closed by number, cost or age."""

    _batcher: KeyedBatcher

    def __init__(self, operation: plan.Batch) -> None:
        assert operation.key is not None
        assert operation.max_keys is not None
        limits = (operation.max_items, operation.max_cost, operation.max_delay or None)
        batcher = KeyedBatcher(*limits, max_keys=operation.max_keys, fails=operation.full == "fail")
        super().__init__(operation, batcher, is_simple=operation.max_cost is None, is_timed=bool(operation.max_delay))
        self._key = operation.key  # returns the key of a value
        self._cost = operation.cost  # what an item costs; None: each costs 1
        self._number = 0  # of the value at hand; errors name it

    def tick(self, now: float) -> None:
        """Close the batches that are due."""
        batcher = self._batcher
        while batcher.is_due(now):
            self._closed.append(batcher.close())

    @trio.lowlevel.enable_ki_protection
    def _by_number(self, values: Iterator[Any]) -> Iterator[Any]:
        """Do the same as `_by_all`, without costs, in half of the time."""
        batcher, closed, number, vetted = self._batcher, self._closed, 0, None
        find, append, ask = batcher.of, batcher.append, self._key
        for value in values:
            if value is not PENDING:
                try:
                    key = interruptibly(ask, value)
                    if type(key) is not vetted:
                        vetted = self.vet(key)
                    try:
                        batch = find(key)
                    except TypeError:
                        checks.hashable(f"batch {named(self.name)}", "what key gives", key)
                        raise
                    if batch is None:
                        now = self.chain.now() if self._is_timed else 0.0
                        closed.extend(batcher.begin(key, value, 1, now))
                    else:
                        full = append(batch, value)
                        if full is not None:
                            closed.append(full)
                except BaseException as error:  # noqa: ASYNC103  # `failing` raises
                    self.chain.failing(error, self.name, number, value)
                number += 1
            elif self._is_all_there():
                self.close_all()
            if not closed:
                yield PENDING
            while closed:
                yield self._emitted(closed.popleft())

    def add(self, value: Any) -> None:
        batcher = self._batcher
        try:
            key, cost = self._asked(value)
            try:
                batch = batcher.of(key)
            except TypeError:
                checks.hashable(f"batch {named(self.name)}", "what key gives", key)
                raise
            now = self.chain.now() if self._is_timed else 0.0
            closed = batcher.begin(key, value, cost, now) if batch is None else batcher.add(batch, value, cost, now)
        except BaseException as error:  # noqa: ASYNC103  # `failing` raises
            self.chain.failing(error, self.name, self._number, value)
        self._number += 1
        self._closed.extend(closed)

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _asked(self, value: Any) -> tuple[Hashable, float]:
        """Return the key of a value, and what it costs."""
        key = self._key(value)
        self.vet(key)
        return key, 1 if self._cost is None else cost_of(self.name, self._cost, value)
