"""A source that is opened again when it fails: what closes the broken one, and what ends the wait?

One task opens, asks, closes and waits, as for every source. A broken iterator is closed before the wait, shielded; what
that raises is kept and changes nothing. The wait is an await like any other: whatever stops the source ends it at once.
The items that came before a failure have been passed on; items that the new iterator skips are not noticed here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from ..._base.shown import named, type_name
from ..._plan.restarts import RestartingSource
from ..._sansio.restarts import Restarts
from ..core.failures import add_note
from ..core.protocols import Host, Outlet
from ..core.step_counters import StepCounters
from ..operations.base import FusedOperation
from .made import MadeSource


class RestartedSource(MadeSource):
    """What a callable makes, made again after each failure that its `Retry` covers."""

    def __init__(
        self,
        host: Host,
        source: RestartingSource,
        outlet: Outlet,
        fused: Sequence[FusedOperation],
        counters: StepCounters,
    ) -> None:
        super().__init__(host, source, outlet, fused, counters=counters)
        self._retry = source.retry  # the policy: which failures, how often
        self._restarts = Restarts(source.retry, source.reset_after, stage=counters.stage, seed=counters.seed or 0)
        """Decides whether it is opened again, and when."""
        self._broken: object = None  # the iterator that has failed: if the callable returns it again, it is refused
        self._is_misused = False  # the callable returned what it must not: opening again would not help
        self._counters = counters  # where its waits are counted

    async def next(self) -> Any:
        return await self._until_given(super().next)

    async def rethrow(self, error: BaseException) -> Any:
        return await self._until_given(partial(super().rethrow, error))

    async def _until_given(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask, and ask again what is opened after each failure; return an item, or `END` at the end."""
        while True:
            try:
                return await ask()
            except Exception as error:
                failure = error
            wait = self._ask_policy(failure)
            if wait is None:
                raise failure  # not in a handler: the context of the user's error stays the user's
            self._broken = self.iterator
            await self.close_source()
            await self._counters.back_off(wait)
            ask = super().next

    def make(self) -> Any:
        self._restarts.opened(self.chain.now())
        made = self.source.origin.value()
        try:
            self.checked(made)
            if made is self._broken:
                use = "Use a callable that makes a new one."
                raise TypeError(f"{named(self.name)} gave the same iterator again, which has failed\n{use}")
        except TypeError:
            self._is_misused = True
            raise
        return made

    def _ask_policy(self, error: Exception) -> float | None:
        """Return the seconds to wait before it is opened again; None if it is not."""
        if self._is_misused or self.is_stopping():
            return None
        try:
            wait = self._restarts.failed(error, self.chain.now())
        except Exception as worse:  # of the user's predicate
            add_note(worse, f"asking the Retry about a {type_name(error)}")
            raise
        if wait is None:
            self.attempts = f", attempt {self._restarts.number} of {self._retry.attempts}"
            if (note := self._restarts.note()) is not None:
                add_note(error, note)
        return wait
