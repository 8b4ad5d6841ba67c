"""How does cost grow with stages, capacity, inputs or concurrency? One plot for each number that a benchmark varies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ._model import CaseResult

__all__ = ["draw"]

COLOURS = 10
"""How many lines have their own colour; the others are dashed."""


def draw(results: Sequence[CaseResult], folder: Path) -> list[Path]:
    """Write ``NAME-AXIS.svg`` for each number that has at least two values; needs matplotlib."""
    axes = dict.fromkeys((result.benchmark.name, axis) for result in results for axis in result.case.points)
    drawn = []
    for name, axis in axes:
        points = [result for result in results if result.benchmark.name == name and axis in result.case.points]
        if len(points) > 1:
            drawn.append(folder / f"{name}-{axis.replace(' ', '-')}.svg")
            _draw(sorted(points, key=lambda result: result.case.points[axis]), axis, drawn[-1])
    return drawn


def _draw(points: Sequence[CaseResult], axis: str, file: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    benchmark = points[0].benchmark
    figure = Figure(figsize=(9, 4.5), layout="constrained")
    plot = figure.subplots()
    for number, name in enumerate(dict.fromkeys(each.name for result in points for each in result.contenders)):
        measured = [result for result in points if name in {each.name for each in result.contenders}]
        spreads = [result.spread(name) for result in measured]
        medians = [each.median for each in spreads]
        ends = [[each.median - each.low for each in spreads], [each.high - each.median for each in spreads]]
        plot.errorbar(
            [result.case.points[axis] for result in measured],
            medians,
            yerr=ends,
            label=name,
            marker="o",
            linestyle="-" if number < COLOURS else "--",
            linewidth=2.5 if name.lower().startswith(("funcpipe", "fair")) else 1.0,
        )
    plot.set(xscale="log", yscale="log", xlabel=axis, ylabel=benchmark.unit)
    plot.set_title(benchmark.question, fontsize="medium")
    ticks = sorted({result.case.points[axis] for result in points})
    plot.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    plot.minorticks_off()
    plot.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plot.yaxis.set_major_formatter("{x:g}")
    plot.grid(True, axis="y", alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="small")
    # The same results make the same file; text stays text, which is much smaller than outlines.
    with rc_context({"svg.hashsalt": benchmark.name, "svg.fonttype": "none"}):
        figure.savefig(file, metadata={"Date": None})
