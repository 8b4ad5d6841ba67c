"""What do the parts of a run see of each other, that are made apart?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn, Protocol

from ..._plan.nodes import Plan
from .inlet import Fault
from .ledger import Ledger, OnDiscard


class Outlet(Protocol):
    """A place to put values: a link, a fork, or the sink of a run."""

    put: Callable[[Any], object]
    """Takes one value; True: no other may follow, though there was room for more (it hangs on the values)."""
    closed: str | None
    passed: int

    def room(self) -> int:
        """How many values may be put."""

    def turn(self) -> int:
        """How many values to put before the receiver has had a turn."""

    def spare(self) -> int:
        """How many results that wait for an earlier one may be kept besides."""

    def commit(self, count: int) -> None:
        """Hand over the values put since the last commit."""

    def finish(self, failure: Fault | None) -> None:
        """Put the end behind them."""

    def settle(self) -> None:
        """Say that no more comes in this turn."""

    def unsettle(self) -> None:
        """Say that more comes in the next turn, which follows at once."""

    wants_room: bool


class Host(Protocol):
    """The run, as its stages see it."""

    ledger: Ledger
    cleanup_timeout: float
    slice: float
    """Seconds of real time between two checkpoints, at most; without limit where real time is to decide nothing."""
    open_inner: Callable[[Plan, OnDiscard], Any]
    """Makes the block of a run inside this one; who opens a run is above those who work in it."""

    def start_task(self, task: Callable[[], Any], name: str) -> None:
        """Start a task in the run's nursery, in the context of whoever opened the run."""

    def register(self, stage: Any) -> None:
        """Take a stage into the report."""


class OperationHost(Protocol):
    """What an operation may use of the chain that it is fused into."""

    host: Host
    began: float
    now: Callable[[], float]
    failed: int
    as_failures: int

    @property
    def failures(self) -> Counter[str]:
        """How often a policy went on after an error, by the name of its type."""

    def failing(self, error: BaseException, name: str, number: int, item: Any) -> NoReturn:
        """Hear that user code raised at one item."""

    def discard(self, item: Any, reason: str) -> None:
        """Give up an item."""

    def close_stream(self, stream: Any) -> None:
        """Close a generator."""

    def keep_cleanup_error(self, error: BaseException) -> None:
        """Keep an error of cleanup."""
