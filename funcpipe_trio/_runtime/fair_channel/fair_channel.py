"""How do many producers share one consumer by weight, without a task between them?

Every input has a buffer of its own; `receive` asks a `FairTree` which one is next, exactly when the item changes hands,
and charges it. There is no pump task and no buffer behind the choice: each place there would add one item of latency to
all inputs, and would be filled in order of arrival.

It does not start tasks, retry, or carry errors: what fails, fails in the task that called.
"""

from __future__ import annotations

from collections.abc import Hashable
from types import TracebackType
from typing import Any, TypeVar

import trio
from trio.lowlevel import Abort, RaiseCancelT, enable_ki_protection

from ..._base import checks
from ...policies.fair_share import FairShare
from .fair_group import FairGroup
from .fair_input import Cost, Exchange, FairInput
from .fair_statistics import FairChannelStatistics

T = TypeVar("T")

_EQUAL: FairShare[Any] = FairShare()  # Any: it names no key


class FairChannel(trio.abc.ReceiveChannel[T]):
    """A channel with many inputs, which share what is received from it by weight.

    Each `receive` takes from the input whose turn it is, chosen exactly then among those that hold an item. Over any
    time in which two inputs hold items, the service they get, divided by their weights, differs by at most one item of
    each: ``cost_max/weight + cost_max/weight``. An input alone gets everything; time away earns no credit; an input
    that is slow or silent delays no other. Start-time fair queueing, with exact integer tags.

    Several tasks may receive; they are served in the order in which they came. The channel holds at most the sum of its
    inputs' capacities. While a consumer waits, items go to it as they come: weights decide when it is the bottleneck.

    Args:
      share: weights, capacity and cost of the inputs. Its weights may name keys that are not open yet; `statistics`
        lists those that were never opened, because a channel cannot know which inputs will still be opened.

    Example::

      channel = FairChannel(FairShare({"paid": 3}))
      with channel.open_input("paid") as paid, channel.open_input("free") as free:
          paid.send_nowait("p")
          free.send_nowait("f")
      assert [item async for item in channel] == ["p", "f"]
    """

    def __init__(self, share: FairShare[Any] = _EQUAL) -> None:
        if not isinstance(share, FairShare):
            raise checks.refuse(TypeError, "FairChannel", "share", "be a FairShare", share)
        self._exchange: Exchange[T] = Exchange(share)  # what the channel shares with its inputs and groups
        self._members: FairGroup[T] = FairGroup(self._exchange, None, (), 1, self._exchange.tree.root)
        """The outermost group: the inputs and groups directly in the channel."""

    def open_input(self, key: Hashable, *, weight: Cost | None = None, capacity: int | None = None) -> FairInput[T]:
        """Open an input directly in the channel, see `FairGroup.open_input`.

        The channel ends when all its inputs are closed and empty; keep one open while more may come.

        Checkpoint: never (sync).
        """
        return self._members.open_input(key, weight=weight, capacity=capacity)

    def group(self, key: Hashable, weight: Cost | None = None) -> FairGroup[T]:
        """Make a group of inputs that share one weight, see `FairGroup.group`.

        Checkpoint: never (sync).
        """
        return self._members.group(key, weight)

    def set_weight(self, key: Hashable, weight: Cost) -> None:
        """Change the weight of an input or group directly in the channel, see `FairGroup.set_weight`.

        Checkpoint: never (sync).
        """
        self._members.set_weight(key, weight)

    @enable_ki_protection
    def receive_nowait(self) -> T:
        """Receive the item whose turn it is, if there is one.

        Raises:
          trio.WouldBlock: if no input holds an item, but one may come.
          trio.EndOfChannel: if inputs were opened, and all are closed and empty.
          trio.ClosedResourceError: if the channel is closed.

        Checkpoint: never (sync).
        """
        if self._exchange.closed:
            raise trio.ClosedResourceError
        leaf = self._exchange.tree.select()
        if leaf is not None:
            return self._exchange.take(leaf)[1]
        raise trio.EndOfChannel if self._exchange.ever_opened and not self._exchange.open else trio.WouldBlock

    @enable_ki_protection
    async def receive(self) -> T:
        """Receive the item whose turn it is, waiting until there is one.

        Before the first `open_input` it waits.

        Raises:
          trio.EndOfChannel: if inputs were opened, and all are closed and empty.
          trio.ClosedResourceError: if the channel is closed, also while it waits.

        Checkpoint: always.
        Cancellation: atomic; cancelled means that nothing was taken and nothing charged.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            value = self.receive_nowait()
        except trio.WouldBlock:
            pass  # park outside of this block, or a later error would show this one as its context
        except BaseException:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return value
        return await self._park()

    @enable_ki_protection
    def close(self) -> None:
        """Close the channel: nothing is received or sent any more; tasks that wait are woken with an error.

        What the inputs hold is kept for `drain_nowait`. Closing it again does nothing.

        Checkpoint: never (sync).
        """
        if self._exchange.closed:
            return
        self._exchange.closed = True
        self._exchange.wake_receivers(trio.ClosedResourceError)
        for source in self._exchange.inputs.values():
            source._refuse(trio.BrokenResourceError)

    async def aclose(self) -> None:
        """Close the channel, see `close`.

        Checkpoint: always.
        Cancellation: the channel is closed in any case.
        """
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> FairChannel[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @enable_ki_protection
    def drain_nowait(self) -> list[tuple[Hashable, T]]:
        """Take all items that could be received now, also after `close`, so that none need be lost.

        They are charged like received ones. Items of tasks that wait to send are taken too; after `close` there are
        no such tasks.

        Returns:
          ``(key, item)`` in the order of their turns; the key of an input in a group is the tuple of keys to it.

        Checkpoint: never (sync).
        """
        items: list[tuple[Hashable, T]] = []
        while (leaf := self._exchange.tree.select()) is not None:
            items.append(self._exchange.take(leaf))
        return items

    def statistics(self) -> FairChannelStatistics:
        """Return a snapshot of the channel and its inputs; it takes time in proportion to their number.

        Checkpoint: never (sync).
        """
        inputs = tuple(source._statistics(self._exchange.service) for source in self._exchange.inputs.values())
        return FairChannelStatistics(
            inputs=inputs,
            open_inputs=self._exchange.open,
            backlogged=sum(one.buffered > 0 for one in inputs),
            buffered=sum(one.buffered for one in inputs),
            tasks_waiting_send=sum(one.parked for one in inputs),
            tasks_waiting_receive=len(self._exchange.receivers),
            served=self._exchange.served,
            service=self._exchange.service,
            unused_weights=frozenset(self._exchange.unused_weights),
        )

    async def _park(self) -> T:
        task = trio.lowlevel.current_task()
        self._exchange.receivers[task] = None

        def abort(_: RaiseCancelT) -> Abort:
            del self._exchange.receivers[task]
            return Abort.SUCCEEDED

        value: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return value
