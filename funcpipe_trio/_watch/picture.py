"""What does a person want to see of a run that is at work? The rows of a picture, made from two of its reports.

The rule: counts are those of the whole run; rates, how busy a stage is, its latencies, the shares and the bottleneck
are those of the time between the two reports (`RunStatistics.since`), so they say what is going on now. When the run is
over, they are those of the whole run. What has no value yet, such as a rate in the first picture, is None.

The invariant: a pure function of the reports. No item, no key of a `fair_by` (it is called by its rank, unless the user
passes a function for it) and no text of an error is in a picture.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction
from math import inf
from typing import Final, get_args

from .._base.frozen import dataclass
from .._base.shown import type_name
from .._runtime.reports.counts import InputKind, InputReport, LinkReport, StageReport
from .._runtime.reports.plain import plain_inputs
from .._runtime.reports.report import Outcome, Report, RunState, RunStatistics

Keys = Callable[[Hashable], str]

SPAN: Final = 2.0
"""Seconds over which rates are taken: batches come in bursts, and a shorter time would show only these."""
_MOST_EARLIER: Final = 64
"""Reports kept to compare with."""
ENDED: Final = frozenset(get_args(Outcome)) - {"running"}
"""States of a run that is over."""


@dataclass(frozen=True, slots=True)
class StageRow:
    """A stage."""

    name: str
    kind: str
    """``source``, ``sync`` or ``async``."""
    received: float | None
    """Items that it took, per second."""
    emitted: float | None
    """Values that it passed on, per second."""
    in_flight: int
    """Items and values in it now."""
    busy: float
    """Share of the time of its places in which they were in use, 0 to 1."""
    p50: float | None
    """Half of the calls took no more seconds; None if none ended."""
    p99: float | None
    """The same for 99 in a hundred."""
    oldest: float
    """Seconds since its oldest call that is not over began; 0 without one."""
    waits_for: str | None
    """As `StageReport.waits_for`."""
    failed: int
    """Items at which user code raised, with those that went on as a `Failure`."""
    retries: int
    """Attempts after the first."""
    dropped: int
    """Items that it dropped on purpose."""
    is_limit: bool
    """Whether it is the bottleneck."""
    concurrency: int = 0
    """Calls that it may make at once, as it is now; 0 for a stage without calls."""


@dataclass(frozen=True, slots=True)
class LinkRow:
    """A link."""

    behind: str
    """The stage that fills it, or the fan-out and its branch."""
    held: int
    """Items in it now."""
    capacity: int | float
    """The most that it may hold."""
    rate: float | None
    """Items that were taken out of it, per second."""
    lost: int
    """Items that it dropped or did not admit."""


@dataclass(frozen=True, slots=True)
class ShareRow:
    """An input of a merge, a key of a `fair_by`, or a branch."""

    merge: str
    key: str
    kind: InputKind
    weight: float
    """The weight in force."""
    due: float | None
    """Its part by weight, of the inputs that are shown, 0 to 1; None for a branch, which has no right to any."""
    got: float | None
    """Its part, as in `InputReport.share`, or of all that branches gave, 0 to 1; None if nothing was handed over."""
    rate: float | None
    """Items handed over, per second."""
    backlog: int
    """Items that wait to be handed over."""
    longest: float
    """The most seconds, in the whole run, for which it had an item and none was taken."""


Row = tuple[StageRow | None, LinkRow | None]
"""A stage and the link that it fills; without a stage for the link of a branch, without a link if it fills several."""


@dataclass(frozen=True, slots=True)
class Picture:
    """All that is shown of a run at one moment."""

    state: RunState
    elapsed: float
    """Seconds since it was opened."""
    seconds: float
    """Of the time that rates are about; 0 in the first picture."""
    taken: int
    delivered: int
    failed: int
    dropped: int
    discarded: int
    in_flight: int
    rate: float | None
    """Values delivered per second."""
    limit: str | None
    """The bottleneck: the name of a stage, or ``consumer``."""
    advice: str
    """What would help, as `RunStatistics.advice`; empty if nothing is sure."""
    stages: tuple[StageRow, ...]
    links: tuple[LinkRow, ...]
    shares: tuple[ShareRow, ...]
    errors: tuple[tuple[str, str, int], ...]
    """A stage, the type of errors that its `OnError` handled, and how many."""
    error: str | None
    """Type of the error that ended the run, or that waits to be read; None without one."""

    @property
    def is_over(self) -> bool:
        """Whether it is the last one."""
        return self.state in ENDED

    def rows(self) -> list[Row]:
        """Return the stages, each with the link that it fills, and the links of branches, in the order of the plan."""
        stages, rows = deque(self.stages), list[Row]()
        names = {stage.name for stage in self.stages}
        for link in self.links:
            while link.behind in names and stages and stages[0].name != link.behind:
                rows.append((stages.popleft(), None))
            is_of_stage = bool(stages) and stages[0].name == link.behind
            rows.append((stages.popleft() if is_of_stage else None, link))
        return [*rows, *((stage, None) for stage in stages)]


def most_interesting(rows: Sequence[Row], most: int) -> list[Row]:
    """Return at most so many rows, in their order: what limits, what fails, what is full, what is busy come first."""
    chosen = sorted(range(len(rows)), key=lambda place: _interest(rows[place]), reverse=True)[: max(0, most)]
    return [rows[place] for place in sorted(chosen)]


def _interest(row: Row) -> tuple[bool, bool, float, float, float]:
    stage, link = row
    fill = 0.0 if link is None else link.held / max(1, link.capacity)
    if stage is None:
        return False, link is not None and link.lost > 0, fill, 0.0, 0.0
    has_lost = stage.failed > 0 or (link is not None and link.lost > 0)
    return stage.is_limit, has_lost, max(fill, stage.busy), fill, stage.emitted or 0.0


def most_unequal(shares: Sequence[ShareRow], most: int) -> list[ShareRow]:
    """Return at most so many shares, in their order: those that differ most from their due, then the largest."""
    chosen = sorted(range(len(shares)), key=lambda place: _distance(shares[place]), reverse=True)[: max(0, most)]
    return [shares[place] for place in sorted(chosen)]


def _distance(share: ShareRow) -> tuple[float, float]:
    """Return how far a share is from its due, without what a few items more or less make, and its size."""
    apart = 0.0 if share.due is None or share.got is None else abs(share.got - share.due)
    return round(apart, 2), share.got or 0.0


class Recent:
    """Which of the reports made so far is a new one compared with? The youngest that is `SPAN` old, or the oldest."""

    def __init__(self, longest: float = inf) -> None:
        self._longest = longest  # seconds; what was reported before that says nothing about now
        self._kept: deque[Report] = deque(maxlen=_MOST_EARLIER)  # the candidates, in the order in which they were made

    def earlier(self, report: Report) -> Report | None:
        """Return what to compare a new report with, and keep the new one; None for the first."""
        kept = self._kept
        while len(kept) > 1 and report.elapsed - kept[1].elapsed >= SPAN:
            kept.popleft()
        if kept and report.elapsed - kept[-1].elapsed > self._longest:
            kept.clear()
        earlier = kept[0] if kept else None
        kept.append(report)
        return earlier


def picture(report: Report, earlier: Report | None, state: RunState, keys: Keys | None = None) -> Picture:
    """Return the picture of a run in a state, at the time of a report, compared with an earlier one."""
    recent: RunStatistics | None = report
    if state not in ENDED:
        recent = None if earlier is None or earlier.elapsed == report.elapsed else report.since(earlier)
    now = report if recent is None else recent
    seconds = 0.0 if recent is None else recent.elapsed
    limit = None if recent is None else recent.bottleneck
    stages = tuple(_stage(*both, seconds, limit) for both in zip(report.stages, now.stages, strict=True))
    return Picture(
        state=state,
        elapsed=report.elapsed,
        seconds=seconds,
        taken=report.taken,
        delivered=report.delivered,
        failed=report.failed + sum(stage.as_failures for stage in report.stages),
        dropped=report.dropped,
        discarded=report.discarded,
        in_flight=report.in_flight,
        rate=_rate(now.delivered, seconds),
        limit=limit,
        advice="" if recent is None else recent.advice,
        stages=stages,
        links=tuple(_link(*both, seconds) for both in zip(report.links, now.links, strict=True)),
        shares=_shares(now, seconds, keys),
        errors=tuple((stage.name, error, count) for stage in report.stages for error, count in stage.failures),
        error=None if report.error is None else type_name(report.error),
    )


def _rate(count: int, seconds: float) -> float | None:
    return max(0, count) / seconds if seconds > 0 else None


def _stage(stage: StageReport, recent: StageReport, seconds: float, limit: str | None) -> StageRow:
    calls = recent.latency if recent.latency is not None and recent.latency.count else None
    return StageRow(
        name=stage.name,
        kind=stage.kind,
        received=_rate(recent.received, seconds),
        emitted=_rate(recent.emitted, seconds),
        in_flight=stage.in_flight,
        busy=recent.busy,
        p50=None if calls is None else calls.p50,
        p99=None if calls is None else calls.p99,
        oldest=stage.oldest,
        waits_for=stage.waits_for,
        failed=stage.failed + stage.as_failures,
        retries=sum(0 if each is None else each.retries for each in (stage.policies, stage.divert)),
        dropped=stage.dropped,
        is_limit=stage.name == limit,
        concurrency=stage.concurrency,
    )


def _link(link: LinkReport, recent: LinkReport, seconds: float) -> LinkRow:
    lost = link.dropped + link.turned_away
    return LinkRow(link.behind, link.held, link.capacity, _rate(recent.taken, seconds), lost)


def _shares(recent: RunStatistics, seconds: float, keys: Keys | None) -> tuple[ShareRow, ...]:
    names = [str(each["key"]) for each in plain_inputs(recent.inputs, keys)]
    weights: Counter[tuple[InputKind, str]] = Counter()
    wholes: Counter[tuple[InputKind, str]] = Counter()
    for each in recent.inputs:
        weights[each.kind, each.merge] += each.weight  # type: ignore[assignment]  # exact numbers add up exactly
        wholes[each.kind, each.merge] += _counted(each)  # type: ignore[assignment]  # the same
    rows = []
    for each, name in zip(recent.inputs, names, strict=True):
        weight, whole = weights[each.kind, each.merge], wholes[each.kind, each.merge]
        due = None if each.kind == "branches" else _part(each.weight, weight)
        got = _part(_counted(each), whole) if whole > 0 else None
        rate = _rate(each.taken, seconds)
        waits = each.backlog, each.longest_wait
        rows.append(ShareRow(each.merge, name, each.kind, float(each.weight), due, got, rate, *waits))
    return tuple(rows)


def _counted(each: InputReport) -> int | Fraction:
    """Return what of an input counts for its share, as in `InputReport.share`; of a branch, all that it gave."""
    counts = {"merge": each.contested, "fair_by": each.cost, "branches": each.taken}
    return max(0, counts[each.kind])


def _part(part: int | Fraction, whole: int | Fraction) -> float:
    return float(Fraction(part) / Fraction(whole))
