"""The link between two stages: how does an item cross from one task to another, and who owns it on the way?

A link is passive data: a buffer of fixed capacity, and behind its items the end, which may carry a failure. So an error
reaches the receiver after all that came before it, and closing the receiving end drops nothing silently: every
item still here is discarded with its reason.

It never waits. The sender appends while there is room and calls `commit`; the receiver pulls from `items` and calls
`release`. Both move as many items as they can in one turn, and each wakes the other once: a trip through the scheduler
costs fifty times what moving an item does, so it is made per burst, never per item.

`refilling` says that the sender was woken for room and has not run since, or goes on in its next turn. A fan-in counts
such an input as backlogged and waits for it (`REFILLING`), or its fairness would depend on the order in which the
scheduler runs a batch of tasks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from sys import maxsize
from typing import Any

import trio

from ..._base.shown import named
from ..core.ledger import Ledger
from ..core.protocols import Receiver, Sender
from ..core.signals import ENDED, FAILED, IDLE, PENDING, READY, REFILLING, FailureMark, Readiness


class Link:
    """A bounded buffer with one sender and one receiver, and an end that stands behind the items."""

    __slots__ = (
        "_level",
        "_low",
        "buffer",
        "capacity",
        "closed",
        "discarded",
        "dropped",
        "ended",
        "exhausted",
        "failure",
        "ledger",
        "name",
        "passed",
        "peak",
        "put",
        "receiver",
        "refilling",
        "sender",
        "wants_room",
    )

    def __init__(self, ledger: Ledger, capacity: int, name: str | None = None) -> None:
        self.ledger = ledger  # told of what is discarded here
        self.capacity = capacity  # the most that it may hold
        self.name = name  # what the user calls it; None if nothing
        self.sender: Sender  # is told of room, and when no more is taken
        self.receiver: Receiver  # is told of items and of the end
        self.buffer: deque[Any] = deque()  # the items in it, oldest first
        self.put: Callable[[Any], object] = self.buffer.append  # a link that drops, or a branch, sets its own
        self.ended = False  # the sender has put the end behind the items
        self.exhausted = False  # the receiver has read that end
        self.failure: FailureMark | None = None  # what stands at the end; None unless the sender failed
        self.closed: str | None = None  # why the receiver takes no more; None while it does
        self.refilling = False
        """Whether the sender has a turn to come in which it may put more; until then it counts as backlogged."""
        self.wants_room = False  # the sender is to be told of room
        self.passed = 0  # items that were put, so that `taken` need not be counted
        self.discarded = 0  # items discarded while it held them
        self.dropped = 0  # items that its policy of overflow dropped
        self.peak = 0  # the most that it held
        self._level = maxsize
        """What had come in, less what was taken, when the burst began; without limit while there is none."""
        # The sender is woken when this many are left: with more, a trip brings few items; with fewer, receivers starve.
        self._low = capacity // 2

    @property
    def behind(self) -> str:
        """What fills it, as reports call that."""
        return self.sender.name

    def described(self) -> str:
        """Return a description of it, for errors."""
        return f"buffer {'' if self.name is None else f'{named(self.name)} '}of {self.capacity}"

    # ---- the sender's side

    def room(self) -> int:
        """Return how many items may be appended."""
        return self.capacity - len(self.buffer)

    waiting_room = room  # a result that waits takes the place that it will have here
    burst_room = room

    def begin(self) -> None:
        self._level = len(self.buffer) + self.discarded + self.dropped

    @property
    def held(self) -> int:
        """How many items are in it."""
        return len(self.buffer)

    def given(self) -> int:
        # The receiver takes nothing within a burst, so what has come in since it began is what is not committed.
        return self.passed + max(0, self.held + self.discarded + self.dropped - self._level)

    def commit(self, count: int) -> None:
        """Hand over the `count` items appended since the last commit."""
        self.passed += count
        self._level = maxsize
        if self.closed is not None:
            self._discard_buffer(self.closed)
        elif count:
            held = len(self.buffer)
            if held > self.peak:
                self.peak = held
            self.receiver.on_input()

    def finish(self, failure: FailureMark | None) -> None:
        """Put the end behind the items: no more will come."""
        if self.ended:
            return
        self.ended = True
        self.failure = failure
        self.refilling = False
        if self.closed is None:
            self.receiver.on_input()
        elif failure is not None:
            self.ledger.unread(failure, self.closed)

    def turn_over(self) -> None:
        """Called when the sender has done what it could in this turn, before it waits for anything."""
        if self.refilling:
            self.refilling = False
            if not self.buffer:  # REFILLING before, IDLE now; an item is READY before and after
                self.receiver.on_input()

    def turn_continues(self) -> None:
        """Called when the sender goes on in its next turn, which comes at once: until then it counts as backlogged."""
        if not self.refilling and not self.ended and self.closed is None:
            self.refilling = True
            if not self.buffer:  # IDLE before, REFILLING now
                self.receiver.on_input()

    # ---- the receiver's side (see `Inlet`)

    @property
    def taken(self) -> int:
        return self.given() - self.held - self.discarded - self.dropped

    def start(self) -> None:
        self.refilling = True  # at the start every sender counts as woken: none gains by being started first
        start_upstream(self.sender)

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        buffer, pop = self.buffer, self.buffer.popleft
        while True:
            while buffer:
                yield pop()
            if self.closed is not None:
                return
            if self.ended:
                self.exhausted = True
                return
            yield PENDING

    def state(self) -> Readiness:
        if self.buffer:
            return READY
        if self.ended or self.closed is not None:
            return ENDED if self.failure is None else FAILED
        return REFILLING if self.refilling else IDLE

    def release(self, *, parking: bool = False) -> None:
        if self.wants_room and len(self.buffer) <= (self.capacity - 1 if parking else self._low):
            self.wants_room = False
            self.refilling = self.sender.on_room()

    def close(self, reason: str) -> None:
        if self.shut(reason):
            stop_upstream(self.sender, reason)

    def shut(self, reason: str) -> bool:
        """Close this link alone; return whether its sender has not ended."""
        if self.closed is not None or self.exhausted:
            return False
        self.closed = reason
        self._discard_buffer(reason)
        if self.failure is not None:
            self.ledger.unread(self.failure, reason)
        return not self.ended

    def _discard_buffer(self, reason: str) -> None:
        while self.buffer:
            self.discarded += 1
            self.ledger.discard(self.buffer.popleft(), self.behind, reason)


def start_upstream(sender: Sender) -> None:
    """Start a stage and all upstream of it: in a loop, because a line may be longer than a stack is deep."""
    while True:
        sender.start()
        upstream = sender.upstream
        if not isinstance(upstream, Link):
            upstream.start()
            return
        upstream.refilling = True
        sender = upstream.sender


def stop_upstream(sender: Sender, reason: str) -> None:
    """Stop a stage and all upstream of it, at once."""
    while sender.stop(reason):
        upstream = sender.upstream
        if not isinstance(upstream, Link):
            upstream.close(reason)
            return
        if not upstream.shut(reason):
            return
        sender = upstream.sender
