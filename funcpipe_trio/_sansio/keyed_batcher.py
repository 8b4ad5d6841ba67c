"""When is a batch full, if there is one for each key? And which one goes out when there are too many keys?

The rule: each key has a `Batcher` of its own while its batch is open; a key without an open batch has no place and
costs nothing. If a new key needs a place and all `max_keys` are taken, the batch of the key that was idle longest
closes (the one whose last item is longest ago), or that is an error. An item that fills a batch alone needs no place.

The invariant: batches are known in the order of their first items. Every batch may become equally old, so that is also
the order of their deadlines: the first one has the earliest, and at the end all close in this order. Keys are hashed
and compared, items never are. It is told the time; it never waits.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sized
from typing import Any

from .batcher import Batcher
from .live_keys import LiveKeys


class KeyBatch(Batcher):
    """The open batch of one key."""

    __slots__ = ("key",)

    def __init__(self, key: Hashable, max_items: int | None, max_cost: float | None, max_delay: float | None) -> None:
        super().__init__(max_items, max_cost, max_delay)
        self.key = key


class KeyedBatcher:
    """Collects items by key and returns the batches that become complete."""

    __slots__ = ("_by_first", "_keys", "_limits", "items", "of")

    def __init__(
        self,
        max_items: int | None,
        max_cost: float | None,
        max_delay: float | None,
        *,
        max_keys: int,
        fails: bool = False,
    ) -> None:
        self._limits = (max_items, max_cost, max_delay)
        self._keys = LiveKeys[KeyBatch](max_keys, "an open batch", fails=fails)
        self._by_first: OrderedDict[KeyBatch, None] = OrderedDict()
        self.of: Callable[[Hashable], KeyBatch | None] = self._keys.of
        """Return the open batch of a key; None without one."""
        self.items: Sized = self._by_first
        """The open batches; can be tested without a method call."""

    @property
    def deadline(self) -> float:
        """When the first batch is due; inf without one."""
        return next(iter(self._by_first)).deadline if self._by_first else math.inf

    def is_due(self, now: float) -> bool:
        """Whether an open batch has reached its age."""
        return now >= self.deadline

    def begin(self, key: Hashable, item: Any, cost: float, now: float) -> list[list[Any]]:
        """Take an item whose key has no open batch; return the batches that this closes."""
        batch = KeyBatch(key, *self._limits)
        closed = batch.add(item, cost, now)
        if closed:
            return closed
        idle = self._keys.in_the_way()
        if idle is not None:
            closed.append(self._close(idle))
        self._keys.add(batch)
        self._by_first[batch] = None
        return closed

    def add(self, batch: KeyBatch, item: Any, cost: float, now: float) -> list[list[Any]]:
        """Take an item for an open batch; return the batches that this closes, oldest first (none, one or two)."""
        closed = batch.add(item, cost, now)
        if closed and batch.items:  # the next one of its key has begun
            self._by_first.move_to_end(batch)
        elif closed:
            self._forget(batch)
            return closed
        self._keys.touch(batch)
        return closed

    def append(self, batch: KeyBatch, item: Any) -> list[Any] | None:
        """Take an item that costs nothing for an open batch; return that if it is complete, None otherwise."""
        closed = batch.append(item)
        if closed is None:
            self._keys.touch(batch)
        else:
            self._forget(batch)
        return closed

    def close(self) -> list[Any]:
        """Return the open batch with the oldest first item, and forget it; an empty list if there is none."""
        return self._close(next(iter(self._by_first))) if self._by_first else []

    def _close(self, batch: KeyBatch) -> list[Any]:
        self._forget(batch)
        return batch.close()

    def _forget(self, batch: KeyBatch) -> None:
        self._keys.forget(batch)
        del self._by_first[batch]
