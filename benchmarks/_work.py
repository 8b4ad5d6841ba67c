"""The work that contenders do on an item: most of it costs next to nothing, so that what is around it shows."""

from __future__ import annotations

from collections.abc import Iterable

import trio

__all__ = ["add", "compute", "feed", "inc", "visit"]


def inc(number: int) -> int:
    return number + 1


def add(total: int, number: int) -> int:
    return total + number


def compute(loops: int, number: int) -> int:
    """Pure Python that computes, about 0.065 us a loop."""
    for step in range(loops):
        number = (number * 31 + step) % 65_521
    return number


async def visit(number: int) -> int:
    """The cheapest call that waits: one trip through the scheduler."""
    await trio.lowlevel.checkpoint()
    return number


async def feed(items: Iterable[int], send: trio.MemorySendChannel[int]) -> None:
    """Send all items, then close: the source of a hand-written pipeline."""
    async with send:
        for item in items:
            await send.send(item)
