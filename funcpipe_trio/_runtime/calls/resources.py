"""The resource of a step, such as a connection: who opens it, who shares it, and when is it closed?

It is opened by the call that first needs one. That call waits, under its own policies: a failed opening is the call's
error, and costs no other call anything. But a task of its own opens it, holds it and closes it: it outlives the call,
whose task may be inside of a timeout, and what holds a nursery open must be left in the task that entered it.

  per run      one for all; while it is opened, the other calls wait in line, and if that fails the next one opens anew
  per worker   one for each call that is made at the same time: a call takes one that is free, or opens another

The rule for closing is that of `Pipeline.using`: when nothing can use it any more. In a run, that is when only such
tasks are left; in the block of a started step, when that is left and its calls have ended. One that ends by itself (a
heartbeat failed, say) is closed at once, and the next call opens another.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import trio

from ..._base.errors import StateError
from ..._base.shown import named, told
from ..._plan.steps import Call, Using
from ..core.call_context import CALL, CallContext, Layered
from ..core.failures import add_note, failure_of, warn_of
from ..core.held import Held
from ..core.ledger import Ledger
from ..core.protocols import Keeper


class Resources:
    """The resources of one call of a step, for one start of the step."""

    def __init__(self, using: Using, name: str, keeper: Callable[[], Keeper]) -> None:
        self._using = using  # what opens one, and who shares it
        self._name = name  # of the step, for errors
        self._keeper = keeper  # returns where the tasks run that hold them
        self._free: list[_Opening] = []  # those that a call may take; the one that was used last is taken first
        self._line = trio.Lock()  # one for all: who opens it; the others wait

    def around(self, call: Callable[[Any, Any, CallContext], Awaitable[Any]]) -> Layered:
        """Return a function that makes a call with a resource; `call` is given that, an item and its context."""

        async def used(item: Any, context: CallContext) -> Any:
            opening = await self._take(context)
            opening.users += 1
            left_behind = context.counters.abandoned
            try:
                return await call(opening.resource, item, context)
            finally:
                opening.put_down()
                # A call that was left behind in a thread still uses its resource: no other call gets that.
                if self._using.per == "worker" and left_behind == context.counters.abandoned:
                    self._free.append(opening)

        return used

    async def _take(self, context: CallContext) -> _Opening:
        """Take a resource that is open, or wait until there is one."""
        opening = self._at_hand()
        if opening is not None:
            return opening
        since, context.waits_for, context.has_waited = trio.current_time(), "resource", True
        try:
            return await (self._opened(context) if self._using.per == "worker" else self._opened_for_all(context))
        finally:
            context.waits_for = CALL
            context.counters.waited_resource += trio.current_time() - since

    def _at_hand(self) -> _Opening | None:
        """Return one that a call may take at once, if there is one; forget those that have ended by themselves."""
        while self._free:
            opening = self._free[-1]
            if self._using.per == "worker" or not opening.is_open:
                self._free.pop()
            if opening.is_open:
                return opening
        return None

    async def _opened_for_all(self, context: CallContext) -> _Opening:
        async with self._line:
            opening = self._at_hand()
            if opening is None:
                opening = await self._opened(context)
                self._free.append(opening)
            return opening

    async def _opened(self, context: CallContext) -> _Opening:
        """Open one more."""
        keeper = self._keeper()
        opening = _Opening(self._using.open, self._name, keeper)
        keeper.start_task(opening.hold, f"{self._name} (resource)")
        try:
            await opening.is_settled.wait()
        except trio.Cancelled:
            if opening.is_open:
                self._free.append(opening)
            else:
                opening.give_up()
            raise
        finally:
            context.counters.resources += opening.is_open
        if opening.error is not None:
            raise opening.error
        if opening.is_cancelled:
            if keeper.ends_callers:  # the run is cancelled, and so is this caller, when those that shield it have left
                await trio.sleep_forever()
            ended = f"the resource of {named(self._name)} was not opened: the block of its started step has ended"
            raise StateError(f"{ended}\nUse the block around everything that calls the step.")
        return opening


class _Opening:
    """One opening of a resource, and the task that holds it."""

    def __init__(self, open_: Callable[[], Any], name: str, keeper: Keeper) -> None:
        self._held = Held(open_)  # the resource
        self._name = name  # of the step, for errors
        self._keeper = keeper  # says when nobody needs it any more
        self.resource: Any = None  # what its context manager gave
        self.error: Exception | None = None  # why it could not be opened
        self.is_settled = trio.Event()  # it is open, or could not be opened
        self.is_open = False  # it may be used
        self.is_cancelled = False  # what ended all tasks of its run or block came before that
        self.users = 0  # calls that use it
        self._is_unused: trio.Event | None = None  # set when there are none; None while nobody waits for that
        self._is_unwanted = False  # the call that needed it is gone
        self._scope = trio.CancelScope()  # around all of it; cancelled only while it is opened

    def give_up(self) -> None:
        """Called when the call that needs it was cancelled, before it had it."""
        self._is_unwanted = True
        self._scope.cancel()

    def put_down(self) -> None:
        """Called when a call has ended that used it."""
        self.users -= 1
        if not self.users and self._is_unused is not None:
            self._is_unused.set()

    async def hold(self) -> None:
        """Open it, hold it until nobody needs it, and close it."""
        with self._scope:
            try:
                self.resource = await self._held.enter(self._name)
                self.is_open = True
            except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
                self.error = failure_of(raised)
                if self.error is None:
                    self.is_cancelled = True
                    raise
                return  # noqa: ASYNC104  # raised by the call
            finally:
                self.is_settled.set()
            error: BaseException | None = None
            try:
                await self._until_unused()
            except trio.Cancelled as met:  # noqa: ASYNC103  # of a scope that it holds open, which is told of it
                error = met
            self.is_open = False
            await self._leave(error)

    async def _until_unused(self) -> None:
        if self._is_unwanted:
            return
        await self._keeper.until_unused()
        self.is_open = False
        if self.users:
            self._is_unused = trio.Event()
            await self._is_unused.wait()

    async def _leave(self, error: BaseException | None) -> None:
        limit = self._keeper.cleanup_timeout
        ending = self._held.leave(error, limit)
        await self._keeper.ledger.kept_cleanup(ending, f"step {named(self._name)}", limit)


class Block:
    """The block of a started step: in it are the tasks that hold its resources."""

    cleanup_timeout = 5.0
    """Seconds in which each must be closed."""
    ends_callers = False
    """Callers may be in any task."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.ledger: Ledger = Ledger(None)  # has the errors of closing
        self._nursery = nursery  # of the tasks
        self._context = contextvars.copy_context()  # of the task that entered the block
        self._is_left = trio.Event()  # the block ends

    def start_task(self, task: Callable[[], Awaitable[object]], name: str) -> None:
        self._context.run(partial(self._nursery.start_soon, task, name=name))

    async def until_unused(self) -> None:
        await self._is_left.wait()

    def keep(self, error: Exception, name: str) -> None:
        """Log an error that a call raised while it was cancelled: the call has another result."""
        warn_of(f"step {named(name)}", [error], 1)

    def leave(self) -> None:
        """Let everything be closed as soon as it is not used."""
        self._is_left.set()

    def settle(self, error: BaseException | None) -> None:
        """Note the errors of closing on the error of the block; raise the first of them if there is none."""
        errors = [*(() if error is None else (error,)), *self.ledger.cleanup_errors]
        for each in errors[1:]:
            add_note(errors[0], f"then closing a resource raised {told(each)}")
        if error is None and errors:
            raise errors[0]


def with_resource(call: Call, keeper: Callable[[], Keeper], make: Callable[..., Awaitable[Any]]) -> Layered:
    """Return the layer of a call with a resource; `make` calls the function with the resource, item and context."""
    assert call.using is not None
    return Resources(call.using, call.name, keeper).around(make)
