"""A stage that passes a stream on, or runs another in its place if nothing came: when is that known, and who runs it?

It is known when the input has ended, normally and without an item, and the run is not draining. Then the task of the
stage calls the user's function and runs the pipeline that it returns, as a block of its own (`nested`). It asks that
run for a result only while there is room for it, so a result that came is in the link before the next one is asked for.

A drain or a pause of the run reaches the run inside: nothing was taken from here that it would belong to.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

import trio

from ..._base.errors import MisuseError
from ..._base.shown import kind_of, named
from ..._plan.failures import OrElse
from ..._plan.nodes import Plan, plan_of
from ..core.failures import failure_of, noted
from ..core.protocols import Inlet, Receiver
from ..core.signals import END, ENDED, IDLE, PENDING, READY, FailureMark, Readiness
from ..core.user_code import interruptibly, not_awaitable
from ..stages.chain import Chain, Ends
from ..stages.nested import NestedRun
from ..stages.stage import Stage


class Alternative:
    """What comes upstream as the inlet of the stage's chain; if nothing does, what the stage puts here instead."""

    def __init__(self, source: Inlet) -> None:
        self.source = source  # what is upstream
        self.chain: Chain  # what takes from here
        self.receiver: Receiver  # its stage
        self.exhausted = False  # read to its end
        self.taken = 0  # items that came from upstream
        self.is_wanted = True  # something is to take the place of an empty stream; not once the run drains
        self.is_needed = False  # upstream has ended without an item, so the stage puts others here
        self.items_instead: deque[Any] = deque()  # those that were put here, and not pulled
        self._over = False  # no more will be put here
        self._failure: FailureMark | None = None  # of what was to be put here

    @property
    def failure(self) -> FailureMark | None:
        return self.source.failure if self._failure is None else self._failure

    def end(self, failure: FailureMark | None = None) -> None:
        """Called when no more will be put here."""
        self._over, self._failure = True, self._failure or failure

    def start(self) -> None:
        """Do nothing: the stage starts what is upstream."""

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        for item in self.source.items():
            self.taken += item is not PENDING
            yield item
        self.is_needed = self._stands_empty()
        while self.is_needed:
            while self.items_instead:
                yield self.items_instead.popleft()
            if self._over:
                break
            yield PENDING
        self.exhausted = self.source.exhausted

    def _stands_empty(self) -> bool:
        return self.is_wanted and not self.taken and self.source.exhausted and self.source.failure is None

    def state(self) -> Readiness:
        if not self.is_needed:
            return self.source.state()
        if self.items_instead:
            return READY
        return ENDED if self._over else IDLE

    def release(self, *, parking: bool = False) -> None:
        self.source.release(parking=parking)

    def close(self, reason: str) -> None:
        self.source.close(reason)
        self._over = True
        if self._failure is not None and not self.exhausted:
            self.chain.host.ledger.unread(self._failure, reason)


class _Empty(Exception):
    """Ends the first drive: nothing came, and something is to come instead."""


class OrElseStage(Stage):
    """A stage that runs another pipeline if its input ended without an item."""

    def __init__(self, ends: Ends, operation: OrElse) -> None:
        self._alternative = Alternative(ends.inlet)  # the inlet of its chain
        self._make = operation.fn  # the user's function, which returns the other pipeline
        self._run: Any = None  # of the other pipeline; None while it is not open
        self._is_paused = False  # the run around it is
        super().__init__(Chain(ends._replace(inlet=self._alternative)), kind="async")
        self._alternative.chain = self.chain
        ends.inlet.receiver = self

    @property
    def upstream(self) -> Inlet:
        return self._alternative.source

    def on_drain(self) -> None:
        self._alternative.is_wanted = False
        if self._run is not None:
            self._run.drain_nowait()

    def on_pause(self) -> None:
        self._is_paused = True
        if self._run is not None:
            self._run.pause()

    def on_resume(self) -> None:
        self._is_paused = False
        if self._run is not None:
            self._run.resume()

    async def main(self) -> None:
        with trio.CancelScope() as self.scope:  # ends the wait for the other run, which no neighbour can
            await super().main()

    async def work(self) -> None:
        self.begin()
        try:
            await self.drive()
            return
        except _Empty:
            pass
        if self._alternative.is_wanted:
            try:
                await self._run_instead(self._made())
            except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
                error = failure_of(raised)
                if error is None:
                    raise
                self._fail(error)
        self._alternative.end()
        await self.drive()  # the failure, or the end, leaves behind all that came

    def _made(self) -> Plan:
        made = not_awaitable(self.name, interruptibly(self._make), "Use a sync function: its pipeline may wait.")
        plan = plan_of(made)
        if plan is None:
            raise MisuseError(f"or_else {named(self.name)} must give a pipeline, not {kind_of(made)}")
        return plan

    async def _run_instead(self, plan: Plan) -> None:
        nested = NestedRun(self, lambda: self.chain.stopped)
        block = self.chain.host.open_inner(plan, nested.discard)
        run: Any = None
        try:
            async with block as run:
                self._run = run
                if not self._alternative.is_wanted:
                    run.drain_nowait()
                if self._is_paused:
                    run.pause()
                await self.drive()
        finally:
            self._run = None
            if run is not None:
                nested.keep_errors(run.report, sys.exception())

    async def wait_input(self) -> None:
        if not self._alternative.is_needed:
            await super().wait_input()
            return
        if self._run is None:
            raise _Empty
        self.chain.turn_over()
        item = await anext(self._run, END)
        if item is END:
            self._alternative.end()
        else:
            self.chain.created += 1
            self._alternative.items_instead.append(item)

    def _fail(self, error: Exception) -> None:
        if self.chain.stopped is None:
            self._alternative.end(FailureMark(noted(error, self.name, None), self.chain))
        else:
            self.chain.keep_cleanup_error(error)

    def held(self) -> list[Any]:
        items, self._alternative.items_instead = self._alternative.items_instead, deque()
        return [*items, *super().held()]
