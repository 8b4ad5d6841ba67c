"""How much of its places does a pool use? The integrals over time of how many are in use, and of how many wait.

The rule: each change comes with its time. The integral of a count until the time t is ``count * t``, minus the times at
which it grew by one, plus those at which it shrank; so a change costs one addition, and what has not ended counts as
well. At each instant a place is in one of three states:

  in use   its worker waits for no other task: usually it is in a call
  waiting  its worker has nothing to take (starved), or no room for what it has (blocked)
  free     it has no worker; nothing is counted

A pool is *stalled* while places are not in use and yet can take nothing, because an earlier item is not finished. Then
everything behind it waits for its calls as if every place were in one, so these places also count as having *worked*.

Each change is also told to the times of all parts together (`state_times`), from which follows who waited for whom.

The invariant: used + stalled <= offered, the number of places times the time (but while the number is lowered, more may
be in use than are offered). It decides nothing, and does not know what its places are.
"""

from __future__ import annotations

from .._base.frozen import dataclass
from .blame import PoolField
from .state_times import StateTimes


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
        "_block",
        "_blocked",
        "_blocked_times",
        "_in_line",
        "_in_use",
        "_in_use_times",
        "_is_gone",
        "_line_up",
        "_offered",
        "_places",
        "_resized",
        "_stalled",
        "_stalled_at",
        "_starve",
        "_starved",
        "_starved_times",
        "_state_times",
        "_units",
        "_use",
        "_worked",
        "_worked_until",
        "is_stalled",
        "shift",
    )

    is_stalled: bool
    shift: int
    """Where its field is in the times of all parts."""

    def __init__(self, state_times: StateTimes[tuple[int, int]]) -> None:
        self._state_times = state_times
        self.shift = state_times.allot(PoolField.WIDTH, self._field)
        # What each change adds to the state: one more is in use, or waits in one of three ways.
        self._units = 1 << self.shift
        self._use = self._units << PoolField.IN_USE
        self._starve = (self._units << PoolField.STARVED) - self._use
        self._block = (self._units << PoolField.BLOCKED) - self._use
        self._line_up = (self._units << PoolField.IN_LINE) - self._use
        self._places = 1
        self._in_use = self._starved = self._blocked = self._in_line = 0
        self._is_gone = True
        self._in_use_times = self._starved_times = self._blocked_times = 0.0
        self.is_stalled = False
        self._stalled, self._stalled_at = 0.0, (0.0, 0.0)
        self._began = self._resized = 0.0
        self._offered = self._worked = self._worked_until = 0.0  # when it was resized

    def begin(self, now: float, places: int) -> None:
        """Offer `places` places from now on."""
        self._began = now  # times are counted from here, so that they do not lose digits
        self._places = places
        self._is_gone = False
        self._state_times.change(now, -self._units * PoolField.GONE)

    def end(self, now: float) -> None:
        """Called when it is over."""
        self.stall(now, False)
        self._is_gone = True
        self._state_times.change(now, self._units * PoolField.GONE)

    def _field(self) -> int:
        """Return what its field in the times of all parts is now."""
        field = PoolField.GONE * self._is_gone + PoolField.STALLED * self.is_stalled
        field |= self._in_use << PoolField.IN_USE | self._starved << PoolField.STARVED
        return field | (self._blocked - self._in_line) << PoolField.BLOCKED | self._in_line << PoolField.IN_LINE

    def hire(self, now: float) -> None:
        """Called when one more is in use."""
        self._in_use += 1
        self._in_use_times += now - self._began
        self._state_times.change(now, self._use)

    def dismiss(self, now: float) -> None:
        """Called when one fewer is in use."""
        self._in_use -= 1
        self._in_use_times -= now - self._began
        self._state_times.change(now, -self._use)

    def park(self, now: float, starved: bool, in_line: bool = False) -> None:
        """Called when one that was in use waits for something to take (`starved`), or for room.

        One that waits `in_line` has in hand what there is no room for, so it waits for that, whatever stalls others.
        """
        self._in_line += in_line
        change, at = self._starve if starved else self._line_up if in_line else self._block, now
        now -= self._began
        self._in_use -= 1
        self._in_use_times -= now
        if starved:
            self._starved += 1
            self._starved_times += now
        else:
            self._blocked += 1
            self._blocked_times += now
        self._state_times.change(at, change)

    def unpark(self, now: float, starved: bool, in_line: bool = False) -> None:
        """Called when it is in use again."""
        self._in_line -= in_line
        change, at = self._starve if starved else self._line_up if in_line else self._block, now
        now -= self._began
        self._in_use += 1
        self._in_use_times += now
        if starved:
            self._starved -= 1
            self._starved_times -= now
        else:
            self._blocked -= 1
            self._blocked_times -= now
        self._state_times.change(at, -change)

    def stall(self, now: float, is_stalled: bool) -> None:
        """Called with whether an earlier item is in the way."""
        if is_stalled is not self.is_stalled:
            at = now
            now -= self._began
            self._stalled = self._stalled_until(now)
            self._stalled_at = now, self._used(now)
            self.is_stalled = is_stalled
            stalled = self._units * PoolField.STALLED
            self._state_times.change(at, stalled if is_stalled else -stalled)

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
