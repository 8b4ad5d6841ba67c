"""Where does an input stand in a fair channel: directly in it, or in a group that shares one weight?

The channel itself is the outermost group. A group is a branch of the tree; it is there while it has members.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

import trio
from trio.lowlevel import enable_ki_protection

from ..._base import checks
from ..._base.shown import named, option
from ..._sansio.fair_tree import Node
from .fair_input import Cost, Exchange, FairInput

T = TypeVar("T")


class FairGroup(Generic[T]):
    """Inputs of a `FairChannel` that share one weight, made by `group`: a tenant with its streams.

    The group competes with the inputs and groups beside it, its members with each other; however many they are, the
    group's share stays the same. A group whose last member is closed and empty leaves the channel, and comes back with
    its debt when a member is opened.
    """

    def __init__(
        self,
        exchange: Exchange[T],
        parent: FairGroup[T] | None,
        path: tuple[Hashable, ...],
        weight: Cost,
        node: Node[Hashable] | None,
    ) -> None:
        self._exchange = exchange  # what all groups and inputs of the channel share
        self._parent = parent  # the group that it is in; None for the outermost
        self._path = path  # the keys that lead to it; empty for the outermost
        self._weight = weight  # with which it comes back to the channel
        self._node = node  # its branch of the tree; None while it has left the channel

    @enable_ki_protection
    def open_input(self, key: Hashable, *, weight: Cost | None = None, capacity: int | None = None) -> FairInput[T]:
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
        if capacity is None:
            capacity = self._exchange.share.capacity
        checks.integer("FairChannel", "capacity", capacity, at_least=1)
        leaf = self._add(key, weight, branch=False)
        source = FairInput(self._exchange, self._name(key), leaf, capacity, self._member_left)
        self._exchange.input_opened(source)
        return source

    @enable_ki_protection
    def group(self, key: Hashable, weight: Cost | None = None) -> FairGroup[T]:
        """Make a group inside of this one, a member beside its inputs.

        Args:
          key: its name in the group; hashable, and not open.
          weight: its share relative to the others', an int or Fraction > 0; without it what the `FairShare` says.

        Raises:
          ValueError: if the key is open, or the weight is not positive.
          TypeError: if the weight is not an int or Fraction, or the key is not hashable.
          trio.ClosedResourceError: if the channel is closed.

        Checkpoint: never (sync).
        """
        node = self._add(key, weight, branch=True)
        return FairGroup(self._exchange, self, (*self._path, key), node.flow.weight, node)

    @enable_ki_protection
    def set_weight(self, key: Hashable, weight: Cost) -> None:
        """Change the weight of a member, from its next item on; it holds until the member is closed and drained.

        Args:
          key: the key of an input or group directly in this one.
          weight: its new share, an int or Fraction > 0.

        Raises:
          ValueError: if there is no such member, or the weight is not positive.
          TypeError: if the weight is not an int or Fraction, or the key is not hashable.

        Checkpoint: never (sync).
        """
        checks.weight("FairChannel", "weight", weight)
        checks.hashable("FairChannel.set_weight", "key", key)
        node = self._node.child(key) if self._node else None
        if node is None:
            raise checks.refuse(ValueError, "FairChannel", "key", "name an open input or group", key, show=option)
        self._exchange.tree.set_weight(node, weight)

    def _name(self, key: Hashable) -> Hashable:
        return (*self._path, key) if self._path else key

    def _add(self, key: Hashable, weight: Cost | None, *, branch: bool) -> Node[Hashable]:
        """Add a member to the tree; all checks come before the first change."""
        checks.hashable(f"FairChannel.{'group' if branch else 'open_input'}", "key", key)
        exchange, name = self._exchange, self._name(key)
        if exchange.closed:
            raise trio.ClosedResourceError
        if weight is None:
            weight = exchange.share.weight_of(name)
        checks.weight("FairChannel", "weight", weight)
        if self._node and self._node.child(key):
            raise checks.refuse(ValueError, "FairChannel", "key", "not be open already", key, show=named)
        node = exchange.tree.add(self._present(), key, weight, branch=branch)
        exchange.unused_weights.discard(name)
        return node

    def _present(self) -> Node[Hashable]:
        """Return this group's node, after coming back to the channel if it had left."""
        if self._node is None:
            assert self._parent is not None, "the outermost group never leaves"
            self._node = self._parent._add(self._path[-1], self._weight, branch=True)
        return self._node

    def _member_left(self) -> None:
        """Leave the channel if no member is left, so that old groups cost no memory."""
        if self._parent is not None and self._node is not None and not self._node.size:
            self._weight = self._node.flow.weight
            self._exchange.tree.remove(self._node)
            self._node = None
            self._parent._member_left()
