"""The stage of an operation that keeps items until the clock releases them: what does it wait for, in which order?

The pacer (`_sansio.pacing`) stands between the stage's inlet and its chain, as an inlet itself: a pull takes what comes
upstream, if the pacer takes any, and gives what is due. So the chain behind it is driven as in every stage, and a value
that is due is handed out only in a pull, when there is room for it. While there is none the stage goes on taking what
the pacer takes: the time of an item counts from when it came, and the one item that a debounce keeps is always the
newest. (A throttle takes no more then: the time of its items counts from when the item before them left.)

The failure of the input stands behind what the pacer keeps, as the end does: what came before it goes out first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import trio

from ..._base import checks
from ..._base.shown import named
from ..._plan import timing as plan
from ..._sansio.pacing import Debouncer, Delayer, Pacer, Sampler, Throttler
from ...policies.rate_limit import AnyLimit, broken_rule
from ..core.protocols import Inlet, Receiver, worth_a_pull
from ..core.signals import END, ENDED, IDLE, PENDING, READY, FailureMark, Readiness
from ..core.turn import Turn
from ..core.user_code import not_awaitable
from .chain import FULL, STARVED, BurstEnd, Chain, Ends
from .stage import Stage


class Pacing:
    """A pacer as the inlet of its stage's chain."""

    takes_ahead = True
    """Whether the time of an item counts from when it came, so that it is taken although there is no room for it."""

    def __init__(self, pacer: Pacer, source: Inlet) -> None:
        self.pacer = pacer  # what decides when an item may go
        self.source = source  # where items come from
        self.chain: Chain  # what takes from here
        self.receiver: Receiver  # its stage
        self.exhausted = False  # read to its end
        self.taken = 0  # items that came from the source
        self.values: Iterator[Any] = iter(())  # those of the source, once it has begun
        self._over = False  # nothing more is taken; what is kept has not gone out

    @property
    def failure(self) -> FailureMark | None:
        return self.source.failure

    def begin(self, now: float) -> None:
        """Set up the source and the pacer."""
        self.values = self.source.items()
        self.pacer.begin(now)

    def start(self) -> None:
        """Do nothing: the stage starts what is upstream."""

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        pacer, now = self.pacer, self.chain.now
        while True:
            at = now()
            if pacer.deadline > at and self.can_take():
                self.take(at)
            if pacer.deadline <= at:
                yield pacer.pop(at)
            elif self._over and not pacer.items:
                break
            else:
                yield PENDING
        self.exhausted = self.source.exhausted

    @property
    def has_place(self) -> bool:
        """Whether the pacer would take one more."""
        return not self._over and not self.pacer.is_full

    def can_take(self) -> bool:
        """Whether there is something upstream, and the pacer takes it."""
        return self.has_place and worth_a_pull(self.source)

    def take(self, now: float) -> None:
        """Take what comes next: an item, or the end."""
        item = next(self.values, END)
        if item is END:
            self._over = True
            self.pacer.end()
        elif item is not PENDING:
            self.taken += 1
            self.pacer.add(item, 1, now)

    def state(self) -> Readiness:
        if self.pacer.deadline <= self.chain.now() or self.can_take():
            return READY
        return ENDED if self._over and not self.pacer.items else IDLE

    def release(self, *, parking: bool = False) -> None:
        self.source.release(parking=parking)

    def close(self, reason: str) -> None:
        self.chain.close_stream(self.values)  # an iterable has an iterator to close, after what was made of its items
        self.source.close(reason)
        if self._over and not self.exhausted and self.source.exhausted and self.source.failure is not None:
            self.exhausted = True
            self.chain.host.ledger.unread(self.source.failure, reason)  # it stood behind what is given up here


class Throttling(Pacing):
    """A throttle as the inlet of its stage's chain.

    An item that may pass at once is never kept. No item is taken while there is no room, so the cost function is not
    called then.
    """

    takes_ahead = False
    """The time of an item counts from when the one before it left."""

    def __init__(self, operation: plan.Throttle, source: Inlet) -> None:
        super().__init__(Throttler(operation.rate_limit), source)
        self.pacer: Throttler  # as above; it can also pass an item at once
        self._name = operation.name  # as errors call it
        self._cost_of = operation.cost  # called with each item; None: each costs 1
        self._rate_limit = operation.rate_limit  # says what an item may cost

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        pacer, now, cost_of = self.pacer, self.chain.now, self._cost_of
        for item in self.values:
            if item is PENDING:
                yield PENDING
                continue
            self.taken += 1
            if pacer.credit:  # true in most pulls; asking `passes` each time adds 1.2 us to an item, the credit 0.5
                pacer.credit -= 1
                yield item
                continue
            try:
                cost = 1 if cost_of is None else self._cost(cost_of, item)
            except BaseException as error:  # noqa: ASYNC103  # `failing` raises
                self.chain.failing(error, self._name, self.taken - 1, item)
            if cost_of is None and pacer.passes(now()):
                yield item
                continue
            pacer.add(item, cost, now())
            while pacer.deadline > now():
                yield PENDING
            yield pacer.pop(now())
        self._over, self.exhausted = True, self.source.exhausted

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _cost(self, fn: Callable[[Any], Any], item: Any) -> int | Fraction:
        """Return what an item costs, checked."""
        return _checked(self._name, not_awaitable(self._name, fn(item)), self._rate_limit)

    def state(self) -> Readiness:
        if not self.pacer.items:
            return self.source.state()
        return READY if self.pacer.deadline <= self.chain.now() else IDLE

    def release(self, *, parking: bool = False) -> None:
        if self.pacer.owes:
            self.pacer.settle(self.chain.now())
        self.source.release(parking=parking)


class PacedStage(Stage):
    """A stage that takes items when they come, and passes them on when the clock releases them."""

    def __init__(self, ends: Ends, operation: plan.Paced, *, kind: str = "sync") -> None:
        self.pacing = _pacing_of(operation, ends.inlet)  # the inlet of its chain
        super().__init__(Chain(ends._replace(inlet=self.pacing)), kind=kind)
        self.pacing.chain = self.chain
        ends.inlet.receiver = self
        self._is_pacing = False
        """Whether it waits for the clock: that counts as work, because it may be what limits the whole run."""

    @property
    def upstream(self) -> Inlet:
        return self.pacing.source

    @property
    def dropped(self) -> int:
        return self.pacing.pacer.superseded

    def on_input(self) -> None:
        if self.parked_for is FULL:
            if self.pacing.takes_ahead and self.pacing.can_take():
                self.wake()
        else:
            super().on_input()

    def may_take(self, reason: BurstEnd) -> bool:
        return self.pacing.has_place and (reason is STARVED or self.pacing.takes_ahead)

    async def work(self) -> None:
        self.pacing.begin(self.chain.began)
        await super().work()

    async def wait_input(self) -> None:
        pacer = self.pacing.pacer
        if pacer.deadline == math.inf:  # it keeps nothing: a scope costs 4 us
            await super().wait_input()
            return
        if worth_a_pull(self.pacing):  # due since the burst ended: at a fast pace, again and again for a whole turn
            await self.breathe()
            return
        before, waiting, self._is_pacing = self.waited_input, self._no_input, pacer.is_full
        if self._is_pacing:
            self._no_input = 0  # it is at work
        try:
            with trio.move_on_at(pacer.deadline):
                await self.park(STARVED)
        finally:
            self._no_input = waiting
            if self._is_pacing:
                self.waited_input, self._is_pacing = before, False

    def waits_for(self) -> str | None:
        return "the clock" if self._is_pacing else super().waits_for()

    def waited(self, now: float) -> tuple[float, float]:
        return (self.waited_input, self.waited_room) if self._is_pacing else super().waited(now)

    async def wait_room(self) -> None:
        if self.pacing.takes_ahead and self._take_ahead():
            await self.breathe()
        else:
            await super().wait_room()

    def _take_ahead(self) -> bool:
        """Take what has come, although nothing can leave; return whether more is there than one turn may take."""
        turn = Turn(self.chain.host.turn_seconds)
        turn.ends_at = self.chain.turn.ends_at  # bursts have used a part of the time already
        while not turn.is_over() and self.pacing.can_take():
            self.pacing.take(self.chain.now())
            turn.left -= 1
        self.pacing.release()
        return self.pacing.can_take()

    def held(self) -> list[Any]:
        return [*self.pacing.pacer.clear(), *super().held()]


def _pacing_of(operation: plan.Paced, source: Inlet) -> Pacing:
    if isinstance(operation, plan.Throttle):
        return Throttling(operation, source)
    if isinstance(operation, plan.Debounce):
        most = math.inf if operation.max_wait is None else operation.max_wait
        return Pacing(Debouncer(operation.delay, most), source)
    if isinstance(operation, plan.Sample):
        return Pacing(Sampler(operation.period), source)
    assert isinstance(operation, plan.Delay)
    return Pacing(Delayer(operation.seconds, operation.max_items), source)


def _checked(name: str, cost: Any, limit: AnyLimit) -> int | Fraction:
    """Check what a cost function returned, and make it exact."""
    where, rule = f"throttle {named(name)}", "be a finite number > 0"
    if isinstance(cost, bool) or not isinstance(cost, int | float | Fraction):
        raise checks.refuse(TypeError, where, "cost", rule, cost)
    if not 0 < cost < math.inf:
        raise checks.refuse(ValueError, where, "cost", rule, cost)
    exact = cost if isinstance(cost, int) else Fraction(cost)
    if (broken := broken_rule(limit, exact)) is not None:
        raise checks.refuse(ValueError, where, "cost", broken, cost)
    return exact
