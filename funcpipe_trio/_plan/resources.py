"""How are sources described that need a resource, or a thread, for what they iterate?

As data: a resource is open for as long as items of the run may use it, an iterable in a thread may block. `_runtime`
sees to both.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, field
from typing import Any

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import AnyFunction, function_name, is_async
from .nodes import Source
from .steps import RunnerPlan, checked_open


@dataclass(frozen=True, slots=True)
class UsingSource(Source):
    """What a function gives of a resource; `origin` holds that function."""

    _: KW_ONLY
    open: AnyFunction = field(hash=False)

    def __post_init__(self) -> None:
        where, fn = self.method, self.origin.value
        checked_open(where, self.open)
        checks.callable_(where, "fn", fn)
        if is_async(fn):
            rule = "give an iterable, async iterable or pipeline, without being awaited"
            raise checks.refuse(TypeError, where, "fn", rule, fn)
        checks.text(where, "name", self.name)

    def describe(self) -> str:
        return f"{function_name(self.origin.value)} using {function_name(self.open)}"


@dataclass(frozen=True, slots=True)
class IterableInThread(Source):
    """An iterable that is made, advanced and closed in a thread."""

    _: KW_ONLY
    on: RunnerPlan

    def __post_init__(self) -> None:
        Source.__post_init__(self)
        on: Any = self.on
        if not isinstance(on, RunnerPlan) or on.place != "thread":
            raise checks.refuse(TypeError, self.method, "on", "be threads(1)", on)
        if getattr(on, "limit", None) != 1:
            rule = "be threads(1), because an iterator is advanced by one thread at a time"
            raise checks.refuse(ValueError, self.method, "on", rule, on)

    def describe(self) -> str:
        left = ", left behind when cancelled" if getattr(self.on, "abandon_on_cancel", False) else ""
        return f"{Source.describe(self)}, in a thread{left}"
