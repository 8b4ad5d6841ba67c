"""From the counters of a run to what it says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from .fan_in import MergeInlet
from .inlet import Inlet
from .link import Link
from .report import InputReport, LinkReport, RunStatistics, StageReport
from .stage import Stage

if TYPE_CHECKING:
    from .run import Run

__all__ = ["tally"]


def tally(run: Run[Any]) -> RunStatistics:
    """Add up what the stages, links and fan-ins counted so far."""
    now = run.ended_at or trio.current_time()
    stages = tuple(_stage(stage, now) for stage in run.stages)
    return RunStatistics(
        taken=sum(stage.received for stage in stages if stage.kind == "source"),
        delivered=run.delivered if run.sink is None else run.sink.passed,
        failed=sum(stage.failed for stage in stages) + sum(each.failed for each in run.machinery.fan_ins),
        dropped=sum(stage.dropped for stage in stages),
        discarded=run.ledger.discarded,
        elapsed=now - run.began,
        stages=stages,
        links=tuple(_link(link) for link in run.machinery.links),
        inputs=tuple(each for fan_in in run.machinery.fan_ins for each in _inputs(fan_in)),
        bottleneck=_bottleneck(run, stages, now),
    )


def _stage(stage: Stage, now: float) -> StageReport:
    lasted = ((stage.left or now) - stage.began) * max(1, stage.workers) if stage.started else 0.0
    waited = stage.waited_input + stage.waited_room
    return StageReport(
        name=stage.name,
        kind=stage.kind,
        received=stage.received,
        emitted=stage.emitted,
        created=sum(operation.created for operation in stage.fused) + stage.created,
        absorbed=sum(operation.absorbed for operation in stage.fused) + stage.absorbed,
        failed=stage.failed,
        dropped=sum(operation.dropped for operation in stage.fused) + stage.dropped,
        discarded=stage.discarded,
        waited_input=stage.waited_input,
        waited_room=stage.waited_room,
        busy=max(0.0, 1 - waited / lasted) if lasted > 0 else 0.0,
    )


def _link(link: Link) -> LinkReport:
    return LinkReport(link.sender.name, link.capacity, link.passed, link.taken, link.discarded, link.peak)


def _inputs(fan_in: Inlet) -> list[InputReport]:
    if not isinstance(fan_in, MergeInlet):
        return []
    contested = sum(each.contested for each in fan_in.inputs)
    return [
        InputReport(
            merge=fan_in.name,
            key=each.key,
            weight=each.flow.weight,
            taken=each.flow.served,
            cost=each.flow.service,
            contested=each.contested,
            share=each.contested / contested if contested else 0.0,
        )
        for each in fan_in.inputs
    ]


def _bottleneck(run: Run[Any], stages: tuple[StageReport, ...], now: float) -> str | None:
    """Name who waited least: everyone else waited for it."""
    lasted = now - run.began
    if lasted <= 0:
        return None
    busy = {stage.name: stage.busy for stage in stages}
    if run.sink is None:
        busy["consumer"] = max(0.0, 1 - run.waited / lasted)
    return max(busy, key=lambda name: busy[name], default=None)
