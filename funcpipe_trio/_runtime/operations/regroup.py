"""The fused operations that regroup: one value becomes many, or many become one.

They hold something between two steps: the item that is being expanded, the rest of a batch, a batch that is not full.
What `held` answers is what of that has not gone out; the stage discards it when it is stopped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from operator import length_hint
from typing import Any

import trio

from ..._base import checks
from ..._base.functions import AnyFunction
from ..._base.shown import named
from ..._plan import operations as plan
from ..._plan.nodes import plan_of
from ..._sansio.batcher import Batcher
from ..core.inlet import NOTHING
from .fused import FusedOperation


class Expanding(FusedOperation):
    """Each value becomes all that its iterable gives, one step at a time."""

    may_keep = True

    fn: AnyFunction

    def __init__(self, operation: plan.FlatMap) -> None:
        super().__init__(operation)
        self.fn = operation.fn
        self._parent: Any = NOTHING
        self._children: Any = None
        self._through = False  # whether the last child of a parent that was left is known to be out

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        number = 0
        for value in values:
            if value is NOTHING:
                yield NOTHING
                continue
            before, answer = self.created, NOTHING
            self._parent = value
            try:
                self._children = self._open(value)
                for child in self._children:
                    self.created += 1
                    yield child
            except GeneratorExit:
                self._through = not _may_give(self._children)
                raise
            except BaseException as error:  # noqa: ASYNC103  # sync; `failed` raises what is no Exception
                answer = self._failed_at(error, number, value)
            else:
                self._parent = NOTHING  # before the stream is closed, by user code: it is no longer held
                self.absorbed += 1
            finally:
                children, self._children = self._children, None
                self.chain.close_stream(children)
            number += 1
            if answer is not NOTHING:
                self._parent = NOTHING
                self.absorbed += 1
                self.created += 1
            if answer is not NOTHING or self.created == before:
                yield answer

    @trio.lowlevel.enable_ki_protection
    def _failed_at(self, error: BaseException, number: int, value: Any) -> Any:
        """Answer what comes behind the children that a failed value had, or raise."""
        self._parent = NOTHING
        answer = self.failed(error, number, value)
        if answer is not NOTHING:
            self._parent = value  # held until that has left
        return answer

    @property
    def has_more(self) -> bool:
        return self._parent is not NOTHING and _may_give(self._children)

    def held(self) -> list[Any]:
        """Give the item that is being expanded, unless its last child is known to be out; others do not exist yet."""
        parent, self._parent = self._parent, NOTHING
        if parent is not NOTHING and self._through:
            self.absorbed += 1
            return []
        return [] if parent is NOTHING else [parent]

    def _open(self, value: Any) -> Iterator[Any]:
        result = self.fn(value)
        self.vet(result)
        if isinstance(result, AsyncIterable) and not isinstance(result, Iterable):
            raise TypeError(
                f"{named(self.name)} returned an async iterable\nUse concurrency=1 to give it a stage of its own."
            )
        if plan_of(result) is not None:
            raise TypeError(f"{named(self.name)} returned a pipeline\nUse concurrency=1 to give it a stage of its own.")
        return iter(result)


class Unbatching(FusedOperation):
    """The items of each batch, one by one."""

    may_keep = True

    def __init__(self, operation: plan.Unbatch) -> None:
        super().__init__(operation)
        self._parent: Any = NOTHING
        self._rest: Iterator[Any] = iter(())

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        number = 0
        for value in values:
            if value is NOTHING:
                yield NOTHING
                continue
            before = self.created
            try:
                self._rest = iter(value)
                self._parent = value
                for child in self._rest:
                    self.created += 1
                    yield child
            except GeneratorExit:
                raise
            except BaseException as error:  # noqa: ASYNC103  # `failing` raises
                self._parent = NOTHING
                self.chain.failing(error, self.name, number, value)
            number += 1
            self._parent = NOTHING
            self.absorbed += 1
            if self.created == before:
                yield NOTHING

    @property
    def has_more(self) -> bool:
        return self._parent is not NOTHING and _may_give(self._rest)

    def held(self) -> list[Any]:
        """Give the rest of the batch, item by item; of what is no list, the whole."""
        parent, self._parent = self._parent, NOTHING
        if parent is NOTHING:
            return []
        if not isinstance(parent, list | tuple):
            return [parent]
        try:
            rest = list(self._rest)
        except Exception as error:  # of the iterator of a subclass
            self.chain.keep_cleanup_error(error)
            return [parent]
        self.created += len(rest)
        self.absorbed += 1
        return rest


class Batching(FusedOperation):
    """Lists of values, closed by number, cost or age."""

    may_keep = True

    def __init__(self, operation: plan.Batch) -> None:
        super().__init__(operation)
        self._batcher = Batcher(operation.max_items, operation.max_cost, operation.max_delay)
        self._cost = operation.cost if operation.max_cost is not None else None
        self._timed = operation.max_delay is not None
        self._is_simple = operation.max_cost is None
        self._due = False
        self._number = 0
        self._closed: deque[list[Any]] = deque()

    @property
    def deadline(self) -> float:  # type: ignore[override]  # a constant where nothing is timed
        """When the open batch is due."""
        return self._batcher.deadline

    def tick(self, now: float) -> None:
        """Mark the open batch as due, if it is."""
        self._due = self._batcher.is_due(now)  # never without items: the deadline is their first one's

    @trio.lowlevel.enable_ki_protection
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        batcher = self._batcher
        try:
            yield from self._by_number(values) if self._is_simple else self._by_all(values)
        except Exception:  # what came before a failure goes out before it
            if batcher.items:
                yield self._emitted(batcher.close())
            raise
        if batcher.items:
            yield self._emitted(batcher.close())

    @trio.lowlevel.enable_ki_protection
    def _by_all(self, values: Iterator[Any]) -> Iterator[Any]:
        batcher, closed = self._batcher, self._closed
        for value in values:
            if self._due:
                self._due = False
                closed.append(batcher.close())
            if value is not NOTHING:
                self._add(value)
            if not closed:
                yield NOTHING
            while closed:
                yield self._emitted(closed.popleft())

    @trio.lowlevel.enable_ki_protection
    def _by_number(self, values: Iterator[Any]) -> Iterator[Any]:
        """Do the same where no cost counts: a value closes one batch at most, so none has to be kept here."""
        batcher = self._batcher
        for value in values:
            closed = None
            if self._due:  # it was not full, so it was to hold two at least: the value cannot fill the next one
                self._due = False
                closed = batcher.close()
            if value is not NOTHING:
                if not batcher.items:
                    batcher.begin(self.chain.now() if self._timed else 0.0)
                closed = batcher.append(value) or closed
            yield NOTHING if closed is None else self._emitted(closed)

    @property
    def has_more(self) -> bool:
        return bool(self._closed)

    def held(self) -> list[Any]:
        """Give the items that are in no batch that went out."""
        items = [item for batch in self._closed for item in batch]
        self._closed.clear()
        return items + self._batcher.close()

    def _add(self, value: Any) -> None:
        """Put one value into the batcher; what it closes is held here until it goes out."""
        try:
            cost = 1 if self._cost is None else _cost(self.name, self._cost, value)
        except BaseException as error:  # noqa: ASYNC103  # `failing` raises
            self.chain.failing(error, self.name, self._number, value)
        self._number += 1
        now = self.chain.now() if self._timed and not self._batcher.items else 0.0
        self._closed.extend(self._batcher.add(value, cost, now))

    def _emitted(self, batch: list[Any]) -> list[Any]:
        self.absorbed += len(batch)
        self.created += 1
        return batch


def _may_give(children: Any) -> bool:
    """Whether an iterator may have more to give, as far as can be told without asking it for that."""
    try:
        return length_hint(children, 1) > 0
    except Exception:  # of the user's iterator
        return True


@trio.lowlevel.disable_ki_protection  # user code runs in it
def _cost(name: str, fn: Callable[[Any], Any], item: Any) -> float:
    """Ask what an item costs, and check the answer."""
    value, where = fn(item), f"batch {named(name)}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise checks.refuse(TypeError, where, "cost", "be a number >= 0", value)
    if not value >= 0:
        raise checks.refuse(ValueError, where, "cost", "be a number >= 0", value)
    return value
