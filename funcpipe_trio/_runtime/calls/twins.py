"""How does a simulation get a limiter of its own for each that a plan shares? With the same groups and weights."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeAlias

from ..._sansio.fair_lines import Branch
from ...policies.fair_share import FairShare
from .limiter_keys import LimiterKeys, branch_of, share_of, shared_of
from .place_limiter import PlaceLimiter, PlaceLimiterGroup
from .rate_limiter import RateLimiter, RateLimiterGroup

Limiter: TypeAlias = RateLimiter | PlaceLimiter


def sharing(limiter: LimiterKeys) -> object:
    """Return what is the same for a limiter and its groups."""
    return shared_of(limiter)


def sharing_keys(limiter: LimiterKeys) -> object:
    """Return what is the same for those in which a key is the same key."""
    return branch_of(limiter) or shared_of(limiter)


def twin(limiter: LimiterKeys, setting: Any, share: FairShare[Any] | None) -> Limiter:
    """Return a new limiter under another limit, or with so many places; without other shares, keys weigh as now."""
    kind: Any = RateLimiter if isinstance(limiter, RateLimiterGroup) else PlaceLimiter
    made: Limiter = kind(setting, share)
    old, new = shared_of(limiter).top, shared_of(made).top
    if old is not None and new is not None and share == share_of(limiter):
        new.copy_weights(old)
    return made


def same_group(limiter: LimiterKeys, made: Limiter) -> RateLimiterGroup | PlaceLimiterGroup:
    """Return the group of a new limiter that has the name of one of the old."""
    group: RateLimiterGroup | PlaceLimiterGroup = made
    for key in _name(branch_of(limiter)):
        group = group.group(key)
    return group


def known_keys(limiter: LimiterKeys) -> tuple[Hashable, ...]:
    """Return the keys of a limiter, or of a group of one, whose weights its `FairShare` names."""
    share, name = share_of(limiter), _name(branch_of(limiter))
    weights = () if share is None else tuple(share.weights)
    if not name:
        return weights
    return tuple([each[-1] for each in weights if isinstance(each, tuple) and each[:-1] == name])


def _name(branch: Branch | None) -> tuple[Hashable, ...]:
    return () if branch is None else branch.name
