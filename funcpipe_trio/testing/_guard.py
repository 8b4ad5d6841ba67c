"""Run trio in virtual time, and come back: whatever the code does, short of never giving the processor back.

* Time stands still while a thread, a process or an executor is at work (see `_outside`). The clock is then told to jump
  only after `PATIENCE` real seconds in which nothing happens, which is one of the ways to be stuck.
* Stuck is: all tasks wait, and no deadline comes; virtual time is over; the steps of tasks are; somebody outside does
  not come back. What is kept of it is which task stood where.
* A run that is stuck is cancelled, and every shield in it taken down, again and again. Code that swallows even that
  for ever is left where it stands: the clock raises in trio's own loop. Its tasks are kept, so that no finalizer of
  theirs runs outside of trio.

An instrument does all that, since tasks can neither see that the others wait, nor act when one of them spins.
"""

from __future__ import annotations

import atexit
import gc
import math
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar, TypeVarTuple

import trio
import trio.testing

from ._outside import someone_is_outside
from ._schedule import shields_around, shut
from ._tree import all_tasks, waiting_tasks

__all__ = ["Guard", "Stuck"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE = 30.0
"""Real seconds to wait for what is done outside, while nothing else happens."""
_LAST_STEPS = 10_000
"""Steps to end in, for a run that is stuck, before it is left."""
_BETWEEN = 100
"""Steps after which the shields that it has put up meanwhile are taken down, too."""
_IDLE = 3
"""Looks at an idle run: in the first, whoever waits for idleness is woken."""

_left: list[trio.lowlevel.Task | None] = []
"""Runs that could not be ended."""


class Stuck(Exception):
    """A run did not end by itself.

    Args:
      problem: what is the matter.
      tasks: which task stood where, a line for each.
      out_of_time: whether nothing would ever happen, or not within the virtual time there is.
    """

    def __init__(self, problem: str, tasks: str, out_of_time: bool) -> None:
        super().__init__(f"{problem}\n{tasks}")
        self.tasks = tasks
        self.out_of_time = out_of_time
        self.problem = problem


class _Leave(BaseException):
    """Raised in trio's loop."""


class Guard(trio.abc.Instrument):
    """Watches one run.

    Args:
      seconds: the virtual time at which it is called stuck.
      steps: the steps of its tasks at which it is.
      steps_at_once: those in which virtual time does not go on.
    """

    def __init__(self, *, seconds: float, steps: int, steps_at_once: int | None = None) -> None:
        self.clock: trio.testing.MockClock = trio.testing.MockClock(autojump_threshold=0)
        self._seconds = seconds
        self._steps = steps
        self._steps_at_once = steps if steps_at_once is None else steps_at_once
        self._scope = trio.CancelScope()
        self._stuck: Stuck | None = None
        self._runnable = 0
        self._count = 0
        """Steps of tasks; for a run that is stuck, looks at it when it is idle, too."""
        self._now, self._count_then = 0.0, 0
        self._idle = 0
        self._held_since: float | None = None
        self._next_release = 0

    def run(
        self, async_fn: Callable[[*Ts], Awaitable[T]], *args: *Ts, instruments: tuple[trio.abc.Instrument, ...] = ()
    ) -> T:
        """Run a function as the main task.

        Raises:
          Stuck: if it did not end by itself.
        """

        async def main() -> T:
            with self._scope:
                return await async_fn(*args)
            raise AssertionError("cancelled, so it is stuck")

        try:
            result = trio.run(main, clock=self.clock, instruments=[self, *instruments])
        except BaseException:  # noqa: ASYNC103  # sync: there is nothing to cancel here
            if self._stuck is None:
                raise
        if self._stuck is not None:
            raise self._stuck from None
        return result

    # ---- what trio tells

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        self._runnable += 1

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._runnable -= 1
        self._idle = 0
        self._count += 1
        if self._held_since is not None:
            self._held_since = time.monotonic()
        if self._stuck is None:
            self._look(self.clock.current_time())
        else:
            self._release()

    def before_io_wait(self, timeout: float) -> None:
        if self._runnable:
            return
        if self._stuck is not None:
            self._count += 1
            self._release()
            return
        statistics = trio.lowlevel.current_statistics()
        self._hold(someone_is_outside(statistics))
        self._idle += self._held_since is None
        if self._idle >= _IDLE and statistics.seconds_to_next_deadline == math.inf:
            self._give_up("deadlock: every task waits for another", out_of_time=True)

    def after_io_wait(self, timeout: float) -> None:
        if self._stuck is not None and self._count > self._steps + _LAST_STEPS:
            _keep(trio.lowlevel.current_root_task())
            shut(trio.lowlevel.current_trio_token())
            self.clock.current_time = self._leave  # type: ignore[method-assign]  # what the loop calls next

    # ---- what it does

    def _hold(self, hold: bool) -> None:
        """Let time stand still, or go on."""
        if hold == (self._held_since is not None):
            if self._held_since is not None and time.monotonic() - self._held_since > PATIENCE:
                self._give_up(f"no answer from a thread, a process or a socket in {PATIENCE:g} s of real time")
            return
        self._held_since = time.monotonic() if hold else None
        self.clock.autojump_threshold = PATIENCE if hold else 0
        _wake_the_loop()  # it has read the old threshold already

    def _look(self, now: float) -> None:
        """See whether the run goes on and on."""
        if now > self._seconds:
            self._give_up(f"no end: {self._seconds:g} virtual seconds are over", out_of_time=True)
        elif self._count > self._steps:
            self._give_up(f"no end: {self._steps} steps of tasks, in {now:g} virtual seconds")
        elif now != self._now:
            self._now, self._count_then = now, self._count
        elif self._count - self._count_then >= self._steps_at_once:
            self._give_up(f"livelock: {self._steps_at_once} steps and no time has passed")

    def _give_up(self, problem: str, *, out_of_time: bool = False) -> None:
        self._stuck = Stuck(problem, waiting_tasks(), out_of_time)
        self._steps = self._count
        self._next_release = 0
        self._hold(False)
        self._scope.cancel()
        self._release()
        _wake_the_loop()

    def _release(self) -> None:
        """Take down the shields of a run that is cancelled, in which new ones may stand."""
        if self._count < self._next_release:
            return
        self._next_release = self._count + _BETWEEN
        for task in all_tasks():
            for scope in shields_around(task):
                scope.shield = False

    def _leave(self) -> NoReturn:
        del self.clock.current_time
        raise _Leave


def _keep(root: trio.lowlevel.Task | None) -> None:
    """Keep a run, also when Python ends: what its tasks do as they are finalized makes no sense outside of trio."""
    if not _left:
        atexit.register(gc.freeze)
    _left.append(root)


def _wake_the_loop() -> None:
    trio.lowlevel.current_trio_token().run_sync_soon(_nothing, idempotent=True)


def _nothing() -> None:
    pass
