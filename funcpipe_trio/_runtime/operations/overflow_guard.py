"""What if a buffer that must not overflow is full? The stage before it fails: a failure like any other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio

from ..._base.errors import BufferOverflow
from ..._base.shown import named
from ..._plan.operations import Buffer
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
