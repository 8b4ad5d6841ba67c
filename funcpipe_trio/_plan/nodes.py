"""What is a plan? Where items come from, and the operations on them, in order.

A plan is an *origin* (a source, a fan-in of other plans, a fan-out or one of its branches) and a tuple of operations.
It is a value: it holds the user's functions and iterables, and calls and iterates none of them.

The invariant: each part checks itself, so a wrong one cannot be made; the error names the public method or function
that makes it. What only several parts together can tell is checked in `check`.

Plans may be nested as deeply as a user's loop makes them. Comparing them and measuring their depth are loops; all the
rest, including the run, is recursive, so anything deeper than `DEEPEST` is refused.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import field
from inspect import isawaitable, isgeneratorfunction
from typing import Any, ClassVar, Literal, get_args

from .._base import checks
from .._base.errors import PlanError
from .._base.frozen import dataclass
from .._base.functions import AnyFunction, function_name, is_async, yields_async
from .._base.shown import listed, named
from ..policies.fair_share import FairShare
from ..policies.on_error import Divert, OnError, Skip, Stop
from .operations import STOP, Opaque, Operation, Route, check_share

DEEPEST = 50
"""How deeply fan-ins and fan-outs may be nested: each level takes up to 8 of the 1000 frames of Python's stack."""

_MOST_PROBLEMS = 10  # of one kind, in one error

SourceKind = Literal["iterable", "async iterable", "channel", "producer", "ticks", "restarting", "using"]
FanInKind = Literal["merge", "fair_merge", "concat", "zip", "loop", "merge_sorted", "zip_latest", "prefer"]
FanOutKind = Literal["broadcast", "partition", "balance"]
JoinKind = Literal["merge", "zip"]


_BARE = ("ticks", "restarting", "using")  # sources whose method has their name alone


class Claim:
    """Whether a run already has a one-shot source: the only thing in a plan that changes, and only once."""

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
        """The public method that makes it, for errors."""
        return f"Pipeline.{'' if self.kind in _BARE else 'from_'}{self.kind.replace(' ', '_')}"

    def describe(self) -> str:
        """One-line description."""
        if self.kind == "ticks":
            return f"ticks every {self.period:g} s"
        made_by = self.origin.value if callable(self.origin.value) else None
        maker = "" if made_by is None else f" {function_name(made_by)}"
        return f"{self.kind}{maker}" + ("" if self.claim is None else ", for one run")


def iterable_name(kind: SourceKind, items: Any) -> str:
    """Return the default name of an iterable: its kind, or the name of the function that makes it."""
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
    """Make the error; for an async iterable, it names the method that takes one."""
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
    """By key. An unnamed `concat` or `merge` inside another of its kind is replaced by its own inputs."""
    share: FairShare[Any] | None = None
    strict: bool = False
    on_error: OnError = STOP
    key: AnyFunction | None = field(default=None, hash=False)
    """What a sorted merge compares of an item; None: the item itself."""
    reverse: bool = False
    """Whether the inputs of a sorted merge have their greatest items first."""
    at_least: int = 2
    """Of how many items one is for the others, if one input is preferred."""

    def __post_init__(self) -> None:
        where = {"zip": "zip_pipelines", "loop": "Pipeline.loop"}.get(self.kind, self.kind)
        checks.boolean(where, "strict", self.strict)
        checks.text(where, "name", self.name)
        _check_on_error(where, self.on_error)
        checks.boolean(where, "reverse", self.reverse)
        checks.integer(where, "at_least", self.at_least, at_least=2)
        if self.key is not None:
            checks.sync_callable(where, "key", self.key)
        shown = "inputs[{}]" if self.kind == "fair_merge" else "input {}"
        for key, plan in self.inputs:
            _check_plan(where, shown.format(named(key)), plan)
        if self.kind == "fair_merge":
            _check_weights(check_share(where, self.share), dict(self.inputs))
        elif self.kind in ("merge", "concat") and isinstance(self.on_error, Stop):
            object.__setattr__(self, "inputs", _joined(self.kind, self.inputs))


def _check_plan(where: str, name: str, plan: Any) -> None:
    if not isinstance(plan, Plan):  # users only know a `Pipeline`
        raise checks.refuse(TypeError, where, name, "be a Pipeline", plan)


def _check_on_error(where: str, policy: Any) -> None:
    """Refuse what cannot be done with an input that fails."""
    checks.instance(where, "on_error", policy, OnError, "Use OnError.skip(), say.")
    if isinstance(policy, Divert):
        use = "Use OnError.emit(), and recover(step) behind it."
        raise checks.refuse(ValueError, where, "on_error", "not divert: a merge has no task to wait in", policy, use)
    if isinstance(policy, Skip) and policy.max_ratio is not None:
        use = "Use OnError.skip(max_failures), which counts inputs."
        raise checks.refuse(ValueError, where, "on_error", "have no max_ratio: inputs fail, not items", policy, use)


def _check_weights(share: FairShare[Any], inputs: Mapping[Hashable, Plan]) -> None:
    unknown = [key for key in share.weights if key not in inputs]
    if unknown:
        known = f"must name an input; the inputs are {listed(inputs)}"
        problems = [f"fair_merge: weights[{named(key)}] {known}" for key in unknown[:_MOST_PROBLEMS]]
        more = len(unknown) - len(problems)
        raise PlanError(*problems, *([f"fair_merge: {more} more weights {known}"] if more else []))


def _joined(kind: FanInKind, inputs: tuple[tuple[Hashable, Plan], ...]) -> tuple[tuple[Hashable, Plan], ...]:
    """Number the inputs; replace an unnamed fan-in of the same kind by its own, so that a loop may build one up."""
    joined: list[Plan] = []
    for _number, each in inputs:
        origin = each.origin
        if isinstance(origin, FanIn) and _is_plain(origin, kind) and not each.operations:
            joined += [inner for _key, inner in origin.inputs]
        else:
            joined.append(each)
    return tuple(enumerate(joined))


def _is_plain(fan_in: FanIn, kind: FanInKind) -> bool:
    """Whether it is one of that kind, without a name, and ends with the first input that fails."""
    return fan_in.kind == fan_in.name == kind and isinstance(fan_in.on_error, Stop)


@dataclass(frozen=True, slots=True)
class Branch:
    """Where a branch of a fan-out begins; branches are told apart by identity."""

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
    """Which branch an item goes to; None unless it is a partition."""
    join: JoinKind = "merge"
    """How the results of the branches become one stream."""

    def __post_init__(self) -> None:
        where = f"Pipeline.{self.kind}"
        checks.text(where, "name", self.name)
        checks.choice(where, "join", self.join, get_args(JoinKind))
        for branch, plan in self.branches:
            _check_plan(where, f"what branches[{named(branch.key)}] gives", plan)


class Derived:
    """What was computed from a plan, kept for its next run: it never changes."""

    __slots__ = ("is_sound", "layout")

    is_sound: bool
    """Whether a check of its shape found no problem."""

    def __init__(self) -> None:
        self.is_sound = False
        self.layout: Any = None  # the `SegmentLayout`; None before the first use

    def __reduce__(self) -> tuple[Any, ...]:
        return Derived, ()  # a copy computes it again


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
        return hash(tuple((_hashed(plan.origin), plan.operations) for plan, _depth in _all_plans(self)))


def inner_plans(plan: Plan) -> tuple[Plan, ...]:
    """Return the plans that its items come from."""
    origin = plan.origin
    if isinstance(origin, FanIn):
        return tuple([inner for _key, inner in origin.inputs])
    if isinstance(origin, FanOut):
        return (origin.trunk, *(inner for _branch, inner in origin.branches))
    return ()


def too_deep(plan: Plan) -> str | None:
    """Return the problem that fan-ins and fan-outs are nested too deeply; None otherwise."""
    if any(depth > DEEPEST for _plan, depth in _all_plans(plan)):
        return (
            f"the plan: fan-ins and fan-outs must lie at most {DEEPEST} deep within each other\n"
            "Use one call for all pipelines, as in concat(*pipelines) or fair_merge({...}), instead of one for each."
        )
    return None


def _all_plans(plan: Plan) -> Iterator[tuple[Plan, int]]:
    """Yield every plan in it, and its depth."""
    waiting = [(plan, 0)]
    while waiting:
        each, depth = waiting.pop()
        yield each, depth
        waiting += [(inner, depth + 1) for inner in inner_plans(each)]


def _outside(origin: Source | FanIn | FanOut | Branch) -> object:
    """Return what is compared of an origin itself, without the plans in it."""
    # A function may have no hash: it is compared only.
    return (_hashed(origin), origin.key) if isinstance(origin, FanIn) else _hashed(origin)


def _hashed(origin: Source | FanIn | FanOut | Branch) -> object:
    if isinstance(origin, FanIn):
        keys = tuple([key for key, _ in origin.inputs])
        own = (origin.share, origin.strict, origin.on_error, origin.reverse, origin.at_least)
        return FanIn, origin.kind, origin.name, keys, own
    if isinstance(origin, FanOut):
        branches = tuple([branch for branch, _ in origin.branches])
        return FanOut, origin.kind, origin.name, branches, origin.route, origin.join
    return origin


def plan_of(value: object) -> Plan | None:
    """Return the plan of a pipeline; None for anything else."""
    plan = getattr(value, "_plan", None)
    return plan if isinstance(plan, Plan) else None


def is_awaitable(value: object) -> bool:
    """Return whether a value is to be awaited: not a pipeline, whose ``__await__`` only raises what to use."""
    return isawaitable(value) and plan_of(value) is None
