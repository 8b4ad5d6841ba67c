"""The stage of `stop_when`: who waits for the moment at which the stream ends?

A task of its own, which is cancelled when the stage ends. If what it waits for is an event, the gate also asks that
before each value, so none passes once it is set, whichever task runs first.
"""

from __future__ import annotations

import math
from inspect import unwrap

import trio

from ..._plan import timing as plan
from ..core.failures import failure_of, is_caused_by_cancelling
from ..core.user_code import interruptible
from .chain import Ends
from .gated import GatedStage


class StopWhenStage(GatedStage):
    """A stage that passes items on until an async function returns."""

    def __init__(self, ends: Ends, operation: plan.StopWhen) -> None:
        super().__init__(ends, operation)
        self._fn = operation.fn  # what is waited for
        self._waiting = trio.CancelScope()  # around that
        event = getattr(unwrap(operation.fn), "__self__", None)  # of its `wait`, maybe in a function that watches it
        if isinstance(event, trio.Event):
            self.gate.ends_now = event.is_set

    async def work(self) -> None:
        self.chain.host.start_task(self._wait, f"{self.name} (waiting)")
        await super().work()

    async def _wait(self) -> None:
        with self._waiting:
            if self._waiting.cancel_called:  # before it began
                return
            try:
                await interruptible(self._fn)
            except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
                error = failure_of(raised)
                if error is None:
                    raise
                if trio.current_effective_deadline() == -math.inf and is_caused_by_cancelling(error):
                    self.chain.keep_cleanup_error(error)
                else:
                    self.shut(error)
            else:
                self.shut(None)

    def leave(self) -> None:
        if not self.gate.ends_now():  # otherwise the wait is over by itself
            self._waiting.cancel()
        super().leave()
