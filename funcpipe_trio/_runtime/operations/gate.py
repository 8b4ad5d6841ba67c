"""How does a stream end, or fail, at a moment that no item decides? An operation that its stage can shut."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import trio

from ..._plan.timing import Watched
from ..core.signals import END, NO_ITEM, PENDING
from .base import FusedOperation


def _never() -> bool:
    return False


class Gate(FusedOperation):
    """Passes values on until it is shut; there the stream ends, or fails with the error that it was shut with."""

    def __init__(self, operation: Watched) -> None:
        super().__init__(operation)
        self.is_shut = False  # nothing more passes
        self.error: Exception | None = None  # what the stream fails with; None: it ends
        self.heard = False  # a value came since the stage last asked
        self.has_failed = False  # its failure has left; until then that waits for room
        self.ends_now: Callable[[], bool] = _never  # asked before each value: whether the stream ends there

    def shut(self, error: Exception | None) -> None:
        """Let nothing more pass."""
        self.is_shut, self.error = True, error

    @trio.lowlevel.enable_ki_protection
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        while not (self.is_shut or self.ends_now()):
            value = next(values, END)
            if value is END:
                return
            self.heard = self.heard or value is not PENDING
            yield value
        if self.error is not None:
            self.has_failed = True
            self.chain.failing(self.error, self.name, 0, NO_ITEM)
