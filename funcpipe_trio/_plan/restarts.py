"""How is a source described that is opened again when it fails? As data; when that happens is decided in `_sansio`."""

from __future__ import annotations

import math
from dataclasses import field

from .._base import checks
from .._base.frozen import dataclass
from .._base.functions import function_name, is_async
from ..policies.retry import Retry
from .nodes import Source


@dataclass(frozen=True, slots=True)
class RestartingSource(Source):
    """What a callable makes, made again after each failure; `origin` holds the callable."""

    retry: Retry = field(default_factory=Retry)
    reset_after: float = math.inf

    def __post_init__(self) -> None:
        where, factory = self.method, self.origin.value
        checks.callable_(where, "source_factory", factory)
        if is_async(factory):
            rule = "give an iterable or async iterable, without being awaited"
            raise checks.refuse(TypeError, where, "source_factory", rule, factory)
        checks.text(where, "name", self.name)
        if checks.instance(where, "retry", self.retry, Retry).pauses_limit:
            raise ValueError(f"{where}: retry must not have pauses_limit: opening a source meets no rate limit")
        object.__setattr__(self, "reset_after", checks.seconds(where, "reset_after", self.reset_after, finite=False))

    def describe(self) -> str:
        healthy = "" if self.reset_after == math.inf else f", counted anew after {self.reset_after:g} s"
        return f"restarting {function_name(self.origin.value)}: {self.retry.describe()}{healthy}"
