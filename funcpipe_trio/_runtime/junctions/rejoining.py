"""The results of branches as one: a dict of one result of each, for each item of the trunk.

Each branch gives one result for each item, in order (the plan was checked for that), so a zip of them gives those of
one item together. A failure of the trunk goes down every branch and stands in each behind as many results. It is one:
the zip ends with it when every branch has come to its end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..._sansio.state_times import StateTimes
from ..core.ledger import Ledger
from ..core.protocols import Inlet
from ..core.signals import FAILED, IDLE, REFILLING, FailureMark, Readiness, reason_behind
from .fan_in import ZipInlet
from .fan_out import Fork


class ZippedJoin(ZipInlet):
    """The zip of the branches of a broadcast."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        branches: Sequence[tuple[str, Inlet]],
        state_times: StateTimes[tuple[int, int]],
        fork: Fork,
    ) -> None:
        keys = [key for key, _ in branches]
        as_dict: Callable[[list[Any]], Any] = lambda results: dict(zip(keys, results, strict=True))  # noqa: E731
        super().__init__(name, ledger, [inlet for _, inlet in branches], state_times, strict=False, make=as_dict)
        self._fork = fork  # what fills the branches; its failure is that of the trunk
        fork.join = self

    def state(self) -> Readiness:
        state = super().state()
        if state is FAILED and self._fork.failure is not None:
            states = [inlet.state() for inlet in self.inlets]
            return next((each for each in states if each is IDLE or each is REFILLING), state)
        return state

    def _end(self, failure: FailureMark | None) -> None:
        for inlet, taker in zip(self.inlets, self._takers, strict=True):
            if not inlet.exhausted and inlet.state() is FAILED:
                next(taker, None)  # reads the failure, to know whether it is the trunk's
                if inlet.failure is not None and inlet.failure is not failure:
                    self.ledger.unread(inlet.failure, reason_behind(failure))
        super()._end(failure)
