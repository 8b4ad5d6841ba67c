"""The context variables of a task that makes one call after the other: how does no call see what another has set?

Each call is to run in a copy of the opener's context, as if it had a task of its own. The task has such a copy from the
start. Most calls set nothing, so it is still as it was: that is asked behind each call (0.08 us; a context is compared
by its root first), and only a task that a call has left in another state is given a new copy. trio runs each step of a
task in the context that the task has then, so the new one is in force from the next checkpoint on.
"""

from __future__ import annotations

from contextvars import Context, copy_context

import trio

__all__ = ["OwnContext"]


class OwnContext:
    """The context of the task that made this, as it is now."""

    __slots__ = ("_clean",)

    def __init__(self) -> None:
        self._clean: Context = copy_context()

    def renew(self) -> bool:
        """Give the task a new copy if a call has changed the one it has; say so: then a checkpoint must follow."""
        try:  # no `suppress`: behind each call, that takes 3 % of the time of an item
            if copy_context() == self._clean:
                return False
        except Exception:  # of values that cannot be compared: so one was set
            pass
        trio.lowlevel.current_task().context = self._clean.copy()
        return True
