"""A stage that works on one item of each key at a time: which items wait for which, and what may they hold up?

An item is taken while there is a place for it, whether its key is free or not; an item of a busy key waits in the lane
of that key (`sansio.lanes`), and others go past it. Items that wait are counted with the calls that run:

    calls + items in lanes + results that wait + values in the link  <=  concurrency + capacity of that link

so one slow key holds up the others only when the places are used up by its own items. An item has its position from the
instant at which it was taken, so results leave in the order of the stream, or as completed, as without a key.

A failure: items behind it are given up, those before it that wait for their key are still worked on when the results
are in order, for everything before a failure is delivered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Any

import trio

from ..._base.frozen import dataclass
from ..._sansio.lanes import Lanes
from ..core.failures import failure_of
from ..core.inlet import CANCELLED, END, NOTHING
from ..core.user_code import not_awaitable
from .pool import ASIDE, Pool, Worker


@dataclass(frozen=True, slots=True)
class _Entry:
    """An item that was taken, and its place in the stream."""

    item: Any
    key: Hashable
    position: int
    number: int
    error: Exception | None = None
    """What asking for its key came to."""


class KeyedPool(Pool):
    """Workers that take the oldest item whose key is free."""

    key: Callable[[Any], Hashable]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._lanes = Lanes()
        self._entries: dict[Worker, _Entry] = {}

    def is_over(self) -> bool:
        return self.order.ended or (super().is_over() and not len(self._lanes))

    def _staff(self) -> None:
        if self._lanes.ready:
            if not self._coming:
                self._call_in()
        else:
            super()._staff()

    def _occupied(self) -> int:
        return super()._occupied() + len(self._lanes)

    # ---- taking

    def _admit(self) -> Any:
        """Take the oldest item whose key is free; if there is none, take one in."""
        if self._calls >= self.concurrency:
            return NOTHING
        if self._calls + 1 == self.concurrency and not self.outlet.room() and self._has_leftovers():
            return NOTHING  # items in lanes were let in before: the last worker stays to see the room
        if not self._lanes.ready:
            item = super()._admit()
            if item is NOTHING or item is END:
                return item
            self._sort_in(item)
            if self.stopped is not None:  # by whoever was asked for the key: it is given up with all that is in lanes
                return NOTHING
        return self._lanes.take() if self._lanes.ready else ASIDE

    def _sort_in(self, item: Any) -> None:
        position, number = self.order.begin(), self._received
        self._received += 1
        try:
            self._store(_Entry(item, _key(self.key, item), position, number))
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:  # KeyboardInterrupt and its like end the whole run
                self.discard(item, CANCELLED)
                raise
            self._store(_Entry(item, object(), position, number, error))  # without a key: in a lane of its own

    def _store(self, entry: _Entry) -> None:
        self._lanes.add(entry.key, entry.position, entry)

    def _take_up(self, worker: Worker, item: _Entry) -> None:
        self._entries[worker] = item
        worker.item, worker.position, worker.number = item.item, item.position, item.number
        self._calls += 1
        self._staff()
        self.outlet.settle()

    def _called(self, worker: Worker) -> Awaitable[Any]:
        entry = self._entries[worker]
        error = entry.error
        if error is None:
            return super()._called(worker)
        self._entries[worker] = _Entry(entry.item, entry.key, entry.position, entry.number)  # whoever calls meets it
        worker.attempt.begin(worker.number)  # or the attempts of the item before it would be taken for its own
        return _raised(error)

    def _put_down(self, worker: Worker) -> Any:
        self._close_entry(self._entries.pop(worker))
        return super()._put_down(worker)

    def _close_entry(self, entry: _Entry) -> None:
        """Free the lane; an error of the key that nobody met, as no call began, is kept."""
        self._lanes.done(entry.key)
        if entry.error is not None:
            self.host.ledger.keep(entry.error)

    # ---- giving up

    def _cancel_superfluous(self) -> None:
        super()._cancel_superfluous()
        self._give_up(self._is_behind)

    def _give_up(self, is_given_up: Callable[[int], bool]) -> None:
        """Give up items in lanes, by their positions; and the errors of their keys, which nobody met."""
        for entry in self._lanes.withdraw(is_given_up):
            if entry.error is not None:
                self.host.ledger.keep(entry.error)
            self.discard(entry.item, self._reason())

    def _is_behind(self, position: int) -> bool:
        return self._ended or self.order.is_superfluous(position)

    def _dismiss(self, worker: Worker) -> None:
        entry = self._entries.pop(worker, None)
        if entry is not None:
            self._close_entry(entry)
        super()._dismiss(worker)

    def _leave(self) -> None:
        self._give_up(lambda position: True)
        super()._leave()


@trio.lowlevel.disable_ki_protection  # user code runs in it
def _key(ask: Callable[[Any], Hashable], item: Any) -> Hashable:
    """Ask for the key of an item."""
    return not_awaitable("key", ask(item))


async def _raised(error: Exception) -> Any:  # noqa: ASYNC124  # a pool awaits what it calls
    raise error
