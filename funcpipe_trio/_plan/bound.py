"""How many items can a run of a plan hold at most?

The rule: it is the sum of what the links and the stages can hold, at every checkpoint, in items of the sources (a batch
counts as its items). A source and a sync stage hold none except what an operation keeps on purpose.

The invariant: it depends on the layout alone, so it is known before anything runs; `inf` if anything has no limit. It
limits nothing: the links and stages do that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from .layout import BranchLayout, FanInLayout, FanOutLayout, SegmentLayout, StageLayout
from .operations import Operation, Unbatch
from .timing import Debounce, Sample


def max_in_flight(line: SegmentLayout) -> int | float:
    """Return the most items that can be in progress at once (a batch counts its items)."""
    return bounds(line)[id(line)]


def bounds(line: SegmentLayout) -> dict[int, int | float]:
    """Return what each part can hold, by its identity: lines, stages with the link behind them, fan-ins, and so on."""
    counting = _Counting()
    counting.line(line, {})
    return counting.held


_Units = tuple[int | float, ...]
"""Items per element, innermost last: a batch of up to 10 batches of up to 5 reads (1, 5, 50)."""


_Trunks = dict[str, _Units]
"""The units of the items that the branches of each fan-out get."""


class _Counting:
    """Counts the parts of one layout."""

    def __init__(self) -> None:
        self.held: dict[int, int | float] = {}  # by the identity of the part of the layout

    def line(self, line: SegmentLayout, trunks: _Trunks, *, is_lossy: bool = False) -> tuple[int | float, _Units]:
        """Sum what the links and the stages can hold, in items; `is_lossy`: everything behind it drops."""
        total, units = self._origin(line, trunks)
        behind = (*line.stages[1:], None)
        for stage, next_stage in zip(line.stages, behind, strict=False):
            held, units = _stage(stage, units, is_lossy=is_lossy and next_stage is None)
            if stage.has_link and not stage.capacity:
                held += _handed_over(next_stage, units, is_lossy=is_lossy and next_stage is line.stages[-1])
            if stage.by_cost is not None and stage.overflow == "block":
                held += units[-1]  # one that does not fit yet
            self.held[id(stage)] = held
            total += held
        self.held[id(line)] = total
        return total, units

    def _origin(self, line: SegmentLayout, trunks: _Trunks) -> tuple[int | float, _Units]:
        origin = line.origin
        if isinstance(origin, FanInLayout):
            total, units = self._fan_in(origin, trunks)
        elif isinstance(origin, FanOutLayout):
            total, units = self._fan_out(origin, trunks)
        elif isinstance(origin, BranchLayout):
            units = trunks.get(origin.fan_out, (1,))
            total = origin.capacity * units[-1]
            if not origin.capacity:
                total += _handed_over(line.stages[0] if line.stages else None, units, is_lossy=False)
        else:
            return 0, (1,)
        self.held[id(origin)] = total
        return total, units

    def _fan_out(self, fan_out: FanOutLayout, trunks: _Trunks) -> tuple[int | float, _Units]:
        """Sum the trunk and all branches: each copy of an item counts, and so does one that waits for its branch."""
        links = [each for _key, line in fan_out.branches for each in _beginnings(line) if each.fan_out == fan_out.name]
        # Otherwise one that blocks holds up the trunk; but if an item may go to any, it goes to one that drops.
        is_lossy = (any if fan_out.kind == "balance" else all)(link.overflow != "block" for link in links)
        total, units = self.line(fan_out.trunk, trunks, is_lossy=is_lossy)
        inner = {**trunks, fan_out.name: units}
        branches = [self.line(line, inner) for _key, line in fan_out.branches]
        if fan_out.kind == "partition":
            total += units[-1]
        together = sum if fan_out.joined_by == "zip" else max
        joined = together([units[-1] for _, units in branches] or [1])
        return total + sum(held for held, _ in branches), (joined,)

    def _fan_in(self, fan_in: FanInLayout, trunks: _Trunks) -> tuple[int | float, _Units]:
        inputs = [self.line(line, trunks) for _key, line in fan_in.inputs]
        if not inputs:
            return 0, (1,)
        if fan_in.kind == "concat":  # the next input starts when the one before is empty
            return max(held for held, _ in inputs), (max(units[-1] for _, units in inputs),)
        total = sum(held for held, _ in inputs)
        each = [units[-1] for _, units in inputs]
        if fan_in.kind == "zip":
            return total, (sum(each),)
        if fan_in.kind in ("merge_sorted", "zip_latest"):  # an item of each but one, which is there when it is taken
            total += sum(sorted(each)[1:])
        return total, (sum(each) if fan_in.kind == "zip_latest" else max(each),)


def _stage(stage: StageLayout, units: _Units, *, is_lossy: bool) -> tuple[int | float, _Units]:
    """Return what one stage and the link behind it hold, and the units behind it."""
    before = units[-1]
    inside = _Held(units)
    for operation in (stage.head, *stage.fused) if isinstance(stage.head, Operation) else stage.fused:
        inside.add(operation)
    units = inside.units
    held = _times(stage.concurrency, before)  # what is in the calls
    if stage.overflow != "block" or is_lossy:
        held += inside.at_most  # the stage continues although the link is full
    else:
        held += inside.given_out  # anything more has the place in the link of the value that it will be part of
        if stage.concurrency and any(operation.gathers is not None for operation in stage.fused):
            held += before - 1  # besides a batch that is not full, one more result may use the last place
    # A finished result that waits for an earlier one may use a place of the link, at its size before the batch.
    return held + _times(stage.capacity, max(before, units[-1]) if stage.concurrency else units[-1]), units


def _handed_over(to: StageLayout | None, units: _Units, *, is_lossy: bool) -> int | float:
    """Return what a link of 0 holds besides the places of what it hands over to: an item on its way, in some cases.

    A worker that waits has a place for it, and a stage that waits has one in the link behind, unless that always has
    room. The consumer has none, nor has a stage that keeps the newest item only, and takes the next one before that.
    """
    has_place = to is not None and (
        to.concurrency > 0 or not (to.overflow != "block" or is_lossy or isinstance(to.head, Debounce | Sample))
    )
    return 0 if has_place else units[-1]


class _Held:
    """What the operations of one stage hold between two of their values, in items.

    They pass on one value at a time, so while one of them is unbatching a value, those before it wait for it to finish:
    they hold what they hold just after they passed a value on.
    """

    def __init__(self, units: _Units) -> None:
        self.units = units
        self.given_out: int | float = 0
        """The most that they hold when one more value has just left the stage."""
        self.at_most: int | float = 0
        """The most that they ever hold."""

    def add(self, operation: Operation) -> None:
        """Add one more operation at the end."""
        unit = self.units[-1]
        kept = _times(operation.keeps, unit)
        self.given_out += kept
        self.at_most += kept
        if operation.gathers is not None:
            self.at_most += _times(operation.gathers - 1, unit)  # a batch that is not full; a full one leaves
            self.units = (*self.units, unit * operation.gathers)
        elif isinstance(operation, Unbatch) and len(self.units) > 1:
            inner = self.units[-2]
            self.given_out += unit - (0 if inner == math.inf else inner)  # the rest of what is being unbatched
            self.at_most = max(self.at_most, self.given_out)
            self.units = self.units[:-1]
        elif operation.holds_back:
            self.at_most = max(self.at_most, self.given_out + unit)


def _times(count: int | float, unit: int | float) -> int | float:
    """Return count * unit, where 0 * inf is 0."""
    return count * unit if count else 0


def _beginnings(line: SegmentLayout) -> Iterator[BranchLayout]:
    """Yield every branch that a line begins with, directly or inside its origin."""
    origin = line.origin
    if isinstance(origin, BranchLayout):
        yield origin
    elif isinstance(origin, FanInLayout):
        for _key, inner in origin.inputs:
            yield from _beginnings(inner)
    elif isinstance(origin, FanOutLayout):
        for inner in (origin.trunk, *(branch for _key, branch in origin.branches)):
            yield from _beginnings(inner)
