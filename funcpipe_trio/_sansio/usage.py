"""How much of its places does a pool use? The integrals over time of how many are in use, and of how many wait.

The rule: each change comes with its time. The integral of a count until the time t is ``count * t``, minus the times at
which it grew by one, plus those at which it shrank; so a change costs one addition, and what has not ended counts as
well. At each instant a place is in one of three states:

  in use   its worker waits for no other task: usually it is in a call
  waiting  its worker has nothing to take (starved), or no room for what it has (blocked)
  free     it has no worker; nothing is counted

A pool is *stalled* while places are not in use and yet can take nothing, because an earlier item is not finished. Then
everything behind it waits for its calls as if every place were in one, so these places also count as having *worked*.

The invariant: used + stalled <= offered, the number of places times the time (but while the number is lowered, more may
be in use than are offered). It decides nothing, and does not know what its places are.
"""

from __future__ import annotations

from .._base.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Used:
    """The totals until some time: seconds, over all places except for `worked`."""

    used: float
    stalled: float
    """Not in use while an earlier item was not finished."""
    offered: float
    """The integral of the number of places."""
    starved: float
    blocked: float
    worked: float
    """Seconds, counted in part while only part of the places was in use."""


class Usage:
    """Places, all of them free at the beginning."""

    __slots__ = (
        "_began",
        "_blocked",
        "_blocked_times",
        "_in_use",
        "_in_use_times",
        "_offered",
        "_places",
        "_resized",
        "_stalled",
        "_stalled_at",
        "_starved",
        "_starved_times",
        "_worked",
        "_worked_until",
        "is_stalled",
    )

    is_stalled: bool

    def __init__(self) -> None:
        self._places = 1
        self._in_use = self._starved = self._blocked = 0
        self._in_use_times = self._starved_times = self._blocked_times = 0.0
        self.is_stalled = False
        self._stalled, self._stalled_at = 0.0, (0.0, 0.0)
        self._began = self._resized = 0.0
        self._offered = self._worked = self._worked_until = 0.0  # when it was resized

    def begin(self, now: float, places: int) -> None:
        """Offer `places` places from now on."""
        self._began = now  # times are counted from here, so that they do not lose digits
        self._places = places

    def hire(self, now: float) -> None:
        """Called when one more is in use."""
        self._in_use += 1
        self._in_use_times += now - self._began

    def dismiss(self, now: float) -> None:
        """Called when one fewer is in use."""
        self._in_use -= 1
        self._in_use_times -= now - self._began

    def park(self, now: float, starved: bool) -> None:
        """Called when one that was in use waits for something to take (`starved`), or for room."""
        now -= self._began
        self._in_use -= 1
        self._in_use_times -= now
        if starved:
            self._starved += 1
            self._starved_times += now
        else:
            self._blocked += 1
            self._blocked_times += now

    def unpark(self, now: float, starved: bool) -> None:
        """Called when it is in use again."""
        now -= self._began
        self._in_use += 1
        self._in_use_times += now
        if starved:
            self._starved -= 1
            self._starved_times -= now
        else:
            self._blocked -= 1
            self._blocked_times -= now

    def stall(self, now: float, is_stalled: bool) -> None:
        """Called with whether an earlier item is in the way."""
        if is_stalled is not self.is_stalled:
            now -= self._began
            self._stalled = self._stalled_until(now)
            self._stalled_at = now, self._used(now)
            self.is_stalled = is_stalled

    def resize(self, now: float, places: int) -> None:
        """Offer `places` places from now on."""
        done, was_stalled = self.read(now), self.is_stalled
        self.stall(now, False)
        self._offered, self._worked, self._worked_until = done.offered, done.worked, done.used + done.stalled
        self._places, self._resized = places, now - self._began
        self.stall(now, was_stalled)

    def read(self, now: float) -> Used:
        """Return the totals until now."""
        now -= self._began
        seconds = now - self._resized
        used, stalled = self._used(now), self._stalled_until(now)
        worked = (used + stalled - self._worked_until) / self._places
        return Used(
            used=used,
            stalled=stalled,
            offered=self._offered + seconds * self._places,
            starved=self._starved * now - self._starved_times,
            blocked=self._blocked * now - self._blocked_times,
            worked=self._worked + min(worked, seconds),
        )

    def _used(self, now: float) -> float:
        return self._in_use * now - self._in_use_times

    def _stalled_until(self, now: float) -> float:
        since, used = self._stalled_at
        return self._stalled + self.is_stalled * max(0.0, (now - since) * self._places - (self._used(now) - used))
