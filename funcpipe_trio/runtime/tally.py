"""From the counters of a run to what it says of itself."""

from __future__ import annotations

from fractions import Fraction

import trio

from .bottleneck import lasted, name_bottleneck
from .engine import Engine
from .fair_link import FairLink
from .fan_in import MergeInlet
from .fan_out import Joint
from .inlet import Inlet
from .link import Link
from .report import InputReport, LinkReport, PolicyReport, Report, RunStatistics, StageReport
from .stage import Stage

__all__ = ["report_of", "statistics_of"]


def statistics_of(engine: Engine) -> RunStatistics:
    """Add up what the stages, links and fan-ins counted so far."""
    now = trio.current_time() if engine.ended is None else engine.ended
    stages = tuple(_stage(stage, now) for stage in engine.stages)
    return RunStatistics(
        taken=sum(stage.received for stage in stages if stage.kind == "source"),
        delivered=engine.delivered if engine.sink is None else engine.sink.passed,
        failed=sum(stage.failed for stage in stages) + sum(each.failed for each in engine.machinery.fan_ins),
        dropped=sum(stage.dropped for stage in stages) + sum(link.dropped for link in engine.machinery.links),
        discarded=engine.ledger.discarded,
        elapsed=now - engine.began,
        stages=stages,
        links=tuple(_link(link) for link in engine.machinery.links),
        inputs=tuple(
            [each for fan_in in engine.machinery.fan_ins for each in _inputs(fan_in)]
            + [each for link in engine.machinery.links if isinstance(link, FairLink) for each in _keys(link)]
        ),
        paused=engine.paused + (0.0 if engine.paused_since is None else now - engine.paused_since),
        bottleneck=name_bottleneck(engine, stages, now),
    )


def report_of(engine: Engine) -> Report:
    """Report on a run as it stands; on one that has ended, for good."""
    counts = statistics_of(engine)
    return Report(
        **{name: getattr(counts, name) for name in RunStatistics.__slots__},
        outcome=engine.outcome or "left",
        error=engine.ledger.error,
        cleanup_errors=tuple(engine.ledger.cleanup_errors),
        cleanup_error_count=engine.ledger.cleanup_error_count,
        seed=engine.machinery.seed,
    )


def _stage(stage: Stage, now: float) -> StageReport:
    seconds = lasted(stage, now) * stage.workers
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
        busy=max(0.0, 1 - waited / seconds) if seconds > 0 else 0.0,
        failures=tuple(sorted(stage.failures.items())),
        policies=None if stage.account is None else PolicyReport.of(stage.account),
        divert=None if stage.divert_account is None else PolicyReport.of(stage.divert_account),
    )


def _link(link: Link) -> LinkReport:
    return LinkReport(
        behind=link.sender.name,
        capacity=link.capacity,
        passed=link.passed,
        taken=link.taken,
        discarded=link.discarded,
        peak=link.peak,
        dropped=link.dropped,
        name=link.name,
    )


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
            share=float(each.contested / contested) if contested else 0.0,
            kind="branches" if isinstance(fan_in, Joint) else "merge",
        )
        for each in fan_in.inputs
    ]


def _keys(link: FairLink) -> list[InputReport]:
    total = link.lanes.cost
    return [
        InputReport(
            merge=link.name,
            key=each.key,
            weight=each.weight,
            taken=each.taken,
            cost=each.cost,
            contested=each.contested,
            share=float(Fraction(each.cost) / total) if total else 0.0,
            kind="fair_by",
        )
        for each in link.lanes.accounts()
    ]
