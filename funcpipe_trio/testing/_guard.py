"""Run trio in virtual time, and always return, unless the code never yields to the event loop.

* Time stands still while a thread, a process or an executor is at work (see `_outside`). The clock then jumps only
  after `PATIENCE` real seconds in which nothing happens, which is one of the ways to be stuck.
* A run is stuck when all tasks wait and there is no deadline; when the virtual time or the task steps are used up; or
  when work outside does not return. Where each task stood is kept.
* A stuck run is cancelled, and every shield in it is removed, repeatedly. Code that swallows even that forever is
  abandoned where it stands: the clock raises in trio's own loop. Its tasks are kept alive, so that none of their
  finalizers runs outside trio.

An instrument does all this, since a task can neither see that the others wait nor act while one of them spins.
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

from .._runtime.core.task_order import shields_around, shut
from ._outside import someone_is_outside
from ._tree import all_tasks, waiting_tasks

__all__ = ["Guard", "Stuck"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PATIENCE = 30.0
"""Real seconds to wait for work outside while nothing else happens."""
_LAST_STEPS = 10_000
"""Steps in which a stuck run must end before it is abandoned."""
_BETWEEN = 100
"""Steps after which the shields that it has set in the meantime are removed as well."""
_IDLE = 3
"""Checks of an idle run: at the first, tasks that wait for idleness are woken."""

_left: list[trio.lowlevel.Task | None] = []
"""Runs that could not be ended."""


class Stuck(Exception):
    """A run did not end by itself.

    Args:
      problem: what is wrong.
      tasks: where each task stood, one per line.
      out_of_time: whether nothing would ever happen, or not within the available virtual time.
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
      seconds: the virtual time after which it counts as stuck.
      steps: the number of task steps after which it does.
      steps_at_once: the same for steps in which virtual time does not advance.
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
        """Task steps; for a stuck run, also the checks while it is idle."""
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

    # ---- called by trio

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

    # ---- actions

    def _hold(self, hold: bool) -> None:
        """Stop the clock, or let it run."""
        if hold == (self._held_since is not None):
            if self._held_since is not None and time.monotonic() - self._held_since > PATIENCE:
                self._give_up(f"no answer from a thread, a process or a socket in {PATIENCE:g} s of real time")
            return
        self._held_since = time.monotonic() if hold else None
        self.clock.autojump_threshold = PATIENCE if hold else 0
        _wake_the_loop()  # it has read the old threshold already

    def _look(self, now: float) -> None:
        """Check whether the run exceeds its limits."""
        if now > self._seconds:
            self._give_up(f"no end: {self._seconds:g} virtual seconds have passed", out_of_time=True)
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
        """Remove the shields of a cancelled run, which may have set new ones."""
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
    """Keep a run alive, even when Python exits: the finalizers of its tasks make no sense outside trio."""
    if not _left:
        atexit.register(gc.freeze)
    _left.append(root)


def _wake_the_loop() -> None:
    trio.lowlevel.current_trio_token().run_sync_soon(_nothing, idempotent=True)


def _nothing() -> None:
    pass
