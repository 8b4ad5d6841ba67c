"""What does a pool call for each async operation? A function of one item.

It returns a result, `PENDING` (the item is dropped), or `EndAt` (the stream ends before the item, or with it).

If the user gave a step instead of a function, the call also takes a `CallContext` and passes it to the policies of the
step; that is what ``*context`` stands for below.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..._base.functions import AnyFunction, is_async
from ..._plan import operations as plan
from ..._plan.failures import MapSome, OnOk, Recover
from ..._plan.steps import step_of
from ...policies.on_error import Divert, Failure
from ..core.call_context import CallContext, Layered
from ..core.protocols import Keeper
from ..core.signals import PENDING
from ..core.step_counters import StepCounters
from ..core.user_code import OR_CONCURRENCY, awaiting, interruptible, not_awaitable
from .calling import Calling, EndAt
from .layers import layers_of
from .started import StartedStep

Call = Callable[..., Awaitable[Any]]


def calling_of(
    operation: plan.Operation,
    counters_of: Callable[[str, object], StepCounters],
    keeper: Keeper,
    around: Callable[..., Layered] | None = None,
) -> Calling:
    """Make what a stage calls; again for each run, because some keep state.

    `counters_of` returns a step's counters; the keeper holds the resources of the run; `around` puts something around
    the function.
    """
    assert isinstance(operation, plan.WithFunction)
    is_layered = step_of(operation.fn) is not None
    fn = layered(operation.fn, keeper) if is_layered else operation.fn
    if isinstance(operation, plan.Concurrent) and not (is_layered or is_async(fn)):
        fn = awaiting(operation.name, fn) if operation.awaits else _at_once(operation.name, fn)
    counters = counters_of(operation.name, operation.fn) if is_layered else None
    if around is not None:
        fn, is_layered = around(fn, is_layered=is_layered), True
    on_error = operation.on_error if isinstance(operation, plan.Map | plan.FlatMap) else plan.STOP
    return Calling(
        _CALLS[type(operation)](operation, fn),
        is_layered=is_layered,
        counters=counters,
        on_error=on_error,
        divert=layered(on_error.step, keeper) if isinstance(on_error, Divert) else None,
        divert_counters=counters_of(f"{operation.name} (diverting)", on_error.step)
        if isinstance(on_error, Divert)
        else None,
        concerns=concern_of(operation) if isinstance(operation, MapSome) else None,
    )


def concern_of(operation: MapSome) -> Callable[[Any], bool]:
    """Return what says whether an item concerns an operation, so that its function is called with it."""
    of_failures = operation.of_failures
    return lambda item: isinstance(item, Failure) is of_failures


def layered(fn: Any, keeper: Keeper) -> Layered:
    """Return the layers of a step, new ones unless it was started before; an async function counts as a step."""
    if isinstance(fn, StartedStep):
        return fn.layered()
    step = step_of(fn)
    if step is not None:
        return layers_of(step, lambda: keeper)

    async def plain(item: Any, context: CallContext) -> Any:
        return await interruptible(fn, item)

    return plain


def _at_once(name: str, fn: AnyFunction) -> Call:
    """Make an async function of a sync one that has a stage only for its `OnError.divert`."""

    async def at_once(item: Any) -> Any:  # noqa: ASYNC124  # a pool awaits what it calls
        return not_awaitable(name, fn(item), OR_CONCURRENCY)

    return at_once


def _mapping(operation: plan.Map, fn: Call) -> Call:
    return fn


def _mapping_some(operation: MapSome, fn: Call) -> Call:
    concerns = concern_of(operation)

    async def call(item: Any, *context: CallContext) -> Any:
        return await fn(item, *context) if concerns(item) else item

    return call


def _filtering(operation: plan.Filter, fn: Call) -> Call:
    async def call(item: Any, *context: CallContext) -> Any:
        return item if await fn(item, *context) else PENDING

    return call


def _tapping(operation: plan.Tap, fn: Call) -> Call:
    async def call(item: Any, *context: CallContext) -> Any:
        await fn(item, *context)
        return item

    return call


def _scanning(operation: plan.Scan, fn: Call) -> Call:
    state = operation.initial.value

    async def call(item: Any) -> Any:
        nonlocal state
        state = await fn(state, item)
        return state

    return call


def _taking_while(operation: plan.TakeWhile, fn: Call) -> Call:
    async def call(item: Any, *context: CallContext) -> Any:
        return item if await fn(item, *context) else EndAt(item)

    return call


def _taking_until(operation: plan.TakeUntil, fn: Call) -> Call:
    async def call(item: Any, *context: CallContext) -> Any:
        return EndAt(item, is_last=True) if await fn(item, *context) else item

    return call


def _skipping_while(operation: plan.SkipWhile, fn: Call) -> Call:
    skipping = True

    async def call(item: Any, *context: CallContext) -> Any:
        nonlocal skipping
        skipping = skipping and bool(await fn(item, *context))
        return PENDING if skipping else item

    return call


_CALLS: dict[type[plan.Operation], Callable[[Any, Call], Call]] = {
    plan.Map: _mapping,
    OnOk: _mapping_some,
    Recover: _mapping_some,
    plan.FlatMap: _mapping,
    plan.Filter: _filtering,
    plan.Tap: _tapping,
    plan.Scan: _scanning,
    plan.TakeWhile: _taking_while,
    plan.TakeUntil: _taking_until,
    plan.SkipWhile: _skipping_while,
}
