"""How do the counters of a run become its statistics and its report?"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from fractions import Fraction
from itertools import repeat
from math import inf
from typing import TYPE_CHECKING

from ..._sansio.usage import Used
from ..core.protocols import Inlet
from ..core.signals import NO_ITEM
from ..junctions.fan_in import MergeInlet
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

if TYPE_CHECKING:
    from ..reports.advice import Setting


def statistics_of(engine: Engine) -> RunStatistics:
    """Add up what the stages, links and fan-ins counted so far."""
    now = engine.now()
    all_spent = [spent_by(stage, now) for stage in engine.stages]
    worked, in_pauses = engine.efforts.apart(all_spent, now)
    stages = (*map(_stage, engine.stages, all_spent, in_pauses, repeat(now)),)
    links = tuple([_link(link) for link in engine.parts.links])
    elapsed = now - engine.began
    consumer = [] if engine.attendance is None else [engine.attendance.waited_until(now)]
    totals = [*(stage.waited_input + stage.waited_room for stage in stages), *consumer]
    waited = Waited(engine.graph(), totals, *engine.state_times.read(now))
    places = tuple([stage.crew.size if isinstance(stage, Pool) else 0 for stage in engine.stages])
    basis = Basis(_wiring_of(engine), tuple(worked), waited, _settings_of(engine), places)
    return RunStatistics(
        taken=sum(stage.received for stage in stages if stage.kind == "source"),
        delivered=engine.delivered if engine.sink is None else engine.sink.passed,
        failed=sum(stage.failed for stage in stages) + sum(each.failed for each in engine.parts.fan_ins),
        dropped=sum(stage.dropped for stage in stages)
        + sum(link.dropped for link in links)
        + sum(each.dropped for each in engine.parts.fan_ins),
        discarded=engine.ledger.discarded,
        elapsed=elapsed,
        stages=stages,
        links=links,
        inputs=tuple(
            [each for fan_in in engine.parts.fan_ins for each in _inputs(fan_in, now)]
            + [each for link in engine.parts.links if isinstance(link, FairLink) for each in _keys(link, now)]
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
    forks = list(engine.parts.forks.values())
    for stage in [*engine.stages, None]:
        for each in engine.parts.fan_ins:
            if taker_of(each) is stage:
                yield each.name, *each.remade()
        if stage is None:
            return
        yield stage.name, stage.chain.absorbed, stage.chain.created
        for operation in stage.chain.operations:
            yield operation.name, operation.absorbed, operation.created
        for loop in engine.parts.loops.values():
            if loop.back.sender is stage:
                yield loop.name, 0, loop.back.passed
        for fork in forks:
            if fork.sender is stage:
                used, made = fork.remade()
                if made != used:
                    yield fork.name, used, made


def _stage(stage: AnyStage, spent: Used, in_pauses: float, now: float) -> StageReport:
    waits_outside = isinstance(stage, AsyncSource)
    chain, operations = stage.chain, stage.chain.operations
    created, absorbed, dropped = chain.created, chain.absorbed, stage.dropped
    for operation in operations:
        created += operation.created
        absorbed += operation.absorbed
        dropped += operation.dropped
    received, emitted, failed, discarded = stage.received, chain.outlet.given(), chain.failed, chain.discarded
    peak, oldest, latency = _of_calls(stage, now) if isinstance(stage, Pool) else (0, 0.0, None)
    elsewhere, elsewhere_peak = stage.elsewhere() if isinstance(stage, Pool) else (0, 0)
    return StageReport(
        name=chain.name,
        kind=stage.kind,
        fused=tuple([each.name for each in operations if each.name != chain.name]) if operations else (),
        received=received,
        emitted=emitted,
        created=created,
        absorbed=absorbed,
        failed=failed,
        dropped=dropped,
        discarded=discarded,
        waited_input=in_pauses if waits_outside else spent.starved,
        waited_room=spent.blocked,
        used=spent.used - in_pauses if waits_outside else spent.used,
        offered=spent.offered,
        stalled=spent.stalled,
        in_flight=received + created - emitted - absorbed - failed - dropped - discarded,
        in_flight_peak=peak,
        oldest=oldest,
        latency=latency,
        waits_for=stage.waits_for(),
        as_failures=chain.as_failures,
        concurrency=stage.crew.size if isinstance(stage, Pool) else 0,
        adapted=stage.adapting.report() if isinstance(stage, Pool) and stage.adapting is not None else None,
        failures=tuple(sorted(chain.failures.items())) if chain.has_failures else (),
        policies=None if stage.counters is None else PolicyReport.of(stage.counters),
        divert=None if stage.divert_counters is None else PolicyReport.of(stage.divert_counters),
        elsewhere=elsewhere,
        elsewhere_peak=elsewhere_peak,
    )


def _of_calls(pool: Pool, now: float) -> tuple[int, float, Latency]:
    """Return what only a stage with calls counts: its peak, the age of its oldest call, its latency."""
    at_work = [worker.since for worker in pool.crew.workers if worker.item is not NO_ITEM]
    oldest = now - min(at_work) if at_work else 0.0
    return pool.peak, oldest, Latency(pool.latencies.longest, pool.latencies.snapshot())


def _link(link: Link) -> LinkReport:
    passed, held = link.given(), link.held
    fair = link if isinstance(link, FairLink) else None
    return LinkReport(
        behind=link.behind,
        capacity=math.inf if link.capacity == sys.maxsize else link.capacity,
        passed=passed,
        taken=passed - held - link.discarded - link.dropped,
        discarded=link.discarded,
        peak=link.peak,
        held=held,
        dropped=link.dropped,
        name=link.name,
        turned_away=0 if fair is None else _turned_away(fair),
        cost=0 if fair is None else fair.queues.cost,
    )


def _turned_away(link: FairLink) -> int:
    """Return how many items the operation before it dropped, or its stage diverted."""
    stage = link.sender
    assert isinstance(stage, Stage | Pool)
    operation = stage.chain.operations[-1]
    assert isinstance(operation, FairByOp)
    return operation.dropped + operation.diverted


def _settings_of(engine: Engine) -> tuple[Setting, ...]:
    """Return what the plan says of its stages; read once for each run."""
    if engine.settings is None:
        from .plan_settings import settings_of  # when it is asked for: a short run is not

        engine.settings = settings_of(engine)
    return engine.settings


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


def _inputs(fan_in: Inlet, now: float) -> list[InputReport]:
    if not isinstance(fan_in, MergeInlet) or not fan_in.has_shares:
        return []
    lags = fan_in.lags()
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
            backlog=each.backlog(),
            lag=_rounded(lags.get(each.flow.key, 0)),
            longest_wait=max(each.longest_wait, now - each.since if each.is_waiting else 0.0),
            failure=each.failure,
        )
        for each in fan_in.inputs
    ]


_NOTHING = 0, 0.0, 0.0
"""Of a key that has no item."""


def _rounded(cost: int | float | Fraction) -> float:
    try:
        return float(cost)
    except OverflowError:
        return inf if cost > 0 else -inf


def _keys(link: FairLink, now: float) -> list[InputReport]:
    total, waiting = link.queues.cost, link.queues.waiting()
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
            backlog=backlog,
            lag=_rounded(lag),
            longest_wait=max(each.longest_wait, now - since if backlog else 0.0),
        )
        for each in link.queues.accounts()
        for backlog, lag, since in (waiting.get(each.key, _NOTHING),)
    ]
