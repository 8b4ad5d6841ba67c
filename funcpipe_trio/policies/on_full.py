"""What becomes of an item for which a buffer has no room, if a function decides it?

The policies that need no function are words: ``block``, ``drop_oldest``, ``drop_newest``, ``fail``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, TypeVar, final

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import function_name

__all__ = ["OnFull"]

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class OnFull:
    """What a full buffer does with one more item: made by `merge`."""

    fn: Callable[[Any, Any], Any] = field(hash=False)  # an object that is called may have no hash

    def __post_init__(self) -> None:
        checks.sync_callable("OnFull.merge", "fn", self.fn)
        checks.takes("OnFull.merge", "fn", self.fn, 2)

    def describe(self) -> str:
        """One-line description."""
        return f"merges into the newest by {function_name(self.fn)}"

    @staticmethod
    def merge(fn: Callable[[T, T], T]) -> OnFull:
        """Put ``fn(newest, item)`` in the place of the newest item that waits: a sum, the maximum, a longer list.

        In the report the two count as made into one. An error of the function is a failure at the new item; what waits
        is delivered before it.

        Args:
          fn: a sync function of the newest item in the buffer and the new one.

        Raises:
          TypeError: if it is not.
        """
        return OnFull(fn)
