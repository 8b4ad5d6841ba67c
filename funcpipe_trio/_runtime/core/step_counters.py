"""What do the policies of a step count?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable

import trio

from ..._sansio.key_waits import LimitWaits
from ..._sansio.retrying import RetryState
from ...policies.retry import Retry, needs_seed
from .seeds import draw_seed


class StepCounters:
    """What the policies of one stage, or of one started step, counted; and the seed of their jitter."""

    __slots__ = (
        "abandoned",
        "coalesced",
        "fallbacks",
        "hedges",
        "limits",
        "opened",
        "refused",
        "resources",
        "retries",
        "seed",
        "stage",
        "timeouts",
        "waited_circuit",
        "waited_elsewhere",
        "waited_places",
        "waited_rate",
        "waited_resource",
        "waited_retry",
    )

    def __init__(self, stage: str = "", seed: int | None = None) -> None:
        self.stage: str = stage  # the name of the stage, or of the step
        self.seed = seed  # of its jitter: of the run, or of this start of the step; None until it is needed
        self.retries: int = 0  # attempts after the first
        self.timeouts: int = 0  # calls that a timeout ended
        self.opened: int = 0  # how often the circuit opened
        self.refused: int = 0  # calls that an open circuit refused
        self.abandoned: int = 0  # threads that were left behind
        self.waited_rate: float = 0.0  # seconds of waiting for tokens
        self.waited_places: float = 0.0  # seconds of waiting for places
        self.limits: LimitWaits | None = None  # which key waited for which limit; made when a call has waited
        self.waited_retry: float = 0.0  # seconds of waiting between attempts
        self.waited_elsewhere: float = 0.0  # seconds between attempts without a place of the stage
        self.waited_circuit: float = 0.0  # seconds of waiting for a circuit
        self.resources: int = 0  # resources that were opened
        self.waited_resource: float = 0.0  # seconds of waiting until one was open
        self.fallbacks: int = 0  # calls of the other step of a fallback
        self.hedges: int = 0  # further calls of a hedge
        self.coalesced: int = 0  # calls that were not made, because an equal one was under way

    def limited(self, limit: str, key: Hashable, seconds: float, for_places: float) -> None:
        """Count the wait of a call for a limit, or for several at once, and for how long that was for places."""
        self.waited_rate += seconds - for_places
        self.waited_places += for_places
        if self.limits is None:
            self.limits = LimitWaits()
        self.limits.count(limit, key, seconds)

    async def back_off(self, seconds: float, wait: Callable[[float], Awaitable[None]] = trio.sleep) -> None:
        """Wait before another attempt, in a way that may be another than to sleep."""
        self.retries += 1
        since = trio.current_time()
        try:
            await wait(seconds)
        finally:
            self.waited_retry += trio.current_time() - since

    def attempts(self, retry: Retry, number: int) -> RetryState:
        """Return the count of the attempts of one item."""
        if self.seed is None and needs_seed(retry):
            self.seed = draw_seed()
        return RetryState(retry, number, stage=self.stage, seed=self.seed or 0)
