"""How does the command ask what if? It simulates a recorded run under each of some settings, and compares.

The rule: the first row is the run as it was recorded, the second the same again in virtual time, which says how far the
rest can be trusted. Then comes a row for each combination of the values that were given. The picture has the same
numbers.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final, NamedTuple, TypeAlias

from .._base.frozen import dataclass
from .._base.shown import escaped
from .._plan.layout import places
from .._plan.nodes import plan_of
from .._plan.settings import with_settings
from .._recording.recording import Recording
from .._recording.simulation import simulate
from .._runtime.reports.report import Report
from ..pipeline import Pipeline
from .running import Refused

_Changes: TypeAlias = dict[str, dict[str, Any]]

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
    elapsed: float
    """Seconds."""
    rate: float
    """Items a second that the stage took; if no stage makes calls, that the sources gave."""
    p99: float | None
    """Seconds that 99 of 100 calls of the stage took at most; None if it is not known."""
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
    except ValueError:
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
      Refused: if there are too many combinations, or a value is not possible; nothing was simulated.
      ValueError: if the recording does not fit the plan.
    """
    count = math.prod(len(each.values) for each in settings)
    if count > MOST:
        raise Refused(f"--set: {count} combinations are too many; there may be {MOST}")
    choices = _choices(plan, settings)
    again = simulate(plan, recording, seed=seed, open_loop=open_loop)
    stage = _watched(again, [each.part for each in settings])
    rows = [_recorded(recording, again, stage), _row("as it was, simulated", again, stage)]
    for label, changes in choices:
        rows.append(_row(label, simulate(plan, recording, changes, seed=seed, open_loop=open_loop), stage))
    return rows


def _choices(pipeline: Pipeline[Any], settings: Sequence[Setting]) -> list[tuple[str, _Changes]]:
    """Return each combination of values, with its label; refuse what is not possible before anything is simulated."""
    plan = plan_of(pipeline)
    if not settings or plan is None:
        return []
    found = []
    for chosen in itertools.product(*[zip(each.values, each.texts, strict=True) for each in settings]):
        changes: _Changes = {}
        for setting, (value, _text) in zip(settings, chosen, strict=True):
            changes.setdefault(setting.part, {})[setting.name] = value
        try:
            with_settings(plan, changes, common=True)
        except (TypeError, ValueError) as error:
            raise Refused(f"--set: {error}") from None
        texts = [f"{each.part}.{each.name}={text}" for each, (_, text) in zip(settings, chosen, strict=True)]
        found.append((" ".join(texts), changes))
    return found


def _recorded(recording: Recording, again: Report, stage: str | None) -> Row:
    """Return the row of the recorded run, in which the stage took as many items as when that was simulated."""
    return Row("as recorded", recording.elapsed, _rate(again, stage, recording.elapsed), None, "")


def _row(label: str, report: Report, stage: str | None) -> Row:
    latency = next((each.latency for each in report.stages if each.name == stage), None)
    p99 = latency.p99 if latency is not None and latency.count else None
    return Row(label, report.elapsed, _rate(report, stage, report.elapsed), p99, report.bottleneck or "")


def _rate(report: Report, stage: str | None, elapsed: float) -> float:
    received = next((each.received for each in report.stages if each.name == stage), report.taken)
    return received / elapsed if elapsed else math.inf


def _watched(report: Report, parts: Sequence[str]) -> str | None:
    """Return the name of the stage that is told of: one that is set, or else the one whose calls take longest."""
    calling = {stage.name: stage.latency.p99 for stage in report.stages if stage.latency and stage.latency.count}
    chosen = {name: p99 for name, p99 in calling.items() if name in parts} or calling
    return max(chosen, key=lambda name: chosen[name], default=None)


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


def check_picture(path: str) -> None:
    """Check, before anything is simulated, that a picture of that name can be drawn.

    Raises:
      Refused: if the package that draws is missing, or does not know the format.
    """
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ImportError:
        raise Refused(_NO_MATPLOTLIB) from None
    if os.path.splitext(path)[1][1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise Refused(f"--plot: the file must have the name of a format, such as .svg, .png or .pdf, not {path!r}")


def plot(rows: Sequence[Row], settings: Sequence[Setting], path: str, title: str) -> None:
    """Draw throughput and p99 against the settings, into a file that `check_picture` has let through."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    drawn = rows[2:] or rows[1:]
    figure = Figure(figsize=(9, 5), layout="constrained")
    panels = figure.subplots(2, 1, sharex=True)
    places = range(len(drawn))
    _draw(panels[0], places, [row.rate for row in drawn], "items/s", "#0072b2")
    panels[0].axhline(rows[0].rate, color="#888888", linestyle="--", linewidth=1, label="as recorded")
    panels[0].legend(frameon=False, fontsize="small", loc="lower right")
    _draw(panels[1], places, [row.p99 or 0.0 for row in drawn], "p99 of calls, s", "#e69f00")
    _label(panels[1], places, [row.label for row in drawn], settings)
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium", parse_math=False)
    with rc_context({"svg.hashsalt": "funcpipe_trio", "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None} if path.lower().endswith(".svg") else None)


def _label(panel: Any, places: Sequence[int], labels: Sequence[str], settings: Sequence[Setting]) -> None:
    """Name the places: if only one setting changes, by its values."""
    if len(settings) == 1:
        (setting,) = settings
        panel.set_xticks(places, setting.texts)
        panel.set_xlabel(f"{setting.part}.{setting.name}", parse_math=False)
    else:
        slanted = {"rotation": 30, "ha": "right"} if len(labels) > 4 else {}
        panel.set_xticks(places, [label.replace(" ", "\n") for label in labels], **slanted)
    for tick in panel.get_xticklabels():
        tick.set_parse_math(False)


def _draw(panel: Any, places: Sequence[int], values: Sequence[float], unit: str, colour: str) -> None:
    panel.plot(places, values, marker="o", color=colour)
    panel.set_ylabel(unit)
    panel.set_ylim(0, 1.1 * max(values, default=0.0) or 1.0)
    panel.grid(True, axis="y", alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
