"""The async operations as calls on one item: a result, `NOTHING` (dropped), or `Enough` (the stream ends before it)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..plan import operations as plan
from .inlet import NOTHING
from .pool import Enough

__all__ = ["call_of"]

Call = Callable[[Any], Awaitable[Any]]


def call_of(operation: plan.Operation) -> Call:
    """Make the call of an async operation; fresh for each run, for some keep state."""
    return _CALLS[type(operation)](operation)


def _mapping(operation: plan.Map) -> Call:
    return operation.fn


def _filtering(operation: plan.Filter) -> Call:
    async def call(item: Any) -> Any:
        return item if await operation.fn(item) else NOTHING

    return call


def _tapping(operation: plan.Tap) -> Call:
    async def call(item: Any) -> Any:
        await operation.fn(item)
        return item

    return call


def _scanning(operation: plan.Scan) -> Call:
    state = operation.initial.value

    async def call(item: Any) -> Any:
        nonlocal state
        state = await operation.fn(state, item)
        return state

    return call


def _taking_while(operation: plan.TakeWhile) -> Call:
    async def call(item: Any) -> Any:
        return item if await operation.fn(item) else Enough(item)

    return call


def _skipping_while(operation: plan.SkipWhile) -> Call:
    skipping = True

    async def call(item: Any) -> Any:
        nonlocal skipping
        skipping = skipping and bool(await operation.fn(item))
        return NOTHING if skipping else item

    return call


_CALLS: dict[type[plan.Operation], Callable[[Any], Call]] = {
    plan.Map: _mapping,
    plan.Filter: _filtering,
    plan.Tap: _tapping,
    plan.Scan: _scanning,
    plan.TakeWhile: _taking_while,
    plan.SkipWhile: _skipping_while,
}
