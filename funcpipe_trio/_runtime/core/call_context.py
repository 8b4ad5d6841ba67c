"""What does a call carry through its policies? Inwards the number of its item, outwards what happened to it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Final, Protocol, TypeAlias

from .step_counters import StepCounters
from .time_limit import TimeLimit

CALL: Final = "call"
"""What a call waits for, as far as its policies know."""


NONE: Final[dict[Any, Any]] = {}
"""Where no limit is for each key; never changed."""


class Place(Protocol):
    """The place of an item among the calls of its stage, where it may be given up for a time."""

    async def wait(self, seconds: float) -> None:
        """Wait before another attempt, perhaps without a place; return with one."""

    async def take(self) -> None:
        """Wait until the item has a place, if a wait without one was cut short: before anything is called for it."""


class CallContext:
    """The context of one call through the policies of a step; reused for the next call."""

    __slots__ = (
        *("attempt", "counters", "deadline", "further", "has_waited", "kept_limit"),
        *("last_error", "limited", "most_attempts", "number", "on_failure", "place", "waits_for"),
    )

    def __init__(
        self, counters: StepCounters, number: int = 0, kept_limit: TimeLimit | None = None, further: int = 0
    ) -> None:
        self.counters: StepCounters = counters  # where the policies of its step count
        self.kept_limit: TimeLimit | None = kept_limit  # reusable; its worker closes it; None for a single call
        self.further: int = further  # which further call of a hedge it is, from 1; 0 for the first call of the item
        self.deadline: float = inf  # the earliest deadline around what runs now, by trio's clock; inf without a timeout
        self.limited: dict[Any, Any] = NONE  # the number of the last item, and its key, at each limit for each key
        self.place: Place | None = None  # that of the item; None if it keeps it until its call ends
        self.waits_for: str = CALL  # what the call waits for now, as reports say it
        self.has_waited: bool = False  # it waited for a policy; reset only by whoever asks
        self.on_failure: Callable[[Exception], object] | None = None
        """Called with the error of each attempt that is followed by another, or by a fallback."""
        self.begin(number)

    def begin(self, number: int) -> None:
        """Begin the call for the next item."""
        self.number: int = number  # of the item, from 0; its jitter is computed from it
        self.attempt: int = 1  # the current or last attempt, as counted by the outermost retry; 1 without a retry
        self.most_attempts: int | None = None  # the most attempts that it may have; None without a retry
        self.last_error: Exception | None = None  # of the attempt before this one; None at the first

    def count_attempt(self, attempt: int, most: int) -> None:
        """Note which attempt it is."""
        self.attempt, self.most_attempts = attempt, most

    def tell_of(self, error: Exception) -> None:
        """Tell of an attempt that failed, and that another one follows, so this call is not one call."""
        self.has_waited = True
        if self.on_failure is not None:
            self.on_failure(error)

    def within(self, seconds: float) -> TimeLimit:
        """Return the block for what must be done within so many seconds."""
        limit = self.kept_limit
        if limit is None:
            return TimeLimit(seconds)
        while not limit.is_free:
            limit = limit.inside()
        limit.seconds = seconds
        return limit

    def attempts(self) -> str:
        """Return what the note of an error adds about the attempts; an empty string without a retry."""
        return "" if self.most_attempts is None else f", attempt {self.attempt} of {self.most_attempts}"

    def got_through(self) -> None:
        """Note that a retry has its result: forget its failed attempts."""
        self.attempt, self.most_attempts, self.last_error = 1, None, None

    def take_over(self, other: CallContext) -> None:
        """Tell of the attempts of another call, whose outcome is that of this one, and of the limits that it met."""
        self.attempt, self.most_attempts, self.last_error = other.attempt, other.most_attempts, other.last_error
        met = {limit: (self.number, key) for limit, (number, key) in other.limited.items() if number == other.number}
        if met:
            self.limited = {**self.limited, **met}

    def turn_to_another(self, error: Exception) -> None:
        """Note that another step is called after an error: its attempts are counted anew."""
        self.attempt, self.most_attempts, self.last_error = 1, None, error


Layered: TypeAlias = Callable[[Any, CallContext], Awaitable[Any]]
"""A function with its policies around it: takes an item and the context of its call."""


class ContextFunction:
    """A function in the place of a step's own that also takes the context of its call; Ctrl-C may strike in it."""

    def __init__(self, layered: Layered) -> None:
        self.layered: Layered = layered  # what is called

    async def __call__(self, item: Any, context: CallContext) -> Any:
        """Return what the step's own function would."""
        return await self.layered(item, context)


class Around:
    """A function in the place of a step's own, whose call, with what belongs to it, is wrapped."""

    def __init__(self, fn: Callable[..., Any], wrap: Callable[[Layered], Layered]) -> None:
        self.fn = fn  # the step's own
        self.wrap = wrap  # puts something around the call

    async def __call__(self, *args: Any) -> Any:
        """Never called: it is wrapped."""
        raise NotImplementedError
