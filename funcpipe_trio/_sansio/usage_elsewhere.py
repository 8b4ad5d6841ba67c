"""How much of its places does a pool use whose items may wait without one? As `usage`, with more workers than places.

The rule: an item that waits elsewhere uses no place, and its worker waits for nobody. So there may be more workers than
places. Of those that wait for something to take, or for room, only as many count as there are places that are not in
use; the others are hidden.

To those behind the pool an item elsewhere is at work: they wait for it, and not for what the pool might take instead.
"""

from __future__ import annotations

from .blame import PoolField
from .state_times import StateTimes
from .usage import Usage


class UsageElsewhere(Usage):
    """Places, of which an item may give up its own for a time."""

    __slots__ = ("_away", "_hidden")

    def __init__(self, state_times: StateTimes[tuple[int, int]]) -> None:
        self._away = 0  # items elsewhere
        self._hidden = {True: 0, False: 0}  # workers that wait and do not count, by whether they are starved
        super().__init__(state_times)

    def leave(self, now: float) -> None:
        """Called when an item gives up its place, and its worker waits elsewhere."""
        self._away += 1
        self._in_use -= 1
        self._in_use_times -= now - self._began
        self._level(now)

    def come_back(self, now: float) -> None:
        """Called when it has a place again, or no longer needs one."""
        self._away -= 1
        self._in_use += 1
        self._in_use_times += now - self._began
        self._level(now)

    def hire(self, now: float) -> None:
        super().hire(now)
        self._level(now)

    def dismiss(self, now: float) -> None:
        super().dismiss(now)
        self._level(now)

    def park(self, now: float, starved: bool, in_line: bool = False) -> None:
        super().park(now, starved, in_line)
        self._level(now)

    def unpark(self, now: float, starved: bool, in_line: bool = False) -> None:
        if self._hidden[starved]:
            self._hidden[starved] -= 1
            super().hire(now)
        else:
            super().unpark(now, starved, in_line)
        self._level(now)

    def resize(self, now: float, places: int) -> None:
        super().resize(now, places)
        self._level(now)

    def _level(self, now: float) -> None:
        """Hide waiting workers for which there is no place, those that starve first, or show some again."""
        while self._in_use + self._starved + self._blocked > self._places and self._starved + self._blocked:
            starved = self._starved > 0
            super().unpark(now, starved)
            super().dismiss(now)
            self._hidden[starved] += 1
        while self._in_use + self._starved + self._blocked < self._places and any(self._hidden.values()):
            starved = not self._hidden[False]
            self._hidden[starved] -= 1
            super().hire(now)
            super().park(now, starved)

    def _field(self) -> int:
        return super()._field() + (self._away << PoolField.IN_USE)
