"""A stage whose call gives many: how is an async iterable taken apart without letting it run ahead?

A worker takes an item, opens what the function gives for it, and asks for one child at a time, each only when there is
room for it. The item stays in the worker's hands until its last child came: its children count as one with it. With
several workers, children leave in the order in which they came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from inspect import isawaitable
from typing import Any

from ..policies.on_error import Failure
from .pool import Pool, Worker
from .stage import Pause, interruptible

__all__ = ["ExpandingPool"]


class ExpandingPool(Pool):
    """Workers that iterate what an async function, or an async generator function, gives for an item."""

    kind = "async"
    created: int = 0
    absorbed: int = 0
    _asked = 0  # children that are being waited for

    async def _serve(self, worker: Worker, item: Any) -> None:
        self._take_up(worker, item)
        try:
            await self._expand(worker)
        except Exception as error:
            await self._meet(worker, error)
            return
        item = self._put_down(worker)
        if self._is_superfluous(worker):
            self.discard(item, self._reason())
        else:
            self.absorbed += 1

    async def _expand(self, worker: Worker) -> None:
        children: Any = None
        try:
            children = await self._children(worker)
            while await self._room_for_child(worker):
                self._asked += 1
                try:
                    child = await interruptible(_next, children)
                except BaseException:
                    self._give_place_back()
                    raise
                if child is _END:
                    self._give_place_back()
                    return
                self._asked -= 1
                self.created += 1
                if self._is_superfluous(worker):
                    self.discard(child, self._reason())
                else:
                    self.order.complete(worker.position, child)
        finally:
            await self._close_children(children)  # noqa: ASYNC102  # shielded there

    def _give_place_back(self) -> None:
        # Nobody fills the place that was kept for a child: without the call, who waits for one might wait for ever.
        self._asked -= 1
        self._wake_worker()

    def _wake_worker(self) -> None:
        # Workers wait for different things here, an item or room for a child: each must see for itself.
        while self._parked_workers:
            super()._wake_worker()

    async def _room_for_child(self, worker: Worker) -> bool:
        """Move on what is there, then wait until one more child has a place; False when none is wanted."""
        while not self._is_superfluous(worker):
            pause = self._move_on(worker)
            if self._is_superfluous(worker):
                break
            worker.budget -= 1
            if pause is Pause.SLICE_OVER or worker.budget <= 0:
                await self._rest(worker)
            elif self._asked + len(self.order) < self.outlet.room():
                self.outlet.settle()
                return True
            else:
                await self._wait(worker, starved=False)
        return False

    async def _children(self, worker: Worker) -> AsyncIterator[Any] | Iterator[Any]:
        children: AsyncIterator[Any] | Iterator[Any]
        if self.call.is_layered:
            children = await interruptible(_opened, None, await self._called(worker))
        else:
            children = await interruptible(_opened, self.call.fn, worker.item)
        return children

    def items_seen(self) -> int:
        return self.absorbed + self.failed

    def _emit(self, worker: Worker, failure: Failure[Any]) -> None:
        """Put the failure behind the children that the item had."""
        self.absorbed += 1
        self.created += 1
        super()._emit(worker, failure)

    def _pass_over(self, worker: Worker) -> None:
        """An item has no place of its own among its children."""

    async def _close_children(self, children: Any) -> None:
        if hasattr(children, "aclose"):
            await self.shielded(children.aclose)
        elif hasattr(children, "close"):
            self.close_stream(children)


_END = object()


async def _opened(call: Callable[[Any], Any] | None, value: Any) -> AsyncIterator[Any] | Iterator[Any]:
    """Open what the function gives for an item (or a step gave): an iterable or async iterable, awaited if need be."""
    result = value if call is None else call(value)
    if isawaitable(result):
        result = await result
    children: AsyncIterator[Any] | Iterator[Any]
    children = aiter(result) if hasattr(type(result), "__aiter__") else iter(result)
    return children


async def _next(children: Any) -> Any:
    """Ask for one child."""
    if hasattr(type(children), "__anext__"):
        return await anext(children, _END)
    return next(children, _END)
