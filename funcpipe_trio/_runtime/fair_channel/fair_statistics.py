"""What does a fair channel report about itself? Frozen snapshots of plain values."""

from __future__ import annotations

from collections.abc import Hashable
from fractions import Fraction

from ..._base.frozen import dataclass


@dataclass(frozen=True, slots=True)
class FairInputStatistics:
    """One input of a `FairChannel`, at one instant; there is none for an input that is closed and empty."""

    key: Hashable
    """Its key; in a group, the tuple of the keys that lead to it."""
    weight: int | Fraction
    """Its weight, among the inputs and groups beside it."""
    capacity: int
    """How many items it may hold."""
    buffered: int
    """How many items it holds."""
    parked: int
    """How many tasks wait to send to it."""
    closed: bool
    """Whether it was closed; it still gives what it holds."""
    served: int
    """How many of its items were handed over."""
    service: int | Fraction
    """The sum of their costs."""
    share: float
    """Its part of all service of the channel so far, 0 to 1: what it got, not what it was entitled to."""
    debt: Fraction
    """The cost by which it is ahead of the inputs and groups beside it: what it got early, and waits out."""
    longest_wait: int
    """The most items of others that were handed over while one of its items was next in line."""


@dataclass(frozen=True, slots=True)
class FairChannelStatistics:
    """A `FairChannel` at one instant."""

    inputs: tuple[FairInputStatistics, ...]
    """The inputs that are open or hold items, in the order in which they were opened."""
    open_inputs: int
    """How many inputs are open."""
    backlogged: int
    """How many inputs have an item that could be received now."""
    buffered: int
    """How many items the inputs hold together."""
    tasks_waiting_send: int
    """How many tasks wait for room."""
    tasks_waiting_receive: int
    """How many tasks wait for an item."""
    served: int
    """How many items were handed over, over all inputs there ever were."""
    service: int | Fraction
    """The sum of their costs."""
    unused_weights: frozenset[Hashable]
    """The keys that have a weight in the `FairShare` but were never opened: a misspelt key shows up here."""
