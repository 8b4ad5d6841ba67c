"""What stands in a merge for an input that was read to its end, while the end itself waits for its turn?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..core.ledger import Ledger
from ..core.protocols import Receiver
from ..core.signals import ENDED, FAILED, FailureMark, Readiness


class Ended:
    """Stands for an input that was read to its end."""

    receiver: Receiver
    """Never told anything; an inlet has one."""
    failure: FailureMark | None = None
    """What waits for its turn here; an end has nothing."""
    exhausted = True
    """Nothing is left to read."""
    taken = 0
    """The input that was here has counted."""

    def start(self) -> None:
        """Nothing runs upstream."""

    def items(self) -> Iterator[Any]:
        return iter(())

    def state(self) -> Readiness:
        return ENDED

    def release(self, *, parking: bool = False) -> None:
        """Nothing upstream waits for room."""

    def close(self, reason: str) -> None:
        """Nothing is here."""


class Failed(Ended):
    """Stands for an input that was read to its failure, which waits for its turn."""

    def __init__(self, failure: FailureMark, ledger: Ledger) -> None:
        self.failure: FailureMark | None = failure  # stands where the input's next item would
        self._ledger = ledger  # told of it if it is not read

    def state(self) -> Readiness:
        return FAILED

    def close(self, reason: str) -> None:
        if self.failure is not None:
            self._ledger.unread(self.failure, reason)
