"""How long may a task go on before others have their turn?

The rule: at most `BURST` values, and at most `TURN_SECONDS` of real time, between two checkpoints, whichever is over
first. Every loop that could go on without waiting has a `Turn`, and begins it again after each checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple, final

BURST = 64
"""The most values between two checkpoints: a checkpoint costs 4 us, so 60 ns a value."""
TURN_SECONDS = 0.010
"""The most seconds of real time between two checkpoints (and one value more), where trio's clock is real, too."""


class Stopwatch(NamedTuple):
    """The clock of a run, for what is only timed, in two thirds of the time if that is the real one.

    Where real time may decide something, what it read also begins a `Turn`.
    """

    read: Callable[[], float]
    """Returns the time; only differences mean something."""
    ahead: float
    """Seconds by which the clock of the run is ahead of it."""

    @staticmethod
    def of(now: Callable[[], float], *, is_real: bool) -> Stopwatch:
        """Return one for a run whose clock returns the time by ``now()``."""
        return Stopwatch(perf_counter, now() - perf_counter()) if is_real else Stopwatch(now, 0.0)


@final
class Turn:
    """What is left of one task's turn. The loop that moves values counts `left` down itself."""

    __slots__ = ("ends_at", "left", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds: float = seconds  # the most that a turn may last; inf where real time must not decide anything
        self.begin()

    def begin(self) -> None:
        """Begin again: others have run."""
        self.left: int = BURST  # values that may still be moved
        self.ends_at: float = perf_counter() + self.seconds  # by the real clock

    def end(self) -> None:
        """Let others run before anything else is done."""
        self.left = 0

    def is_over(self) -> bool:
        """Whether others must run now."""
        return self.left <= 0 or perf_counter() > self.ends_at
