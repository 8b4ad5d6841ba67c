"""Which operations compare an item with those around it, as data? Windows, and `distinct`.

Each remembers a bounded number of items or keys. Nothing here looks at an item.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import AnyFunction, function_name
from .operations import Grouping, Operation


@dataclass(frozen=True, slots=True)
class Window(Grouping):
    """Lists of consecutive items, closed by number, or at multiples of a period."""

    verb: ClassVar[str] = "window"
    period: float | None = None

    def __post_init__(self) -> None:
        if self.max_items is None and self.period is None:
            raise ValueError(f"{self.method}: one of max_items, period must be given")
        Grouping.__post_init__(self)
        if self.period is not None:
            object.__setattr__(self, "period", checks.seconds(self.method, "period", self.period))

    @property
    def needs_stage(self) -> bool:
        return self.period is not None  # a clock must be watched while the input is silent

    def describe(self) -> str:
        limits = []
        if self.max_items is not None:
            limits.append(f"{self.max_items} items")
        if self.period is not None:
            limits.append(f"all within a period of {self.period:g} s")
        return f"{Operation.describe(self)} of {' or '.join(limits)}"


@dataclass(frozen=True, slots=True)
class Sliding(Operation):
    """Tuples of `size` consecutive items, one for every `step` items."""

    verb: ClassVar[str] = "sliding"
    size: int = 1
    step: int = 1

    def __post_init__(self) -> None:
        Operation.__post_init__(self)
        checks.integer(self.method, "n", self.size, at_least=1)
        checks.integer(self.method, "step", self.step, at_least=1)

    @property
    def gathers(self) -> int:
        return min(self.size, self.step)  # an item counts with the first window it is in; no window has more new items

    @property
    def keeps(self) -> int:
        return max(0, self.size - self.step)  # except the first window, in which every item is new

    @property
    def waits_for_more(self) -> bool:
        return True

    def describe(self) -> str:
        return f"{Operation.describe(self)} of {self.size} items, every {self.step}"


@dataclass(frozen=True, slots=True)
class Distinct(Operation):
    """Only the items whose key is not among those seen last; the others count as dropped."""

    verb: ClassVar[str] = "distinct"
    key: AnyFunction | None = field(default=None, hash=False)  # an object that is called may have no hash
    remember: int = 1

    def __post_init__(self) -> None:
        Operation.__post_init__(self)
        if self.key is not None:
            checks.sync_callable(self.method, "key", self.key)
        checks.integer(self.method, "remember", self.remember, at_least=1)

    def describe(self) -> str:
        by = "" if self.key is None else f" by {function_name(self.key)}"
        return f"{Operation.describe(self)}{by} among the last {self.remember}"
