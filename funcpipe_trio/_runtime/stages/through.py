"""A stage that is an async generator of the user's over the stream: who asks whom, and who owns the item in between?

The stage asks the generator for each value, as it would a source: one task opens, asks and closes it, and a cancel
scope lies around its life (see `lifetime`). The generator asks for its items here; while none is there, the task waits
in `Items`, within the generator.

  pulled, and the generator has given nothing since     in its hands: discarded if the run stops now
  it gives a value, or asks for the next item            that item is used up (absorbed)

A failure upstream is raised from the generator's items, in its place. If the generator raises it again, it is that same
failure, also if it was stopped meanwhile, or is being closed; if it handles it, the stream goes on. What the generator
no longer needs is stopped at once when it ends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import trio

from ..._base.errors import MisuseError
from ..._base.shown import kind_of, named
from ..._plan.own import Through
from ..core.failures import leaves_of, noted
from ..core.lifetime import thrown
from ..core.parking import WOKEN, Parking
from ..core.protocols import Host, Inlet, Outlet, worth_a_pull
from ..core.signals import END, NO_ITEM, PENDING, FailureMark, reason_behind
from ..core.turn import BURST
from ..core.user_code import not_awaitable
from ..operations.base import FusedOperation
from .asking import AskingStage
from .chain import STARVED


class Items:
    """What the generator iterates: the items of the stage before it."""

    def __init__(self, stage: ThroughStage) -> None:
        self._stage = stage  # of the generator

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Any:
        item = await self._stage.pulled()
        if item is END:
            raise StopAsyncIteration
        return item


class ThroughStage(AskingStage):
    """An async generator over the stream before it."""

    def __init__(
        self, host: Host, operation: Through, feed: Inlet, outlet: Outlet, fused: Sequence[FusedOperation]
    ) -> None:
        super().__init__(host, operation.name, outlet, fused, kind="through")
        self._fn = operation.fn  # the generator function
        self.accept = self._accept  # counts what it takes, besides
        self.feed = feed  # what the generator takes from
        self._pulls = feed.items()  # its items, and `PENDING`
        self._hand: Any = NO_ITEM  # the item that the generator took, and has given nothing for
        self._iterator: AsyncIterator[Any] | None = None  # the generator; None until it is asked for a value
        self._is_pulled = False  # a task is asking for an item
        self._waiter: trio.lowlevel.Task | None = None  # a task of the generator's own that waits for an item
        self._waiting = Parking(self._unwait)  # what that waits by
        self._is_wanted = False  # it wants an item, whatever the stage itself waits for
        feed.receiver = self

    # ---- what its neighbours call, and reports read

    def start(self) -> None:
        super().start()
        self._waits_for_item = False  # only when the generator asks

    def on_input(self) -> None:
        super().on_input()
        if worth_a_pull(self.feed):
            self._wake_waiter()

    def wants_input(self) -> bool:
        return self._is_wanted or super().wants_input()

    def stop(self, reason: str) -> bool:
        is_first = super().stop(reason)
        if self.parked_for is not None:  # the generator asks in a shielded scope: it is told that no more come
            self.wake()
        self._wake_waiter()
        return is_first

    def waits_for(self) -> str | None:
        if self.parked_for is STARVED or self._waiter is not None:
            return "input"
        return "call" if self._is_asking else super().waits_for()

    # ---- the generator asks for an item

    async def pulled(self) -> Any:
        """Return the next item; wait for it if there is none. `END` at the end, or when no more is needed.

        Raises:
          Exception: the failure that stands at the end.
        """
        if self._is_pulled:
            raise trio.BusyResourceError(f"another task waits for the items of {named(self.name)}")
        self._is_pulled = True
        try:
            self._use_up()
            if not self._asks or self.chain.turn.is_over():  # the generator may give nothing for many items
                await self.breathe()
                self._asks = BURST
            self._asks -= 1
            while not self._is_over and self.chain.stopped is None:
                item = self._pull()
                if item is not PENDING:
                    return item
                await self._wait_feed()
            await trio.lowlevel.checkpoint()
            return END
        finally:
            self._is_pulled = False

    @trio.lowlevel.enable_ki_protection
    def _pull(self) -> Any:
        item = next(self._pulls, END)
        self.feed.release()
        if item is END and self.feed.exhausted and self.feed.failure is not None:
            raise self.feed.failure.error
        if item is not PENDING and item is not END:
            self._hand = item
        return item

    async def _wait_feed(self) -> None:
        if trio.lowlevel.current_task() is self._task:
            await self.park(STARVED)
            return
        self.chain.turn_over()  # first: it may stop this stage
        self._is_wanted = True
        try:
            self.feed.release(parking=True)
            if not worth_a_pull(self.feed):
                self._waiter = trio.lowlevel.current_task()
                await self._waiting
        finally:
            self._is_wanted = False

    def _wake_waiter(self) -> None:
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            trio.lowlevel.reschedule(waiter, WOKEN)

    def _unwait(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._waiter = None
        return trio.lowlevel.Abort.SUCCEEDED

    @trio.lowlevel.enable_ki_protection
    def _use_up(self) -> None:
        """Count the item in the generator's hands as used."""
        if self._hand is not NO_ITEM:
            self._hand = NO_ITEM
            self.chain.absorbed += 1

    # ---- the generator is asked for a value

    async def next(self) -> Any:
        if self._iterator is None:
            self.life.begin()
            self._iterator = self._opened()
        try:
            return await anext(self._iterator)
        except StopAsyncIteration:
            return END

    def _opened(self) -> AsyncIterator[Any]:
        made = not_awaitable(self.name, self._fn(Items(self)), "Use an async generator function.")
        if not hasattr(type(made), "__aiter__"):
            raise MisuseError(
                f"{named(self.name)} gave {kind_of(made)}, which is not an async iterable\n"
                "Use an async generator function."
            )
        opened: AsyncIterator[Any] = aiter(made)
        return opened

    async def rethrow(self, error: BaseException) -> Any:
        return await thrown(self._iterator, error, END)

    @trio.lowlevel.enable_ki_protection
    def _accept(self, value: Any) -> None:
        self._use_up()
        self.chain.created += 1
        self.inbox.put(value)

    def fail(self, error: Exception) -> None:
        mark = self._mark_of(error)
        if self.is_stopping():
            if mark is None:
                super().fail(error)
            else:
                self.inbox.end()
                self.chain.host.ledger.unread(mark, self.reason())
        elif mark is not None:
            self.inbox.end(mark)
        else:
            number = self.feed.taken - 1
            self.chain.failed += self._hand is not NO_ITEM
            hand, self._hand = self._hand, NO_ITEM
            error = noted(error, self.name, None if number < 0 else number)
            self.inbox.end(FailureMark(error, self.chain, hand))

    def _mark_of(self, error: Exception) -> FailureMark | None:
        """Return the failure upstream, if the generator raised that again; None if it raised something else."""
        mark = self.feed.failure if self.feed.exhausted else None
        if mark is None or any(each is not mark.error for each in leaves_of(error)):
            return None  # alone in a group, if a nursery of the generator's passed it on
        return mark

    def reason(self) -> str:
        """Why nothing upstream is needed any more."""
        return self.chain.stopped or reason_behind(self.inbox.failure or self.chain.failure)

    # ---- the end

    async def take(self) -> None:
        await super().take()
        self._close_feed()  # nothing more is needed: stopped before the generator is closed, which may take its time

    async def close_source(self) -> None:
        self._wake_waiter()  # it may be a task that outlives the generator
        await self.end_life(getattr(self._iterator, "aclose", None))

    async def closed(self, ending: Awaitable[bool]) -> bool:
        try:
            return await ending
        except Exception as error:
            mark = self._mark_of(error)
            if mark is None:
                raise
            self.chain.host.ledger.unread(mark, self.reason())
            return True

    def _close_feed(self) -> None:
        self.feed.close(self.reason())

    def leave(self) -> None:
        self._close_feed()
        super().leave()

    def held(self) -> list[Any]:
        hand = [] if self._hand is NO_ITEM else [self._hand]
        self._hand = NO_ITEM
        return [*super().held(), *hand]
