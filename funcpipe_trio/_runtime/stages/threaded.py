"""An iterable that blocks: how is it taken from in a thread, and what becomes of a pull that nobody waits for?

It is made, advanced and closed in a thread, by one pull at a time: the next one starts when the item before is in a
link, and there is room. A thread cannot be cancelled. So the run waits for a pull that is under way, and takes what it
gives: a drain delivers that, any other end discards it. If the runner leaves calls behind, the thread of such a pull
closes the iterator itself, when the pull ends: nobody else may touch it before.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import trio

from ..._plan.resources import IterableInThread
from ..core.call_context import CallContext
from ..core.protocols import Host, Outlet
from ..core.signals import END, PENDING
from ..core.step_counters import StepCounters
from ..operations.base import FusedOperation
from ..runners.active_runner import start_runner
from .sources import AsyncSource, opened


class ThreadedSource(AsyncSource):
    """An iterable in a thread."""

    def __init__(
        self,
        host: Host,
        source: IterableInThread,
        outlet: Outlet,
        fused: Sequence[FusedOperation],
        counters: StepCounters,
    ) -> None:
        super().__init__(host, source, outlet, fused, counters=counters)
        self._running = start_runner(source.on)  # has the thread
        self._context = CallContext(counters)  # where a pull that was left behind is counted
        self._pulls = _Pulls(source.origin.value)  # what runs in the thread

    async def next(self) -> Any:
        if not self._pulls.has_begun:
            self.life.begin()
        self._pulls.begin()
        left_behind = self._context.counters.abandoned
        try:
            return await self._in_thread(self._pulls.next)
        except trio.Cancelled:  # noqa: ASYNC103  # an item that is there must not be lost
            if left_behind == self._context.counters.abandoned:
                raise  # before it began: one that has begun is waited for, or left behind
            item = self._pulls.leave()
            if item is PENDING:
                raise
            return item  # noqa: ASYNC104  # it had just ended

    def _in_thread(self, fn: Callable[[Any], Any]) -> Awaitable[Any]:
        return self._running.call(fn, None, self._context, None)

    def asked(self, ask: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        return ask()  # no code of the user's runs here, so Ctrl-C has nothing to strike: it would lose an item

    async def close_source(self) -> None:
        await self.end_life(partial(self._in_thread, self._pulls.close) if self._pulls.is_ours else None)


class _Pulls:
    """What runs in the thread, and who may touch the iterator."""

    def __init__(self, origin: Any) -> None:
        self._origin = origin  # the iterable, or what makes it
        self._iterator: Iterator[Any] | None = None  # None until the first pull, and after it was closed
        self._lock = threading.Lock()  # between the end of a pull, and leaving it behind
        self._is_under_way = False  # a pull is, from before it begins
        self._is_left = False  # nobody waits for it: its thread closes the iterator
        self._given: Any = PENDING  # what the last pull gave, until it is taken
        self.has_begun = False  # there was a pull

    @property
    def is_ours(self) -> bool:
        """Whether the event loop may say what becomes of the iterator."""
        return not self._is_left

    def begin(self) -> None:
        """Called in the event loop before a pull."""
        self.has_begun = self._is_under_way = True
        self._given = PENDING

    def next(self, _item: object) -> Any:
        """Make the iterator, if it is the first time, and advance it; in the thread."""
        try:
            if self._iterator is None:
                self._iterator = opened(self._origin, iter, "__iter__")
            self._given = next(self._iterator, END)
            return self._given
        finally:
            with self._lock:
                self._is_under_way = False
                is_left = self._is_left
            if is_left:
                self.close(None)

    def leave(self) -> Any:
        """Called in the event loop when nobody waits for the pull any more; return what it gave, if it has ended."""
        with self._lock:
            self._is_left = self._is_under_way
            return PENDING if self._is_left else self._given

    def close(self, _item: object) -> None:
        """Close the iterator; in the thread."""
        iterator, self._iterator = self._iterator, None
        close = getattr(iterator, "close", None)
        if close is not None:
            close()
