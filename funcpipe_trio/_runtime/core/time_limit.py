"""The time limit of a call: which scope ends the call when its time is over, and what is left of it after the call?

A worker makes one call after the other. Opening and closing a cancel scope for each costs twice as much as moving the
deadline of an open one. So the worker's limit is *kept*: its scope stays open from call to call.

The rule: between calls the scope has no deadline, so it ends nothing then, and what runs in between sees none. A scope
that an exception passed, or that was late, is closed at once, like that of a limit that is not kept; the next call
opens a new one. Limits inside each other are kept in the same way, one at each depth: before a scope is closed, those
inside it are, so scopes nest.
"""

from __future__ import annotations

from math import inf
from types import TracebackType

import trio


class TimeLimit:
    """A block that must be done within so many seconds."""

    __slots__ = ("_inside", "_is_kept", "_is_late", "_scope", "is_free", "seconds")

    def __init__(self, seconds: float, *, is_kept: bool = False) -> None:
        self.seconds: float = seconds  # how long the block may take; read when it is entered
        self.is_free: bool = True  # no task is in the block
        self._is_kept = is_kept  # the scope stays open behind the block; the owner calls `close`
        self._is_late = False  # the block was not done in time
        self._scope: trio.CancelScope | None = None  # while it is open
        self._inside: TimeLimit | None = None  # one that is kept inside of this one; None until it is needed

    def inside(self) -> TimeLimit:
        """Return the limit that is kept inside of this one."""
        if self._inside is None:
            self._inside = TimeLimit(inf, is_kept=True)
        return self._inside

    def __enter__(self) -> TimeLimit:
        if self._scope is None:
            self._scope = trio.CancelScope(relative_deadline=self.seconds)
            self._scope.__enter__()
        elif self.seconds < inf:  # to set a deadline takes as long as all the rest
            self._scope.relative_deadline = self.seconds
        self.is_free = self._is_late = False
        return self

    def hold(self) -> TimeLimit:
        """Enter a block without a deadline, so that it can be ended from elsewhere; return its limit.

        It is this one, or one inside of it. `leave` or `__exit__` must be called when the block ends. With `with` it
        would take 3,300 instructions instead of 1,200, which is 2.5 % of a call that is one checkpoint.
        """
        limit = self
        while not limit.is_free:
            limit = limit.inside()
        limit.seconds = inf
        if limit._scope is None:
            return limit.__enter__()
        limit.is_free = limit._is_late = False
        return limit

    def leave(self) -> None:
        """Called when the block has ended without an exception."""
        if self._is_kept and not self._is_late:
            self.is_free = True
        else:
            self.__exit__(None, None, None)

    def begin(self, seconds: float) -> None:
        """Count `seconds` from now, in the middle of the block."""
        assert self._scope is not None
        self.seconds = self._scope.relative_deadline = seconds

    def end(self) -> None:
        """Cancel what is in the block, if a task is there; `is_met` must be asked in it then."""
        if self._scope is not None and not self.is_free:
            self._scope.cancel()

    def shield(self, is_shielded: bool) -> None:
        """Let nothing from outside end what is in the block, or let it again; not left on when the block ends."""
        if self._scope is not None and not self.is_free:
            self._scope.shield = is_shielded

    @property
    def deadline(self) -> float:
        """When the block must be done, by trio's clock; to be read within it."""
        assert self._scope is not None
        return self._scope.deadline

    def is_met(self) -> bool:
        """Whether the block is in time; to be called as the last thing in it."""
        assert self._scope is not None
        self._is_late = self._scope.cancel_called  # which looks at the clock
        return not self._is_late

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        self.is_free = True
        scope = self._scope
        assert scope is not None
        if self._is_kept and kind is None and not self._is_late:
            if self.seconds < inf:
                scope.deadline = inf
            return False
        if self._inside is not None:
            self._inside.close()
        self._scope = None
        return scope.__exit__(kind, error, traceback)

    def close(self) -> None:
        """Close the scope that was kept open, and those inside it."""
        if self._inside is not None:
            self._inside.close()
        if self._scope is not None:
            scope, self._scope = self._scope, None
            scope.__exit__(None, None, None)
