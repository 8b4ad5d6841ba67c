"""What does a call take before it starts, and give back when it has ended? Tokens and places, all at one instant.

The waiting is `TokenQueue`; here is what the item of a call says about it: its cost, its key, and, once there is a
result, what the call has really cost.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import trio

from ..._base import checks
from ..._plan.steps import Admitting, Limit
from ...policies.rate_limit import AnyLimit, broken_grain
from ..core.call_context import CALL, CallContext
from ..core.user_code import checked_key
from .limiter_keys import LimiterKeys, queue_of, seat_of, shared_of
from .place_limiter import PlaceLimiterGroup, is_full, release_place
from .rate_limiter import RateLimiter, checked_cost
from .shared_bucket import Cost, Seat

if TYPE_CHECKING:
    from .keyed_admission import KeyedAdmission

AnyAdmission: TypeAlias = "Admission | KeyedAdmission"
Seats: TypeAlias = "tuple[Seat | None, ...]"
"""For whom a call is, at each limit; None where there are no shares."""


Asked: TypeAlias = tuple[tuple[Cost, ...], Seats]
"""What a call takes of each limit, and for whom."""


class Taken(NamedTuple):
    """What a call has taken, as far as it must be known when it ends."""

    since: float
    """When it was taken."""
    costs: tuple[Cost, ...]
    """How much of each limit."""
    seats: Seats
    """For whom."""


class Admission:
    """The limits around a call, outermost first, that it meets at one instant."""

    def __init__(self, limits: tuple[Admitting, ...]) -> None:
        limits = limits[::-1]  # as they were written: of several with shares the first one decides
        limiters = [_limiter(limit) for limit in limits]
        self._line = queue_of(limiters)  # where calls wait
        self._costs_of = _asking_costs(limits, limiters)  # what an item costs, at each
        self._seats_of = _asking_keys(limits, limiters)  # for whom it is, at each
        self._places = [each for each in limiters if isinstance(each, PlaceLimiterGroup)]  # that are given back
        self._settles = [limit.settle if isinstance(limit, Limit) else None for limit in limits]  # at each limit
        self._is_settled = any(self._settles)
        self._buckets = [shared_of(each) for each in limiters]
        self._rates = [bucket for bucket, limit in zip(self._buckets, limits, strict=True) if isinstance(limit, Limit)]
        self.is_ended: bool = bool(self._places) or self._is_settled  # whether `release` and `settle` must be called
        self._is_rate = len(self._places) < len(limits)  # otherwise it waits for places only
        self._name = " and ".join(limit.describe(with_group=False) for limit in limits)  # in reports

    async def admit(self, item: Any, context: CallContext) -> Taken | None:
        """Wait until all limits let a call start, and take what it costs in the step in which this returns."""
        costs, seats = self._costs_of(item), self._seats_of(item)
        if not self._line.try_take(costs, seats):
            await self.take((costs, seats), context)
        return Taken(trio.current_time(), costs, seats) if self.is_ended else None

    def ask(self, item: Any) -> Asked:
        """Return what a call takes, at each limit, and for whom."""
        return self._costs_of(item), self._seats_of(item)

    def try_take(self, asked: Asked) -> bool:
        """Take that, if it is there and nobody waits for it; return whether it did."""
        return self._line.try_take(*asked)

    async def take(self, asked: Asked, context: CallContext) -> None:
        """Wait for it, and count that; it is taken in the step in which this returns.

        Checkpoint: if it waits.
        Cancellation: nothing was taken.
        """
        since, context.waits_for, context.has_waited = trio.current_time(), self._waits_for(), True
        before = self._line.waited_places(since)
        try:
            await self._line.take(*asked)
        finally:
            context.waits_for = CALL
            now = trio.current_time()
            seconds = now - since
            for_places = (
                self._line.waited_places(now) - before if self._line.is_mixed else seconds * (not self._is_rate)
            )
            context.counters.limited(self._name, _name_in(asked[1]), seconds, for_places)

    def taken(self, asked: Asked) -> Taken:
        """Return what must be known when a call ends that has just taken it."""
        return Taken(trio.current_time(), *asked)

    def pause(self, seconds: float, _context: CallContext) -> None:
        """Let nothing start at its rate limits for so long."""
        for bucket in self._rates:
            bucket.pause(seconds)

    def _waits_for(self) -> str:
        """Return what a call waits for, as far as that is seen when it begins to."""
        has_places = self._is_rate and not any(map(is_full, self._places))
        return "rate limit" if has_places else "places"

    def release(self) -> None:
        """Give the places of a call back, which has ended."""
        for limiter in self._places:
            release_place(limiter)

    def settle(self, taken: Taken | None, result: Any) -> None:
        """Give back, or charge, what a call that succeeded has really cost."""
        if taken is None or not self._is_settled:
            return
        costs = [
            said if settle is None else checked_settlement(bucket.meter.rate_limit, asked_of(settle, result))
            for bucket, settle, said in zip(self._buckets, self._settles, taken.costs, strict=True)
        ]
        now = trio.current_time()
        for bucket, seat, said, really in zip(self._buckets, taken.seats, taken.costs, costs, strict=True):
            bucket.settle(now, seat, taken.since, said, really)


def _limiter(limit: Admitting) -> LimiterKeys:
    limiter: LimiterKeys | None = limit.limiter
    if limiter is not None:
        return limiter
    assert isinstance(limit, Limit)
    return RateLimiter(limit.rate_limit)


@trio.lowlevel.disable_ki_protection
def asked_of(fn: Callable[[Any], Any], item: Any) -> Any:
    return fn(item)


@trio.lowlevel.disable_ki_protection
def key_asked_of(fn: Callable[[Any], Hashable], item: Any) -> Hashable:
    """Return the key of an item; refuse an awaitable, which would be another key for each call."""
    return checked_key("the key of a limit", fn(item))


def _asking_costs(limits: Sequence[Admitting], limiters: Sequence[LimiterKeys]) -> Callable[[Any], tuple[Cost, ...]]:
    """Make a function that returns what an item costs at each limiter."""
    pairs = [
        (each.cost if isinstance(each, Limit) else None, limiter)
        for each, limiter in zip(limits, limiters, strict=True)
    ]
    ones = (1,) * len(pairs)
    if all(cost is None for cost, _ in pairs):
        return lambda item: ones
    return lambda item: tuple(
        [1 if cost is None else checked_cost(limiter, asked_of(cost, item)) for cost, limiter in pairs]
    )


def _asking_keys(limits: Sequence[Admitting], limiters: Sequence[LimiterKeys]) -> Callable[[Any], Seats]:
    """Make a function that returns where an item stands at each limiter; its keys are asked for once."""
    pairs = [(each.key, limiter) for each, limiter in zip(limits, limiters, strict=True)]
    no_one: Seats = tuple(seat_of(limiter, None) for _, limiter in pairs)
    fns = {id(key): key for (key, _), seat in zip(pairs, no_one, strict=True) if key is not None and seat is not None}
    if not fns:
        return lambda item: no_one

    def seats_of(item: Any) -> Seats:
        keys = {name: key_asked_of(fn, item) for name, fn in fns.items()}
        return tuple(
            [
                seat_of(limiter, None if key is None else keys[id(key)]) if seat is not None else None
                for (key, limiter), seat in zip(pairs, no_one, strict=True)
            ]
        )

    return seats_of


def _name_in(seats: Seats) -> Hashable:
    """Return the key that a call waits for, as reports name it; None without shares."""
    seat = next((seat for seat in seats if seat is not None), None)
    return None if seat is None else seat.branch.full_name(seat.key)


def checked_settlement(rate_limit: AnyLimit, cost: Any) -> Cost:
    """Return what a call has really cost, if that may be."""
    really = checks.real_cost("Step.rate_limit", "settle", cost)
    if (rule := broken_grain(rate_limit, really)) is not None:
        raise checks.refuse(ValueError, "Step.rate_limit", "settle", rule, really)
    return really


def admission_of(limits: tuple[Admitting, ...]) -> AnyAdmission:
    """Make what calls wait for at limits, outermost first, that they meet at one instant."""
    if not any(isinstance(limit, Limit) and limit.per_key is not None for limit in limits):
        return Admission(limits)
    from .keyed_admission import KeyedAdmission  # imported only when needed: few limits are for each key

    return KeyedAdmission(limits)
