"""A stage that asks user code for its values: which task opens, asks and closes it, and what happens on cancel?

One task does all three: a source, or a generator over the stream (`through`). It asks only while there is room for
what comes, so a value that was handed over is in a link before the next await. `next` waits for one value; everything
else is done here. A cancel scope lies around the life of what it opened (see `lifetime`), which may hold scopes of its
own open.

Draining stops the asking and nothing else: what was handed over goes on through the stage. Stopping gives it up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import trio

from ..core.failures import failure_of, is_cancellation, noted, stray
from ..core.ledger import Ledger
from ..core.lifetime import Lifetime
from ..core.protocols import Host, Outlet, Receiver
from ..core.signals import END, ENDED, IDLE, PENDING, READY, FailureMark, Readiness
from ..core.step_counters import StepCounters
from ..core.turn import BURST
from ..core.user_code import interruptible
from ..operations.base import FusedOperation
from .chain import Chain, Ends
from .stage import Stage


class Inbox:
    """Where an async stage puts what it received, for its own chain to pull."""

    def __init__(self, ledger: Ledger) -> None:
        self.receiver: Receiver  # its stage
        self._ledger = ledger  # told of a failure that nobody has read
        self._items: deque[Any] = deque()  # received, and not pulled
        self._over = False  # no more will be received
        self.failure: FailureMark | None = None  # the error that stands at the end
        self.exhausted = False  # read to its end
        self.taken = 0  # items that the source gave

    @property
    def is_over(self) -> bool:
        """Whether no more will be received."""
        return self._over

    def put(self, item: Any) -> None:
        """Take over an item."""
        self.taken += 1
        self._items.append(item)

    def end(self, failure: FailureMark | None = None) -> None:
        """Called when no more will come."""
        self._over = True
        self.failure = self.failure or failure

    def held(self) -> list[Any]:
        """Hand out, and forget, what is here."""
        items = list(self._items)
        self._items.clear()
        return items

    def start(self) -> None:
        """Nothing runs upstream."""

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        items = self._items
        while True:
            while items:
                yield items.popleft()
            if self._over:
                self.exhausted = True
                return
            yield PENDING

    def state(self) -> Readiness:
        if self._items:
            return READY
        return ENDED if self._over else IDLE

    def release(self, *, parking: bool = False) -> None:
        """Nobody upstream waits for room."""

    def close(self, reason: str) -> None:
        self._over = True
        if self.failure is not None and not self.exhausted:
            self._ledger.unread(self.failure, reason)


class _Drained(Exception):
    """Ends the drive of a source: no more is to be taken."""


class _MustAsk(Exception):
    """Ends a sheltered drive: there is room, and nothing is left to put there, so the source must be asked."""


class AskingStage(Stage):
    """A stage that asks user code for each value: `next` waits for one."""

    def __init__(
        self,
        host: Host,
        name: str,
        outlet: Outlet,
        fused: Sequence[FusedOperation],
        *,
        kind: str,
        counters: StepCounters | None = None,
    ) -> None:
        self.inbox = Inbox(host.ledger)  # where it puts what the source gives, for its chain to pull
        super().__init__(Chain(Ends(host, name, self.inbox, outlet, fused)), kind=kind, counters=counters)
        self.accept: Callable[[Any], None] = self.inbox.put  # is called with what the source gives
        self._asks = BURST  # how often it may ask before others run
        self.attempts = ""  # what the note of its failure adds about attempts; empty if nothing
        self.scope: trio.CancelScope = trio.CancelScope()  # around everything; cancelled if user code runs at a stop
        self._taking = trio.CancelScope()  # around the source's life: a drain ends only that
        self.life = Lifetime()  # what the source holds open over its yields
        self._is_sheltered = False  # from a cancellation that has to be thrown into the source
        self._is_asking = False  # in the user's code, which only a cancellation can end
        self._is_drained = False  # no more is to be taken
        self._is_over = False  # the source is closed, or being closed
        self._resumed: trio.Event | None = None  # set when a pause ends; None while not paused

    def resume(self) -> None:
        """Ask for items again."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def stop(self, reason: str) -> bool:
        if self.chain.stopped is not None:
            return False
        self.chain.stopped = reason
        # Cancel only if nothing else helps: what the source holds open (a heartbeat, say) ends when it is closed.
        if self._is_asking:
            self.scope.cancel()
        elif self.parked_for is not None:
            self.wake()
        self.resume()
        return True

    async def main(self) -> None:
        chain = self.chain
        try:
            self.begin()
            await self.work()
        except Exception as error:
            if not self.is_stopping():
                raise  # a defect of this package: user code's errors are caught in `_ask`
            self.fail(error)  # what is left of a group in which it came with the cancellation
        except BaseException as error:  # noqa: ASYNC103  # raised again if it must pass
            if not chain.fails_by(error):
                raise
        finally:
            self.leave()

    async def work(self) -> None:
        with self.scope:
            with self._taking:
                try:
                    await self.take()
                finally:  # in here, where the source was opened: it may hold a scope open over its yields
                    self._is_over = True
                    try:
                        self.chain.turn_over()  # no neighbour must wait for this stage while it closes the source
                    finally:
                        await self.close_source()  # noqa: ASYNC102  # shielded there
            if not self.has_rest():
                self.inbox.end()
            await self.drive()

    async def take(self) -> None:
        """Open the source, and drive it until it ends."""
        while True:
            try:
                await self.drive()
            except _Drained:
                return
            except trio.Cancelled as error:  # noqa: ASYNC103  # one of the user's own scope ends here
                if not await self._is_cancelled_inside():  # noqa: ASYNC102  # shielded there
                    raise
                # The scope is one that the source holds open: the cancellation is thrown into it when it is asked.
                if self.is_stopping() or not await self._hand_on():  # noqa: ASYNC102  # sheltered there
                    return  # noqa: ASYNC104  # not of the run's scope
                await self._ask(partial(self.rethrow, error))  # noqa: ASYNC102  # the scope is the source's own
                if self.inbox.state() is ENDED:  # it may have left its scope open: closed first, then driven on
                    return  # noqa: ASYNC104  # not of the run's scope
            else:
                return

    async def _hand_on(self) -> bool:
        """Go on until the source has to be asked, though a scope of its own is cancelled; False if it need not be."""
        self._is_sheltered = True
        try:
            await self.life.sheltered(self.chain.host.start_task, self.drive)
        except _MustAsk:
            return True
        except _Drained:
            return False
        finally:
            self._is_sheltered = False
        return False

    async def wait_input(self) -> None:
        if not self._asks or self.chain.turn.is_over():  # a source may always have an item at once
            await self.breathe()
            self._asks = BURST
        self._asks -= 1
        self.chain.turn.left = BURST  # what the source gives goes on before others run: it is in no link yet
        self.chain.turn_over()
        while self._resumed is not None and not self.is_stopping():  # it may be paused again meanwhile
            await self._wait_resumed(self._resumed)
        self._leave_if_drained()
        if self._is_over:
            self.take_rest()
        elif self._is_sheltered and self.chain.stopped is None:
            raise _MustAsk
        elif self.chain.stopped is None:
            await self._ask(self.next)

    async def wait_room(self) -> None:
        self._leave_if_drained()
        await super().wait_room()
        self._leave_if_drained()

    def _leave_if_drained(self) -> None:
        """Let the source be closed at once, whatever this stage still has to pass on."""
        if self._is_drained and not self._is_over:
            raise _Drained

    def take_rest(self) -> None:
        """Go on with what is left after the source is closed."""
        self.inbox.end()

    def has_rest(self) -> bool:
        """Whether anything is left after the source is closed."""
        return False

    async def _ask(self, ask: Callable[[], Awaitable[Any]]) -> None:
        """Take what the source gives: an item, the end, or an error."""
        self._is_asking = True
        try:
            item = await self.asked(ask)
        except BaseException as raised:  # noqa: ASYNC103  # raised again if it must pass
            error = failure_of(raised)
            if error is None and is_cancellation(raised) and await self._is_cancelled_inside():  # noqa: ASYNC102
                error = stray(raised)  # it holds the scope that is cancelled, but does not handle it
            if error is None:
                raise
            self.fail(error)
        else:
            if item is END:
                self.inbox.end()
            else:
                self.accept(item)
        finally:
            self._is_asking = False

    def asked(self, ask: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        """Return what to await for what the source gives."""
        return interruptible(ask)

    async def _is_cancelled_inside(self) -> bool:
        """Whether a scope that the source holds open is cancelled, and nothing around it."""
        if self.scope.cancel_called or self._taking.cancel_called:
            return False
        return await self.life.is_alone_cancelled(self.chain.host.start_task)

    async def rethrow(self, error: BaseException) -> Any:
        """Throw a cancellation of the source's own into it; return what it gives then."""
        raise error

    async def _wait_resumed(self, resumed: trio.Event) -> None:
        since = self.chain.now()
        try:
            await resumed.wait()
        finally:
            self.waited_input += self.chain.now() - since

    async def next(self) -> Any:
        """Wait for one item; return `END` at the end."""
        raise NotImplementedError

    async def close_source(self) -> None:
        """Close what this task opened; shielded, with a deadline."""

    async def end_life(self, close: Callable[[], Awaitable[object]] | None) -> None:
        """Close what was opened in the life of this source; an error is kept, never raised."""
        closing = None if close is None else partial(interruptible, close)
        await self.chain.kept_cleanup(self.closed(self.life.end(closing, self.chain.host.cleanup_timeout)))

    def closed(self, ending: Awaitable[bool]) -> Awaitable[bool]:
        """Return what to await for the end of the life, which may raise what closing raised."""
        return ending

    def fail(self, error: Exception) -> None:
        """End with an error of the source."""
        if self.is_stopping():
            self.inbox.end()
            self.chain.keep_cleanup_error(error)
        else:
            self.inbox.end(FailureMark(noted(error, self.name, self.inbox.taken, self.attempts), self.chain))

    def is_stopping(self) -> bool:
        """Whether no further item is wanted; an error then is one of cleanup."""
        return self._is_drained or self.chain.stopped is not None

    def held(self) -> list[Any]:
        return [*super().held(), *self.inbox.held()]
