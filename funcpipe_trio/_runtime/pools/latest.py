"""A stage that works on the latest item only: when does a newer one take the place of the one at hand?

One worker, and one item at a time. A newer item that can be taken cancels the work on the older one, which is dropped;
the newer one is taken when that work has ended, so a call that shields itself goes on until it is done, and its result
is dropped as well. Of several that are there, the newest is taken. Nothing is held for it: what is newer waits in the
link. Only an item supersedes another: the last one before the end, or before a failure, is worked on to its end.

The work on each item has a scope of its own, in the task of the worker.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import trio

from ..._plan.operations import LATEST
from ..calls.calling import Calling
from ..core.signals import END, PENDING, READY
from ..stages.chain import Ends
from .crew import Worker
from .flat_map import FlatMapPool
from .pool import Pool


class LatestPool(Pool):
    """Calls an async function with the latest item."""

    def __init__(self, ends: Ends, call: Calling, *, concurrency: int = 1, ordered: bool = False) -> None:
        super().__init__(ends, call, concurrency=1, ordered=False)
        self._work_scope: trio.CancelScope | None = None  # around the work on the item at hand; None between two

    def set_concurrency(self, concurrency: int) -> None:
        if concurrency != 1:
            raise ValueError(f"Run.set_concurrency: concurrency must be 1 with latest=True, not {concurrency}")

    def on_input(self) -> None:
        super().on_input()
        if self._work_scope is not None and self.source.state() is READY:
            self.supersede()

    def supersede(self) -> None:
        """End the work on the item at hand."""
        assert self._work_scope is not None
        self._work_scope.cancel()

    def admit(self) -> Any:
        item = super().admit()
        while item is not PENDING and item is not END and self.source.state() is READY:
            newer = super().admit()
            if newer is PENDING or newer is END:  # it failed in this pull (in the cost function of a merge, say)
                break
            self.received += 1
            self.drop(item)
            item = newer
        return item

    def drop(self, item: Any) -> None:
        """Count and tell an item that a newer one superseded."""
        self.chain.dropped += 1
        self.chain.host.ledger.drop(item, self.name, LATEST)

    def called(self, worker: Worker) -> Awaitable[Any]:
        return self._called(worker)

    async def _called(self, worker: Worker) -> Any:
        """Return the result of the call; `PENDING`, which counts as dropped, if the item was superseded."""
        worker.context.kept_limit = None  # a limit that stays open would outlast the scope
        scope, result = trio.CancelScope(), PENDING
        try:
            with scope:
                self._work_scope = scope
                if self.source.state() is READY:  # superseded since it was taken
                    scope.cancel()
                else:
                    result = await super().called(worker)
        except Exception as error:
            if not scope.cancel_called:
                raise
            self.outcomes.keep(error)
        finally:
            self._work_scope = None
        if scope.cancel_called:
            result = PENDING
            self.chain.host.ledger.drop(worker.item, self.name, LATEST)
        return result


class LatestFlatMapPool(LatestPool, FlatMapPool):
    """Iterates what becomes of the latest item."""

    def __init__(self, ends: Ends, call: Calling, *, concurrency: int = 1, ordered: bool = False) -> None:
        super().__init__(ends, call)
        self._is_superseded = False  # a newer item is there, and the worker still has the older one

    def called(self, worker: Worker) -> Awaitable[Any]:
        return FlatMapPool.called(self, worker)

    def supersede(self) -> None:
        assert self._work_scope is not None
        self._is_superseded = True
        for worker in self.crew.workers:  # the only one
            self.end_work(worker, self._work_scope)

    def is_superfluous(self, worker: Worker) -> bool:
        return self._is_superseded or super().is_superfluous(worker)

    async def _expand(self, worker: Worker) -> None:
        worker.context.kept_limit = None
        try:
            with trio.CancelScope() as self._work_scope:
                if self.source.state() is READY:  # superseded since it was taken
                    self._is_superseded = True
                else:
                    await super()._expand(worker)
        finally:
            self._work_scope = None

    async def _is_cancelled_inside(self, worker: Worker, children: Any) -> bool:
        is_inside = not self._is_superseded and await super()._is_cancelled_inside(worker, children)
        return is_inside and not self._is_superseded

    def give_up(self, worker: Worker) -> None:
        if self._is_superseded and not super().is_superfluous(worker):
            for child in self.take_hand(worker):
                self.drop(child)
            self.drop(self.put_down(worker))
        else:
            super().give_up(worker)
        self._is_superseded = False
