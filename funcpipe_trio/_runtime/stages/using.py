"""A source that opens a resource and takes what a function gives of it: when is the resource closed?

The rule: when nothing in the run can use it any more. That is when all other tasks of the run have ended, and the
consumer, to whom the last item belongs, has asked for one more or left its block. (Or when the run was aborted: who
then waits for its end in the block must not wait for himself.) Its items need not be followed for
that, through batches, calls and links; and it is true for every end, since every end stops all tasks.

The task of the source opens it, iterates, ends its stage, waits and closes: so all of the stage is inside of what the
resource holds open, as in the block of an ``async with``. It is shielded there: a task outside waits for a cancellation
of the run, and stops the source. Two errors differ from one of the iterable:

  its block is ended by itself   a scope of its own was cancelled (a heartbeat failed, say): it is closed at once, and
                                 what that raises is the failure of the source, where its next item would stand
  leaving it fails               an error of cleanup

The function may also give a pipeline, which is run here as a block of its own: a drain drains it, too.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio

from ..._plan.nodes import Plan, plan_of
from ..._plan.resources import UsingSource
from ..core.failures import failure_of, is_cancellation, stray
from ..core.held import Held, made_cancellation
from ..core.protocols import Host, Outlet
from ..core.signals import CANCELLED, END
from ..core.user_code import interruptible, interruptibly
from ..operations.base import FusedOperation
from .made import MadeSource
from .nested import NestedRun


class ResourceSource(MadeSource):
    """What a function gives of a resource."""

    def __init__(self, host: Host, source: UsingSource, outlet: Outlet, fused: Sequence[FusedOperation]) -> None:
        super().__init__(host, source, outlet, fused)
        self._held = Held(source.open)  # the resource, opened when the source starts
        self._resource: Any = None  # what its context manager gave
        self._made: Any = None  # what the function gave of it
        self._opening = trio.CancelScope()  # around all of that; cancelled only while it is opened
        self._is_opening = False  # the resource is being opened
        self._run: Any = None  # of the pipeline that the function gave; None if it gave none
        self._error: BaseException | None = None  # what the source raised, which leaving is told of

    # ---- what ends it

    def stop(self, reason: str) -> bool:
        if self._is_opening:
            self._opening.cancel()
        return super().stop(reason)

    def drain(self) -> None:
        if self._run is not None:
            self._run.drain_nowait()
            self.resume()
            return
        if self._is_opening:
            self._opening.cancel()
        super().drain()

    def fail(self, error: Exception) -> None:
        self._error = self._error or error
        super().fail(error)

    def leave(self) -> None:
        if self.left is None:
            super().leave()

    # ---- its life

    async def work(self) -> None:
        with self._opening:
            await self._use()
        if self.left is None:  # there was no resource, or there is none any more: what came before goes on
            self.inbox.end()
            await self.drive()

    async def _use(self) -> None:
        if self.is_stopping() or not await self._open():  # it may be stopped before it began
            return
        ended: BaseException | None = None
        watching = trio.CancelScope()
        self.chain.host.start_task(partial(self._watch, watching), f"{self.name} (watching for a cancellation)")
        try:
            await super().work()
        except BaseException as error:  # noqa: ASYNC103  # raised again by what follows
            ended = error
        finally:
            watching.cancel()
        if ended is not None and is_cancellation(ended):
            await self._leave_at_once(ended)
        else:
            await self._leave_when_unused(ended)

    async def _watch(self, watching: trio.CancelScope) -> None:
        """Stop the source if the run is cancelled, which cannot reach it."""

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            if not watching.cancel_called:
                self.stop(CANCELLED)  # here, so that the source takes no more from this moment on
            return trio.lowlevel.Abort.SUCCEEDED

        with watching:
            await trio.lowlevel.wait_task_rescheduled(abort)

    async def _open(self) -> bool:
        """Open the resource; return whether it is open."""
        self.chain.turn_over()  # no neighbour must wait for this stage meanwhile
        self._is_opening = self._is_asking = True
        try:
            self._resource = await self._held.enter(self.name)
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:
                raise
            self.opened_in = self.chain.now() - self.chain.began
            self.fail(error)
            return False  # noqa: ASYNC104  # kept, and raised in its place
        finally:
            self._is_opening = self._is_asking = False
        self.opened_in = self.chain.now() - self.chain.began
        return True

    async def _leave_at_once(self, ended: BaseException) -> None:
        """Close a resource that has ended its block by itself; what it raises then is the failure of the source."""
        try:
            await self._held.leave(ended, self.chain.host.cleanup_timeout)
        except Exception as error:
            failure = error
        else:
            if self._held.has_handled:
                return
            failure = stray(ended)
        if self.inbox.is_over:
            self.chain.keep_cleanup_error(failure)
        else:
            self.fail(failure)

    async def _leave_when_unused(self, ended: BaseException | None) -> None:
        """Close the resource when no item can use it any more."""
        chain, error = self.chain, self._error or ended
        if ended is not None:  # it ends the program: nothing else would stop the other tasks
            chain.stopped = chain.stopped or CANCELLED
            chain.host.ledger.kill()
        elif error is None and chain.stopped == CANCELLED:
            error = await made_cancellation()
        try:
            self.leave()
            await chain.host.until_unused()
        except trio.Cancelled as met:  # noqa: ASYNC103  # of a scope that the resource holds open, which is told of it
            error = error or met
        await chain.kept_cleanup(self._held.leave(error, chain.host.cleanup_timeout))
        if ended is not None:
            raise ended

    # ---- what it gives

    async def take(self) -> None:
        if self.is_stopping():
            return
        try:
            self._made = interruptibly(self.source.origin.value, self._resource)
            inner = plan_of(self._made)
            if inner is None:
                self.checked(self._made)
                interruptibly(self.open_made)  # at once: it may hold something open, and may never be asked
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:
                raise
            self.fail(error)
            return  # noqa: ASYNC104  # kept, and raised in its place
        if inner is None:
            await super().take()
        else:
            await self._take_from_run(inner)

    async def _take_from_run(self, inner: Plan) -> None:
        """Run a pipeline in this task, and take its results."""
        nested = NestedRun(self, lambda: self.chain.stopped)
        block = self.chain.host.open_inner(inner, nested.discard)
        run: Any = None
        try:
            async with block as run:
                self._run = run
                if self._is_drained:  # meanwhile
                    self._is_drained = False
                    self.drain()
                await super().take()
        finally:
            self._run = None
            if run is not None:
                nested.keep_errors(run.report, self._error or sys.exception())

    def make(self) -> Any:
        return self._made

    async def next(self) -> Any:
        if self._run is None:
            return await super().next()
        try:
            return await self._run.receive()
        except trio.EndOfChannel:
            return END

    def asked(self, ask: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        # A run is not asked where Ctrl-C may strike: what it hands over would be lost on the way here.
        return interruptible(ask) if self._run is None else ask()
