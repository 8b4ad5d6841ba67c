"""Steps under watch: the same step, with each of its functions wrapped, and the clock held while a thread works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import trio
import trio.testing

from ..plan.steps import Call, Layer, Limit, Part, Pure, RunnerPlan, StepPlan, Within
from ..policies._functions import AnyFunction
from ..policies.circuit_breaker import CircuitBreaker
from ..policies.retry import Retry
from ..runtime.attempt import Attempt
from ..runtime.running import Running, start_runner

__all__ = ["Workshop", "has_second_chances", "wrap_step"]

Wrap = Callable[[AnyFunction], AnyFunction]


class Workshop:
    """Calls in threads and processes at this moment: while there are some, virtual time must not jump.

    To trio's clock a task that waits for a thread is idle, so the clock would jump to the next deadline, and the thread
    would seem to have taken that long. A task that waits for idleness itself goes first; so one is kept that does.
    """

    def __init__(self) -> None:
        self.is_used: bool = False
        """Whether anything may work there."""
        self._working = 0
        self._began = trio.Event()

    async def hold_clock(self) -> None:
        """Keep time still while somebody works; never returns."""
        while True:
            await self._began.wait()
            self._began = trio.Event()
            while self._working:
                await trio.testing.wait_all_tasks_blocked(0.0005)

    def begin(self) -> None:
        """Hear that a call begins."""
        self._working += 1
        self._began.set()

    def end(self) -> None:
        """Hear that it has come back."""
        self._working -= 1


@dataclass(frozen=True)
class _Watched:
    """A runner that tells the workshop."""

    inner: RunnerPlan
    workshop: Workshop

    def describe(self) -> str:
        return self.inner.describe()

    def problem(self, fn: AnyFunction) -> str | None:
        return None  # a wrapped function is not what the runner would see

    def start(self) -> Running:
        return _WatchedRunning(start_runner(self.inner), self.workshop)


class _WatchedRunning:
    def __init__(self, inner: Running, workshop: Workshop) -> None:
        self._inner = inner
        self._workshop = workshop

    async def call(self, fn: AnyFunction, item: Any, attempt: Attempt, admit: Any) -> Any:
        async def admitted(item: Any, attempt: Attempt) -> None:
            if admit is not None:
                await admit(item, attempt)
            self._workshop.begin()
            begun.append(True)

        begun: list[bool] = []
        try:
            return await self._inner.call(fn, item, attempt, admitted)
        finally:
            if begun:
                self._workshop.end()


def has_second_chances(step: StepPlan) -> bool:
    """Tell whether a failed call may be no failure of the step, or the failure of another call."""
    return any(isinstance(layer, Retry | CircuitBreaker) for layer in _layers(step.parts))


def _layers(parts: tuple[Part, ...]) -> Iterator[Layer]:
    for part in parts:
        if isinstance(part, Within):
            yield part.layer
            yield from _layers(part.inner)


def wrap_step(step: StepPlan, wrap: Wrap, workshop: Workshop) -> StepPlan:
    """Give a step with all of its user code wrapped."""
    return StepPlan(step.name, _parts(step.parts, wrap, workshop))


def _parts(parts: tuple[Part, ...], wrap: Wrap, workshop: Workshop) -> tuple[Part, ...]:
    return tuple(_part(part, wrap, workshop) for part in parts)


def _part(part: Part, wrap: Wrap, workshop: Workshop) -> Part:
    if isinstance(part, Call):
        workshop.is_used = workshop.is_used or part.runner is not None
        runner = None if part.runner is None else _Watched(part.runner, workshop)
        return replace(part, fn=wrap(part.fn), runner=runner)
    if isinstance(part, Pure):
        return Pure(wrap(part.fn))
    layer = part.layer
    if isinstance(layer, Limit) and layer.cost is not None:
        layer = replace(layer, cost=wrap(layer.cost))
    elif isinstance(layer, Retry | CircuitBreaker) and not isinstance(layer.on, type | tuple):
        layer = replace(layer, on=wrap(layer.on))
    if isinstance(layer, Retry) and layer.retry_after is not None:
        layer = replace(layer, retry_after=wrap(layer.retry_after))
    return Within(_parts(part.inner, wrap, workshop), layer)
