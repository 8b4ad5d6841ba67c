"""How long may a task go on before others have their turn?"""

from __future__ import annotations

BURST = 64
"""Values between two checkpoints, at most: a checkpoint costs 4 us, so 60 ns a value."""
SLICE = 0.010
"""Seconds of real time between two checkpoints, at most (and one value more), where trio's clock is real, too."""
