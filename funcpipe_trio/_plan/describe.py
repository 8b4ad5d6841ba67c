"""How does a plan read? One line per stage, one per link, and the inputs of a fan-in indented.

The text is stable, so that a test can compare it: the same plan has the same text. It contains names, capacities,
weights and bounds, never an address or the repr of an item.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from .._base.functions import function_name
from .._base.shown import line_of, quoted
from ..policies.on_error import Stop
from ..policies.on_full import OnFull
from .bound import max_in_flight
from .layout import BranchLayout, FanInLayout, FanOutLayout, SegmentLayout, StageLayout
from .nodes import Source
from .operations import Operation

_ROUTES = {
    "broadcast": "every branch",
    "partition": "one branch, as its route says",
    "balance": "one branch that has room, in turn",
}
_EQUAL_SHARES = "equal shares of what is handed over (start-time fair queueing)"
_WHEN_FULL = {
    "block": "",
    "drop_oldest": ", drops the oldest when full",
    "drop_newest": ", drops the newest when full",
    "fail": ", fails when full",
}


def text(line: SegmentLayout) -> str:
    """Return the text of a laid out plan."""
    stages = sum(1 for _ in line.all_stages())
    head = f"pipeline: {stages} {'stage' if stages == 1 else 'stages'}, items in flight: {bound_text(line)}"
    lines = [head, *_line(line)]
    if line.stages and line.stages[-1].fair_by is None:
        lines[-1] += " (of an open run; run(), collect() and the like need none)"
    return "\n".join([*map(line_of, lines), "consumer"])


def bound_text(line: SegmentLayout) -> str:
    """Return how many items it can hold."""
    bound = max_in_flight(line)
    return (
        "without limit (a batch, window or buffer has no number of items)" if bound == math.inf else f"at most {bound}"
    )


def _line(line: SegmentLayout) -> Iterator[str]:
    if isinstance(line.origin, FanInLayout):
        yield from _fan_in(line.origin)
    elif isinstance(line.origin, FanOutLayout):
        yield from _fan_out(line.origin)
    elif isinstance(line.origin, BranchLayout):
        yield _link(line.origin)
    for stage in line.stages:
        yield from _stage(stage)
        yield from _behind(stage)


def _fan_in(fan_in: FanInLayout) -> Iterator[str]:
    for key, line in fan_in.inputs:
        share = fan_in.share
        weight = f", weight {share.weight_of(key)}" if share is not None and fan_in.kind == "fair_merge" else ""
        yield f"input {quoted(key)}{weight}:"
        yield from (f"  {text}" for text in _line(line))
    yield f"{fan_in.name}: {rule_of(fan_in)}"


def _fan_out(fan_out: FanOutLayout) -> Iterator[str]:
    yield from _line(fan_out.trunk)
    yield f"{fan_out.name}: {route_of(fan_out)}"
    for key, line in fan_out.branches:
        yield f"branch {quoted(key)}:"
        yield from (f"  {text}" for text in _line(line))
    yield f"{fan_out.join}: {join_of(fan_out)}"


def route_of(fan_out: FanOutLayout) -> str:
    """Return where the items of a fan-out go."""
    return f"each item to {_ROUTES[fan_out.kind]}"


def join_of(fan_out: FanOutLayout) -> str:
    """Return how the results of the branches of a fan-out become one stream."""
    return _EQUAL_SHARES if fan_out.joined_by == "merge" else "one result of each branch for each item, as a dict"


def rule_of(fan_in: FanInLayout) -> str:
    """Return how a fan-in takes from its inputs."""
    if fan_in.kind == "concat":
        return "one input after the other"
    if fan_in.kind == "zip":
        return "one item from each input" + (", which must be equally long" if fan_in.strict else "")
    if fan_in.kind == "loop":
        return "what comes and what goes round, one of each in turn"
    if fan_in.kind == "prefer":
        return f"input 0 first; one of {fan_in.at_least} items from the others, in turn, while they have any"
    if fan_in.kind == "zip_latest":
        return "the latest item of each input, whenever one gives an item"
    if fan_in.kind == "merge_sorted":
        by = "" if fan_in.key is None else f" by {function_name(fan_in.key)}"
        return f"sorted{by}, the {'greatest' if fan_in.reverse else 'least'} first; waits for an item of each input"
    shares = "equal shares" if fan_in.kind == "merge" else "shares by weight"
    cost = fan_in.share.cost if fan_in.share is not None else None
    counted = "" if cost is None else f", an item costs {getattr(cost, '__name__', 'what its cost function says')}"
    failing = "" if isinstance(fan_in.on_error, Stop) else f"; an input that fails: {fan_in.on_error.describe()}"
    return f"{shares} of what is handed over (start-time fair queueing{counted}){failing}"


def _behind(stage: StageLayout) -> Iterator[str]:
    if stage.fair_by is None:
        if stage.has_link:  # else it fills the links of branches
            yield _link(stage)
    else:
        yield f"  | {stage.fair_by.describe()}"
        yield from (f"      {line}" for line in stage.fair_by.details())


def _link(filled: StageLayout | BranchLayout) -> str:
    return f"  | {link_text(filled)}"


def link_text(filled: StageLayout | BranchLayout) -> str:
    """Describe a link."""
    alias = "" if filled.link_name is None else f" as {filled.link_name}"
    overflow = filled.overflow
    when_full = f", {overflow.describe()} when full" if isinstance(overflow, OnFull) else _WHEN_FULL[overflow]
    size = f"of {filled.capacity}" if filled.capacity else "of 0, hands over what is waited for"
    by_cost = filled.by_cost if isinstance(filled, StageLayout) else None
    if by_cost is not None:
        cost = f"cost {by_cost.max_cost:g} by {function_name(by_cost.cost)}" if by_cost.cost else ""
        size = f"of {cost}" if by_cost.capacity is None else f"of {by_cost.capacity} or {cost}"
    return f"link {size}{alias}{when_full}"


def _stage(stage: StageLayout) -> Iterator[str]:
    operations, details = stage_texts(stage)
    yield f"{kind_of(stage)} {stage.name}: {' -> '.join(operations) or 'pass on'}"
    yield from (f"    {line}" for line in details)


def kind_of(stage: StageLayout) -> str:
    """Return the word for a stage."""
    return "source" if isinstance(stage.head, Source) else "stage"


def stage_texts(stage: StageLayout) -> tuple[list[str], list[str]]:
    """Return what its operations are, and more about them; except a `FairBy`, which is shown as what it fills."""
    fused = stage.fused if stage.fair_by is None else stage.fused[:-1]
    parts = [part for part in (stage.head, *fused) if part is not None]
    operations = [part.describe() for part in parts]
    operations[:1] = [said.replace(f" as {stage.name}", "", 1) for said in operations[:1]]  # the line begins with it
    return operations, [line for part in parts if isinstance(part, Operation) for line in part.details()]
