"""How many calls at once does something bear? The limit follows how long its calls take, and how many fail.

The rule: calls are judged in windows. A window is *clean* if its mean latency L is at most `target` times the floor F,
and not too many calls failed.

    clean       n grows by a tenth, and by 1 at least; it doubles where it is far above the last n that was too many
    too slow    n becomes 0.95 * n * (F / L) ** (1 / e), though at least half of n
    too many
    failures    n becomes the n of the last clean window; if it is no more than that, 0.7 of the calls that ran

Where calls queue, as many as fit without a queue is n * F / L (Little's law): there e = 1. Where they slow each other
down, latency rises more steeply than n, so less has to be taken back. How steeply is known if n has just grown: from
the last clean window, e = log(L / its L) / log(n / its n), though at least 1.

An n that was too many is tried again, for things change; but each such try costs something, so it is made rarely. From
one below it n only grows when `_PATIENCE` times as long has passed as was lost: where calls failed, the time until a
clean window; where they were slow, that part of the time of the try by which n / L was less. So tries cost a tenth of
the throughput at most, whatever a failure costs: a refusal in no time, a stall of seconds, items that wait for their
next attempt in their place.

After a window that was too slow, the one after it, the *probe*, tells how long calls take without a queue. How far the
latency fell, for how far the limit fell, is its gradient:

    g = log(L / L of the probe) / log(n / n of the probe)

With g = 1 all of it was the queue, and the floor stays; with g = 0 it was no matter of the limit (other items, a slower
service), and the floor rises half way to the latency of the probe; in between it rises by less. Half, because what is
called may have changed between the two windows; and not at all where e > 1 and the probe is too slow as well, for then
it has changed, and the next fall, with e = 1, shows more. The floor falls half way to a probe that is below it, and a
fifth of the way to any other window that is. So nothing that was once measured holds forever.

A window ends when its mean is known to a twentieth (by its standard error), so steady calls are judged after one round
of the limit, and irregular ones after more. One long call counts as three times `target` floors at most, lest it decide
alone. Too many calls failed if they are more than one in twenty, and more than chance makes of that: m = calls / 20,
and failures > m + 2.5 * sqrt(m) (Poisson). That ends a window at once. More than one in twenty, and not that many, is
not decided yet; after ten rounds it is too many.

The calls that were under way when the limit changed began under another one, and are left out, as is what ends before
no more run than the limit; only what fails after the limit grew counts at once. Which those were is counted, as if
calls ended in the order in which they began; and since a fall costs most, the failure of a call that began before it is
left out in any case. The latency of a call that ended while
the limit was not in use says nothing of it, so whatever is idle does not grow. A window ends after ten rounds in any
case, though too little is known.

The invariants: minimum <= limit <= maximum; it never waits and reads no clock: it is told of each call that ended how
long it took, how many ran, and when that was. (Additive increase and multiplicative decrease: Chiu and Jain, 1989;
latency against its floor: Brakmo and Peterson, TCP Vegas, 1995; doubling, and up to where: Jacobson, 1988; back to what
was too many, and from there with care: Ha, Rhee and Xu, CUBIC, 2008; a limit that is not in use does not grow:
RFC 7661; the idea to limit calls by a gradient of latency: Netflix's concurrency-limits, 2018.)
"""

from __future__ import annotations

from math import inf, log, sqrt
from typing import Final

from ..policies.adaptive import Adaptive

_FEWEST: Final = 10
"""Calls in a window, at least; where the limit is higher, as many as that."""
_MOST_ROUNDS: Final = 10
"""As many times that number end a window, whatever is known."""
_ROUNDS_OF_SEARCH: Final = 3
"""The same while the limit doubles: then speed is worth more than certainty."""
_CERTAIN: Final = 0.05
"""Standard error of a mean, in parts of it, that is good enough."""
_LONGEST: Final = 3.0
"""For so many times `target` floors one call counts at most."""
_FAILURES: Final = 0.05
"""Part of the calls of a window that may fail."""
_CHANCE: Final = 2.5
"""So many standard deviations more are no chance."""
_GROWTH: Final = 0.1
_SEARCH: Final = 2.0
_FAR: Final = 1.5
"""So many times the last n that was too many is far above it."""
_PATIENCE: Final = 9.0
"""So many times as long as was lost, nothing that may be too many is tried."""
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
        "_changed_at",
        "_clean",
        "_failures",
        "_fell",
        "_fits_since",
        "_lost_since",
        "_patient_until",
        "_policy",
        "_ran",
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
        self._size = float(policy.minimum)  # the limit before it is rounded
        self._ceiling = 0.0  # the last n that was too many
        self._clean: tuple[int, float] = policy.maximum, 0.0  # the limit and the latency of the last clean window
        self._slow: tuple[float, int, float] | None = None  # latency, limit and e before a probe; None unless it is one
        self._skip = 0  # calls that began under the limit before, and have not ended
        self._fell = False  # whether that was higher
        self._fits_since = -inf  # until then, after a fall, more ran than the limit
        self._changed_at = 0.0  # when the limit changed
        self._lost_since: float | None = None  # since when calls fail, until a window is clean
        self._patient_until = 0.0  # when the ceiling may be tried again
        self.limit, self.floor = policy.minimum, 0.0
        self._begin()

    def _begin(self) -> None:
        self._calls = self._failures = 0  # of this window; those that failed are among the calls
        self._ran = 0  # the most that ran when one failed
        self._answers = 0  # those of the others that ended while the limit was in use
        self._sum = self._squares = 0.0  # of their latencies

    def ended(self, seconds: float | None, running: int, now: float) -> bool:
        """Take a call that got its answer; return whether the limit changed.

        Args:
          seconds: how long it took; None if that says nothing, because it waited for something else.
          running: how many calls ran when it ended, itself included.
          now: when that was.
        """
        if running > self.limit:
            self._skip, self._fits_since = running - 1, now
            return False
        if self._skip:
            self._skip -= 1
            return False
        self._calls += 1
        if seconds is None or running < self.limit:
            return self._judge(running, now)
        longest = _LONGEST * self._policy.target * self.floor
        if longest and seconds > longest:
            seconds = longest
        self._answers += 1
        self._sum += seconds
        self._squares += seconds * seconds
        return self._judge(running, now)

    def failed(self, running: int, now: float, began: float) -> bool:
        """Take a call, begun at a time, that failed because there are too many; return whether the limit changed."""
        if running > self.limit:
            self._skip, self._fits_since = running - 1, now
            return False
        if self._skip:
            self._skip -= 1
            if self._fell:
                return False
        if began <= self._fits_since:
            return False
        self._calls += 1
        self._failures += 1
        if running > self._ran:
            self._ran = running
        return self._judge(running, now)

    def _judge(self, running: int, now: float) -> bool:
        """End the window if enough is known."""
        before, calls = self.limit, self._calls
        fewest = max(_FEWEST, before)
        most = _MOST_ROUNDS * fewest
        if self._failures > _FAILURES * calls and (calls >= most or self._are_too_many(max(calls, fewest))):
            self._fail(now)
        elif calls < fewest or self._failures > _FAILURES * calls:
            return False
        else:
            is_search = self._size > _FAR * self._ceiling
            told, enough = self._answers + self._failures, _ROUNDS_OF_SEARCH * fewest if is_search else most
            if self._answers and told >= fewest and (told >= enough or self._is_certain()):
                self._weigh(self._sum / self._answers, is_search, now)
            elif calls < most:
                return False
        self._begin()
        if self.limit == before:
            return False
        self._changed_at, self._fell = now, self.limit < before
        if self._fell:
            self._fits_since = now
        self._skip = max(running, 1) - 1  # without the one that has just ended
        return True

    def _are_too_many(self, calls: int) -> bool:
        """Whether more failed of so many calls than may, and than chance makes of that."""
        mean = _FAILURES * calls
        return self._failures > mean + _CHANCE * sqrt(mean)

    def _is_certain(self) -> bool:
        """Whether the standard error of the mean latency is small."""
        return self._squares - self._sum * self._sum / self._answers <= (_CERTAIN * self._sum) ** 2

    def _fail(self, now: float) -> None:
        """Choose the next limit after too many failures."""
        clean, _ = self._clean
        self._slow = None
        if clean < min(self.limit, self._ran):
            self._lost_since = self._changed_at
            self._cut(self._size, clean)
        else:
            self._lost_since = now
            size = min(self._size, self._ran)
            self._cut(size, _AFTER_FAILURES * size)

    def _weigh(self, latency: float, is_search: bool, now: float) -> None:
        """Choose the next limit by the mean latency of a window."""
        self._learn(latency)
        self._slow = None
        if latency > self._policy.target * self.floor:
            steepness = self._steepness(latency, now)
            self._slow = latency, self.limit, steepness
            part = _BELOW * (self.floor / latency) ** (1 / steepness)
            self._cut(self._size, self._size * max(_LEAST_CUT, part))
            return
        if self._lost_since is not None:
            self._be_patient(now, now - self._lost_since)
            self._lost_since = None
        self._clean = self.limit, latency
        size = self._size * _SEARCH if is_search else self._size + max(1.0, _GROWTH * self._size)
        is_tried_again = self._size < self._ceiling and round(size) >= round(self._ceiling)
        if not is_tried_again or now >= self._patient_until:
            self._resize(size)

    def _steepness(self, latency: float, now: float) -> float:
        """Return e for a window that was too slow; if the limit had grown, see what that has cost."""
        limit, usual = self._clean
        if not 0.0 < usual < latency or limit >= self.limit:
            return 1.0
        more, slower = self.limit / limit, latency / usual
        self._be_patient(now, max(0.0, 1 - more / slower) * (now - self._changed_at))
        return max(1.0, log(slower) / log(more))

    def _be_patient(self, now: float, lost: float) -> None:
        """Do not try the ceiling again before that is worth what was lost, in seconds."""
        self._patient_until = max(self._patient_until, now + _PATIENCE * lost)

    def _learn(self, latency: float) -> None:
        """Move the floor towards the latency of a window: by how much, the gradient says."""
        part = 0.0
        if not self.floor:
            part = 1.0
        elif latency < self.floor:
            part = _BY_OTHERS if self._slow is None else _BY_PROBE
        elif self._slow is not None:
            slow, limit, steepness = self._slow
            if steepness == 1.0 or latency <= self._policy.target * self.floor:
                fell = log(slow / latency) / log(limit / self.limit) if self.limit < limit else 0.0
                part = _BY_PROBE * (1 - min(1.0, max(0.0, fell)))
        self.floor += part * (latency - self.floor)

    def _cut(self, ceiling: float, size: float) -> None:
        self._ceiling = ceiling
        self._resize(size)

    def _resize(self, size: float) -> None:
        self._size = float(min(max(size, self._policy.minimum), self._policy.maximum))
        self.limit = round(self._size)
