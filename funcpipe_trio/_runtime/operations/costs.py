"""What does an item cost in a buffer that limits that? The stage before it asks: an error is a failure of the item."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import trio

from ..._base import checks
from ..._base.errors import BufferOverflow
from ..._base.functions import AnyFunction
from ..._base.shown import named
from ..._plan.operations import Buffer
from ..core.signals import PENDING
from ..links.cost_link import CostLink, Exact, exact
from .base import FusedOperation


class CostOp(FusedOperation):
    """Each value becomes the value and its cost; with ``fail``, one that does not fit fails."""

    def __init__(self, link: CostLink, cost: AnyFunction, stage: str) -> None:
        super().__init__(Buffer(stage))  # a plan value only for the name: it fails under the name of the stage
        self._link = link  # that its stage fills
        self._cost = cost  # returns what an item costs

    @trio.lowlevel.disable_ki_protection  # user code runs in it
    def stream(self, values: Iterator[Any]) -> Iterator[Any]:
        number = 0
        for value in values:
            if value is PENDING:
                yield PENDING
                continue
            try:
                priced = value, self._priced(value)
            except BaseException as error:  # noqa: ASYNC103  # `failing` raises
                self.chain.failing(error, self.name, number, value)
            number += 1
            yield priced

    def _priced(self, value: Any) -> Exact:
        cost, where = self._cost(value), f"buffer behind {named(self.name)}"
        if isinstance(cost, bool) or not isinstance(cost, int | float):
            self.vet(cost)
            raise checks.refuse(TypeError, where, "cost", "be a finite number >= 0", cost)
        if not (checks.is_finite(cost) and cost >= 0):
            raise checks.refuse(ValueError, where, "cost", "be a finite number >= 0", cost)
        if self._link.policy == "fail" and not self._link.fits(exact(cost)):
            raise BufferOverflow(f"the {self._link.described()} behind {named(self.name)} was full")
        return exact(cost)
