"""How does a step become something to call? Each policy becomes a function around the one inside it.

A *layered* function takes an item and its `CallContext`, which carries the item's number inwards and what happened to
it outwards. The state that policies share between items (tokens, circuits, threads) is made here, once for each start
of the step; what one item needs (its attempts, its deadline) is in its own call.

    inside out, for example:   the user's function  ->  rate limit  ->  timeout  ->  retry  ->  timeout

A call in a runner waits for its place first; the rate limits and the timeout directly around it begin when it has one
(`Placed`). Rate limits with nothing between them are met together, at one instant (`limits_around`).

Only a failure is ever handled; a cancellation passes through every layer, each of which restores its own state.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import trio

from ..._base.errors import is_misuse
from ..._base.functions import AnyFunction, is_async
from ..._base.shown import type_name
from ..._plan.nodes import is_awaitable
from ..._plan.steps import (
    Admitting,
    Call,
    Coalesce,
    Fallback,
    Hedge,
    Layer,
    Limit,
    Part,
    Placed,
    Places,
    Pure,
    StepPlan,
    Timeout,
    keeps_place_inside,
    layers_in,
    limits_around,
)
from ..._sansio.retrying import RetryState
from ...policies.circuit_breaker import CircuitBreaker
from ...policies.retry import Retry
from ..core.call_context import CALL, Around, CallContext, ContextFunction, Layered
from ..core.failures import add_note, failure_of, follow
from ..core.protocols import Keeper
from ..core.user_code import awaiting, interruptible, refuse_awaitable
from ..runners.active_runner import start_runner
from .admission import AnyAdmission, admission_of

if TYPE_CHECKING:
    from .circuit import Circuit


Circuits: TypeAlias = "list[Circuit]"
"""The circuits of a step, from the inside out."""


def layers_of(
    plan: StepPlan, keeper: Callable[[], Keeper], circuits: Circuits | None = None, *, callers_leave: bool = False
) -> Layered:
    """Make a step callable, with new state; append its circuits to a list.

    `keeper` returns what holds its resources open and has its tasks; it is asked when there is one. `callers_leave`
    says whether a caller may be cancelled while others go on: they are not workers of one run.
    """
    return _row(plan.parts, _Making(plan.name, [] if circuits is None else circuits, keeper, [], callers_leave, False))


class _Making(NamedTuple):
    """A step whose layers are made."""

    name: str
    """The name of the step."""
    circuits: Circuits
    """Those that were made for it."""
    keeper: Callable[[], Keeper]
    """Returns what holds its resources open, and has its tasks."""
    admissions: list[AnyAdmission]
    """What was made for its limits."""
    callers_leave: bool
    """Whether one that calls what is made may be cancelled while others go on."""
    keeps_place: bool
    """Whether an item must keep its place of a stage while it waits in what is made."""

    def inside(self, *layers: Layer) -> _Making:
        """Return the same for what is inside of policies."""
        return self._replace(
            callers_leave=self.callers_leave or any(isinstance(each, Timeout | Hedge) for each in layers),
            keeps_place=self.keeps_place or any(map(keeps_place_inside, layers)),
        )

    def admission(self, limits: tuple[Admitting, ...]) -> AnyAdmission:
        """Make what calls wait for, and note it."""
        self.admissions.append(admission_of(limits))
        return self.admissions[-1]


def _row(parts: tuple[Part, ...], making: _Making) -> Layered:
    """Make one function of parts that follow each other: a loop, because a row may be longer than the stack is deep."""
    made = [_part(part, making) for part in parts]
    if len(made) == 1:
        return made[0]

    async def row(item: Any, context: CallContext) -> Any:
        for part in made:
            item = await part(item, context)
        return item

    return row


def _part(part: Part, making: _Making) -> Layered:
    placed = Placed.of(part)
    if placed is not None:
        return _placed(placed, making)
    if isinstance(part, Call):
        if isinstance(part.fn, ContextFunction):
            return part.fn.layered
        if isinstance(part.fn, Around):
            return part.fn.wrap(_called(replace(part, fn=part.fn.fn), making))
        return _called(part, making)
    if isinstance(part, Pure):
        return _pure(part.fn)
    if isinstance(part.layer, Limit | Places):
        limits, within = limits_around(part)
        return _limited(_row(within, making.inside(*limits)), making.admission(limits))
    layer, made_before = part.layer, len(making.admissions)
    inner = _row(part.inner, making.inside(layer))
    if isinstance(layer, Timeout):
        return _timed(inner, layer.seconds, has_retry=any(isinstance(each, Retry) for each in layers_in(part.inner)))
    if isinstance(layer, Retry):
        pausing = making.admissions[made_before:] if layer.pauses_limit else []
        return _retried(inner, layer, pausing, may_leave=not making.keeps_place)
    if isinstance(layer, Fallback):
        return _replaced(inner, _row(layer.step.parts, making._replace(name=layer.step.name)))
    return _rare(inner, layer, making)


def _rare(inner: Layered, layer: Hedge | Coalesce | CircuitBreaker, making: _Making) -> Layered:
    """Make a layer whose code is imported only when needed: most steps have none of them."""
    if isinstance(layer, Hedge):
        from .hedging import hedged

        return hedged(inner, layer, making.name, making.keeper)
    if isinstance(layer, Coalesce):
        from .coalescing import coalesced

        return coalesced(inner, layer, making.name, making.keeper, callers_leave=making.callers_leave)
    from .circuit import Circuit, circuit_around

    circuit = Circuit(layer, making.name)
    making.circuits.append(circuit)
    return circuit_around(inner, circuit)


def _called(call: Call, making: _Making) -> Layered:
    fn = call.fn if is_async(call.fn) else awaiting(call.name, call.fn)
    if call.using is None:
        return _call(fn)
    from .resources import with_resource  # imported only when needed, as circuits are

    return with_resource(call, making.keeper, lambda resource, item, _context: interruptible(fn, resource, item))


def _call(fn: AnyFunction) -> Layered:
    def made(item: Any, context: CallContext) -> Awaitable[Any]:
        return interruptible(fn, item)  # not awaited here: each coroutine around a call costs 150 ns

    return made


def _pure(fn: AnyFunction) -> Layered:
    @trio.lowlevel.disable_ki_protection
    def apply(item: Any) -> Any:
        return fn(item)

    async def made(item: Any, context: CallContext) -> Any:  # noqa: ASYNC124  # layers await what is inside them
        return _no_awaitable(apply(item), "a pure function of a step", "Use .then(Step(fn)) for an async one.")

    return made


def _no_awaitable(result: Any, what: str, use: str) -> Any:
    if is_awaitable(result):
        refuse_awaitable(result, what, use)
    return result


# ---- elsewhere


def _placed(placed: Placed, making: _Making) -> Layered:
    """Run a sync function in a runner; its policies begin when there is a place for it, right before the call.

    If tokens were taken earlier, calls would gather them while they wait, and then start together, faster than the
    limit. If the time began earlier, calls would be late before they began.
    """
    call = placed.call
    assert call.runner is not None
    running, place = start_runner(call.runner), call.runner.place

    async def made(before: Layered | None, fn: AnyFunction, item: Any, context: CallContext) -> Any:
        context.waits_for = place
        try:
            return _no_awaitable(await running.call(fn, item, context, before), *_ELSEWHERE)
        finally:
            context.waits_for = CALL

    outside, inside = (making.admission(limits) if limits else None for limits in (placed.outside, placed.inside))
    if placed.timeout is None and not (inside and inside.is_ended):
        return _of_function(partial(made, None if inside is None else inside.admit), call, making)
    seconds = inf if placed.timeout is None else placed.timeout.seconds

    async def timed(fn: AnyFunction, item: Any, context: CallContext) -> Any:
        taken: tuple[Any, Any] = None, None

        async def admit(item: Any, context: CallContext) -> None:  # again, if the worker that was to make it is gone
            nonlocal taken
            taken_outside = None if outside is None else await outside.admit(item, context)
            limit.begin(seconds)
            taken = taken_outside, None if inside is None else await inside.admit(item, context)

        with context.within(inf) as limit:
            result = await made(admit, fn, item, context)
            if limit.is_met():
                for admission, each in zip((outside, inside), taken, strict=True):
                    if admission is not None:
                        admission.settle(each, result)
                return result
        raise _late(seconds, context) from None

    return _of_function(timed, call, making)


def _of_function(
    run: Callable[[AnyFunction, Any, CallContext], Awaitable[Any]], call: Call, making: _Making
) -> Layered:
    """Return what runs the function of a call; its resource, if it has one, is opened before it has a place."""
    if call.using is None:
        return partial(run, call.fn)
    from .resources import with_resource

    return with_resource(
        call, making.keeper, lambda resource, item, context: run(partial(call.fn, resource), item, context)
    )


_ELSEWHERE = "the function that a runner runs", "Use Step(fn) without on for an async one."


# ---- limits


def _limited(inner: Layered, admission: AnyAdmission) -> Layered:
    admit = admission.admit
    if not admission.is_ended:

        async def limited(item: Any, context: CallContext) -> Any:
            await admit(item, context)
            return await inner(item, context)

        return limited

    async def ended(item: Any, context: CallContext) -> Any:
        taken: Any = await admit(item, context)
        try:
            result = await inner(item, context)
        except BaseException:
            admission.release()
            raise
        admission.release()
        admission.settle(taken, result)
        return result

    return ended


# ---- time


def _timed(inner: Layered, seconds: float, *, has_retry: bool) -> Layered:
    async def timed(item: Any, context: CallContext) -> Any:
        before, around = context.last_error, context.deadline
        with context.within(seconds) as limit:
            if has_retry:  # only a retry asks, and this takes 5 % of the time of a call
                context.deadline = min(around, limit.deadline)
            try:
                result = await inner(item, context)
            finally:
                context.deadline = around
            if limit.is_met():  # a call that ends at its deadline, or after it, is late
                return result
        # The error that a retry inside was about to retry after, if there was one.
        raise _late(seconds, context) from (None if context.last_error is before else context.last_error)

    return timed


def _late(seconds: float, context: CallContext) -> trio.TooSlowError:
    context.counters.timeouts += 1
    error = trio.TooSlowError(f"not done after {seconds:g} s")
    error.add_note(f"timeout of {seconds:g} s")
    return error


# ---- attempts


def _retried(inner: Layered, retry: Retry, pausing: list[AnyAdmission], *, may_leave: bool) -> Layered:
    """Try a call again; what its errors say is also a pause of some limits.

    `may_leave`: its item may wait without a place of its stage.
    """

    async def retried(item: Any, context: CallContext) -> Any:
        attempts: RetryState | None = None  # made when needed: most calls succeed
        while True:
            context.count_attempt(1 if attempts is None else attempts.number, retry.attempts)
            try:
                result = await inner(item, context)
            except Exception as error:
                attempts = attempts or context.counters.attempts(retry, context.number)
                wait = _ask(attempts, error, context.deadline)
                if attempts.named:
                    for each in pausing:
                        each.pause(attempts.named, context)
                if wait is None:
                    context.count_attempt(attempts.number, retry.attempts)  # a retry inside has set its own
                    if (note := attempts.note()) is not None:
                        add_note(error, note)
                    raise
                context.last_error = error
                context.tell_of(error)
            else:
                context.got_through()
                return result
            context.waits_for = "retry"
            try:
                place = context.place if may_leave else None
                await context.counters.back_off(wait, trio.sleep if place is None else place.wait)
            finally:
                context.waits_for = CALL

    return retried


@trio.lowlevel.disable_ki_protection  # the predicate is user code
def _ask(attempts: RetryState, error: Exception, deadline: float) -> float | None:
    try:
        return attempts.failed(error, trio.current_time(), deadline)
    except Exception as worse:
        add_note(worse, f"asking the Retry about a {type_name(error)}")
        raise


# ---- another step


def _replaced(inner: Layered, other: Layered) -> Layered:
    async def replaced(item: Any, context: CallContext) -> Any:
        try:
            return await inner(item, context)
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None or is_misuse(error):
                raise
        context.tell_of(error)
        context.turn_to_another(error)  # noqa: ASYNC104  # it is raised, as a context, if this one fails, too
        context.counters.fallbacks += 1
        try:
            if context.place is not None:
                await context.place.take()
            result = await other(item, context)
        except BaseException as worse:
            follow(worse, error)
            raise
        finally:
            del error  # otherwise a reference cycle
        context.got_through()
        return result

    return replaced
