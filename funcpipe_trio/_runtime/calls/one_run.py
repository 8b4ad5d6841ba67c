"""Which trio run has something that one may have at a time, and when may the next have it?

What waits in one run is woken by that run alone, and no clock goes for two. So the first use in a run takes the thing,
if the run that had it is over, else it is refused. A run is known by its clock, which costs a use no more than to look
at; whether one is over, only its token tells, and is asked when there is another.
"""

from __future__ import annotations

import threading

import trio

from ..._base.errors import StateError

_lock = threading.Lock()
"""Of two runs that come at the same time, in two threads, one is the first."""


class OneRun:
    """The trio run at work with something.

    Args:
      what: what to call the thing in an error.
      use: what to do instead.
    """

    __slots__ = ("_token", "_use", "_what", "clock")

    clock: trio.abc.Clock | None
    """The clock of the run that has it; it is another run, unless `enter` was called, if it is not the current one."""

    def __init__(self, what: str, use: str) -> None:
        self._what = what
        self._use = use
        self._token: trio.lowlevel.TrioToken | None = None
        self.clock = None

    def enter(self) -> bool:
        """Take it for the current run; False if nobody had it before.

        Raises:
          StateError: if another run has it, and is not over.
        """
        with _lock:
            before = self._token
            if before is not None and _is_at_work(before):
                raise StateError(f"{self._what} must not be used in two trio runs at a time\n{self._use}")
            self._token = trio.lowlevel.current_trio_token()
            self.clock = trio.lowlevel.current_clock()
        return before is not None


def _is_at_work(run: trio.lowlevel.TrioToken) -> bool:
    try:
        run.run_sync_soon(_nothing, idempotent=True)
    except trio.RunFinishedError:
        return False
    return True


def _nothing() -> None:
    """Do it."""
