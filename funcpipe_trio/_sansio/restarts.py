"""Is a source that failed opened again, and after how long? One machine for one source.

The rule: its openings are the attempts of a `Retry`, counted from 1. A source that fails `reset_after` seconds or more
after it was opened has been healthy: its failure is the first of a new series. So a feed that breaks once a day is
restarted forever, and a broken one is abandoned after `attempts` openings in a row. Each series has its own jitter: its
number is used like the number of an item elsewhere.

It is told the time and each error as it comes; it never waits.
"""

from __future__ import annotations

from functools import partial

from ..policies.retry import Retry
from .retrying import RetryState


class Restarts:
    """The openings of one source."""

    def __init__(self, retry: Retry, reset_after: float, *, stage: str = "", seed: int = 0) -> None:
        self._begun = partial(RetryState, retry, stage=stage, seed=seed)
        self._reset_after = reset_after
        self._series = 0
        self._opened = 0.0
        self._attempts = self._begun(0)

    @property
    def number(self) -> int:
        """The number of the current opening in this series, from 1."""
        return self._attempts.number

    def opened(self, now: float) -> None:
        """Called when it is being opened."""
        self._opened = now

    def failed(self, error: Exception, now: float) -> float | None:
        """Return the seconds to wait before it is opened again, or None: the error is final."""
        if now >= self._opened + self._reset_after:  # as deadlines are counted: a difference may be rounded below
            self._series += 1
            self._attempts = self._begun(self._series)
        return self._attempts.failed(error)

    def note(self) -> str | None:
        """Describe the waits of this series, for the final error; None if there were none."""
        return self._attempts.note()
