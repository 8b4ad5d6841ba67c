"""How does one stream reach subscribers that come and go?

Each subscription has a queue of its own (`LagQueue`), and `send` puts the item into all of them in one step, without a
task between. So there is no moment at which some have it and others have yet to get it, and a cancelled `send` has
reached none. What happens when a queue is full is the hub's choice; only ``block`` lets a sender wait, for room in
every queue, in the order in which the senders came.

It does not remember what was sent before a subscription, and starts no tasks.
"""

from __future__ import annotations

from collections import OrderedDict
from types import TracebackType
from typing import Generic, TypeVar, get_args

import trio
from outcome import Error, Value
from trio.lowlevel import Abort, RaiseCancelT, enable_ki_protection

from ..._base import checks
from ..._base.errors import BufferOverflow
from ..._sansio.lag_queue import Lag, LagQueue
from .hub_statistics import HubStatistics, HubSubscriptionStatistics

T = TypeVar("T")


class Hub(trio.abc.SendChannel[T], Generic[T]):
    """A channel whose every item goes to all who are subscribed when it is sent.

    The opposite of a `FairChannel`: one stream into many, which attach and detach at any time. Each subscription is a
    receive channel with a bounded queue of its own, so `Pipeline.from_channel` takes it; ``plan.run_into(hub)`` sends
    the results of a pipeline.

    Args:
      capacity: how many items may wait in each subscription, an int >= 1.
      lag: what happens when a subscription has no room for an item: `send` waits until every one has (``"block"``, so
        the slowest subscriber sets the pace of all); its oldest item is dropped (``"drop_oldest"``), or the new one,
        for it alone (``"drop_newest"``); or it is given up: it gets what waits in it, and then its `receive` raises
        `BufferOverflow`, while the others go on (``"fail"``).

    Raises:
      TypeError: if an argument has a wrong type.
      ValueError: if `capacity` is below 1, or `lag` is any other text.

    Example::

      hub = Hub(capacity=16)
      with hub.subscribe() as one, hub.subscribe() as other:
          hub.send_nowait("news")
          assert (one.receive_nowait(), other.receive_nowait()) == ("news", "news")
    """

    def __init__(self, capacity: int, lag: Lag = "block") -> None:
        self._capacity = checks.integer("Hub", "capacity", capacity, at_least=1)  # of each subscription
        self._lag: Lag = checks.choice("Hub", "lag", lag, get_args(Lag))  # type: ignore[assignment]  # it is one
        self._subscriptions: dict[HubSubscription[T], None] = {}  # attached, in the order in which they came
        self._full: set[HubSubscription[T]] = set()  # those that have no room, if that makes senders wait
        self._senders: OrderedDict[trio.lowlevel.Task, T] = OrderedDict()  # that wait, with what they send
        self._is_closed = False  # no more is sent
        self._sent = self._unheard = self._dropped = 0  # see `HubStatistics`

    # ---- sending

    @enable_ki_protection
    def send_nowait(self, item: T) -> None:
        """Send an item to all that are subscribed now; without a subscription it is dropped, and counted.

        Raises:
          trio.WouldBlock: if `send` would have to wait for room.
          trio.ClosedResourceError: if the hub is closed.

        Checkpoint: never (sync).
        """
        if self._is_closed:
            raise trio.ClosedResourceError
        if self._full:
            raise trio.WouldBlock
        self._put(item)

    @enable_ki_protection
    async def send(self, item: T) -> None:
        """Send an item to all that are subscribed when there is room for it; wait for that if ``lag="block"``.

        Without a subscription it does not wait: the item is dropped, and counted.

        Raises:
          trio.ClosedResourceError: if the hub is closed, also while it waits.

        Checkpoint: always.
        Cancellation: atomic; cancelled means that the item reached no subscription.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self.send_nowait(item)
        except trio.WouldBlock:
            pass  # park outside of this block, or a later error would show this one as its context
        except BaseException:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        await self._wait_for_room(item)

    async def _wait_for_room(self, item: T) -> None:
        task = trio.lowlevel.current_task()
        self._senders[task] = item

        def abort(_: RaiseCancelT) -> Abort:
            del self._senders[task]
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _put(self, item: T) -> None:
        """Put an item into every subscription."""
        self._sent += 1
        self._unheard += not self._subscriptions
        for subscription in list(self._subscriptions):
            subscription._put(item)

    def _let_in(self) -> None:
        """Let senders go on while there is room everywhere."""
        while self._senders and not self._full:
            task, item = self._senders.popitem(last=False)
            self._put(item)
            trio.lowlevel.reschedule(task)

    # ---- subscribing

    @enable_ki_protection
    def subscribe(self) -> HubSubscription[T]:
        """Return a channel that receives every item that is sent from now on.

        Close it when it is no longer needed (``with hub.subscribe() as items:``; `Pipeline.from_channel` does): one
        that nobody reads keeps items, and makes senders wait.

        Raises:
          trio.ClosedResourceError: if the hub is closed.

        Checkpoint: never (sync).
        """
        if self._is_closed:
            raise trio.ClosedResourceError
        subscription = HubSubscription(self, LagQueue(self._capacity, self._lag))
        self._subscriptions[subscription] = None
        return subscription

    def _detach(self, subscription: HubSubscription[T]) -> None:
        """Forget a subscription."""
        self._subscriptions.pop(subscription, None)
        self._full.discard(subscription)
        self._let_in()

    # ---- ending

    @enable_ki_protection
    def close(self) -> None:
        """Send no more: each subscription ends when what waits in it was received. Closing it again does nothing.

        Tasks that wait to send get `trio.ClosedResourceError`; their items reached no subscription.

        Checkpoint: never (sync).
        """
        if self._is_closed:
            return
        self._is_closed = True
        while self._senders:
            task, _item = self._senders.popitem(last=False)
            trio.lowlevel.reschedule(task, Error(trio.ClosedResourceError()))
        for subscription in self._subscriptions:
            subscription._end(trio.EndOfChannel)

    async def aclose(self) -> None:
        """Send no more, see `close`.

        Checkpoint: always.
        Cancellation: the hub is closed in any case.
        """
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> Hub[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def statistics(self) -> HubStatistics:
        """Return a snapshot of the hub and its subscriptions; it takes time in proportion to their number.

        Checkpoint: never (sync).
        """
        return HubStatistics(
            subscriptions=tuple([each.statistics() for each in self._subscriptions]),
            sent=self._sent,
            unheard=self._unheard,
            dropped=self._dropped,
            tasks_waiting_send=len(self._senders),
        )


class HubSubscription(trio.abc.ReceiveChannel[T], Generic[T]):
    """What `Hub.subscribe` returns: a channel that receives what is sent to the hub.

    Several tasks may receive; they are served in the order in which they came, each item once.
    """

    def __init__(self, hub: Hub[T], queue: LagQueue[T]) -> None:
        self._hub = hub  # whose items it receives
        self._queue = queue  # what waits for it
        self._receivers: OrderedDict[trio.lowlevel.Task, None] = OrderedDict()  # tasks that wait for an item
        self._received = 0  # items that were received
        self._is_closed = False  # nothing is received any more

    # ---- the hub's side

    def _put(self, item: T) -> None:
        """Take an item over: for a task that waits for it, or for later."""
        if self._receivers:
            task, _ = self._receivers.popitem(last=False)
            self._received += 1
            trio.lowlevel.reschedule(task, Value(item))
            return
        queue, before = self._queue, self._queue.dropped
        queue.put(item)
        self._hub._dropped += queue.dropped - before
        if queue.has_failed:
            self._hub._detach(self)
        elif queue.lag == "block" and queue.is_full:
            self._hub._full.add(self)

    def _end(self, kind: type[BaseException]) -> None:
        """Wake tasks that wait, with an error of that kind."""
        while self._receivers:
            task, _ = self._receivers.popitem(last=False)
            trio.lowlevel.reschedule(task, Error(kind()))

    # ---- receiving

    @enable_ki_protection
    def receive_nowait(self) -> T:
        """Receive the oldest item that waits here.

        Raises:
          trio.WouldBlock: if there is none, but one may come.
          trio.EndOfChannel: if there is none, and the hub is closed.
          BufferOverflow: if there is none, and this subscription was given up because it lagged (``lag="fail"``).
          trio.ClosedResourceError: if this subscription is closed.

        Checkpoint: never (sync).
        """
        queue, hub = self._queue, self._hub
        if self._is_closed:
            raise trio.ClosedResourceError
        if queue.items:
            item = queue.items.popleft()
            self._received += 1
            if self in hub._full:
                hub._full.discard(self)
                hub._let_in()
            return item
        if queue.has_failed:
            raise BufferOverflow(f"this subscription of a hub was given up: its queue of {queue.capacity} was full")
        raise trio.EndOfChannel if hub._is_closed else trio.WouldBlock

    @enable_ki_protection
    async def receive(self) -> T:
        """Receive the oldest item that waits here; wait for one if there is none.

        Raises:
          trio.EndOfChannel: if there is none, and the hub is closed, also while it waits.
          BufferOverflow: if there is none, and this subscription was given up because it lagged (``lag="fail"``).
          trio.ClosedResourceError: if this subscription is closed, also while it waits.

        Checkpoint: always.
        Cancellation: atomic; cancelled means that nothing was taken.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            item = self.receive_nowait()
        except trio.WouldBlock:
            pass  # park outside of this block, or a later error would show this one as its context
        except BaseException:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return item
        return await self._wait_for_item()

    async def _wait_for_item(self) -> T:
        task = trio.lowlevel.current_task()
        self._receivers[task] = None

        def abort(_: RaiseCancelT) -> Abort:
            del self._receivers[task]
            return Abort.SUCCEEDED

        item: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return item

    # ---- ending

    @enable_ki_protection
    def close(self) -> None:
        """Detach from the hub: what waits here is given up, and senders that waited for room here go on.

        Tasks that wait to receive get `trio.ClosedResourceError`. Closing it again does nothing.

        Checkpoint: never (sync).
        """
        if self._is_closed:
            return
        self._is_closed = True
        self._queue.items.clear()
        self._end(trio.ClosedResourceError)
        self._hub._detach(self)

    async def aclose(self) -> None:
        """Detach from the hub, see `close`.

        Checkpoint: always.
        Cancellation: it is detached in any case.
        """
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> HubSubscription[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def statistics(self) -> HubSubscriptionStatistics:
        """Return a snapshot of this subscription.

        Checkpoint: never (sync).
        """
        return HubSubscriptionStatistics(
            current_buffer_used=len(self._queue.items),
            received=self._received,
            dropped=self._queue.dropped,
            tasks_waiting_receive=len(self._receivers),
        )
