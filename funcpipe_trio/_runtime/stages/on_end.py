"""A stage that tells a user's function how the stream ended here: when is it called, and what waits for it?

It is called once the stage has passed on its last item and stopped what is upstream, and before the end goes on:
whoever sees the end knows that it was called. So it is called in the task of the stage, as a part of cleanup: shielded,
with a deadline; its error is kept.

What the stage read says how the stream ended *here*. If it did not read to the end, something behind it, or outside of
the run, ended that.
"""

from __future__ import annotations

from functools import partial

from ..._plan.failures import Ending, OnEnd
from ..._plan.nodes import is_awaitable
from ..core.lifetime import Lifetime
from ..core.user_code import interruptible
from .chain import Chain, Ends
from .stage import Stage


class OnEndStage(Stage):
    """A stage that passes items on, and calls a function at the end."""

    def __init__(self, ends: Ends, operation: OnEnd) -> None:
        super().__init__(Chain(ends))
        self._fn = operation.fn  # the user's function, called with how the stream ended
        self._is_drained = False  # the run is told to take no more
        self._ending: Ending = "stopped"  # how the stream ended, once it has

    def on_drain(self) -> None:
        self._is_drained = True

    async def main(self) -> None:
        try:
            await super().main()
        finally:
            life = Lifetime()
            life.begin()
            ending = life.end(partial(interruptible, self._tell), self.chain.host.cleanup_timeout)
            try:
                await self.chain.kept_cleanup(ending)  # noqa: ASYNC102  # shielded there
            finally:
                super().leave()

    def leave(self) -> None:
        """Stop what is upstream; the end goes on when the function has returned."""
        self._ending = self._ended()
        self.chain.wind_up(self.held)
        self.chain.turn_over()

    def _ended(self) -> Ending:
        inlet = self.chain.inlet
        if not inlet.exhausted or (inlet.failure is not None and inlet.failure.stopped is not None):
            return "stopped"
        if inlet.failure is not None:
            return "failed"
        return "drained" if self._is_drained else "completed"

    async def _tell(self) -> None:
        answer = self._fn(self._ending)
        if is_awaitable(answer):
            await answer
