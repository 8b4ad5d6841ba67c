"""How does an object of the user's run as an operation: when is it asked, and what of it is discarded?

The rule: each call to it is made to its end at once, and what it gave is here until it has gone out. So between two
calls the object is in a state of its own making, and what it holds, and what is here, is all that there is.

An item that it took counts as absorbed, a value that it gave as created. When the stage is stopped, or after a failure,
the values here and what `held` returns are discarded; `flush` is called only at the end of the stream, and what it gave
is not held any more.

A failure is the chain's as soon as it happens, though it is raised behind the values that were given before it: so it
counts, and is kept, also where nobody reads that far.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import trio

from ..._base.checks import is_finite
from ..._base.errors import MisuseError
from ..._base.shown import kind_of, named, shown
from ..._plan.nodes import is_awaitable
from ..._plan.own import WithState
from ..core.failures import is_cancellation
from ..core.signals import NO_ITEM, PENDING
from ..core.user_code import not_awaitable, refuse_awaitable
from .base import FusedOperation

_WAITS = "Use .through(fn) for what waits."


class StatefulOp(FusedOperation):
    """What an object gives for each value, at times, and at the end."""

    may_keep = True  # one value may become several

    def __init__(self, operation: WithState) -> None:
        super().__init__(operation)
        self._make = operation.make  # makes the object
        self._is_timed = operation.is_timed  # its stage watches the clock
        self._state: Any = None  # the object; None before it is made, and when it gave out everything
        self._push: Callable[[Any], Any]  # its method; set when it is made
        self._due: Callable[[], Any] | None = None  # tells when it wants to be called; None if it never does
        self._now: float | None = None  # the time to tell it before its next value; None while it is not due
        self._out: deque[Any] = deque()  # what it gave, and has not gone out
        self._failed_at: Any = NO_ITEM  # the value at which it failed: no longer held, whatever it says
        self._iterables: set[type] = set()  # types of results that were vetted

    @trio.lowlevel.enable_ki_protection
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        out, number = self._out, 0
        yield from self._given(self._begin)
        push = self._push
        if self._now is not None:
            yield from self._given(self._tick)
        for value in values:
            if value is PENDING:
                yield PENDING
            else:
                failure = self._pushed(push, value, number)
                number += 1
                if not out and failure is None:
                    yield PENDING
                while out:
                    yield out.popleft()
                if failure is not None:
                    raise failure
            if self._now is not None:  # here, before another value is taken, for which there might be no room then
                yield from self._given(self._tick)
        if not self.chain.is_cut_off:
            yield from self._flushed()

    def tick(self, now: float) -> None:
        if now >= self.deadline:
            self._now = now

    @property
    def has_more(self) -> bool:
        return bool(self._out) or self._now is not None

    @trio.lowlevel.enable_ki_protection
    def held(self) -> list[Any]:
        """Return what it gave that has not gone out, and what it says it holds."""
        given = len(self._out)
        for state in self._left():
            try:
                self._take_held(state)
            except BaseException as error:  # noqa: ASYNC103  # sync: no scope cancels it
                if isinstance(error, Exception) or is_cancellation(error):
                    self.chain.keep_cleanup_error(error)
                else:  # as in `on_discard`: what is held is told first
                    self.chain.host.ledger.end_by(error)
        items = list(self._out)
        self._out.clear()
        failed_at = next((at for at in reversed(range(given, len(items))) if items[at] is self._failed_at), None)
        if failed_at is not None:  # once: the same object may have come as another item
            del items[failed_at]
        self.created += len(items) - given
        return items

    def _left(self) -> list[Any]:
        """Hand out, and forget, the objects that may hold something."""
        state, self._state = self._state, None
        return [] if state is None else [state]

    # ---- calls to it

    @trio.lowlevel.enable_ki_protection
    def _pushed(self, push: Callable[[Any], Any], value: Any, number: int) -> Exception | None:
        """Pass a value to it; return its failure, if it raised."""
        failure: Exception | None = None
        try:
            self._take("push", push, value)
            if self._due is not None:
                before = self.deadline
                self._ask()
                if self.deadline != before:  # one that stays is told in its time
                    self.tick(self.chain.now())
        except BaseException as error:  # noqa: ASYNC103  # what must pass is raised there
            failure = self._failure(error, number, value)
        else:
            self.absorbed += 1
        finally:
            self.created += len(self._out)  # now, so that they count as in flight while they wait for room
        return failure

    @trio.lowlevel.enable_ki_protection
    def _given(self, call: Callable[[], None]) -> Iterator[Any]:
        """Make a call that belongs to no value, and give out what it gave, even if it failed."""
        failure: Exception | None = None
        try:
            call()
        except BaseException as error:  # noqa: ASYNC103  # what must pass is raised there
            failure = self._failure(error, 0, NO_ITEM)
        finally:
            self.created += len(self._out)
        while self._out:
            yield self._out.popleft()
        if failure is not None:
            raise failure

    @trio.lowlevel.enable_ki_protection
    def _failure(self, error: BaseException, number: int, value: Any) -> Exception:
        """Report a failure, and return it: it is raised when what was given before it is out, if that is read."""
        self._failed_at = value
        try:
            self.chain.failing(error, self.name, number, value)
        except Exception as failure:
            return failure

    def _begin(self) -> None:
        self._state = state = self._made()
        self._push, self._due = state.push, getattr(state, "due", None)
        if self._due is not None:
            self._ask()
            self.tick(self.chain.now())

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _made(self) -> Any:
        """Return a new object, checked."""
        state = not_awaitable(self.name, self._make())
        if not callable(getattr(state, "push", None)):
            raise MisuseError(f"{named(self.name)}: make gave {kind_of(state)}, which has no method push")
        due, tick = getattr(state, "due", None), getattr(state, "tick", None)
        if (due is None) != (tick is None):
            raise MisuseError(f"{named(self.name)}: make gave {kind_of(state)}, which has due or tick, not both")
        if due is not None and not self._is_timed:
            raise MisuseError(
                f"{named(self.name)}: an object got its method due when it was made\nDefine due in its class."
            )
        return state

    @trio.lowlevel.enable_ki_protection
    def _flushed(self) -> Iterator[Any]:
        yield from self._given(self._flush)

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _flush(self) -> None:
        flush = getattr(self._state, "flush", None)
        if flush is not None:
            self._take("flush", flush)
        self._state = None  # it gave out everything, and is not asked what it holds

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _take_held(self, state: Any) -> None:
        held = getattr(state, "held", None)
        if held is not None:
            self._take("held", held)

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _take(self, method: str, call: Callable[..., Any], *args: Any) -> None:
        """Call it, and keep what it gives; what it gave before it failed stays here."""
        result = call(*args)
        if type(result) not in self._iterables:
            self._vet(method, result)
        self._out.extend(result)

    def _vet(self, method: str, result: Any) -> None:
        who = f"{method} of {named(self.name)}"
        if is_awaitable(result):
            refuse_awaitable(result, f"{who} is not async, but", _WAITS)
        if not hasattr(type(result), "__iter__"):
            use = _WAITS if hasattr(type(result), "__aiter__") else "Use `return ()` where it gives nothing."
            raise MisuseError(f"{who} returned {kind_of(result)}, which is not iterable\n{use}")
        self._iterables.add(type(result))

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _ask(self) -> None:
        """Ask when it wants to be called."""
        assert self._due is not None
        at = self._due()
        if at is None:
            self.deadline = math.inf
        elif type(at) is not float or at != self.deadline:
            self.deadline = self._time(at)

    def _time(self, at: Any) -> float:
        """Return the time that it gave, checked."""
        if isinstance(at, float) and math.isfinite(at):
            return at
        who = f"due of {named(self.name)}"
        if is_awaitable(at):
            refuse_awaitable(at, f"{who} is not async, but", _WAITS)
        if isinstance(at, bool) or not isinstance(at, int | float) or at != at:
            use = "Use trio.current_time() + seconds."
            raise MisuseError(f"{who} gave {shown(at)}, not a time in seconds, or None\n{use}")
        return at if is_finite(at) else math.inf if at > 0 else -math.inf

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def _asked(self, due: Callable[[], Any]) -> float:
        """Return what it answers, checked: inf if it wants no call."""
        at = due()
        return math.inf if at is None else self._time(at)

    def _tick(self) -> None:
        """Tell it the time, as often as it is due."""
        now, self._now = self._now, None
        assert now is not None
        assert self._due is not None
        while self.deadline <= now:
            self.deadline = self._ticked(self._state.tick, self._due, self.deadline, now)

    def _ticked(self, tick: Callable[[float], Any], due: Callable[[], Any], before: float, now: float) -> float:
        """Tell an object the time; return its next one, if it was due at the time `before`."""
        self._take("tick", tick, now)
        at = self._asked(due)
        if at <= min(before, now):
            raise MisuseError(
                f"due of {named(self.name)} gave a time that was over, again, after tick\n"
                "Let tick move it on, or give None."
            )
        return at
