"""The fused operations at work: how does an operation run without a task, a link or a queue of its own?

The rule: each is an ordinary generator over the values of the one before it. It answers each value it is given at
once, with a value or with `NOTHING` (this one gave none), and passes `NOTHING` on; it never loops by itself, so the
stage that drives it sees every step, and can count, stop or breathe between any two.

An error of the user's function is told to the stage with the operation's name and the item's number, and then passes
through the generators behind, so that one that collects (a batch) lets out what came before.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from inspect import isawaitable
from operator import length_hint
from typing import Any

from ..plan import operations as plan
from ..policies import _check
from ..sansio.batcher import Batcher
from .inlet import NOT_NEEDED, NOTHING
from .stage import Stage

__all__ = ["FusedOperation", "fuse"]


class FusedOperation:
    """What all fused operations share: a name, the stage they run in, and an account."""

    name: str

    deadline: float = math.inf
    """When it will have something to say even if no value comes."""

    def __init__(self, operation: plan.Operation) -> None:
        self.name = operation.name
        self.stage: Stage
        self.dropped = self.created = self.absorbed = 0

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        """Make the generator; called once."""
        raise NotImplementedError

    def held(self) -> list[Any]:
        """Hand out, and forget, what it holds."""
        return []

    def tick(self, now: float) -> None:
        """Hear what time it is."""

    def vet(self, result: Any, fix: str = "an `async def` function") -> type:
        """Refuse a result that should have been awaited; answer its type, so that a run of one type is vetted once."""
        if isawaitable(result):
            if hasattr(result, "close"):
                result.close()  # it will never be awaited; without this Python warns of that too
            raise TypeError(f"{self.name!r} is not async, but returned something to await\nUse {fix}.")
        return type(result)


class Mapping(FusedOperation):
    """Each value becomes what the function answers."""

    fn: plan.AnyFunction

    def __init__(self, operation: plan.Map) -> None:
        super().__init__(operation)
        self.fn = operation.fn

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        fn, number, vetted = self.fn, 0, None
        for value in values:
            if value is NOTHING:
                yield NOTHING
                continue
            try:
                result = fn(value)
                if type(result) is not vetted:
                    vetted = self.vet(result)
            except BaseException as error:
                self.stage.failing(error, self.name, number, value)
                raise
            number += 1
            yield result


class Filtering(FusedOperation):
    """Only the values that the function says yes to."""

    fn: plan.AnyFunction

    def __init__(self, operation: plan.Filter) -> None:
        super().__init__(operation)
        self.fn = operation.fn

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        number = 0
        for value in values:
            if value is NOTHING:
                yield NOTHING
                continue
            try:
                keep = self.says_yes(self.fn(value))
            except BaseException as error:
                self.stage.failing(error, self.name, number, value)
                raise
            number += 1
            if keep:
                yield value
            else:
                self.dropped += 1
                yield NOTHING

    def says_yes(self, answer: Any) -> bool:
        """Take a predicate's answer; something to await would always say yes."""
        if answer is True or answer is False:
            return bool(answer)
        self.vet(answer)
        return bool(answer)


class SkippingWhile(Filtering):
    """The values from the first that the function says no to."""

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        number, skipping = 0, True
        for value in values:
            if value is NOTHING or not skipping:
                yield value
                continue
            try:
                skipping = self.says_yes(self.fn(value))
            except BaseException as error:
                self.stage.failing(error, self.name, number, value)
                raise
            number += 1
            self.dropped += skipping
            yield NOTHING if skipping else value


class TakingWhile(Filtering):
    """The values before the first that the function says no to."""

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        number = 0
        for value in values:
            if value is NOTHING:
                yield NOTHING
                continue
            try:
                wanted = self.says_yes(self.fn(value))
            except BaseException as error:
                self.stage.failing(error, self.name, number, value)
                raise
            number += 1
            if not wanted:
                self.stage.discard(value, NOT_NEEDED)
                return
            yield value


class Scanning(FusedOperation):
    """Each value becomes the state so far."""

    fn: plan.AnyFunction
    initial: Any

    def __init__(self, operation: plan.Scan) -> None:
        super().__init__(operation)
        self.fn, self.initial = operation.fn, operation.initial.value

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        fn, number, vetted, state = self.fn, 0, None, self.initial
        for value in values:
            if value is NOTHING:
                yield NOTHING
                continue
            try:
                state = fn(state, value)
                if type(state) is not vetted:
                    vetted = self.vet(state)
            except BaseException as error:
                self.stage.failing(error, self.name, number, value)
                raise
            number += 1
            yield state


class Tapping(FusedOperation):
    """The function sees each value; the value goes on."""

    fn: plan.AnyFunction

    def __init__(self, operation: plan.Tap) -> None:
        super().__init__(operation)
        self.fn = operation.fn

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        fn, number, vetted = self.fn, 0, None
        for value in values:
            if value is not NOTHING:
                try:
                    result = fn(value)
                    if type(result) is not vetted:
                        vetted = self.vet(result)
                except BaseException as error:
                    self.stage.failing(error, self.name, number, value)
                    raise
                number += 1
            yield value


class Enumerating(FusedOperation):
    """Each value becomes ``(number, value)``."""

    start: int

    def __init__(self, operation: plan.Enumerate) -> None:
        super().__init__(operation)
        self.start = operation.start

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        number = self.start
        for value in values:
            if value is NOTHING:
                yield NOTHING
            else:
                yield number, value
                number += 1


class Taking(FusedOperation):
    """The first values; it ends with the last of them, and pulls no further."""

    count: int

    def __init__(self, operation: plan.Take) -> None:
        super().__init__(operation)
        self.count = operation.count

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        left = self.count
        if not left:
            return
        for value in values:
            if value is NOTHING:
                yield NOTHING
                continue
            yield value
            left -= 1
            if not left:
                return


class Skipping(FusedOperation):
    """All but the first values."""

    count: int

    def __init__(self, operation: plan.Skip) -> None:
        super().__init__(operation)
        self.count = operation.count

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        left = self.count
        for value in values:
            if left and value is not NOTHING:
                left -= 1
                self.dropped += 1
                yield NOTHING
            else:
                yield value


class Expanding(FusedOperation):
    """Each value becomes all that its iterable gives, one step at a time."""

    fn: plan.AnyFunction

    def __init__(self, operation: plan.FlatMap) -> None:
        super().__init__(operation)
        self.fn = operation.fn
        self._parent: Any = NOTHING
        self._children: Any = None

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        number = 0
        for value in values:
            if value is NOTHING:
                yield NOTHING
                continue
            before = self.created
            self._parent = value
            try:
                self._children = self._open(value)
                for child in self._children:
                    self.created += 1
                    yield child
            except GeneratorExit:
                raise
            except BaseException as error:
                self._parent = NOTHING
                self.stage.failing(error, self.name, number, value)
                raise
            finally:
                _close(self._children)
            number += 1
            self._parent = NOTHING
            self.absorbed += 1
            if self.created == before:
                yield NOTHING

    def held(self) -> list[Any]:
        """Give the item that is being expanded, unless its last child is known to be out; others do not exist yet."""
        parent, self._parent = self._parent, NOTHING
        if parent is not NOTHING and length_hint(self._children, 1) == 0:
            self.absorbed += 1
            return []
        return [] if parent is NOTHING else [parent]

    def _open(self, value: Any) -> Iterator[Any]:
        result = self.fn(value)
        self.vet(result)
        if isinstance(result, AsyncIterable) and not isinstance(result, Iterable):
            raise TypeError(
                f"{self.name!r} returned an async iterable\nUse concurrency=1 to give it a stage of its own."
            )
        return iter(result)


class Unbatching(FusedOperation):
    """The items of each batch, one by one."""

    def __init__(self, operation: plan.Unbatch) -> None:
        super().__init__(operation)
        self._parent: Any = NOTHING
        self._rest: Iterator[Any] = iter(())

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
            except BaseException as error:
                self._parent = NOTHING
                self.stage.failing(error, self.name, number, value)
                raise
            number += 1
            self._parent = NOTHING
            self.absorbed += 1
            if self.created == before:
                yield NOTHING

    def held(self) -> list[Any]:
        """Give the rest of the batch, item by item; of what is no list, the whole."""
        parent, self._parent = self._parent, NOTHING
        if parent is NOTHING:
            return []
        if not isinstance(parent, list | tuple):
            return [parent]
        rest = list(self._rest)
        self.created += len(rest)
        self.absorbed += 1
        return rest


class Batching(FusedOperation):
    """Lists of values, closed by number, cost or age."""

    def __init__(self, operation: plan.Batch) -> None:
        super().__init__(operation)
        self._batcher = Batcher(operation.max_items, operation.max_cost, operation.max_delay)
        self._cost = operation.cost if operation.max_cost is not None else None
        self._timed = operation.max_delay is not None
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

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        batcher, closed = self._batcher, self._closed
        try:
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
        except Exception:  # what came before a failure goes out before it
            if batcher.items:
                yield self._emitted(batcher.close())
            raise
        if batcher.items:
            yield self._emitted(batcher.close())

    def held(self) -> list[Any]:
        """Give the items that are in no batch that went out."""
        items = [item for batch in self._closed for item in batch]
        self._closed.clear()
        return items + self._batcher.close()

    def _add(self, value: Any) -> None:
        """Put one value into the batcher; what it closes is held here until it goes out."""
        try:
            cost = 1 if self._cost is None else _cost(self.name, self._cost(value))
        except BaseException as error:
            self.stage.failing(error, self.name, self._number, value)
            raise
        self._number += 1
        now = self.stage.now() if self._timed and not self._batcher.items else 0.0
        self._closed.extend(self._batcher.add(value, cost, now))

    def _emitted(self, batch: list[Any]) -> list[Any]:
        self.absorbed += len(batch)
        self.created += 1
        return batch


def _cost(name: str, value: Any) -> float:
    """Check what a cost function answered."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise _check.refuse(ValueError, f"batch {name!r}", "cost", "be a number >= 0", value)
    return value


def _close(iterator: Any) -> None:
    """Close a generator now, and not when it happens to be collected."""
    close = getattr(iterator, "close", None)
    if close is not None:
        close()


_FORMS: dict[type[plan.Operation], Callable[[Any], FusedOperation]] = {
    plan.Map: Mapping,
    plan.Filter: Filtering,
    plan.FlatMap: Expanding,
    plan.Scan: Scanning,
    plan.Tap: Tapping,
    plan.Enumerate: Enumerating,
    plan.Take: Taking,
    plan.Skip: Skipping,
    plan.TakeWhile: TakingWhile,
    plan.SkipWhile: SkippingWhile,
    plan.Batch: Batching,
    plan.Unbatch: Unbatching,
}


def fuse(operation: plan.Operation) -> FusedOperation:
    """Make the running form of an operation; fresh for each run."""
    return _FORMS[type(operation)](operation)
