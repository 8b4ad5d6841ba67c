"""How many calls at once does something bear? The limit follows how long its calls take, and how many fail.

The rule: calls are judged in windows. A window is *clean* if its mean latency L is at most `target` times the floor F,
and at most one call in twenty failed, or one alone.

    clean       n grows by a tenth, and by 1 at least; it doubles where it is far above the last n that was too many
    too slow    n becomes 0.95 * n * F / L, though at least half of n
    too many
    failures    n becomes 0.7 of the calls that ran

Where calls queue, as many as fit without a queue is n * F / L (Little's law), so the limit after a window that was too
slow is just below that, and the window after it, the *probe*, tells how long calls take without a queue. How far the
latency fell, for how far the limit fell, is its gradient:

    e = log(L / L of the probe) / log(n / n of the probe)

With e = 1 all of it was the queue, and the floor stays; with e = 0 it was no matter of the limit (other items, a slower
service), and the floor rises half way to the latency of the probe; in between it rises by less. Half, because what is
called may have changed between the two windows. The floor falls half way to a probe that is below it, and a fifth of
the way to any other window that is. So nothing that was once measured holds forever.

A window ends when its mean is known to a tenth (by its standard error), so steady calls are judged after one round of
the limit, and irregular ones after more. One long call counts as three times `target` floors at most, lest it decide
alone. The calls that were under way when the limit changed began under the old one, and are left out. The latency of a
call that ended while the limit was not in use says nothing of it, so whatever is idle does not grow; a window in which
too few are left is given up after ten rounds.

The invariant: minimum <= limit <= maximum. It never waits and reads no clock: it is told of each call that ended how
long it took, and how many ran. (Additive increase and multiplicative decrease: Chiu and Jain, 1989; latency against
its floor: Brakmo and Peterson, TCP Vegas, 1995; doubling, and up to where: Jacobson, 1988; a limit that is not in use
does not grow: RFC 7661; the idea to limit calls by a gradient of latency: Netflix's concurrency-limits, 2018.)
"""

from __future__ import annotations

from math import log
from typing import Final

from ..policies.adaptive import Adaptive

_FEWEST: Final = 10
"""Calls in a window, at least; where the limit is higher, as many as that."""
_MOST_ROUNDS: Final = 10
"""As many times that number end a window, whatever is known."""
_ROUNDS_OF_SEARCH: Final = 3
"""The same while the limit doubles: then speed is worth more than certainty."""
_CERTAIN: Final = 0.1
"""Standard error of a mean, in parts of it, that is good enough."""
_LONGEST: Final = 3.0
"""For so many times `target` floors one call counts at most."""
_FAILURES: Final = 0.05
"""Part of the calls of a window that may fail."""
_GROWTH: Final = 0.1
_SEARCH: Final = 2.0
_FAR: Final = 1.5
"""So many times the last n that was too many is far above it."""
_BELOW: Final = 0.95
_AFTER_FAILURES: Final = 0.7
_LEAST_CUT: Final = 0.5
_BY_PROBE: Final = 0.5
"""Part of the difference by which the floor moves to a probe, at most."""
_BY_OTHERS: Final = 0.2
"""Part of the difference by which it falls to any other window below it."""


class AdaptiveLimit:
    """The limit of one stage."""

    __slots__ = (
        "_answers",
        "_calls",
        "_ceiling",
        "_failures",
        "_policy",
        "_size",
        "_skip",
        "_slow",
        "_squares",
        "_sum",
        "floor",
        "limit",
    )

    limit: int
    """So many calls at once."""
    floor: float
    """Seconds that a call takes without a queue; 0.0 before it is known."""

    def __init__(self, policy: Adaptive) -> None:
        self._policy = policy
        self._size = float(policy.minimum)  # the limit before it is rounded down
        self._ceiling = 0.0  # the last n that was too many
        self._slow: tuple[float, int] | None = None  # the latency and the limit before a probe; None unless it is one
        self._skip = 0  # calls that began under the limit before, and have not ended
        self.limit, self.floor = policy.minimum, 0.0
        self._begin()

    def _begin(self) -> None:
        self._calls = self._failures = 0  # of this window; those that failed are among the calls
        self._answers = 0  # those of the others that ended while the limit was in use
        self._sum = self._squares = 0.0  # of their latencies

    def ended(self, seconds: float | None, running: int) -> bool:
        """Take a call that got its answer; return whether the limit changed.

        Args:
          seconds: how long it took; None if that says nothing, because it waited for something else.
          running: how many calls ran when it ended, itself included.
        """
        if self._skip:
            self._skip -= 1
            return False
        self._calls += 1
        if seconds is None or running < self.limit:
            return self._judge(running)
        longest = _LONGEST * self._policy.target * self.floor
        if longest and seconds > longest:
            seconds = longest
        self._answers += 1
        self._sum += seconds
        self._squares += seconds * seconds
        return self._judge(running)

    def failed(self, running: int) -> bool:
        """Take a call that failed because there are too many; return whether the limit changed."""
        if self._skip:
            self._skip -= 1
            return False
        self._calls += 1
        self._failures += 1
        return self._judge(running)

    def _judge(self, running: int) -> bool:
        """End the window if enough is known."""
        before, fewest = self.limit, max(_FEWEST, self.limit)
        if self._calls < fewest:
            return False
        is_search = self._size > _FAR * self._ceiling
        rounds = _ROUNDS_OF_SEARCH if is_search else _MOST_ROUNDS
        told = self._answers + self._failures
        if self._failures > max(1.0, _FAILURES * self._calls):
            self._cut(min(self._size, running), _AFTER_FAILURES)
            self._slow = None
        elif told >= rounds * fewest or (told >= fewest and self._is_certain()):
            self._weigh(self._sum / self._answers, is_search)
        elif self._calls < _MOST_ROUNDS * fewest:
            return False
        self._begin()
        if self.limit == before:
            return False
        self._skip = running - 1  # without the one that has just ended
        return True

    def _is_certain(self) -> bool:
        """Whether the standard error of the mean latency is small."""
        return self._squares - self._sum * self._sum / self._answers <= (_CERTAIN * self._sum) ** 2

    def _weigh(self, latency: float, is_search: bool) -> None:
        """Choose the next limit by the mean latency of a window."""
        self._learn(latency)
        self._slow = None
        if latency > self._policy.target * self.floor:
            self._slow = latency, self.limit
            self._cut(self._size, max(_LEAST_CUT, _BELOW * self.floor / latency))
        elif is_search:
            self._resize(self._size * _SEARCH)
        else:
            self._resize(self._size + max(1.0, _GROWTH * self._size))

    def _learn(self, latency: float) -> None:
        """Move the floor towards the latency of a window: by how much, the gradient says."""
        part = 0.0
        if not self.floor:
            part = 1.0
        elif latency < self.floor:
            part = _BY_OTHERS if self._slow is None else _BY_PROBE
        elif self._slow is not None:
            slow, limit = self._slow
            fell = log(slow / latency) / log(limit / self.limit) if self.limit < limit else 0.0
            part = _BY_PROBE * (1 - min(1.0, max(0.0, fell)))
        self.floor += part * (latency - self.floor)

    def _cut(self, size: float, part: float) -> None:
        self._ceiling = size
        self._resize(size * part)

    def _resize(self, size: float) -> None:
        self._size = min(max(size, self._policy.minimum), self._policy.maximum)
        self.limit = int(self._size)
