"""What does the package tell the log, and at which level? Few events of a run, never one for each item.

The logger is ``funcpipe_trio``. A record names parts of the plan, counts and types of errors; no item, no key of an
item and no text of an error is in it. (The one exception is `failures.warn_of`: an error of cleanup that would be known
nowhere else comes with its traceback.)

    WARNING  something was lost, or is wrong, and perhaps nothing else says so
    INFO     what began, ended or changed: a run, a drain, an abort, a circuit, a worker that died
    DEBUG    the rest: pauses

The rule: an event costs one question whether anybody listens, and a record that a filter of the user's cannot take does
no harm to the run.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from itertools import count
from logging import DEBUG as DEBUG
from logging import INFO as INFO
from logging import WARNING as WARNING

LOGGER = logging.getLogger("funcpipe_trio")
_numbers = count(1)


def log(level: int, message: str, *values: object) -> None:
    """Tell the log of an event. Sync, and never fails."""
    if LOGGER.isEnabledFor(level):
        with contextlib.suppress(Exception):  # raised by a filter; what handlers raise never comes here
            LOGGER.log(level, message, *values)


def log_nothing(level: int, message: str, *values: object) -> None:
    """Take the place of a `RunLog`, for a run that is part of another."""


class RunLog:
    """What one run tells the log, which calls it by its number in this program and by its sources.

    Args:
      name: returns the names of its sources; asked only if somebody listens.
    """

    __slots__ = ("_called", "_name")

    def __init__(self, name: Callable[[], str]) -> None:
        self._name = name  # what else to call it
        self._called: str | None = None  # as the log calls it; None before the first record

    def __call__(self, level: int, message: str, *values: object) -> None:
        """Tell the log of an event of this run."""
        if LOGGER.isEnabledFor(level):
            if self._called is None:
                self._called = f"run {next(_numbers)} of {self._name()}"
            log(level, f"%s: {message}", self._called, *values)
