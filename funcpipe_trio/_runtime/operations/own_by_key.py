"""How do objects of the user's run as one operation, one for each key: which is asked, and which makes room?

The rule: a key has its object from its first item until the stream ends, or until it has to make room for a new key:
its `flush` gives what is left, in front of what the new key's object gives. At the end they are flushed in the order in
which their keys came. For the rest each object is treated as if it were the only one, and one time is waited for: the
first of all that they want.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any

import trio

from ..._base import checks
from ..._base.shown import named
from ..._plan.own import WithState
from ..._sansio.deadlines import Deadlines
from ..._sansio.live_keys import LiveKeys
from ..core.user_code import interruptibly
from .own import StatefulOp


class _KeyState:
    """The object of one key, and its methods."""

    __slots__ = ("due", "flush", "key", "push", "state", "tick")

    def __init__(self, key: Hashable, state: Any) -> None:
        self.key = key
        self.state = state
        self.push: Callable[[Any], Any] = state.push
        self.flush: Callable[[], Any] | None = getattr(state, "flush", None)
        self.due: Callable[[], Any] | None = getattr(state, "due", None)
        self.tick: Callable[[float], Any] | None = getattr(state, "tick", None)


class KeyedStatefulOp(StatefulOp):
    """What the object of its key gives for each value, at times, and at the end."""

    def __init__(self, operation: WithState) -> None:
        super().__init__(operation)
        assert operation.key is not None
        assert operation.max_keys is not None
        self._key = operation.key  # returns the key of a value
        self._keys = LiveKeys[_KeyState](operation.max_keys, "an object", fails=operation.full == "fail")
        self._deadlines = Deadlines[_KeyState]()  # when each wants to be called
        self._last: _KeyState  # the one that was given a value last

    def _begin(self) -> None:
        self._push = self._push_by_key
        if self._is_timed:
            self._due = self._due_of_all

    @trio.lowlevel.enable_ki_protection
    def _push_by_key(self, value: Any) -> Any:
        """Return what the object of its key gives for a value."""
        key = interruptibly(self._key, value)
        self.vet(key)
        try:
            kept = self._keys.of(key)
        except TypeError:
            checks.hashable(f"stateful {named(self.name)}", "what key gives", key)
            raise
        if kept is None:
            kept = self._new(key)
        else:
            self._keys.touch(kept)
        self._last = kept
        return interruptibly(kept.push, value)

    def _new(self, key: Hashable) -> _KeyState:
        """Make the object of a key; if need be, another one ends."""
        idle = self._keys.in_the_way()
        if idle is not None:
            self._end(idle)
        kept = _KeyState(key, self._made())
        self._keys.add(kept)
        return kept

    def _end(self, kept: _KeyState) -> None:
        """Take the last values of an object, and forget it."""
        if kept.flush is not None:
            self._take("flush", kept.flush)
        self._keys.forget(kept)
        self._deadlines.forget(kept)

    @trio.lowlevel.enable_ki_protection
    def _due_of_all(self) -> float:
        """Ask the object that was given a value last; return the first time of all."""
        if self._last.due is not None:
            self._deadlines.set(self._last, self._asked(self._last.due))
        return self._deadlines.first

    @trio.lowlevel.enable_ki_protection
    def _tick(self) -> None:
        now, self._now = self._now, None
        assert now is not None
        deadlines = self._deadlines
        while (kept := deadlines.owner_due(now)) is not None:
            assert kept.tick is not None
            assert kept.due is not None
            deadlines.set(kept, self._ticked(kept.tick, kept.due, deadlines.at(kept), now))
        self.deadline = deadlines.first

    @trio.lowlevel.enable_ki_protection
    def _flushed(self) -> Iterator[Any]:
        for kept in self._keys.kept:
            yield from self._given(partial(self._end, kept))

    def _left(self) -> list[Any]:
        return [kept.state for kept in self._keys.clear()]
