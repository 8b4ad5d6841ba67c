"""How does an item get into a fair channel, and who owns it while it waits?

An input has a buffer of its own; tasks that find it full wait, each with its item. What the ends share is in the
`Exchange`: the tree that chooses among the inputs, and the tasks that wait for an item.

Invariants:
- an input is ready in the tree exactly while its buffer holds an item; a task waits to send only while it is full;
- a task waits to receive only while no input is ready;
- choice, removal and charge happen together, without a checkpoint, and so does waking a task that waits: an item is
  either still the sender's, or in the channel, or the receiver's, and it is charged exactly when it is received.

It starts no tasks and carries no errors: what fails, fails in the task that called.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from fractions import Fraction
from types import TracebackType
from typing import Any, Generic, TypeAlias, TypeVar

import trio
from outcome import Error, Value
from trio.lowlevel import Abort, RaiseCancelT, Task, enable_ki_protection

from ..._base import checks
from ..._sansio.fair_tree import FairTree, Node
from ...policies.fair_share import FairShare
from ..core.parking import WOKEN
from ..core.user_code import interruptibly
from .fair_statistics import FairInputStatistics

T = TypeVar("T")

Cost: TypeAlias = int | Fraction


class Exchange(Generic[T]):
    """What the ends of one fair channel share: its inputs, the tasks that wait for an item, what was handed over."""

    def __init__(self, share: FairShare[Any]) -> None:
        self.share = share  # weights, capacity and cost of the inputs
        self.tree: FairTree[Hashable] = FairTree()  # chooses which input is next
        self.inputs: dict[Node[Hashable], FairInput[T]] = {}  # by their leaves: those open, or holding items
        self.receivers: OrderedDict[Task, None] = OrderedDict()  # tasks that wait for an item, oldest first
        self.unused_weights: set[Hashable] = set(share.weights)  # keys that were never opened
        self.open: int = 0  # inputs that are open
        self.ever_opened: bool = False  # an input was opened: before that, a channel without one has not ended
        self.closed: bool = False  # the whole channel is
        self.served: int = 0  # items that were handed over
        self.service: Cost = 0  # the sum of their costs

    def take(self, leaf: Node[Hashable]) -> tuple[Hashable, T]:
        """Take the next item of the input that was chosen, charge it, and return it behind the name of the input."""
        source = self.inputs[leaf]
        value, cost = source._pop()
        counted = self.tree.charge(leaf, cost, still_ready=bool(source._buffer))
        waited = self.served - source._next_since
        if waited > source._longest_wait:
            source._longest_wait = waited
        self.served += 1
        self.service += counted
        source._next_since = self.served
        if source._closed and not source._buffer:
            self.retire(source)
        return source._name, value

    def hand_over(self) -> None:
        """Hand the only item there is to the task that has waited longest for one."""
        leaf = self.tree.select()
        assert leaf is not None, "a receiver waits only while no input is ready, and one item has just come"
        task, _ = self.receivers.popitem(last=False)
        trio.lowlevel.reschedule(task, Value(self.take(leaf)[1]))

    def input_opened(self, source: FairInput[T]) -> None:
        """Count a new input."""
        self.inputs[source._leaf] = source
        self.open += 1
        self.ever_opened = True

    def input_closed(self, source: FairInput[T]) -> None:
        """Forget an input if it is empty, and end the channel if it was the last."""
        self.open -= 1
        if not source._buffer:
            self.retire(source)
        if not self.open:
            # A receiver waits only while nothing is buffered, so for those that wait this is the end.
            self.wake_receivers(trio.EndOfChannel)

    def retire(self, source: FairInput[T]) -> None:
        """Forget an input that is closed and empty; the tree keeps its debt for as long as it has one."""
        del self.inputs[source._leaf]
        self.tree.remove(source._leaf)
        source._on_retired()

    def wake_receivers(self, error: type[Exception]) -> None:
        """Wake all tasks that wait for an item with an error: none will come."""
        for task in self.receivers:
            trio.lowlevel.reschedule(task, Error(error()))
        self.receivers.clear()


class FairInput(trio.abc.SendChannel[T]):
    """The sending side of one input of a `FairChannel`, made by `open_input`.

    Several tasks may send to it; their items are taken in the order of sending. It is closed once, for all of them.
    """

    def __init__(
        self,
        exchange: Exchange[T],
        name: Hashable,
        leaf: Node[Hashable],
        capacity: int,
        on_retired: Callable[[], None],
    ) -> None:
        self._exchange = exchange  # what all inputs of the channel share
        self._name = name  # its key; in a group, the tuple of keys that lead to it
        self._leaf = leaf  # its place in the tree
        self._capacity = capacity  # items that it may hold
        self._on_retired = on_retired  # called when it is closed and empty: its group may leave
        self._closed = False  # nothing more is sent; what it holds is still delivered
        self._buffer: deque[tuple[T, Cost]] = deque()  # items that it holds, with their costs
        self._parked: OrderedDict[Task, tuple[T, Cost]] = OrderedDict()  # tasks that wait to send, each with its item
        self._next_since = 0  # how many items the channel had handed over when the oldest item here became the oldest
        self._longest_wait = 0  # the most items that were handed over while one of its items was the oldest here

    @enable_ki_protection
    def send_nowait(self, value: T, cost: Cost | None = None) -> None:
        """Send an item if there is room for it, or a task that waits for it.

        Args:
          value: the item.
          cost: the service that it uses, an int or Fraction > 0; None: what the share's cost function says, or 1.

        Raises:
          trio.WouldBlock: if the input is full.
          trio.ClosedResourceError: if this input is closed.
          trio.BrokenResourceError: if the channel is closed.
          TypeError: if the cost is not an int or Fraction.
          ValueError: if the cost is not positive.

        Checkpoint: never (sync).
        """
        if not self._offer(value, self._price(value, cost)):
            raise trio.WouldBlock

    @enable_ki_protection
    async def send(self, value: T, cost: Cost | None = None) -> None:
        """Send an item, waiting for room.

        The item was accepted if and only if this returns; if it raises, the item is still the caller's.

        Args:
          value: the item.
          cost: the service that it uses, an int or Fraction > 0; None: what the share's cost function says, or 1.

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
            price = self._price(value, cost)
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
            self._exchange.input_closed(self)

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

    def _price(self, value: T, cost: Cost | None) -> Cost:
        """Return what an item costs, checked before it is accepted."""
        if cost is None:
            if self._exchange.share.cost is None:
                return 1
            cost = interruptibly(self._exchange.share.cost, value)
        return checks.cost("FairChannel", "cost", cost)

    def _offer(self, value: T, cost: Cost) -> bool:
        """Hand an item to a task that waits for one, or to the buffer; return False if that is full."""
        if self._closed:
            raise trio.ClosedResourceError
        if self._exchange.closed:
            raise trio.BrokenResourceError
        if len(self._buffer) == self._capacity:
            return False
        self._accept(value, cost)
        if self._exchange.receivers:
            self._exchange.hand_over()
        return True

    def _accept(self, value: T, cost: Cost) -> None:
        self._buffer.append((value, cost))
        if len(self._buffer) == 1:
            self._next_since = self._exchange.served
            self._exchange.tree.ready(self._leaf)

    async def _park(self, value: T, cost: Cost) -> None:
        task = trio.lowlevel.current_task()
        self._parked[task] = (value, cost)

        def abort(_: RaiseCancelT) -> Abort:
            del self._parked[task]
            return Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _pop(self) -> tuple[T, Cost]:
        """Take the next item, and give its place to the task that has waited longest to send."""
        item = self._buffer.popleft()
        if self._parked:
            task, parked = self._parked.popitem(last=False)
            self._buffer.append(parked)
            trio.lowlevel.reschedule(task, WOKEN)
        return item

    def _refuse(self, error: type[Exception]) -> None:
        """Wake all tasks that wait to send with an error; their items stay theirs."""
        for task in self._parked:
            trio.lowlevel.reschedule(task, Error(error()))
        self._parked.clear()

    def _statistics(self, total: Cost) -> FairInputStatistics:
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
