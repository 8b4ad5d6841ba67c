"""What do the parts of a run know of each other, though each is made separately?

The rule of an inlet: its `items` is a generator that answers every pull at once, with an item or with `PENDING` (none
now), and ends when no more can come; `failure` then is the error that stood there, if any. It never waits: the task
that gets `PENDING` parks, and the inlet calls ``receiver.on_input()`` when a pull may find more.

The invariant: an item is in an inlet until it is pulled, and from then on it belongs to the task that pulled it. There
is no checkpoint in between, so no cancellation can lose one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

from ..._plan.nodes import Plan
from ..._sansio.state_times import StateTimes
from .ledger import Ledger, OnDiscard
from .signals import IDLE, REFILLING, FailureMark, Readiness
from .turn import Stopwatch, Turn


class Receiver(Protocol):
    """What takes from an inlet."""

    def on_input(self) -> None:
        """Called when a pull may find more than before."""


class Meeting(Receiver, Protocol):
    """What takes from a link that holds nothing."""

    def wants_input(self) -> bool:
        """Whether it waits for an item, so that it would take one at once."""


class Sender(Protocol):
    """What fills a link."""

    @property
    def name(self) -> str:
        """What plans, reports and errors call it."""

    @property
    def upstream(self) -> Upstream:
        """What it takes from."""

    def start(self) -> None:
        """Start its tasks."""

    def on_room(self) -> bool:
        """Called when the link has room again; return whether a task was woken for it."""

    def stop(self, reason: str) -> bool:
        """Stop its tasks at once: what they hold is discarded for `reason`. Return False if it was stopped before."""


class Upstream(Protocol):
    """What starts and stops together with the part that takes from it."""

    def start(self) -> None:
        """Start the tasks upstream."""

    def close(self, reason: str) -> None:
        """Take no more: discard what is here and stop everything upstream, at once. Sync and idempotent."""


class Inlet(Upstream, Protocol):
    """A place to take items from."""

    receiver: Receiver
    """Is told when a pull may find more."""
    exhausted: bool
    """Whether `items` was read to its end; then its reader must pass `failure` on."""

    @property
    def failure(self) -> FailureMark | None:
        """The error that stands at its end; None without one, or before the end is known."""

    @property
    def taken(self) -> int:
        """How many items were pulled."""

    def items(self) -> Iterator[Any]:
        """Return the generator of items and `PENDING`; called once."""

    def state(self) -> Readiness:
        """Return what a pull would find; exactly, and without changing anything."""

    def release(self, *, parking: bool = False) -> None:
        """Tell the sender of the room that pulls made: from the low mark on, or of any if the taker will park."""


def worth_a_pull(inlet: Inlet) -> bool:
    """Whether a pull would find more than `PENDING`."""
    state = inlet.state()
    return state is not IDLE and state is not REFILLING


class Outlet(Protocol):
    """A place to put values: a link, a fork, or the sink of a run."""

    put: Callable[[Any], object]
    """Takes one value; True: no other may follow, though there was room for more (that depends on the values)."""
    closed: str | None
    """Why nothing more is taken; None while it is."""
    passed: int
    """Values that were committed."""
    wants_room: bool
    """Whether the sender is to be told when there is room again."""

    def room(self) -> int:
        """Return how many values may be put."""

    def burst_room(self) -> int:
        """Return how many values may be put before the receiver has had a turn."""

    def waiting_room(self) -> int:
        """Return how many results that wait for an earlier one may be kept for it."""

    def begin(self) -> None:
        """Called before the first value of a burst is put."""

    def given(self) -> int:
        """Return how many values were put in all, also those of a burst that is not committed yet."""

    def commit(self, count: int) -> None:
        """Hand over the values put since the last commit."""

    def finish(self, failure: FailureMark | None) -> None:
        """Put the end behind them, with the failure that stands there, if any."""

    def turn_over(self) -> None:
        """Called when no more comes in this turn."""

    def turn_continues(self) -> None:
        """Called when more comes in the next turn, which follows at once."""


class Keeper(Protocol):
    """Where tasks of a step run, such as those that hold resources open: a run, or the block of a started step."""

    ledger: Ledger
    """What it discarded, and its errors."""
    cleanup_timeout: float
    """Seconds in which a source, or a resource, must be closed."""
    ends_callers: bool
    """Whether those that call the step are its own tasks, too, so that what ends its tasks ends them as well."""

    def start_task(self, task: Callable[[], Any], name: str) -> None:
        """Start a task in its nursery, in the context of the task that opened it."""

    async def until_unused(self) -> None:
        """Wait, in a task that only serves others, until nothing can use it any more."""

    def keep(self, error: Exception, name: str) -> None:
        """Keep an error that a call of a step raised while it was cancelled."""


class Host(Keeper, Protocol):
    """The run, as its stages see it."""

    state_times: StateTimes[tuple[int, int]]
    """For how long which of its parts worked and which waited, all of them together."""
    stopwatch: Stopwatch
    """By which frequent waits are timed."""
    turn_seconds: float
    """The most seconds of real time between two checkpoints; inf where real time must not decide anything."""
    open_inner: Callable[[Plan, OnDiscard], Any]
    """Returns the block of a run inside this one; an attribute, because what opens a run imports this folder."""

    def register(self, stage: Any) -> None:
        """Add a stage to the report."""


class OperationChain(Protocol):
    """What an operation may use of the chain that it is fused into."""

    host: Host
    """The run."""
    inlet: Inlet
    """Where its values come from."""
    began: float
    """When its stage was started, by trio's clock."""
    now: Callable[[], float]
    """Returns the time, by trio's clock."""
    turn: Turn
    """How long what drives it may go on."""
    failed: int
    """Items at which user code raised, except those that became a `Failure`."""
    as_failures: int
    """Items that a policy replaced by a `Failure`."""

    @property
    def is_cut_off(self) -> bool:
        """Whether the values end because they are not needed, or with a failure upstream, and not with the stream."""

    @property
    def failures(self) -> Counter[str]:
        """How often a policy went on after an error, by the name of the error's type."""

    def failing(self, error: BaseException, name: str, number: int, item: Any) -> NoReturn:
        """Called when user code raised at one item; raises its failure, or what must pass."""

    def discard(self, item: Any, reason: str) -> None:
        """Discard an item."""

    def close_stream(self, stream: Any) -> None:
        """Close a generator or iterator."""

    def keep_cleanup_error(self, error: BaseException) -> None:
        """Keep an error of cleanup."""
