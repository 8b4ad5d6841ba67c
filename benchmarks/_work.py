"""The work that contenders do on an item: most of it costs next to nothing, so that what is around it shows.

It imports no event loop: it is for the contenders of all of them.
"""

from __future__ import annotations

__all__ = ["MAX_DELAY", "TIMEOUT", "add", "answer", "compute", "inc"]

MAX_DELAY = TIMEOUT = 60.0
"""Seconds that are never over, of a batch and of a call."""


def inc(number: int) -> int:
    return number + 1


def add(total: int, number: int) -> int:
    return total + number


def compute(loops: int, number: int) -> int:
    """Pure Python that computes, about 0.065 us a loop."""
    for step in range(loops):
        number = (number * 31 + step) % 65_521
    return number


async def answer(number: int) -> int:
    """An async call that has its answer and never waits."""
    return number
