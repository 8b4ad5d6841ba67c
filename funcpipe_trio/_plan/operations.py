"""What are the operations of a pipeline, as data, and how does each read in a plan?

The rule: an operation is *fused* (it runs in the task of the stage before it, without a link) unless it needs its own
stage, which the layout asks first: `needs_stage`.

The invariant: each checks itself, so a wrong one cannot be made; the error names the public method that makes it. An
operation runs nothing; its running form is in `_runtime/operations`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import field
from typing import Any, ClassVar, Final, Literal, get_args

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import AnyFunction, function_name, is_async, never_awaitable, yields_async
from .._base.shown import named
from ..policies.adaptive import Adaptive
from ..policies.fair_share import FairShare
from ..policies.on_error import Divert, Emit, OnError, Stop
from ..policies.on_full import OnFull
from ..policies.rate_limit import AnyLimit, checked_limit
from ..policies.retry import Retry
from .steps import layers_in, retries_elsewhere_in, step_of

STOP = Stop()

Overflow = Literal["block", "drop_oldest", "drop_newest", "fail"]
"""What happens to an item for which a buffer has no room; ``block``: the stage before it waits."""

FullOfKeys = Literal["oldest", "fail"]
"""What happens at one key too many; ``oldest``: what the key that was idle longest has goes out, and makes room."""


LATEST: Final = "latest"
"""Why an item is dropped that a newer one superseded, where only the latest is worked on."""
DROPS: tuple[str, ...] = (*get_args(Overflow), LATEST)
"""The reasons with which dropped items are told."""


class Opaque:
    """A user's value inside a plan: equal only to itself, so that plans compare without comparing items."""

    __slots__ = ("value",)

    value: Any

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Opaque) and other.value is self.value

    def __hash__(self) -> int:
        return hash(Opaque)  # equal values must hash alike, and an item may have no hash

    def __repr__(self) -> str:
        return f"<{type(self.value).__name__}>"  # never the value: it may hold secrets, or be endless


def check_share(where: str, share: Any) -> FairShare[Any]:
    """Refuse anything but a `FairShare`, such as a mapping of weights."""
    return checks.instance(where, "share", share, FairShare, 'Use FairShare({"a": 3}), say.')


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing done to the stream at one point; `name` is its name in errors and reports."""

    verb: ClassVar[str] = ""
    name: str

    def __post_init__(self) -> None:
        checks.text(self.method, "name", self.name)

    @property
    def method(self) -> str:
        """The public method that makes it, for errors."""
        return f"Pipeline.{self.verb}"

    @property
    def needs_stage(self) -> bool:
        """Whether it waits for something, so that it cannot run in the stage before it."""
        return False

    @property
    def is_timed(self) -> bool:
        """Whether it may give a value when a time has come, though none comes to it."""
        return False

    @property
    def workers(self) -> int:
        """How many items it may process at once in its own stage; 0 if it is fused."""
        return 1 if self.needs_stage else 0

    @property
    def keeps(self) -> int | float:
        """How many elements it may keep between one element and the next, wherever it runs."""
        return 0

    @property
    def gathers(self) -> int | float | None:
        """The most elements that one value it makes stands for; None if it gathers none."""
        return None

    @property
    def holds_back(self) -> bool:
        """Whether it may hold an element outside of a call: what it makes of that is counted with it.

        If the link has room for the next value to leave, that is the element's place; a link that drops needs one more.
        """
        return False

    @property
    def waits_for_more(self) -> bool:
        """Whether it may keep items until others come, however long that takes."""
        return False

    @property
    def is_one_to_one(self) -> bool:
        """Whether it makes exactly one value of each, in their order, unless the stream fails."""
        return False

    def describe(self) -> str:
        """One-line description."""
        return self.verb if self.name.partition("#")[0] == self.verb else f"{self.verb} as {self.name}"

    def details(self) -> list[str]:
        """Return more about it, one line for each fact."""
        return []

    def problems(self) -> Iterator[str]:
        """Yield what makes it unable to run."""
        return iter(())


@dataclass(frozen=True, slots=True)
class WithFunction(Operation):
    """An operation by a user's function, or by a step."""

    fn: AnyFunction = field(hash=False)  # an object that is called may have no hash

    def __post_init__(self) -> None:
        check_function(self.method, self.fn)
        Operation.__post_init__(self)

    @property
    def needs_stage(self) -> bool:
        return is_async(self.fn)

    def describe(self) -> str:
        shown = function_name(self.fn)
        # A name that only tells equal functions apart adds nothing here; errors and reports need it.
        alias = "" if self.name.partition("#")[0] == shown else f" as {self.name}"
        return f"{'async ' if self.needs_stage else ''}{self.verb} {shown}{alias}"

    def details(self) -> list[str]:
        step = step_of(self.fn)
        return [] if step is None else step.lines()

    def problems(self) -> Iterator[str]:
        step = step_of(self.fn)
        return iter(()) if step is None else step.problems()


def check_function(where: str, fn: Any) -> None:
    """Refuse what cannot be called, and an async generator function: its generator would be taken for the result."""
    checks.callable_(where, "fn", fn)
    if yields_async(fn):
        rule, use = "be no async generator function", "Use flat_map to put many values in an item's place."
        raise checks.refuse(TypeError, where, "fn", rule, fn, use)


@dataclass(frozen=True, slots=True)
class Concurrent(WithFunction):
    """An operation that may call a function for several items at once; with `concurrency` it has its own stage."""

    concurrency: int | Adaptive | None = None

    def __post_init__(self) -> None:
        WithFunction.__post_init__(self)
        if not isinstance(self.concurrency, Adaptive):
            _check_concurrency(self.method, self.concurrency)

    @property
    def needs_stage(self) -> bool:
        return self.concurrency is not None or is_async(self.fn)

    @property
    def workers(self) -> int:
        if isinstance(self.concurrency, Adaptive):
            return self.concurrency.maximum
        return self.concurrency or 1 if self.needs_stage else 0

    @property
    def at_once(self) -> str:
        """How many calls it makes at once, as a plan says it."""
        adaptive = self.concurrency
        return adaptive.describe() if isinstance(adaptive, Adaptive) else f"{self.workers} at a time"

    @property
    def awaits(self) -> bool:
        """Whether the result of the function is awaited, whatever kind of function it is."""
        return self.concurrency is not None

    def describe(self) -> str:
        said = WithFunction.describe(self)
        return said if self.concurrency is None else f"{said}, {self.at_once}, in order"

    def details(self) -> list[str]:
        adaptive = self.concurrency
        said = [f"adaptive: {adaptive.details()}"] if isinstance(adaptive, Adaptive) else []
        return [*said, *WithFunction.details(self)]

    def problems(self) -> Iterator[str]:
        yield from WithFunction.problems(self)
        if self.awaits and never_awaitable(self.fn):
            yield (
                f"{self.verb} {self.name!r}: with concurrency, fn must be an async function, or give something to await"
                f"; {function_name(self.fn)} never does.\nUse Step(fn).on(threads(4)), or leave out concurrency."
            )


def _check_concurrency(where: str, concurrency: Any) -> None:
    if concurrency is not None:
        checks.integer(where, "concurrency", concurrency, at_least=1)


@dataclass(frozen=True, slots=True)
class Map(Concurrent):
    """Each item becomes the result of the function."""

    verb: ClassVar[str] = "map"
    ordered: bool = True
    key: AnyFunction | None = field(default=None, hash=False)
    per_key: int = 1
    key_rate: AnyLimit | None = None
    waiting: int = 0
    on_error: OnError = STOP
    latest: bool = False
    retries_elsewhere: int = 0

    def __post_init__(self) -> None:
        Concurrent.__post_init__(self)
        checks.boolean(self.method, "ordered", self.ordered)
        checks.boolean(self.method, "latest", self.latest)
        if self.key is not None:
            checks.sync_callable(self.method, "key", self.key)
        checks.integer(self.method, "per_key", self.per_key, at_least=1)
        if self.key_rate is not None:
            checked_limit(self.method, "key_rate", self.key_rate, "Use RateLimit(5), say.")
        checks.integer(self.method, "waiting", self.waiting, at_least=0)
        checks.integer(self.method, "retries_elsewhere", self.retries_elsewhere, at_least=0)
        if self.key is None:
            given = {"per_key": self.per_key > 1, "key_rate": self.key_rate is not None, "waiting": self.waiting > 0}
            for name in [name for name, is_given in given.items() if is_given]:
                raise TypeError(f"{self.method}: {name} must come with key")
        _check_on_error(self.method, self.on_error)

    @property
    def needs_stage(self) -> bool:
        # The step of a divert waits, even if the function does not.
        waits = is_async(self.fn) or isinstance(self.on_error, Divert)
        return self.concurrency is not None or waits

    @property
    def keeps(self) -> int:
        return self.waiting + self.retries_elsewhere

    @property
    def is_one_to_one(self) -> bool:
        is_in_order = not self.latest and (self.ordered or not self.needs_stage)
        return is_in_order and isinstance(self.on_error, Stop | Emit)

    def describe(self) -> str:
        said = WithFunction.describe(self)
        if not self.needs_stage:
            return said
        if self.latest:
            return f"{said}, {_LATEST_ONLY}"
        aside = f", up to {self.retries_elsewhere} retries elsewhere" if self.retries_elsewhere else ""
        in_order = "in order" if self.ordered else "as completed"
        return f"{said}, {self.at_once}{self._by_key()}{aside}, {in_order}"

    def _by_key(self) -> str:
        if self.key is None:
            return ""
        at_once = "one" if self.per_key == 1 else self.per_key
        rate = "" if self.key_rate is None else f" at {self.key_rate.describe()}"
        waiting = f", up to {self.waiting} waiting aside" if self.waiting else ""
        return f", {at_once} at a time of each {function_name(self.key)}{rate}{waiting}"

    def details(self) -> list[str]:
        return [*Concurrent.details(self), *_on_error(self.on_error)]

    def problems(self) -> Iterator[str]:
        yield from Concurrent.problems(self)
        yield from _on_error_problems(self.on_error)
        yield from _latest_problems(self, is_awaited=self.awaits or is_async(self.fn))
        if self.latest and self.key is not None:
            yield f"map {named(self.name)}: key must not be given with latest=True, which works on one item at a time"
        yield from self._elsewhere_problems()

    def _elsewhere_problems(self) -> Iterator[str]:
        if not self.retries_elsewhere:
            return
        where, step = f"{self.verb} {named(self.name)}: retries_elsewhere", step_of(self.fn)
        if step is None or not any(isinstance(layer, Retry) for layer in layers_in(step.parts)):
            yield (
                f"{where} must come with a step that has a Retry, which {function_name(self.fn)} has not"
                "\nUse Step(fn).retry(Retry(3)), or leave out retries_elsewhere."
            )
        elif not any(retries_elsewhere_in(step.parts)):
            yield (
                f"{where} must come with a Retry outside of places, hedge, coalesce and any circuit breaker with "
                "wait=True, where an item keeps its place: others may wait for what it has there"
                "\nWrite retry behind them, or leave out retries_elsewhere."
            )
        if self.latest:
            yield f"{where} must not be given with latest=True, which works on one item at a time"


@dataclass(frozen=True, slots=True)
class Filter(Concurrent):
    """Only the items for which the function returns true; the others count as dropped."""

    verb: ClassVar[str] = "filter"


@dataclass(frozen=True, slots=True)
class FlatMap(WithFunction):
    """Each item becomes all items of the iterable that the function returns; with `concurrency` in its own stage."""

    verb: ClassVar[str] = "flat_map"
    concurrency: int | None = None
    on_error: OnError = STOP
    latest: bool = False

    def __post_init__(self) -> None:
        checks.callable_(self.method, "fn", self.fn)  # an async generator function is fine here
        Operation.__post_init__(self)
        checks.boolean(self.method, "latest", self.latest)
        _check_concurrency(self.method, self.concurrency)
        _check_on_error(self.method, self.on_error)

    @property
    def needs_stage(self) -> bool:
        waits = is_async(self.fn) or yields_async(self.fn) or isinstance(self.on_error, Divert)
        return self.concurrency is not None or waits

    @property
    def workers(self) -> int:
        return self.concurrency or 1 if self.needs_stage else 0

    @property
    def holds_back(self) -> bool:
        return not self.needs_stage  # it holds the item whose children are leaving

    def describe(self) -> str:
        said = WithFunction.describe(self)
        how = _LATEST_ONLY if self.latest else f"{self.concurrency or 1} at a time"
        return f"{said}, {how}" if self.needs_stage else said

    def details(self) -> list[str]:
        return [*WithFunction.details(self), *_on_error(self.on_error)]

    def problems(self) -> Iterator[str]:
        yield from WithFunction.problems(self)
        yield from _on_error_problems(self.on_error)
        is_awaited = self.concurrency is not None or is_async(self.fn) or yields_async(self.fn)
        yield from _latest_problems(self, is_awaited=is_awaited)


_LATEST_ONLY = "the latest item only"


def _latest_problems(operation: Map | FlatMap, *, is_awaited: bool) -> Iterator[str]:
    where = f"{operation.verb} {named(operation.name)}: "
    if operation.latest and not is_awaited:
        yield (
            f"{where}with latest=True, fn must be async: a sync function cannot be cancelled\n"
            "Use an async function, or Step(fn).on(threads(1))."
        )
    if operation.latest and operation.concurrency not in (None, 1):
        yield f"{where}with latest=True, concurrency must be 1: one item is worked on at a time"


def _check_on_error(where: str, policy: Any) -> None:
    checks.instance(where, "on_error", policy, OnError, "Use OnError.skip(), say.")


def _on_error_problems(policy: OnError) -> Iterator[str]:
    step = step_of(policy.step) if isinstance(policy, Divert) else None
    return iter(()) if step is None else step.problems()


def _on_error(policy: OnError) -> list[str]:
    if isinstance(policy, Stop):
        return []
    step = step_of(policy.step) if isinstance(policy, Divert) else None
    return [f"on error: {policy.describe()}", *(f"  {line}" for line in (step.lines() if step is not None else []))]


@dataclass(frozen=True, slots=True)
class Scan(WithFunction):
    """Each item becomes the state so far: ``state = fn(state, item)``."""

    verb: ClassVar[str] = "scan"
    initial: Opaque = field(default_factory=lambda: Opaque(None))

    def __post_init__(self) -> None:
        check_fold(self.method, self.fn)
        Operation.__post_init__(self)

    @property
    def is_one_to_one(self) -> bool:
        return True


def check_fold(where: str, fn: Any) -> None:
    """Refuse what is not a function of a state and an item, such as a step."""
    if step_of(fn) is not None:
        use = "Use .map(step) before it."
        raise checks.refuse(TypeError, where, "fn", "be a function of a state and an item", fn, use)
    check_function(where, fn)


@dataclass(frozen=True, slots=True)
class Tap(Concurrent):
    """The function is called with each item; the item continues unchanged."""

    verb: ClassVar[str] = "tap"

    @property
    def is_one_to_one(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Route(WithFunction):
    """The function names the branch that each item goes to."""

    verb: ClassVar[str] = "route"
    branches: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks.sync_callable(self.method, "route", self.fn)
        Operation.__post_init__(self)

    @property
    def method(self) -> str:
        return "Pipeline.partition"


@dataclass(frozen=True, slots=True)
class Enumerate(Operation):
    """Each item becomes ``(number, item)``."""

    verb: ClassVar[str] = "enumerate"
    start: int = 0

    def __post_init__(self) -> None:
        Operation.__post_init__(self)
        checks.any_integer(self.method, "start", self.start)

    @property
    def is_one_to_one(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Take(Operation):
    """The first `count` items; the stream ends with the last of them."""

    verb: ClassVar[str] = "take"
    count: int = 0

    def __post_init__(self) -> None:
        Operation.__post_init__(self)
        checks.integer(self.method, "n", self.count, at_least=0)

    def describe(self) -> str:
        return f"take {self.count}"


@dataclass(frozen=True, slots=True)
class Skip(Operation):
    """All but the first `count` items; those count as dropped."""

    verb: ClassVar[str] = "skip"
    count: int = 0

    def __post_init__(self) -> None:
        Operation.__post_init__(self)
        checks.integer(self.method, "n", self.count, at_least=0)

    def describe(self) -> str:
        return f"skip {self.count}"


@dataclass(frozen=True, slots=True)
class TakeWhile(WithFunction):
    """The items before the first for which the function returns false."""

    verb: ClassVar[str] = "take_while"


@dataclass(frozen=True, slots=True)
class TakeUntil(WithFunction):
    """The items up to the first for which the function returns true, that one included."""

    verb: ClassVar[str] = "take_until"


@dataclass(frozen=True, slots=True)
class SkipWhile(WithFunction):
    """The items from the first for which the function returns false; those before count as dropped."""

    verb: ClassVar[str] = "skip_while"


@dataclass(frozen=True, slots=True)
class Grouping(Operation):
    """Lists of consecutive items; without `max_items` their length is not limited."""

    max_items: int | None = None

    def __post_init__(self) -> None:
        Operation.__post_init__(self)
        if self.max_items is not None:
            checks.integer(self.method, "max_items", self.max_items, at_least=1)

    @property
    def is_timed(self) -> bool:
        return self.needs_stage

    @property
    def workers(self) -> int:
        return 0  # the items it keeps are counted as the list that they become

    @property
    def gathers(self) -> int | float:
        return math.inf if self.max_items is None else self.max_items

    @property
    def waits_for_more(self) -> bool:
        return not self.needs_stage  # else its time comes


@dataclass(frozen=True, slots=True)
class Batch(Grouping):
    """Lists of items, or of the items of each key, closed by number, cost or age."""

    verb: ClassVar[str] = "batch"
    max_delay: float | None = None
    max_cost: int | float | None = None
    cost: AnyFunction | None = field(default=None, hash=False)
    key: AnyFunction | None = field(default=None, hash=False)
    max_keys: int | None = None
    full: FullOfKeys = "oldest"

    def __post_init__(self) -> None:
        Grouping.__post_init__(self)
        if self.max_delay is not None:
            seconds = checks.seconds(self.method, "max_delay", self.max_delay, positive=False)
            object.__setattr__(self, "max_delay", seconds)
        if self.max_cost is not None:
            _check_max_cost(self.method, self.max_cost)
        if self.cost is not None:
            checks.sync_callable(self.method, "cost", self.cost)
            if self.max_cost is None:
                raise TypeError(f"{self.method}: cost must come with max_cost")
        if self.max_items is None and self.max_delay is None and self.max_cost is None:
            raise ValueError(f"{self.method}: one of max_items, max_delay, max_cost must be given")
        check_keys(self.method, self.key, self.max_keys, self.full)

    @property
    def needs_stage(self) -> bool:
        return self.max_delay is not None  # a clock, or whether more is there, must be watched while nothing comes

    @property
    def takes_what_is_there(self) -> bool:
        """Whether it closes a list as soon as its input has nothing more."""
        return self.max_delay == 0

    @property
    def keeps(self) -> int | float:
        # The open batches but one, which has its place as without keys; none of them is full.
        others = (self.max_keys or 1) - 1
        return others * (self.gathers - 1) if others else 0

    def describe(self) -> str:
        limits = []
        if self.max_items is not None:
            limits.append(f"{self.max_items} items")
        if self.max_cost is not None:
            limits.append(f"cost {self.max_cost:g} by {function_name(self.cost) if self.cost else '1 each'}")
        if self.max_delay is not None:
            limits.append(f"{self.max_delay:g} s after its first item" if self.max_delay else "what is there")
        return f"{Operation.describe(self)} of {' or '.join(limits)}{by_key(self.key, self.max_keys, self.full)}"


def check_keys(where: str, key: Any, max_keys: Any, full: Any) -> None:
    """Refuse keys without a limit on their number, and that limit without keys."""
    checks.choice(where, "full", full, get_args(FullOfKeys))
    if key is None:
        if max_keys is not None or full != "oldest":
            raise TypeError(f"{where}: {'full' if max_keys is None else 'max_keys'} must come with key")
        return
    checks.sync_callable(where, "key", key)
    if max_keys is None:
        raise TypeError(f"{where}: key must come with max_keys, the most keys that it remembers at once")
    checks.integer(where, "max_keys", max_keys, at_least=1)


def by_key(key: AnyFunction | None, max_keys: int | None, full: FullOfKeys) -> str:
    """Say that there is one for each key, of at most so many; nothing without a key."""
    if key is None:
        return ""
    one_more = "flushes the one idle longest" if full == "oldest" else "fails"
    return f", for each {function_name(key)}, up to {max_keys} at once; one more {one_more}"


def _check_max_cost(where: str, max_cost: Any) -> None:
    if isinstance(max_cost, bool) or not isinstance(max_cost, int | float):
        raise checks.refuse(TypeError, where, "max_cost", "be a number > 0", max_cost)
    if not (checks.is_finite(max_cost) and max_cost > 0):
        raise checks.refuse(ValueError, where, "max_cost", "be > 0 and finite", max_cost)


@dataclass(frozen=True, slots=True)
class Unbatch(Operation):
    """The items of each batch, one by one."""

    verb: ClassVar[str] = "unbatch"

    @property
    def holds_back(self) -> bool:
        return True  # a list that is not a batch counts as one item until its last item has left


@dataclass(frozen=True, slots=True)
class Buffer(Operation):
    """The capacity of the one link at this point; 0: what is behind takes an item when it can use it."""

    verb: ClassVar[str] = "buffer"
    capacity: int | None = 16
    overflow: Overflow | OnFull = "block"
    max_cost: int | float | None = None
    cost: AnyFunction | None = field(default=None, hash=False)  # an object that is called may have no hash

    def __post_init__(self) -> None:
        Operation.__post_init__(self)
        if self.max_cost is None and self.cost is None:
            checks.integer(self.method, "capacity", self.capacity, at_least=0)
        else:
            self._check_costs()
        if not isinstance(self.overflow, OnFull):
            checks.choice(self.method, "overflow", self.overflow, get_args(Overflow))
        if self.capacity == 0 and self.overflow == "drop_oldest":
            raise ValueError(f"{self.method}: overflow must not be 'drop_oldest' with capacity 0, which holds nothing")
        if self.capacity == 0 and isinstance(self.overflow, OnFull):
            raise ValueError(f"{self.method}: overflow must not merge with capacity 0, which holds nothing")

    def _check_costs(self) -> None:
        if self.max_cost is None or self.cost is None:
            raise TypeError(f"{self.method}: max_cost and cost must come together")
        if self.capacity is not None:
            checks.integer(self.method, "capacity", self.capacity, at_least=1)
        _check_max_cost(self.method, self.max_cost)
        checks.sync_callable(self.method, "cost", self.cost)
        if isinstance(self.overflow, OnFull):
            raise ValueError(f"{self.method}: overflow must not merge with max_cost: what is merged has no cost")

    @property
    def places(self) -> int | float:
        """How many items it may hold, whatever they cost."""
        return math.inf if self.capacity is None else self.capacity

    @property
    def is_one_to_one(self) -> bool:
        return self.overflow in ("block", "fail")
