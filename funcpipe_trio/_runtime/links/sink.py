"""The outlet of a run whose results go nowhere else: no link behind the last stage, no task that only collects."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ..core.protocols import Sender
from ..core.signals import FailureMark
from .link import stop_upstream


class Sink:
    """Takes every value at once; `put` is all that happens to one."""

    def __init__(self, put: Callable[[Any], object]) -> None:
        self.put: Callable[[Any], object] = put  # takes a value; that is all that happens to it
        self.sender: Sender  # the last stage
        self.capacity = 0  # of the link that an open run has here
        self.wants_room = False  # never: there is always room
        self.closed: str | None = None  # why nothing more is taken
        self.failure: FailureMark | None = None  # what stands at the end
        self.ended = False  # the last stage has put the end there
        self.passed = 0  # values that it took

    def room(self) -> int:
        """Without limit: what is put is gone."""
        return sys.maxsize

    burst_room = room

    def waiting_room(self) -> int:
        """As many as that link would hold: results that wait for a straggler are held, whatever becomes of them."""
        return self.capacity

    def commit(self, count: int) -> None:
        """Count what was put."""
        self.passed += count

    def finish(self, failure: FailureMark | None) -> None:
        """Note the end, and the failure that stands there."""
        self.ended = True
        self.failure = failure

    def turn_over(self) -> None:
        """Nobody waits to hear of it."""

    def turn_continues(self) -> None:
        """Nobody waits to hear of that either."""

    def close(self, reason: str) -> None:
        """Stop the run's last stage, and so everything."""
        if self.closed is None and not self.ended:
            self.closed = reason
            stop_upstream(self.sender, reason)
