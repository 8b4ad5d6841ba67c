"""What a stage takes from: the one protocol behind links, sources and fan-ins.

The rule: an inlet is a generator that answers every pull at once, with an item or with `NOTHING` (none now), and ends
when no more can come; `failure` then says whether an error stood at that place. It never waits: who finds `NOTHING`
parks, and the inlet calls ``receiver.on_input()`` when a pull may find more.

The invariant: an item is in an inlet until it is pulled, and in the hands of whoever pulled it from that instant on.
There is no checkpoint in between, so no cancellation can lose one.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from typing import Any, Final, Protocol, final

# Why an item was given up: what `on_discard` is told.
NOT_NEEDED: Final = "not needed"
BEHIND_FAILURE: Final = "behind a failure"
ABORTED: Final = "aborted"
CANCELLED: Final = "cancelled"
GRACE_OVER: Final = "grace period over"


@final
class _Nothing:
    """The answer of a generator that has no item this time, and has not ended."""

    def __repr__(self) -> str:
        return "NOTHING"


NOTHING: Final[Any] = _Nothing()
END: Final[Any] = object()
"""What `next` gives where no more will come."""


class State(Enum):
    """What a pull would find.

    Its members are bound to names of this module: to look one up in the class takes four times as long (in Python 3.11;
    several times a wake-up).
    """

    READY = "an item"
    HELD = "none yet, but its producer was woken for room and has not run: it counts as backlogged"
    IDLE = "none now"
    ENDED = "the end"
    FAILED = "the end, where a failure stands"


READY, HELD, IDLE, ENDED, FAILED = State


def worth_a_pull(inlet: Inlet) -> bool:
    """Whether a pull would find more than `NOTHING`."""
    state = inlet.state()
    return state is not IDLE and state is not HELD


class Fault:
    """An error on its way to the caller, behind the items that came before it."""

    __slots__ = ("error", "is_kept", "item", "stage", "stopped")

    error: Exception
    stage: Any  # what failed (a stage, a fan-in, a joint); it keeps the count
    item: Any  # what the error befell; NOTHING: a source, no item
    is_kept: bool
    """Whether the ledger has it: behind a fan-out one error may stand in several places."""
    stopped: str | None
    """Why the run was stopped, if that is all that it says. Its error tells nothing of that: a user may raise one."""

    def __init__(self, error: Exception, stage: Any, item: Any = NOTHING, *, stopped: str | None = None) -> None:
        self.error, self.stage, self.item = error, stage, item
        self.is_kept, self.stopped = False, stopped


def reason_behind(failure: Fault | None) -> str:
    """Say why what stands behind an end is given up."""
    return NOT_NEEDED if failure is None else failure.stopped or BEHIND_FAILURE


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
    def failure(self) -> Fault | None:
        """The error that stands at its end, if one does."""

    @property
    def taken(self) -> int:
        """How many items were pulled."""

    def items(self) -> Iterator[Any]:
        """Give the generator of items and `NOTHING`; called once."""

    def state(self) -> State:
        """Say what a pull would find; exactly, and without changing anything."""

    def release(self, *, parking: bool = False) -> None:
        """Give the room that pulls made to the sender: at a low mark, or all of it when the taker will park."""
