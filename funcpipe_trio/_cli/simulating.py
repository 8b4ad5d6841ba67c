"""How does the command ask what if? It simulates a recorded run under each of some settings, and compares.

The rule: the first row is the run as it was recorded, the second the same again in virtual time, which says how far the
rest can be trusted. Then comes a row for each combination of the values that were given. The picture has the same
numbers.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final, NamedTuple

from .._base.frozen import dataclass
from .._base.shown import escaped
from .._plan.layout import places
from .._plan.nodes import plan_of
from .._recording.recording import Recording
from .._recording.simulation import simulate
from .._runtime.reports.counts import StageReport
from .._runtime.reports.report import Report
from ..pipeline import Pipeline
from .running import Refused

MOST: Final = 64
"""The most combinations of values."""
_NO_MATPLOTLIB = """--plot: the package `matplotlib` is missing, which draws
Use `pip install "funcpipe-trio[plot]"`."""


class Setting(NamedTuple):
    """One setting, and the values that it is to have."""

    part: str
    """The name of the part of the plan."""
    name: str
    """That of the setting."""
    values: tuple[Any, ...]
    """Its values, in the order in which they were given."""
    texts: tuple[str, ...]
    """The same as they were written."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    label: str
    """The settings."""
    report: Report | None
    """What the simulation said; None for the run as it was recorded."""
    elapsed: float
    """Seconds."""
    rate: float
    """Items a second that the sources gave."""
    p99: float | None
    """Seconds that 99 of 100 calls of the stage took at most; None if there is no such stage."""
    bottleneck: str
    """What limited it; empty if nothing did, or it is not known."""


def parsed(text: str) -> Setting:
    """Return the setting of one ``--set``: ``PART.NAME=VALUE,VALUE``.

    The name of a part may have dots itself, so the plan decides where it ends; see `placed`.

    Raises:
      Refused: if it is not of that form.
    """
    name, equals, given = text.partition("=")
    if not (equals and "." in name.strip(".") and given):
        raise Refused(f"--set must be PART.SETTING=VALUE[,VALUE ...], such as embed.concurrency=4,8, not {text!r}")
    texts = [given] if given[0] in "{[" else given.split(",")
    part, _, path = name.partition(".")
    return Setting(part, path, tuple(map(_value, texts)), tuple(texts))


def _value(text: str) -> Any:
    """Return a value as JSON has it, or a fraction such as 3/2; anything else is text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    try:
        return Fraction(text) if "/" in text else text
    except (ValueError, ZeroDivisionError):
        return text


def placed(setting: Setting, pipeline: Pipeline[Any]) -> Setting:
    """Return the setting with the longest name of a part that fits, because such a name may have dots."""
    plan = plan_of(pipeline)
    parts = [] if plan is None else places(plan)
    whole = f"{setting.part}.{setting.name}"
    fitting = [part for part in parts if whole.startswith(f"{part}.")]
    if not fitting:
        return setting
    part = max(fitting, key=len)
    return setting._replace(part=part, name=whole[len(part) + 1 :])


def compared(
    plan: Pipeline[Any], recording: Recording, settings: Sequence[Setting], seed: int, open_loop: Sequence[str]
) -> list[Row]:
    """Simulate a recorded run under each combination of settings; return the rows of the table.

    Raises:
      PlanError: if a setting is not possible.
      Refused: if there are too many combinations, or a value is of a wrong type.
      ValueError: if the recording does not fit the plan, or a value is out of range.
    """
    combinations = _combined(settings) if settings else []
    for _label, changes in combinations:  # all of them before the first simulation, which may take long
        try:
            plan.with_settings(changes)
        except TypeError as error:
            raise Refused(f"--set: {error}") from None
    again = simulate(plan, recording, seed=seed, open_loop=open_loop)
    rows = [_recorded(recording), _row("as it was, simulated", again, settings)]
    for label, changes in combinations:
        rows.append(_row(label, simulate(plan, recording, changes, seed=seed, open_loop=open_loop), settings))
    return rows


def _combined(settings: Sequence[Setting]) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    """Return all combinations of the values: how each is called, and what it changes."""
    names = [f"{each.part}.{each.name}" for each in settings]
    for name in names:
        if names.count(name) > 1:
            raise Refused(f"--set {name} is given twice\nWrite all its values in one, as in {name}=1,2")
    count = math.prod(len(each.values) for each in settings)
    if count > MOST:
        raise Refused(f"--set: {count} combinations are too many; there may be {MOST}")
    combinations = []
    for chosen in itertools.product(*[zip(each.values, each.texts, strict=True) for each in settings]):
        changes: dict[str, dict[str, Any]] = {}
        for setting, (value, _text) in zip(settings, chosen, strict=True):
            changes.setdefault(setting.part, {})[setting.name] = value
        label = " ".join(f"{name}={text}" for name, (_value, text) in zip(names, chosen, strict=True))
        combinations.append((label, changes))
    return combinations


def _recorded(recording: Recording) -> Row:
    rate = recording.taken / recording.elapsed if recording.elapsed else math.inf
    return Row("as recorded", None, recording.elapsed, rate, None, "")


def _row(label: str, report: Report, settings: Sequence[Setting]) -> Row:
    stage = _watched(report, [each.part for each in settings])
    p99 = stage.latency.p99 if stage is not None and stage.latency is not None else None
    rate = report.taken / report.elapsed if report.elapsed else math.inf
    return Row(label, report, report.elapsed, rate, p99, report.bottleneck or "")


def _watched(report: Report, parts: Sequence[str]) -> StageReport | None:
    """Return the stage whose calls are told of: one that is set, or else the one whose calls take longest."""
    calling = [stage for stage in report.stages if stage.latency is not None and stage.latency.count]
    chosen = [stage for stage in calling if stage.name in parts]
    return max(chosen or calling, key=lambda stage: stage.latency.p99 if stage.latency else 0.0, default=None)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text."""
    lines = [("settings", "elapsed", "items/s", "p99 of calls", "limited by")]
    for row in rows:
        p99 = "" if row.p99 is None else f"{row.p99:.3f} s"
        lines.append((escaped(row.label), f"{row.elapsed:.3f} s", f"{row.rate:.2f}", p99, escaped(row.bottleneck)))
    widths = [max(len(line[column]) for line in lines) for column in range(5)]
    shown = []
    for line in lines:
        cells = [text.rjust(width) for text, width in zip(line, widths, strict=True)]
        cells[0], cells[-1] = line[0].ljust(widths[0]), line[-1]
        shown.append("  ".join(cells).rstrip())
    return "\n".join(shown)


def plot(rows: Sequence[Row], path: str, title: str) -> None:
    """Draw throughput and p99 of each simulated row.

    Raises:
      Refused: if the package that draws is missing, or the file cannot be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise Refused(_NO_MATPLOTLIB) from None
    drawn = rows[1:]
    figure = Figure(figsize=(9, 5), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    places = range(len(drawn))
    _draw(panels[0], places, [row.rate for row in drawn], "items/s", "#0072b2")
    panels[0].axhline(rows[0].rate, color="#888888", linestyle="--", linewidth=1, label="as recorded")
    panels[0].legend(frameon=False, fontsize="small")
    _draw(panels[1], places, [row.p99 or 0.0 for row in drawn], "p99 of calls, s", "#e69f00")
    labels = [drawn[0].label, *[row.label.replace(" ", "\n") for row in drawn[1:]]]  # a line for each setting
    slanted = {"rotation": 30, "ha": "right"} if len(drawn) > 6 else {}
    panels[1].set_xticks(places, labels, **slanted)
    for tick in panels[1].get_xticklabels():
        tick.set_parse_math(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", parse_math=False)
    try:
        with rc_context({"svg.hashsalt": "funcpipe_trio", "svg.fonttype": "none"}):
            figure.savefig(path, metadata={"Date": None} if path.lower().endswith(".svg") else None)
    except (OSError, ValueError) as error:
        raise Refused(f"--plot: {error}") from None


def _draw(panel: Any, places: Sequence[int], values: Sequence[float], unit: str, colour: str) -> None:
    panel.plot(places, values, marker="o", color=colour)
    panel.set_ylabel(unit)
    panel.set_ylim(bottom=0)
    panel.grid(True, axis="y", alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
