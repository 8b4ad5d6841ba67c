"""What does a hub report about itself? Frozen snapshots of plain values."""

from __future__ import annotations

from ..._base.frozen import dataclass


@dataclass(frozen=True, slots=True)
class HubSubscriptionStatistics:
    """One subscription of a `Hub`, at one instant."""

    current_buffer_used: int
    """How many items wait in it; the name is that of trio's memory channels."""
    received: int
    """How many items were received from it."""
    dropped: int
    """How many items it did not get, because it had no room."""
    tasks_waiting_receive: int
    """How many tasks wait for an item."""


@dataclass(frozen=True, slots=True)
class HubStatistics:
    """A `Hub` at one instant."""

    subscriptions: tuple[HubSubscriptionStatistics, ...]
    """Those that are attached, in the order in which they came."""
    sent: int
    """How many items were sent, over all."""
    unheard: int
    """How many of them were dropped because there was no subscription."""
    dropped: int
    """How many copies were dropped because a subscription had no room, over all there ever were."""
    tasks_waiting_send: int
    """How many tasks wait for room."""
