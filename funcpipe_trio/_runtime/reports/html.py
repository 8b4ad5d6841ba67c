"""How does a report look in a notebook? As a table of its stages, with a bar for how busy each was, and one of shares.

The rule: what `describe()` says, but errors by their types alone and keys of a `fair_by` by their ranks, because
notebooks are kept and passed on. There is no script, and colours are those of the page around it, except of the bars.

The invariant: every text is escaped, so no name can be anything but text.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from ..._base.shown import line_of, type_name
from .counts import StageReport
from .plain import plain_inputs

if TYPE_CHECKING:
    from .report import Report


def html(report: Report, head: Sequence[str]) -> str:
    """Return a report as HTML, below the lines of its head."""
    parts = [f"<div>{_text(line)}</div>" for line in head]
    titles = ("stage", "in", "out", "failed", "dropped", "discarded", "p99", "busy", "")
    parts.append(_table(titles, [_stage(stage, report.bottleneck) for stage in report.stages]))
    if report.inputs:
        parts.append(_table(("share of", "weight", "taken", "share", ""), _shares(report)))
    handled = [f"{count} {error} in {stage.name}" for stage in report.stages for error, count in stage.failures]
    if handled:
        parts.append(f"<div>went on after {_text(', '.join(handled))}</div>")
    if report.error is not None:
        parts.append(f"<div>error: {_text(type_name(report.error))}</div>")
    if report.cleanup_error_count:
        parts.append(f"<div>and {report.cleanup_error_count} errors in cleanup, or behind the first</div>")
    return f'<div style="font-family:sans-serif;font-size:13px">{"".join(parts)}</div>'


def _stage(stage: StageReport, bottleneck: str | None) -> list[str]:
    name = _text(stage.name)
    counts = (stage.received, stage.emitted, stage.failed, stage.dropped, stage.discarded)
    p99 = f"{stage.latency.p99:.3g} s" if stage.latency is not None and stage.latency.count else ""
    marked = f"<b>▶ {name}</b>" if stage.name == bottleneck else name
    return [marked, *map(str, counts), p99, f"{stage.busy:.0%}", _bar(stage.busy)]


def _shares(report: Report) -> Iterable[list[str]]:
    for each, told in zip(report.inputs, plain_inputs(report.inputs, None), strict=True):
        called = _text(f"{each.merge} / {told['key']}")
        if each.kind == "branches":
            yield [called, "", str(each.taken), "", ""]
        else:
            is_told = each.contested or each.kind == "fair_by"  # nothing has no shares
            share = (f"{each.share:.1%}", _bar(each.share)) if is_told else ("-", "")
            yield [called, _text(f"{told['weight']:g}"), str(each.taken), *share]


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["".join(f'<th style="{_align(place)}">{title}</th>' for place, title in enumerate(titles))]
    lines += ["".join(f'<td style="{_align(place)}">{cell}</td>' for place, cell in enumerate(row)) for row in rows]
    return f'<table style="margin:6px 0;font-size:inherit">{"".join(f"<tr>{line}</tr>" for line in lines)}</table>'


def _align(place: int) -> str:
    return "text-align:left;overflow-wrap:anywhere;max-width:24em" if not place else "text-align:right"


def _bar(part: float) -> str:
    inside = f'<div style="width:{100 * part:.0f}%;height:8px;background:#3b82c4"></div>'
    return f'<div style="width:120px;height:8px;background:rgba(128,128,128,.3)">{inside}</div>'


def _text(text: str) -> str:
    return escape(line_of(text))
