"""How does a picture look in a terminal of a given size? As lines of styled text, none too long, and not too many.

The rule: what cannot be shown for lack of room is chosen by interest, and its number is said. Columns that a narrow
terminal has no room for are left out. Colours are those of the terminal and only ever of the text, never behind it, and
nothing is said by a colour alone.

The invariant: at most `height` lines of at most `width` cells. No name can move the cursor or change a colour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from rich.cells import set_cell_size
from rich.text import Text

from .._base.frozen import dataclass
from .._base.shown import escaped
from . import words
from .picture import Picture, Row, ShareRow, StageRow, most_interesting, most_unequal

STATES: Final = {
    "running": "bold green",
    "paused": "bold yellow",
    "draining": "bold yellow",
    "completed": "bold green",
    "drained": "bold green",
}
"""Styles of states; those of the others are red."""
_LIMIT: Final = "bold red"
_FULL: Final = 0.8
"""A link that is as full as this holds up what is before it."""
_MOST_ERRORS: Final = 3


@dataclass(frozen=True, slots=True)
class Signs:
    """What bars and marks are made of."""

    full: str
    empty: str
    limit: str
    """Stands before what limits the run."""
    due: str
    """Where a share would end by weight."""
    dot: str
    more: str
    encoding: str
    """What names are written in; characters that it does not have are escaped."""

    def says(self, text: str) -> str:
        """Return a text as it can be shown."""
        return escaped(text).encode(self.encoding, "backslashreplace").decode(self.encoding)


FANCY: Final = Signs("█", "░", "▶", "│", "●", "…", "utf-8")
ASCII: Final = Signs("#", ".", ">", "|", "*", "...", "ascii")
"""For terminals that do not have the others."""

Cell = tuple[str, str]
"""A text and its style."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the table of stages."""

    title: str
    width: int
    """Cells; those of `_STRETCH` get what is left over."""
    at_least: int
    """Width of the terminal from which on it is shown."""
    cell: Callable[[Row, int, Signs], Cell]
    """Return what a row has in it, for a width."""
    is_text: bool = False
    """Whether it is aligned to the left."""


def draw(picture: Picture, width: int, height: int, signs: Signs = FANCY) -> list[Text]:
    """Return the lines of a picture."""
    lines = [*_head(picture, signs), *_errors(picture, signs)]
    room = height - len(lines)
    rows = picture.rows()
    shares = _room_for_shares(len(picture.shares), len(rows), room)
    lines += _stages(rows, width, room - shares, signs)
    if shares > 1:
        lines += _shares(picture.shares, width, shares, signs)
    for line in lines:
        line.truncate(width, overflow="ellipsis" if signs is FANCY else "crop")
    return lines[: max(0, height)]


def _room_for_shares(shares: int, rows: int, room: int) -> int:
    """Return how many lines shares get, with their title and a line before it: a third, or what stages leave."""
    if not shares:
        return 0
    return min(shares + 2, max(room // 3, room - rows - 2))


# ---- the head


def _head(picture: Picture, signs: Signs) -> Iterator[Text]:
    style = STATES.get(picture.state, "bold red")
    error = "" if picture.error is None else f": {signs.says(picture.error)}"
    first = Text.assemble((f"{signs.dot} {picture.state}{error}", style), f"  {words.seconds(picture.elapsed)}")
    first.append(f"  {words.rate(picture.rate)}/s", "bold").append(f"  {words.count(picture.in_flight)} in flight")
    if picture.limit is not None:
        waits = next((stage.waits_for for stage in picture.stages if stage.is_limit), None)
        first.append("  limited by ").append(f"{signs.says(picture.limit)}{words.cause_of(waits)}", _LIMIT)
    yield first
    counts = Text(f"{words.count(picture.taken)} taken, {words.count(picture.delivered)} delivered")
    for name in ("failed", "dropped", "discarded"):
        if number := getattr(picture, name):
            counts.append(", ").append(f"{words.count(number)} {name}", "" if name == "dropped" else "red")
    yield counts
    if picture.advice:
        yield Text(signs.says(picture.advice))


def _errors(picture: Picture, signs: Signs) -> Iterator[Text]:
    if picture.errors:
        most = sorted(picture.errors, key=lambda each: -each[2])
        said = [f"{words.count(number)} {signs.says(error)} in {signs.says(stage)}" for stage, error, number in most]
        more = f", {len(said) - _MOST_ERRORS} more" if len(said) > _MOST_ERRORS else ""
        yield Text(f"went on after {', '.join(said[:_MOST_ERRORS])}{more}", "red")


# ---- the stages


def _name(row: Row, _width: int, signs: Signs) -> Cell:
    stage, link = row
    if stage is None:
        return f"  {signs.says(link.behind if link is not None else '')}", "dim"
    return f"{signs.limit if stage.is_limit else ' '} {signs.says(stage.name)}", _LIMIT if stage.is_limit else ""


def _of_stage(
    get: Callable[[StageRow], str], style: Callable[[StageRow], str] = lambda _stage: ""
) -> Callable[..., Cell]:
    def cell(row: Row, _width: int, _signs: Signs) -> Cell:
        return ("", "") if row[0] is None else (get(row[0]), style(row[0]))

    return cell


def _fill(row: Row, width: int, signs: Signs) -> Cell:
    link = row[1]
    if link is None:
        return "", ""
    said = f"{words.count(link.held)}/{words.count(link.capacity)}"
    cells = width - max(_COUNTS, len(said)) - 1
    part = link.held / max(1, link.capacity)
    drawn = bar(part, cells, signs) if cells > 1 else ""
    return f"{drawn} {said}", "yellow" if part >= _FULL else ""


_COUNTS: Final = 5
"""Cells that the numbers of a link get beside its bar, so that bars are equally long."""


def bar(part: float, cells: int, signs: Signs, due: float | None = None) -> str:
    """Draw a part of a whole; only what is empty looks empty, and only what is full looks full."""
    part = min(1.0, max(0.0, part))
    full = round(part * cells)
    full = min(max(full, 1), cells - 1) if 0 < part < 1 < cells else full
    drawn = [signs.full] * full + [signs.empty] * (cells - full)
    if due is not None and cells:
        drawn[min(cells - 1, round(due * cells))] = signs.due
    return "".join(drawn)


def _waits_for(stage: StageRow) -> str:
    """Return what a stage waits for; the room behind it needs no name."""
    said = stage.waits_for or ""
    return "room" if said.startswith("room behind ") else escaped(said)


def _lost(row: Row, _width: int, _signs: Signs) -> Cell:
    stage, link = row
    number = (0 if stage is None else stage.dropped) + (0 if link is None else link.lost)
    return (words.count(number) if number else ""), ""


_COLUMNS: Final = (
    Column("stage", 15, 0, _name, is_text=True),
    Column("in/s", 6, 100, _of_stage(lambda stage: words.rate(stage.received))),
    Column("out/s", 6, 0, _of_stage(lambda stage: words.rate(stage.emitted))),
    Column("holds", 5, 60, _of_stage(lambda stage: words.count(stage.in_flight))),
    Column("of", 4, 140, _of_stage(lambda stage: words.count(stage.concurrency) if stage.concurrency else "")),
    Column("busy", 4, 50, _of_stage(lambda stage: words.part(stage.busy))),
    Column("p50", 6, 80, _of_stage(lambda stage: words.seconds(stage.p50))),
    Column("p99", 6, 72, _of_stage(lambda stage: words.seconds(stage.p99))),
    Column("oldest", 6, 110, _of_stage(lambda stage: words.seconds(stage.oldest) if stage.oldest else "")),
    Column(
        "failed",
        6,
        66,
        _of_stage(lambda stage: words.count(stage.failed) if stage.failed else "", lambda _stage: "red"),
    ),
    Column("retries", 7, 120, _of_stage(lambda stage: words.count(stage.retries) if stage.retries else "")),
    Column("lost", 5, 130, _lost),
    Column("waits for", 13, 80, _of_stage(_waits_for), is_text=True),
    Column("link", 10, 40, _fill, is_text=True),
)
_STRETCH: Final = {"stage": 0.45, "waits for": 0.2, "link": 0.35}
"""Columns that grow with the terminal, and which part of it they get."""
_WIDEST: Final = {"stage": 60, "waits for": 32, "link": 40}


def _stages(rows: Sequence[Row], width: int, room: int, signs: Signs) -> Iterator[Text]:
    columns = _columns(width)
    shown = list(rows) if len(rows) < room else most_interesting(rows, room - 2)
    yield _line([(each.title, "dim") for each in columns], columns)
    for row in shown:
        cells = [each.cell(row, each.width, signs) for each in columns]
        yield _line(cells, columns)
    if len(shown) < len(rows):
        yield Text(f"  {signs.more} {len(rows) - len(shown)} more, of less interest", "dim")


def _columns(width: int) -> list[Column]:
    """Return the columns for a terminal of that width, as wide as they are to be."""
    columns = [each for each in _COLUMNS if width >= each.at_least]
    left = width - sum(each.width + 1 for each in columns) + 1
    grown = {name: min(int(left * part), _WIDEST[name]) for name, part in _STRETCH.items()} if left > 0 else {}
    return [
        Column(each.title, each.width + grown.get(each.title, 0), each.at_least, each.cell, each.is_text)
        for each in columns
    ]


def _line(cells: Iterable[Cell], columns: Sequence[Column]) -> Text:
    line = Text()
    for (text, style), column in zip(cells, columns, strict=True):
        if line:
            line.append(" ")
        if column.is_text:
            line.append(set_cell_size(text, column.width), style)
        else:
            line.append(text.rjust(column.width), style)
    line.rstrip()
    return line


# ---- the shares

_WIDE: Final = 110
_WAITS: Final = " waiting longest wait"
"""Titles of the columns that a terminal as wide as that has room for."""


def _shares(shares: Sequence[ShareRow], width: int, room: int, signs: Signs) -> Iterator[Text]:
    shown = list(shares) if len(shares) <= room - 2 else most_unequal(shares, room - 3)
    name = max(20, width - 46) if width < 100 else 50
    has_waits = width >= _WIDE
    cells = max(4, min(40, width - name - 28 - (len(_WAITS) if has_waits else 0)))
    title = f"{set_cell_size('share of', name)} weight   due   got {' ' * cells}   out/s"
    yield Text("")
    yield Text(title + (_WAITS if has_waits else ""), "dim")
    for each in shown:
        called = set_cell_size(f"  {signs.says(each.merge)} / {signs.says(each.key)}", name)
        line = Text(f"{called} {words.count(each.weight) if each.weight >= 1 else words.rate(each.weight):>6} ")
        line.append(f"{words.part(each.due):>5} {words.part(each.got):>5} ")
        line.append(" " * cells if each.got is None else bar(each.got, cells, signs, each.due))
        line.append(f" {words.rate(each.rate):>7}")
        if has_waits:
            line.append(f" {words.count(each.backlog):>7} {words.seconds(each.longest):>12}")
        yield line
    if len(shown) < len(shares):
        yield Text(f"  {signs.more} {len(shares) - len(shown)} more, nearer to their due", "dim")
