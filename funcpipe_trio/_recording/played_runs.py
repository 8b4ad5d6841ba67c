"""What takes the place of a run inside a stage when a recording is played? What it gave, when it is asked for it.

A run of its own would take ahead of who asks, and so be early: how long it took was noted where it was asked.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from .._plan.nodes import Plan, Source
from .._plan.operations import Opaque


class PlayedPipeline:
    """Stands for a pipeline that a function returned."""

    def __init__(self, results: AsyncIterator[Any]) -> None:
        self._plan = Plan(Source("async iterable", "played", Opaque(results)))  # only its source is looked at


class PlayedRun:
    """Stands for the block of the run of such a pipeline, and for that run: it gives the results, and nothing else."""

    def __init__(self, plan: Plan, _on_discard: object) -> None:
        assert isinstance(plan.origin, Source)
        self._results: AsyncIterator[Any] = plan.origin.origin.value  # each comes as late as it did
        self.report = SimpleNamespace(cleanup_errors=(), cleanup_error_count=0, error=None, stages=(), inputs=())

    async def __aenter__(self) -> PlayedRun:
        return self

    async def __aexit__(self, *_error: object) -> None:
        return None

    async def __anext__(self) -> Any:
        return await anext(self._results)

    def drain_nowait(self) -> None:
        """Do nothing: what was noted ends where the recorded run was drained; likewise the next two."""

    pause = resume = drain_nowait
