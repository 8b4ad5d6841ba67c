"""Whose turn is it, of those who can take one?

The rule: the first in order behind the one whose turn was last; who cannot take one is passed over, and has no claim on
a turn that was missed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain


class Turns:
    """Gives turns."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0  # whose turn it is

    def take(self, can: Sequence[bool]) -> int | None:
        """Return the number of the one whose turn it is; None if none can take one."""
        for at in chain(range(self._next, len(can)), range(self._next)):
            if can[at]:
                self._next = (at + 1) % len(can)
                return at
        return None
