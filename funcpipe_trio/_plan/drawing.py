"""How is a plan drawn? As boxes and arrows, in the languages of Mermaid and of Graphviz.

The rule: a box for each stage, with its fused operations and policies, one for each fan-in and fan-out, and one for the
consumer; an arrow for each link, with its capacity. A queue for each key (`fair_by`) is a box. The texts are those of
the description.

The invariant: a box is called by its number, and every character of a text that means something to the language is
written as its code, so no name can be anything but text.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import field
from typing import Literal

from .._base.frozen import dataclass
from .._base.shown import label, line_of
from .describe import bound_text, join_of, kind_of, link_text, route_of, rule_of, stage_texts
from .layout import BranchLayout, FanInLayout, FanOutLayout, SegmentLayout, StageLayout

Shape = Literal["stage", "source", "junction", "end"]

_WIDEST = 80  # characters of a line in a box


@dataclass(frozen=True, slots=True)
class Box:
    """One part of a plan."""

    shape: Shape
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Arrow:
    """Where items go: between two boxes, by number."""

    tail: int
    head: int
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawing:
    """All of a plan; the number of a box is its place."""

    boxes: list[Box] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)


def draw(line: SegmentLayout) -> Drawing:
    """Return the drawing of a laid out plan."""
    drawing = Drawing()
    drawer = _Drawer(drawing)
    end = drawer.line(line)
    drawer.join(end, drawer.box("end", "consumer", f"items in flight: {bound_text(line)}"))
    return drawing


@dataclass(frozen=True, slots=True)
class _End:
    """Where a line ends: at a box, and what its link says."""

    box: int
    link: tuple[str, ...] = ()


class _Drawer:
    """Adds the parts of one plan to a drawing."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing
        self._fan_outs: dict[str, int] = {}  # the box of each, by name
        self._loops: dict[str, int] = {}  # likewise, where each begins

    def box(self, shape: Shape, *lines: str) -> int:
        shown = [piece for line in lines for piece in _wrapped(line_of(line))]
        self._drawing.boxes.append(Box(shape, tuple(shown)))
        return len(self._drawing.boxes) - 1

    def join(self, end: _End | None, box: int, *lines: str) -> None:
        if end is not None:
            shown = [piece for line in (*lines, *end.link) for piece in _wrapped(line_of(line))]
            self._drawing.arrows.append(Arrow(end.box, box, tuple(shown)))

    def line(self, line: SegmentLayout) -> _End | None:
        end = self._origin(line.origin)
        for stage in line.stages:
            operations, details = stage_texts(stage)
            shape: Shape = "source" if kind_of(stage) == "source" else "stage"
            title = f"{kind_of(stage)} {stage.name}"
            box = self.box(shape, title, *(operations or ["pass on"]), *(f"- {each.strip()}" for each in details))
            self.join(end, box)
            if stage.again is not None:
                self.join(_End(box), self._loops[stage.again.loop], "again")
            end = self._behind(stage, box)
        return end

    def _behind(self, stage: StageLayout, box: int) -> _End:
        if stage.fair_by is None:
            return _End(box, (link_text(stage),) if stage.has_link else ())
        queues = self.box(
            "junction", stage.fair_by.describe(), *(f"- {each.strip()}" for each in stage.fair_by.details())
        )
        self.join(_End(box), queues)
        return _End(queues)

    def _origin(self, origin: FanInLayout | FanOutLayout | BranchLayout | None) -> _End | None:
        if isinstance(origin, FanInLayout):
            ends = [(_share(origin, key), self.line(line)) for key, line in origin.inputs]
            end = self._junction(ends, origin.name, rule_of(origin))
            if origin.kind == "loop":
                self._loops[origin.name] = end.box
            return end
        if isinstance(origin, FanOutLayout):
            trunk = self.line(origin.trunk)
            self._fan_outs[origin.name] = self.box("junction", origin.name, route_of(origin))
            self.join(trunk, self._fan_outs[origin.name])
            branches = [("", self.line(line)) for _key, line in origin.branches]
            return self._junction(branches, origin.join, join_of(origin))
        if isinstance(origin, BranchLayout):
            return _End(self._fan_outs[origin.fan_out], (f"branch {label(origin.key)}", link_text(origin)))
        return None

    def _junction(self, ends: list[tuple[str, _End | None]], *lines: str) -> _End:
        box = self.box("junction", *lines)
        for share, end in ends:
            self.join(end, box, *([share] if share else []))
        return _End(box)


def _share(fan_in: FanInLayout, key: Hashable) -> str:
    share = fan_in.share if fan_in.kind == "fair_merge" else None
    return f"input {label(key)}" + ("" if share is None else f", weight {share.weight_of(key)}")


def _wrapped(line: str) -> list[str]:
    """Break a long line between words, or anywhere if there are none."""
    pieces = [""]
    for each in line.split(" "):
        if pieces[-1] and len(pieces[-1]) + len(each) >= _WIDEST:
            pieces.append("")
        pieces[-1] += f" {each}" if pieces[-1] else each
    return [piece[start : start + _WIDEST] for piece in pieces for start in range(0, len(piece), _WIDEST)]


# ---- Mermaid

_MERMAID: dict[Shape, tuple[str, str]] = {
    "stage": ("[", "]"),
    "source": ("([", "])"),
    "junction": ("{{", "}}"),
    "end": ("([", "])"),
}


_READ_AGAIN = re.compile(r"\\(?=n)|\$(?=\$)|:(?=fa-)")
"""What Mermaid still reads after all codes are characters again: a line break, a formula, an icon."""
_NO_WIDTH = "\u200b"  # a space that is not seen and keeps the two characters apart


def mermaid(line: SegmentLayout) -> str:
    """Return the plan as a flowchart of Mermaid, which GitHub and many editors draw."""
    drawing = draw(line)
    written = ["flowchart TD"]
    for number, box in enumerate(drawing.boxes):
        left, right = _MERMAID[box.shape]
        written.append(f'    n{number}{left}"{_mermaid(box.lines)}"{right}')
    for arrow in drawing.arrows:
        said = f'|"{_mermaid(arrow.lines)}"|' if arrow.lines else ""
        written.append(f"    n{arrow.tail} -->{said} n{arrow.head}")
    return "\n".join(written)


def _mermaid(lines: tuple[str, ...]) -> str:
    return "<br>".join("".join(map(_mermaid_character, _READ_AGAIN.sub(rf"\g<0>{_NO_WIDTH}", line))) for line in lines)


def _mermaid_character(character: str) -> str:
    """Write a character so that it is only that: Mermaid reads names as Markdown, HTML and directives."""
    return character if character.isalnum() or character in " ," else f"#{ord(character)};"


# ---- Graphviz

_DOT: dict[Shape, str] = {
    "stage": "box",
    "source": "box, style=rounded",
    "junction": "box, style=dashed",  # no task of its own
    "end": "box, style=rounded",
}
_DOT_CODES = {"\\": "\\\\", '"': '\\"', "&": "&amp;"}


def dot(line: SegmentLayout) -> str:
    """Return the plan in the language of Graphviz."""
    drawing = draw(line)
    written = ["digraph pipeline {", '    node [fontname="sans-serif"];', '    edge [fontname="sans-serif"];']
    for number, box in enumerate(drawing.boxes):
        written.append(f"    n{number} [shape={_DOT[box.shape]}, label={_dot(box.lines)}];")
    for arrow in drawing.arrows:
        said = f" [label={_dot(arrow.lines)}]" if arrow.lines else ""
        written.append(f"    n{arrow.tail} -> n{arrow.head}{said};")
    return "\n".join([*written, "}"])


def _dot(lines: tuple[str, ...]) -> str:
    shown = "\\n".join("".join(_DOT_CODES.get(each, each) for each in line) for line in lines)
    return f'"{shown}"'
