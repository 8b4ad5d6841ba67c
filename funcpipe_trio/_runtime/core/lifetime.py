"""The life of what an async iterator holds open: who caused a cancellation that comes between two of its items?

An async generator may hold cancel scopes and nurseries open over its yields, as a connection with a heartbeat does.
Until it is closed, the task that iterates it is inside of those scopes, also while it waits for room.

The rule: one scope lies around the whole life, entered before the first item is asked for. Closing shields that same
scope and gives it a deadline, so what the iterator opened inside of it is left in the order that trio requires. A scope
opened only for closing would lie inside of what has to be left, and would corrupt trio's stack of scopes.

The deadline of a scope of the iterator cancels whatever the task waits for. Whether it was one is found by shielding
the life for a moment: if the task is still cancelled, something inside of the life did it. A cancellation from outside
also reaches a nursery inside, and may look the same; only a task outside can see what is cancelled there, and one is
started to look. If nothing is, the cancellation belongs to the iterator, and is thrown into it.

It is thrown in when the iterator would be asked for the next item anyway: there is room then for what it gives, and
nothing that came before has to wait for it. Until then the task is sheltered from the scope that was cancelled.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from .failures import is_cancellation, leaves_of, stray


class Lifetime:
    """The scope around the life of one async iterator."""

    __slots__ = ("_scope",)

    def __init__(self) -> None:
        self._scope: trio.CancelScope | None = None  # around the life; None before it begins, and after it has ended

    def begin(self) -> None:
        """Enter the scope; call it in the task that will iterate, before anything of the iterator runs."""
        assert self._scope is None
        self._scope = trio.CancelScope()
        self._scope.__enter__()

    async def is_alone_cancelled(self, start_task: Callable[[Callable[[], Awaitable[object]], str], object]) -> bool:
        """Whether something that the iterator holds open is cancelled, and nothing around the task.

        Args:
          start_task: starts a task outside of the iterator's life.
        """
        scope = self._scope
        if scope is None:
            return False
        scope.shield = True
        is_inside = trio.current_effective_deadline() == -math.inf
        scope.shield = False
        if not is_inside:
            return False
        seen, is_cancelled = trio.Event(), False

        async def look() -> None:  # noqa: ASYNC124  # a task, because it sees what is cancelled around it
            nonlocal is_cancelled
            is_cancelled = trio.current_effective_deadline() == -math.inf
            seen.set()

        start_task(look, "looking for a cancellation")
        with trio.CancelScope(shield=True):
            await seen.wait()
        return not is_cancelled

    async def sheltered(
        self,
        start_task: Callable[[Callable[[], Awaitable[object]], str], object],
        wait: Callable[[], Awaitable[None]],
    ) -> None:
        """Wait although a scope that the iterator holds open is cancelled; `wait` must not run code of the iterator.

        A cancellation from outside of the life still ends the wait: a task outside waits for one.
        """
        shelter, watching = trio.CancelScope(shield=True), trio.CancelScope()

        async def watch() -> None:
            with watching:
                try:
                    await trio.sleep_forever()
                finally:
                    shelter.shield = False

        start_task(watch, "watching for a cancellation")
        try:
            with shelter:
                await wait()
        finally:
            watching.cancel()

    def shield(self) -> None:
        """Let nothing from outside end what waits in it, from now on."""
        assert self._scope is not None
        self._scope.shield = True

    async def end(
        self, close: Callable[[], Awaitable[object]] | None, limit: float, told: BaseException | None = None
    ) -> bool:
        """Close the iterator, shielded, in at most `limit` seconds; return whether it was done in time.

        Args:
          close: closes it; None if there is nothing to close.
          limit: seconds.
          told: an error that `close` is told of: it may raise that again.

        Raises:
          BaseException: what closing raises.
        """
        scope, self._scope = self._scope, None
        if scope is None:  # it was never opened
            return True
        scope.shield = True
        scope.deadline = trio.current_time() + limit
        error: BaseException | None = None
        try:
            if close is not None:
                await close()
        except BaseException as raised:  # noqa: ASYNC103  # the scope takes out what is its own; the rest is raised
            error = _without_exit(raised if told is None else _without(raised, told))
            if error is not None and is_cancellation(error) and not scope.cancel_called:
                # The life is shielded, so it came from no other scope, unless it is the one that was told.
                error = _without_cancelled(error) if is_cancellation(told) else stray(error)
        is_swallowed = scope.__exit__(None if error is None else type(error), error, _traceback(error))
        if error is not None and not is_swallowed:
            raise error
        return not scope.cancelled_caught


async def thrown(iterator: Any, error: BaseException, end: Any) -> Any:
    """Throw a cancellation of an iterator's own scope into it; return what it gives then, or `end`.

    An iterator that is not a generator cannot be told: the error is raised.
    """
    if hasattr(iterator, "athrow"):
        try:
            return await iterator.athrow(error)
        except StopAsyncIteration:
            return end
    if hasattr(iterator, "throw"):
        try:
            return iterator.throw(error)
        except StopIteration:
            return end
    raise error


def _without(error: BaseException, told: BaseException) -> BaseException | None:
    """Return an error without the one that closing was told of: a nursery puts it into a group, or copies a group."""
    parts = [told, *leaves_of(told)]

    def is_told(each: BaseException) -> bool:
        return any(each is part for part in parts)

    if isinstance(error, BaseExceptionGroup):
        return error.split(is_told)[1]
    return None if is_told(error) else error


def _without_cancelled(error: BaseException) -> BaseException | None:
    return error.split(trio.Cancelled)[1] if isinstance(error, BaseExceptionGroup) else None


def _without_exit(error: BaseException | None) -> BaseException | None:
    """Return an error without the GeneratorExit of closing, which a nursery around a yield puts into a group."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(GeneratorExit)[1]
    return None if isinstance(error, GeneratorExit) else error


def _traceback(error: BaseException | None) -> Any:
    return None if error is None else error.__traceback__
