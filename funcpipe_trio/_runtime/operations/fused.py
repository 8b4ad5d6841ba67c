"""The fused operations at work: how does an operation run without a task, a link or a queue of its own?

The rule: each is an ordinary generator over the values of the one before it. It answers each value it is given at
once, with a value or with `NOTHING` (this one gave none), and passes `NOTHING` on; it never loops by itself, so the
stage that drives it sees every step, and can count, stop or breathe between any two.

An error of the user's function is told to the stage with the operation's name and the item's number, and then passes
through the generators behind, so that one that collects (a batch) lets out what came before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final

import trio

from ..._base.errors import MisuseError
from ..._plan import operations as plan
from ..._sansio.tolerance import Tolerance
from ...policies.on_error import Emit, Failure, OnError, Skip, Stop
from ..core.failures import add_note, failure_of, noted
from ..core.inlet import NOT_NEEDED, NOTHING
from ..core.protocols import OperationHost
from ..core.user_code import ASYNC_DEF, OR_CONCURRENCY, not_awaitable

ENOUGH: Final[Any] = object()
"""The answer of an operation that ends the stream before a value."""


class FusedOperation:
    """What all fused operations share: a name, the stage they run in, and an account."""

    name: str

    deadline: float = math.inf
    """When it will have something to say even if no value comes."""

    may_end = False
    """Whether it may end the stream without being asked for another value."""

    may_keep = False
    """Whether it may ever have more to give without being given a value."""

    def __init__(self, operation: plan.Operation) -> None:
        self.name = operation.name
        self.chain: OperationHost
        self.dropped = self.created = self.absorbed = 0
        self._vetted: type | None = None
        self._use = OR_CONCURRENCY if isinstance(operation, plan.Concurrent | plan.FlatMap) else ASYNC_DEF
        self.on_error: OnError = operation.on_error if isinstance(operation, plan.Map | plan.FlatMap) else plan.STOP
        self._tolerance = Tolerance(self.on_error) if isinstance(self.on_error, Skip) else None

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        """Make the generator; called once."""
        raise NotImplementedError

    @property
    def has_more(self) -> bool:
        """Whether it would give another value without being given one."""
        return False

    def held(self) -> list[Any]:
        """Hand out, and forget, what it holds."""
        return []

    def tick(self, now: float) -> None:
        """Hear what time it is."""

    @trio.lowlevel.enable_ki_protection
    def failed(self, error: BaseException, number: int, value: Any) -> Any:
        """Do what the policy says with a value at which the function raised: raise, or answer what takes its place."""
        policy, met = self.on_error, failure_of(error)
        if met is None or isinstance(policy, Stop) or isinstance(met, MisuseError):
            self.chain.failing(error, self.name, number, value)
        limit = None if self._tolerance is None else self._tolerance.failed(number + 1)
        if limit is not None:
            met = noted(met, self.name, number)
            add_note(met, limit)
            self.chain.failing(met, self.name, number, value)
        self.chain.failures[type(met).__name__] += 1
        if isinstance(policy, Emit):
            self.chain.as_failures += 1
            return Failure(value, noted(met, self.name, number), self.name, 1)
        self.chain.failed += 1
        return NOTHING

    def vet(self, result: Any) -> type:
        """Refuse a result that should have been awaited; answer its type, of which others need not be vetted."""
        if type(result) is not self._vetted:
            not_awaitable(self.name, result, self._use)
        self._vetted = type(result)
        return self._vetted


class PerItem(FusedOperation):
    """An operation that gives one value, or none, for each."""

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        apply, number = self.apply, 0
        for value in values:
            if value is NOTHING:
                yield NOTHING
                continue
            try:
                result = apply(value)
            except BaseException as error:  # noqa: ASYNC103  # `failing` raises
                self.chain.failing(error, self.name, number, value)
            number += 1
            if result is ENOUGH:
                self.chain.discard(value, NOT_NEEDED)
                return
            yield result

    def apply(self, value: Any) -> Any:
        """Answer the value that takes this one's place, `NOTHING`, or `ENOUGH`."""
        raise NotImplementedError

    def drop(self) -> Any:
        """Let the value fall."""
        self.dropped += 1
        return NOTHING


class Mapping(FusedOperation):
    """Each value becomes what the function answers."""

    def __init__(self, operation: plan.Map) -> None:
        super().__init__(operation)
        self._fn = operation.fn

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        # As in `PerItem`, but with the user's function called right here: a third less time for the commonest of all.
        fn, number, vetted = self._fn, 0, None
        for value in values:
            if value is NOTHING:
                yield NOTHING
                continue
            try:
                result = fn(value)
                if type(result) is not vetted:
                    vetted = self.vet(result)
            except BaseException as error:  # noqa: ASYNC103  # sync; `failed` raises what is no Exception
                yield self.failed(error, number, value)  # noqa: ASYNC104  # in here: later Ctrl-C could strike
            else:
                yield result
            number += 1


class Filtering(PerItem):
    """Only the values that the function says yes to."""

    def __init__(self, operation: plan.Filter | plan.SkipWhile | plan.TakeWhile) -> None:
        super().__init__(operation)
        self._fn = operation.fn

    def apply(self, value: Any) -> Any:
        return value if self.says_yes(value) else self.drop()

    def says_yes(self, value: Any) -> bool:
        """Ask the function; something to await would always say yes."""
        answer = self._fn(value)
        if answer is True or answer is False:
            return bool(answer)
        self.vet(answer)
        return bool(answer)


class SkippingWhile(Filtering):
    """The values from the first that the function says no to."""

    _skipping = True

    def apply(self, value: Any) -> Any:
        self._skipping = self._skipping and self.says_yes(value)
        return self.drop() if self._skipping else value


class TakingWhile(Filtering):
    """The values before the first that the function says no to."""

    def apply(self, value: Any) -> Any:
        return value if self.says_yes(value) else ENOUGH


class Scanning(FusedOperation):
    """Each value becomes the state so far."""

    def __init__(self, operation: plan.Scan) -> None:
        super().__init__(operation)
        self._fn, self._state = operation.fn, operation.initial.value

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        # Written out as in `Mapping`, for the same reason: `fold` is made of it.
        fn, state, number, vetted = self._fn, self._state, 0, None
        for value in values:
            if value is NOTHING:
                yield NOTHING
                continue
            try:
                state = fn(state, value)
                if type(state) is not vetted:
                    vetted = self.vet(state)
            except BaseException as error:  # noqa: ASYNC103  # `failing` raises
                self.chain.failing(error, self.name, number, value)
            number += 1
            yield state


class Tapping(PerItem):
    """The function sees each value; the value goes on."""

    def __init__(self, operation: plan.Tap) -> None:
        super().__init__(operation)
        self._fn = operation.fn

    def apply(self, value: Any) -> Any:
        self.vet(self._fn(value))
        return value


class Enumerating(PerItem):
    """Each value becomes ``(number, value)``."""

    def __init__(self, operation: plan.Enumerate) -> None:
        super().__init__(operation)
        self._number = operation.start - 1

    def apply(self, value: Any) -> Any:
        self._number += 1
        return self._number, value


class Skipping(PerItem):
    """All but the first values."""

    def __init__(self, operation: plan.Skip) -> None:
        super().__init__(operation)
        self._left = operation.count

    def apply(self, value: Any) -> Any:
        if not self._left:
            return value
        self._left -= 1
        return self.drop()


class Taking(FusedOperation):
    """The first values; it ends with the last of them, and pulls no further."""

    may_end = True

    def __init__(self, operation: plan.Take) -> None:
        super().__init__(operation)
        self._count = operation.count

    @trio.lowlevel.enable_ki_protection
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        left = self._count
        if not left:
            return
        for value in values:
            yield value
            left -= value is not NOTHING
            if not left:
                return
