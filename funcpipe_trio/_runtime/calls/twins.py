"""How does a simulation get a limiter of its own for each that a plan shares? With the same groups and weights."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeAlias

from ..._sansio.fair_lines import Branch
from .limiter_keys import LimiterKeys, branch_of, shared_of
from .place_limiter import PlaceLimiter, PlaceLimiterGroup
from .rate_limiter import RateLimiter, RateLimiterGroup

Limiter: TypeAlias = RateLimiter | PlaceLimiter


def sharing(limiter: LimiterKeys) -> object:
    """Return what is the same for a limiter and its groups."""
    return shared_of(limiter)


def twin(limiter: LimiterKeys, setting: Any) -> Limiter:
    """Return a new limiter under another limit, or with so many places, in which keys have the weights of now."""
    shared = shared_of(limiter)
    kind: Any = RateLimiter if isinstance(limiter, RateLimiterGroup) else PlaceLimiter
    made: Limiter = kind(setting, shared.share)
    new = shared_of(made)
    if shared.top is not None and new.top is not None:
        new.top.copy_weights(shared.top)
    return made


def same_group(limiter: LimiterKeys, made: Limiter) -> RateLimiterGroup | PlaceLimiterGroup:
    """Return the group of a new limiter that has the name of one of the old."""
    group: RateLimiterGroup | PlaceLimiterGroup = made
    for key in _name(branch_of(limiter)):
        group = group.group(key)
    return group


def known_keys(limiter: LimiterKeys) -> tuple[Hashable, ...]:
    """Return the keys of a limiter, or of a group of one, whose weights its `FairShare` names."""
    share, name = shared_of(limiter).share, _name(branch_of(limiter))
    weights = () if share is None else tuple(share.weights)
    if not name:
        return weights
    return tuple([each[-1] for each in weights if isinstance(each, tuple) and each[:-1] == name])


def _name(branch: Branch | None) -> tuple[Hashable, ...]:
    return () if branch is None else branch.name
