"""Which operations depend on time, as data? Some decide when an item continues, others when the stream ends.

The rule: each has to watch the clock while its input is silent, so each begins a stage. The only exception is a
throttle directly behind a sync iterable (see `layout`): it runs in the stage of the iterable. Nothing here reads a
clock.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import AnyFunction, function_name
from ..policies.rate_limit import AnyLimit, checked_limit
from .operations import Operation
from .steps import step_of


@dataclass(frozen=True, slots=True)
class Paced(Operation):
    """An operation that keeps items until their time has come."""

    @property
    def needs_stage(self) -> bool:
        return True

    @property
    def workers(self) -> int:
        return 0  # it passes an item on in the turn in which there is room for it

    @property
    def keeps(self) -> int | float:
        return 1


@dataclass(frozen=True, slots=True)
class Throttle(Paced):
    """Each item, at the pace of a token bucket."""

    verb: ClassVar[str] = "throttle"
    rate_limit: AnyLimit
    cost: AnyFunction | None = field(default=None, hash=False)  # an object that is called may have no hash

    def __post_init__(self) -> None:
        Paced.__post_init__(self)
        checked_limit(self.method, "rate_limit", self.rate_limit, "Use RateLimit(8), say.")
        if self.cost is not None:
            checks.sync_callable(self.method, "cost", self.cost)

    @property
    def is_one_to_one(self) -> bool:
        return True

    @property
    def keeps(self) -> int:
        return 0

    @property
    def holds_back(self) -> bool:
        return True  # it takes an item when there is room for it, so the item that waits is counted in the link behind

    def describe(self) -> str:
        cost = "" if self.cost is None else f", an item costs what {function_name(self.cost)} says"
        return f"{Operation.describe(self)} to {self.rate_limit.describe()}{cost}"


@dataclass(frozen=True, slots=True)
class Debounce(Paced):
    """The last item, when no newer one came for some time."""

    verb: ClassVar[str] = "debounce"
    delay: float
    max_wait: float | None = None

    def __post_init__(self) -> None:
        Paced.__post_init__(self)
        object.__setattr__(self, "delay", checks.seconds(self.method, "delay", self.delay))
        if self.max_wait is not None:
            object.__setattr__(self, "max_wait", checks.seconds(self.method, "max_wait", self.max_wait))
            if self.max_wait < self.delay:
                rule = f"be >= the delay of {self.delay:g} s"
                raise checks.refuse(ValueError, self.method, "max_wait", rule, self.max_wait)

    def describe(self) -> str:
        most = "" if self.max_wait is None else f", at most {self.max_wait:g} s after the first that waits"
        return f"{Operation.describe(self)} of {self.delay:g} s{most}"


@dataclass(frozen=True, slots=True)
class Sample(Paced):
    """The last item, at multiples of a period."""

    verb: ClassVar[str] = "sample"
    period: float

    def __post_init__(self) -> None:
        Paced.__post_init__(self)
        object.__setattr__(self, "period", checks.seconds(self.method, "period", self.period))

    def describe(self) -> str:
        return f"{Operation.describe(self)} every {self.period:g} s"


@dataclass(frozen=True, slots=True)
class Delay(Paced):
    """Each item, some time after it came."""

    verb: ClassVar[str] = "delay"
    seconds: float
    max_items: int

    def __post_init__(self) -> None:
        Paced.__post_init__(self)
        object.__setattr__(self, "seconds", checks.seconds(self.method, "seconds", self.seconds))
        checks.integer(self.method, "max_items", self.max_items, at_least=1)

    @property
    def is_one_to_one(self) -> bool:
        return True

    @property
    def keeps(self) -> int | float:
        return self.max_items

    def describe(self) -> str:
        return f"{Operation.describe(self)} of {self.seconds:g} s, for at most {self.max_items} at a time"


@dataclass(frozen=True, slots=True)
class Watched(Operation):
    """An operation that acts when no item comes, or at a time that no item decides; it keeps no items."""

    @property
    def needs_stage(self) -> bool:
        return True

    @property
    def workers(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class IdleTimeout(Watched):
    """A number of seconds without an item is a failure."""

    verb: ClassVar[str] = "idle_timeout"
    seconds: float

    def __post_init__(self) -> None:
        Watched.__post_init__(self)
        object.__setattr__(self, "seconds", checks.seconds(self.method, "seconds", self.seconds))

    @property
    def is_one_to_one(self) -> bool:
        return True

    def describe(self) -> str:
        return f"{Operation.describe(self)} of {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class Timeout(Watched):
    """A stream, or its first item, that takes longer is a failure."""

    verb: ClassVar[str] = "timeout"
    seconds: float | None
    first: float | None

    def __post_init__(self) -> None:
        Watched.__post_init__(self)
        if self.seconds is None and self.first is None:
            raise ValueError(f"{self.method}: one of seconds, first must be given")
        if self.seconds is not None:
            object.__setattr__(self, "seconds", checks.seconds(self.method, "seconds", self.seconds))
        if self.first is not None:
            object.__setattr__(self, "first", checks.seconds(self.method, "first", self.first))

    @property
    def is_one_to_one(self) -> bool:
        return True

    def describe(self) -> str:
        whole = [] if self.seconds is None else [f"{self.seconds:g} s for the whole stream"]
        first = [] if self.first is None else [f"{self.first:g} s for the first item"]
        return f"{Operation.describe(self)} of {' and '.join(whole + first)}"


@dataclass(frozen=True, slots=True)
class TakeFor(Watched):
    """The items that come before a time is over; the stream ends then."""

    verb: ClassVar[str] = "take_for"
    seconds: float

    def __post_init__(self) -> None:
        Watched.__post_init__(self)
        object.__setattr__(self, "seconds", checks.seconds(self.method, "seconds", self.seconds))

    def describe(self) -> str:
        return f"{Operation.describe(self)} {self.seconds:g} s"


@dataclass(frozen=True, slots=True)
class StopWhen(Watched):
    """The items that come before an async function returns; the stream ends then."""

    verb: ClassVar[str] = "stop_when"
    fn: AnyFunction = field(hash=False)  # an object that is called may have no hash

    def __post_init__(self) -> None:
        Watched.__post_init__(self)
        rule = "be a trio.Event or an async function without arguments"
        checks.async_callable(self.method, "event", self.fn, rule)
        if step_of(self.fn) is not None:
            raise checks.refuse(TypeError, self.method, "event", rule, self.fn)
        checks.takes(self.method, "event", self.fn, 0)

    def describe(self) -> str:
        owner = getattr(self.fn, "__self__", None)  # of the `wait` of an event
        of = "" if owner is None else f"{type(owner).__name__}."
        return f"{Operation.describe(self)} {of}{function_name(self.fn)} returns"


@dataclass(frozen=True, slots=True)
class KeepAlive(Watched):
    """The items, and one that a function makes whenever none came for some time."""

    verb: ClassVar[str] = "keep_alive"
    seconds: float
    fn: AnyFunction = field(hash=False)  # an object that is called may have no hash

    def __post_init__(self) -> None:
        Watched.__post_init__(self)
        object.__setattr__(self, "seconds", checks.seconds(self.method, "seconds", self.seconds))
        checks.sync_callable(self.method, "make_item", self.fn)
        checks.takes(self.method, "make_item", self.fn, 0)

    def describe(self) -> str:
        return f"{Operation.describe(self)} by {function_name(self.fn)} after {self.seconds:g} s"
