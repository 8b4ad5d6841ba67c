"""From a step to something that can be called: each policy becomes a function around the one inside it.

A *layered* function takes an item and the `Attempt` that goes with it, which carries the item's number inwards and what
happened to it outwards. The state that policies share between items (tokens, circuits, threads) is made here, once for
each start of the step; what one item needs (its attempts, its deadline) lives in its own call.

    inside out:   the user's function  ->  rate limit  ->  timeout  ->  retry  ->  timeout

Only `Exception` is ever met; a cancellation passes through every layer, each of which puts its own state right.
"""

from __future__ import annotations

from collections.abc import Awaitable
from inspect import isawaitable
from typing import Any

import trio

from ..plan.steps import Call, Limit, Part, Pure, StepPlan, Timeout
from ..policies._functions import AnyFunction
from ..policies.retry import Retry
from ..sansio.retrying import Attempts
from .attempt import Attempt, Layered
from .failures import add_note
from .limiter import RateLimiter
from .runners import Running, start_runner
from .stage import interruptible

__all__ = ["layers_of"]


def layers_of(plan: StepPlan) -> Layered:
    """Make a step callable, with fresh state."""
    return _row(plan.parts)


def _row(parts: tuple[Part, ...]) -> Layered:
    """Make one function of parts that follow each other: a loop, for a row may be longer than a stack is deep."""
    made = [_part(part) for part in parts]
    if len(made) == 1:
        return made[0]

    async def row(item: Any, attempt: Attempt) -> Any:
        for part in made:
            item = await part(item, attempt)
        return item

    return row


def _part(part: Part) -> Layered:
    if isinstance(part, Call):
        return _call(part)
    if isinstance(part, Pure):
        return _pure(part.fn)
    layer = part.layer
    if isinstance(layer, Limit):
        return _limited(part.inner, layer)
    inner = _row(part.inner)
    if isinstance(layer, Timeout):
        return _timed(inner, layer.seconds)
    if isinstance(layer, Retry):
        return _retried(inner, layer)
    from .circuit import circuit_around  # when it is needed, see `build`

    return circuit_around(inner, layer)


def _call(call: Call) -> Layered:
    fn = call.fn
    if call.runner is not None:
        return _on(fn, start_runner(call.runner), None)

    def made(item: Any, attempt: Attempt) -> Awaitable[Any]:
        return interruptible(fn, item)  # not awaited here: each coroutine around a call costs 150 ns

    return made


def _on(fn: AnyFunction, running: Running, admit: Layered | None) -> Layered:
    """Run a sync function elsewhere; `admit` is awaited when there is a place for it, at the last instant before."""

    async def made(item: Any, attempt: Attempt) -> Any:
        result = await running.call(fn, item, attempt, admit)
        return _no_awaitable(result, "the function that a runner runs", "Use Step(fn) without on for an async one.")

    return made


def _pure(fn: AnyFunction) -> Layered:
    @trio.lowlevel.disable_ki_protection
    def apply(item: Any) -> Any:
        return fn(item)

    async def made(item: Any, attempt: Attempt) -> Any:  # noqa: ASYNC124  # layers await what is inside them
        return _no_awaitable(apply(item), "a pure function of a step", "Use .then(Step(fn)) for an async one.")

    return made


def _no_awaitable(result: Any, what: str, use: str) -> Any:
    if isawaitable(result):
        if hasattr(result, "close"):
            result.close()  # it will never be awaited; without this Python warns of that too
        raise TypeError(f"{what} returned something to await\n{use}")
    return result


# ---- rate


def _limited(inner: tuple[Part, ...], limit: Limit) -> Layered:
    admit = _admission(limit)
    if len(inner) == 1 and isinstance(inner[0], Call) and inner[0].runner is not None:
        # A call counts when it starts. With the token taken before there is a thread for it, calls would gather tokens
        # while they wait, and then start together, faster than the limit.
        return _on(inner[0].fn, start_runner(inner[0].runner), admit)
    made = _row(inner)

    async def limited(item: Any, attempt: Attempt) -> Any:
        await admit(item, attempt)
        return await made(item, attempt)

    return limited


def _admission(limit: Limit) -> Layered:
    limiter: RateLimiter = RateLimiter(limit.rate_limit) if limit.limiter is None else limit.limiter
    cost_of = limit.cost

    @trio.lowlevel.disable_ki_protection
    def ask_cost(item: Any) -> Any:
        return 1 if cost_of is None else cost_of(item)

    async def admit(item: Any, attempt: Attempt) -> None:
        cost = 1 if cost_of is None else limiter._checked(ask_cost(item))
        if limiter._try_acquire(cost):
            return
        since = trio.current_time()
        try:
            await limiter._wait(cost)
        finally:
            attempt.account.waited_rate += trio.current_time() - since

    return admit


# ---- time


def _timed(inner: Layered, seconds: float) -> Layered:
    async def timed(item: Any, attempt: Attempt) -> Any:
        before = attempt.last_error
        with attempt.within(seconds) as limit:
            result = await inner(item, attempt)
            if limit.is_met():  # a call that ends at its deadline, or behind it, is late
                return result
        attempt.account.timeouts += 1
        error = trio.TooSlowError(f"not done after {seconds:g} s")
        error.add_note(f"timeout of {seconds:g} s")
        # What a retry inside was about, if it was at work.
        raise error from (None if attempt.last_error is before else attempt.last_error)

    return timed


# ---- attempts


def _retried(inner: Layered, retry: Retry) -> Layered:
    async def retried(item: Any, attempt: Attempt) -> Any:
        attempts: Attempts | None = None  # made when it is needed: most calls succeed
        while True:
            attempt.tries(1 if attempts is None else attempts.number, retry.attempts)
            try:
                result = await inner(item, attempt)
            except Exception as error:
                attempts = attempts or Attempts(retry, attempt.number)
                wait = _ask(attempts, error)
                if wait is None:
                    attempt.tries(attempts.number, retry.attempts)  # a retry inside counts its own
                    if (note := attempts.note()) is not None:
                        add_note(error, note)
                    raise
                attempt.last_error = error
            else:
                attempt.got_through()
                return result
            await _back_off(wait, attempt)

    return retried


@trio.lowlevel.disable_ki_protection  # the predicate is user code
def _ask(attempts: Attempts, error: Exception) -> float | None:
    try:
        return attempts.failed(error)
    except Exception as worse:
        add_note(worse, f"asking the Retry about a {type(error).__name__}")
        raise


async def _back_off(seconds: float, attempt: Attempt) -> None:
    attempt.account.retries += 1
    since = trio.current_time()
    try:
        await trio.sleep(seconds)
    finally:
        attempt.account.waited_retry += trio.current_time() - since
