"""The operation of a timeout on the stream: it passes values on, and fails when its stage says that a time is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio

from ..._base.shown import named
from ..core.failures import add_note
from ..core.signals import END, NO_ITEM, PENDING
from .base import FusedOperation


class StreamTimeoutOp(FusedOperation):
    """Passes values on, until a time is over: then it fails."""

    overdue: str | None = None
    """The time that is over."""
    heard: bool = False
    """Whether a value came since this was last asked."""
    has_failed: bool = False
    """Whether its failure has left; if not, it waits for room."""

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
        """Say which time is over."""
        error = trio.TooSlowError(f"the stream was too slow at {named(self.name)}")
        add_note(error, self.overdue or "")
        return error
