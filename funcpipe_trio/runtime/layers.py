"""From a step to something that can be called: each policy becomes a function around the one inside it.

A *layered* function takes an item and the `Attempt` that goes with it, which carries the item's number inwards and what
happened to it outwards. The state that policies share between items (tokens, circuits, threads) is made here, once for
each start of the step; what one item needs (its attempts, its deadline) lives in its own call.

    inside out:   the user's function  ->  rate limit  ->  timeout  ->  retry  ->  timeout

A call that a runner makes waits for its place first; the rate limits and the timeout right behind it begin when it has
that (`Placed`).

Only `Exception` is ever met; a cancellation passes through every layer, each of which puts its own state right.
"""

from __future__ import annotations

from collections.abc import Awaitable
from inspect import isawaitable
from math import inf
from typing import Any

import trio

from ..plan.steps import Call, Limit, Part, Placed, Pure, StepPlan, Timeout
from ..policies._functions import AnyFunction
from ..policies._shown import type_name
from ..policies.retry import Retry
from ..sansio.retrying import Attempts
from .attempt import Attempt, Layered
from .failures import add_note
from .limiter import RateLimiter
from .running import start_runner
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
    placed = Placed.of(part)
    if placed is not None:
        return _placed(placed)
    if isinstance(part, Call):
        return _call(part.fn)
    if isinstance(part, Pure):
        return _pure(part.fn)
    inner, layer = _row(part.inner), part.layer
    if isinstance(layer, Limit):
        return _limited(inner, layer)
    if isinstance(layer, Timeout):
        return _timed(inner, layer.seconds)
    if isinstance(layer, Retry):
        return _retried(inner, layer)
    from .circuit import circuit_around  # when it is needed, see `build`

    return circuit_around(inner, layer)


def _call(fn: AnyFunction) -> Layered:
    def made(item: Any, attempt: Attempt) -> Awaitable[Any]:
        return interruptible(fn, item)  # not awaited here: each coroutine around a call costs 150 ns

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


# ---- elsewhere


def _placed(placed: Placed) -> Layered:
    """Run a sync function elsewhere; its policies begin at the last instant before, when there is a place for it.

    With a token taken earlier, calls would gather tokens while they wait, and then start together, faster than the
    limit. With the time begun earlier, calls would be late that have not begun.
    """
    call = placed.call
    assert call.runner is not None
    fn, running = call.fn, start_runner(call.runner)
    outside, inside = _admissions(placed.outside), _admissions(placed.inside)

    async def made(item: Any, attempt: Attempt) -> Any:
        return _no_awaitable(await running.call(fn, item, attempt, inside), *_ELSEWHERE)

    if placed.timeout is None:
        return made
    seconds = placed.timeout.seconds

    async def timed(item: Any, attempt: Attempt) -> Any:
        async def admit(item: Any, attempt: Attempt) -> None:
            if outside is not None:
                await outside(item, attempt)
            limit.begin(seconds)
            if inside is not None:
                await inside(item, attempt)

        with attempt.within(inf) as limit:
            result = await running.call(fn, item, attempt, admit)
            if limit.is_met():
                return _no_awaitable(result, *_ELSEWHERE)
        raise _late(seconds, attempt) from None

    return timed


_ELSEWHERE = "the function that a runner runs", "Use Step(fn) without on for an async one."


# ---- rate


def _limited(inner: Layered, limit: Limit) -> Layered:
    admit = _admission(limit)

    async def limited(item: Any, attempt: Attempt) -> Any:
        await admit(item, attempt)
        return await inner(item, attempt)

    return limited


def _admissions(limits: tuple[Limit, ...]) -> Layered | None:
    """Make one admission of several, to be met one after the other; None of none."""
    admissions = [_admission(limit) for limit in limits]
    if len(admissions) < 2:
        return admissions[0] if admissions else None

    async def admit(item: Any, attempt: Attempt) -> None:
        for each in admissions:
            await each(item, attempt)

    return admit


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
        # What a retry inside was about, if it was at work.
        raise _late(seconds, attempt) from (None if attempt.last_error is before else attempt.last_error)

    return timed


def _late(seconds: float, attempt: Attempt) -> trio.TooSlowError:
    attempt.account.timeouts += 1
    error = trio.TooSlowError(f"not done after {seconds:g} s")
    error.add_note(f"timeout of {seconds:g} s")
    return error


# ---- attempts


def _retried(inner: Layered, retry: Retry) -> Layered:
    async def retried(item: Any, attempt: Attempt) -> Any:
        attempts: Attempts | None = None  # made when it is needed: most calls succeed
        while True:
            attempt.tries(1 if attempts is None else attempts.number, retry.attempts)
            try:
                result = await inner(item, attempt)
            except Exception as error:
                attempts = attempts or attempt.account.attempts(retry, attempt.number)
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
        add_note(worse, f"asking the Retry about a {type_name(error)}")
        raise


async def _back_off(seconds: float, attempt: Attempt) -> None:
    attempt.account.retries += 1
    since = trio.current_time()
    try:
        await trio.sleep(seconds)
    finally:
        attempt.account.waited_retry += trio.current_time() - since
