"""A resource of the user's, held open: who enters and leaves its context manager, and what is leaving told?

One task enters it, holds it and leaves it, so it may hold cancel scopes and nurseries open as any block does. The scope
of a `Lifetime` lies around it. When it is open, that is shielded: a cancellation from outside would end the tasks of
such a nursery, and with them the resource, while others still clean up with it. So whoever holds it must be told of one
in another way. Leaving has a deadline.

As at the end of an ``async with``, leaving is told of the error inside. It cannot take it back: the error is on its way
to the caller already. If leaving raises that error again, alone or in a group, that is no other error.

What is entered is left once, also if Ctrl-C strikes just before that (see `_whole`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from ..._base.errors import MisuseError
from ..._base.functions import is_async
from ..._base.shown import kind_of, named
from ..._plan.nodes import is_awaitable
from .lifetime import Lifetime
from .user_code import interruptible, interruptibly


class Held:
    """One opening of a resource; all of its methods are called in one task."""

    __slots__ = ("_exit", "_has_left", "_open", "has_handled", "life")

    def __init__(self, open_: Callable[[], Any]) -> None:
        self._open = open_  # makes the context manager
        self._exit: Callable[..., Any] | None = None  # leaves it; None while it is not entered
        self._has_left = False  # that was called
        self.life: Lifetime = Lifetime()  # around all that it holds open
        self.has_handled: bool = False  # leaving said that the error it was told of is dealt with

    async def enter(self, name: str) -> Any:
        """Open it, and return the resource."""
        self.life.begin()
        try:
            resource = await self._entered(name)
        except BaseException:
            await self.life.end(None, 0)  # noqa: ASYNC102  # it only leaves a scope
            raise
        self.life.shield()
        return resource

    async def _entered(self, name: str) -> Any:
        manager = interruptibly(self._open)
        if is_awaitable(manager) and not hasattr(type(manager), "__aenter__"):
            manager = await _whole(manager)
        kind = type(manager)
        if hasattr(kind, "__aenter__") and hasattr(kind, "__aexit__"):
            resource, self._exit = await _whole(manager.__aenter__()), manager.__aexit__
        elif hasattr(kind, "__enter__") and hasattr(kind, "__exit__"):
            resource, self._exit = interruptibly(manager.__enter__), manager.__exit__
        else:
            use = "Use a function with @asynccontextmanager, say."
            raise MisuseError(f"{named(name)} opened {kind_of(manager)}, which is no context manager\n{use}")
        return resource

    async def leave(self, error: BaseException | None, limit: float) -> bool:
        """Close it, in at most `limit` seconds; tell it of the error inside; return whether it was in time.

        Raises:
          BaseException: what closing raises, except for that error.
        """
        return await self.life.end(None if self._exit is None else partial(self._left, error), limit, error)

    @trio.lowlevel.enable_ki_protection
    async def _left(self, error: BaseException | None) -> None:
        told = (None, None, None) if error is None else (type(error), error, error.__traceback__)
        assert self._exit is not None
        if is_async(self._exit):
            answer = await _whole(self._exit(*told), must_run=True)
        else:
            try:
                answer = self._call_exit(*told)
            except KeyboardInterrupt:
                if not self._has_left:
                    self._exit(*told)
                raise
            answer = await _whole(answer, must_run=True) if is_awaitable(answer) else answer
        self.has_handled = bool(answer)

    @trio.lowlevel.disable_ki_protection
    def _call_exit(self, *told: Any) -> Any:
        assert self._exit is not None
        self._has_left = True  # Ctrl-C cannot strike between this line and the next
        return self._exit(*told)


async def _whole(user_code: Any, *, must_run: bool = False) -> Any:
    """Await a coroutine of the user's, where Ctrl-C may strike; if that is before it begins, it runs if it must."""
    try:
        return await interruptible(_awaited, user_code)
    except KeyboardInterrupt:
        if inspect.iscoroutine(user_code) and inspect.getcoroutinestate(user_code) == inspect.CORO_CREATED:
            if must_run:
                await user_code  # noqa: ASYNC120  # shielded by whoever closes
            else:
                user_code.close()
        raise


async def _awaited(user_code: Any) -> Any:
    return await user_code


async def made_cancellation() -> trio.Cancelled:
    """Return a `Cancelled`, to tell a context manager of a cancellation that did not reach its block."""
    error: trio.Cancelled
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as cancelled:
            error = cancelled
            raise
    return error
