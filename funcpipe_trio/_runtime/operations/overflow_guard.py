"""What if a buffer that must not overflow is full, or one that merges?

The stage before it fails, or calls the function that merges: so an error there is a failure like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio

from ..._base.errors import BufferOverflow
from ..._base.shown import named
from ..._plan.operations import Buffer
from ...policies.on_full import OnFull
from ..core.signals import PENDING
from ..links.lossy_link import LossyLink
from .base import FusedOperation


class OverflowGuard(FusedOperation):
    """Fails at the first value for which the link behind it has no room."""

    def __init__(self, link: LossyLink, stage: str) -> None:
        super().__init__(Buffer(stage))  # a plan value only for the name: it fails under the name of the stage
        self._link = link  # that its stage fills

    @trio.lowlevel.enable_ki_protection
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        number = 0
        for value in values:
            if value is not PENDING:
                if self._link.is_full:
                    error = BufferOverflow(f"the {self._link.described()} behind {named(self.name)} was full")
                    self.chain.failing(error, self.name, number, value)
                number += 1
            yield value


class OverflowMerge(FusedOperation):
    """Merges a value for which the link behind it has no room into the newest one there."""

    def __init__(self, link: LossyLink, policy: OnFull, stage: str) -> None:
        super().__init__(Buffer(stage))  # a plan value only for the name: it fails under the name of the stage
        self._link = link  # that its stage fills
        self._fn = policy.fn  # makes one value of the newest there and the new one

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        number = 0
        for value in values:
            if value is PENDING:
                yield PENDING
                continue
            try:
                merged = self._merged(value) if self._link.is_full else value
            except BaseException as error:  # noqa: ASYNC103  # `failing` raises
                self.chain.failing(error, self.name, number, value)
            number += 1
            yield merged

    def _merged(self, value: Any) -> Any:
        """Merge a value; return `PENDING`, or the value if a user's function has stopped the run meanwhile."""
        buffer = self._link.buffer
        newest = buffer[-1]
        merged = self._fn(newest, value)
        self.vet(merged)
        if not buffer or buffer[-1] is not newest:
            return value
        self._replace(merged)
        return PENDING

    @trio.lowlevel.enable_ki_protection
    def _replace(self, merged: Any) -> None:
        """Put what was made of two items in the place of the newest."""
        self._link.buffer[-1] = merged
        self.absorbed += 2
        self.created += 1
