"""The operations that compare an item with others: windows, and items that came before. What do they hold?

A window that is not full is held between two steps, as a batch is; `held` returns what went out in no window.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio

from ..._base.shown import named, type_name
from ..._plan.windows import Distinct, Sliding, Window
from ..._sansio.batcher import Batcher
from ..._sansio.recent_keys import RecentKeys
from ..._sansio.windows import SlidingWindows, TumblingWindows
from ..core.signals import PENDING
from .base import FusedOperation
from .batching import GroupingOp
from .per_item import PerItem


class WindowOp(GroupingOp):
    """Lists of values, closed by number, or at the ends of periods. If only by number, they are batches."""

    def __init__(self, operation: Window) -> None:
        by_number = Batcher(operation.max_items, None, None)  # until the stage has begun
        super().__init__(operation, by_number, is_simple=operation.period is None, is_timed=False)
        self._max_items = operation.max_items  # the most in one window; None without limit
        self._period = operation.period  # seconds from end to end; None if only the number closes one

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        if self._period is not None:
            # Only now the stage has begun, and its periods count from there.
            self._batcher = TumblingWindows(self._max_items, self._period, self.chain.began)
        return super().stream(values)

    def add(self, value: Any) -> None:
        # The time of each value, because a period may end in the middle of a burst.
        now = 0.0 if self._period is None else self.chain.now()
        self._closed.extend(self._batcher.add(value, 1, now))


class SlidingOp(FusedOperation):
    """Tuples of values that follow each other.

    An item counts as absorbed by the first window in which it goes out, though others may hold it, too.
    """

    def __init__(self, operation: Sliding) -> None:
        super().__init__(operation)
        self._windows = SlidingWindows(operation.size, operation.step)  # holds those that are not complete

    @trio.lowlevel.enable_ki_protection
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        try:
            for value in values:
                yield PENDING if value is PENDING else self._taken(value)
        except Exception:  # here the stream ends, too
            self.dropped += len(self._windows.close())
            raise
        self.dropped += len(self._windows.close())

    def _taken(self, value: Any) -> Any:
        """Put a value into the windows; return the one that it completes, or `PENDING`."""
        if self._windows.gap:
            self._windows.skip()
            self.dropped += 1
            return PENDING
        completed = self._windows.add(value)
        if completed is None:
            return PENDING
        window, new = completed
        self.absorbed += new
        self.created += 1
        return window

    def held(self) -> list[Any]:
        """Return the items that have not gone out in a window."""
        return self._windows.close()


class DistinctOp(PerItem):
    """Only the values whose key was not seen lately."""

    def __init__(self, operation: Distinct) -> None:
        super().__init__(operation)
        self._key = operation.key  # returns the key of a value; None: the value itself is the key
        self._seen = RecentKeys(operation.remember)  # the keys seen lately

    def apply(self, value: Any) -> Any:
        key = value if self._key is None else self._key(value)
        if key is not value:
            self.vet(key)
        try:
            hash(key)
        except TypeError as error:
            what = "an item" if key is value else "a key"
            raise TypeError(
                f"{named(self.name)}: {what} of type {type_name(key)} has no hash, so it cannot be remembered\n"
                "Use key= with a function that gives a hashable value."
            ) from error
        return value if self._seen.is_new(key) else self.drop()
