"""What did a run discard, and which errors were there in addition to the one that the caller gets?

Each discarded item, and each that an overflow policy drops, passes through here exactly once, so that the report adds
up and `on_discard` is told of it. What an operation drops or a policy skips is counted where that happens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from ..._base.shown import told
from .failures import MOST_NOTES, add_note, failure_of, is_cancellation
from .signals import BEHIND_FAILURE, NO_ITEM, FailureMark
from .user_code import interruptibly, not_awaitable

OnDiscard = Callable[[Any, str, str], object]

MOST_KEPT = 100
"""The most errors kept: each holds its traceback, and all that lives in its frames. The rest are only counted."""


class Ledger:
    """What a run discarded, and its errors."""

    def __init__(self, on_discard: OnDiscard | None) -> None:
        self._on_discard = on_discard  # the user's function that is told of each lost item; None if there is none
        self.discarded: int = 0  # items discarded anywhere in the run
        self.error: BaseException | None = None  # the error of the run, as reports show it; None while there is none
        self.cleanup_errors: list[BaseException] = []  # all others, at most `MOST_KEPT`
        self.cleanup_error_count: int = 0  # how many others there were, including those that are not kept
        self._notes: list[str] = []  # of the others, to be added to `error`; at most `MOST_NOTES`
        self.fatal: BaseException | None = None
        """What must end the program (KeyboardInterrupt and the like) and was raised while the run stopped."""
        self.kill: Callable[[], None] = lambda: None  # cancels the run and the caller's block; set by the engine

    def discard(self, item: Any, stage: str, reason: str) -> None:
        """Discard an item: count it and tell `on_discard`."""
        self.discarded += 1
        self._tell(item, stage, reason)

    def drop(self, item: Any, stage: str, policy: str) -> None:
        """Tell `on_discard` of an item that a policy of overflow dropped; the caller counts it."""
        self._tell(item, stage, policy)

    def _tell(self, item: Any, stage: str, reason: str) -> None:
        if self._on_discard is None:
            return
        try:
            not_awaitable("on_discard", interruptibly(self._on_discard, item, stage, reason))
        except BaseException as error:  # noqa: ASYNC103
            if isinstance(error, Exception) or is_cancellation(error):  # nobody cancels a sync function
                self.keep(error, f"then on_discard raised {told(error)}")
            else:
                self.end_by(error)

    def end_by(self, error: BaseException) -> None:
        """End the program by what user code raised while the run stops.

        Raised there, it would leave half of a run standing; it is raised when the run has stopped.
        """
        self.fatal = error if self.fatal is None else self.fatal
        self.kill()

    def keep(self, error: BaseException, note: str | None = None) -> None:
        """Keep an error in addition to the one that the caller gets, which gets `note`."""
        self.cleanup_error_count += 1
        if len(self.cleanup_errors) < MOST_KEPT:
            self.cleanup_errors.append(error)
        if note is not None and len(self._notes) < MOST_NOTES:
            self._notes.append(note)
            if self.error is not None:
                add_note(self.error, note)

    async def kept_cleanup(self, ending: Awaitable[bool], where: str, limit: float) -> None:
        """Await a cleanup that returns whether it was done in time; its error or slowness is kept, never raised."""
        try:
            if await ending:
                return
            error: BaseException = trio.TooSlowError(f"cleanup in {where} took more than {limit:g} s")
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            if failure_of(raised) is None:
                raise
            error = raised
        self.keep(error, f"then cleanup in {where} raised {told(error)}")

    def unread(self, failure: FailureMark, reason: str) -> None:
        """Keep a failure that will not reach the caller.

        Behind an earlier failure, its item is discarded as every later item is. If nobody needed to read that far, it
        still is the error of the run, but it is not raised.
        """
        if failure.stopped is not None or failure.is_kept:
            return  # the outcome says the same (`stopped`), or the ledger has it
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
