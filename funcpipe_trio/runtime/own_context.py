"""The context variables of a task that makes one call after the other: how does no call see what another has set?

Each call is to run in a copy of the opener's context, as if it had a task of its own. The task has such a copy from the
start. Most calls set nothing, so it is still as it was: that is asked before each call, by the identity of the values
(what they are is the user's affair). Only a task that a call, or a function of its stage, has left in another state is
given a new copy. trio runs each step of a task in the context that the task has then, so the new one is in force from
the next checkpoint on.
"""

from __future__ import annotations

from contextvars import Context, copy_context

import trio

__all__ = ["OwnContext"]

_UNSET = object()


class OwnContext:
    """The context of the task that made this, as it is now."""

    __slots__ = ("_clean",)

    def __init__(self) -> None:
        self._clean: Context = copy_context()

    def renew(self) -> bool:
        """Give the task a new copy if the one it has was changed; say so: then a checkpoint must follow."""
        now, clean = copy_context(), self._clean
        if len(now) == len(clean) and all(clean.get(each, _UNSET) is value for each, value in now.items()):
            return False
        trio.lowlevel.current_task().context = self._clean.copy()
        return True
