"""A step as data: which calls it makes, one after the other, and which policies lie around them.

A step is a row of *parts*: each takes what the part before it gave. A part is a `Call` of a user's function, a `Pure`
function on the value, or `Within`: parts with one policy around them. ``then`` puts rows behind each other, so it is
associative by construction, and however many steps are chained, no part is nested in another; a policy takes the row
so far and makes one part of it, so policies lie around each other in the order in which they were written.

Each part checks itself: what is wrong with it is refused in the words of the method that makes it, however it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field, replace
from fractions import Fraction
from typing import Any, Protocol, TypeAlias, runtime_checkable

from .._base import checks
from .._base.errors import PlanError
from .._base.frozen import dataclass
from .._base.functions import AnyFunction, function_name, is_async, never_awaitable, yields_async
from .._base.shown import named
from ..policies.circuit_breaker import CircuitBreaker
from ..policies.rate_limit import RateLimit
from ..policies.retry import Retry, needs_seed


@runtime_checkable
class RunnerPlan(Protocol):
    """What runs a sync function outside of the event loop, as the plan sees it."""

    def describe(self) -> str:
        """Say it in a few words."""

    def problem(self, fn: AnyFunction) -> str | None:
        """Say why it cannot run a function; None if it can."""

    def start(self) -> Any:
        """Make it ready to run calls; what comes of that is the runtime's."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the user's function."""

    fn: AnyFunction = field(hash=False)  # an object that is called may have no hash
    name: str
    idempotent: bool
    runner: RunnerPlan | None = None

    def __post_init__(self) -> None:
        checks.callable_("Step", "fn", self.fn)
        if yields_async(self.fn):
            rule, use = "be no async generator function", "Use flat_map to put many values in an item's place."
            raise checks.refuse(TypeError, "Step", "fn", rule, self.fn, use)
        checks.boolean("Step", "idempotent", self.idempotent)
        checks.text("Step", "name", self.name)
        if self.runner is not None and is_async(self.fn):
            raise PlanError(
                f"step {named(self.name)}: on must have a sync function, not an async one, which needs no runner."
            )

    def problem(self) -> str | None:
        """Say why it cannot be made; None if it can."""
        if self.runner is not None:
            return self.runner.problem(self.fn)
        if is_async(self.fn) or not never_awaitable(self.fn):
            return None
        return (
            f"step {named(self.name)}: fn must be an async function, or give something to await, unless something "
            "runs it.\n"
            "Use Step(fn).on(threads(4)), or Step.pure(fn) for one that takes no time."
        )


@dataclass(frozen=True, slots=True)
class Pure:
    """A sync function on the value."""

    fn: AnyFunction = field(hash=False)

    def __post_init__(self) -> None:
        checks.sync_callable("Step.pure", "fn", self.fn)


@dataclass(frozen=True, slots=True)
class Timeout:
    """What is inside has so many seconds."""

    seconds: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", checks.seconds("Step.timeout", "seconds", self.seconds))

    def describe(self) -> str:
        """Say it in a few words."""
        return f"timeout of {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Limit:
    """What is inside starts only so often."""

    rate_limit: RateLimit
    limiter: Any = None
    """The `RateLimiter` that others use, too; None: one of its own for each run."""
    cost: Callable[[Any], int | Fraction] | None = field(default=None, hash=False)

    def __post_init__(self) -> None:
        limit: Any = self.rate_limit
        if not isinstance(limit, RateLimit):
            raise checks.refuse(TypeError, "Step.rate_limit", "limit", "be a RateLimit or a RateLimiter", limit)
        if self.cost is not None:
            checks.sync_callable("Step.rate_limit", "cost", self.cost)

    def describe(self) -> str:
        """Say it in a few words."""
        shared = "" if self.limiter is None else ", shared"
        cost = "" if self.cost is None else f", an item costs what {function_name(self.cost)} says"
        return f"rate limit of {self.rate_limit.describe()}{shared}{cost}"


Layer: TypeAlias = Timeout | Limit | Retry | CircuitBreaker


@dataclass(frozen=True, slots=True)
class Within:
    """Parts with one policy around them."""

    inner: tuple[Part, ...]
    layer: Layer

    def __post_init__(self) -> None:
        if isinstance(self.layer, Retry):
            _refuse_once(self.inner)
        elif isinstance(self.layer, Limit) and self.layer.limiter is not None and len(self.inner) == 1:
            _refuse_twice(self.layer.limiter, self.inner[0])


def _refuse_once(parts: tuple[Part, ...]) -> None:
    """Refuse to try again what may have had its effect."""
    once = [call.name for call in _calls(parts) if not call.idempotent]
    if once:
        raise PlanError(
            *(
                f"step {named(name)}: a step with idempotent=False must not be retried: a failed call may have had "
                "its effect.\nUse idempotent=True if calling it again does no harm."
                for name in once
            )
        )


def _refuse_twice(limiter: object, part: Part) -> None:
    """Refuse to meet a limiter that is met already."""
    if any(each.limiter is limiter for each in limits_around(part)[0]):
        raise ValueError(
            "Step.rate_limit: a limiter must be met once by a call, not twice\nUse cost= to let it take more."
        )


Part: TypeAlias = Call | Pure | Within


@dataclass(frozen=True, slots=True)
class Placed:
    """A call on a runner, with the policies that begin when it has its thread or process."""

    call: Call
    outside: tuple[Limit, ...]
    """The rate limits outside of the timeout, from the outermost in."""
    timeout: Timeout | None
    inside: tuple[Limit, ...]
    """Those inside of it, or all if there is none."""

    @staticmethod
    def of(part: Part) -> Placed | None:
        """Find them: rate limits, and the first timeout, right behind ``on``; None if the part is anything more.

        To wait for a thread or process is not the call's time, and takes no token. What stands behind another policy,
        or is a second timeout, is around all of it.
        """
        outside: list[Limit] = []
        inside: list[Limit] = []
        timeout = None
        while isinstance(part, Within) and len(part.inner) == 1:
            if isinstance(part.layer, Limit):
                inside.append(part.layer)
            elif isinstance(part.layer, Timeout) and timeout is None:
                timeout, outside, inside = part.layer, inside, []
            else:
                return None
            (part,) = part.inner
        if not isinstance(part, Call) or part.runner is None:
            return None
        return Placed(part, tuple(outside), timeout, tuple(inside))


@dataclass(frozen=True, slots=True)
class StepPlan:
    """A row of parts, under one name."""

    name: str
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        checks.text("Step.pure" if isinstance(self.parts[0], Pure) else "Step", "name", self.name)

    def on(self, runner: RunnerPlan) -> StepPlan:
        """Return the step on a runner, if it is a call and nothing more."""
        (part, *more) = self.parts
        if more or not isinstance(part, Call) or part.runner is not None:
            raise PlanError(
                f"step {named(self.name)}: on must come first, and once: it says where the function runs.\n"
                "Use Step(fn).on(runner), then the policies around it."
            )
        return StepPlan(self.name, (replace(part, runner=runner),))

    def then(self, step: StepPlan) -> StepPlan:
        """Return a step that gives its result to another."""
        return StepPlan(f"{self.name} > {step.name}", self.parts + step.parts)

    def calls(self) -> Iterator[Call]:
        """Every call in it."""
        return _calls(self.parts)

    def needs_seed(self) -> bool:
        """Whether the jitter of its retries comes from the seed of whatever runs it."""
        return any(isinstance(layer, Retry) and needs_seed(layer) for layer in layers_in(self.parts))

    def problems(self) -> Iterator[str]:
        """Say what makes it unable to run."""
        return (problem for call in self.calls() if (problem := call.problem()) is not None)

    def lines(self) -> list[str]:
        """Say what it does, a line for each call and policy, inside out."""
        return list(_lines(self.parts))


def layers_in(parts: tuple[Part, ...]) -> Iterator[Layer]:
    """Every policy in a row of parts."""
    for part in parts:
        if isinstance(part, Within):
            yield part.layer
            yield from layers_in(part.inner)


def limits_around(part: Part) -> tuple[tuple[Limit, ...], tuple[Part, ...]]:
    """Give the rate limits around a part, from the outermost in, as far as nothing lies between; and what is inside."""
    limits: list[Limit] = []
    parts: tuple[Part, ...] = (part,)
    while len(parts) == 1 and isinstance(parts[0], Within) and isinstance(parts[0].layer, Limit):
        limits.append(parts[0].layer)
        parts = parts[0].inner
    return tuple(limits), parts


def step_of(fn: object) -> StepPlan | None:
    """Give the plan of what is a step (or a started one), None for a plain function."""
    plan = getattr(fn, "plan", None)
    return plan if isinstance(plan, StepPlan) else None


def _calls(parts: tuple[Part, ...]) -> Iterator[Call]:
    for part in parts:
        if isinstance(part, Within):
            yield from _calls(part.inner)
        elif isinstance(part, Call):
            yield part


def _lines(parts: tuple[Part, ...]) -> Iterator[str]:
    for number, part in enumerate(parts):
        then = "then " if number else ""
        if isinstance(part, Call):
            where = "" if part.runner is None else f" on {part.runner.describe()}"
            once = "" if part.idempotent else ", not idempotent"
            yield f"{then}call {function_name(part.fn)}{where}{once}"
        elif isinstance(part, Pure):
            yield f"{then}{function_name(part.fn)}"
        else:
            inner = list(_lines(part.inner))
            yield then + inner[0]
            yield from inner[1:]
            around = " around all of these" if len(part.inner) > 1 else ""
            together = ", at one instant with the one above" if len(limits_around(part)[0]) > 1 else ""
            yield f"  {_described(part.layer)}{around}{together}"


def _described(layer: Layer) -> str:
    if isinstance(layer, Retry):
        return f"retry: {layer.describe()}"
    if isinstance(layer, CircuitBreaker):
        return f"circuit breaker: {layer.describe()}"
    return layer.describe()
