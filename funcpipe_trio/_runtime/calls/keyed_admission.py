"""Limits for each key, at a call: which call of a key is next, and how does it also meet the limits that all share?

Each key has its own meters and its own line. Only the first call of that line asks: it waits until the tokens of its
key are there. Nobody else can take them, so they are as good as its own, without being taken. Then it meets the limits
directly beside it, if there are any, as any call does, and takes the tokens of all in the step in which it goes on:
both bounds are exact, and nothing is held meanwhile. If the tokens of its key are gone before that (a settlement, a
pause), it leaves that line and waits for them again. Limits for other keys are beside it, too: their lines come next.

Which keys are remembered is `_sansio.limited_keys`. A key for which there is no room waits for some: the first call of
its line does, in the order in which the keys came; unless a call that went on before brings its key back, which takes
the room of another: then it goes on at once.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from typing import Any

import trio

from ..._base import checks
from ..._plan.steps import Admitting, Limit
from ..._sansio.limited_keys import LimitedKey, LimitedKeys
from ..core.call_context import CALL, NONE, CallContext
from ..core.wait_queue import Arrivals, Waiter, WaitQueue
from .admission import AnyAdmission, admission_of, asked_of, checked_settlement, key_asked_of
from .rate_limiter import check_cost
from .shared_bucket import Cost


class _Asked:
    """A call, and what it takes."""

    __slots__ = ("costs", "key", "name", "rest", "rest_taken", "since")

    def __init__(self, name: Hashable, costs: tuple[Cost, ...], rest: Any) -> None:
        self.name = name  # of its key
        self.costs = costs  # of each limit for each key
        self.rest = rest  # what it takes of the limits beside these
        self.key: LimitedKey  # with its meters, once it has entered
        self.since = -inf  # when it took them
        self.rest_taken: Any = None  # what must be known of the rest when it ends


class KeyedAdmission:
    """Limits around a call that it meets at one instant, some of which are for each key."""

    def __init__(self, limits: tuple[Admitting, ...]) -> None:
        first = next(each for each in limits[::-1] if isinstance(each, Limit) and each.per_key is not None)
        mine = [each for each in limits if isinstance(each, Limit) and each.per_key is first.per_key][::-1]
        rest = tuple([each for each in limits if not any(each is one for one in mine)])
        assert first.per_key is not None
        self._limits = mine  # as they were written
        self._key_of = first.per_key  # called with each item
        self._keys = LimitedKeys(first.max_keys, [each.rate_limit for each in mine])
        self._rest: AnyAdmission | None = admission_of(rest) if rest else None  # the limits beside these
        self._lines: dict[LimitedKey, WaitQueue[Waiter]] = {}  # of the keys of which a call waits
        self._arrivals: Arrivals[Waiter] = Arrivals()  # the first calls of keys for which there is no room
        self._room: WaitQueue[Waiter] = WaitQueue(self._arrivals)  # where these wait for some
        self._roomless: dict[LimitedKey, Waiter] = {}  # the same calls, by key
        self._beside: dict[LimitedKey, tuple[_Asked, trio.CancelScope]] = {}  # first calls that wait for the rest
        settles = any(each.settle is not None for each in mine)
        self.is_ended: bool = settles or (self._rest is not None and self._rest.is_ended)
        self._name = " and ".join(each.describe() for each in mine)  # in reports

    async def admit(self, item: Any, context: CallContext) -> _Asked | None:
        """Wait until all limits let a call start, and take what it costs in the step in which this returns."""
        asked = self.ask(item)
        if not self.try_take(asked):
            await self.take(asked, context)
        if context.limited is NONE:
            context.limited = {}
        self.note(asked, context)
        return self.taken(asked) if self.is_ended else None

    def note(self, asked: _Asked, context: CallContext) -> None:
        """Note which key a call has met, should it fail and tell it to pause."""
        context.limited[self] = context.number, asked.key
        if isinstance(self._rest, KeyedAdmission):
            self._rest.note(asked.rest, context)

    def ask(self, item: Any) -> _Asked:
        """Return what a call takes."""
        name = key_asked_of(self._key_of, item)
        costs = tuple([1 if each.cost is None else _cost(each, item) for each in self._limits])
        return _Asked(name, costs, None if self._rest is None else self._rest.ask(item))

    def try_take(self, asked: _Asked) -> bool:
        """Take that, if it is there and nobody waits for it; return whether it did."""
        now = trio.current_time()
        try:
            key = asked.key = self._keys.enter(asked.name)
        except TypeError:
            checks.hashable("Step.rate_limit", "what per_key gives", asked.name)
            raise
        try:
            if (
                key in self._lines
                or not (key.meters or (not self._room and self._keys.make_room(key, now) is None))
                or key.ready_at(now, asked.costs) > now
                or not (self._rest is None or self._rest.try_take(asked.rest))
            ):
                return False
            self._spend(asked, now)
            return True
        finally:
            self._leave(key, now)

    async def take(self, asked: _Asked, context: CallContext) -> None:
        """Wait for it, and count that; it is taken in the step in which this returns.

        Checkpoint: if it waits.
        Cancellation: the place in line is given back, and nothing was taken.
        """
        key = asked.key = self._keys.enter(asked.name)
        line, waiter = self._lines.setdefault(key, WaitQueue()), Waiter()
        line.order.add(waiter)
        try:
            await self._wait_turn(line, waiter, asked, context)
            while self._rest is not None and not await self._take_rest(self._rest, asked, context):
                await self._wait_turn(line, waiter, asked, context)
            self._spend(asked, trio.current_time())
        finally:
            line.leave(waiter)
            if not line:
                del self._lines[key]
            self._leave(key, trio.current_time())

    def taken(self, asked: _Asked) -> _Asked:
        """Return what must be known when a call ends that has just taken it."""
        if self._rest is not None:
            asked.rest_taken = self._rest.taken(asked.rest)
        return asked

    def pause(self, seconds: float, context: CallContext) -> None:
        """Let nothing start for so long: of the key of the call that has failed, and at the limits beside."""
        if self._rest is not None:
            self._rest.pause(seconds, context)
        number, key = context.limited.get(self, (None, None))
        if number == context.number:
            now, key = trio.current_time(), self._keys.again(key)
            for meter in key.meters:
                meter.pause(now, seconds)
            self._changed(key, now)

    def release(self) -> None:
        """Give back the places of a call that has ended."""
        if self._rest is not None:
            self._rest.release()

    def settle(self, taken: _Asked | None, result: Any) -> None:
        """Give back, or charge, what a call that succeeded has really cost."""
        if taken is None:
            return
        more = [
            0 if limit.settle is None else checked_settlement(limit.rate_limit, asked_of(limit.settle, result)) - cost
            for limit, cost in zip(self._limits, taken.costs, strict=True)
        ]
        if self._rest is not None:
            self._rest.settle(taken.rest_taken, result)  # first: what is refused there settles nothing here
        if any(more):
            now, key = trio.current_time(), self._keys.again(taken.key)
            for meter, each in zip(key.meters, more, strict=True):
                if each < 0:
                    meter.give_back(now, -each, taken.since)
                else:
                    meter.owe(now, each)
            self._changed(key, now)

    async def _wait_turn(self, line: WaitQueue[Waiter], waiter: Waiter, asked: _Asked, context: CallContext) -> None:
        """Wait until a call is the first of its key, there is room for that, and its tokens are there."""
        since, context.waits_for, context.has_waited = trio.current_time(), "rate limit", True
        try:
            await line.wait(waiter, _at_once)
            if not asked.key.meters:
                await self._wait_room(asked.key)
            await line.wait(waiter, lambda: self._ready(asked))
        finally:
            context.waits_for = CALL
            if seconds := trio.current_time() - since:
                context.counters.limited(self._name, asked.name, seconds, 0.0)

    async def _wait_room(self, key: LimitedKey) -> None:
        """Wait until a key has its meters."""
        waiter = self._roomless[key] = Waiter()
        self._arrivals.add(waiter)
        try:
            await self._room.wait(waiter, lambda: self._keys.make_room(key, trio.current_time()))
        finally:
            del self._roomless[key]
            self._room.leave(waiter)

    def _ready(self, asked: _Asked) -> float | None:
        now = trio.current_time()
        at = asked.key.ready_at(now, asked.costs)
        return None if at <= now else at

    async def _take_rest(self, rest: AnyAdmission, asked: _Asked, context: CallContext) -> bool:
        """Take of the limits beside; return whether the tokens of the key were there until then."""
        with trio.CancelScope() as scope:
            self._beside[asked.key] = asked, scope
            try:
                await rest.take(asked.rest, context)
            finally:
                del self._beside[asked.key]
        return not scope.cancelled_caught

    def _spend(self, asked: _Asked, now: float) -> None:
        """Take the tokens of the key, which are there."""
        asked.since = now
        for meter, cost in zip(asked.key.meters, asked.costs, strict=True):
            meter.take(now, cost)

    def _leave(self, key: LimitedKey, now: float) -> None:
        self._keys.leave(key, now)
        if not key.calls:
            self._room.poke()

    def _changed(self, key: LimitedKey, now: float) -> None:
        """Let those ask again whom a change of a key's meters concerns."""
        self._keys.changed(key, now)
        if key in self._beside:
            asked, scope = self._beside[key]
            if key.ready_at(now, asked.costs) > now:
                scope.cancel()
        elif key in self._roomless:
            self._arrivals.put_first(self._roomless[key])  # it has its meters: nobody before it is to wait for that
        elif key in self._lines:
            self._lines[key].poke()
        self._room.poke()


def _at_once() -> None:
    """What the first of a line asks whose turn is all that it waits for."""


def _cost(limit: Limit, item: Any) -> Cost:
    assert limit.cost is not None
    return check_cost("Step.rate_limit", limit.rate_limit, asked_of(limit.cost, item))
