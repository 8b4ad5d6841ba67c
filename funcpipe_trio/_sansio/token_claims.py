"""May a call that needs tokens of several buckets start now, while others wait for tokens of some of them?

The rule: it takes what it costs from all its buckets at once, as soon as all of them have it, so that it counts at each
of them when it starts. And it waits behind each earlier call that would then start later than without it. So a call
that waits for another bucket holds up no call at this one, as long as what it needs here will be there in time; and the
first call of all starts as soon as the buckets allow, whatever others take: no call starves.

From this rule it follows that calls that need the same buckets are served in the order in which they came: the first
one waits for one of those buckets, and taking anything from that one delays it. With one bucket it is first come, first
served.

It does not know the waiting calls: it is told the claims of the earlier ones. It takes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Protocol, TypeAlias


class Bucket(Protocol):
    """What says when tokens will be there (see `Meter.when`)."""

    def when(self, now: float, cost: int | Fraction, *, behind: int | Fraction = 0) -> float:
        """Return the earliest time at which a call of that cost may start, now or behind another."""
        ...


Claim: TypeAlias = Mapping[Bucket, int | Fraction]
"""What a call costs at each of its buckets."""


def ready_at(now: float, claim: Claim) -> float:
    """Return the earliest time at which all its buckets have the tokens of a call, if no other starts before."""
    return max(bucket.when(now, cost) for bucket, cost in claim.items())


def may_start(now: float, claim: Claim, earlier: Iterable[Claim]) -> float | Claim | None:
    """Return None if a call may start now; otherwise when to ask again, or the claim of the call that must go first.

    That is the first of the earlier calls that would be delayed. As long as that one does not become later, the answer
    stays the same: starting later would delay it as much or more, since what a full bucket gains is lost.
    """
    for other in earlier:
        if delays(now, claim, other):
            return other
    ready = ready_at(now, claim)
    return None if ready <= now else ready


def delays(now: float, claim: Claim, other: Claim) -> bool:
    """Return whether a call that takes its tokens first delays another call."""
    shared = claim.keys() & other.keys()
    if not shared:
        return False
    ready = ready_at(now, other)
    return any(bucket.when(now, other[bucket], behind=claim[bucket]) > ready for bucket in shared)
