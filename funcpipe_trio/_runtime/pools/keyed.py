"""A stage that works on few items of each key at a time: which items wait for which, and what may they hold up?

An item is taken while there is a place for it, whether its key is free or not; an item of a key that is busy, or over
its rate, waits in the lane of that key (`_sansio.key_order`), and others overtake it. The first `waiting` items in
lanes take no place; the others are counted with the calls that run:

    calls + items in lanes - waiting + results that wait + values in the link  <=  concurrency + capacity of that link

so one slow key holds up the others only when its own items use up the places. What was taken needs no place to begin,
only a worker: an item that others wait for never waits for their places, so nothing waits for ever. An item gets its
position when it is taken, so results leave in the order of the stream, or as completed, as without a key.

Under a rate limit one task for all keys waits for the first time at which an item may begin.

A failure: items behind it are given up; if results are ordered, those before it that wait for their key are still
worked on, because everything before a failure is delivered.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import trio

from ..._base import checks
from ..._base.frozen import dataclass
from ..._sansio.key_order import KeyOrder
from ...policies.rate_limit import AnyLimit
from ..calls.calling import Calling
from ..core.failures import failure_of
from ..core.signals import CANCELLED, END, PENDING
from ..core.user_code import not_awaitable
from ..stages.chain import Ends
from .crew import Worker
from .pool import DEFERRED, Pool


@dataclass(frozen=True, slots=True)
class _Entry:
    """An item that was taken, and its place in the stream."""

    item: Any
    """The item itself."""
    key: Hashable
    """What the key function returned; an object of its own if that raised."""
    position: int
    """Its place in the order of the results."""
    number: int
    """Its number in the stream, which errors name."""
    error: Exception | None = None
    """What the key function raised; None if it returned."""


class KeyedPool(Pool):
    """Workers that take the oldest item whose key is free."""

    def __init__(
        self,
        ends: Ends,
        call: Calling,
        *,
        concurrency: int,
        ordered: bool,
        key: Callable[[Any], Hashable],
        per_key: int,
        key_rate: AnyLimit | None,
        waiting: int,
        method: str = "Pipeline.map",
    ) -> None:
        super().__init__(ends, call, concurrency=concurrency, ordered=ordered)
        self._key = key  # called with each item, when it is taken
        self._method = method  # whose argument that is, for errors
        self._key_order = KeyOrder(per_key, key_rate)  # items that were taken and wait for their key
        self._keys: dict[Worker, Hashable] = {}  # the key that each worker holds
        self._waiting = waiting  # items in lanes that take no place
        self._is_rated = key_rate is not None
        self._now = self.chain.now if self._is_rated else float  # the time, or 0.0 where no time matters
        self._alarm: trio.CancelScope | None = None  # ends when an item may begin; None unless that is waited for

    def start(self) -> None:
        super().start()
        if self._is_rated:
            self.chain.host.start_task(self._keep_time, self.name)

    def is_over(self) -> bool:
        return self.order.ended or (super().is_over() and not len(self._key_order))

    def staff(self) -> None:
        if self._key_order.ready:
            if not self.crew.coming:
                self.crew.call_in()
        else:
            super().staff()

    def occupied(self) -> int:
        beyond = len(self._key_order) - self._waiting
        return super().occupied() + (beyond if beyond > 0 else 0)

    def waits_for(self) -> str | None:
        said = super().waits_for()
        return "rate limit" if said == "input" and self._key_order.deadline < math.inf else said

    # ---- the time

    async def _keep_time(self) -> None:
        """Call a worker in whenever the time of an item has come, until the stage ends."""
        while self.left is None:
            with trio.CancelScope(deadline=self._key_order.deadline) as self._alarm:
                await trio.sleep_forever()
            self._alarm = None
            self._key_order.advance(self.chain.now())
            if self.left is None and self.chain.stopped is None:
                self.staff()

    def _set_alarm(self) -> None:
        if self._alarm is not None and self._alarm.deadline != self._key_order.deadline:
            self._alarm.deadline = self._key_order.deadline

    # ---- taking

    def admit(self) -> Any:
        """Take the oldest item whose key is free; if there is none, take one from the source."""
        size = self.crew.size
        if self.calls >= size:
            return PENDING
        if self.calls + 1 == size and not self.chain.outlet.room() and self.has_leftovers():
            return PENDING  # items in lanes have their places already: the last worker stays to see the room
        if self._is_rated:
            self._key_order.advance(self.chain.now())  # the alarm of this instant may be behind this task
        if not self._key_order.ready:
            item = super().admit()
            if item is PENDING or item is END:
                return item
            self._sort_in(item)
            self.meet()
            if self.chain.stopped is not None:  # by the key function: the item is given up with all in lanes
                return PENDING
        return self._key_order.take(self._now()) if self._key_order.ready else DEFERRED

    def _sort_in(self, item: Any) -> None:
        position, number = self.order.begin(), self.received
        self.received += 1
        try:
            self._store(_Entry(item, _key(self._key, item), position, number))
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:  # KeyboardInterrupt and its like end the whole run
                self.chain.discard(item, CANCELLED)
                raise
            self._store(_Entry(item, object(), position, number, error))  # without a key: in a lane of its own

    def _store(self, entry: _Entry) -> None:
        try:
            self._key_order.add(entry.key, entry.position, entry, self._now())
        except TypeError:
            checks.hashable(self._method, "what key gives", entry.key)
            raise
        if self._is_rated:
            self._set_alarm()
        peak = self.calls + len(self.order.waiting) + len(self._key_order)
        if peak > self.peak:
            self.peak = peak

    def take_up(self, worker: Worker, item: _Entry) -> None:
        self._keys[worker] = item.key
        worker.item, worker.position, worker.number = item.item, item.position, item.number
        worker.refusal = item.error
        self.calls += 1
        self.staff()
        self.chain.turn_over()

    def called(self, worker: Worker) -> Awaitable[Any]:
        if self._is_rated:
            concerns = self.call.concerns
            is_call = worker.refusal is None and (concerns is None or concerns(worker.item))
            self._key_order.begun(self._keys[worker], self.chain.now(), is_call=is_call)
            self._set_alarm()
            self.staff()
        if worker.refusal is None:
            return super().called(worker)
        error, worker.refusal = worker.refusal, None
        worker.context.begin(worker.number)  # or it would report the attempts of the item before
        return _raised(error)

    def put_down(self, worker: Worker) -> Any:
        """Also free the lane; an error of the key function that was not handled, because no call began, is kept."""
        self._key_order.done(self._keys.pop(worker), self._now())
        if self._is_rated:
            self._set_alarm()
        error, worker.refusal = worker.refusal, None
        if error is not None:
            self.chain.host.ledger.keep(error)
        return super().put_down(worker)

    # ---- giving up

    def cancel_superfluous(self) -> None:
        super().cancel_superfluous()
        self._give_up(self._is_behind)

    def _give_up(self, is_given_up: Callable[[int], bool]) -> None:
        """Give up items in lanes, by their positions; errors of the key function, which were not handled, are kept."""
        for entry in self._key_order.withdraw(is_given_up, self.chain.now()):
            if entry.error is not None:
                self.chain.host.ledger.keep(entry.error)
            self.chain.discard(entry.item, self.reason())

    def _is_behind(self, position: int) -> bool:
        return self.ended or self.order.is_superfluous(position)

    def leave(self) -> None:
        self._give_up(lambda position: True)
        super().leave()
        if self._alarm is not None:
            self._alarm.cancel()


@trio.lowlevel.disable_ki_protection  # user code runs in it
def _key(ask: Callable[[Any], Hashable], item: Any) -> Hashable:
    """Return the key of an item."""
    return not_awaitable("key", ask(item))


async def _raised(error: Exception) -> Any:  # noqa: ASYNC124  # a pool awaits what it calls
    raise error
