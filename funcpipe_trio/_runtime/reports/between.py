"""What happened between two snapshots of a run? Their difference, as a snapshot of its own.

Counts and times are subtracted; shares, how busy a stage was and what limited the run are computed from the
differences, as they are from the counts of a whole run. What cannot be subtracted (the peak of a link, a weight) is
that of the later snapshot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Protocol

from .bottleneck import Basis, name_bottleneck
from .counts import (
    AdaptiveReport,
    InputReport,
    Latency,
    LimitWaitReport,
    LinkReport,
    PolicyReport,
    RemakeReport,
    StageReport,
)

_COUNTS = ("taken", "delivered", "failed", "dropped", "discarded", "elapsed", "paused")
_OF_A_STAGE = ("received", "emitted", "created", "absorbed", "failed", "dropped", "discarded", "as_failures")
_SECONDS_OF_A_STAGE = ("waited_input", "waited_room", "stalled", "used", "offered")
_OF_A_LINK = ("passed", "taken", "discarded", "dropped", "turned_away", "cost")
_OF_AN_INPUT = ("taken", "cost", "contested")


class Snapshot(Protocol):
    """What is compared of a snapshot, in addition to the counts."""

    @property
    def stages(self) -> tuple[StageReport, ...]: ...
    @property
    def links(self) -> tuple[LinkReport, ...]: ...
    @property
    def inputs(self) -> tuple[InputReport, ...]: ...
    @property
    def remade(self) -> tuple[RemakeReport, ...]: ...
    @property
    def _basis(self) -> Basis: ...


def between(earlier: Snapshot, later: Snapshot) -> dict[str, Any]:
    """Subtract a snapshot from a later one of the same run; return the fields of the difference."""
    worked = tuple(map(_less, later._basis.worked, earlier._basis.worked))
    basis = Basis(later._basis.wiring, worked, later._basis.waited.since(earlier._basis.waited), *_plan(later._basis))
    stages = tuple(map(_stage, earlier.stages, later.stages))
    links = tuple(_grown(before, after, _OF_A_LINK) for before, after in zip(earlier.links, later.links, strict=True))
    counts = {name: getattr(later, name) - getattr(earlier, name) for name in _COUNTS}
    return {
        **counts,
        "stages": stages,
        "links": links,
        "inputs": _inputs(earlier.inputs, later.inputs, links),
        "remade": _remade(earlier.remade, later.remade),
        "bottleneck": name_bottleneck(basis, stages, links, counts["elapsed"]),
        "_basis": basis,
    }


def _plan(basis: Basis) -> tuple[Any, ...]:
    return basis.settings, basis.places


def _less(after: float, before: float) -> float:
    """Subtract seconds; never below 0, where rounding would put it."""
    return max(0.0, after - before)


def _grown(before: Any, after: Any, names: Sequence[str], **rest: Any) -> Any:
    return replace(after, **{name: getattr(after, name) - getattr(before, name) for name in names}, **rest)


def _stage(before: StageReport, after: StageReport) -> StageReport:
    seconds = {name: _less(getattr(after, name), getattr(before, name)) for name in _SECONDS_OF_A_STAGE}
    counts = Counter(dict(after.failures))
    counts.subtract(dict(before.failures))
    stage: StageReport = _grown(
        before,
        after,
        _OF_A_STAGE,
        failures=tuple((name, count) for name, count in sorted(counts.items()) if count),
        latency=None if after.latency is None else after.latency.since(before.latency or Latency(0.0, {})),
        policies=_policies(before.policies, after.policies),
        divert=_policies(before.divert, after.divert),
        adapted=_adapted(before.adapted, after.adapted),
        **seconds,
    )
    return stage


def _policies(before: PolicyReport | None, after: PolicyReport | None) -> PolicyReport | None:
    if before is None or after is None:
        return after
    counts = [name for name in PolicyReport.__slots__ if name != "limits"]
    grown: PolicyReport = _grown(before, after, counts, limits=_limits(before.limits, after.limits))
    return grown


def _limits(before: Sequence[LimitWaitReport], after: Sequence[LimitWaitReport]) -> tuple[LimitWaitReport, ...]:
    known = {(each.limit, each.key): each for each in before}
    grown: list[LimitWaitReport] = []
    for each in after:
        was = known.get((each.limit, each.key))
        if was is None or each.calls < was.calls:  # one that was forgotten is counted from 0 again
            grown.append(each)
        elif each.calls > was.calls:
            grown.append(replace(each, calls=each.calls - was.calls, waited=_less(each.waited, was.waited)))
    return tuple(sorted(grown, key=_waited, reverse=True))


def _waited(each: LimitWaitReport) -> float:
    return each.waited


def _adapted(before: AdaptiveReport | None, after: AdaptiveReport | None) -> AdaptiveReport | None:
    if before is None or after is None:
        return after
    grown: AdaptiveReport = _grown(before, after, ("changes",))
    return grown


def _remade(before: Sequence[RemakeReport], after: Sequence[RemakeReport]) -> tuple[RemakeReport, ...]:
    known = {each.name: each for each in before}
    grown = [_grown(known.get(each.name, replace(each, used=0, made=0)), each, ("used", "made")) for each in after]
    return tuple(each for each in grown if each.used or each.made)


def _inputs(
    before: Sequence[InputReport], after: Sequence[InputReport], links: Sequence[LinkReport]
) -> tuple[InputReport, ...]:
    known = {_identity(each): each for each in before}
    grown = [_input(known.get(_identity(each)), each) for each in after]
    wholes: dict[tuple[str, str | None], int | Fraction] = {("fair_by", link.name): link.cost for link in links}
    for each in grown:
        if each.kind != "fair_by":
            wholes[each.kind, each.merge] = wholes.get((each.kind, each.merge), 0) + each.contested
    return tuple(replace(each, share=_share(each, wholes[each.kind, each.merge])) for each in grown)


def _identity(each: InputReport) -> tuple[str, str, Hashable]:
    return each.kind, each.merge, each.key


def _input(before: InputReport | None, after: InputReport) -> InputReport:
    if before is None or after.taken < before.taken:  # a key that was forgotten is counted from 0 again
        return after
    grown: InputReport = _grown(before, after, _OF_AN_INPUT)
    return grown


def _share(each: InputReport, whole: int | Fraction) -> float:
    part = each.cost if each.kind == "fair_by" else each.contested
    return float(Fraction(part) / whole) if whole else 0.0
