"""Where do results go if nobody receives them? Into a function: no link, and no task that only collects."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ..core.protocols import Sender
from ..core.signals import FailureMark
from .link import stop_upstream


class Sink:
    """An outlet that takes every value at once and passes it to a function."""

    def __init__(self, put: Callable[[Any], object]) -> None:
        self.put: Callable[[Any], object] = put  # the function; nothing else happens to a value
        self.sender: Sender  # the last stage of the run
        self.capacity = 0  # of the link that an open run would have here, in items
        self.wants_room = False  # never: there is always room
        self.closed: str | None = None  # why nothing more is taken; None while it is
        self.failure: FailureMark | None = None  # what stands at the end; None without one
        self.ended: bool = False  # the last stage has put the end there
        self.passed: int = 0  # values that it took

    def room(self) -> int:
        """Return no limit: it holds nothing."""
        return sys.maxsize

    burst_room = room

    def waiting_room(self) -> int:
        """Return what that link would hold: results that wait for an earlier one are held, whatever becomes of them."""
        return self.capacity

    def begin(self) -> None:
        """Nothing is to be noted."""

    def given(self) -> int:
        return self.passed

    def commit(self, count: int) -> None:
        """Count what was put."""
        self.passed += count

    def finish(self, failure: FailureMark | None) -> None:
        """Note the end, and the failure that stands there."""
        self.ended = True
        self.failure = failure

    def turn_over(self) -> None:
        """Do nothing: no receiver waits for it."""

    def turn_continues(self) -> None:
        """Do nothing, for the same reason."""

    def close(self, reason: str) -> None:
        """Stop the last stage and everything upstream of it."""
        if self.closed is None and not self.ended:
            self.closed = reason
            stop_upstream(self.sender, reason)
