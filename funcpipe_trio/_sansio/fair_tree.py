"""Which leaf of a tree is served next, when groups share by weight, and inside each group its members?

Every branch is a `FairQueue` over its children, and a branch competes in its parent's queue as one flow. The choice
walks from the root to a leaf; the charge walks back, the same cost at every level (hierarchical start-time fair
queueing, P. Goyal, H. M. Vin, H. Cheng, SIGCOMM 1996). The bound of the queue holds between any two siblings, whatever
the consumer's speed: a branch that is served slowly because its own siblings are busy is still fair inside.

Invariant: a branch is ready in its parent's queue exactly while one of its leaves is ready.

It holds no items. It has no strict priorities: a tier that must never wait is another tree.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Generic, TypeVar

from .._base.errors import StateError
from .._base.shown import named
from .fair_queue import FairQueue, Flow

K = TypeVar("K")


class Node(Generic[K]):
    """A place in a `FairTree`, made by its `add`: a leaf, or a branch with nodes under it."""

    __slots__ = ("_children", "_path", "_queue", "parent")

    parent: Node[K] | None

    def __init__(
        self, parent: Node[K] | None, path: tuple[tuple[FairQueue[K], Flow[K]], ...], queue: FairQueue[K] | None
    ) -> None:
        self.parent = parent
        self._path = path  # where it competes: (queue, flow) from its parent's queue up to the root's
        self._queue = queue  # where its children compete; None in a leaf
        self._children: dict[K, Node[K]] = {}

    @property
    def flow(self) -> Flow[K]:
        """Its flow in the parent's queue, for key, weight and counts; the root has none."""
        return self._path[0][1]

    @property
    def debt(self) -> Fraction:
        """The cost by which it is ahead of its siblings."""
        queue, flow = self._path[0]
        return queue.debt(flow)

    @property
    def size(self) -> int:
        """The number of nodes directly under it."""
        return len(self._children)

    def child(self, key: K) -> Node[K] | None:
        """Return the node directly under it that has this key; None if there is none."""
        return self._children.get(key)


class FairTree(Generic[K]):
    """Choose the leaf that is served next, by the weights on the way to it.

    Checkpoint: never (sync, and pure).
    """

    def __init__(self) -> None:
        self._queue: FairQueue[K] = FairQueue()
        self.root: Node[K] = Node(None, (), self._queue)

    @property
    def backlogged(self) -> bool:
        """Whether a leaf is ready."""
        return self._queue.backlogged > 0

    def add(self, parent: Node[K], key: K, weight: int | Fraction, *, branch: bool = False) -> Node[K]:
        """Add a node under another; it joins level with its siblings, or keeps its debt (see `FairQueue`).

        Args:
          parent: the root, or a branch.
          key: its name among its siblings; hashable, and not present.
          weight: its share relative to its siblings, an int or Fraction > 0.
          branch: whether it will have nodes under it; otherwise it is a leaf.

        Raises:
          StateError: if the parent is a leaf.
          TypeError: if the weight is not an int or Fraction.
          ValueError: if the key is present, or the weight is not positive.
        """
        if parent._queue is None:
            raise StateError(f"cannot add {named(key)} under a leaf")
        flow = parent._queue.add(key, weight)
        node = Node(parent, ((parent._queue, flow), *parent._path), FairQueue() if branch else None)
        parent._children[key] = node
        return node

    def remove(self, node: Node[K]) -> None:
        """Remove a node, ready or not; its debt among its siblings is remembered while it lasts.

        Raises:
          StateError: if it is the root, or nodes are under it.
        """
        if node.parent is None or node._children:
            raise StateError("cannot remove a node while it is the root or has nodes under it")
        queue, flow = node._path[0]
        if node.parent._children.get(flow.key) is node:
            self.idle(node)
            queue.remove(flow)
            del node.parent._children[flow.key]

    def ready(self, leaf: Node[K]) -> None:
        """Mark a leaf as having something to send; idempotent.

        Raises:
          StateError: if the node is a branch, or was removed.
        """
        if leaf._queue is not None:
            raise StateError("cannot make a branch ready: its leaves are")
        for queue, flow in leaf._path:
            queue.ready(flow)

    def idle(self, leaf: Node[K]) -> None:
        """Mark a leaf as having nothing to send after all; idempotent."""
        for queue, flow in leaf._path:
            queue.idle(flow)
            if queue.backlogged:
                return

    def select(self) -> Node[K] | None:
        """Return the leaf to be served now; None if none is ready. It changes nothing (see `FairQueue.select`)."""
        node, queue = self.root, self._queue
        while True:
            flow = queue.select()
            if flow is None:
                return None
            node = node._children[flow.key]
            if node._queue is None:
                return node
            queue = node._queue

    def charge(self, leaf: Node[K], cost: int | Fraction = 1, *, still_ready: bool) -> int | Fraction:
        """Count one service of the leaf that `select` returned, at every level above it.

        Args:
          leaf: the leaf that `select` would return now.
          cost: what the service used, an int or Fraction > 0.
          still_ready: whether the leaf has more to send.

        Returns:
          The cost as the root's queue counted it, see `cost_grid`.

        Raises:
          StateError: if another leaf, or none, is selected.
          TypeError: if the cost is not an int or Fraction.
          ValueError: if the cost is not positive.
        """
        # A single level checks itself; with more, the inner queue would be charged before an outer one could refuse.
        if len(leaf._path) > 1 and self.select() is not leaf:
            raise StateError(f"cannot charge leaf {named(leaf.flow.key)} while it is not selected")
        counted = cost
        for queue, flow in leaf._path:
            counted = queue.charge(flow, cost, still_ready=still_ready)
            still_ready = queue.backlogged > 0
        return counted

    def set_weight(self, node: Node[K], weight: int | Fraction) -> None:
        """Change the weight of a node among its siblings, see `FairQueue.set_weight`."""
        queue, flow = node._path[0]
        queue.set_weight(flow, weight)
