"""What have the limiters in common that many tasks share? Keys with weights, groups of keys, and who waited how long.

Without a `FairShare` a limiter has no keys: what names one is ignored, and weights are refused, for they would do
nothing.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from fractions import Fraction
from typing import Any

import trio

from ..._base import checks
from ..._base.frozen import dataclass
from ..._sansio.fair_lines import Branch
from ...policies.fair_share import FairShare
from .shared_bucket import Seat, SharedBucket
from .token_queue import TokenQueue


@dataclass(frozen=True, slots=True)
class KeyWaitReport:
    """What one key got of a limiter, and how long it waited for that."""

    key: Hashable
    """The key; in a group, a tuple of the names of the groups and the key."""
    waiting: int
    """Tasks that wait now."""
    acquired: int
    """How often it was served."""
    cost: int | Fraction
    """What that cost."""
    waited: float
    """Seconds in which its tasks waited, summed over them; with the waits that are not over."""
    longest: float
    """The longest wait that is over, in seconds."""


class LimiterKeys:
    """The keys of a limiter, or of a group of it."""

    def __init__(self, shared: SharedBucket, branch: Branch | None, line: TokenQueue) -> None:
        self._shared = shared  # what is shared, and who waits for it
        self._line = line  # tasks that wait for that and for nothing else
        self._branch = branch  # the keys here; None without shares

    _kind = "limiter"  # its name in errors
    _in_a_step = "Step"  # the method of a step that takes it

    @trio.lowlevel.enable_ki_protection
    def set_weight(self, key: Hashable, weight: int | Fraction) -> None:
        """Change the weight of a key, or of the group with this name, from its next call on.

        Also for one that waits, or that was never seen: then it counts when it comes.

        Args:
          key: a key or the name of a group; hashable.
          weight: its share relative to the others beside it, an int or Fraction > 0.

        Raises:
          TypeError: if the weight is not an int or Fraction, or `key` is not hashable.
          ValueError: if the weight is not positive, or the limiter has no shares.

        Checkpoint: never (sync; inside of the trio run that uses it, if tasks wait).
        """
        where = f"{self._kind}.set_weight"
        checks.hashable(where, "key", key)
        self._shared.set_weight(self._keys(where), key, checks.weight(where, "weight", weight))

    def _seat(self, key: Hashable, method: str | None) -> Seat | None:
        """Return where a call of a method with a key stands, or one of a step (None); None without shares."""
        if self._branch is None:
            return None
        try:
            hash(key)
        except TypeError:
            if method is None:
                checks.hashable(self._in_a_step, "what key gives", key)
            checks.hashable(f"{self._kind}.{method}", "key", key)
        return Seat(self._branch, key)

    def _group(self, key: Hashable, weight: int | Fraction | None) -> Branch:
        """Return the keys of a group, after its weight was set."""
        where = f"{self._kind}.group"
        checks.hashable(where, "key", key)
        if weight is not None:
            self._shared.set_weight(self._keys(where), key, checks.weight(where, "weight", weight))
        return self._keys(where).group(key)

    def _keys(self, where: str) -> Branch:
        if self._branch is None:
            raise ValueError(f"{where}: must be called on a limiter with shares\nUse share=FairShare() to make it.")
        return self._branch


def shared_of(limiter: LimiterKeys) -> SharedBucket:
    """Return what a limiter shares."""
    return limiter._shared


def queue_of(limiters: Sequence[LimiterKeys]) -> TokenQueue:
    """Return the queue in which a call waits for all limiters at once: of one, its own."""
    if len(limiters) == 1:
        return limiters[0]._line
    buckets = tuple(limiter._shared for limiter in limiters)
    known = buckets[0].queues
    queue = known.get(buckets)
    if queue is None:
        queue = known[buckets] = TokenQueue(*buckets)
    return queue


def branch_of(limiter: LimiterKeys) -> Branch | None:
    """Return its keys; None without shares."""
    return limiter._branch


def share_of(limiter: LimiterKeys) -> FairShare[Any] | None:
    """Return the shares that it was made with."""
    return limiter._shared.share


def levels_of(limiter: LimiterKeys) -> tuple[tuple[Hashable, int | Fraction | None], ...]:
    """Return the groups in which its keys are, outermost first: the name of each, and its weight if that was set."""
    return () if limiter._branch is None else limiter._branch.levels()


def seat_of(limiter: LimiterKeys, key: Hashable) -> Seat | None:
    """Return where a call of a step with a key stands at a limiter; None without shares."""
    return limiter._seat(key, None)


def checked_share(where: str, share: FairShare[Any] | None) -> FairShare[Any] | None:
    """Check the shares of a limiter."""
    if share is not None:
        checks.instance(where, "share", share, FairShare, "Use FairShare({key: weight}).")
        if share.cost is not None:
            raise ValueError(
                f"{where}: share must have no cost: what a call costs is said when it is acquired\n"
                "Use acquire(cost=) or Step.rate_limit(cost=)."
            )
    return share


def key_waits(shared: SharedBucket, now: float) -> tuple[KeyWaitReport, ...]:
    """Return what is known of the keys of a limiter, those that waited longest first."""
    if shared.top is None:
        return ()
    return tuple(
        KeyWaitReport(each.key, each.waiting, each.acquired, each.cost, each.waited(now), each.longest)
        for each in shared.waits.greatest(now)
    )
