"""May a call be made, or would it only fail? A circuit breaker (Nygard, Release It!, 2007) as a table of states.

    closed     calls go through; `failures` failed in a row, or `ratio` of the last `window`, open it
    open       calls are refused until `reset_after` seconds have passed; the next one then is the probe
    half-open  one probe is in progress, the others are refused; its success closes, its failure opens

Each change of state begins a new *generation*; a permit carries the one it was given in, and the outcome of a call of
an earlier generation changes nothing: twenty calls that were in progress when it opened do not open it again.

It never waits and never calls: it is told the time, and the outcome of each call that it let through.
"""

from __future__ import annotations

from collections import deque
from typing import Literal

from .._base.frozen import dataclass
from ..policies.circuit_breaker import CircuitBreaker

State = Literal["closed", "open", "half-open"]


@dataclass(frozen=True, slots=True)
class Refused:
    """A call may not be made."""

    until: float | None
    """When to try again; None: when the probe in progress has an answer."""


class Breaker:
    """The state of one circuit breaker."""

    opened: int
    """How often it has opened."""
    why: str
    """What opened it last."""

    def __init__(self, policy: CircuitBreaker) -> None:
        self._policy = policy
        self._generation = 0
        self._until: float | None = None  # when it is open
        self._is_closed = True
        self._is_probing = False
        self._row = 0
        self._window: deque[bool] = deque(maxlen=policy.window)
        self.opened = 0
        self.why = ""

    @property
    def state(self) -> State:
        """``closed``, ``open`` or ``half-open``."""
        return "closed" if self._is_closed else "half-open" if self._until is None else "open"

    def admit(self, now: float) -> int | Refused:
        """Return a permit for one call, to be handed in with its outcome; or that the call is refused."""
        if self._is_closed:
            return self._generation
        if self._until is not None:
            if now < self._until:
                return Refused(self._until)
            self._turn(is_closed=False)
        if self._is_probing:
            return Refused(None)
        self._is_probing = True
        return self._generation

    def succeeded(self, permit: int) -> None:
        """Called when a call got its answer."""
        if permit != self._generation:
            return
        if not self._is_closed:
            self._turn(is_closed=True)
            return
        self._row = 0
        self._remember(failed=False)

    def failed(self, permit: int, now: float) -> None:
        """Called when a call failed."""
        if permit != self._generation:
            return
        if not self._is_closed:
            self._open(now, "its probe failed")
            return
        self._row += 1
        self._remember(failed=True)
        policy = self._policy
        if policy.failures is not None and self._row >= policy.failures:
            self._open(now, "a failure" if self._row == 1 else f"{self._row} failures in a row")
        elif policy.ratio is not None and len(self._window) == policy.window:
            failures = sum(self._window)
            if failures / policy.window >= policy.ratio:
                self._open(now, f"{failures} of the last {policy.window} calls failed")

    def abandoned(self, permit: int) -> None:
        """Called when a call was abandoned, so its outcome is unknown: a probe leaves its place to the next."""
        if permit == self._generation:
            self._is_probing = False

    def _remember(self, *, failed: bool) -> None:
        if self._policy.ratio is not None:
            self._window.append(failed)

    def _open(self, now: float, why: str) -> None:
        self._turn(is_closed=False)
        self._until = now + self._policy.reset_after
        self.opened += 1
        self.why = why

    def _turn(self, *, is_closed: bool) -> None:
        self._generation += 1
        self._is_closed, self._until, self._is_probing = is_closed, None, False
        self._row = 0
        self._window.clear()
