"""The work of contenders on trio: the cheapest call that waits, and the source of a hand-written pipeline."""

from __future__ import annotations

from collections.abc import Iterable

import trio

__all__ = ["doze", "feed", "visit"]


async def visit(number: int) -> int:
    """The cheapest call that waits: one trip through the scheduler."""
    await trio.lowlevel.checkpoint()
    return number


async def doze(number: int) -> int:
    """Wait for the clock, for as short as it can."""
    await trio.sleep(1e-6)
    return number


async def feed(items: Iterable[int], send: trio.abc.SendChannel[int]) -> None:
    """Send all items, then close: the source of a hand-written pipeline."""
    async with send:
        for item in items:
            await send.send(item)
