"""How long did the calls take? Their quantiles, from counts in buckets that grow by a fixed factor.

The rule: a duration is counted in the bucket i between whose bounds it lies (``GAMMA ** (i - 1) < seconds`` and
``seconds <= GAMMA ** i``), and a quantile is the middle of its bucket, so it is wrong by at most 5 % (`ERROR`) of the
true one. Durations of at most a nanosecond count as 0. The longest is kept exactly.

The invariant: its memory does not depend on how many durations were counted, but on how far apart they are: from a
nanosecond to thirty years there are some 400 buckets. It forgets nothing; the difference of two snapshots is what was
counted in between. (The formula is that of DDSketch: Masson, Rim, Lee, PVLDB 12, 2019.)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import ceil, log
from typing import Final

ERROR: Final = 0.05
"""Most that a quantile is wrong by, as a part of the true one."""
GAMMA: Final = (1 + ERROR) / (1 - ERROR)
"""The factor from one bucket to the next."""
SMALLEST: Final = 1e-9
"""Seconds; what is not longer counts as 0."""
_ZERO: Final = -(10**6)
"""The bucket of such durations; its middle is 0.0, as floats go."""
_SCALE: Final = 1 / log(GAMMA)


class Latencies:
    """Counts durations, 64 at a time: to count each by itself takes twice as long."""

    __slots__ = ("_buckets", "_durations", "_longest")

    def __init__(self) -> None:
        self._durations: list[float] = []  # not counted yet
        self._buckets: Counter[int] = Counter()  # how many are in each bucket, by its number
        self._longest = 0.0

    def add(self, seconds: float) -> None:
        """Take a duration, in seconds >= 0."""
        durations = self._durations
        durations.append(seconds)
        if len(durations) >= 64:
            self._count()

    def _count(self) -> None:
        durations = self._durations
        if durations:
            self._longest = max(self._longest, *durations)
            self._buckets.update([ceil(log(each) * _SCALE) if each > SMALLEST else _ZERO for each in durations])
            durations.clear()

    @property
    def longest(self) -> float:
        """The longest duration, in seconds; 0.0 if there is none."""
        self._count()
        return self._longest

    def snapshot(self) -> dict[int, int]:
        """Return the counts by bucket, as they are now."""
        self._count()
        return dict(self._buckets)


def quantile(buckets: Mapping[int, int], part: float) -> float:
    """Return the seconds that a part (0 to 1) of the durations does not exceed; 0.0 if there are none."""
    rank = ceil(part * sum(buckets.values()))
    for bucket in sorted(buckets):
        rank -= buckets[bucket]
        if rank <= 0:
            return 2 * GAMMA**bucket / (GAMMA + 1)
    return 0.0
