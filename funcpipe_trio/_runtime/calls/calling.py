"""What does a pool call, and what may a call answer?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from ..._base.frozen import dataclass
from ..._plan.operations import STOP
from ...policies.on_error import OnError
from ..core.call_context import Layered
from ..core.step_counters import StepCounters


@dataclass(frozen=True, slots=True)
class Calling:
    """What a pool calls, and what it does when that fails."""

    fn: Callable[[Any], Awaitable[Any]] | Layered
    is_layered: bool = False
    """Whether it is a step's, which takes an `CallContext` too."""
    counters: StepCounters | None = None
    """Where a step counts."""
    on_error: OnError = STOP
    divert: Layered | None = None
    divert_counters: StepCounters | None = None
    """The step that gets the failures, if `on_error` says so."""


class EndBefore:
    """What a call answers to end the stream before its item."""

    __slots__ = ("item",)

    item: Any

    def __init__(self, item: Any) -> None:
        self.item = item
