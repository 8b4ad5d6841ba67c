"""What does the page draw of a plan? Its lines of stages, and where they meet and part, as plain JSON values.

The rule: only what is drawn, with the words of `describe()`. A part has the name that a report has for it, so that its
numbers can be found: a stage its own, a link that of what fills it (`LinkReport.behind`).

The invariant: names and settings that stand in the plan, except the weights of a `fair_by`: its keys are data.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from .._base.shown import line_of
from .._plan.describe import join_of, kind_of, link_text, route_of, rule_of, stage_texts
from .._plan.layout import BranchLayout, FanInLayout, FanOutLayout, SegmentLayout, StageLayout, lay_out
from .._plan.nodes import Plan

Json: TypeAlias = dict[str, Any]


def graph(plan: Plan) -> Json:
    """Return what to draw of a plan."""
    return _line(lay_out(plan))


def _line(line: SegmentLayout) -> Json:
    return {"origin": _origin(line.origin), "stages": [_stage(stage) for stage in line.stages]}


def _origin(origin: FanInLayout | FanOutLayout | BranchLayout | None) -> Json | None:
    if isinstance(origin, FanInLayout):
        inputs = [{"line": _line(line)} for _key, line in origin.inputs]
        link = {"behind": origin.name, "says": "what goes round"} if origin.kind == "loop" else None
        said = {"kind": "fan-in", "name": line_of(origin.name), "rule": rule_of(origin), "link": link}
        return {**said, "inputs": inputs}
    if isinstance(origin, FanOutLayout):
        branches = [{"key": line_of(key), "line": _line(line)} for key, line in origin.branches]
        said = {"kind": "fan-out", "name": line_of(origin.name), "rule": route_of(origin)}
        joined = {"join": line_of(origin.join), "shares": join_of(origin)}
        return {**said, **joined, "trunk": _line(origin.trunk), "branches": branches}
    if isinstance(origin, BranchLayout):
        return {"kind": "branch", "key": line_of(origin.key), "link": origin.name, "says": line_of(link_text(origin))}
    return None


def _stage(stage: StageLayout) -> Json:
    operations, details = stage_texts(stage)
    return {
        "name": stage.name,
        "kind": kind_of(stage),
        "says": [line_of(each) for each in (*operations, *(f"- {detail.strip()}" for detail in details))],
        "link": _link(stage),
    }


def _link(stage: StageLayout) -> Json | None:
    """Return the link that a stage fills; None if it fills those of branches."""
    if stage.fair_by is not None:
        return {"behind": stage.name, "says": line_of(f"a queue for each key, {stage.fair_by.name}")}
    return {"behind": stage.name, "says": line_of(link_text(stage))} if stage.has_link else None
