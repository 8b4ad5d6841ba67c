"""A recording of a plan whose run ends, or fails."""

from __future__ import annotations

from typing import Any

from funcpipe_trio import Pipeline, Recorder, Recording
from funcpipe_trio.testing import run_virtual


def recorded(plan: Pipeline[Any], body: Any = None, **how: Any) -> Recording:
    """Record a run of a plan; `body` takes the run, or all items are taken."""
    recorder = Recorder(**how)

    async def main() -> None:
        async with plan.open(record=recorder) as run:
            if body is not None:
                await body(run)
                return
            try:
                async for _ in run:
                    pass
            except Exception:
                assert run.report.outcome == "failed"

    run_virtual(main)
    return recorder.recording
