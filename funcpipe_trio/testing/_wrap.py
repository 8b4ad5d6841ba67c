"""Watched steps: the same step, with each of its functions wrapped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

from .._base.functions import AnyFunction
from .._plan.steps import (
    Call,
    Coalesce,
    Fallback,
    Hedge,
    Limit,
    Part,
    Places,
    Pure,
    RunnerPlan,
    StepPlan,
    Within,
    layers_in,
)
from .._runtime.core.call_context import CallContext
from .._runtime.runners.active_runner import ActiveRunner, Admit, start_runner
from ..policies.circuit_breaker import CircuitBreaker
from ..policies.retry import Retry

__all__ = ["Watcher", "has_second_chances", "wrap_step"]


class Watcher(Protocol):
    """The object that watches the steps."""

    def call(self) -> None:
        """Called at each call of user code; may raise the error with which it is to fail."""

    def wrapped(self, fn: AnyFunction) -> AnyFunction:
        """Return the watched form of a function."""

    def opening(self, open_: AnyFunction) -> AnyFunction:
        """Return the watched form of what opens a resource."""

    def inside(self, result: Any) -> Any:
        """Return the watched form of a function's result."""


@dataclass(frozen=True)
class _Watched:
    """A runner whose calls are watched; their function is not wrapped, since it may have to be sent to a process."""

    inner: RunnerPlan
    watcher: Watcher

    def describe(self) -> str:
        return self.inner.describe()

    @property
    def place(self) -> str:
        return self.inner.place

    def problem(self, fn: AnyFunction) -> str | None:
        return self.inner.problem(fn)

    def start(self) -> ActiveRunner:
        return _WatchedRunning(start_runner(self.inner), self.watcher)


class _WatchedRunning:
    def __init__(self, inner: ActiveRunner, watcher: Watcher) -> None:
        self._inner = inner
        self._watcher = watcher

    async def call(self, fn: AnyFunction, item: Any, context: CallContext, admit: Admit | None) -> Any:
        async def watched(item: Any, context: CallContext) -> None:
            if admit is not None:
                await admit(item, context)
            self._watcher.call()

        return self._watcher.inside(await self._inner.call(fn, item, context, watched))


def has_second_chances(step: StepPlan) -> bool:
    """Return whether a failed call may not fail the step, or may fail another call."""
    again = Retry | CircuitBreaker | Fallback | Hedge | Coalesce
    return any(isinstance(layer, again) for layer in layers_in(step.parts))


def wrap_step(step: StepPlan, watcher: Watcher) -> StepPlan:
    """Return a step with all its user code watched."""
    return StepPlan(step.name, _parts(step.parts, watcher))


def _parts(parts: tuple[Part, ...], watcher: Watcher) -> tuple[Part, ...]:
    return tuple(_part(part, watcher) for part in parts)


def _part(part: Part, watcher: Watcher) -> Part:
    if isinstance(part, Call):
        if part.using is not None:
            part = replace(part, using=replace(part.using, open=watcher.opening(part.using.open)))
        if part.runner is not None:
            return replace(part, runner=_Watched(part.runner, watcher))
        return replace(part, fn=watcher.wrapped(part.fn))
    if isinstance(part, Pure):
        return Pure(watcher.wrapped(part.fn))
    layer = part.layer
    if isinstance(layer, Fallback):
        layer = Fallback(wrap_step(layer.step, watcher))
    elif isinstance(layer, Coalesce):
        layer = replace(layer, key=watcher.wrapped(layer.key))
    elif isinstance(layer, Limit | Places):
        asked = {name: getattr(layer, name, None) for name in ("cost", "key", "settle", "per_key")}
        wrapped: dict[str, Any] = {name: watcher.wrapped(fn) for name, fn in asked.items() if fn is not None}
        layer = replace(layer, **wrapped)
    elif isinstance(layer, Retry | CircuitBreaker) and not isinstance(layer.on, type | tuple):
        layer = replace(layer, on=watcher.wrapped(layer.on))
    if isinstance(layer, Retry) and layer.retry_after is not None:
        layer = replace(layer, retry_after=watcher.wrapped(layer.retry_after))
    return Within(_parts(part.inner, watcher), layer)
