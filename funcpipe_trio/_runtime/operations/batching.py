"""The operations that make one value of many: what do they hold, and when does it go out?

They hold a batch that is not full, and closed ones for which there was no room yet. `held` returns what of that has not
gone out; it is discarded when the stage is stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import trio

from ..._base import checks
from ..._base.shown import named
from ..._plan import operations as plan
from ..._sansio.batcher import Batcher
from ..core.signals import IDLE, PENDING
from .base import FusedOperation

if TYPE_CHECKING:
    from ..._sansio.keyed_batcher import KeyedBatcher


class GroupingOp(FusedOperation):
    """Lists of values that follow each other, closed by a machine.

    For subclasses: `add` puts a value into the machine.
    """

    may_keep = True  # one value may close several lists

    def __init__(
        self,
        operation: plan.Grouping,
        batcher: Batcher | KeyedBatcher,
        *,
        is_simple: bool,
        is_timed: bool,
    ) -> None:
        super().__init__(operation)
        self._batcher: Any = batcher  # decides when a list is closed; it holds the open ones
        self._is_simple = is_simple  # a value closes at most one list, and each counts as one
        self._is_timed = is_timed  # the time at which a list begins matters
        self._due = False  # the open list must be closed before another value is added
        # A list goes out as soon as nothing more is there.
        self._takes_what_is_there = isinstance(operation, plan.Batch) and operation.takes_what_is_there
        self.may_end = self._takes_what_is_there  # so it is asked when nothing is there
        self._told_at = -1  # how many items had come in when what is upstream was last told that there is room
        self._closed: deque[list[Any]] = deque()  # lists that have not gone out, oldest first

    @property
    def deadline(self) -> float:  # type: ignore[override]  # a constant where nothing is timed
        """When the open list is due; inf if it never is, or is empty."""
        at: float = self._batcher.deadline
        return at

    def tick(self, now: float) -> None:
        """Mark the open list as due, if it is."""
        self._due = self._batcher.is_due(now)  # never without items: the deadline is their first one's

    @trio.lowlevel.enable_ki_protection
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        try:
            yield from self._by_number(values) if self._is_simple else self._by_all(values)
        except Exception:  # what came before a failure goes out before it
            yield from self._rest()
            raise
        yield from self._rest()

    @trio.lowlevel.enable_ki_protection
    def _rest(self) -> Iterator[Any]:
        """Give what is left: lists closed by the time that was over, or by the cost of what failed; then open ones."""
        while self._closed or self._batcher.items:
            yield self._emitted(self._closed.popleft() if self._closed else self._batcher.close())

    @trio.lowlevel.enable_ki_protection
    def _by_all(self, values: Iterator[Any]) -> Iterator[Any]:
        batcher, closed = self._batcher, self._closed
        for value in values:
            if self._due:
                self._due = False
                closed.append(batcher.close())
            if value is not PENDING:
                self.add(value)
            elif self._is_all_there():
                self.close_all()
            if not closed:
                yield PENDING
            while closed:
                yield self._emitted(closed.popleft())

    @trio.lowlevel.enable_ki_protection
    def _by_number(self, values: Iterator[Any]) -> Iterator[Any]:
        """Do the same where a value closes at most one list, so none has to be kept here."""
        batcher = self._batcher
        for value in values:
            closed = None
            if self._due:  # an open list has room, so a list holds two at least: this value cannot fill the next
                self._due = False
                closed = batcher.close()
            if value is not PENDING:
                if not batcher.items:
                    batcher.begin(self.chain.now() if self._is_timed else 0.0)
                closed = batcher.append(value) or closed
            elif self._is_all_there():
                closed = batcher.close()
            yield PENDING if closed is None else self._emitted(closed)

    def _is_all_there(self) -> bool:
        """Whether the open list must go out, because the input has nothing more.

        What is upstream may only wait for room: it is told of that first, and if it then runs, it is waited for. It is
        not told again before it gave something: it may want room for what it cannot give yet.
        """
        if not (self._takes_what_is_there and self._batcher.items):
            return False
        inlet = self.chain.inlet
        if self._told_at != inlet.taken:
            self._told_at = inlet.taken
            inlet.release()
        return inlet.state() is IDLE

    def close_all(self) -> None:
        """Close what is open."""
        while self._batcher.items:
            self._closed.append(self._batcher.close())

    @property
    def waits_for_no_more(self) -> bool:
        """Whether it has an open list that goes out when the input has nothing."""
        return self._takes_what_is_there and bool(self._batcher.items)

    @property
    def has_more(self) -> bool:
        return bool(self._closed)

    def held(self) -> list[Any]:
        """Return the items that have not gone out."""
        items = [item for batch in self._closed for item in batch]
        self._closed.clear()
        while self._batcher.items:
            items += self._batcher.close()
        return items

    def add(self, value: Any) -> None:
        """Put a value into the machine; the lists that this closes are held here until they go out."""
        raise NotImplementedError

    def _emitted(self, batch: list[Any]) -> list[Any]:
        self.absorbed += len(batch)
        self.created += 1
        return batch


class BatchOp(GroupingOp):
    """Lists of values, closed by number, cost or age."""

    _batcher: Batcher

    def __init__(self, operation: plan.Batch) -> None:
        super().__init__(
            operation,
            Batcher(operation.max_items, operation.max_cost, operation.max_delay or None),
            is_simple=operation.max_cost is None,
            is_timed=bool(operation.max_delay),
        )
        self._cost = operation.cost  # what an item costs; None: each costs 1
        self._number = 0  # of the value at hand, where costs count; errors name it

    def add(self, value: Any) -> None:
        try:
            cost = 1 if self._cost is None else cost_of(self.name, self._cost, value)
        except BaseException as error:  # noqa: ASYNC103  # `failing` raises
            self.chain.failing(error, self.name, self._number, value)
        self._number += 1
        now = self.chain.now() if self._is_timed and not self._batcher.items else 0.0
        self._closed.extend(self._batcher.add(value, cost, now))


@trio.lowlevel.disable_ki_protection  # user code runs in it
def cost_of(name: str, fn: Callable[[Any], Any], item: Any) -> float:
    """Return what an item costs, as the user's function says, checked."""
    value, where = fn(item), f"batch {named(name)}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise checks.refuse(TypeError, where, "cost", "be a number >= 0", value)
    if not value >= 0:
        raise checks.refuse(ValueError, where, "cost", "be a number >= 0", value)
    return value
