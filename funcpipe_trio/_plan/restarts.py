"""A source that is opened again when it fails, as data."""

from __future__ import annotations

import math
from dataclasses import field

from .._base.frozen import dataclass
from .._base.functions import function_name
from ..policies.retry import Retry
from .nodes import Source


@dataclass(frozen=True, slots=True)
class RestartingSource(Source):
    """What a callable makes, anew after each failure; `origin` holds the callable."""

    retry: Retry = field(default_factory=Retry)
    reset_after: float = math.inf

    def describe(self) -> str:
        healthy = "" if self.reset_after == math.inf else f", counted anew after {self.reset_after:g} s"
        return f"restarting {function_name(self.origin.value)}: {self.retry.describe()}{healthy}"
