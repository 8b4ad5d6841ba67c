"""The operations that make many values of one: what do they hold, and what becomes of it when they are stopped?

They hold the item that is being taken apart. Children that were not asked for do not exist yet, except those of a
batch: they are in it, so the rest of a batch is discarded item by item.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Iterator
from operator import length_hint
from typing import Any

import trio

from ..._base.shown import named
from ..._plan import operations as plan
from ..._plan.nodes import plan_of
from ..core.signals import NO_ITEM, PENDING
from .base import FusedOperation


class ExpandOp(FusedOperation):
    """Each value becomes its children, one step at a time.

    For subclasses: `open` makes the iterator of a value's children, `close` ends it, `leave` is called before that when
    the stage is stopped in the middle of it.
    """

    may_keep = True  # one value may have several children

    def __init__(self, operation: plan.FlatMap | plan.Unbatch) -> None:
        super().__init__(operation)
        self._parent: Any = NO_ITEM  # the value that is being taken apart; it is discarded with its children
        self._children: Any = None  # the iterator of its children; None while none is open

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        number = 0
        for value in values:
            if value is PENDING:
                yield PENDING
                continue
            before, answer = self.created, PENDING
            self._parent = value
            try:
                self._children = self.open(value)
                for child in self._children:
                    self.created += 1
                    yield child
            except GeneratorExit:
                self.leave()
                raise
            except BaseException as error:  # noqa: ASYNC103  # sync; `failed` raises what is not an Exception
                answer = self._failed_at(error, number, value)
            else:
                self._parent = NO_ITEM  # before `close`, which may run user code: it is no longer held
                self.absorbed += 1
            finally:
                self.close()
            number += 1
            if answer is not PENDING:
                self._parent = NO_ITEM
                self.absorbed += 1
                self.created += 1
            if answer is not PENDING or self.created == before:
                yield answer

    @trio.lowlevel.enable_ki_protection
    def _failed_at(self, error: BaseException, number: int, value: Any) -> Any:
        """Return what comes behind the children that a failed value had, or raise."""
        self._parent = NO_ITEM
        answer = self.failed(error, number, value)
        if answer is not PENDING:
            self._parent = value  # held until that has left
        return answer

    @property
    def has_more(self) -> bool:
        return self._parent is not NO_ITEM and _may_give(self._children)

    @property
    def is_through(self) -> bool:
        return self._parent is not NO_ITEM and not _may_give(self._children)

    def open(self, value: Any) -> Iterator[Any]:
        """Return the iterator of a value's children."""
        raise NotImplementedError

    def leave(self) -> None:
        """Called when the stage is stopped while a value is taken apart."""

    def close(self) -> None:
        """Close the iterator of the children."""


class FlatMapOp(ExpandOp):
    """Each value becomes all items of the iterable that the function returns for it."""

    def __init__(self, operation: plan.FlatMap) -> None:
        super().__init__(operation)
        self._fn = operation.fn  # returns the iterable of a value
        self._through = False  # the value at which the stage was stopped is known to have no more children

    def open(self, value: Any) -> Iterator[Any]:
        result = self._fn(value)
        self.vet(result)
        if isinstance(result, AsyncIterable) and not isinstance(result, Iterable):
            raise TypeError(
                f"{named(self.name)} returned an async iterable\nUse concurrency=1 to give it a stage of its own."
            )
        if plan_of(result) is not None:
            raise TypeError(f"{named(self.name)} returned a pipeline\nUse concurrency=1 to give it a stage of its own.")
        return iter(result)

    def leave(self) -> None:
        self._through = not _may_give(self._children)

    def close(self) -> None:
        children, self._children = self._children, None
        self.chain.close_stream(children)

    def held(self) -> list[Any]:
        """Return the item that is being expanded, unless its last child is known to be out; others do not exist yet."""
        parent, self._parent = self._parent, NO_ITEM
        if parent is not NO_ITEM and self._through:
            self.absorbed += 1
            return []
        return [] if parent is NO_ITEM else [parent]


class UnbatchOp(ExpandOp):
    """The items of each batch, one by one."""

    def open(self, value: Any) -> Iterator[Any]:
        children: Iterator[Any] = iter(value)
        return children

    def held(self) -> list[Any]:
        """Return the rest of the batch, item by item; of what is not a list, the whole."""
        parent, self._parent = self._parent, NO_ITEM
        if parent is NO_ITEM:
            return []
        if not isinstance(parent, list | tuple):
            return [parent]
        try:
            rest = list(self._children)
        except Exception as error:  # raised by the iterator of a subclass
            self.chain.keep_cleanup_error(error)
            return [parent]
        self.created += len(rest)
        self.absorbed += 1
        return rest


def _may_give(children: Any) -> bool:
    """Whether an iterator may have more items, as far as can be told without taking one."""
    try:
        return length_hint(children, 1) > 0
    except Exception:  # raised by the user's iterator
        return True
