"""What does a pool call, and what may a call return?"""

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
    """Called with each item."""
    is_layered: bool = False
    """Whether `fn` is a step's, which also takes a `CallContext`."""
    counters: StepCounters | None = None
    """Where the policies of a step count; None without a step."""
    on_error: OnError = STOP
    """What becomes of an item whose call failed."""
    divert: Layered | None = None
    """The step that gets the failures; None unless `on_error` diverts them."""
    divert_counters: StepCounters | None = None
    """Where the policies of that step count; None without it."""
    concerns: Callable[[Any], bool] | None = None
    """Whether an item is one that the user's function is called with; None: each is."""


class EndAt:
    """What a call returns to end the stream at its item."""

    __slots__ = ("is_last", "item")

    def __init__(self, item: Any, *, is_last: bool = False) -> None:
        self.item = item  # given up when the result has its turn, unless it is the last one
        self.is_last = is_last  # whether it still belongs to the stream
