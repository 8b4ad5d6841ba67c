"""The signals that stand where an item could: what does a pull return, and what stands at the end of a stream?

`PENDING` means that no value comes this time, `NO_ITEM` that no item is held, `END` that no more will come; a
`FailureMark` stands behind the items that came before an error. `Readiness` tells beforehand what a pull would return.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, final

# Why an item was discarded: what `on_discard` is told.
NOT_NEEDED: Final = "not needed"
BEHIND_FAILURE: Final = "behind a failure"
ABORTED: Final = "aborted"
CANCELLED: Final = "cancelled"
GRACE_OVER: Final = "grace period over"
DRAINED: Final = "drained"


@final
class _Signal:
    """A constant that stands where an item could."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name  # of the constant, as its repr

    def __repr__(self) -> str:
        return self._name


PENDING: Final[Any] = _Signal("PENDING")
"""What a generator yields that has no value this time (none is there now, or it was dropped), and has not ended."""
NO_ITEM: Final[Any] = _Signal("NO_ITEM")
"""Where no item is held; and with an error that was raised at no item."""
END: Final[Any] = _Signal("END")
"""The default of `next`: no more will come."""


class Readiness(Enum):
    """What a pull would find.

    Its members are bound to names of this module: a lookup in the class takes four times as long (in Python 3.11), and
    there are several for each wake-up.
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

    def __init__(self, error: Exception, stage: Any, item: Any = NO_ITEM, *, stopped: str | None = None) -> None:
        self.error: Exception = error  # what the caller gets
        self.stage: Any = stage  # what failed (a stage, a fan-in, a join); it counts its failed and discarded items
        self.item: Any = item  # at which it was raised; NO_ITEM: a source failed
        self.is_kept: bool = False  # the ledger has it; behind a fan-out, one mark may stand in several places
        self.stopped: str | None = stopped
        """Why the run was stopped, if the mark says nothing else; None for a failure. The type of the error cannot tell
        the two apart: a user may raise `Aborted`."""


def reason_behind(failure: FailureMark | None) -> str:
    """Return why what stands behind an end is discarded."""
    return NOT_NEEDED if failure is None else failure.stopped or BEHIND_FAILURE
