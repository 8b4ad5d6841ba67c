"""The stage of a batch that never waits: when is it known that nothing more is there?

When a pull finds nothing, and the part upstream, told that there is room, does not run either. If it does run, this
stage is woken when it has: for what it gave, or because it gave nothing.
"""

from __future__ import annotations

from ..core.protocols import worth_a_pull
from ..core.signals import IDLE
from ..operations.batching import GroupingOp
from .chain import STARVED, Chain
from .stage import Stage


class EagerStage(Stage):
    """A stage whose first operation also acts when nothing more comes."""

    def __init__(self, chain: Chain, batch: GroupingOp) -> None:
        super().__init__(chain)
        self._batch = batch  # that operation

    def on_input(self) -> None:
        if self.parked_for is STARVED:
            inlet = self.chain.inlet
            if worth_a_pull(inlet) or (self._batch.waits_for_no_more and inlet.state() is IDLE):
                self.wake()
