"""A merge that goes on when an input fails: what takes the place of that input's next item?

With `OnError.emit` a `Failure` does, in the turn that the item would have had; it costs nothing, so it moves no shares.
With `OnError.skip` nothing does, so the input is looked upon as ended as soon as its failure stands at its end; one
failed input too many ends the merge, in its turn. A run that was stopped, and a mistake in the program
(`is_misuse`), are no such failures.

The invariant: what waits for its turn here and is not read is given up like an item.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from ..._base.errors import is_misuse
from ..._base.shown import label, named, type_name
from ...policies.fair_share import FairShare
from ...policies.on_error import Failure, OnError, Skip
from ..core.failures import add_note
from ..core.ledger import Ledger
from ..core.protocols import Inlet
from ..core.signals import END, FAILED, READY, FailureMark, Readiness
from .ended import Ended, Failed
from .fan_in import MergeInlet, MergeInput


class TolerantMergeInlet(MergeInlet):
    """A merge whose inputs may fail without ending it."""

    def __init__(
        self,
        name: str,
        ledger: Ledger,
        inputs: Sequence[tuple[Hashable, Inlet]],
        share: FairShare[Any],
        on_error: OnError,
    ) -> None:
        super().__init__(name, ledger, inputs, share)
        self._most = on_error.max_failures if isinstance(on_error, Skip) else None  # inputs that may fail; None: all
        self._emits = not isinstance(on_error, Skip)  # a `Failure` takes the place of the next item
        self._failures = 0  # inputs that failed

    def _look(self, each: MergeInput) -> None:
        inlet = each.inlet
        if not (self._closed or each.ended or isinstance(inlet, Ended)) and inlet.state() is FAILED:
            next(each.items, None)  # reads the failure
            each.inlet = Ended() if inlet.failure is None else self._met(each, inlet.failure)
        super()._look(each)

    def _met(self, each: MergeInput, failure: FailureMark) -> Ended:
        """Return what takes the place of an input that failed."""
        error = failure.error
        if self._closed:  # by user code, while the failure was read
            self.ledger.unread(failure, self._reason)
            return Ended()
        if failure.stopped is not None or is_misuse(error):
            return Failed(failure, self.ledger)
        self._failures += 1
        each.failure = type_name(error)
        add_note(error, f"input {named(each.key)} of {named(self.name)} failed")
        if self._most is not None and self._failures > self._most:
            counts = f"{self._failures} of {len(self.inputs)} inputs failed"
            add_note(error, f"{counts}, more than max_failures={self._most}")
            return Failed(failure, self.ledger)
        failure.is_kept = True  # it is dealt with, wherever else it may stand
        if not self._emits:
            return Ended()
        key = each.key if isinstance(each.key, str) else label(each.key)
        return _Emitted(self, Failure(None, error, key, 0))

    def _at_end(self, each: MergeInput) -> Any:
        inlet = each.inlet
        each.inlet = Ended()  # it has no more to say
        if not isinstance(inlet, _Emitted):
            self._end(inlet.failure)
            return END
        each.serve(self.now())
        self._look(each)
        self.taken += 1
        self.made += 1
        return inlet.value


class _Emitted(Ended):
    """Stands for an input that failed: one value that waits for its turn."""

    def __init__(self, merge: TolerantMergeInlet, value: Failure[None]) -> None:
        self.value: Failure[None] = value  # what takes the place of the input's next item
        self._merge: TolerantMergeInlet | None = merge  # whose input it was; None once the value was given up

    def state(self) -> Readiness:
        return READY

    def close(self, reason: str) -> None:
        merge, self._merge = self._merge, None
        if merge is not None:
            merge.made += 1
            merge.discard(self.value, reason)
