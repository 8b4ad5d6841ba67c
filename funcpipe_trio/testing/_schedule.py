"""How are all orders of tasks tried, one after the other? The order itself is chosen in `_runtime/core/task_order`."""

from __future__ import annotations

import math
from typing import Any

from .._runtime.core.task_order import Schedule, missing_private_names, require_private_names, scheduled

__all__ = ["Choices", "Schedule", "missing_private_names", "require_private_names", "scheduled"]


class Choices(Schedule):
    """Order batches by a list of choices, and later ones by their first order; used to try all schedules."""

    def __init__(self, choices: list[int]) -> None:
        super().__init__(0)
        self.taken: list[tuple[int, int]] = []
        """Each choice made, and the number of alternatives."""
        self._choices = choices

    def shuffle(self, x: Any) -> None:
        """Order one batch of tasks."""
        if len(x) < 2:
            return
        number = len(self.taken)
        choice = self._choices[number] if number < len(self._choices) else 0
        self.taken.append((choice, math.factorial(len(x))))
        self.digest = hash((self.digest, choice))
        left, ordered = list(x), []
        while left:
            choice, index = divmod(choice, len(left))
            ordered.append(left.pop(index))
        x[:] = ordered

    def following(self) -> list[int] | None:
        """Return the choices of the next schedule; None if this was the last."""
        taken = list(self.taken)
        while taken:
            choice, ways = taken.pop()
            if choice + 1 < ways:
                return [*(before for before, _ in taken), choice + 1]
        return None
