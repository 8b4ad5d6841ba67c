"""The shape of a plan: where items come from, and the operations on them, in order.

A plan is an *origin* (a source, or a fan-in of other plans) and a tuple of operations. It is a value: it holds the
user's functions and iterables and touches none of them.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import field
from inspect import isawaitable
from typing import Any, ClassVar, Literal

from ..policies._frozen import dataclass
from ..policies.fair_share import FairShare
from .operations import Opaque, Operation, Route, function_name

__all__ = ["Branch", "Claim", "FanIn", "FanOut", "Plan", "Source", "is_awaitable", "plan_of"]

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
        self.layout: Any = None  # the `LineLayout`; None: not made yet

    def __reduce__(self) -> tuple[Any, ...]:
        return Derived, ()  # a copy works it out again


@dataclass(frozen=True, slots=True)
class Plan:
    """An origin and the operations after it."""

    origin: Source | FanIn | FanOut | Branch
    operations: tuple[Operation, ...] = ()
    derived: Derived = field(default_factory=Derived, init=False, compare=False, repr=False)


def plan_of(value: object) -> Plan | None:
    """Give the plan of what is a pipeline, None for anything else."""
    plan = getattr(value, "_plan", None)
    return plan if isinstance(plan, Plan) else None


def is_awaitable(value: object) -> bool:
    """Tell whether a value is to be awaited: not a pipeline, for which ``await`` only says what to use."""
    return isawaitable(value) and plan_of(value) is None
