"""How is user code called: where may Ctrl-C strike, and what if it answers what is to be awaited, or is not?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, NoReturn, TypeVar

import trio

from ..._base.errors import MisuseError
from ..._base.shown import kind_of, named
from ..._plan.nodes import is_awaitable

T = TypeVar("T")


@trio.lowlevel.disable_ki_protection
async def interruptible(fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Call user code, where Ctrl-C may strike: a call that never ends must not be safe from it."""
    return await fn(*args)


@trio.lowlevel.disable_ki_protection
def interruptibly(fn: Callable[..., T], *args: Any) -> T:
    """Do the same with sync code."""
    return fn(*args)


def awaiting(name: str, fn: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Make an async function of one that nobody knows to be async: what it gives is awaited, or refused."""

    async def awaited(*args: Any) -> Any:
        answer = fn(*args)
        if not is_awaitable(answer):
            raise MisuseError(
                f"{named(name)} gave {kind_of(answer)}, which cannot be awaited: a step, or a function with "
                "concurrency, must be async\nUse Step(fn).on(threads(4)) for a sync function."
            )
        return await answer

    return awaited


ASYNC_DEF = "Use an `async def` function."
OR_CONCURRENCY = "Use concurrency=1, which awaits it, or an `async def` function."


def not_awaitable(name: str, answer: T, use: str = "Use a sync function.") -> T:
    """Refuse something to await, where a sync function had to answer."""
    if is_awaitable(answer):
        refuse_awaitable(answer, f"{named(name)} is not async, but", use)
    return answer


def refuse_awaitable(answer: Any, who: str, use: str) -> NoReturn:
    """Refuse something to await that nobody awaits."""
    if hasattr(answer, "close"):
        answer.close()  # without this Python warns that it was never awaited
    raise MisuseError(f"{who} returned something to await\n{use}")
