"""A source that a user's function makes when it is needed: how is it iterated and closed, whatever its kind?

Either kind is opened, asked and closed in the task of the source; only when it is there can its kind be known.
"""

from __future__ import annotations

from typing import Any

from ..._base.shown import kind_of, named
from ..core.lifetime import thrown
from ..core.signals import END
from ..core.user_code import interruptibly, not_awaitable
from .sources import AsyncSource


class MadeSource(AsyncSource):
    """What is made is an iterable or async iterable."""

    iterator: Any = None  # what is open; None before it is opened, and after it was closed
    _is_async = False  # it is an async iterator

    def make(self) -> Any:
        """Call the user's function, and return what it makes."""
        raise NotImplementedError

    def checked(self, made: Any) -> Any:
        """Return what was made, if it can be iterated."""
        not_awaitable(self.name, made, "Use a callable that returns an iterable or async iterable at once.")
        if not hasattr(type(made), "__aiter__") and not hasattr(type(made), "__iter__"):
            raise TypeError(f"{named(self.name)} gave {kind_of(made)}, which is not iterable, sync or async")
        return made

    def open_made(self) -> None:
        """Let it be made, and begin to iterate it: from here on it is closed."""
        self.life.begin()
        made = self.make()
        self._is_async = hasattr(type(made), "__aiter__")
        self.iterator = aiter(made) if self._is_async else iter(made)

    async def next(self) -> Any:
        if self.iterator is None:
            self.open_made()
        if self._is_async:
            return await anext(self.iterator, END)
        for item in self.iterator:  # Ctrl-C cannot strike between this line and the next, as it can after a call
            return item
        return END

    async def rethrow(self, error: BaseException) -> Any:
        return await thrown(self.iterator, error, END)

    async def close_source(self) -> None:
        iterator, self.iterator = self.iterator, None
        close = getattr(iterator, "aclose", None) if self._is_async else None
        try:
            if not self._is_async:
                interruptibly(self.chain.close_stream, iterator)
        finally:
            await self.end_life(close)  # noqa: ASYNC102  # shielded there
