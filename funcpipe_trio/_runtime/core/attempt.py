"""What a call carries through its policies: the number of its item inwards, what happened to it outwards."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, TypeAlias

import trio

from ..._sansio.retrying import Attempts
from ...policies.retry import Retry, needs_seed
from .seeds import draw_seed
from .time_limit import TimeLimit


class Account:
    """What the policies of one stage, or of one started step, counted; and what their jitter is computed from."""

    __slots__ = (
        "abandoned",
        "opened",
        "refused",
        "retries",
        "seed",
        "stage",
        "timeouts",
        "waited_circuit",
        "waited_rate",
        "waited_retry",
    )

    abandoned: int
    opened: int
    refused: int
    retries: int
    seed: int | None
    """Of the run, or of this start of the step; None until it is needed."""
    stage: str
    """The name of the stage, or of the step."""
    timeouts: int
    waited_circuit: float
    waited_rate: float
    waited_retry: float

    def __init__(self, stage: str = "", seed: int | None = None) -> None:
        self.stage = stage
        self.seed = seed
        self.retries = self.timeouts = self.opened = self.refused = self.abandoned = 0
        self.waited_rate = self.waited_retry = self.waited_circuit = 0.0

    async def back_off(self, seconds: float) -> None:
        """Wait before one attempt more."""
        self.retries += 1
        since = trio.current_time()
        try:
            await trio.sleep(seconds)
        finally:
            self.waited_retry += trio.current_time() - since

    def attempts(self, retry: Retry, number: int) -> Attempts:
        """Begin to count the attempts of an item."""
        if self.seed is None and needs_seed(retry):
            self.seed = draw_seed()
        return Attempts(retry, number, stage=self.stage, seed=self.seed or 0)


class Attempt:
    """One item on its way through the policies of a step; used again for the next."""

    __slots__ = ("account", "deadline", "kept_limit", "last_error", "number", "of", "tried")

    account: Account
    deadline: float
    """When the first of the timeouts around what runs now is over."""
    number: int
    """Number of the item, from 0: what its jitter is computed from."""
    tried: int
    """The attempt that runs, or was the last, by the outermost retry that has said so; 1 without one."""
    of: int | None
    """Attempts that it had; None without one."""
    last_error: Exception | None
    """What the attempt before this one failed with."""
    kept_limit: TimeLimit | None
    """What whoever makes one call after the other keeps for them, and closes in the end."""

    def __init__(self, account: Account, number: int = 0, kept_limit: TimeLimit | None = None) -> None:
        self.account = account
        self.kept_limit = kept_limit
        self.deadline = inf
        self.begin(number)

    def begin(self, number: int) -> None:
        """Take the next item."""
        self.number = number
        self.tried, self.of, self.last_error = 1, None, None

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


Layered: TypeAlias = Callable[[Any, Attempt], Awaitable[Any]]
"""A function with its policies: takes an item and its attempt."""
