"""What does a plan say, as plain values that JSON can hold?

The rule: all of it, by the names under which it can be set (`settings`); a function as ``module:qualname``, any other
value of the user's by its type alone, a number without a limit as null, a fraction as ``"3/2"``. Equal plans have equal
documents: 8.0 and 8 are the same number, and weights are in the order of their keys.

The invariant: nothing of the user's is called, and no item, address or repr is in it. Its form has a number, `SCHEMA`:
a later version of the package may add keys to the same form, and gives anything else a new number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Hashable, Mapping
from enum import Enum
from fractions import Fraction
from functools import partial
from typing import Any, TypeAlias

from .._base.functions import AnyFunction
from .._base.shown import label
from ..policies.adaptive import Adaptive
from ..policies.on_error import OnError
from ..policies.on_full import OnFull
from .bound import bounds
from .check import describable
from .layout import BranchLayout, FanInLayout, FanOutLayout, SegmentLayout, StageLayout, lay_out
from .nodes import Plan, Source
from .operations import Opaque, Operation
from .settings import Kind, Labels, is_ours, steps_in, visit, word
from .steps import Call, Fallback, Group, Layer, Limit, Part, Places, Pure, StepPlan, step_of

SCHEMA = 1

Json: TypeAlias = Any
"""None, bool, int, float, str, and lists and dicts of these."""


def document(plan: Plan) -> dict[str, Json]:
    """Return the document of a plan; raise its `PlanError` if it cannot work."""
    describable(plan)
    line = lay_out(plan)
    writing = _Writing(bounds(line))
    return {"schema": SCHEMA, "max_in_flight": writing.bound(line), "line": writing.line(line)}


def as_text(document: dict[str, Json]) -> str:
    """Return a document as JSON, in ASCII, with a line for each value."""
    return json.dumps(document, indent=2)


# ---- values


def plain(value: Any) -> Json:
    """Return a value as JSON holds it: a setting, or, of anything else, its type."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):
        return _whole(int(value)) if value.is_integer() else value if math.isfinite(value) else None
    if isinstance(value, int):
        return _whole(int(value))
    if isinstance(value, Fraction):
        shown = (_whole(value.numerator), _whole(value.denominator))
        return shown[0] if value.denominator == 1 else f"{shown[0]}/{shown[1]}"
    if isinstance(value, Mapping):  # weights by key
        pairs = [[key_of(key), plain(weight)] for key, weight in value.items()]
        return sorted(pairs, key=json.dumps)
    if isinstance(value, Group):
        return [[key_of(name), plain(weight)] for name, weight in value.levels]
    if isinstance(value, OnError | Adaptive):
        return type(value).__name__.lower()
    return {"type": path_of(type(value))}


def _whole(value: int) -> int | str:
    """Return an int; as text, in hex, if it has more digits than Python writes."""
    return value if value.bit_length() <= 1024 else hex(value)


def key_of(key: Hashable) -> Json:
    """Return a key of the user's: itself if JSON has such values, otherwise as a plan shows it."""
    if key is None or isinstance(key, bool) or (isinstance(key, int | str) and not isinstance(key, Enum)):
        return plain(key)
    return label(key)


def code(value: Any) -> Json:
    """Return a function, or the types of errors, by where they are from; anything else by its type."""
    if value is None or isinstance(value, tuple):
        return value if value is None else [code(each) for each in value]
    if isinstance(value, Opaque):
        return {"type": path_of(type(value.value))}
    step = step_of(value)
    if step is not None or isinstance(value, StepPlan):
        return f"step {(step or value).name}"
    if is_ours(value):  # a runner
        return type(value).__name__
    return path_of(value) if callable(value) else {"type": path_of(type(value))}


def path_of(fn: AnyFunction) -> str:
    """Return ``module:qualname`` of a function or type; of an object that is called, that of its type."""
    if isinstance(fn, partial):
        return f"partial of {path_of(fn.func)}"
    name = fn.__qualname__ if isinstance(fn, type) else getattr(fn, "__qualname__", None)
    if not isinstance(name, str):
        own = getattr(fn, "__name__", None)
        return f"{path_of(type(fn))} object" + (f" {own}" if isinstance(own, str) else "")
    module = getattr(fn, "__module__", None)
    if not isinstance(module, str):  # a method of a built-in type
        owner: Any = getattr(fn, "__objclass__", None) or type(getattr(fn, "__self__", None))
        module = owner.__module__
    return f"{module}:{name}"


# ---- parts


class _Writing:
    """Writes one document."""

    def __init__(self, held: dict[int, int | float]) -> None:
        self._held = held
        self._shared: dict[int, int] = {}  # number of each limiter and started step, by its identity

    def bound(self, part: object) -> Json:
        return plain(self._held[id(part)])

    def line(self, line: SegmentLayout) -> dict[str, Json]:
        return {
            "origin": self._origin(line.origin),
            "stages": [self._stage(stage) for stage in line.stages],
            "max_in_flight": self.bound(line),
        }

    def _origin(self, origin: FanInLayout | FanOutLayout | BranchLayout | None) -> Json:
        if isinstance(origin, FanInLayout):
            return self._fan_in(origin)
        if isinstance(origin, FanOutLayout):
            trunk = self.line(origin.trunk)
            branches = [{"key": plain(key), "line": self.line(line)} for key, line in origin.branches]
            said = {"fan_out": origin.kind, "name": plain(origin.name), "join": origin.joined_by}
            return {**said, "max_in_flight": self.bound(origin), "trunk": trunk, "branches": branches}
        if isinstance(origin, BranchLayout):
            said = {"branch": plain(origin.key), "fan_out": plain(origin.fan_out), "max_in_flight": self.bound(origin)}
            return {**said, "link": _link(origin)}
        return None

    def _fan_in(self, origin: FanInLayout) -> Json:
        leaves = _leaves(origin)
        leaves["settings"].pop("weights", None)  # they are those of the inputs
        said = {"fan_in": origin.kind, "name": plain(origin.name), "max_in_flight": self.bound(origin), **leaves}
        inputs = []
        for key, line in origin.inputs:
            weight = origin.share.weight_of(key) if origin.share is not None else 1
            inputs.append({"key": key_of(key), "weight": plain(weight), "line": self.line(line)})
        return {**said, "inputs": inputs}

    def _stage(self, stage: StageLayout) -> dict[str, Json]:
        parts = [part for part in (stage.head, *stage.fused) if part is not None]
        return {
            "name": plain(stage.name),
            "concurrency": stage.concurrency,
            "max_in_flight": self.bound(stage),
            "operations": [self._operation(part) for part in parts],
            "link": _link(stage) if stage.has_link and stage.fair_by is None else None,
        }

    def _operation(self, part: Source | Operation) -> dict[str, Json]:
        if isinstance(part, Source):
            said: dict[str, Json] = {"source": part.kind, "name": plain(part.name), "once": part.claim is not None}
            return {**said, **_leaves(part)}
        steps = {path: self._step(step) for path, step in steps_in(part)}
        return {"operation": part.method.partition(".")[2], "name": plain(part.name), **_leaves(part), "steps": steps}

    def _step(self, step: Any) -> dict[str, Json]:
        plan: StepPlan = step.plan
        is_started = not hasattr(type(step), "from_plan")
        shared = self._number(step) if is_started else None
        return {"name": plain(plan.name), "started": shared, "parts": self._parts(plan.parts, Labels())}

    def _parts(self, parts: tuple[Part, ...], labels: Labels) -> list[Json]:
        written: list[Json] = []
        for part in parts:
            if isinstance(part, Call):
                inner = step_of(part.fn)
                around = [] if inner is None else self._parts(inner.parts, labels)
                shared = None if inner is None else self._number(part.fn)
                written.append({"call": labels.next("call"), "name": plain(part.name), "started": shared})
                written[-1] |= {"parts": around} if around else {}
            elif isinstance(part, Pure):
                written.append({"pure": labels.next("pure")})
            else:
                around = self._parts(part.inner, labels)
                limiter = part.layer.limiter if isinstance(part.layer, Limit | Places) else None
                shared = None if limiter is None else self._number(limiter)
                instead = self._fallback(part.layer, labels)
                written.append({"policy": labels.next(word(part.layer)), "shared": shared, "around": around})
                written[-1] |= instead
        return written

    def _fallback(self, layer: Layer, labels: Labels) -> dict[str, Json]:
        if not isinstance(layer, Fallback):
            return {}
        return {"name": plain(layer.step.name), "instead": self._parts(layer.step.parts, labels)}

    def _number(self, shared: object) -> int:
        return self._shared.setdefault(id(shared), len(self._shared) + 1)


def _link(filled: StageLayout | BranchLayout) -> dict[str, Json]:
    said: dict[str, Json] = {"capacity": plain(filled.capacity), "overflow": "merge", "name": plain(filled.link_name)}
    overflow, by_cost = filled.overflow, filled.by_cost if isinstance(filled, StageLayout) else None
    if by_cost is not None:
        said |= {"max_cost": plain(by_cost.max_cost), "cost": code(by_cost.cost)}
    return {**said, "merge": code(overflow.fn)} if isinstance(overflow, OnFull) else {**said, "overflow": overflow}


def _leaves(part: Source | Operation | FanInLayout) -> dict[str, dict[str, Json]]:
    """Return the settings and the functions of a part, by their paths."""
    settings: dict[str, Json] = {}
    functions: dict[str, Json] = {}

    def write(path: str, value: Any, kind: Kind) -> Any:
        if kind in ("setting", "common", "fixed"):
            settings[path] = plain(value)
        elif path == "origin" and callable(value.value):
            functions[path] = code(value.value)
        elif kind == "code":
            functions[path] = code(value)
        return value

    visit(part, write)
    return {"settings": settings, "functions": functions}
