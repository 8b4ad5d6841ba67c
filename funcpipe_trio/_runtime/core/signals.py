"""The signals that stand where an item could: what does a pull answer, and what stands at the end of a stream?

`PENDING` says that no value comes this time, `NO_ITEM` that hands are empty, `END` that no more will come; a
`FailureMark` stands behind the items that came before an error. `Readiness` says beforehand what a pull would answer.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, final

# Why an item was given up: what `on_discard` is told.
NOT_NEEDED: Final = "not needed"
BEHIND_FAILURE: Final = "behind a failure"
ABORTED: Final = "aborted"
CANCELLED: Final = "cancelled"
GRACE_OVER: Final = "grace period over"


@final
class _Signal:
    """Stands where an item could."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name  # of the constant that it is bound to

    def __repr__(self) -> str:
        return self._name


PENDING: Final[Any] = _Signal("PENDING")
"""What a generator answers that has no value this time (none is there now, or it was dropped), and has not ended."""
NO_ITEM: Final[Any] = _Signal("NO_ITEM")
"""In hands that hold no item; and with an error that befell none."""
END: Final[Any] = _Signal("END")
"""What `next` returns where no more will come."""


class Readiness(Enum):
    """What a pull would find.

    Its members are bound to names of this module: to look one up in the class takes four times as long (in Python 3.11;
    several times a wake-up).
    """

    READY = "an item"
    REFILLING = "none yet, but its producer was woken for room and has not run: it counts as backlogged"
    IDLE = "none now"
    ENDED = "the end"
    FAILED = "the end, where a failure stands"


READY, REFILLING, IDLE, ENDED, FAILED = Readiness


class FailureMark:
    """An error on its way to the caller, behind the items that came before it."""

    __slots__ = ("error", "is_kept", "item", "stage", "stopped")

    error: Exception
    stage: Any  # what failed (a stage, a fan-in, a joint); it keeps the count
    item: Any  # what the error befell; NO_ITEM: a source, no item
    is_kept: bool
    """Whether the ledger has it: behind a fan-out one error may stand in several places."""
    stopped: str | None
    """Why the run was stopped, if that is all that it says. Its error tells nothing of that: a user may raise one."""

    def __init__(self, error: Exception, stage: Any, item: Any = NO_ITEM, *, stopped: str | None = None) -> None:
        self.error, self.stage, self.item = error, stage, item
        self.is_kept, self.stopped = False, stopped


def reason_behind(failure: FailureMark | None) -> str:
    """Say why what stands behind an end is given up."""
    return NOT_NEEDED if failure is None else failure.stopped or BEHIND_FAILURE
