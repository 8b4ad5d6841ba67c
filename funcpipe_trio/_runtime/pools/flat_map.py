"""A stage whose call returns many values: how is an async iterable taken apart without letting it run ahead?

A worker takes an item, opens what the function returns for it, and asks for one child at a time. A silent inner stream
needs no room, so it is asked without any; the child that comes waits in the worker's hand until there is room for it.
Workers with a child in hand stand in a line and are served in turn, each with its share of the room. So a silent stream
delays no other, and a busy one takes no more than its share.

The item stays in the worker's hands until its last child came: its children, with the one in hand, count as one with
it. With several workers, children leave in the order in which they came. The function may also return a pipeline: then
the worker runs it, as a block of its own, and its results are the children.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import trio

from ..._plan.nodes import Plan, is_awaitable, plan_of
from ...policies.on_error import Failure
from ..calls.calling import Calling
from ..core.lifetime import Lifetime, thrown
from ..core.parking import WOKEN, Parking
from ..core.signals import END
from ..core.user_code import interruptible, interruptibly
from ..stages.chain import FULL, STARVED, TURN_OVER, BurstEnd, Ends
from ..stages.nested import NestedRun
from .crew import Worker
from .pool import Pool


class Children:
    """What one item becomes: the stream of its children, and those that came and are not out yet."""

    __slots__ = ("error", "hand", "is_over", "is_waiting", "life", "parking", "stream")

    def __init__(self, stream: Any, life: Lifetime | None) -> None:
        self.stream = stream  # what gives them, one at a time
        self.life = life  # of what it holds open; None if it is a run, which is a block of its own
        self.hand: deque[Any] = deque()  # at most one: the next is asked for when it is out
        self.is_over = False  # no more will come
        self.error: BaseException | None = None  # why not, if the stream failed; raised behind the child in hand
        self.is_waiting = False
        """Whether the worker waits for room, and not in user code, which only a cancellation can end."""
        self.parking: Parking | None = None  # what the worker waits in line by; made at its first wait: many need none

    async def take_next(self, ask: Callable[[], Awaitable[Any]]) -> bool:
        """Take what the stream gives: a child, its end, or an error; return whether it was a child."""
        try:
            child = await ask()
        except BaseException as error:  # noqa: ASYNC103  # raised behind the children in hand, which came before
            self.is_over, self.error = True, error
            return False  # noqa: ASYNC104  # kept, and raised in its turn
        if child is END:
            self.is_over = True
            return False
        self.hand.append(child)
        return True


class FlatMapPool(Pool):
    """Workers that iterate what an async function, or an async generator function, returns for an item."""

    def __init__(self, ends: Ends, call: Calling, *, concurrency: int, ordered: bool) -> None:
        super().__init__(ends, call, concurrency=concurrency, ordered=ordered)
        self._children: dict[Worker, Children] = {}  # what the item in each worker's hands becomes
        self._line: OrderedDict[Worker, bool] = OrderedDict()
        """Workers that wait for room, in the order in which they came; the value is whether it is parked."""
        self._holder: Worker | None = None  # the worker whose turn in the line it is
        self._turns = 0  # children that it may still let out: its share of the room

    def on_room(self) -> bool:
        return self._wake_first() if self._line else super().on_room()

    # ---- one item

    async def serve(self, worker: Worker, item: Any) -> None:
        self.take_up(worker, item)
        if worker.variables.renew():
            await trio.lowlevel.checkpoint()
        if self.is_superfluous(worker):  # since the item was taken, or the checkpoint: no call begins any more
            self.give_up(worker)
            return
        try:
            await self._expand(worker)
        except BaseException as error:  # noqa: ASYNC103  # raised again if it must pass
            await self.outcomes.meet(worker, error)  # noqa: ASYNC102  # raises if the run is cancelled
            return  # noqa: ASYNC104  # not of the run's scope
        if self.is_superfluous(worker):
            self.give_up(worker)
        else:
            self.put_down(worker)
            self.note_end(worker)
            self.chain.absorbed += 1
        await trio.lowlevel.checkpoint_if_cancelled()  # a cancellation that came while the stream was closed, shielded

    async def _expand(self, worker: Worker) -> None:
        made = await self._made(worker)
        inner = plan_of(made)
        if inner is None:
            await self._iterate(worker, made)
        else:
            await self._run(worker, inner)

    async def _made(self, worker: Worker) -> Any:
        """Return what the function, or the step, makes of the item."""
        if self.call.is_layered:
            return await interruptible(_awaited, None, await self.called(worker))
        return await interruptible(_awaited, self.call.fn, worker.item)

    async def _iterate(self, worker: Worker, made: Any) -> None:
        """Let the children of an iterable or async iterable out."""
        life = Lifetime()
        life.begin()
        stream: Any = None
        try:
            stream = await interruptible(_opened, made)
            children = Children(stream, life)
            await self._let_out(worker, children)
        finally:
            close = getattr(stream, "aclose", None)
            try:
                if close is None:
                    interruptibly(self.chain.close_stream, stream)
            finally:
                closing = None if close is None else partial(interruptible, close)
                await self.chain.kept_cleanup(life.end(closing, self.chain.host.cleanup_timeout))  # noqa: ASYNC102  # shielded there
        await self._let_out_rest(worker, children)

    async def _run(self, worker: Worker, inner: Plan) -> None:
        """Run a pipeline in this task, and let its results out."""
        nested = NestedRun(self, lambda: self.reason() if self.is_superfluous(worker) else None)
        block = self.chain.host.open_inner(inner, nested.discard)
        run: Any = None
        try:
            async with block as run:
                children = Children(run, None)
                await self._let_out(worker, children)
                await self._let_out_rest(worker, children)
        finally:
            if run is not None:
                nested.keep_errors(run.report, sys.exception())

    # ---- its children

    async def _let_out(self, worker: Worker, children: Children) -> None:
        """Ask for the item's children, one at a time, and let each out when it has its turn."""
        self._children[worker] = children
        # A run is not asked where Ctrl-C may strike: what it hands over would be lost on the way here.
        ask = partial(_next, children.stream)
        if children.life is not None:
            ask = partial(interruptible, ask)
        while not self.is_superfluous(worker):
            try:
                await self._move_on_children(worker, children)
            except trio.Cancelled as error:  # noqa: ASYNC103  # one of the user's own scope ends here
                if not await self._is_cancelled_inside(worker, children):  # noqa: ASYNC102  # shielded there
                    raise
                if children.is_over:  # it may have left its scope open: it is closed first, then the rest is let out
                    return  # noqa: ASYNC104  # not of the run's scope
                assert children.life is not None
                clear = partial(self._move_on_children, worker, children)
                await children.life.sheltered(self.chain.host.start_task, clear)  # noqa: ASYNC102  # it is shielded
                if self.is_superfluous(worker):
                    break  # noqa: ASYNC104  # not of the run's scope
                ask_again = partial(interruptible, thrown, children.stream, error, END)
                if await children.take_next(ask_again):  # noqa: ASYNC102  # the scope that ended is the user's own
                    self.chain.created += 1
                continue  # noqa: ASYNC104  # not of the run's scope
            if children.is_over or self.is_superfluous(worker):
                break
            if await children.take_next(ask):
                self.chain.created += 1

    async def _is_cancelled_inside(self, worker: Worker, children: Children) -> bool:
        """Whether a scope that the stream holds open is cancelled, and nothing around it."""
        life, scope = children.life, worker.scope
        if life is None or scope.cancel_called or not await life.is_alone_cancelled(self.chain.host.start_task):
            return False
        return not scope.cancel_called

    async def _let_out_rest(self, worker: Worker, children: Children) -> None:
        """Let the rest out, and raise the error that stands behind it."""
        await self._move_on_children(worker, children)
        if children.error is not None:
            raise children.error

    async def _move_on_children(self, worker: Worker, children: Children) -> None:
        """Let out the child in hand, in turn with the other workers, and move on what is on its way."""
        hand, children.is_waiting = children.hand, True
        if self._holder is not worker:
            self._holder = None
        try:
            while not self.is_superfluous(worker):
                if hand and self._has_turn(worker):
                    self._let_go(worker, hand.popleft())
                # Most children went straight through: asking here whether any is left takes a third of the time of one.
                is_clear = self.is_direct and not self.order.waiting
                end = STARVED if is_clear else self.move_on(worker)
                if end is TURN_OVER or worker.turn.is_over():
                    await self.rest(worker)
                elif hand and self._has_turn(worker):
                    continue
                elif hand or (end is FULL and self.has_leftovers()):
                    await self._wait_in_line(worker)
                else:
                    self.chain.turn_over()
                    return
        finally:
            children.is_waiting = False
            if self._line:
                self._line.pop(worker, None)
                self._wake_first()

    def _has_turn(self, worker: Worker) -> bool:
        """Whether a worker may let a child out: there is room, and it is its turn, or still is."""
        room = self.chain.outlet.room() - len(self.order.waiting)
        if room < 1:
            return False
        if not self._line:
            return True
        if next(iter(self._line)) is not worker:
            return self._holder is worker and self._turns > 0
        if self._holder is not worker:
            self._holder, self._turns = worker, max(1, room // len(self._line))
        return True

    def _let_go(self, worker: Worker, child: Any) -> None:
        """Pass a child on."""
        if not (self.is_direct and self.put_through(worker.position, child)):
            self.order.complete(worker.position, child)
        worker.turn.left -= 1
        if self._line:
            self._line.pop(worker, None)  # with its next child it stands at the end, unless it still has its turn
            self._turns -= self._holder is worker

    async def _wait_in_line(self, worker: Worker) -> None:
        """Wait in line for room."""
        self.chain.turn_over()  # first: it may stop this stage, or give it room
        if self.is_superfluous(worker):
            return
        self._line[worker] = True  # it keeps its place, or gets the last one
        self.chain.outlet.wants_room = True
        self.source.release(parking=True)
        children = self._children[worker]
        parking = children.parking = children.parking or Parking(partial(self._leave_line, worker))
        worker.task = trio.lowlevel.current_task()
        self.crew.usage.park(self.chain.now(), starved=False, in_line=True)
        try:
            await parking
        finally:
            self.crew.usage.unpark(self.chain.now(), starved=False, in_line=True)
            worker.turn.begin()

    def _leave_line(self, worker: Worker, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._line[worker] = False
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake_first(self) -> bool:
        """Wake the first worker in line, if there is room; return whether it comes."""
        first = next(iter(self._line), None)
        if first is None or self.ended:
            return False
        if not self.chain.outlet.room():
            self.chain.outlet.wants_room = True
            return False
        if self._line[first]:
            self._wake_up(first)
        return True

    def _wake_up(self, worker: Worker) -> None:
        self._line[worker] = False
        assert worker.task is not None
        trio.lowlevel.reschedule(worker.task, WOKEN)

    def move_on(self, worker: Worker) -> BurstEnd:
        end = super().move_on(worker)
        if self._line:
            self._wake_first()
        return end

    # ---- giving up

    def cancel(self, worker: Worker) -> None:
        self.end_work(worker, worker.scope)

    def end_work(self, worker: Worker, scope: trio.CancelScope) -> None:
        """Cancel the scope of a worker's work; if it waits for room, only wake it: it then closes its stream itself."""
        children = self._children.get(worker)
        if children is None or not children.is_waiting:
            scope.cancel()
        elif self._line.get(worker):
            self._wake_up(worker)

    def put_down(self, worker: Worker) -> Any:
        """Take the item out of a worker's hands, and discard its children that are not out."""
        for child in self.take_hand(worker):
            self.chain.discard(child, self.reason())
        self._children.pop(worker, None)
        return super().put_down(worker)

    def take_hand(self, worker: Worker) -> list[Any]:
        """Take those children of a worker's item that are not out."""
        children = self._children.get(worker)
        taken = [] if children is None else [*children.hand]
        if children is not None:
            children.hand.clear()
        return taken

    def items_seen(self) -> int:
        return self.chain.absorbed + self.chain.failed

    def emit(self, worker: Worker, failure: Failure[Any]) -> None:
        """Put the failure behind the children that the item had."""
        self.chain.absorbed += 1
        self.chain.created += 1
        super().emit(worker, failure)

    def pass_over(self, worker: Worker) -> None:
        """Do nothing: an item has no place of its own among its children."""


async def _awaited(call: Callable[[Any], Any] | None, value: Any) -> Any:
    """Return what the function returns for an item (or what a step returned), awaited if necessary."""
    result = value if call is None else call(value)
    return await result if is_awaitable(result) else result


async def _opened(made: Any) -> AsyncIterator[Any] | Iterator[Any]:  # noqa: ASYNC124  # for `interruptible`
    """Open an iterable or async iterable."""
    children: AsyncIterator[Any] | Iterator[Any]
    children = aiter(made) if hasattr(type(made), "__aiter__") else iter(made)
    return children


async def _next(children: Any) -> Any:
    """Return the next child; `END` at the end."""
    if hasattr(type(children), "__anext__"):
        return await anext(children, END)
    return next(children, END)
