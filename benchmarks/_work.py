"""The work that contenders do on an item: most of it costs almost nothing, so that the overhead shows.

It imports no event loop, since contenders of all of them use it.
"""

from __future__ import annotations

__all__ = ["MAX_DELAY", "TIMEOUT", "add", "answer", "compute", "inc"]

MAX_DELAY = TIMEOUT = 60.0
"""Seconds that never pass, for a batch and for a call."""


def inc(number: int) -> int:
    return number + 1


def add(total: int, number: int) -> int:
    return total + number


def compute(loops: int, number: int) -> int:
    """Compute something in pure Python, about 0.065 us per loop."""
    for step in range(loops):
        number = (number * 31 + step) % 65_521
    return number


async def answer(number: int) -> int:
    """An async call that never waits."""
    return number
