"""A stage whose stream may end, or fail, at a moment that no item decides: what becomes of what is upstream?

Everything upstream is stopped at once. The end, or the error, leaves through the chain, behind what came before it, as
the error of a user's function does; if there is no room, it leaves when there is.
"""

from __future__ import annotations

from ..._plan import timing as plan
from ..core.failures import noted
from ..core.signals import BEHIND_FAILURE, NOT_NEEDED, FailureMark
from ..operations.gate import Gate
from .chain import STARVED, Chain, Ends
from .stage import Stage


class GatedStage(Stage):
    """A stage that passes items on until it shuts its gate."""

    def __init__(self, ends: Ends, operation: plan.Watched, gate: type[Gate] = Gate) -> None:
        self.gate = gate(operation)  # the first operation of the chain: sees items, raises the error
        super().__init__(Chain(ends._replace(operations=[self.gate, *ends.operations])))

    def shut(self, error: Exception | None) -> None:
        """End the stream here, or let it fail with an error, unless it has ended, or is stopped."""
        if self.gate.is_shut or self.left is not None or self.chain.stopped is not None:
            if error is not None:
                self.chain.keep_cleanup_error(error)
            return
        self.gate.shut(error)
        self.chain.inlet.close(NOT_NEEDED if error is None else BEHIND_FAILURE)
        if self.parked_for is STARVED:
            self.wake()

    def leave(self) -> None:
        gate, chain = self.gate, self.chain
        if gate.error is not None and not gate.has_failed:  # the stream ended before that place
            failure = FailureMark(noted(gate.error, gate.name, None), chain)
            chain.host.ledger.unread(failure, chain.stopped or NOT_NEEDED)
            gate.has_failed = True
        super().leave()
