"""A stage whose call gives many: how is an async iterable taken apart without letting it run ahead?

A worker takes an item, opens what the function gives for it, and asks for one child at a time, each only when there is
room for it. The item stays in the worker's hands until its last child came: its children count as one with it. With
several workers, children leave in the order in which they came. What the function gives may be a pipeline, too: then
the worker runs it, as a block of its own, and its results are the children.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from inspect import isawaitable
from typing import Any

from ..plan.nodes import Plan, plan_of
from ..policies.on_error import Failure
from .nested import InnerAccount
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
        made = await self._made(worker)
        inner = plan_of(made)
        if inner is None:
            await self._iterate(worker, made)
        else:
            await self._run(worker, inner)

    async def _made(self, worker: Worker) -> Any:
        """Give what the function, or the step, makes of the item."""
        if self.call.is_layered:
            return await interruptible(_awaited, None, await self._called(worker))
        return await interruptible(_awaited, self.call.fn, worker.item)

    async def _iterate(self, worker: Worker, made: Any) -> None:
        """Let the children of an iterable or async iterable out."""
        children: Any = None
        try:
            children = await interruptible(_opened, made)
            await self._let_out(worker, partial(interruptible, _next, children))
        finally:
            await self._close_children(children)  # noqa: ASYNC102  # shielded there

    async def _run(self, worker: Worker, inner: Plan) -> None:
        """Let the results of a pipeline out, which is run for that in this task."""
        account = InnerAccount(self, lambda: self._reason() if self._is_superfluous(worker) else None)
        opening = self.host.open_inner(inner, account.discard)
        run: Any = None
        try:
            async with opening as run:
                # Not where Ctrl-C may strike: what `run` hands over would be lost between it and here.
                await self._let_out(worker, partial(_next, run))
        finally:
            if run is not None:
                account.close(run.report, sys.exception())

    async def _let_out(self, worker: Worker, ask: Callable[[], Awaitable[Any]]) -> None:
        """Ask for the item's children, one at a time, each when there is room for it."""
        while await self._room_for_child(worker):
            self._asked += 1
            try:
                child = await ask()
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
                self._staff()  # an item may have come while this worker was parked: it was woken for that, in vain
                return True
            else:
                await self._wait(worker, starved=False)
        return False

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


async def _awaited(call: Callable[[Any], Any] | None, value: Any) -> Any:
    """Give what the function gives for an item (or a step gave), awaited if need be."""
    result = value if call is None else call(value)
    return await result if isawaitable(result) else result


async def _opened(made: Any) -> AsyncIterator[Any] | Iterator[Any]:  # noqa: ASYNC124  # for `interruptible`
    """Open an iterable or async iterable."""
    children: AsyncIterator[Any] | Iterator[Any]
    children = aiter(made) if hasattr(type(made), "__aiter__") else iter(made)
    return children


async def _next(children: Any) -> Any:
    """Ask for one child."""
    if hasattr(type(children), "__anext__"):
        return await anext(children, _END)
    return next(children, _END)
