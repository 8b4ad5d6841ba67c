"""How does a plan look in a notebook? As boxes from top to bottom, with the words of its description.

The rule: a box for each stage, its link below it; the inputs of a fan-in, and the branches of a fan-out, stand side by
side in a frame as far as there is room. There is no script, and colours are those of the page around it.

The invariant: every text is escaped, so no name can be anything but text; nothing of the user's is called.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final

from .._base.errors import PlanError
from .._base.shown import label, line_of
from .check import describable
from .describe import bound_text, join_of, kind_of, link_text, route_of, rule_of, stage_texts
from .layout import BranchLayout, FanInLayout, FanOutLayout, SegmentLayout, StageLayout, lay_out
from .nodes import Plan

_BOX: Final = "border:1px solid;border-radius:5px;padding:3px 8px;max-width:26em;overflow-wrap:anywhere"
_JUNCTION: Final = f"{_BOX};border-style:dashed;border-radius:12px;text-align:center"
_COLUMN: Final = "display:flex;flex-direction:column;align-items:center;gap:2px"
_ROW: Final = "display:flex;flex-wrap:wrap;align-items:flex-end;justify-content:center;gap:10px"
_LINK: Final = "font-size:85%;opacity:.75;text-align:center"


def html(plan: Plan, otherwise: str) -> str:
    """Return a plan as HTML; of one that cannot be described, the given text and why."""
    try:
        describable(plan)
    except PlanError as error:
        return f"<pre>{_text(otherwise)}\n{escape(str(error))}</pre>"
    line = lay_out(plan)
    held = _div(_JUNCTION, f"consumer<br>items in flight: {_text(bound_text(line))}")
    return _div(f"{_COLUMN};font-family:sans-serif;font-size:13px;line-height:1.35", *_line(line), held)


def _line(line: SegmentLayout) -> Iterable[str]:
    origin = line.origin
    if isinstance(origin, FanInLayout):
        inputs = [(f"input {label(key)}{_weight(origin, key)}", inner) for key, inner in origin.inputs]
        yield _side_by_side(inputs)
        yield _junction(origin.name, rule_of(origin))
    elif isinstance(origin, FanOutLayout):
        yield from _line(origin.trunk)
        yield _junction(origin.name, route_of(origin))
        yield _side_by_side([(f"branch {key}", inner) for key, inner in origin.branches])
        yield _junction(origin.join, join_of(origin))
    elif isinstance(origin, BranchLayout):
        yield _div(_LINK, f"↓ {_text(link_text(origin))}")
    for stage in line.stages:
        yield from _stage(stage)


def _weight(fan_in: FanInLayout, key: object) -> str:
    share = fan_in.share if fan_in.kind == "fair_merge" else None
    return "" if share is None else f", weight {share.weight_of(key)}"


def _side_by_side(lines: Iterable[tuple[str, SegmentLayout]]) -> str:
    columns = [_div(_COLUMN, _div(_LINK, _text(title)), *_line(line)) for title, line in lines]
    return _div(f"{_ROW};border:1px dotted;border-radius:8px;padding:6px", *columns) + _div(_LINK, "↓")


def _junction(name: str, rule: str) -> str:
    return _div(_JUNCTION, f"<b>{_text(name)}</b><br>{_text(rule)}") + _div(_LINK, "↓")


def _stage(stage: StageLayout) -> Iterable[str]:
    operations, details = stage_texts(stage)
    said = [f"<b>{_text(f'{kind_of(stage)} {stage.name}')}</b>", _text(" -> ".join(operations) or "pass on")]
    yield _div(_BOX, "<br>".join([*said, *(f"- {_text(each.strip())}" for each in details)]))
    if stage.fair_by is not None:
        yield _div(_LINK, "↓")
        yield _div(_JUNCTION, _text(stage.fair_by.describe()))
    yield _div(_LINK, f"↓ {_text(link_text(stage))}" if stage.has_link and stage.fair_by is None else "↓")


def _div(style: str, *inside: str) -> str:
    return f'<div style="{style}">{"".join(inside)}</div>'


def _text(text: str) -> str:
    return escape(line_of(text))
