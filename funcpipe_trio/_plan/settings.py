"""What can be set in a plan, and by which name? And: what is a plan with other settings, or other functions?

The rule: the leaves of a part (a source, an operation, a fan-in) are its fields, and those of the policies in it, by
their path: ``concurrency``, ``retry.attempts``, ``retry.backoff.initial``. The policies of a step have the names of its
methods, numbered from the inside out if there are several of a kind: ``timeout``, ``timeout#2``. `visit` is the only
walk over the leaves of a part, and `rebuilt` over the parts of a plan: the document of a plan reads the leaves, a
change replaces some.

The invariant: parts are made again by their own classes, so each change is checked like anything that a user writes.
Nothing of the user's is called.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from .._base import checks
from .._base.errors import PlanError
from .._base.shown import listed, named
from ..policies.adaptive import Adaptive
from ..policies.fair_share import FairShare
from ..policies.on_error import Divert, OnError
from ..policies.on_full import OnFull
from .failures import MapSome
from .layout import FanInLayout, places
from .nodes import FanIn, FanOut, Plan, Source
from .operations import Batch, Buffer, Map, Opaque, Operation
from .own import WithState
from .steps import Call, Fallback, Layer, Limit, Part, Places, Pure, StepPlan, Timeout, Within, step_of

Kind = Literal["setting", "common", "fixed", "code", "call", "shared"]
"""What a leaf is. A setting can be changed; a common one is that of a limiter that is shared with others, a fixed one
is in a started step, which is. Code is a function or an item of the user's; a call is a `Call` in a step that is not
shared. What is shared is a started step, or a `Limit` or `Places` with the limiter that it shares."""

P = TypeVar("P", bound="Source | Operation | FanIn | FanInLayout | FanOut")
PlanPart: TypeAlias = Source | Operation | FanIn
"""What has leaves of its own in a plan."""

_CODE = {"fn", "make", "open", "key", "cost", "on", "retry_after", "broken", "executor", "runner", "step"}
_STRUCTURE = {"name", "acts_at_times", "kind", "loop", "claim", "inputs", "branches", "trunk", "route"}
_ARGUMENTS = {"count": "n", "size": "n"}
"""Fields whose argument has another name: that of the method counts."""


_WORDS = {
    "Timeout": "timeout",
    "Limit": "rate_limit",
    "Places": "places",
    "Retry": "retry",
    "CircuitBreaker": "circuit_breaker",
    "Fallback": "fallback",
    "Hedge": "hedge",
    "Coalesce": "coalesce",
}
"""The methods of a step that make its policies."""
_REPLACEABLE = OnError | OnFull | Adaptive
"""Policies that can be set as a whole as well, by a value of another type too."""
_OF_KIND: dict[str, set[str]] = {
    "fair_merge": {"share", "on_error"},
    "merge": {"on_error"},
    "zip": {"strict"},
    "merge_sorted": {"key", "reverse"},
    "prefer": {"at_least"},
}
"""Fields that mean something only for that kind of fan-in."""


class Visitor(Protocol):
    """What happens to each leaf."""

    def __call__(self, path: str, value: Any, kind: Kind, /) -> Any:
        """Return the value to have in its place."""


class Labels:
    """Numbers policies of a kind in one part: ``timeout``, ``timeout#2``; inside out, in the order of the calls."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()

    def next(self, word: str) -> str:
        """Return the next label for a word."""
        self._seen[word] += 1
        return word if self._seen[word] == 1 else f"{word}#{self._seen[word]}"


def visit(part: P, visitor: Visitor) -> P:
    """Pass every leaf of a part to the visitor; return the part with what it returns."""
    visited: P = _Visit(visitor).fields(part, "", _hidden(part))
    return visited


def word(layer: Layer) -> str:
    """Return the name of a policy of a step: that of the method that makes it."""
    return _WORDS[type(layer).__name__]


def _hidden(part: Source | Operation | FanIn | FanInLayout | FanOut) -> set[str]:
    """Return the fields that mean nothing for this kind of part."""
    if isinstance(part, Source):
        return set() if part.kind == "ticks" else {"period"}
    if isinstance(part, Buffer):
        return {"max_cost", "cost"} if part.max_cost is None else set()
    if isinstance(part, Batch | WithState) and part.key is None:
        return {"key", "max_keys", "full"}
    if isinstance(part, Map):
        of_keys = {"per_key", "key_rate", "waiting"} if part.key is None else set()
        of_steps = set() if step_of(part.fn) is not None or part.retries_elsewhere else {"retries_elsewhere"}
        return of_keys | of_steps | ({"latest"} if isinstance(part, MapSome) else set())
    if isinstance(part, FanIn | FanInLayout):
        return set().union(*_OF_KIND.values()) - _OF_KIND.get(part.kind, set())
    return set()


class _Visit:
    """One walk over one part."""

    def __init__(self, visitor: Visitor) -> None:
        self._visitor = visitor
        self._labels = Labels()
        self._is_fixed = False  # whether what is being visited is in a started step
        self._is_common = False  # whether it is a limiter's that is shared

    def fields(self, value: Any, prefix: str, hidden: set[str] | None = None) -> Any:
        """Visit the fields of a frozen value; return it, or if something changed, a new one."""
        changes = {}
        for each in fields(value):
            if each.name not in _STRUCTURE and each.name not in (hidden or ()):
                old = getattr(value, each.name)
                new = self._field(each.name, old, prefix)
                if new is not old:
                    changes[each.name] = new
        return replace(value, **changes) if changes else value

    def _field(self, name: str, value: Any, prefix: str) -> Any:
        path = prefix + _ARGUMENTS.get(name, name)
        if isinstance(value, FairShare):
            return self.fields(value, prefix)
        plan = step_of(value)
        if plan is not None:
            return self._step(value, plan, prefix)
        if isinstance(value, _REPLACEABLE):
            value = self._leaf(path, value)
            return self.fields(value, f"{path}.") if isinstance(value, _REPLACEABLE) else value
        if is_ours(value):
            return self.fields(value, f"{path}.")
        return self._leaf(path, value, "code" if name in _CODE or isinstance(value, Opaque) else "setting")

    def _leaf(self, path: str, value: Any, kind: Kind = "setting") -> Any:
        if kind == "setting":
            kind = "fixed" if self._is_fixed else "common" if self._is_common else "setting"
        return self._visitor(path, value, kind)

    def _step(self, step: Any, plan: StepPlan, prefix: str) -> Any:
        is_started = not hasattr(type(step), "from_plan")  # such a step keeps state for others
        was_fixed = self._is_fixed
        self._is_fixed = was_fixed or is_started
        parts = self._row(plan.parts, prefix)
        self._is_fixed = was_fixed
        if is_started:
            return step if was_fixed else self._visitor(f"{prefix}started", step, "shared")
        return step if parts is plan.parts else type(step).from_plan(replace(plan, parts=parts))

    def _part(self, part: Part, prefix: str) -> Part:
        if isinstance(part, Call):
            return self._call(part, prefix)
        if isinstance(part, Pure):
            fn = self._leaf(self._labels.next(f"{prefix}pure"), part.fn, "code")
            return part if fn is part.fn else Pure(fn)
        inner = self._row(part.inner, prefix)
        if isinstance(part.layer, Fallback):
            other = part.layer.step
            parts = self._row(other.parts, prefix)
            self._leaf(self._labels.next(prefix + word(part.layer)), other, "code")
            layer: Layer = part.layer if parts is other.parts else Fallback(replace(other, parts=parts))
        else:
            layer = self._layer(part.layer, self._labels.next(prefix + word(part.layer)))
        return part if layer is part.layer and inner is part.inner else Within(inner, layer)

    def _row(self, parts: tuple[Part, ...], prefix: str) -> tuple[Part, ...]:
        """Visit the parts of a row; return it, or if something changed, a new one."""
        visited = tuple([self._part(part, prefix) for part in parts])
        return parts if all(new is old for new, old in zip(visited, parts, strict=True)) else visited

    def _call(self, call: Call, prefix: str) -> Call:
        plan = step_of(call.fn)
        if plan is not None:  # a started step: it is the same one before and after
            was_fixed, self._is_fixed = self._is_fixed, True
            self._step(call.fn, plan, prefix)
            self._is_fixed = was_fixed
        label = self._labels.next(f"{prefix}call")
        self._leaf(label, call.fn, "code")
        if not self._is_fixed:
            call = self._visitor(label, call, "call")
        idempotent = self._leaf(self._labels.next(f"{prefix}idempotent"), call.idempotent)
        runner = call.runner
        if runner is not None:
            label = self._labels.next(f"{prefix}runner")
            self._leaf(label, runner, "code")
            runner = self.fields(runner, f"{label}.") if is_ours(runner) else runner
        using = call.using
        if using is not None:
            using = self.fields(using, f"{self._labels.next(f'{prefix}using')}.")
        same = idempotent is call.idempotent and runner is call.runner and using is call.using
        return call if same else replace(call, idempotent=idempotent, runner=runner, using=using)

    def _layer(self, layer: Layer, label: str) -> Layer:
        if isinstance(layer, Timeout):
            seconds = self._leaf(label, layer.seconds)
            return layer if seconds is layer.seconds else Timeout(seconds)
        if isinstance(layer, Limit | Places):
            return self._limit(layer, label)
        changed: Layer = self.fields(layer, f"{label}.")
        return changed

    def _limit(self, layer: Limit | Places, label: str) -> Layer:
        self._is_common = layer.limiter is not None
        if isinstance(layer, Limit):
            new: dict[str, Any] = {"rate_limit": self.fields(layer.rate_limit, f"{label}.")}
        else:
            new = {"places": self._leaf(label, layer.places)}
        if layer.share is not None:
            share = {each: getattr(layer.share, each) for each in ("weights", "default_weight")}
            weights = {each: self._leaf(f"{label}.{each}", value) for each, value in share.items()}
            same = all(weights[each] is value for each, value in share.items())
            new["share"] = layer.share if same else replace(layer.share, **weights)
        self._is_common = False
        if layer.group is not None:
            self._leaf(f"{label}.group", layer.group, "fixed")
        if layer.limiter is not None and not self._is_fixed:
            changed = replace(layer, **new) if _differs(layer, new) else layer
            new["limiter"] = self._visitor(f"{label}.limiter", changed, "shared").limiter
        if isinstance(layer, Limit) and layer.per_key is not None:
            new["max_keys"] = self._leaf(f"{label}.max_keys", layer.max_keys)
        for name in ("cost", "key", "settle", "per_key") if isinstance(layer, Limit) else ("key",):
            if name == "cost" or getattr(layer, name) is not None:
                new[name] = self._leaf(f"{label}.{name}", getattr(layer, name), "code")
        return replace(layer, **new) if _differs(layer, new) else layer


def _differs(layer: Layer, new: Mapping[str, Any]) -> bool:
    return any(getattr(layer, name) is not value for name, value in new.items())


def is_ours(value: object) -> bool:
    """Return whether a value is one of a plan's own, such as a policy, and not a user's."""
    return hasattr(type(value), "__frozen__")


def steps_in(operation: Operation) -> Iterator[tuple[str, Any]]:
    """Yield the steps of an operation, by the field that they are in; that of a `Divert` is in the field of that."""
    for each in fields(operation):
        value = getattr(operation, each.name)
        if isinstance(value, Divert):
            value = value.step
        if step_of(value) is not None:
            yield each.name, value


# ---- a plan with other leaves


def rebuilt(plan: Plan, change: Callable[[str, PlanPart], PlanPart]) -> Plan:
    """Return the plan of what `change` returns for each of its parts; it is told the name of the part, too."""
    return _Rebuilding(change, places(plan)).plan(plan)


class _Rebuilding:
    """Makes a plan again, in the order in which `places` names its parts."""

    def __init__(self, change: Callable[[str, PlanPart], PlanPart], names: list[str]) -> None:
        self._change: Callable[[str, Any], Any] = change  # returns what takes the place of a part
        self._names = iter(names)  # of the parts that are left

    def plan(self, plan: Plan) -> Plan:
        origin = self._origin(plan.origin)
        operations = tuple([self._part(each) for each in plan.operations])
        changed = [new is not old for new, old in zip(operations, plan.operations, strict=True)]
        return Plan(origin, operations) if origin is not plan.origin or any(changed) else plan

    def _origin(self, origin: Any) -> Any:
        if isinstance(origin, FanOut):
            name = next(self._names)
            route = None if origin.route is None else self._change(name, origin.route)
            trunk = self.plan(origin.trunk)
            branches = tuple([(branch, self.plan(plan)) for branch, plan in origin.branches])
            same = route is origin.route and trunk is origin.trunk and _same(branches, origin.branches)
            return origin if same else replace(origin, trunk=trunk, branches=branches, route=route)
        if isinstance(origin, FanIn):
            origin = self._part(origin)
            inputs = tuple([(key, self.plan(plan)) for key, plan in origin.inputs])
            return origin if _same(inputs, origin.inputs) else replace(origin, inputs=inputs)
        return self._part(origin) if isinstance(origin, Source) else origin

    def _part(self, part: Any) -> Any:
        return self._change(next(self._names), part)


def _same(new: tuple[tuple[Any, Plan], ...], old: tuple[tuple[Any, Plan], ...]) -> bool:
    return all(one is other for (_, one), (_, other) in zip(new, old, strict=True))


# ---- a plan with other settings


def with_settings(plan: Plan, settings: Any, *, common: bool = False) -> Plan:
    """Return the plan with some settings changed; raise one `PlanError` with every name that it does not know.

    With `common` the settings of shared limiters can be changed, too: in the plan, not in the limiters themselves.
    """
    where = "Pipeline.with_settings"
    checks.mapping(where, "settings", settings, "names to mappings of settings")
    for name, values in settings.items():
        checks.mapping(where, f"settings[{named(name)}]", values, "names to values")
    changes = _Changes(settings, places(plan), {"setting", "common"} if common else {"setting"})
    changed = rebuilt(plan, changes.change)
    changes.refuse_unknown()
    return changed


class _Changes:
    """Changes the settings of each part."""

    def __init__(self, settings: Mapping[str, Mapping[str, Any]], names: list[str], can: set[Kind]) -> None:
        self._settings = settings  # the new values, by the names of parts
        self._can = can  # the kinds of leaves that can be changed
        self._known: dict[str, dict[str, Kind]] = {name: {} for name in names}  # what can be set, likewise

    def change(self, name: str, part: PlanPart) -> PlanPart:
        """Return the part with other settings."""
        names = [name, *([part.name] if isinstance(part, Buffer) and part.name not in (name, part.verb) else [])]
        for each in names:
            part = visit(part, self._visitor(each))
        return part

    def _visitor(self, name: str) -> Visitor:
        known = self._known.setdefault(name, {})
        changes = self._settings.get(name, {})

        def change(path: str, value: Any, kind: Kind) -> Any:
            if kind in ("call", "shared"):
                return value
            known[path] = kind
            return changes.get(path, value) if kind in self._can else value

        return change

    def refuse_unknown(self) -> None:
        """Raise every name that means nothing."""
        problems = [problem for name, values in self._settings.items() for problem in self._unknown(name, values)]
        if problems:
            raise PlanError(*problems)

    def _unknown(self, name: str, values: Mapping[str, Any]) -> list[str]:
        known = self._known.get(name)
        if known is None:
            said = f"settings[{named(name)}] must name a part of the plan; the parts are {listed(self._known)}"
            return [f"Pipeline.with_settings: {said}"]
        settings = sorted([path for path, kind in known.items() if kind in self._can], key=_is_of_a_policy)
        can = listed(settings)
        return [
            f"Pipeline.with_settings: settings[{named(name)}][{named(path)}] {_WHY.get(known.get(path), _NOT_THERE)}; "
            f"the settings of {named(name)} are {can}"
            for path in values
            if known.get(path) not in self._can
        ]


def _is_of_a_policy(path: str) -> bool:
    return "." in path


_NOT_THERE = "must name a setting"
_SHARED = "must not be changed: it is shared with others, by a limiter or a started step"
_WHY: dict[Kind | None, str] = {
    "common": _SHARED,
    "fixed": _SHARED,
    "code": "must name a setting, not a function",
}
