"""The tasks of a run, and the steps they take."""

from __future__ import annotations

import trio


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
