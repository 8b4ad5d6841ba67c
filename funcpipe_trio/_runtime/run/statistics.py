"""How do the counters of a run become its statistics and its report?"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import repeat
from typing import Any

from ..._sansio.usage import Used
from ..core.protocols import Inlet
from ..core.signals import NO_ITEM
from ..junctions.fan_in import MergeInlet, ZipInlet
from ..junctions.fan_out import Join
from ..links.fair_link import FairLink
from ..links.link import Link
from ..operations.fair_by import FairByOp
from ..pools.pool import Pool
from ..reports.blame import Waited
from ..reports.bottleneck import Basis, Wiring, name_bottleneck
from ..reports.counts import InputReport, Latency, LinkReport, PolicyReport, RemakeReport, StageReport
from ..reports.report import Report, RunStatistics
from ..stages.sources import AsyncSource
from ..stages.stage import Stage
from .efforts import spent_by
from .engine import Engine
from .neighbours import filled_by, taker_of
from .parts import AnyStage


def statistics_of(engine: Engine) -> RunStatistics:
    """Add up what the stages, links and fan-ins counted so far."""
    now = engine.now()
    all_spent = [spent_by(stage, now) for stage in engine.stages]
    worked, in_pauses = engine.efforts.apart(all_spent, now)
    stages = tuple(map(_stage, engine.stages, all_spent, in_pauses, repeat(now)))
    links = tuple(_link(link) for link in engine.parts.links)
    elapsed = now - engine.began
    consumer = [] if engine.attendance is None else [engine.attendance.waited_until(now)]
    totals = [*(stage.waited_input + stage.waited_room for stage in stages), *consumer]
    waited = Waited(engine.graph(), totals, *engine.state_times.read(now))
    basis = Basis(_wiring_of(engine), tuple(worked), waited)
    return RunStatistics(
        taken=sum(stage.received for stage in stages if stage.kind == "source"),
        delivered=engine.delivered if engine.sink is None else engine.sink.passed,
        failed=sum(stage.failed for stage in stages) + sum(each.failed for each in engine.parts.fan_ins),
        dropped=sum(stage.dropped for stage in stages) + sum(link.dropped for link in links),
        discarded=engine.ledger.discarded,
        elapsed=elapsed,
        stages=stages,
        links=links,
        inputs=tuple(
            [each for fan_in in engine.parts.fan_ins for each in _inputs(fan_in)]
            + [each for link in engine.parts.links if isinstance(link, FairLink) for each in _keys(link)]
        ),
        remade=tuple(RemakeReport(*each) for each in _remade(engine) if any(each[1:])),
        paused=engine.paused + (0.0 if engine.paused_since is None else now - engine.paused_since),
        bottleneck=name_bottleneck(basis, stages, links, elapsed),
        _basis=basis,
    )


def report_of(engine: Engine) -> Report:
    """Return the report of a run as it stands now; of one that has ended, the final one."""
    counts = statistics_of(engine)
    return Report(
        **{name: getattr(counts, name) for name in RunStatistics.__slots__},
        outcome=engine.outcome or ("running" if engine.ended is None else "left"),
        error=engine.ledger.error,
        cleanup_errors=tuple(engine.ledger.cleanup_errors),
        cleanup_error_count=engine.ledger.cleanup_error_count,
        seed=engine.parts.seed,
    )


def _remade(engine: Engine) -> Iterator[tuple[str, int, int]]:
    """Yield each part that makes other values: its name, how many it used and made; in the order of the stream."""
    zips = [each for each in engine.parts.fan_ins if isinstance(each, ZipInlet)]
    forks = list(engine.parts.forks.values())
    for stage in [*engine.stages, None]:
        for each in zips:
            if taker_of(each) is stage:
                yield each.name, each.used, each.taken
        if stage is None:
            return
        yield stage.name, stage.chain.absorbed, stage.chain.created
        for operation in stage.chain.operations:
            yield operation.name, operation.absorbed, operation.created
        for fork in forks:
            if fork.sender is stage and fork.made != fork.passed:
                yield fork.name, fork.passed, fork.made


def _stage(stage: AnyStage, spent: Used, in_pauses: float, now: float) -> StageReport:
    waits_outside = isinstance(stage, AsyncSource)
    chain = stage.chain
    counts: dict[str, Any] = {
        "received": stage.received,
        "emitted": chain.outlet.given(),
        "created": sum(operation.created for operation in chain.operations) + chain.created,
        "absorbed": sum(operation.absorbed for operation in chain.operations) + chain.absorbed,
        "failed": chain.failed,
        "dropped": sum(operation.dropped for operation in chain.operations) + stage.dropped,
        "discarded": chain.discarded,
    }
    came = counts["received"] + counts["created"]
    return StageReport(
        **counts,
        in_flight=2 * came - sum(counts.values()),
        waits_for=stage.waits_for(),
        **_of_calls(stage, now),
        name=stage.name,
        kind=stage.kind,
        fused=tuple(operation.name for operation in chain.operations if operation.name != stage.name),
        waited_input=in_pauses if waits_outside else spent.starved,
        waited_room=spent.blocked,
        stalled=spent.stalled,
        used=spent.used - in_pauses if waits_outside else spent.used,
        offered=spent.offered,
        as_failures=chain.as_failures,
        failures=tuple(sorted(chain.failures.items())),
        policies=None if stage.counters is None else PolicyReport.of(stage.counters),
        divert=None if stage.divert_counters is None else PolicyReport.of(stage.divert_counters),
    )


def _of_calls(stage: AnyStage, now: float) -> dict[str, Any]:
    """Return what only a stage with calls counts."""
    if not isinstance(stage, Pool):
        return {}
    at_work = [worker.since for worker in stage.crew.workers if worker.item is not NO_ITEM]
    return {
        "in_flight_peak": stage.peak,
        "oldest": now - min(at_work, default=now),
        "latency": Latency(stage.latencies.longest, stage.latencies.snapshot()),
    }


def _link(link: Link) -> LinkReport:
    return LinkReport(
        behind=link.sender.name,
        capacity=link.capacity,
        passed=link.given(),
        taken=link.taken,
        held=link.held,
        discarded=link.discarded,
        peak=link.peak,
        dropped=link.dropped,
        name=link.name,
        turned_away=_turned_away(link) if isinstance(link, FairLink) else 0,
        cost=link.queues.cost if isinstance(link, FairLink) else 0,
    )


def _turned_away(link: FairLink) -> int:
    """Return how many items the operation before it dropped, or its stage diverted."""
    stage = link.sender
    assert isinstance(stage, Stage | Pool)
    operation = stage.chain.operations[-1]
    assert isinstance(operation, FairByOp)
    return operation.dropped + operation.diverted


def _wiring_of(engine: Engine) -> Wiring:
    """Return how the stages and links are connected, by their numbers; computed once for each run."""
    if engine.wiring is None:
        engine.wiring = _wiring(engine)
    return engine.wiring


def _wiring(engine: Engine) -> Wiring:
    stages, links = engine.stages, engine.parts.links
    numbers: dict[object, int] = {part: number for parts in (stages, links) for number, part in enumerate(parts)}
    takers = [taker_of(link) for link in links]
    return Wiring(
        waits_outside=tuple(isinstance(stage, AsyncSource) for stage in stages),
        fills=tuple(tuple(numbers[link] for link in filled_by(stage)) for stage in stages),
        takers=tuple(None if taker is None else numbers[taker] for taker in takers),
        has_consumer=engine.sink is None,
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
            kind="branches" if isinstance(fan_in, Join) else "merge",
        )
        for each in fan_in.inputs
    ]


def _keys(link: FairLink) -> list[InputReport]:
    total = link.queues.cost
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
        for each in link.queues.accounts()
    ]
