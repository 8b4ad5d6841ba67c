"""For how long was a whole in each of its states? Seconds, in memory that does not grow with time.

The rule: a state is one number, made of fields; each part of the whole is allotted a field and adds to it when it
changes. A change is only noted, with its time, and changes are counted many at a time: that costs half of counting each
by itself. What the states mean is worked out later, once for each state and not once for each change.

A whole that changes so often that this would cost more than a part of its time (`share`) is not watched all the time:
after each count nothing is noted for so long that the cost is that part; then all parts are asked for their fields.
With ``share=inf`` nothing is missed. What it costs is reckoned with the constants below, not measured.

The invariant: the seconds by state, with those of states that were added up already, are all the time that was watched.
There are at most `most` states: when more have been seen, each is explained by the function given, their seconds are
added up by what that says, and they are forgotten. It decides nothing, and does not know what its fields mean.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from itertools import accumulate
from math import inf
from operator import sub
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

MOST: Final = 256
"""The most changes that are counted at once, and the most states that are kept."""
FEWEST: Final = 16
_AT_ONCE: Final = 2000
"""Fields of the states that are explained at once: some milliseconds, for which all else has to wait."""
COST_OF_NOTE: Final = 0.5e-6
"""Seconds to note a change, and to count it."""
COST_OF_FIELD: Final = 2e-6
"""Seconds to explain one field of a state."""

Explain = Callable[[int], Iterable[tuple[K, float]]]
"""Returns what to count a state for, and how often: each second of it as so many seconds."""


class StateTimes(Generic[K]):
    """A state made of fields, and the seconds spent in each."""

    __slots__ = (
        *("_ahead", "_began", "_explain", "_fields", "_notes", "_seconds", "_share", "_since", "_state", "_sums"),
        *("_width", "is_on", "most", "rests_until"),
    )

    most: int
    """Changes that are counted at once, and states that are kept; fewer where there are many parts to explain."""
    is_on: bool
    """Whether changes are noted now."""
    rests_until: float
    """Until then callers need not tell of changes, by a stopwatch of theirs that the times are `ahead` of."""

    def __init__(self) -> None:
        self.is_on, self.rests_until = False, inf
        self._fields: list[tuple[int, Callable[[], int]]] = []  # by how many bits each is shifted, and what says it
        self._width = 0  # bits allotted
        self._notes: list[float] = []  # times of changes, each followed by what it added to the state
        self._state = 0  # when the last change that was counted was made
        self._since = 0.0  # the time of that change
        self._began = 0.0  # when the first of the notes was made
        self._share = inf  # part of the time that it may cost to watch it
        self._ahead = 0.0  # seconds, see `rests_until`
        self._seconds: dict[int, float] = {}
        self._sums: dict[K, float] = {}  # of the states that were added up
        self.most = MOST
        self._explain: Explain[K]

    def allot(self, bits: int, read: Callable[[], int]) -> int:
        """Allot a field, before `begin`; return by how many bits it is shifted. ``read()`` returns its value."""
        shift = self._width
        self._width += bits
        self._fields.append((shift, read))
        return shift

    def begin(self, now: float, explain: Explain[K], share: float = inf, ahead: float = 0.0) -> None:
        """Count from now on."""
        self._explain, self._share, self._ahead = explain, share, ahead
        self.most = max(FEWEST, min(MOST, _AT_ONCE // max(1, len(self._fields))))
        self.go_on(now)

    def go_on(self, now: float) -> None:
        """Note changes from now on: what it missed is read from the parts."""
        self.is_on, self.rests_until = True, -inf
        self._since = self._began = now
        self._state = sum([read() << shift for shift, read in self._fields])

    def change(self, now: float, by: int) -> None:
        """Called when a part has added to its field; each field stays within its bits."""
        if self.is_on:
            notes = self._notes
            notes.append(now)
            notes.append(by)
            if len(notes) >= 2 * self.most:
                self._rest(now, self._count())
        elif now - self._ahead > self.rests_until:
            self.go_on(now)

    def _rest(self, now: float, cost: float) -> None:
        """Note nothing for a while, if that cost more than its part of the time since it began."""
        rests_until = self._began + cost / self._share
        if rests_until > now:
            self.is_on, self.rests_until = False, rests_until - self._ahead
        self._began = now

    def _count(self) -> float:
        """Count what was noted; return what that costs, in seconds."""
        cost = len(self._notes) / 2 * COST_OF_NOTE
        times, changes = [self._since, *self._notes[::2]], self._notes[1::2]
        self._notes.clear()
        states: Iterable[int] = accumulate(changes, initial=self._state)  # type: ignore[arg-type]  # each second is one
        seconds = self._seconds
        for state, spent in zip(states, map(sub, times[1:], times), strict=False):
            if spent > 0.0:
                if state in seconds:
                    seconds[state] += spent
                else:
                    seconds[state] = spent
        self._state, self._since = sum(changes, self._state), times[-1]  # type: ignore[assignment]  # as above
        if len(seconds) > self.most:
            cost += len(seconds) * len(self._fields) * COST_OF_FIELD
            add_up(self._sums, seconds, self._explain)
            seconds.clear()
        return cost

    def read(self, now: float) -> tuple[dict[int, float], dict[K, float]]:
        """Return the seconds by state until now, and the sums of the states that were added up before."""
        if self.is_on:
            self._notes += (now, 0)
            self._count()
        return dict(self._seconds), dict(self._sums)


def add_up(sums: dict[K, float], seconds: dict[int, float], explain: Explain[K]) -> None:
    """Add the seconds of states to the sums of what they count for."""
    for state, spent in seconds.items():
        for key, times in explain(state):
            sums[key] = sums.get(key, 0.0) + spent * times
