"""anyio's memory object streams in a task group, as in its documentation; on trio, or on uvloop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from .._work import add, inc

__all__ = ["channel", "hop"]

CAPACITY = 16  # of a stream, unless a benchmark sets it
BACKENDS: dict[str, dict[str, Any]] = {
    "trio": {"backend": "trio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
}


async def _feed(items: Iterable[int], send: MemoryObjectSendStream[int]) -> None:
    async with send:
        for item in items:
            await send.send(item)


def hop(loop: str, stages: int, capacity: int, items: int) -> int:
    async def main() -> int:
        total = 0
        async with anyio.create_task_group() as tasks:
            send, receive = anyio.create_memory_object_stream[int](capacity)
            tasks.start_soon(_feed, range(items), send)
            for _ in range(stages - 1):
                send, next_receive = anyio.create_memory_object_stream[int](capacity)
                tasks.start_soon(_stage, receive, send)
                receive = next_receive
            async with receive:
                async for item in receive:
                    total = add(total, inc(item))
        return total

    return anyio.run(main, **BACKENDS[loop])


async def _stage(receive: MemoryObjectReceiveStream[int], send: MemoryObjectSendStream[int]) -> None:
    async with receive, send:
        async for item in receive:
            await send.send(inc(item))


def channel(loop: str, inputs: int, items: int) -> int:
    async def main() -> int:
        total = 0
        send, receive = anyio.create_memory_object_stream[int](CAPACITY)
        async with anyio.create_task_group() as tasks:
            async with send:
                for _ in range(inputs):
                    tasks.start_soon(_feed, range(items // inputs), send.clone())
            async with receive:
                async for item in receive:
                    total = add(total, item)
        return total

    return anyio.run(main, **BACKENDS[loop])
