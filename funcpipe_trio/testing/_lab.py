"""A watched pipeline: counts every call of user code, and every item where it is produced and where it arrives.

`Lab.wrap` returns the same plan with its functions and sources wrapped. So the campaigns can run any pipeline as it is,
and compare the run's report with counts that the run does not make itself.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, fields, replace
from types import TracebackType
from typing import Any

import trio

from .._base.functions import is_async, yields_async
from .._plan import operations as plan
from .._plan.failures import OrElse
from .._plan.fair_by import FairBy
from .._plan.loops import Again
from .._plan.nodes import Branch, FanIn, FanOut, Plan, Source, is_awaitable, plan_of
from .._plan.own import Through, WithState
from .._plan.resources import UsingSource
from .._plan.restarts import RestartingSource
from .._plan.timing import KeepAlive
from .._plan.windows import Sliding, Window
from .._runtime.calls.started import StartedStep
from ..pipeline import Pipeline
from ..policies.adaptive import Adaptive
from ..policies.fair_share import FairShare
from ..policies.on_error import Divert, Emit, OnError
from ..policies.on_full import OnFull
from ..policies.retry import Retry
from ..step import Step
from ._wrap import has_second_chances, wrap_step

__all__ = ["InjectedError", "Lab"]


class InjectedError(Exception):
    """What a campaign makes user code raise."""


@dataclass(slots=True)
class Sources:
    """How many iterators of user code were opened and closed."""

    opened: int = 0
    closed: int = 0


class Lab:
    """Independent counts of one run, to compare its report with.

    The consumer of a `Scenario` gets it and counts the items it takes.

    Attributes:
      delivered: items that the consumer took; it counts them itself.
      produced: items that the sources handed over.
      calls: calls of user code so far: the pipeline's functions, and each item of a source.
      discarded: ``(item, stage, reason)`` of each item that the run discarded.
      overflowed: the same for each item that a buffer dropped because of its overflow policy.
      fail_at: the number of the call that fails; None if none does.
      injected: the error that it raised; None before.
      sources: how many sources were opened and closed.
    """

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at: int | None = fail_at
        self.injected: InjectedError | None = None
        self.calls: int = 0
        self.produced: int = 0
        self.delivered: int = 0
        self.discarded: list[tuple[Any, str, str]] = []
        self.overflowed: list[tuple[Any, str, str]] = []
        """What an overflow policy dropped; it counts as dropped."""
        self.sources: Sources = Sources()
        self.all_counted: bool = True
        """Whether the items of every source in the plan are counted here."""
        self.one_to_one: bool = True
        """Whether each item taken becomes at most one item delivered."""
        self.goes_on: bool = False
        """Whether a merge in the plan goes on when an input fails."""
        self.is_resilient: bool = False
        """Whether the plan has policies that may handle a failure."""
        self._steps: dict[object, Step[Any, Any] | StartedStep[Any, Any]] = {}

    def call(self) -> None:
        """Count a call of user code, and fail if it is the one to fail."""
        self.calls += 1
        if self.calls == self.fail_at:
            self.injected = InjectedError(f"call {self.calls} of user code")
            raise self.injected

    def discard(self, item: Any, stage: str, reason: str) -> None:
        """Record an item that the run discards; pass this as ``on_discard``."""
        (self.overflowed if reason in plan.DROPS else self.discarded).append((item, stage, reason))

    def wrap(self, watched: Plan) -> Plan:
        """Return the plan with all its user code watched."""
        regrouping = (
            plan.Batch | plan.Unbatch | plan.FlatMap | Window | Sliding | WithState | Through | OrElse | KeepAlive
        )
        if any(isinstance(operation, regrouping) for operation in watched.operations):
            self.one_to_one = False
        if isinstance(watched.origin, FanIn):
            kind, on_error = watched.origin.kind, watched.origin.on_error
            makes = kind in ("zip", "zip_latest", "loop") or isinstance(on_error, Emit)
            self.one_to_one = self.one_to_one and not makes
            self.goes_on = self.goes_on or watched.origin.on_error != plan.STOP
            self.is_resilient = self.is_resilient or self.goes_on
            inputs = tuple((key, self.wrap(inner)) for key, inner in watched.origin.inputs)
            share, key = watched.origin.share, watched.origin.key
            origin: Source | FanIn | FanOut | Branch = replace(
                watched.origin,
                inputs=inputs,
                share=None if share is None else self._share(share),
                key=None if key is None else self.wrapped(key),
            )
        elif isinstance(watched.origin, FanOut):
            origin = self._fan_out(watched.origin)
        elif isinstance(watched.origin, Branch):
            origin = watched.origin
        else:
            origin = self._source(watched.origin)
        return Plan(origin, tuple(self._operation(operation) for operation in watched.operations))

    def _fan_out(self, fan_out: FanOut) -> FanOut:
        self.one_to_one = self.one_to_one and fan_out.kind != "broadcast"
        branches = tuple((branch, self.wrap(line)) for branch, line in fan_out.branches)
        route = None if fan_out.route is None else replace(fan_out.route, fn=self.wrapped(fan_out.route.fn))
        return replace(fan_out, trunk=self.wrap(fan_out.trunk), branches=branches, route=route)

    def _operation(self, operation: plan.Operation) -> plan.Operation:
        present = {field.name: getattr(operation, field.name) for field in fields(operation)}
        functions = [name for name in ("fn", "cost", "key") if present.get(name) is not None]
        wrapped: dict[str, Any] = {name: self.wrapped(present[name]) for name in functions}
        policy = present.get("on_error", plan.STOP)
        self.is_resilient = self.is_resilient or policy != plan.STOP
        if isinstance(policy, Divert):
            wrapped["on_error"] = OnError.divert(self.wrapped(policy.step))
        adaptive = present.get("concurrency")
        if isinstance(adaptive, Adaptive) and not isinstance(adaptive.on, type | tuple):
            wrapped["concurrency"] = replace(adaptive, on=self.wrapped(adaptive.on))
        if isinstance(operation, plan.Buffer) and isinstance(operation.overflow, OnFull):
            self.one_to_one = False
            wrapped["overflow"] = OnFull.merge(self.wrapped(operation.overflow.fn))
        if isinstance(operation, WithState):
            wrapped["make"] = self._made(operation.make)
        if isinstance(operation, Through):
            wrapped["fn"] = self._passing(operation.fn)
        if isinstance(operation, FairBy):
            wrapped["share"] = self._share(operation.share)
            if isinstance(operation.overflow, Divert):
                wrapped["overflow"] = OnError.divert(self.wrapped(operation.overflow.step))
        if isinstance(operation, Again) and isinstance(operation.full, Divert):
            wrapped["full"] = OnError.divert(self.wrapped(operation.full.step))
        return replace(operation, **wrapped)

    def _made(self, make: Callable[[], Any]) -> Callable[[], Any]:
        def made() -> Any:
            self.call()
            return _WatchedState(self, make())

        return functools.wraps(make, ("__name__",), ())(made) if hasattr(make, "__name__") else made

    def _passing(self, fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def passing(items: Any) -> Any:
            self.call()
            made = fn(items)
            return _WatchedStream(self, made) if hasattr(type(made), "__aiter__") else made

        return passing

    def _share(self, share: FairShare[Any]) -> FairShare[Any]:
        return share if share.cost is None else replace(share, cost=self.wrapped(share.cost))

    def _step(self, step: Step[Any, Any] | StartedStep[Any, Any]) -> Callable[..., Any]:
        """Wrap a step; wrap a started one once, for all that share it."""
        if step not in self._steps:
            wrapped = wrap_step(step.plan, self)
            self.is_resilient = self.is_resilient or has_second_chances(wrapped)
            is_started = isinstance(step, StartedStep)
            self._steps[step] = StartedStep(wrapped) if is_started else Step.from_plan(wrapped)
        return self._steps[step]

    def wrapped(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return the watched form of a function or step."""
        if isinstance(fn, Step | StartedStep):
            return self._step(fn)
        if yields_async(fn):

            async def generate(*args: Any) -> AsyncIterator[Any]:
                self.call()
                children = fn(*args)
                self.sources.opened += 1
                try:
                    async for child in children:
                        yield child
                finally:
                    self.sources.closed += 1
                    with trio.move_on_after(5, shield=True):
                        await children.aclose()

            return functools.update_wrapper(generate, fn)
        if is_async(fn):

            async def wait(*args: Any) -> Any:
                self.call()
                return self.inside(await fn(*args))

            return functools.update_wrapper(wait, fn)

        def call(*args: Any) -> Any:
            self.call()
            return self.inside(fn(*args))

        try:
            return functools.update_wrapper(call, fn)
        except (AttributeError, TypeError):
            return call

    def inside(self, result: Any) -> Any:
        """If a function returned a pipeline, watch that as well."""
        inner = plan_of(result)
        return result if inner is None else Pipeline(_InnerLab(self).wrap(inner))

    # ---- sources

    def _source(self, source: Source) -> Source:
        origin = source.origin.value
        if source.kind == "iterable":
            return replace(source, origin=plan.Opaque(lambda: _WatchedIterator(self, origin)))
        if source.kind == "async iterable":
            return replace(source, origin=plan.Opaque(lambda: _WatchedAsyncIterator(self, origin)))
        if isinstance(source, RestartingSource):
            self.is_resilient = True
            return replace(source, origin=plan.Opaque(lambda: self._reopened(origin)), retry=self._retry(source.retry))
        if isinstance(source, UsingSource):
            fn = plan.Opaque(functools.partial(self._given, origin))
            return replace(source, origin=fn, open=self.opening(source.open))
        if source.kind == "producer":
            return replace(source, origin=plan.Opaque(functools.partial(self._produce, origin)))
        if source.kind == "channel":
            kind = _WatchedMemoryReceive if hasattr(origin, "receive_nowait") else _WatchedReceive
            return replace(source, origin=plan.Opaque(kind(self, origin)))
        self.all_counted = False
        return source

    def _retry(self, retry: Retry) -> Retry:
        return retry if isinstance(retry.on, type | tuple) else replace(retry, on=self.wrapped(retry.on))

    def opening(self, open_: Callable[[], Any]) -> Callable[[], Any]:
        """Return the watched form of what opens a resource."""
        return functools.partial(_WatchedManager, self, open_)

    def _given(self, fn: Callable[[Any], Any], resource: Any) -> Any:
        """Take what a function gives of a resource."""
        self.call()
        made = fn(resource)
        if plan_of(made) is None:
            return self._watched(made)
        self.all_counted = self.one_to_one = False  # its items are those of another run
        return self.inside(made)

    def _reopened(self, origin: Callable[[], Any]) -> Any:
        """Open a source that may be opened repeatedly."""
        self.call()
        return self._watched(origin())

    def _watched(self, made: Any) -> Any:
        return (_WatchedAsyncIterator if hasattr(type(made), "__aiter__") else _WatchedIterator)(self, made)

    async def _produce(self, origin: Callable[[Any], Any], channel: trio.MemorySendChannel[Any]) -> None:
        self.sources.opened += 1
        try:
            self.call()
            await origin(_WatchedSend(self, channel))
        finally:
            self.sources.closed += 1


class _InnerLab(Lab):
    """Watches a pipeline inside another: its calls and sources count with the outer ones, its items do not."""

    def __init__(self, outer: Lab) -> None:
        super().__init__()
        self._outer = outer
        self.sources = outer.sources
        self._steps = outer._steps

    def call(self) -> None:
        self._outer.call()

    def wrap(self, watched: Plan) -> Plan:
        wrapped = super().wrap(watched)
        self._outer.is_resilient = self._outer.is_resilient or self.is_resilient
        return wrapped


class _WatchedState:
    """The object of a stateful operation: each call that gives something counts."""

    def __init__(self, lab: Lab, inner: Any) -> None:
        self._lab = lab
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        is_watched = name in ("push", "flush", "tick") and callable(method)  # it may be None
        return self._lab.wrapped(method) if is_watched else method


class _WatchedIterator:
    """A watched sync source; not a generator, which the garbage collector would close if nothing else did."""

    def __init__(self, lab: Lab, origin: Any) -> None:
        self._lab = lab
        self._inner = iter(origin if hasattr(type(origin), "__iter__") else origin())
        self._open = True
        lab.sources.opened += 1

    def __iter__(self) -> _WatchedIterator:
        return self

    def __next__(self) -> Any:
        try:
            item = next(self._inner)
            self._lab.call()
        except BaseException:  # it has ended, normally or not
            self.close()
            raise
        self._lab.produced += 1
        return item

    def close(self) -> None:
        self._lab.sources.closed += self._open
        self._open = False
        if hasattr(self._inner, "close"):
            self._inner.close()


class _WatchedAsyncIterator:
    """A watched async source; only the task that opened it may close it."""

    def __init__(self, lab: Lab, origin: Any) -> None:
        self._lab = lab
        self._inner = aiter(origin if hasattr(type(origin), "__aiter__") else origin())
        self._open = True
        self._task = trio.lowlevel.current_task()
        lab.sources.opened += 1

    def __aiter__(self) -> _WatchedAsyncIterator:
        return self

    async def __anext__(self) -> Any:
        try:
            item = await anext(self._inner)
            self._lab.call()
        except StopAsyncIteration:
            self._shut()
            raise
        self._lab.produced += 1
        return item

    async def aclose(self) -> None:
        self._shut()
        if hasattr(self._inner, "aclose"):
            await self._inner.aclose()

    def _shut(self) -> None:
        if self._open and trio.lowlevel.current_task() is self._task:  # by another task it counts as left open
            self._open = False
            self._lab.sources.closed += 1


class _WatchedManager:
    """The context manager of a resource, async or sync; only the task that entered it may leave it."""

    def __init__(self, lab: Lab, open_: Callable[[], Any]) -> None:
        lab.call()
        self._lab = lab
        self._inner = open_()
        self._task: trio.lowlevel.Task | None = None

    async def __aenter__(self) -> Any:
        if is_awaitable(self._inner) and not hasattr(type(self._inner), "__aenter__"):
            self._inner = await self._inner
        is_async = hasattr(type(self._inner), "__aenter__")
        resource = await self._inner.__aenter__() if is_async else self._inner.__enter__()
        self._task = trio.lowlevel.current_task()
        self._lab.sources.opened += 1
        return resource

    async def __aexit__(self, *error: Any) -> Any:
        self._lab.sources.closed += trio.lowlevel.current_task() is self._task
        if hasattr(type(self._inner), "__aexit__"):
            return await self._inner.__aexit__(*error)  # noqa: ASYNC102  # the run shields it
        return self._inner.__exit__(*error)


class _WatchedStream:
    """The generator of a `through`: what is thrown into it must reach it, because it may hold scopes open."""

    def __init__(self, lab: Lab, made: Any) -> None:
        self._lab = lab
        self._inner = aiter(made)
        self._open = True
        lab.sources.opened += 1

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # `athrow`, if it has that

    def __aiter__(self) -> _WatchedStream:
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._inner)
        except BaseException:  # it has ended, normally or not
            self._shut()
            raise

    async def aclose(self) -> None:
        self._shut()
        if hasattr(self._inner, "aclose"):
            await self._inner.aclose()

    def _shut(self) -> None:
        self._lab.sources.closed += self._open
        self._open = False


class _WatchedReceive(trio.abc.ReceiveChannel[Any]):
    """The channel of a source: counts what it returned."""

    def __init__(self, lab: Lab, inner: Any) -> None:
        self._lab = lab
        self._inner = inner
        self._asked = self._closed = False

    async def receive(self) -> Any:
        self._ask()
        self._lab.call()
        return self._count(await self._inner.receive())

    async def aclose(self) -> None:
        self._lab.sources.closed += self._asked and not self._closed
        self._closed = True
        await self._inner.aclose()

    def _ask(self) -> None:
        self._lab.sources.opened += not self._asked
        self._asked = True

    def _count(self, item: Any) -> Any:
        self._lab.produced += 1
        return item


class _WatchedMemoryReceive(_WatchedReceive):
    """A channel that can also receive without waiting, as trio's memory channels can."""

    def receive_nowait(self) -> Any:
        self._ask()
        self._lab.call()
        return self._count(self._inner.receive_nowait())


class _WatchedSend:
    """The channel of a producer: counts what was accepted."""

    def __init__(self, lab: Lab, inner: trio.MemorySendChannel[Any]) -> None:
        self._lab = lab
        self._inner = inner

    async def send(self, value: Any) -> None:
        self._lab.call()
        await self._inner.send(value)
        self._lab.produced += 1

    def send_nowait(self, value: Any) -> None:
        self._lab.call()
        self._inner.send_nowait(value)
        self._lab.produced += 1

    def clone(self) -> _WatchedSend:
        return _WatchedSend(self._lab, self._inner.clone())

    def close(self) -> None:
        self._inner.close()

    async def aclose(self) -> None:
        await self._inner.aclose()

    def statistics(self) -> Any:
        return self._inner.statistics()

    def __enter__(self) -> _WatchedSend:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> _WatchedSend:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
