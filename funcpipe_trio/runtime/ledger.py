"""The accounts of a run: what was given up, and which errors were met besides the one that the caller gets.

Everything that leaves the stream without being delivered passes through here exactly once, so that the report adds up
and `on_discard` hears of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._errors import Aborted
from .inlet import BEHIND_FAILURE, NOTHING, Fault

__all__ = ["Ledger", "OnDiscard"]

OnDiscard = Callable[[Any, str, str], object]


class Ledger:
    """Counts of a run, and the errors it kept."""

    discarded: int

    def __init__(self, on_discard: OnDiscard | None) -> None:
        self._on_discard = on_discard
        self.discarded = 0
        self.error: BaseException | None = None
        self.cleanup_errors: list[BaseException] = []
        self.fatal: BaseException | None = None
        """What ends the program (KeyboardInterrupt and its like), met in `on_discard`."""
        self.kill: Callable[[], None] = lambda: None
        """Stops the run and the caller's block."""

    def discard(self, item: Any, stage: str, reason: str) -> None:
        """Give an item up."""
        self.discarded += 1
        self._tell(item, stage, reason)

    def drop(self, item: Any, stage: str, policy: str) -> None:
        """Hear of an item that a policy of overflow dropped; whoever dropped it counts it."""
        self._tell(item, stage, policy)

    def _tell(self, item: Any, stage: str, reason: str) -> None:
        if self._on_discard is None:
            return
        try:
            self._on_discard(item, stage, reason)
        except Exception as error:
            self.cleanup_errors.append(error)
        except BaseException as error:  # noqa: ASYNC103
            # Raised here it would leave half of a run standing: it is raised when the run has stopped.
            self.fatal = self.fatal or error
            self.kill()

    def unread(self, failure: Fault, reason: str) -> None:
        """Keep a failure that will not reach the caller.

        Behind an earlier failure its item is one of those that came later, and is discarded like them. If nobody
        needed to read that far, it is the error of the run all the same, only not raised.
        """
        if isinstance(failure.error, Aborted) or failure.is_kept:
            return  # the first only says that the run was stopped, which the outcome says too
        failure.is_kept = True
        if reason == BEHIND_FAILURE:
            self.cleanup_errors.append(failure.error)
            if failure.item is not NOTHING:
                failure.stage.failed -= 1
                failure.stage.discard(failure.item, reason)
        elif self.error is None:
            self.error = failure.error
        else:
            self.cleanup_errors.append(failure.error)

    def read(self, failure: Fault) -> None:
        """Note the failure that the caller gets."""
        failure.is_kept = True
        if self.error is not None and self.error is not failure.error:
            self.cleanup_errors.append(self.error)
        self.error = failure.error
