"""The stage of `keep_alive`: when is it time for an item that nobody sent? When an `idle_timeout` would fail."""

from __future__ import annotations

from ..._plan import timing as plan
from ..operations.keep_alive import KeepAliveOp
from .chain import Ends
from .stream_timeout import StreamTimeoutStage


class KeepAliveStage(StreamTimeoutStage):
    """A stage that passes items on, and makes one when none came for a time."""

    gate: KeepAliveOp

    def __init__(self, ends: Ends, operation: plan.KeepAlive) -> None:
        super().__init__(ends, operation, KeepAliveOp)

    def look(self, now: float) -> None:
        if now >= self._dog.deadline:
            self.gate.is_due = True  # the burst that asks has room for it
