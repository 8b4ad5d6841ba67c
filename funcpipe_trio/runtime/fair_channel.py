"""How do many producers share one consumer by weight, without a task between them?

Every input has a buffer of its own; `receive` asks a `FairTree` which one is next, at the instant at which the item
changes hands, and charges it. There is no pump task and no buffer behind the choice: each place there would add one
item of latency to all inputs, and would be filled in order of arrival.

Invariants:
- an input is ready in the tree exactly while its buffer holds an item; a task waits to send only while it is full;
- a task waits to receive only while no input is ready;
- choice, removal and charge happen in one go, without a checkpoint, and so does what happens to a task that waits: an
  item is either still the sender's, in the channel, or the receiver's, and it is counted exactly when it is received.

It does not start tasks, retry, or carry errors: what fails, fails in the task that called.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Hashable
from fractions import Fraction
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

import trio
from outcome import Error, Value
from trio.lowlevel import Abort, RaiseCancelT, Task, enable_ki_protection

from ..policies import _check
from ..policies.fair_share import FairShare
from ..sansio.fair_tree import FairTree, Node
from .fair_statistics import FairChannelStatistics, FairInputStatistics

__all__ = ["FairChannel", "FairGroup", "FairInput"]

T = TypeVar("T")

_Cost: TypeAlias = int | Fraction
_EQUAL: FairShare[Any] = FairShare()  # Any: it names no key


class FairInput(trio.abc.SendChannel[T]):
    """The sending side of one input of a `FairChannel`, made by `open_input`.

    Several tasks may send to it; their items are taken in the order of sending. It is closed once, for all of them.
    """

    def __init__(self, group: FairGroup[T], name: Hashable, leaf: Node[Hashable], capacity: int) -> None:
        self._group = group
        self._channel = group._channel
        self._name = name
        self._leaf = leaf
        self._capacity = capacity
        self._closed = False
        self._buffer: deque[tuple[T, _Cost]] = deque()
        self._parked: OrderedDict[Task, tuple[T, _Cost]] = OrderedDict()
        self._next_since = 0  # how many items the channel had handed over when our next item became the next
        self._longest_wait = 0

    @enable_ki_protection
    def send_nowait(self, value: T, cost: _Cost | None = None) -> None:
        """Send an item if there is room for it, or a task that waits for it.

        Args:
          value: the item.
          cost: the service that it uses, an int or Fraction > 0; else what the share's cost function says, else 1.

        Raises:
          trio.WouldBlock: if the input is full.
          trio.ClosedResourceError: if this input is closed.
          trio.BrokenResourceError: if the channel is closed.
          TypeError: if the cost is not an int or Fraction.
          ValueError: if the cost is not positive.

        Checkpoint: never (sync).
        """
        if not self._offer(value, self._channel._cost_of(value, cost)):
            raise trio.WouldBlock

    @enable_ki_protection
    async def send(self, value: T, cost: _Cost | None = None) -> None:
        """Send an item, waiting for room.

        The item was accepted if and only if this returns; if it raises, the item is still the caller's.

        Args:
          value: the item.
          cost: the service that it uses, an int or Fraction > 0; else what the share's cost function says, else 1.

        Raises:
          trio.ClosedResourceError: if this input is closed, also while it waits.
          trio.BrokenResourceError: if the channel is closed, also while it waits.
          TypeError: if the cost is not an int or Fraction.
          ValueError: if the cost is not positive.

        Checkpoint: always.
        Cancellation: atomic; cancelled means not sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            price = self._channel._cost_of(value, cost)
            accepted = self._offer(value, price)
        except BaseException:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        if accepted:
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._park(value, price)

    @enable_ki_protection
    def close(self) -> None:
        """Close the input: what it holds is still delivered, tasks that wait to send are refused.

        Closing it again does nothing.

        Checkpoint: never (sync).
        """
        if not self._closed:
            self._closed = True
            self._refuse(trio.ClosedResourceError)
            self._channel._input_closed(self)

    async def aclose(self) -> None:
        """Close the input, see `close`.

        Checkpoint: always.
        Cancellation: the input is closed in any case.
        """
        self.close()
        await trio.lowlevel.checkpoint()

    def __enter__(self) -> FairInput[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _offer(self, value: T, cost: _Cost) -> bool:
        """Give an item to a task that waits for one, or to the buffer; False if it is full."""
        if self._closed:
            raise trio.ClosedResourceError
        if self._channel._closed:
            raise trio.BrokenResourceError
        if len(self._buffer) == self._capacity:
            return False
        self._accept(value, cost)
        if self._channel._receivers:
            self._channel._hand_over()
        return True

    def _accept(self, value: T, cost: _Cost) -> None:
        self._buffer.append((value, cost))
        if len(self._buffer) == 1:
            self._next_since = self._channel._served
            self._channel._tree.ready(self._leaf)

    async def _park(self, value: T, cost: _Cost) -> None:
        task = trio.lowlevel.current_task()
        self._parked[task] = (value, cost)

        def abort(_: RaiseCancelT) -> Abort:
            del self._parked[task]
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _pop(self) -> tuple[T, _Cost]:
        """Take the next item, and give its place to the task that waits longest."""
        item = self._buffer.popleft()
        if self._parked:
            task, parked = self._parked.popitem(last=False)
            self._buffer.append(parked)
            trio.lowlevel.reschedule(task)
        return item

    def _refuse(self, error: type[Exception]) -> None:
        """Wake all tasks that wait to send; their items stay theirs."""
        for task in self._parked:
            trio.lowlevel.reschedule(task, Error(error()))
        self._parked.clear()

    def _statistics(self, total: _Cost) -> FairInputStatistics:
        flow = self._leaf.flow
        return FairInputStatistics(
            key=self._name,
            weight=flow.weight,
            capacity=self._capacity,
            buffered=len(self._buffer),
            parked=len(self._parked),
            closed=self._closed,
            served=flow.served,
            service=flow.service,
            share=float(Fraction(flow.service) / total) if total else 0.0,
            debt=self._leaf.debt,
            longest_wait=self._longest_wait,
        )


class FairGroup(Generic[T]):
    """Inputs of a `FairChannel` that share one weight, made by `group`: a tenant with its streams.

    The group competes with what is beside it, its members with each other; however many they are, the group's share
    stays the same. A group whose last member is closed and empty leaves the channel, and comes back, with the debt it
    had, when a member is opened.
    """

    def __init__(
        self,
        channel: FairChannel[T],
        parent: FairGroup[T] | None,
        path: tuple[Hashable, ...],
        weight: _Cost,
        node: Node[Hashable] | None,
    ) -> None:
        self._channel = channel
        self._parent = parent
        self._path = path
        self._weight = weight
        self._node = node  # None while it has left the channel

    @enable_ki_protection
    def open_input(self, key: Hashable, *, weight: _Cost | None = None, capacity: int | None = None) -> FairInput[T]:
        """Open an input in this group.

        It joins level with the others. A key that was closed and drained may be opened again; if it was ahead of its
        share, it still is. The name by which the share's weights and the statistics know it is the tuple of keys that
        lead to it, ``("tenant", "stream")``; directly in the channel, it is the key.

        Args:
          key: its name in the group; hashable, and not open.
          weight: its share relative to the others', an int or Fraction > 0; without it what the `FairShare` says.
          capacity: how many items it holds, an int >= 1; without it what the `FairShare` says.

        Raises:
          ValueError: if the key is open, or an argument is out of range.
          TypeError: if an argument has a wrong type.
          trio.ClosedResourceError: if the channel is closed.

        Checkpoint: never (sync).
        """
        channel = self._channel
        if capacity is None:
            capacity = channel._share.capacity
        _check.integer("FairChannel", "capacity", capacity, at_least=1)
        leaf = self._add(key, weight, branch=False)
        source = FairInput(self, self._name(key), leaf, capacity)
        channel._inputs[leaf] = source
        channel._open += 1
        channel._ever_opened = True
        return source

    @enable_ki_protection
    def group(self, key: Hashable, weight: _Cost | None = None) -> FairGroup[T]:
        """Make a group inside of this one, a member beside its inputs.

        Args:
          key: its name in the group; hashable, and not open.
          weight: its share relative to the others', an int or Fraction > 0; without it what the `FairShare` says.

        Raises:
          ValueError: if the key is open, or the weight is not positive.
          TypeError: if the weight is not an int or Fraction.
          trio.ClosedResourceError: if the channel is closed.

        Checkpoint: never (sync).
        """
        node = self._add(key, weight, branch=True)
        return FairGroup(self._channel, self, (*self._path, key), node.flow.weight, node)

    @enable_ki_protection
    def set_weight(self, key: Hashable, weight: _Cost) -> None:
        """Change the weight of a member, from its next item on; it holds until the member is closed and drained.

        Args:
          key: the key of an input or group directly in this one.
          weight: its new share, an int or Fraction > 0.

        Raises:
          ValueError: if there is no such member, or the weight is not positive.
          TypeError: if the weight is not an int or Fraction.

        Checkpoint: never (sync).
        """
        _check.weight("FairChannel", "weight", weight)
        node = self._node.child(key) if self._node else None
        if node is None:
            raise _check.refuse(ValueError, "FairChannel", "key", "name an open input or group", key)
        self._channel._tree.set_weight(node, weight)

    def _name(self, key: Hashable) -> Hashable:
        return (*self._path, key) if self._path else key

    def _add(self, key: Hashable, weight: _Cost | None, *, branch: bool) -> Node[Hashable]:
        """Add a member to the tree; all checks come before the first change."""
        channel, name = self._channel, self._name(key)
        if channel._closed:
            raise trio.ClosedResourceError
        if weight is None:
            weight = channel._share.weight_of(name)
        _check.weight("FairChannel", "weight", weight)
        if self._node and self._node.child(key):
            raise _check.refuse(ValueError, "FairChannel", "key", "not be open already", key)
        node = channel._tree.add(self._present(), key, weight, branch=branch)
        channel._unused_weights.discard(name)
        return node

    def _present(self) -> Node[Hashable]:
        """Return this group's node, after coming back to the channel if it had left."""
        if self._node is None:
            assert self._parent is not None, "the outermost group never leaves"
            self._node = self._parent._add(self._path[-1], self._weight, branch=True)
        return self._node

    def _member_left(self) -> None:
        """Leave the channel behind the last member, so that old groups cost no memory."""
        if self._parent is not None and self._node is not None and not self._node.size:
            self._weight = self._node.flow.weight
            self._channel._tree.remove(self._node)
            self._node = None
            self._parent._member_left()


class FairChannel(trio.abc.ReceiveChannel[T]):
    """A channel with many inputs, which share what is received from it by weight.

    Each `receive` takes from the input whose turn it is, chosen at that instant among those that hold an item. Over
    any time in which two inputs hold items, the service they get, divided by their weights, differs by at most one
    item of each: ``cost_max/weight + cost_max/weight``. An input alone gets everything; time away earns no credit; an
    input that is slow or silent delays nobody. Start-time fair queueing, see `funcpipe_trio.sansio.fair_queue`.

    Several tasks may receive; they are served in the order in which they came. The channel holds at most the sum of its
    inputs' capacities. While a consumer waits, items go to it as they come: weights decide when it is the bottleneck.

    Args:
      share: weights, capacity and cost of the inputs. Its weights may name keys that are not open yet; those that were
        never opened are told by `statistics`, since a channel cannot know which inputs will still come.

    Example::

      channel = FairChannel(FairShare({"paid": 3}))
      with channel.open_input("paid") as paid, channel.open_input("free") as free:
          paid.send_nowait("p")
          free.send_nowait("f")
      assert [item async for item in channel] == ["p", "f"]
    """

    def __init__(self, share: FairShare[Any] = _EQUAL) -> None:
        if not isinstance(share, FairShare):
            raise _check.refuse(TypeError, "FairChannel", "share", "be a FairShare", share)
        self._share = share
        self._tree: FairTree[Hashable] = FairTree()
        self._members: FairGroup[T] = FairGroup(self, None, (), 1, self._tree.root)
        self._inputs: dict[Node[Hashable], FairInput[T]] = {}  # open, or holding items
        self._receivers: OrderedDict[Task, None] = OrderedDict()
        self._unused_weights: set[Hashable] = set(share.weights)
        self._open = 0
        self._ever_opened = False
        self._closed = False
        self._served = 0
        self._service: _Cost = 0

    def open_input(self, key: Hashable, *, weight: _Cost | None = None, capacity: int | None = None) -> FairInput[T]:
        """Open an input directly in the channel, see `FairGroup.open_input`.

        The channel ends when all its inputs are closed and empty; keep one open while more may come.

        Checkpoint: never (sync).
        """
        return self._members.open_input(key, weight=weight, capacity=capacity)

    def group(self, key: Hashable, weight: _Cost | None = None) -> FairGroup[T]:
        """Make a group of inputs that share one weight, see `FairGroup.group`.

        Checkpoint: never (sync).
        """
        return self._members.group(key, weight)

    def set_weight(self, key: Hashable, weight: _Cost) -> None:
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
        if self._closed:
            raise trio.ClosedResourceError
        leaf = self._tree.select()
        if leaf is not None:
            return self._take(leaf)
        raise trio.EndOfChannel if self._ever_opened and not self._open else trio.WouldBlock

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
            return await self._park()
        except BaseException:
            await trio.lowlevel.cancel_shielded_checkpoint()
            raise
        await trio.lowlevel.cancel_shielded_checkpoint()
        return value

    @enable_ki_protection
    def close(self) -> None:
        """Close the channel: nothing is received or sent any more; tasks that wait are woken with an error.

        What the inputs hold is kept for `drain_nowait`. Closing it again does nothing.

        Checkpoint: never (sync).
        """
        if self._closed:
            return
        self._closed = True
        self._wake_receivers(trio.ClosedResourceError)
        for source in self._inputs.values():
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
        while (leaf := self._tree.select()) is not None:
            items.append((self._inputs[leaf]._name, self._take(leaf)))
        return items

    def statistics(self) -> FairChannelStatistics:
        """Return a snapshot of the channel and its inputs; it takes time in proportion to their number.

        Checkpoint: never (sync).
        """
        inputs = tuple(source._statistics(self._service) for source in self._inputs.values())
        return FairChannelStatistics(
            inputs=inputs,
            open_inputs=self._open,
            backlogged=sum(one.buffered > 0 for one in inputs),
            buffered=sum(one.buffered for one in inputs),
            tasks_waiting_send=sum(one.parked for one in inputs),
            tasks_waiting_receive=len(self._receivers),
            served=self._served,
            service=self._service,
            unused_weights=frozenset(self._unused_weights),
        )

    def _cost_of(self, value: T, cost: _Cost | None) -> _Cost:
        """Return what an item costs, checked before it is accepted."""
        if cost is None:
            if self._share.cost is None:
                return 1
            cost = self._share.cost(value)
        return _check.cost("FairChannel", "cost", cost)

    def _take(self, leaf: Node[Hashable]) -> T:
        """Take the next item of the input that was chosen, and charge it."""
        source = self._inputs[leaf]
        value, cost = source._pop()
        self._tree.charge(leaf, cost, still_ready=bool(source._buffer))
        source._longest_wait = max(source._longest_wait, self._served - source._next_since)
        self._served += 1
        self._service += cost
        source._next_since = self._served
        if source._closed and not source._buffer:
            self._retire(source)
        return value

    def _hand_over(self) -> None:
        """Give the only item there is to the task that waits longest for one."""
        leaf = self._tree.select()
        assert leaf is not None, "a receiver waits only while no input is ready, and one item has just come"
        task, _ = self._receivers.popitem(last=False)
        trio.lowlevel.reschedule(task, Value(self._take(leaf)))

    async def _park(self) -> T:
        task = trio.lowlevel.current_task()
        self._receivers[task] = None

        def abort(_: RaiseCancelT) -> Abort:
            del self._receivers[task]
            return Abort.SUCCEEDED

        value: T = await trio.lowlevel.wait_task_rescheduled(abort)
        return value

    def _input_closed(self, source: FairInput[T]) -> None:
        self._open -= 1
        if not source._buffer:
            self._retire(source)
        if not self._open:
            # A receiver waits only while nothing is buffered, so for those that wait this is the end.
            self._wake_receivers(trio.EndOfChannel)

    def _retire(self, source: FairInput[T]) -> None:
        """Forget an input that is closed and empty; the tree remembers its debt while it lasts."""
        del self._inputs[source._leaf]
        self._tree.remove(source._leaf)
        source._group._member_left()

    def _wake_receivers(self, error: type[Exception]) -> None:
        for task in self._receivers:
            trio.lowlevel.reschedule(task, Error(error()))
        self._receivers.clear()
