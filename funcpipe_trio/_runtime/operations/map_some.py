"""How is a function fused that is called with the failures alone, or with all other values?"""

from __future__ import annotations

from typing import Any

from ..._plan.failures import MapSome
from ..calls.step_calls import concern_of
from .per_item import MapOp


class MapSomeOp(MapOp):
    """Each value that concerns it becomes what the function returns; any other goes on."""

    def __init__(self, operation: MapSome) -> None:
        super().__init__(operation)
        concerns, fn = concern_of(operation), operation.fn

        def called(value: Any) -> Any:
            return fn(value) if concerns(value) else value

        self._fn = called
