"""What changed between two plans, in words, and what does that do to the bound?

The rule: parts are matched by their names in the plan and compared by their documents (`document`). A line says that a
part is new, gone or somewhere else, or that a setting, a policy or a function of it is another one, by the name under
which it can be set. The last line is the bound, with the stages that changed it.

The invariant: there is a line exactly if the documents differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from typing import Any

from .._base.frozen import dataclass
from .._base.shown import cut, line_of
from .document import Json

_VALUE = 200  # characters of a value
_ORDER = "order, inside out,"
_MOST_STAGES = 5  # in the line about the bound

_Key = tuple[str, int]
_Facts = dict[str, Json]


@dataclass(frozen=True, slots=True)
class _Part:
    """A source, an operation, a fan-in, a fan-out, an input or a branch: what is compared of it."""

    kind: str
    name: str
    line: str
    """Which line it stands in."""
    behind: str
    """What it stands behind in that line."""
    facts: _Facts
    held: Json
    """What it holds at most, if it is a stage."""

    @property
    def title(self) -> str:
        return self.name if self.kind in ("", self.name) else f"{self.kind} {self.name}"

    @property
    def place(self) -> str:
        return f"{self.behind}{self.line}"


def diff(old: dict[str, Json], new: dict[str, Json]) -> str:
    """Return what changed between two documents, a line for each change; empty if they are equal."""
    if old == new:
        return ""
    before, after = _parts_of(old), _parts_of(new)
    lines = [f"{part.title}: removed" for key, part in before.items() if key not in after]
    stayed = _stayed(before, after)
    for key, part in after.items():
        if key not in before:
            lines.append(f"{part.title}: added {part.place}{_told(part)}")
        else:
            lines += _changes(before[key], part, moved=key not in stayed)
    return "\n".join(map(line_of, [*lines, *_bound(old, new, before, after)]))


def is_document(value: dict[str, Json]) -> bool:
    """Return whether a value that was read from a file can be compared."""
    try:
        return "max_in_flight" in value and bool(_parts_of(value) or value["line"])
    except (KeyError, TypeError, AttributeError):
        return False


def _stayed(before: dict[_Key, _Part], after: dict[_Key, _Part]) -> set[_Key]:
    """Return the parts that are in the same line as before, and in the same order."""
    common = [key for key in before if key in after and before[key].line == after[key].line]
    again = [key for key in after if key in before and before[key].line == after[key].line]
    blocks = SequenceMatcher(None, common, again, autojunk=False).get_matching_blocks()
    return {key for block in blocks for key in common[block.a : block.a + block.size]}


def _told(part: _Part) -> str:
    told = [f"{path} {_shown(value)}" for path, value in part.facts.items() if _is_worth_telling(path, value)]
    return f" ({', '.join(told)})" if told else ""


def _is_worth_telling(path: str, value: Json) -> bool:
    return value is not None and not isinstance(value, bool) and "." not in path and path not in ("runs in", "overflow")


def _changes(old: _Part, new: _Part, *, moved: bool) -> Iterator[str]:
    if moved:
        yield f"{new.title}: moved, from {old.place} to {new.place}"
    if old.kind != new.kind:
        yield f"{new.name}: {old.kind} -> {new.kind}"
    labels = dict.fromkeys(path.partition(".")[0] for path in (*old.facts, *new.facts))
    for label in labels:
        before, after = _under(label, old.facts), _under(label, new.facts)
        if not before:
            yield f"{new.title}: {label} added: {_row(after, label)}"
        elif not after:
            yield f"{new.title}: {label} removed"
        else:
            for path in dict.fromkeys((*before, *after)):
                values = before.get(path), after.get(path)
                is_order = path.endswith(_ORDER) and None not in values
                if values[0] != values[1] and not (is_order and _is_told(values)):
                    yield f"{new.title}: {path} {_shown(values[0])} -> {_shown(values[1])}"


def _is_told(orders: tuple[Json, Json]) -> bool:
    """Whether the order of policies is another one only because some came or went, which has its own lines."""
    labels = [{each.partition(" ")[0] for each in order} for order in orders]
    stayed = [[each for each in order if each.partition(" ")[0] in labels[0] & labels[1]] for order in orders]
    return labels[0] != labels[1] and stayed[0] == stayed[1]


def _under(label: str, facts: _Facts) -> _Facts:
    return {path: value for path, value in facts.items() if path.partition(".")[0] == label}


def _row(facts: _Facts, label: str) -> str:
    return ", ".join(f"{path.removeprefix(label)[1:]} {_shown(value)}".strip() for path, value in facts.items())


def _shown(value: Json) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return cut(f"[{', '.join(map(_shown, value))}]", _VALUE)
    return cut(f"a {value['type']}" if isinstance(value, dict) else str(value), _VALUE)


def _bound(
    old: dict[str, Json], new: dict[str, Json], before: dict[_Key, _Part], after: dict[_Key, _Part]
) -> Iterator[str]:
    totals = [each["max_in_flight"] for each in (old, new)]
    if totals[0] == totals[1]:
        return
    stages = []
    for key in dict.fromkeys((*before, *after)):
        held = [parts[key].held if key in parts else 0 for parts in (before, after)]
        if held[0] != held[1]:
            stages.append(f"{(after.get(key) or before[key]).name} {_limit(held[0])} -> {_limit(held[1])}")
    more = [f"{len(stages) - _MOST_STAGES} more"] if len(stages) > _MOST_STAGES else []
    said = f" ({', '.join([*stages[:_MOST_STAGES], *more])})" if stages else ""
    yield f"items in flight: at most {_limit(totals[0])} -> {_limit(totals[1])}{said}"


def _limit(held: Json) -> str:
    return "any number" if held is None else str(held)


# ---- the parts of a document


def _parts_of(document: dict[str, Json]) -> dict[_Key, _Part]:
    """Return all parts by name; parts of the same name, which a user may have given, are numbered."""
    seen: Counter[str] = Counter()
    parts: dict[_Key, _Part] = {}
    for part in _line(document["line"], ""):
        seen[part.name] += 1
        parts[part.name, seen[part.name]] = part
    return parts


def _line(line: Json, where: str) -> Iterator[_Part]:
    yield from _origin(line["origin"], where)
    behind = line["origin"] and line["origin"].get("name")
    for stage in line["stages"]:
        own = {"runs in": "its own stage", **_link(stage["link"])}
        if not stage["operations"]:
            yield _Part("stage", stage["name"], where, _behind(behind), own, stage["max_in_flight"])
            behind = stage["name"]
        for number, operation in enumerate(stage["operations"]):
            kind = operation.get("operation") or f"source ({operation['source']})"
            facts = {**(own if number == 0 else {"runs in": "the stage before it"}), **_facts(operation)}
            held = stage["max_in_flight"] if number == 0 else 0
            yield _Part(kind, operation["name"], where, _behind(behind), facts, held)
            behind = operation["name"]


def _link(link: Json) -> _Facts:
    if not link:
        return {}
    said = {"capacity": link["capacity"], "overflow": link["overflow"], "link": link["name"]}
    return {**said, **{name: link[name] for name in ("merge", "max_cost", "cost") if name in link}}


def _behind(name: str | None) -> str:
    return "at the beginning" if name is None else f"behind {name}"


def _origin(origin: Json, where: str) -> Iterator[_Part]:
    if origin is None:
        return
    if "branch" in origin:
        name = f"{origin['fan_out']}.{origin['branch']}"
        yield _Part("branch", name, where, "at the beginning", _link(origin["link"]), origin["max_in_flight"])
        return
    kind, name = origin.get("fan_in") or origin["fan_out"], origin["name"]
    if "trunk" in origin:
        yield from _line(origin["trunk"], f" before {name}{where}")
    for each in origin.get("inputs", origin.get("branches")):
        noun = "input" if "fan_in" in origin else "branch"
        inside = f" in {noun} {each['key']} of {name}{where}"
        facts = {"weight": each["weight"]} if "weight" in each else {}
        yield _Part(noun, f"{each['key']} of {name}", where, "at the beginning", facts, 0)
        yield from _line(each["line"], inside)
    yield _Part(kind, name, where, "at the beginning", _facts(origin), 0)


def _facts(part: Json) -> _Facts:
    facts = {**part.get("settings", {}), **part.get("functions", {})}
    if "join" in part:
        facts["join"] = part["join"]
    if "once" in part:
        facts["once"] = part["once"]
    for path, step in part.get("steps", {}).items():
        label = "step" if path == "fn" else f"{path}.step"
        facts[label] = step["name"]
        facts[f"{label}.{_ORDER}"] = list(_skeleton(step["parts"]))
    return facts


def _skeleton(parts: Iterable[Any]) -> Iterator[str]:
    """Name the calls and policies of a step in the order in which they apply; with their numbers, if shared."""
    for part in parts:
        inside = part.get("around", part.get("parts", []))
        yield from _skeleton(inside)
        yield from _skeleton(part.get("instead", []))
        said: str = part.get("policy") or part.get("pure") or f"{part['call']} of {part['name']}"
        shared = part.get("shared") or part.get("started")
        instead = f" to step {part['name']}" if "instead" in part else ""
        yield f"{said}{instead}{'' if shared is None else f' (shared, number {shared})'}{_width(inside)}"


def _width(inside: list[Any]) -> str:
    return f" around {len(inside)}" if len(inside) > 1 else ""
