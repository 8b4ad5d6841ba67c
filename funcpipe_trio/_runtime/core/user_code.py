"""How is user code called: where may Ctrl-C strike, and what if it wrongly returns an awaitable, or wrongly none?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Any, NoReturn, TypeVar

import trio

from ..._base.errors import MisuseError
from ..._base.shown import kind_of, named
from ..._plan.nodes import is_awaitable

T = TypeVar("T")


@trio.lowlevel.disable_ki_protection
async def interruptible(fn: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """Call async user code, where Ctrl-C may strike: a call that never ends must not be safe from it."""
    return await fn(*args)


@trio.lowlevel.disable_ki_protection
def interruptibly(fn: Callable[..., T], *args: Any) -> T:
    """Call sync user code, where Ctrl-C may strike."""
    return fn(*args)


def awaiting(name: str, fn: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return an async function for one that is not known to be async: what it returns is awaited, or refused."""

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
    """Return the result of a function that must be sync; refuse an awaitable."""
    if is_awaitable(answer):
        refuse_awaitable(answer, f"{named(name)} is not async, but", use)
    return answer


def checked_key(name: str, key: Hashable) -> Hashable:
    """Return the key of a call; refuse an awaitable."""
    kind = type(key)
    # To find that a class has no such method takes 2,500 instructions, for Python makes an error.
    if kind is not str and kind is not int and kind is not tuple and hasattr(kind, "__await__"):
        not_awaitable(name, key)  # asked last, because the whole check takes 0.3 us
    return key


def refuse_awaitable(answer: Any, who: str, use: str) -> NoReturn:
    """Raise the error about an awaitable that nobody awaits."""
    if hasattr(answer, "close"):
        answer.close()  # without this Python warns that it was never awaited
    raise MisuseError(f"{who} returned something to await\n{use}")
