"""The operations that give at most one value for each: map, filter, scan, tap, take, skip and the like."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import trio

from ..._base.shown import listed, named, option
from ..._plan import operations as plan
from ..core.signals import NOT_NEEDED, PENDING
from .base import FusedOperation

END_BEFORE: Final[Any] = object()
"""What `apply` returns to end the stream before a value."""


class PerItem(FusedOperation):
    """An operation that gives one value, or none, for each."""

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        apply, number = self.apply, 0
        for value in values:
            if value is PENDING:
                yield PENDING
                continue
            try:
                result = apply(value)
            except BaseException as error:  # noqa: ASYNC103  # `failing` raises
                self.chain.failing(error, self.name, number, value)
            number += 1
            if result is END_BEFORE:
                self.chain.discard(value, NOT_NEEDED)
                return
            yield result

    def apply(self, value: Any) -> Any:
        """Return the value that takes this one's place, `PENDING` for none, or `END_BEFORE`."""
        raise NotImplementedError

    def drop(self) -> Any:
        """Count a dropped value; return what stands for it."""
        self.dropped += 1
        return PENDING


class MapOp(FusedOperation):
    """Each value becomes what the function returns."""

    def __init__(self, operation: plan.Map) -> None:
        super().__init__(operation)
        self._fn = operation.fn  # returns the new value

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        # As in `PerItem`, but with the user's function called right here, which takes a third less time.
        fn, number, vetted = self._fn, 0, None
        for value in values:
            if value is PENDING:
                yield PENDING
                continue
            try:
                result = fn(value)
                if type(result) is not vetted:
                    vetted = self.vet(result)
            except BaseException as error:  # noqa: ASYNC103  # sync; `failed` raises what is not an Exception
                yield self.failed(error, number, value)  # noqa: ASYNC104  # within the handler: behind it Ctrl-C could strike
            else:
                yield result
            number += 1


class FilterOp(PerItem):
    """Only the values for which the function returns a true value."""

    def __init__(self, operation: plan.Filter | plan.SkipWhile | plan.TakeWhile | plan.TakeUntil) -> None:
        super().__init__(operation)
        self._fn = operation.fn  # decides about a value

    def apply(self, value: Any) -> Any:
        return value if self.says_yes(value) else self.drop()

    def says_yes(self, value: Any) -> bool:
        """Return what the function says of a value; an awaitable, which is always true, is refused."""
        answer = self._fn(value)
        if answer is True or answer is False:
            return bool(answer)
        self.vet(answer)
        return bool(answer)


class SkipWhileOp(FilterOp):
    """The values from the first for which the function returns a false value."""

    def __init__(self, operation: plan.SkipWhile) -> None:
        super().__init__(operation)
        self._skipping = True  # until the function has said no

    def apply(self, value: Any) -> Any:
        self._skipping = self._skipping and self.says_yes(value)
        return self.drop() if self._skipping else value


class TakeWhileOp(FilterOp):
    """The values before the first for which the function returns a false value."""

    def apply(self, value: Any) -> Any:
        return value if self.says_yes(value) else END_BEFORE


class TakeUntilOp(FilterOp):
    """The values up to the first for which the function returns a true value: no more is pulled behind that."""

    may_end = True  # with its last value

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        number, is_last = 0, False
        for value in values:
            if value is not PENDING:
                try:
                    is_last = self.says_yes(value)
                except BaseException as error:  # noqa: ASYNC103  # `failing` raises
                    self.chain.failing(error, self.name, number, value)
                number += 1
            yield value
            if is_last:
                return


class ScanOp(FusedOperation):
    """Each value becomes the state so far."""

    def __init__(self, operation: plan.Scan) -> None:
        super().__init__(operation)
        self._fn = operation.fn  # returns the next state, of the state and a value
        self._state = operation.initial.value  # the first one

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        # Written out as in `MapOp`, because `fold` is built on it.
        fn, state, number, vetted = self._fn, self._state, 0, None
        for value in values:
            if value is PENDING:
                yield PENDING
                continue
            try:
                state = fn(state, value)
                if type(state) is not vetted:
                    vetted = self.vet(state)
            except BaseException as error:  # noqa: ASYNC103  # `failing` raises
                self.chain.failing(error, self.name, number, value)
            number += 1
            yield state


class TapOp(PerItem):
    """The function sees each value; the value goes on."""

    def __init__(self, operation: plan.Tap) -> None:
        super().__init__(operation)
        self._fn = operation.fn  # is called with each value

    def apply(self, value: Any) -> Any:
        self.vet(self._fn(value))
        return value


class EnumerateOp(PerItem):
    """Each value becomes ``(number, value)``."""

    def __init__(self, operation: plan.Enumerate) -> None:
        super().__init__(operation)
        self._number = operation.start - 1  # of the last value

    def apply(self, value: Any) -> Any:
        self._number += 1
        return self._number, value


class SkipOp(PerItem):
    """All values except the first ones."""

    def __init__(self, operation: plan.Skip) -> None:
        super().__init__(operation)
        self._left = operation.count  # values that are still to be dropped

    def apply(self, value: Any) -> Any:
        if not self._left:
            return value
        self._left -= 1
        return self.drop()


class RouteOp(PerItem):
    """Each value becomes ``(branch, value)``."""

    def __init__(self, operation: plan.Route) -> None:
        super().__init__(operation)
        self._fn = operation.fn  # returns the key of the branch for a value
        self._branches = dict.fromkeys(operation.branches)  # their keys, in the order of the plan

    def apply(self, value: Any) -> Any:
        key = self._fn(value)
        self.vet(key)
        if key not in self._branches:
            known = listed(self._branches)
            raise KeyError(
                f"{named(self.name)}: route gave {option(key)}, which is not a branch; the branches are {known}"
            )
        return key, value


class TakeOp(FusedOperation):
    """The first values; the stream ends with the last of them, and no more is pulled."""

    may_end = True  # with its last value

    def __init__(self, operation: plan.Take) -> None:
        super().__init__(operation)
        self._count = operation.count  # values that may pass

    @trio.lowlevel.enable_ki_protection
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        left = self._count
        if not left:
            return
        for value in values:
            yield value
            left -= value is not PENDING
            if not left:
                return
