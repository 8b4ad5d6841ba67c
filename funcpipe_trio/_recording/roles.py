"""Which parts does a user's function play in a plan? Each is replaced: by one that records it, or by one that plays it.

A function matters to a run in four ways: how long it takes, what it answers where the plan asks (a filter, a key, a
cost, a branch), how many values it makes of one, and how it fails. `Roles` walks over a plan and asks for the
replacement of each function by its role; the plan is otherwise the same, with the same names.

It replaces nothing itself, and runs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any, Final

import trio

from .._base import checks
from .._base.errors import MisuseError
from .._base.functions import AnyFunction, function_name, is_async
from .._plan import operations as ops
from .._plan.failures import OnEnd, OrElse
from .._plan.fair_by import FairBy
from .._plan.loops import Again
from .._plan.nodes import FanIn, Plan, Source, is_awaitable
from .._plan.own import Through, WithState
from .._plan.settings import Kind, PlanPart, rebuilt, visit
from .._plan.steps import Admitting, Call, Limit, Places, StepPlan, step_of
from .._plan.timing import KeepAlive, StopWhen
from .._plan.windows import Distinct
from .._runtime.core.call_context import ContextFunction, Layered
from .._runtime.core.user_code import awaiting

_DECISIONS = ops.Filter | ops.TakeWhile | ops.TakeUntil | ops.SkipWhile


class Roles:
    """Asks for the replacement of each function of a plan, by its role; each method returns the replacement."""

    def replaced(self, plan: Plan) -> Plan:
        """Return the plan with all functions replaced."""
        return rebuilt(plan, self._part)

    # ---- by role, for subclasses

    def source(self, name: str, source: Source) -> Source:
        """Where items come from."""
        raise NotImplementedError

    def call(self, name: str, path: str, call: Call) -> Call:
        """A call of a step: of an async function, or of a sync one on a runner."""
        raise NotImplementedError

    def started(self, name: str, path: str, step: Any) -> Layered:
        """A step that was started, and may be shared with others: one call, with all of its policies."""
        raise NotImplementedError

    def limit(self, limit: Admitting) -> Admitting:
        """A rate limit, or places, whose limiter is shared with others."""
        raise NotImplementedError

    def limit_key(self, name: str, path: str, fn: AnyFunction, limiter: Any) -> AnyFunction:
        """Whose share of a limiter an item takes."""
        raise NotImplementedError

    def function(self, name: str, path: str, fn: AnyFunction) -> Layered:
        """An async function of an item."""
        raise NotImplementedError

    def folding(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        """An async function of a state and an item."""
        raise NotImplementedError

    def value(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        """A sync function that gives a value, or whose result is not used."""
        raise NotImplementedError

    def maker(self, name: str, fn: AnyFunction) -> AnyFunction:
        """A sync function without arguments that makes an item."""
        raise NotImplementedError

    def stop(self, name: str, fn: AnyFunction) -> AnyFunction:
        """An async function without arguments, at whose return a stream ends."""
        raise NotImplementedError

    def answer(self, name: str, path: str, fn: AnyFunction, plain: Callable[[Any], Any]) -> AnyFunction:
        """A sync function whose answer the plan uses; `plain` returns the answer as it is kept, or raises."""
        raise NotImplementedError

    def route(self, name: str, fn: AnyFunction, branches: tuple[str, ...]) -> AnyFunction:
        """A sync function that names one of the branches."""
        return self.answer(name, "fn", fn, partial(_branch, branches))

    def key(self, name: str, path: str, fn: AnyFunction, known: tuple[Any, ...]) -> AnyFunction:
        """A sync function that gives a key; keys that are `known` stand in the plan."""
        raise NotImplementedError

    def order(self, key: AnyFunction | None) -> AnyFunction | None:
        """What a merge of sorted inputs compares; in a recording the order is noted where the run makes it."""
        return key

    def cost(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        """A sync function that says what an item costs."""
        return self.answer(name, path, fn, plain_cost)

    def share_cost(self, cost: AnyFunction | None) -> AnyFunction | None:
        """What an item of a merge costs; items of different inputs come in any order: it is noted for each input."""
        return cost

    def children(self, name: str, path: str, fn: AnyFunction) -> AnyFunction:
        """A sync function that gives an iterable, sync, within a stage."""
        raise NotImplementedError

    def again(self, name: str, fn: AnyFunction) -> AnyFunction:
        """A sync function that gives an iterable of new work for a loop."""
        return self.children(name, "fn", fn)

    def stream(self, name: str, fn: AnyFunction) -> Layered:
        """A function, sync or async, that gives an iterable, sync or async, or a pipeline, in a stage of its own."""
        raise NotImplementedError

    def state(self, name: str, make: AnyFunction, *, is_timed: bool) -> AnyFunction:
        """What makes an object with state; `is_timed` if that may act at times."""
        raise NotImplementedError

    def through(self, name: str, fn: AnyFunction) -> AnyFunction:
        """An async generator function over the stream."""
        raise NotImplementedError

    def pipeline(self, name: str, fn: AnyFunction) -> AnyFunction:
        """A function without arguments that gives a pipeline."""
        raise NotImplementedError

    def decision(self, name: str) -> Layered:
        """What is called with the answer of an async function, and returns it."""
        raise NotImplementedError

    def matcher(self, name: str, path: str, on: Any) -> Any:
        """Which errors a policy means."""
        raise NotImplementedError

    def wait(self, name: str, path: str, retry_after: AnyFunction) -> AnyFunction:
        """What says how long to wait after an error."""
        raise NotImplementedError

    def setting(self, path: str, value: Any) -> Any:
        """A setting."""
        return value

    # ---- the walk

    def _part(self, name: str, part: PlanPart) -> PlanPart:
        if isinstance(part, Source):
            return self.source(name, part)

        limiters: dict[str, Any] = {}  # those that are shared, by the paths of the limits

        def change(path: str, value: Any, kind: Kind) -> Any:
            if kind == "call":
                return self.call(name, path, value)
            if kind == "shared" and isinstance(value, Limit | Places):
                limiters[path.rpartition(".")[0]] = value.limiter
                return self.limit(value)
            if kind == "shared":
                return self._started(name, path, value, part)
            if value is not None and path.endswith(".key") and (limiter := limiters.get(path.rpartition(".")[0])):
                return self.limit_key(name, path, value, limiter)
            return self._code(name, path, value, part) if kind == "code" else self.setting(path, value)

        return self._with_tail(name, visit(part, change))

    def _code(self, name: str, path: str, value: Any, part: PlanPart) -> Any:
        word = path.rpartition(".")[2].partition("#")[0]
        if word == "fn":
            return self._function(name, value, part)
        if isinstance(part, WithState) and word == "make":
            return self.state(name, value, is_timed=part.is_timed)
        if word == "per_key":
            return self.key(name, path, value, ())
        if word == "key":
            return self._key(name, path, value, part)
        if word == "settle":
            return None if value is None else self.cost(name, path, value)
        if word == "cost":
            if isinstance(part, FanIn):
                return self.share_cost(value)
            # A buffer has the name of the stage that it ends, whose function may have a cost, too.
            place = f"buffer.{path}" if isinstance(part, ops.Buffer) else path
            return None if value is None else self.cost(name, place, value)
        if word == "retry_after":
            return None if value is None else self.wait(name, path, value)
        if word == "on":
            return self.matcher(name, path, value)
        if word == "pure":
            return self.value(name, path, value)
        if word == "step" and callable(value):
            return _Stand(value, self.function(name, path, value))
        return value

    def _function(self, name: str, fn: AnyFunction, part: Any) -> AnyFunction:
        """Replace the function of an operation, which is not a step."""
        if isinstance(part, ops.Buffer):  # it has the name of the stage that it ends
            return self.value(name, "overflow.fn", fn)
        if isinstance(part, StopWhen):
            return self.stop(name, fn)
        if isinstance(part, KeepAlive):
            return self.maker(name, fn)
        if isinstance(part, Through):
            return self.through(name, fn)
        if isinstance(part, ops.FlatMap):
            return _Stand(fn, self.stream(name, fn)) if part.needs_stage else self.children(name, "fn", fn)
        if isinstance(part, Again):
            return self.again(name, fn)
        if isinstance(part, OrElse):
            return self.pipeline(name, fn)
        if isinstance(part, OnEnd):
            return partial(self.folding(name, "fn", partial(_told, fn)), None)
        awaits = isinstance(part, ops.Concurrent) and part.awaits
        if is_async(fn) or awaits:
            awaited = fn if is_async(fn) else awaiting(name, fn)
            if isinstance(part, ops.Scan):
                return self.folding(name, "fn", awaited)
            return _Stand(fn, self.function(name, "fn", awaited), *self._tail(name, part))
        if isinstance(part, _DECISIONS):
            return self.answer(name, "fn", fn, _truth)
        return self.route(name, fn, part.branches) if isinstance(part, ops.Route) else self.value(name, "fn", fn)

    def _key(self, name: str, path: str, key: Any, part: PlanPart) -> Any:
        if isinstance(part, FanIn):
            return self.order(key)
        if key is None:  # of `distinct`: the item is its own key
            return self.key(name, path, _itself, ()) if isinstance(part, Distinct) else None
        return self.key(name, path, key, tuple(part.share.weights) if isinstance(part, FairBy) else ())

    # ---- what is done with the result of a step

    def _with_tail(self, name: str, part: PlanPart) -> PlanPart:
        """Let an operation see what a step of its answers."""
        step: Any = part.fn if isinstance(part, ops.WithFunction) else None
        plan = step_of(step)
        if plan is None or not hasattr(type(step), "from_plan"):
            return part
        tail = [_call(each, plan.name) for each in self._tail(name, part)]
        made = type(step).from_plan(StepPlan(plan.name, (*plan.parts, *tail)))
        return replace(part, fn=made) if tail else part  # type: ignore[call-arg]  # it has one

    def _tail(self, name: str, part: Any) -> list[Layered]:
        """Return what is called with the result of an operation's step: at most one function."""
        if isinstance(part, ops.FlatMap):
            return [self.stream(name, _itself)]
        return [self.decision(name)] if isinstance(part, _DECISIONS) else []

    def _started(self, name: str, path: str, step: Any, part: PlanPart) -> Any:
        tail = self._tail(name, part) if path == "started" else []
        return _Stand(step, self.started(name, path, step), *tail)


def plain_cost(cost: Any) -> int | float | Fraction:
    """Return a cost as an exact number or a float, of a size that a file can hold; anything else is refused."""
    if isinstance(cost, float):
        return float(checks.number("Recorder", "cost", cost))
    if isinstance(cost, bool) or not isinstance(cost, int | Fraction):
        raise TypeError("a cost must be a number")
    bounded = max(-1, min(cost, _GREATEST))  # one below 0 is refused by the run
    return int(bounded) if isinstance(bounded, int) else Fraction(bounded).limit_denominator(_GREATEST)


_GREATEST: Final = 10**300
"""The greatest cost that is kept, and the greatest denominator of one."""


def _truth(answer: Any) -> bool:
    """Return an answer as a bool; one that nobody awaits is refused."""
    if is_awaitable(answer):
        raise MisuseError("an answer must not be awaitable")
    return bool(answer)


def _branch(branches: tuple[str, ...], answer: Any) -> str:
    """Return the name of the branch that was answered; what is none is refused, because it may be an item."""
    return branches[branches.index(answer)]


async def _told(fn: AnyFunction, _state: None, ending: Any) -> None:
    """Call a function that may be async."""
    answer = fn(ending)
    if is_awaitable(answer):
        await answer


def _itself(item: Any) -> Any:
    return item


class _Stand:
    """A step of some calls, in the place of a function or of a step that was started; as a step it knows its item."""

    def __init__(self, fn: AnyFunction, *calls: Layered) -> None:
        name = function_name(fn)
        self.plan: StepPlan = StepPlan(name, tuple([_call(each, name) for each in calls]))  # one after the other

    async def __call__(self, item: Any) -> Any:
        """Never called: it is a step."""
        raise NotImplementedError


def _call(layered: Layered, name: str) -> Call:
    return Call(ContextFunction(trio.lowlevel.disable_ki_protection(layered)), name, idempotent=True)
