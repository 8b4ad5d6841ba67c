"""How is a resource described that is opened for as long as items of a run may use it? As data; `_runtime` opens it."""

from __future__ import annotations

from dataclasses import KW_ONLY, field

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import AnyFunction, function_name, is_async
from .nodes import Source
from .steps import checked_open


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
