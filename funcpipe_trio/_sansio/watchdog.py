"""Has a stream taken too long: between two items, to its first one, or in total?

The rule: `idle` counts from the start, then from each item, and not while there is no room behind; `first` ends with
the first item; `whole` always counts. While the run is paused, neither of the first two does: they start again when it
resumes. What happens exactly at a deadline is too late.

It reports what is overdue, once; it never waits.
"""

from __future__ import annotations

import math


class Watchdog:
    """Three deadlines of one stream, each of which may be infinite."""

    __slots__ = ("_first", "_first_at", "_idle", "_idle_at", "_is_first_due", "_is_paused", "_whole", "whole_at")

    whole_at: float
    """When the whole stream is overdue."""

    def __init__(self, *, idle: float = math.inf, first: float = math.inf, whole: float = math.inf) -> None:
        self._idle, self._first, self._whole = idle, first, whole
        self._idle_at = self._first_at = self.whole_at = math.inf
        self._is_first_due, self._is_paused = True, False

    @property
    def deadline(self) -> float:
        """When something is overdue, if no item arrives and there is room."""
        if self._is_paused:
            return self.whole_at
        return min(self._idle_at, self._first_at, self.whole_at)

    def begin(self, now: float) -> None:
        """Called when the run starts."""
        self._idle_at, self._first_at, self.whole_at = now + self._idle, now + self._first, now + self._whole

    def heard(self, now: float) -> None:
        """Called when an item arrives."""
        self._idle_at, self._first_at = now + self._idle, math.inf
        self._is_first_due = False

    def resumed(self, now: float) -> None:
        """Called when there is room again: until now no item could have been taken."""
        self._idle_at = now + self._idle

    def pause(self) -> None:
        """Called when the sources are to take nothing."""
        self._is_paused = True

    def go_on(self, now: float) -> None:
        """Called when they resume."""
        self._is_paused = False
        self._idle_at = now + self._idle
        if self._is_first_due:
            self._first_at = now + self._first

    def overdue(self, now: float) -> str | None:
        """Return which deadline has passed, and clear all deadlines; None if none has passed."""
        if now < self.deadline:
            return None
        said = [(self.whole_at, f"timeout of {self._whole:g} s for the whole stream")]
        if not self._is_paused:
            said.append((self._first_at, f"timeout of {self._first:g} s for the first item"))
            said.append((self._idle_at, f"timeout of {self._idle:g} s without an item"))
        why = min(said, key=lambda pair: pair[0])[1]
        self._idle = self._first = math.inf
        self._idle_at = self._first_at = self.whole_at = math.inf
        return why
