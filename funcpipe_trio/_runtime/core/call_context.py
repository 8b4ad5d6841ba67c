"""What a call carries through its policies: the number of its item inwards, what happened to it outwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, TypeAlias

from .step_counters import StepCounters
from .time_limit import TimeLimit


class CallContext:
    """One item on its way through the policies of a step; used again for the next."""

    __slots__ = ("counters", "deadline", "kept_limit", "last_error", "number", "of", "tried")

    def __init__(self, counters: StepCounters, number: int = 0, kept_limit: TimeLimit | None = None) -> None:
        self.counters = counters  # where the policies count
        self.kept_limit = kept_limit  # a reusable time limit, owned and closed by the worker; None for a single call
        self.deadline = inf  # when the first of the timeouts around what runs now is over
        self.begin(number)

    def begin(self, number: int) -> None:
        """Take the next item."""
        self.number = number  # of the item, from 0: what its jitter is computed from
        self.tried = 1  # the current or last attempt, as counted by the outermost retry; 1 without a retry
        self.of: int | None = None  # attempts that it may have; None without a retry
        self.last_error: Exception | None = None  # what the attempt before this one failed with

    def tries(self, tried: int, of: int) -> None:
        """Note which attempt it is."""
        self.tried, self.of = tried, of

    def within(self, seconds: float) -> TimeLimit:
        """Give the block for what must be done in so many seconds."""
        limit = self.kept_limit
        if limit is None or not limit.is_free:
            return TimeLimit(seconds)
        limit.seconds = seconds
        return limit

    def got_through(self) -> None:
        """Note that a retry has its result: what went before is over."""
        self.tried, self.of, self.last_error = 1, None, None


Layered: TypeAlias = Callable[[Any, CallContext], Awaitable[Any]]
"""A function with its policies: takes an item and its context."""
