"""Fused operations at run time: how does an operation run without a task, a link or a queue of its own?

The rule: each is an ordinary generator over the values of the one before it. It answers each value at once, with a
value or with `PENDING` (no value comes of this one), and passes `PENDING` on; it never loops by itself, so the stage
that drives it sees every step, and can count, stop or let others run between any two.

An error of the user's function is reported to the chain with the operation's name and the item's number, and then
passes through the generators behind, so that one that collects (a batch) hands out what came before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import trio

from ..._base.errors import is_misuse
from ..._plan import operations as plan
from ..._sansio.tolerance import Tolerance
from ...policies.on_error import Emit, Failure, OnError, Skip, Stop
from ..core.failures import add_note, failure_of, noted
from ..core.protocols import OperationChain
from ..core.signals import PENDING
from ..core.user_code import ASYNC_DEF, OR_CONCURRENCY, not_awaitable


class FusedOperation:
    """What all fused operations share: a name, the chain they are in, and counters."""

    deadline: float = math.inf
    """When it will have a value to give even if none comes, by trio's clock."""

    may_end = False
    """Whether it may end the stream, or give a value, when it is asked though nothing is there for it."""

    may_keep = False
    """Whether it may ever have more to give without being given a value."""

    def __init__(self, operation: plan.Operation) -> None:
        self.name = operation.name  # as plans, reports and errors call it
        self.chain: OperationChain  # the chain that it is fused into; set by that
        self.dropped = 0  # values that it dropped
        self.created = 0  # values that it made of others, if it does not make one of one
        self.absorbed = 0  # values that went into those
        self._vetted: type | None = None  # of the last result that was vetted
        # What an error about an async function advises.
        self._use = OR_CONCURRENCY if isinstance(operation, plan.Concurrent | plan.FlatMap) else ASYNC_DEF
        # What is done at an item at which the function raises.
        self.on_error: OnError = operation.on_error if isinstance(operation, plan.Map | plan.FlatMap) else plan.STOP
        # How many failures `Skip` lets pass; None without that policy.
        self._tolerance = Tolerance(self.on_error) if isinstance(self.on_error, Skip) else None

    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        """Return the generator of its values over those of the one before it; called once."""
        raise NotImplementedError

    @property
    def has_more(self) -> bool:
        """Whether it would give another value without being given one."""
        return False

    @property
    def is_through(self) -> bool:
        """Whether it still counts a value as held of which nothing more will come: it finds out in the next pull."""
        return False

    def held(self) -> list[Any]:
        """Hand out, and forget, what it holds."""
        return []

    def tick(self, now: float) -> None:
        """Called with the time before each burst, in a stage that minds the clock."""

    @trio.lowlevel.enable_ki_protection
    def failed(self, error: BaseException, number: int, value: Any) -> Any:
        """Apply the policy to a value at which the function raised: raise, or return what takes its place."""
        policy, met = self.on_error, failure_of(error)
        if met is None or isinstance(policy, Stop) or is_misuse(met):
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
        return PENDING

    def vet(self, result: Any) -> type:
        """Refuse a result that should have been awaited; return its type: others of that need not be vetted."""
        if type(result) is not self._vetted:
            not_awaitable(self.name, result, self._use)
        self._vetted = type(result)
        return self._vetted
