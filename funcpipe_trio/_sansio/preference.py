"""Which flow is served next, if one is preferred, and the others must not starve?

The rule: the preferred one whenever it is ready, except that of `window` services in a row while others are ready, one
is theirs. Among themselves the others take turns (`FairQueue`, with equal weights). Whoever is ready alone is served at
once.

The invariant: in each row of `window` services in which both sides are ready all the time, exactly one is one of the
others', wherever the row begins. So a window counts from the last service of the others, and if that was long ago, the
next one is theirs.
"""

from __future__ import annotations

from fractions import Fraction

from .fair_queue import FairQueue, Flow


class PreferenceQueue(FairQueue[int]):
    """Serve flow 0 first."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self._window = window  # services of which one is the others'
        self._row = 0  # services of the preferred flow since one of the others'
        self._is_ready = False  # whether the preferred flow is

    def ready(self, flow: Flow[int]) -> None:
        """Mark a flow as having something to send; idempotent."""
        if flow.key:
            super().ready(flow)
        self._is_ready = self._is_ready or not flow.key

    def idle(self, flow: Flow[int]) -> None:
        """Mark a flow as having nothing to send after all; idempotent."""
        if flow.key:
            super().idle(flow)
        self._is_ready = self._is_ready and bool(flow.key)

    def select(self) -> Flow[int] | None:
        """Return the flow to be served now; None if none is ready. This changes nothing."""
        other = super().select()
        if self._is_ready and (other is None or self._row < self._window - 1):
            return self._flows[0]
        return other

    def charge(self, flow: Flow[int], cost: int | Fraction = 1, *, still_ready: bool) -> int | Fraction:
        """Count one service of the flow that `select` returned."""
        if flow.key:
            self._row = 0
            return super().charge(flow, cost, still_ready=still_ready)
        self._row += 1
        self._is_ready = still_ready
        return cost
