"""Which trio run owns something that one run may use at a time, and when may the next run have it?

A task is woken by its own run only, and two runs have two clocks. So the first use in a run takes the thing if the run
that had it is over; otherwise it is refused. A run is identified by its token, because two runs may have one clock
object. The token also says whether its run is over; it is asked only when another run comes.
"""

from __future__ import annotations

import threading

import trio

from ..._base.errors import StateError

_lock = threading.Lock()
"""Runs in two threads may come at the same time: one is the first."""


class OneRun:
    """The trio run that uses something.

    Args:
      what: what to call the thing in an error.
      use: what to do instead.
    """

    __slots__ = ("_token", "_use", "_what")

    def __init__(self, what: str, use: str) -> None:
        self._what = what  # names the thing in an error
        self._use = use  # says there what to do instead
        self._token: trio.lowlevel.TrioToken | None = None  # of the run that has it; None before the first

    def is_current(self) -> bool:
        """Whether the current run has it; if not, the caller must `enter` before it uses the thing."""
        return self._token is trio.lowlevel.current_trio_token()

    def enter(self) -> bool:
        """Take it for the current run; return False if no run had it before.

        Raises:
          StateError: if another run has it, and is not over.
        """
        with _lock:
            before = self._token
            if before is not None and _is_at_work(before):
                raise StateError(f"{self._what} must not be used in two trio runs at a time\n{self._use}")
            self._token = trio.lowlevel.current_trio_token()
        return before is not None


def _is_at_work(run: trio.lowlevel.TrioToken) -> bool:
    try:
        run.run_sync_soon(_nothing, idempotent=True)
    except trio.RunFinishedError:
        return False
    return True


def _nothing() -> None:
    """Only asks whether the run still takes callbacks."""
