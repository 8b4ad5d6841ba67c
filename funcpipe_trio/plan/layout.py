"""How a plan becomes stages and links: which operations share a task, and what holds how many items.

The rule: an operation that waits (`needs_stage`) begins a stage; every other one is fused into the stage before it. A
`Buffer` ends a stage and sets the link behind it. A fan-in is no stage and no link: whoever comes next takes from its
inputs directly. Everything that speaks about a plan (description, checks, bound, runtime) reads this one layout.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..policies.fair_share import FairShare
from .nodes import FanIn, FanInKind, Plan, Source
from .operations import Batch, Buffer, Operation, Overflow, Unbatch

__all__ = ["LINK_CAPACITY", "FanInLayout", "LineLayout", "StageLayout", "lay_out"]

LINK_CAPACITY = 16
"""Capacity of a link that nobody sized: enough to make a wake-up cheap, small enough not to matter for memory."""

LONGEST_CHAIN = 100
"""Operations fused into one stage, at most: each is a generator inside the next, and Python limits that depth."""


@dataclass(frozen=True, slots=True)
class StageLayout:
    """One stage: what it waits for (`head`), what is fused behind that, and the link it fills."""

    name: str
    head: Source | Operation | None
    fused: tuple[Operation, ...]
    capacity: int
    overflow: Overflow = "block"

    @property
    def concurrency(self) -> int:
        """How many items it may hold in its hands at once."""
        return self.head.workers if isinstance(self.head, Operation) else 0


@dataclass(frozen=True, slots=True)
class FanInLayout:
    """A fan-in: no task of its own, only a rule by which the next stage takes from its inputs."""

    name: str
    kind: FanInKind
    inputs: tuple[tuple[Hashable, LineLayout], ...]
    share: FairShare[Any] | None
    strict: bool


@dataclass(frozen=True, slots=True)
class LineLayout:
    """A row of stages; `origin` is the fan-in it takes from, if its first stage is not a source."""

    origin: FanInLayout | None
    stages: tuple[StageLayout, ...]

    def all_stages(self) -> Iterator[StageLayout]:
        """Every stage, upstream first."""
        if self.origin is not None:
            for _key, line in self.origin.inputs:
                yield from line.all_stages()
        yield from self.stages

    @property
    def max_in_flight(self) -> int | float:
        """The most items that can be taken and not yet done with (a batch counts its items)."""
        return _bound(self)[0]


def lay_out(plan: Plan, *, tail: int = LINK_CAPACITY) -> LineLayout:
    """Lay a plan out; `tail` is the capacity of the last link if no buffer says otherwise."""
    return _line(plan, tail, _Names())


class _Names:
    """Equal names get ``#2``, ``#3``, in the order of the plan."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def unique(self, name: str) -> str:
        self._seen[name] += 1
        return name if self._seen[name] == 1 else f"{name}#{self._seen[name]}"


def _line(plan: Plan, tail: int, names: _Names) -> LineLayout:
    origin = None
    stages: list[StageLayout] = []
    default = LINK_CAPACITY
    if isinstance(plan.origin, FanIn):
        origin = _fan_in(plan.origin, names)
    else:
        source = replace(plan.origin, name=names.unique(plan.origin.name))
        # A tick is emitted when the one before it was taken: the link behind holds one.
        default = 1 if source.kind == "ticks" else LINK_CAPACITY
        stages.append(StageLayout(source.name, source, (), default))
    is_open = bool(stages)  # may the next operation join the last stage?
    for operation in plan.operations:
        if isinstance(operation, Buffer):
            if not stages:  # there is no link behind a fan-in: a stage that only passes items on makes one
                stages.append(StageLayout(names.unique(operation.name), None, (), operation.capacity))
            stages[-1] = replace(stages[-1], capacity=operation.capacity, overflow=operation.overflow)
            is_open = False
            continue
        operation = replace(operation, name=names.unique(operation.name))
        if operation.needs_stage:
            stages.append(StageLayout(operation.name, operation, (), LINK_CAPACITY))
        elif not is_open or len(stages[-1].fused) == LONGEST_CHAIN:
            stages.append(StageLayout(operation.name, None, (operation,), LINK_CAPACITY))
        else:
            stages[-1] = replace(stages[-1], fused=(*stages[-1].fused, operation))
        is_open = True
    sized = bool(plan.operations) and isinstance(plan.operations[-1], Buffer)
    ticking = len(stages) == 1 and default == 1
    if stages and not sized and not ticking:
        stages[-1] = replace(stages[-1], capacity=tail)
    return LineLayout(origin, tuple(stages))


def _fan_in(fan_in: FanIn, names: _Names) -> FanInLayout:
    name = names.unique(fan_in.name)
    tail = LINK_CAPACITY if fan_in.share is None else fan_in.share.capacity
    inputs = tuple((key, _line(plan, tail, names)) for key, plan in fan_in.inputs)
    return FanInLayout(name, fan_in.kind, inputs, fan_in.share, fan_in.strict)


_Units = tuple[int | float, ...]
"""Items per element, innermost last: a batch of up to 10 batches of up to 5 reads (1, 5, 50)."""


def _bound(line: LineLayout) -> tuple[int | float, _Units]:
    """Sum what the links and the workers of a line can hold, in items."""
    total, units = (0, (1,)) if line.origin is None else _fan_in_bound(line.origin)
    for stage in line.stages:
        total += stage.concurrency * units[-1]
        before = units[-1]
        operations = (stage.head, *stage.fused) if isinstance(stage.head, Operation) else stage.fused
        for operation in operations:
            total += operation.keeps * units[-1]
            if isinstance(operation, Batch):
                size = math.inf if operation.max_items is None else operation.max_items
                units = (*units, units[-1] * size)
            elif isinstance(operation, Unbatch) and len(units) > 1:
                total += units[-1] - units[-2]  # the rest of a batch that is being taken apart
                units = units[:-1]
        if stage.concurrency and any(isinstance(operation, Batch) for operation in stage.fused):
            total += before - 1  # beside a batch that is not full, one more result may use the last place
        # A finished result that waits for an earlier one may use a place of the link, at its size before the batch.
        total += stage.capacity * (max(before, units[-1]) if stage.concurrency else units[-1])
    return total, units


def _fan_in_bound(fan_in: FanInLayout) -> tuple[int | float, _Units]:
    bounds = [_bound(line) for _key, line in fan_in.inputs]
    if not bounds:
        return 0, (1,)
    if fan_in.kind == "concat":  # the next input starts when the one before is empty
        return max(total for total, _ in bounds), (max(units[-1] for _, units in bounds),)
    total = sum(total for total, _ in bounds)
    if fan_in.kind == "zip":
        return total, (sum(units[-1] for _, units in bounds),)
    return total, (max(units[-1] for _, units in bounds),)
