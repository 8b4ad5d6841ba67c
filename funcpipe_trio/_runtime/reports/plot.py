"""A picture of a report: how did each stage spend its time, and what did each input get beside what was its due?

The rule: a bar for each stage, of the time of its places: in use; places that waited for earlier items; waiting for
room; waiting for input; places that nothing was there for. The bottleneck is marked. Below it a bar for each input of a
merge, with a mark at its part by weight. The same report makes the same file.

It draws no keys of a `fair_by` (they are data), and of more than `MOST` stages those that were busiest.
"""

from __future__ import annotations

import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from ..._base.shown import cut, line_of
from .counts import InputReport, StageReport
from .plain import plain_inputs

if TYPE_CHECKING:
    from .report import Report

MOST: Final = 60
"""Stages, and inputs, that are drawn."""
_WIDEST: Final = 110
"""Characters of a line of the title."""
_UNDATED: Final = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
"""What is left out of files of these forms."""
_LONGEST: Final = 32
"""Characters of a name."""
_NO_MATPLOTLIB = """Report.plot: the package `matplotlib` is missing, which draws
Use `pip install "funcpipe-trio[plot]"`."""
_PARTS: Final[tuple[tuple[str, str, Callable[[StageReport], float]], ...]] = (
    ("in use", "#0072b2", lambda stage: stage.used),
    ("waits for earlier items", "#cc79a7", lambda stage: stage.stalled),
    ("waits for room", "#e69f00", lambda stage: stage.waited_room),
    ("waits for input", "#bfc7d1", lambda stage: stage.waited_input),
)
"""Texts, colours that also the colour-blind tell apart, and seconds; what is left of a bar are places without work."""


def plot(report: Report, path: str | PathLike[str], title: str) -> None:
    """Write the picture to a file; the ending of its name says in which form."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(_NO_MATPLOTLIB) from None
    stages = _busiest(report)
    named = zip(report.inputs, plain_inputs(report.inputs, None), strict=True)
    inputs = [(each, f"{each.merge} / {told['key']}") for each, told in named if each.kind == "merge"][:MOST]
    heights = [1.4 + 0.3 * len(stages)] + ([1.0 + 0.3 * len(inputs)] if inputs else [])
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    panels = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    _draw_stages(panels[0], stages, report)
    if inputs:
        _draw_inputs(panels[1], inputs)
    wrapped = [piece for line in title.splitlines() for piece in textwrap.wrap(line, _WIDEST)]
    figure.suptitle("\n".join(wrapped), x=0.01, ha="left", fontsize="medium", parse_math=False)
    with rc_context({"svg.hashsalt": "funcpipe_trio", "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name may have characters that the font does not have
        figure.savefig(path, metadata=_UNDATED.get(PurePath(path).suffix.lower()))


def _busiest(report: Report) -> list[StageReport]:
    """Return the stages to draw, upstream first."""
    stages = sorted(report.stages, key=lambda stage: (stage.name != report.bottleneck, -stage.busy))[:MOST]
    return [stage for stage in report.stages if stage in stages]


def _draw_stages(panel: Any, stages: Sequence[StageReport], report: Report) -> None:
    names = [f"{'▶ ' if stage.name == report.bottleneck else ''}{_short(stage.name)}" for stage in stages]
    wholes = [max(stage.offered, sum(seconds(stage) for *_, seconds in _PARTS)) or 1.0 for stage in stages]
    left = [0.0] * len(stages)
    for text, colour, seconds in _PARTS:
        widths = [100 * seconds(stage) / whole for stage, whole in zip(stages, wholes, strict=True)]
        panel.barh(range(len(stages)), widths, left=left, color=colour, label=text, height=0.7)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    _finish(panel, names, "% of the time of its places")
    for tick, stage in zip(panel.get_yticklabels(), stages, strict=True):
        if stage.name == report.bottleneck:
            tick.set(color="#b00020", fontweight="bold")
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(_PARTS), fontsize="small", frameon=False)
    if len(stages) < len(report.stages):
        more = f"and {len(report.stages) - len(stages)} stages that were less busy"
        panel.annotate(more, (1, 0), xycoords="axes fraction", ha="right", va="bottom", fontsize="small")


def _draw_inputs(panel: Any, inputs: Sequence[tuple[InputReport, str]]) -> None:
    weights: Counter[str] = Counter()
    for each, _ in inputs:
        weights[each.merge] += each.weight  # type: ignore[assignment]  # exact numbers add up exactly
    panel.barh(range(len(inputs)), [100 * each.share for each, _ in inputs], color="#0072b2", height=0.6, label="got")
    due = [100 * float(each.weight / weights[each.merge]) for each, _ in inputs]
    mark: dict[str, Any] = {"marker": "|", "s": 220, "linewidths": 2.5, "color": "#b00020", "zorder": 3}
    panel.scatter(due, range(len(inputs)), label="due by weight", **mark)
    for place, (each, _) in enumerate(inputs):
        if not each.contested:
            panel.annotate("weights decided nothing", (1, place), va="center", fontsize="small", color="#666666")
    _finish(panel, [_short(name) for _, name in inputs], "% of what was handed over while all had work")
    panel.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize="small", frameon=False)


def _finish(panel: Any, names: Sequence[str], unit: str) -> None:
    panel.set_yticks(range(len(names)), names)
    for tick in panel.get_yticklabels():
        tick.set_parse_math(False)
    panel.set(xlim=(0, 100), ylim=(len(names) - 0.5, -0.5), xlabel=unit)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(True, axis="x", alpha=0.3)


def _short(text: str) -> str:
    return cut(line_of(text), _LONGEST)
