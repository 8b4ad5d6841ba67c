"""The shape of a plan: where items come from, and the operations on them, in order.

A plan is an *origin* (a source, a fan-in of other plans, a fan-out or one of its branches) and a tuple of operations.
It is a value: it holds the user's functions and iterables and touches none of them.

Plans lie in plans, as deep as a user's loop makes them. To compare them, and to see how deep it is, is done by loops;
all else about a plan, its run too, is recursive, so deeper than `DEEPEST` is refused.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import field
from inspect import isawaitable
from typing import Any, ClassVar, Literal

from .._base.frozen import dataclass
from .._base.functions import function_name
from ..policies.fair_share import FairShare
from .operations import Opaque, Operation, Route

DEEPEST = 50
"""Fan-ins and fan-outs within each other, at most: each takes up to 8 of the 1000 frames that Python's stack has."""

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
    """Where items come from; `claim` is set when that works only once (an iterator, a channel)."""

    verb: ClassVar[str] = "source"
    kind: SourceKind
    name: str
    origin: Opaque
    period: float = 0.0
    claim: Claim | None = field(default=None, compare=False, repr=False)

    def describe(self) -> str:
        """Say it in a few words."""
        if self.kind == "ticks":
            return f"ticks every {self.period:g} s"
        made_by = self.origin.value if callable(self.origin.value) else None
        maker = "" if made_by is None else f" {function_name(made_by)}"
        return f"{self.kind}{maker}" + ("" if self.claim is None else ", for one run")


@dataclass(frozen=True, slots=True)
class FanIn:
    """Several plans that become one stream."""

    kind: FanInKind
    name: str
    inputs: tuple[tuple[Hashable, Plan], ...]
    share: FairShare[Any] | None = None
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Branch:
    """Where a branch of a fan-out begins; which one, only the object itself tells."""

    fan_out: str
    key: str


@dataclass(frozen=True, slots=True)
class FanOut:
    """One plan, the trunk, whose items go to several others, the branches, whose results become one stream."""

    kind: FanOutKind
    name: str
    trunk: Plan
    branches: tuple[tuple[Branch, Plan], ...]
    route: Route | None = None
    """Of a partition: which branch an item goes to."""


class Derived:
    """What was worked out of a plan, so that a second run need not do it again: it can only be the same."""

    __slots__ = ("is_sound", "layout")

    is_sound: bool
    """Whether a check of its shape found nothing."""

    def __init__(self) -> None:
        self.is_sound = False
        self.layout: Any = None  # the `SegmentLayout`; None: not made yet

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
