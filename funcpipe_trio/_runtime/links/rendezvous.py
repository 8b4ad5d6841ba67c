"""The link of a `buffer(0)`: how does an item cross if it may not wait anywhere?

It is handed over: there is room for one exactly while the receiver waits for it (`wants_input`): a stage that has
nothing, a worker that is free, a consumer in `receive`. From then until the receiver has run, which it does at once,
the item has the place of the receiver. So nothing is taken before it can be used.

The receiver says when it begins to wait (`release`), and the sender is woken. With a policy of overflow the sender
never waits, and what comes while nobody waits for it is dropped.
"""

from __future__ import annotations

import sys

from ..core.protocols import Meeting
from .link import Link
from .lossy_link import LossyLink


class Rendezvous(Link):
    """A link without a place of its own."""

    __slots__ = ()

    receiver: Meeting

    def room(self) -> int:
        return 1 if not self.buffer and self.receiver.wants_input() else 0

    burst_room = room

    def waiting_room(self) -> int:
        """Return none: a result that waits has no place here, even if somebody waits for it now."""
        return 0

    def release(self, *, parking: bool = False) -> None:
        # Whether the sender asked for it or not: a branch may ask in one link only, and be held up by this one later.
        if self.room():
            self.wants_room = False
            self.refilling = self.sender.on_room()


class LossyRendezvous(LossyLink):
    """A link that hands over an item to whoever waits for it, and else drops it, or fails."""

    __slots__ = ()

    receiver: Meeting

    def burst_room(self) -> int:
        return sys.maxsize if self.is_full else 1

    def waiting_room(self) -> int:
        return 0

    @property
    def is_full(self) -> bool:
        """Whether nobody waits for an item."""
        return bool(self.buffer) or not self.receiver.wants_input()
