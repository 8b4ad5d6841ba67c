"""What do the parts of a run see of each other, that are made apart?

The rule of an inlet: it is a generator that answers every pull at once, with an item or with `PENDING` (none now), and
ends when no more can come; `failure` then says whether an error stood at that place. It never waits: the task that
finds `PENDING` parks, and the inlet calls ``receiver.on_input()`` when a pull may find more.

The invariant: an item is in an inlet until it is pulled, and in the hands of the task that pulled it from then on.
There is no checkpoint in between, so no cancellation can lose one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

from ..._plan.nodes import Plan
from .ledger import Ledger, OnDiscard
from .signals import IDLE, REFILLING, FailureMark, Readiness


class Receiver(Protocol):
    """Who takes from an inlet."""

    def on_input(self) -> None:
        """Hear that a pull may find more than before."""


class Sender(Protocol):
    """Who fills a link."""

    @property
    def name(self) -> str:
        """How it is called."""

    @property
    def upstream(self) -> Upstream:
        """What it takes from."""

    def start(self) -> None:
        """Start its tasks."""

    def on_room(self) -> bool:
        """Hear that the link has room again; say whether a task was woken for it."""

    def stop(self, reason: str) -> bool:
        """Stop its tasks at once: what they hold is discarded for `reason`; False if it was stopped before."""


class Upstream(Protocol):
    """What starts and stops with those who take from it."""

    def start(self) -> None:
        """Start the tasks upstream."""

    def close(self, reason: str) -> None:
        """Take no more: discard what is here and stop everything upstream, at once. Sync; harmless twice."""


class Inlet(Upstream, Protocol):
    """A place to take items from."""

    receiver: Receiver
    exhausted: bool
    """Whether `items` was read to its end; then `failure` is the reader's to pass on."""

    @property
    def failure(self) -> FailureMark | None:
        """The error that stands at its end, if one does."""

    @property
    def taken(self) -> int:
        """How many items were pulled."""

    def items(self) -> Iterator[Any]:
        """Give the generator of items and `PENDING`; called once."""

    def state(self) -> Readiness:
        """Say what a pull would find; exactly, and without changing anything."""

    def release(self, *, parking: bool = False) -> None:
        """Give the room that pulls made to the sender: at a low mark, or all of it when the taker will park."""


def worth_a_pull(inlet: Inlet) -> bool:
    """Whether a pull would find more than `PENDING`."""
    state = inlet.state()
    return state is not IDLE and state is not REFILLING


class Outlet(Protocol):
    """A place to put values: a link, a fork, or the sink of a run."""

    put: Callable[[Any], object]
    """Takes one value; True: no other may follow, though there was room for more (it hangs on the values)."""
    closed: str | None
    passed: int

    def room(self) -> int:
        """How many values may be put."""

    def burst_room(self) -> int:
        """How many values to put before the receiver has had a turn."""

    def waiting_room(self) -> int:
        """How many results that wait for an earlier one may be kept besides."""

    def commit(self, count: int) -> None:
        """Hand over the values put since the last commit."""

    def finish(self, failure: FailureMark | None) -> None:
        """Put the end behind them."""

    def turn_over(self) -> None:
        """Say that no more comes in this turn."""

    def turn_continues(self) -> None:
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
