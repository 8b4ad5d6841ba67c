"""The shape of a plan: where items come from, and the operations on them, in order.

A plan is an *origin* (a source, a fan-in of other plans, a fan-out or one of its branches) and a tuple of operations.
It is a value: it holds the user's functions and iterables and touches none of them. Each part checks itself: what is
wrong with it is refused in the words of the method or function that makes it, however it is made.

Plans lie in plans, as deep as a user's loop makes them. To compare them, and to see how deep it is, is done by loops;
all else about a plan, its run too, is recursive, so deeper than `DEEPEST` is refused.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import field
from inspect import isawaitable, isgeneratorfunction
from typing import Any, ClassVar, Literal

from .._base import checks
from .._base.errors import PlanError
from .._base.frozen import dataclass
from .._base.functions import function_name, is_async, yields_async
from .._base.shown import listed, named
from ..policies.fair_share import FairShare
from .operations import Opaque, Operation, Route, check_share

DEEPEST = 50
"""Fan-ins and fan-outs within each other, at most: each takes up to 8 of the 1000 frames that Python's stack has."""

_MOST_PROBLEMS = 10  # of one kind, in one error

SourceKind = Literal["iterable", "async iterable", "channel", "producer", "ticks", "restarting"]
FanInKind = Literal["merge", "fair_merge", "concat", "zip"]
FanOutKind = Literal["broadcast", "partition"]


class Claim:
    """Whether a one-shot source was already given to a run: the only thing in a plan that changes, and only once."""

    __slots__ = ("taken",)

    taken: bool

    def __init__(self) -> None:
        self.taken = False


@dataclass(frozen=True, slots=True)
class Source:
    """Where items come from; it has a `claim` when that works only once (an iterator, a channel)."""

    verb: ClassVar[str] = "source"
    kind: SourceKind
    name: str
    origin: Opaque
    period: float = 0.0
    claim: Claim | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        where, origin = self.method, self.origin.value
        if self.kind in _ITERATED:
            _check_iterable(where, self.kind, origin)
        elif self.kind == "producer":
            checks.callable_(where, "async_fn", origin)
            checks.async_callable(where, "async_fn", origin)
        elif self.kind == "ticks":
            object.__setattr__(self, "period", checks.seconds(where, "period", self.period))
        checks.text(where, "name", self.name)
        if self.claim is None and _works_once(self.kind, origin):
            object.__setattr__(self, "claim", Claim())

    @property
    def method(self) -> str:
        """What makes it, as errors name it."""
        return f"Pipeline.{'' if self.kind in ('ticks', 'restarting') else 'from_'}{self.kind.replace(' ', '_')}"

    def describe(self) -> str:
        """Say it in a few words."""
        if self.kind == "ticks":
            return f"ticks every {self.period:g} s"
        made_by = self.origin.value if callable(self.origin.value) else None
        maker = "" if made_by is None else f" {function_name(made_by)}"
        return f"{self.kind}{maker}" + ("" if self.claim is None else ", for one run")


def iterable_name(kind: SourceKind, items: Any) -> str:
    """Return what an iterable is called that nobody named: the function that makes it, if one does, else its kind."""
    return kind.replace(" ", "_") if _has(items, _ITERATED[kind][0]) else function_name(items)


_ITERATED = {"iterable": ("__iter__", "__next__"), "async iterable": ("__aiter__", "__anext__")}


def _has(value: object, method: str) -> bool:
    return hasattr(type(value), method)


def _works_once(kind: SourceKind, origin: Any) -> bool:
    return kind == "channel" or (kind in _ITERATED and _has(origin, _ITERATED[kind][1]))


def _check_iterable(where: str, kind: SourceKind, items: Any) -> None:
    if _has(items, _ITERATED[kind][0]):
        return
    if not callable(items):
        raise _not_a_source(where, f"be an {kind}, or a callable that makes one", items)
    gives_wrong_kind = yields_async(items) if kind == "iterable" else isgeneratorfunction(items)
    if is_async(items) or gives_wrong_kind:
        raise _not_a_source(where, f"give an {kind}, without being awaited", items)


def _not_a_source(where: str, rule: str, items: Any) -> Exception:
    """Refuse it; what the other method takes, with its name."""
    if not _has(items, "__aiter__") and not (callable(items) and yields_async(items)):
        return checks.refuse(TypeError, where, "items", rule, items)
    rule = f"{rule} (from_async_iterable takes an async one)"
    return checks.refuse(TypeError, where, "items", rule, items, "Use Pipeline.from_async_iterable(items).")


@dataclass(frozen=True, slots=True)
class FanIn:
    """Several plans that become one stream."""

    kind: FanInKind
    name: str
    inputs: tuple[tuple[Hashable, Plan], ...]
    """By their keys. A `concat` or `merge` has those of an unnamed one of its kind in the place of that."""
    share: FairShare[Any] | None = None
    strict: bool = False

    def __post_init__(self) -> None:
        where = "zip_pipelines" if self.kind == "zip" else self.kind
        checks.boolean(where, "strict", self.strict)
        checks.text(where, "name", self.name)
        shown = "inputs[{}]" if self.kind == "fair_merge" else "input {}"
        for key, plan in self.inputs:
            _check_plan(where, shown.format(named(key)), plan)
        if self.kind == "fair_merge":
            _check_weights(check_share(where, self.share), dict(self.inputs))
        elif self.kind != "zip":
            object.__setattr__(self, "inputs", _joined(self.kind, self.inputs))


def _check_plan(where: str, name: str, plan: Any) -> None:
    if not isinstance(plan, Plan):  # the user knows a `Pipeline` only
        raise checks.refuse(TypeError, where, name, "be a Pipeline", plan)


def _check_weights(share: FairShare[Any], inputs: Mapping[Hashable, Plan]) -> None:
    unknown = [key for key in share.weights if key not in inputs]
    if unknown:
        known = f"must name an input; the inputs are {listed(inputs)}"
        problems = [f"fair_merge: weights[{named(key)}] {known}" for key in unknown[:_MOST_PROBLEMS]]
        more = len(unknown) - len(problems)
        raise PlanError(*problems, *([f"fair_merge: {more} more weights {known}"] if more else []))


def _joined(kind: FanInKind, inputs: tuple[tuple[Hashable, Plan], ...]) -> tuple[tuple[Hashable, Plan], ...]:
    """Number the inputs; an unnamed fan-in of the same kind gives its own, so that one may be made in a loop."""
    joined: list[Plan] = []
    for _number, each in inputs:
        origin = each.origin
        if isinstance(origin, FanIn) and origin.kind == origin.name == kind and not each.operations:
            joined += [inner for _key, inner in origin.inputs]
        else:
            joined.append(each)
    return tuple(enumerate(joined))


@dataclass(frozen=True, slots=True)
class Branch:
    """Where a branch of a fan-out begins; which one, only the object itself tells."""

    kind: FanOutKind
    fan_out: str
    key: str

    def __post_init__(self) -> None:
        checks.text(f"Pipeline.{self.kind}", "name", self.fan_out)
        checks.text(f"Pipeline.{self.kind}", "a branch's name", self.key)


@dataclass(frozen=True, slots=True)
class FanOut:
    """One plan, the trunk, whose items go to several others, the branches, whose results become one stream."""

    kind: FanOutKind
    name: str
    trunk: Plan
    branches: tuple[tuple[Branch, Plan], ...]
    route: Route | None = None
    """Of a partition: which branch an item goes to."""

    def __post_init__(self) -> None:
        where = f"Pipeline.{self.kind}"
        checks.text(where, "name", self.name)
        for branch, plan in self.branches:
            _check_plan(where, f"what branches[{named(branch.key)}] gives", plan)


class Derived:
    """What was worked out of a plan, so that a second run need not do it again: it can only be the same."""

    __slots__ = ("is_sound", "layout")

    is_sound: bool
    """Whether a check of its shape found nothing."""

    def __init__(self) -> None:
        self.is_sound = False
        self.layout: Any = None  # the `LineLayout`; None: not made yet

    def __reduce__(self) -> tuple[Any, ...]:
        return Derived, ()  # a copy works it out again


@dataclass(frozen=True, slots=True)
class Plan:
    """An origin and the operations after it."""

    origin: Source | FanIn | FanOut | Branch
    operations: tuple[Operation, ...] = ()
    derived: Derived = field(default_factory=Derived, init=False, compare=False, repr=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Plan):
            return NotImplemented
        pairs = [(self, other)]
        while pairs:
            one, two = pairs.pop()
            if one is two:
                continue
            if one.operations != two.operations or _outside(one.origin) != _outside(two.origin):
                return False
            pairs += zip(inner_plans(one), inner_plans(two), strict=True)
        return True

    def __hash__(self) -> int:
        return hash(tuple((_outside(plan.origin), plan.operations) for plan, _depth in _all_plans(self)))


def inner_plans(plan: Plan) -> tuple[Plan, ...]:
    """Give the plans that its items come from."""
    origin = plan.origin
    if isinstance(origin, FanIn):
        return tuple([inner for _key, inner in origin.inputs])
    if isinstance(origin, FanOut):
        return (origin.trunk, *(inner for _branch, inner in origin.branches))
    return ()


def too_deep(plan: Plan) -> str | None:
    """Say that fan-ins and fan-outs lie too deep within each other; None if they do not."""
    if any(depth > DEEPEST for _plan, depth in _all_plans(plan)):
        return (
            f"the plan: fan-ins and fan-outs must lie at most {DEEPEST} deep within each other\n"
            "Use one call for all pipelines, as in concat(*pipelines) or fair_merge({...}), instead of one for each."
        )
    return None


def _all_plans(plan: Plan) -> Iterator[tuple[Plan, int]]:
    """Every plan in it, and within how many others it lies."""
    waiting = [(plan, 0)]
    while waiting:
        each, depth = waiting.pop()
        yield each, depth
        waiting += [(inner, depth + 1) for inner in inner_plans(each)]


def _outside(origin: Source | FanIn | FanOut | Branch) -> object:
    """Give what is compared of an origin itself, without the plans in it."""
    if isinstance(origin, FanIn):
        return FanIn, origin.kind, origin.name, tuple([key for key, _ in origin.inputs]), origin.share, origin.strict
    if isinstance(origin, FanOut):
        return FanOut, origin.kind, origin.name, tuple([branch for branch, _ in origin.branches]), origin.route
    return origin


def plan_of(value: object) -> Plan | None:
    """Give the plan of what is a pipeline, None for anything else."""
    plan = getattr(value, "_plan", None)
    return plan if isinstance(plan, Plan) else None


def is_awaitable(value: object) -> bool:
    """Tell whether a value is to be awaited: not a pipeline, for which ``await`` only says what to use."""
    return isawaitable(value) and plan_of(value) is None
