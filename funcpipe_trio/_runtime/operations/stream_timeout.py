"""How does a timeout on the stream fail? As an operation, when its stage says that a time is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio

from ..._base.shown import named
from ..._plan.timing import Watched
from ..core.failures import add_note
from ..core.signals import END, NO_ITEM, PENDING
from .base import FusedOperation


class StreamTimeoutOp(FusedOperation):
    """Passes values on until a time is over, then fails."""

    def __init__(self, operation: Watched) -> None:
        super().__init__(operation)
        self.overdue: str | None = None  # which time is over, as a note on the error; None while none is
        self.heard = False  # a value came since the stage last asked
        self.has_failed = False  # its failure has left; until then that waits for room

    @trio.lowlevel.enable_ki_protection
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        while self.overdue is None:
            value = next(values, END)
            if value is END:
                return
            self.heard = self.heard or value is not PENDING
            yield value
        self.has_failed = True
        self.chain.failing(self.error(), self.name, 0, NO_ITEM)

    def error(self) -> Exception:
        """Return the error, with a note of which time is over."""
        error = trio.TooSlowError(f"the stream was too slow at {named(self.name)}")
        add_note(error, self.overdue or "")
        return error
