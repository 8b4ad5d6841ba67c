"""The work that contenders do on an item: functions that cost next to nothing, so that what is around them shows."""

from __future__ import annotations

from collections.abc import Iterable

import trio

__all__ = ["add", "feed", "inc", "visit"]


def inc(number: int) -> int:
    return number + 1


def add(total: int, number: int) -> int:
    return total + number


async def visit(number: int) -> int:
    """The cheapest call that waits: one trip through the scheduler."""
    await trio.lowlevel.checkpoint()
    return number


async def feed(items: Iterable[int], send: trio.MemorySendChannel[int]) -> None:
    """Send all items, then close: the source of a hand-written pipeline."""
    async with send:
        for item in items:
            await send.send(item)
