"""What is a step, as data: which calls does it make, one after the other, and which policies are around them?

A step is a row of *parts*: each takes the result of the part before it. A part is a `Call` of a user's function, a
`Pure` function on the value, or `Within`: parts with one policy around them. ``then`` joins rows, so it is associative
by construction, and however many steps are chained, no part is nested in another. A policy makes one part of the row so
far, so policies are around each other in the order in which they were written.

The invariant: each part checks itself, so a wrong one cannot be made; the error names the public method that makes it.
Nothing here makes a call.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import field, replace
from fractions import Fraction
from inspect import isgeneratorfunction
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from .._base import checks
from .._base.errors import PlanError
from .._base.frozen import dataclass
from .._base.functions import AnyFunction, function_name, is_async, never_awaitable, yields_async
from .._base.shown import named, quoted, shown
from ..policies.circuit_breaker import CircuitBreaker
from ..policies.fair_share import FairShare
from ..policies.rate_limit import AnyLimit
from ..policies.retry import Retry, needs_seed


@runtime_checkable
class RunnerPlan(Protocol):
    """What runs a sync function outside the event loop, as the plan sees it."""

    @property
    def place(self) -> str:
        """What its calls wait for, as reports say it."""

    def describe(self) -> str:
        """One-line description."""

    def problem(self, fn: AnyFunction) -> str | None:
        """Return why it cannot run a function; None if it can."""

    def start(self) -> Any:
        """Make it ready to run calls; the result belongs to the runtime."""


def checked_open(where: str, open_: AnyFunction) -> AnyFunction:
    """Return what opens a resource, if it may give a context manager."""
    checks.callable_(where, "open", open_)
    if yields_async(open_) or isgeneratorfunction(open_):
        decorator = "@asynccontextmanager" if yields_async(open_) else "@contextmanager"
        raise checks.refuse(TypeError, where, "open", "give a context manager", open_, f"Use it with {decorator}.")
    return open_


@dataclass(frozen=True, slots=True)
class Using:
    """A resource that a call is made with."""

    open: AnyFunction = field(hash=False)
    per: Literal["run", "worker"] = "run"

    def __post_init__(self) -> None:
        checked_open("Step.using", self.open)
        checks.choice("Step.using", "per", self.per, ("run", "worker"))

    def describe(self) -> str:
        """One-line description."""
        return f"using {function_name(self.open)}, one for {'the run' if self.per == 'run' else 'each worker'}"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the user's function."""

    fn: AnyFunction = field(hash=False)  # an object that is called may have no hash
    name: str
    idempotent: bool
    runner: RunnerPlan | None = None
    using: Using | None = None
    """The resource that the function gets as its first argument; None without one."""

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
        """Return why it cannot be made; None if it can."""
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
    """What is inside has a number of seconds."""

    seconds: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "seconds", checks.seconds("Step.timeout", "seconds", self.seconds))

    def describe(self) -> str:
        """One-line description."""
        return f"timeout of {self.seconds:g} s"


MAX_KEYS = 10_000
"""For how many keys a limit for each key is remembered, unless that is said."""


@dataclass(frozen=True, slots=True)
class Group:
    """Which group of a shared limiter is meant."""

    levels: tuple[tuple[Hashable, int | Fraction | None], ...]
    """The names of the groups, outermost first, each with its weight if that was set; as it was when this was made."""

    def describe(self) -> str:
        """Describe it, as what is shared."""
        return f" in group {' / '.join(_level(name, weight) for name, weight in self.levels)}"


def _level(name: Hashable, weight: int | Fraction | None) -> str:
    if weight is None:
        return quoted(name)
    parts = (weight.numerator, weight.denominator)
    return f"{quoted(name)} (weight {'/'.join(map(shown, parts[: 1 + (parts[1] != 1)]))})"


def group_of(levels: tuple[tuple[Hashable, int | Fraction | None], ...]) -> Group | None:
    """Return the group of a limiter; None for the limiter itself."""
    return Group(levels) if levels else None


@dataclass(frozen=True, slots=True)
class Limit:
    """What is inside starts at a limited rate."""

    rate_limit: AnyLimit
    limiter: Any = None
    """The shared `RateLimiter`, or a group of one; None: each run makes its own."""
    cost: Callable[[Any], int | Fraction] | None = field(default=None, hash=False)
    key: Callable[[Any], Hashable] | None = field(default=None, hash=False)
    settle: Callable[[Any], int | Fraction] | None = field(default=None, hash=False)
    share: FairShare[Any] | None = None
    """The shares of that limiter."""
    per_key: Callable[[Any], Hashable] | None = field(default=None, hash=False)
    """Of which key an item is, each of which has the limit for itself; None: all items share it."""
    max_keys: int = MAX_KEYS
    group: Group | None = None
    """Which group of the limiter; None for the limiter itself."""

    def __post_init__(self) -> None:
        limit: Any = self.rate_limit
        if not isinstance(limit, AnyLimit):
            rule = "be a RateLimit, a RollingLimit or a RateLimiter"
            raise checks.refuse(TypeError, "Step.rate_limit", "limit", rule, limit)
        checks.integer("Step.rate_limit", "max_keys", self.max_keys, at_least=1)
        if self.max_keys != MAX_KEYS and self.per_key is None:
            raise TypeError("Step.rate_limit: max_keys must come with per_key")
        for name in ("cost", "key", "settle", "per_key"):
            if getattr(self, name) is not None:
                checks.sync_callable("Step.rate_limit", name, getattr(self, name))

    def describe(self, *, with_group: bool = True) -> str:
        """One-line description; reports leave the group out, because the keys there have its name."""
        group = "" if self.group is None or not with_group else self.group.describe()
        shared = "" if self.limiter is None else f", shared{group}"
        key = "" if self.key is None else f" by {function_name(self.key)}"
        if self.per_key is not None:
            key = f" for each {function_name(self.per_key)} (at most {self.max_keys})"
        cost = "" if self.cost is None else f", an item costs what {function_name(self.cost)} says"
        settle = "" if self.settle is None else f", settled by {function_name(self.settle)}"
        return f"rate limit of {self.rate_limit.describe()}{shared}{key}{cost}{settle}"


@dataclass(frozen=True, slots=True)
class Places:
    """What is inside runs so many times at once, over all who share that."""

    places: int
    limiter: Any
    """The shared `PlaceLimiter`, or a group of one."""
    key: Callable[[Any], Hashable] | None = field(default=None, hash=False)
    share: FairShare[Any] | None = None
    """The shares of that limiter."""
    group: Group | None = None
    """Which group of the limiter; None for the limiter itself."""

    def __post_init__(self) -> None:
        checks.integer("Step.places", "places", self.places, at_least=1)
        if self.key is not None:
            checks.sync_callable("Step.places", "key", self.key)

    def describe(self, *, with_group: bool = True) -> str:
        """One-line description; reports leave the group out, because the keys there have its name."""
        group = "" if self.group is None or not with_group else self.group.describe()
        key = "" if self.key is None else f" by {function_name(self.key)}"
        return f"{self.places} places, shared{group}{key}"


@dataclass(frozen=True, slots=True)
class Fallback:
    """What is inside is replaced by another step where it fails."""

    step: StepPlan


@dataclass(frozen=True, slots=True)
class Hedge:
    """What is inside is called once more where it is slow."""

    after: float
    most: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "after", checks.seconds("Step.hedge", "after", self.after))
        checks.integer("Step.hedge", "most", self.most, at_least=2)

    def describe(self) -> str:
        """One-line description."""
        return f"hedge: up to {self.most} calls, one more after each {self.after:g} s"


@dataclass(frozen=True, slots=True)
class Coalesce:
    """What is inside is called once for equal items at a time."""

    key: Callable[[Any], Hashable] = field(hash=False)

    def __post_init__(self) -> None:
        checks.sync_callable("Step.coalesce", "key", self.key)

    def describe(self) -> str:
        """One-line description."""
        return f"coalesce: one call at a time for each {function_name(self.key)}, whose result equal calls share"


Layer: TypeAlias = Timeout | Limit | Places | Retry | CircuitBreaker | Fallback | Hedge | Coalesce
Admitting: TypeAlias = Limit | Places
"""What a call waits for, and takes when it starts."""


@dataclass(frozen=True, slots=True)
class Within:
    """Parts with one policy around them."""

    inner: tuple[Part, ...]
    layer: Layer

    def __post_init__(self) -> None:
        if isinstance(self.layer, Retry):
            _refuse_once(self.inner, "retried: a failed call may have had its effect")
            if self.layer.pauses_limit and not any(isinstance(each, Limit) for each in layers_in(self.inner)):
                raise PlanError(
                    "Step.retry: pauses_limit must have a rate limit inside the retry, which it pauses\n"
                    "Write .rate_limit(limiter) before .retry(retry)."
                )
        elif isinstance(self.layer, Hedge):
            _refuse_once(self.inner, "hedged: both calls may have their effect")
        elif isinstance(self.layer, Limit) and self.layer.limiter is not None and len(self.inner) == 1:
            _refuse_twice(self.layer.limiter, self.inner[0])
        elif isinstance(self.layer, Places):
            _refuse_nested(self.layer.limiter, self.inner)

    @property
    def rows(self) -> tuple[tuple[Part, ...], ...]:
        """The rows of parts in it: what is inside, and the other step of a fallback."""
        return (self.inner, self.layer.step.parts) if isinstance(self.layer, Fallback) else (self.inner,)


def _refuse_once(parts: tuple[Part, ...], what: str) -> None:
    """Refuse a second call of what is not idempotent, also of what a started step calls."""
    once = [call.name for call in _calls_inside(parts) if not call.idempotent]
    if once:
        raise PlanError(
            *(
                f"step {named(name)}: a step with idempotent=False must not be {what}.\n"
                "Use idempotent=True if calling it again does no harm."
                for name in once
            )
        )


def _refuse_twice(limiter: object, part: Part) -> None:
    """Refuse a limiter that already applies to the call."""
    if any(same_limiter(each.limiter, limiter) for each in limits_around(part)[0]):
        raise ValueError(
            "Step.rate_limit: a limiter must be met once by a call, not twice\nUse cost= to let it take more."
        )


def _refuse_nested(limiter: object, parts: tuple[Part, ...]) -> None:
    """Refuse places inside of places of the same limiter: calls could wait for each other for ever."""
    if any(isinstance(each, Places) and same_limiter(each.limiter, limiter) for each in _layers_of_calls(parts)):
        raise ValueError(
            "Step.places: a call must not wait for a second place of a limiter while it holds one\n"
            "Use .places(limiter) once."
        )


def same_limiter(one: Any, other: Any) -> bool:
    """Return whether two are the same limiter, or groups of the same one."""
    shared = getattr(one, "_shared", None)
    return shared is not None and shared is getattr(other, "_shared", None)


Part: TypeAlias = Call | Pure | Within


@dataclass(frozen=True, slots=True)
class Placed:
    """A call on a runner, with the policies that begin once it has its thread or process."""

    call: Call
    outside: tuple[Limit, ...]
    """The rate limits outside the timeout, outermost first."""
    timeout: Timeout | None
    inside: tuple[Limit, ...]
    """Those inside it, or all without a timeout."""

    @staticmethod
    def of(part: Part) -> Placed | None:
        """Find rate limits and the first timeout directly behind ``on``; None if the part is anything more.

        Waiting for a thread or process does not count as the call's time, and takes no token. Anything behind another
        policy, and a second timeout, applies to all of it.
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

    def using(self, using: Using) -> StepPlan:
        """Return the step with a resource, if it is a call and nothing more."""
        (part, *more) = self.parts
        if more or not isinstance(part, Call) or part.using is not None:
            raise PlanError(
                f"step {named(self.name)}: using must come first, and once: its function gets the resource.\n"
                "Use Step(fn).using(open), then the policies around it."
            )
        return StepPlan(self.name, (replace(part, using=using),))

    def needs_block(self) -> bool:
        """Return whether it has tasks of its own: to hold a resource open, or for calls that outlive their caller's."""
        has_resources = any(call.using is not None for call in self.calls())
        return has_resources or any(isinstance(layer, Hedge | Coalesce) for layer in layers_in(self.parts))

    def then(self, step: StepPlan) -> StepPlan:
        """Return a step that passes its result to another."""
        return StepPlan(f"{self.name} > {step.name}", self.parts + step.parts)

    def calls(self) -> Iterator[Call]:
        """Yield every call in it."""
        return _calls(self.parts)

    def needs_seed(self) -> bool:
        """Return whether the jitter of its retries depends on the seed of the run."""
        return any(isinstance(layer, Retry) and needs_seed(layer) for layer in layers_in(self.parts))

    def problems(self) -> Iterator[str]:
        """Yield what makes it unable to run."""
        return (problem for call in self.calls() if (problem := call.problem()) is not None)

    def lines(self) -> list[str]:
        """Describe it, a line for each call and policy, inside out."""
        return list(_lines(self.parts))


def layers_in(parts: tuple[Part, ...]) -> Iterator[Layer]:
    """Yield every policy in a row of parts."""
    for part in parts:
        if isinstance(part, Within):
            yield part.layer
            for row in part.rows:
                yield from layers_in(row)


def _layers_of_calls(parts: tuple[Part, ...]) -> Iterator[Layer]:
    """Yield every policy in a row of parts, and in the started steps that it calls."""
    yield from layers_in(parts)
    for call in _calls_inside(parts):
        started = step_of(call.fn)
        if started is not None:
            yield from layers_in(started.parts)


def keeps_place_inside(layer: Layer) -> bool:
    """Whether an item must keep its place of a stage while it waits inside of a policy.

    Other items, which have such places, may wait for what it has there (a place, the probe of a circuit, the outcome of
    an equal call); or it is not the only call of its item.
    """
    return isinstance(layer, Places | Hedge | Coalesce) or (isinstance(layer, CircuitBreaker) and layer.wait)


def retries_elsewhere_in(parts: tuple[Part, ...]) -> Iterator[Retry]:
    """Yield every retry between whose attempts an item need not keep its place."""
    for part in parts:
        if isinstance(part, Within) and not keeps_place_inside(part.layer):
            if isinstance(part.layer, Retry):
                yield part.layer
            for row in part.rows:
                yield from retries_elsewhere_in(row)


def limits_around(part: Part) -> tuple[tuple[Admitting, ...], tuple[Part, ...]]:
    """Return the limits around a part that a call meets at one instant, outermost first, and the parts inside.

    That is those with nothing between them; except that the rate limits directly behind ``on`` begin only when a call
    has its thread or process, so places around them are taken before that.
    """
    limits: list[Admitting] = []
    parts: tuple[Part, ...] = (part,)
    is_placed = Placed.of(part) is not None
    while len(parts) == 1 and isinstance(parts[0], Within) and isinstance(parts[0].layer, Limit | Places):
        if limits and not is_placed and Placed.of(parts[0]) is not None:
            break
        limits.append(parts[0].layer)
        parts = parts[0].inner
    return tuple(limits), parts


def step_of(fn: object) -> StepPlan | None:
    """Return the plan of a step, also of a started one; None for a plain function."""
    plan = getattr(fn, "plan", None)
    return plan if isinstance(plan, StepPlan) else None


def _calls(parts: tuple[Part, ...]) -> Iterator[Call]:
    for part in parts:
        if isinstance(part, Within):
            for row in part.rows:
                yield from _calls(row)
        elif isinstance(part, Call):
            yield part


def _calls_inside(parts: tuple[Part, ...]) -> Iterator[Call]:
    """Yield every call in a row of parts, and in the started steps that it calls."""
    for call in _calls(parts):
        yield call
        started = step_of(call.fn)
        if started is not None:
            yield from _calls_inside(started.parts)


def _lines(parts: tuple[Part, ...]) -> Iterator[str]:
    for number, part in enumerate(parts):
        then = "then " if number else ""
        if isinstance(part, Call):
            where = "" if part.runner is None else f" on {part.runner.describe()}"
            once = "" if all(call.idempotent for call in _calls_inside((part,))) else ", not idempotent"
            using = "" if part.using is None else f", {part.using.describe()}"
            yield f"{then}call {function_name(part.fn)}{where}{using}{once}"
        elif isinstance(part, Pure):
            yield f"{then}{function_name(part.fn)}"
        else:
            inner = list(_lines(part.inner))
            yield then + inner[0]
            yield from inner[1:]
            around = " around all of these" if len(part.inner) > 1 else ""
            together = ", at one instant with the one above" if len(limits_around(part)[0]) > 1 else ""
            if isinstance(part.layer, Fallback):
                yield f"  fallback{around}, after any failure:"
                yield from (f"    {line}" for line in part.layer.step.lines())
            else:
                yield f"  {_described(part.layer)}{around}{together}"


def _described(layer: Layer) -> str:
    if isinstance(layer, Retry):
        return f"retry: {layer.describe()}"
    if isinstance(layer, CircuitBreaker):
        return f"circuit breaker: {layer.describe()}"
    assert not isinstance(layer, Fallback)  # which has lines of its own
    return layer.describe()
