"""How long may a task go on before others have their turn?

The rule: at most `BURST` values and no longer than a slice of real time between two checkpoints, whichever is over
first. Every loop that could go on without waiting has a `Turn`, and begins it anew behind each checkpoint.
"""

from __future__ import annotations

from time import perf_counter
from typing import final

BURST = 64
"""Values between two checkpoints, at most: a checkpoint costs 4 us, so 60 ns a value."""
SLICE = 0.010
"""Seconds of real time between two checkpoints, at most (and one value more), where trio's clock is real, too."""


@final
class Turn:
    """What is left of one task's turn. The loop that moves values counts `left` down itself."""

    __slots__ = ("ends_at", "left", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds  # how long a turn may last; infinite where real time is to decide nothing
        self.begin()

    def begin(self) -> None:
        """Begin anew: others have run."""
        self.left, self.ends_at = BURST, perf_counter() + self.seconds  # values; by the real clock

    def end(self) -> None:
        """Let others run before anything else is done."""
        self.left = 0

    def is_over(self) -> bool:
        """Whether others must run now."""
        return self.left <= 0 or perf_counter() > self.ends_at
