"""Which meter does a limit need, and what becomes of it under a limit of the other kind?"""

from __future__ import annotations

from ..policies.rate_limit import AnyLimit, RateLimit
from .meter import Meter
from .token_bucket import TokenBucket


def meter_of(limit: AnyLimit) -> Meter:
    """Return a new meter, from which nothing was taken."""
    if isinstance(limit, RateLimit):
        return TokenBucket(limit)
    from .rolling_window import RollingWindow  # imported only when needed: most limits are rates

    return RollingWindow(limit)


def meter_under(meter: Meter, now: float, limit: AnyLimit) -> Meter:
    """Return what continues a meter under another limit: itself, or another if the limit is of the other kind."""
    if type(limit) is type(meter.rate_limit):
        meter.set_rate(now, limit)
        return meter
    other = meter_of(limit)
    other.follow(now, meter)
    return other
