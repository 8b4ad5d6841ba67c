"""May a call that needs tokens of several buckets start now, while others wait for tokens of some of them?

The rule: it takes what it costs from all its buckets in one instant, the first at which all of them have it, so that it
counts at each of them when it starts. And it stands back behind each of those who came before that would then start
later than without it. So who waits for another bucket holds up nobody at this one, as long as what it needs here will
be there in time; and whoever came first of all goes as soon as the buckets allow, whatever others take: nobody starves.

Calls that need the same buckets are served in the order in which they came, by this rule itself: the one that came
first waits for one of those, and to take anything from that delays it. With one bucket it is first come, first served.

It does not know who waits: it is told the claims of those who came before. It takes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import TypeAlias

from .token_bucket import TokenBucket

Claim: TypeAlias = Mapping[TokenBucket, int | Fraction]
"""What a call costs at each of its buckets."""


def ready_at(now: float, claim: Claim) -> float:
    """Say from when on all its buckets have the tokens of a call, if no other starts before."""
    return max(bucket.when(now, cost) for bucket, cost in claim.items())


def may_start(now: float, claim: Claim, earlier: Iterable[Claim]) -> float | Claim | None:
    """Answer None if a call may start now; else when to ask again, or the claim of who must have gone before.

    Of those who came before it names the first that would be delayed. As long as that one does not become later, the
    answer stays what it is: to start later would delay it as much, or more, for what a full bucket gains is lost.
    """
    for other in earlier:
        if delays(now, claim, other):
            return other
    ready = ready_at(now, claim)
    return None if ready <= now else ready


def delays(now: float, claim: Claim, other: Claim) -> bool:
    """Tell whether a call, if it takes its tokens first, lets another start later than that could without it."""
    shared = claim.keys() & other.keys()
    if not shared:
        return False
    ready = ready_at(now, other)
    return any(bucket.when(now, other[bucket], behind=claim[bucket]) > ready for bucket in shared)
