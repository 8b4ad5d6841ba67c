"""The accounts of a run: what was given up, and which errors were met besides the one that the caller gets.

Everything that leaves the stream without being delivered passes through here exactly once, so that the report adds up
and `on_discard` hears of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..._base.shown import told
from .failures import MOST_NOTES, add_note, is_cancellation
from .signals import BEHIND_FAILURE, NO_ITEM, FailureMark
from .user_code import interruptibly, not_awaitable

OnDiscard = Callable[[Any, str, str], object]

MOST_KEPT = 100
"""Errors that are kept, at most: each holds its traceback, and all that lives in its frames. The rest is counted."""


class Ledger:
    """Counts of a run, and the errors it kept."""

    cleanup_error_count: int
    """How many errors were met besides, those that are not kept included."""
    discarded: int

    def __init__(self, on_discard: OnDiscard | None) -> None:
        self._on_discard = on_discard
        self.discarded = 0
        self.error: BaseException | None = None
        self.cleanup_errors: list[BaseException] = []
        self.cleanup_error_count = 0
        self._notes: list[str] = []  # of errors of cleanup, for the error that the caller gets
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
            not_awaitable("on_discard", interruptibly(self._on_discard, item, stage, reason))
        except BaseException as error:  # noqa: ASYNC103
            if isinstance(error, Exception) or is_cancellation(error):  # a sync function is cancelled by nobody
                self.keep(error, f"then on_discard raised {told(error)}")
            else:  # raised here it would leave half of a run standing: it is raised when the run has stopped
                self.fatal = error if self.fatal is None else self.fatal
                self.kill()

    def keep(self, error: BaseException, note: str | None = None) -> None:
        """Keep an error that was met besides; `note` tells of it on the error that the caller gets."""
        self.cleanup_error_count += 1
        if len(self.cleanup_errors) < MOST_KEPT:
            self.cleanup_errors.append(error)
        if note is not None and len(self._notes) < MOST_NOTES:
            self._notes.append(note)
            if self.error is not None:
                add_note(self.error, note)

    def unread(self, failure: FailureMark, reason: str) -> None:
        """Keep a failure that will not reach the caller.

        Behind an earlier failure its item is one of those that came later, and is discarded like them. If nobody
        needed to read that far, it is the error of the run all the same, only not raised.
        """
        if failure.stopped is not None or failure.is_kept:
            return  # the first is what the outcome says too
        failure.is_kept = True
        if reason == BEHIND_FAILURE:
            self.keep(failure.error)
            if failure.item is not NO_ITEM:
                failure.stage.failed -= 1
                failure.stage.discard(failure.item, reason)
        elif self.error is None:
            self._end_with(failure.error)
        else:
            self.keep(failure.error)

    def read(self, failure: FailureMark) -> None:
        """Note the failure that the caller gets."""
        failure.is_kept = True
        if self.error is not None and self.error is not failure.error:
            self.keep(self.error)
        self._end_with(failure.error)

    def _end_with(self, error: BaseException) -> None:
        self.error = error
        for note in self._notes:
            add_note(error, note)
