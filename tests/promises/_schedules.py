"""The one module of these tests that knows trio's insides: the order of tasks, and the steps they take."""

from __future__ import annotations

from contextlib import contextmanager

import trio
from trio._core import _run as trio_run


@contextmanager
def shuffled(seed):
    """Run every batch of tasks in an order of its own, decided by the seed alone."""
    before = trio_run._ALLOW_DETERMINISTIC_SCHEDULING
    state = trio_run._r.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True
    trio_run._r.seed(seed)
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = before
        trio_run._r.setstate(state)


class Tasks(trio.abc.Instrument):
    """Counts the tasks that live, and every step of theirs; can act before a step."""

    def __init__(self, at=None, act=None):
        self.live = 0
        self.spawned = 0
        self.steps = 0
        self.by_name = {}
        self.at = at
        self.act = act
        self.acted_at_step = None

    def task_spawned(self, task):
        self.live += 1
        self.spawned += 1

    def task_exited(self, task):
        self.live -= 1

    def before_task_step(self, task):
        self.by_name[task.name] = self.by_name.get(task.name, 0) + 1
        if self.steps == self.at:
            self.acted_at_step = self.steps
            self.act()
        self.steps += 1
