"""Operations of the user's own, recorded and played: when do they give values, and how many?

Of an object it is kept how many values each call gave, and how long after it wanted to be called; of a generator, its
stretches: the way from one item that it took, over the values that it gave, to where it asked for the next. There is
one stretch before the first item, and one after the last. What it gave while a task of its own waited for an item
counts as given when that came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any

import trio

from .._base.errors import MisuseError
from .._base.functions import AnyFunction
from .._runtime.core.failures import leaves_of
from .._runtime.core.signals import END
from .played_calls import expanded, live, raise_recorded
from .run_tapes import Tapes
from .streams import recorded_children
from .tapes import FailureKind
from .tokens import Reader, Token, origin_of

# ---- an object with state


def recorded_state(tapes: Tapes, name: str, make: AnyFunction) -> AnyFunction:
    """Return a function that makes the user's object, watched."""
    tapes.tape(name, "push", "counts")  # it is there, though it may be empty

    def recorded() -> Any:
        try:
            state = make()
        except Exception as error:
            tapes.tape(name, "make", "counts").add([0, tapes.failure(name, error)])
            raise
        tapes.tape(name, "make", "counts").add(1)
        return RecordedState(tapes, name, state) if callable(getattr(state, "push", None)) else state

    return recorded


class RecordedState:
    """The user's object, watched; it has just the methods that the user's has."""

    def __init__(self, tapes: Tapes, name: str, state: Any) -> None:
        self._tapes = tapes  # of the run
        self._name = name  # of the part
        self._state = state  # the user's

    def __getattr__(self, method: str) -> Any:
        call = getattr(self._state, method)
        if not callable(call):  # None, where a class takes a method back
            return call
        if method == "due":
            return self._recorded_due(call)
        if method == "held":
            return lambda: self._noted_held(call())
        return lambda *args: recorded_children(self._tapes, self._name, lambda _: call(*args), None, method)

    def _recorded_due(self, due: Callable[[], Any]) -> Callable[[], Any]:
        tapes, add = self._tapes, self._tapes.tape(self._name, "due", "dues").add

        def asked() -> Any:
            try:
                at = due()
            except Exception as error:
                add(tapes.failure(self._name, error))
                raise
            is_time = isinstance(at, int | float) and abs(at) < _LONGEST
            add(at - trio.current_time() if is_time else None)
            return at

        return asked

    def _noted_held(self, held: Any) -> Any:
        if not hasattr(type(held), "__iter__"):
            return held  # the run refuses it
        items = list(held)
        self._tapes.tape(self._name, "held", "counts").add(len(items))
        return items


_LONGEST = 1e12
"""Seconds until a time that is kept; one that is further is as good as none."""


class PlayedState:
    """Stands for the user's object: gives as many values as that gave."""

    def __init__(self, reader: Callable[[str, str], Reader]) -> None:
        self._readers = {path: reader(path, "counts") for path in ("push", "flush", "tick", "held")}
        """What its calls gave, by method."""
        self._dues = reader("due", "dues")  # how long after each call it wanted to be called
        self._last: Any = None  # the item that it took last: what it gives later is of that, too

    def push(self, item: Any) -> Any:
        """Return as many values as the user's object returned."""
        self._last = item
        return expanded(self._readers["push"], item)

    def flush(self) -> Any:
        """Return the last values."""
        return expanded(self._readers["flush"], self._last)

    def held(self) -> list[Any]:
        """Return as many values as were held."""
        return [*expanded(self._readers["held"], self._last)]


class PlayedTimedState(PlayedState):
    """Stands for one that acts at times."""

    def __init__(self, reader: Callable[[str, str], Reader]) -> None:
        super().__init__(reader)
        self._at = -inf  # when it wanted to be called last
        self._is_ticked = False  # it has just been called for that

    def due(self) -> float | None:
        """Return when the user's object wanted to be called.

        Where more or fewer calls are late than in the recorded run, what that said after an item may come after a tick.
        Then a time that is over is none: a run refuses one that tick did not move on.
        """
        after = self._dues.next(None)
        if isinstance(after, FailureKind):
            raise_recorded(after)
        at = None if after is None else trio.current_time() + after
        if at is not None and self._is_ticked and at <= self._at:
            at = None
        self._at, self._is_ticked = -inf if at is None else at, False
        return at

    def tick(self, now: float) -> Any:
        """Return what it gave at that time."""
        self._is_ticked = True
        return expanded(self._readers["tick"], self._last)


# ---- a generator over the stream


class Stretches:
    """Notes the stretches of one generator."""

    def __init__(self, tapes: Tapes, name: str) -> None:
        self._tapes = tapes  # of the run
        self._name = name  # of the part
        self._path = "begin"  # the part of the stream that the stretch is of
        self._stretch: list[Any] | None = []  # the one that has not ended; None while the generator has to wait
        self._since = 0.0  # when it went on after its last wait
        self._early = 0  # values that it gave while a task of its own waited
        self._met: BaseException | None = None  # the failure that its items raised

    def go_on(self) -> None:
        """Called when it is asked for a value."""
        self._since = self._tapes.now()

    def given(self) -> None:
        """Called when it gave a value."""
        if self._stretch is None:
            self._early += 1
        else:
            self._stretch.append(self._tapes.now() - self._since)

    def asks(self) -> None:
        """Called when it asks for an item."""
        self._close(self._tapes.now() - self._since)

    def took(self) -> None:
        """Called when it got one."""
        self._begin("fn")

    def is_told(self, failure: BaseException | None = None) -> None:
        """Called when it is told that no more come, or of a failure."""
        self._met = failure
        self._begin("end")

    def ended(self, error: BaseException | None) -> None:
        """Called when it ends; it may not have asked for the end of the stream."""
        if error is not None and all(each is self._met for each in leaves_of(error)):
            self._stretch = None  # it passed on what it met
            return
        if error is not None:
            self._close(self._tapes.ending(self._name, self._since, error))
            return
        self._close(self._tapes.now() - self._since)
        if self._path != "end":
            self._tapes.tape(self._name, "returned", "answers").add(1)

    def cut_off(self) -> None:
        """Called when the run is over: it may have been closed where it gave a value."""
        self._close([self._tapes.now() - self._since])

    def _begin(self, path: str) -> None:
        self._path, self._stretch, self._since = path, [0.0] * self._early, self._tapes.now()
        self._early = 0

    def _close(self, last: Any) -> None:
        if self._stretch is not None:
            self._tapes.tape(self._name, self._path, "children").add([*self._stretch, last])
        self._stretch = None


class _Asked:
    """The items of a generator that is watched."""

    def __init__(self, items: AsyncIterator[Any], notes: Stretches) -> None:
        self._items = items  # of the stage
        self._notes = notes  # is told of each

    def __aiter__(self) -> _Asked:
        return self

    async def __anext__(self) -> Any:
        self._notes.asks()
        try:
            item = await anext(self._items)
        except StopAsyncIteration:
            self._notes.is_told()
            raise
        except Exception as error:
            self._notes.is_told(error)
            raise
        self._notes.took()
        return item


class _Generator:
    """The user's generator, watched; it has the methods of the user's, so that it is closed as without it."""

    def __init__(self, stream: Any, notes: Stretches) -> None:
        self._stream = stream  # the user's
        self._notes = notes  # is told of each value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __aiter__(self) -> _Generator:
        return self

    async def __anext__(self) -> Any:
        self._notes.go_on()
        try:
            value = await anext(self._stream)
        except StopAsyncIteration:
            self._notes.ended(None)
            raise
        except BaseException as error:
            self._notes.ended(error)
            raise
        self._notes.given()
        return value


def recorded_through(tapes: Tapes, name: str, fn: AnyFunction) -> AnyFunction:
    """Return a function that passes the stream through the user's, watched."""
    tapes.tape(name, "begin", "children")  # it is there, though it may be empty

    def recorded(items: AsyncIterator[Any]) -> Any:
        notes = Stretches(tapes, name)
        notes.go_on()
        try:
            made = fn(_Asked(items, notes))
            if not hasattr(type(made), "__aiter__"):
                notes.ended(MisuseError())
                return made
            stream = aiter(made)
        except Exception as error:
            notes.ended(error)
            raise
        tapes.at_end.append(notes.cut_off)
        return _Generator(stream, notes)

    return recorded


def played_through(reader: Callable[[str, str], Reader]) -> AnyFunction:
    """Return a generator function that gives values when, and as often as, the user's gave them."""
    begin, each, end = (reader(path, "children") for path in ("begin", "fn", "end"))
    returned = reader("returned", "answers")

    async def played(items: AsyncIterator[Any]) -> AsyncIterator[Any]:
        item, stretch = None, begin.next(None)
        is_over, left = False, each.seen if returned.seen else None
        while True:
            for number, segment in enumerate(stretch):
                await live(segment)
                if number < len(stretch) - 1:
                    yield Token((*(origin_of(item) or ()), number))
            if is_over or left == 0:
                return
            left = None if left is None else left - 1
            try:
                item = await anext(items, END)
            except Exception:
                if not end.seen:
                    raise
                item = END
            is_over = item is END
            stretch = end.next(None) if is_over else each.next(item)

    return played
