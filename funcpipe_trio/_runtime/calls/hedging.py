"""A second call when the first is slow: who starts it, which result counts, and who ends the others?

Most calls are fast, so nothing is made for a second one before that is due. The first call runs in the task of its
caller; all calls of a step are in one list (`_sansio.hedging`), and one task watches the clock for all of them. When
one more call is due, it gets a task of its own, in the nursery of the run or of the block of a started step.

    the first success counts     all other calls are cancelled, and waited for
    a failure                    is final if no other call runs; otherwise those decide, and those still to come
    a mistake in the program     is final: all other calls are cancelled, and waited for
    the caller is cancelled      so is the first call, and when that has ended the others; they are waited for

Each call has its own `CallContext`: attempts, limits and waits are its own. It begins with the context variables that
its item had when the first call began.

The invariant: when the caller goes on, however it ends, no call of its item runs.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from functools import partial
from math import inf
from typing import Any, TypeAlias

import trio

from ..._base.errors import is_misuse
from ..._plan.steps import Hedge
from ..._sansio.hedging import SlowCalls
from ..core.call_context import CallContext, Layered
from ..core.failures import failure_of, follow
from ..core.protocols import Keeper
from ..core.time_limit import TimeLimit

_Begun: TypeAlias = tuple[float, Any, TimeLimit, contextvars.Context, float]
"""When a first call began, and what its further calls need: see `_Race`."""


def hedged(inner: Layered, hedge: Hedge, name: str, keeper: Callable[[], Keeper]) -> Layered:
    """Put a hedge around a call; `keeper` returns where further calls run."""
    return _Hedging(inner, hedge, name, keeper).call


class _Hedging:
    """The calls of one hedge, and the task that watches the clock for them."""

    def __init__(self, inner: Layered, hedge: Hedge, name: str, keeper: Callable[[], Keeper]) -> None:
        self._inner = inner  # what is called
        self._after = hedge.after  # seconds
        self._name = name  # of the step, for its tasks and errors
        self._keeper = keeper  # returns where they run
        self._slow: SlowCalls[CallContext, _Begun] = SlowCalls(hedge.after, hedge.most)  # says when one more is due
        self._begin, self._end, self._forget = self._slow.add, self._slow.end, self._slow.remove
        self._races: dict[CallContext, _Race] = {}  # the calls of items for which there are further ones
        self._now: Callable[[], float] = trio.current_time  # the time; while there is a task, a faster way to it
        self._alarm: trio.CancelScope | None = None  # whose deadline wakes the watching task; None while it has none
        self._wakes_at = inf  # that deadline; below any time while the task looks around
        self._is_watched = False  # the task was started, and has not ended

    async def call(self, item: Any, context: CallContext) -> Any:
        if not self._is_watched:
            self._start_watching()
        now, races, raised = self._now(), self._races, None
        limit = (context.kept_limit or TimeLimit(inf)).hold()
        # What a further call needs: a tuple, because an object takes 0.2 us.
        self._begin(context, (now, item, limit, contextvars.copy_context(), context.deadline))
        if self._wakes_at > now + self._after and self._alarm is not None:
            self._wakes_at = self._alarm.deadline = now + self._after
        try:
            try:
                result = await self._inner(item, context)
                if races and context in races:
                    limit.is_met()  # or a scope that was cancelled would stay open
                    races[context].win(result)
            except BaseException as error:  # noqa: ASYNC103  # not raised again if the limit has ended it
                if not limit.__exit__(type(error), error, error.__traceback__):
                    raise
            else:
                limit.leave()
        except BaseException as error:  # noqa: ASYNC103  # raised again if it must pass
            raised = error
        race = races.get(context) if races else None
        try:
            if race is None:  # no other call was made, as mostly
                self._end(context)
            else:
                raised, result = await self._decided(race, raised), race.result
            if raised is not None:
                raise raised
            return result
        finally:
            del raised, race  # otherwise a reference cycle

    def _start_watching(self) -> None:
        keeper = self._keeper()
        keeper.start_task(partial(self._watch, keeper), f"{self._name} (hedge)")
        self._is_watched, self._now = True, trio.lowlevel.current_clock().current_time

    @trio.lowlevel.enable_ki_protection
    async def _watch(self, keeper: Keeper) -> None:
        """Start a further call whenever one is due, for as long as there may be calls."""
        try:
            while True:
                self._wakes_at = self._slow.next_at()
                with trio.CancelScope(deadline=self._wakes_at) as self._alarm:
                    await keeper.until_unused()
                    return
                self._start_further(keeper)
        finally:
            self._is_watched, self._alarm = False, None

    def _start_further(self, keeper: Keeper) -> None:
        """Start the calls that are due: not in `_watch`, which would hold the last item until it looks again."""
        for context, begun in self._slow.due(trio.current_time()):
            if context not in self._races:
                self._races[context] = _Race(context, *begun[1:])
            race = self._races[context]
            race.add(partial(self._further, race), keeper, f"{self._name} (hedge)")

    @trio.lowlevel.enable_ki_protection  # user code in it is not protected
    async def _further(self, race: _Race, scope: trio.CancelScope) -> None:
        """Make one more call, unless one has ended meanwhile."""
        context, error = race.further_context(), None
        try:
            with scope:
                trio.lowlevel.current_task().context = race.variables.copy()
                await trio.lowlevel.checkpoint()  # from here on it has that context; calls that just end come first
                if not race.has_ended:
                    context.counters.hedges += 1
                    race.running += 1
                    race.win(await self._inner(race.item, context))
                    race.limit.end()
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None:
                raise
            is_cancelled = scope.cancel_called
            self._lose(race, error, context, is_cancelled=is_cancelled)
            if race.is_decided and not is_cancelled:
                race.limit.end()
        finally:
            race.leave(scope)
            del race, error  # otherwise a reference cycle

    async def _decided(self, race: _Race, raised: BaseException | None) -> BaseException | None:
        """Return the error of an item that had several calls, when the first has ended; None if one has succeeded."""
        try:
            if raised is not None:
                error = failure_of(raised)
                if error is None or not (race.others or race.error or race.has_ended):
                    return raised
                self._lose(race, error, race.context, is_cancelled=race.is_decided)
                await race.until_decided()
        finally:
            self._forget(race.context)  # no further call starts now
            del self._races[race.context]
            await race.end_others()  # noqa: ASYNC102  # it waits, shielded, for calls that it cancels
        return None if race.is_won else race.error

    def _lose(self, race: _Race, error: Exception, context: CallContext, *, is_cancelled: bool) -> None:
        """Note that a call failed; as it was cancelled, that is an error of cleanup."""
        if is_cancelled:
            assert race.keeper is not None
            race.keeper.keep(error, self._name)
        else:
            race.fail(error, context)
            if race.has_ended:
                self._forget(race.context)


class _Race:
    """The calls of an item that has several."""

    def __init__(
        self, context: CallContext, item: Any, limit: TimeLimit, variables: contextvars.Context, deadline: float
    ) -> None:
        self.context = context  # of the first call
        self.item = item  # what is called with
        self.limit = limit  # the block of the first call, which ends it
        self.variables = variables  # the context variables as they were when it began
        self.deadline = deadline  # around all its calls; a timeout inside the first one sets another meanwhile
        self.others: dict[trio.CancelScope, None] = {}  # around each further call that has not ended
        self.keeper: Keeper | None = None  # where those run; None before the first
        self.count = 0  # further calls so far
        self.running = 1  # calls that were begun, and have not ended
        self.has_ended = False  # it is decided, or all calls that were begun have failed: no more are started
        self.is_won = False  # one has succeeded
        self.is_decided = False  # one has, or met a mistake in the program: the others are cancelled
        self.result: Any = None  # of that one
        self.error: Exception | None = None  # of the last call that failed; those before are its context
        self._changed: trio.Event | None = None  # set when something has; None while nobody waits for that

    def add(self, call: Callable[[trio.CancelScope], Any], keeper: Keeper, name: str) -> None:
        """Start a further call."""
        scope = trio.CancelScope()
        self.others[scope], self.keeper = None, keeper
        keeper.start_task(partial(call, scope), name)

    def further_context(self) -> CallContext:
        self.count += 1
        context = CallContext(self.context.counters, self.context.number, further=self.count)
        context.deadline, context.on_failure = self.deadline, self.context.on_failure
        return context

    def win(self, result: Any) -> None:
        """Take the result of a call, if it is the first; end the others."""
        if self.is_decided:
            return
        self.has_ended, self.is_won, self.result = True, True, result
        self._decide()

    def fail(self, error: Exception, context: CallContext) -> None:
        """Take the error of a call: it is the one that remains, so far."""
        if self.error is not None:
            follow(error, self.error)
        self.error = error
        self.running -= 1
        self.context.take_over(context)
        if is_misuse(error):
            self._decide()
        self.has_ended = self.is_decided or not self.running

    def _decide(self) -> None:
        self.is_decided = True
        for scope in self.others:
            scope.cancel()
        self._tell()

    def leave(self, scope: trio.CancelScope) -> None:
        """Called when a further call has ended."""
        del self.others[scope]
        self._tell()

    async def until_decided(self) -> None:
        """Wait until it is decided, or none runs."""
        while self.running and not self.is_decided:
            await self._change()

    async def end_others(self) -> None:
        """Cancel the further calls, and wait for them."""
        for scope in self.others:
            scope.cancel()
        with trio.CancelScope(shield=True):
            while self.others:
                await self._change()

    async def _change(self) -> None:
        self._changed = trio.Event()
        await self._changed.wait()

    def _tell(self) -> None:
        if self._changed is not None:
            self._changed.set()
