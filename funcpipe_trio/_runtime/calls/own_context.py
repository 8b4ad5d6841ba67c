"""The context variables of a task that makes one call after the other: why does no call see what another has set?

Each call must run in a copy of the opener's context, as if it had a task of its own. The task has such a copy from the
start. Most calls set nothing, so the copy is unchanged: that is checked before each call, by the identity of the values
(their equality is user code). The task gets a new copy only if a call, or a function of its stage, has changed the one
it has. trio runs each step of a task in the context that the task has then, so the new copy is in force from the next
checkpoint on.
"""

from __future__ import annotations

from contextvars import Context

import trio

_UNSET = object()


class OwnContext:
    """The context of the task that made this, as it is now."""

    __slots__ = ("_clean", "_now")

    def __init__(self) -> None:
        self._now: Context = trio.lowlevel.current_task().context  # the one that its steps run in, which calls change
        self._clean: Context = self._now.copy()  # as it was at the start; never run in, only copied

    def renew(self) -> bool:
        """Give the task a new copy if the one it has was changed. If True is returned, a checkpoint must follow."""
        now, clean = self._now, self._clean
        # Mostly there are no variables at all: making no generator then saves 0.2 us, more than half of the time.
        if len(now) == len(clean) and not (clean and any(clean.get(each, _UNSET) is not now[each] for each in now)):
            return False
        self._now = trio.lowlevel.current_task().context = clean.copy()
        return True
