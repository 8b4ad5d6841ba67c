"""Equal calls under way are made once: in which task, who gets the outcome, and what if one of the callers leaves?

A call is known by its key while it is under way. Who comes with an equal key waits for its outcome, result or error;
when it has ended it is forgotten. In which task it is made depends on how its callers may leave:

  all together   the callers are workers of one run, and nothing around this layer ends a single call: in the task of
                 the first caller, for a task for each call costs more than most of what is around a call. While others
                 wait, it is shielded: only a worker is cancelled alone whose item is not needed, and it can wait.
  apart          a timeout or a hedge around this layer may end one of them, or callers are anywhere (those of a started
                 step): in a task of its own, in the nursery of the run or of the block. A caller leaves at once; the
                 last one cancels the call, and waits for it.

The invariant: no call goes on that nobody waits for, none is ended that somebody waits for, and no two equal calls are
made at once. (One that was being cancelled when another caller came has no outcome: when it has ended, that caller
makes it anew.)
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from math import inf
from types import TracebackType
from typing import Any

import trio

from ..._base import checks
from ..._base.errors import StateError
from ..._base.shown import named
from ..._plan.steps import Coalesce
from ..core.call_context import CallContext, Layered
from ..core.failures import failure_of
from ..core.protocols import Keeper
from ..core.time_limit import TimeLimit
from ..core.user_code import checked_key


def coalesced(
    inner: Layered, coalesce: Coalesce, name: str, keeper: Callable[[], Keeper], *, callers_leave: bool
) -> Layered:
    """Make equal calls once; `callers_leave` says whether one of them may be cancelled while others go on."""
    return _Coalescing(inner, coalesce.key, name, keeper, callers_leave=callers_leave).call


class _Coalescing:
    """The calls under way, by key."""

    def __init__(
        self,
        inner: Layered,
        key: Callable[[Any], Hashable],
        name: str,
        keeper: Callable[[], Keeper],
        *,
        callers_leave: bool,
    ) -> None:
        self._inner = inner  # what is called
        self._key = key  # says which calls are equal
        self._name = name  # of the step, for its tasks and errors
        self._keeper = keeper  # returns where tasks of calls run
        self._make = self._in_a_task if callers_leave else self._here  # makes a call, and returns its result
        self._calls: dict[Hashable, _Shared] = {}  # those that may be waited for

    @trio.lowlevel.disable_ki_protection  # the key is user code
    def call(self, item: Any, context: CallContext) -> Awaitable[Any]:
        key = self._key(item)
        if (kind := type(key)) is not str and kind is not int:  # for these a call of the check can be saved
            checked_key("the key of a coalesce", key)
        try:
            shared = self._calls.get(key)
        except TypeError:
            checks.hashable("Step.coalesce", "what key gives", key)
            raise
        if shared is not None and not shared.is_over:
            return self._joined(shared, item, context)
        return self._make(key, item, context)  # not awaited here: each coroutine around a call costs 150 ns

    async def _joined(self, shared: _Shared, item: Any, context: CallContext) -> Any:
        """Return the outcome of an equal call; if that has none, make one."""
        context.counters.coalesced += 1
        context.has_waited = True  # for another call
        try:
            await self._wait(shared)
            if shared.is_settled:
                return shared.outcome(context)
        finally:
            del shared  # its error would be in a reference cycle
        context.counters.coalesced -= 1
        return await self.call(item, context)

    async def _wait(self, shared: _Shared) -> None:
        """Wait for a call that others wait for, too; if all have left, that ends it."""
        shared.join()
        try:
            await shared.done.wait()
        except BaseException:
            shared.waiting -= 1
            if not shared.waiting:
                await self._leave(shared)  # noqa: ASYNC102  # it waits for what it cancels, shielded where it must
            raise

    async def _leave(self, shared: _Shared) -> None:
        """Called when the last that waited for a call was cancelled."""
        if shared.limit is not None:
            shared.limit.shield(False)
            return
        if shared.scope.cancel_called:  # another one did that, and waits
            return
        shared.scope.cancel()  # not forgotten before it has ended: who comes meanwhile waits for that
        with trio.CancelScope(shield=True):
            await shared.done.wait()

    async def _here(self, key: Hashable, item: Any, context: CallContext) -> Any:
        """Make a call in the task of its first caller."""
        shared = self._calls[key] = _Shared()
        shared.limit = limit = (context.kept_limit or TimeLimit(inf)).hold()
        error: Exception | None = None
        try:
            try:
                result = await self._inner(item, context)
                if shared.has_waited:
                    limit.shield(False)
                    shared.succeed(result)
            except BaseException as raised:
                limit.__exit__(type(raised), raised, raised.__traceback__)
                raise
            limit.leave()
        except BaseException as raised:
            if shared.has_waited and (error := failure_of(raised)) is not None:
                shared.fail(error, context)
            raise
        finally:
            self._end(key, shared)
            del shared, error  # otherwise a reference cycle
        return result

    async def _in_a_task(self, key: Hashable, item: Any, context: CallContext) -> Any:
        """Make a call in a task of its own, and wait for it as all others do."""
        shared = self._calls[key] = _Shared()
        own, variables = CallContext(context.counters, context.number), contextvars.copy_context()
        own.on_failure = context.on_failure
        try:
            keeper = self._keeper()
            task = partial(self._task, key, shared, item, own, variables, keeper)
            keeper.start_task(task, f"{self._name} (coalesce)")
        except BaseException:
            self._end(key, shared)
            raise
        try:
            await self._wait(shared)
            if not shared.is_settled:  # the run is cancelled: so is this caller, once those that shield it have left
                await trio.sleep_forever()
            context.has_waited = context.has_waited or own.has_waited
            return shared.outcome(context)
        finally:
            del shared, task, own  # otherwise a reference cycle

    @trio.lowlevel.enable_ki_protection
    async def _task(
        self,
        key: Hashable,
        shared: _Shared,
        item: Any,
        context: CallContext,
        variables: contextvars.Context,
        keeper: Keeper,
    ) -> None:
        error: Exception | None = None
        try:
            with shared.scope:
                trio.lowlevel.current_task().context = variables
                await trio.lowlevel.checkpoint()  # from here on it has that context
                shared.succeed(await self._inner(item, context))
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:
                if not keeper.ends_callers:
                    ended = f"the call of {named(self._name)} was cancelled: the block of its started step has ended"
                    shared.fail(StateError(f"{ended}\nUse the block around everything that calls the step."), context)
                raise
            if shared.scope.cancel_called:  # nobody waits for it, or to make it anew
                keeper.keep(error, self._name)
            else:
                shared.fail(error, context)
        finally:
            self._end(key, shared)
            del shared, error  # otherwise a reference cycle

    def _end(self, key: Hashable, shared: _Shared) -> None:
        """Let no more callers wait for a call, and wake those that do."""
        shared.is_over = True
        try:
            if self._calls.get(key) is shared:
                del self._calls[key]
        except Exception:  # of the key's own: the call is forgotten when its key comes again
            pass
        if shared.has_waited:
            shared.done.set()


class _Shared:
    """A call that may have several callers. Most have one: what others need is set when there are some."""

    waiting = 0  # callers that wait for it, without the one in whose task it is made
    has_waited = False  # one did
    is_over = False  # nobody may wait for it any more
    is_settled = False  # it has a result or an error
    limit: TimeLimit | None = None  # around it, in the task of its first caller; None in a task of its own
    _scope: trio.CancelScope | None = None  # around it, in a task of its own; made when needed
    _done: trio.Event | None = None  # set when it has ended; made when needed
    _result: Any = None  # of it
    _error: Exception | None = None  # with which it failed; None if it did not
    _traceback: TracebackType | None = None  # of that, up to here: each caller adds its own
    _context: CallContext | None = None  # has the attempts of a call that failed

    @property
    def scope(self) -> trio.CancelScope:
        if self._scope is None:
            self._scope = trio.CancelScope()
        return self._scope

    @property
    def done(self) -> trio.Event:
        if self._done is None:
            self._done = trio.Event()
        return self._done

    def join(self) -> None:
        """Called when one more begins to wait."""
        self.waiting += 1
        self.has_waited = True
        if self.limit is not None and self.waiting == 1:
            self.limit.shield(True)

    def succeed(self, result: Any) -> None:
        self._result, self.is_settled = result, True

    def fail(self, error: Exception, context: CallContext) -> None:
        self._error, self._traceback, self.is_settled = error, error.__traceback__, True
        self._context = CallContext(context.counters)
        self._context.take_over(context)

    def outcome(self, context: CallContext) -> Any:
        """Return the result, or raise the error: one object for all."""
        if self._error is None:
            return self._result
        if self._context is not None:
            context.take_over(self._context)
        error, traceback = self._error, self._traceback
        try:
            raise error.with_traceback(traceback)
        finally:
            del self, error, traceback  # otherwise a reference cycle
