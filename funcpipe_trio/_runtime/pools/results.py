"""The results of a pool's calls as the inlet of its chain: which one is next, and what ends them?

A result is in the order from the end of its call until the chain pulls it. A marker may stand in its place: nothing
comes (`PENDING`: a step dropped it; `ALREADY_COUNTED`: it failed, and that was handled), the item is skipped in its
turn (`PendingSkip`), or the stream ends at it (`EndAt`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import trio

from ..._base.frozen import dataclass
from ..._sansio.reorder import AsCompleted, InOrder
from ..calls.calling import EndAt
from ..core.protocols import Receiver
from ..core.signals import ENDED, IDLE, NOT_NEEDED, PENDING, READY, FailureMark, Readiness
from ..stages.chain import Chain

ALREADY_COUNTED: Final[Any] = object()
"""Stands in for an item that failed and is already counted."""


@dataclass(frozen=True, slots=True)
class PendingSkip:
    """An item that failed, and is to be skipped in its turn."""

    item: Any
    """The item itself."""
    error: Exception
    """Why it failed; raised instead if the item is one too many to skip."""
    number: int
    """Its number in the stream, which errors name."""
    attempts: str
    """What the note of the error says of its attempts; empty if there is nothing to say."""


class PoolOfResults(Protocol):
    """The pool, as far as its results know it."""

    chain: Chain

    def is_over(self) -> bool:
        """Whether no further result can come."""

    def skip(self, pending: PendingSkip) -> None:
        """Skip a failed item whose turn has come, or end the stream there if it is one too many."""

    def take_no_more(self) -> None:
        """End the stream with the results that are there: no further item is needed."""

    def end_of_source(self) -> FailureMark | None:
        """The failure at the end of what the pool takes from, if one stands there."""


class Results:
    """The pool's results as the inlet of its chain."""

    def __init__(self, order: InOrder | AsCompleted, pool: PoolOfResults) -> None:
        self.order = order  # says which result is next
        self.pool = pool  # the pool, which makes the results
        self.receiver: Receiver  # the pool, which drives the chain
        self.failure: FailureMark | None = None  # the failure at the end, if there is one
        self.exhausted: bool = False  # read to the end
        self.taken: int = 0  # always: the pool itself counts what it takes
        self.seen: int = 0  # results that had their turn

    def start(self) -> None:
        """Do nothing: the pool starts what is upstream."""

    @trio.lowlevel.enable_ki_protection
    def items(self) -> Iterator[Any]:
        order, pool = self.order, self.pool
        while True:
            if order.ready:
                result = order.pop()
                self.seen += 1
                if result is PENDING:
                    pool.chain.dropped += 1
                elif result is ALREADY_COUNTED:
                    result = PENDING
                elif isinstance(result, PendingSkip):
                    pool.skip(result)
                    result = PENDING
                elif isinstance(result, EndAt):
                    if result.is_last:
                        pool.take_no_more()  # now: the pull that reads the end waits for room
                        yield result.item
                    else:
                        pool.chain.discard(result.item, NOT_NEEDED)
                    return
                yield result
            elif pool.is_over():
                self.exhausted, self.failure = True, order.failure or pool.end_of_source()
                return
            else:
                yield PENDING

    def state(self) -> Readiness:
        if self.order.ready:
            return READY
        return ENDED if self.pool.is_over() else IDLE

    def release(self, *, parking: bool = False) -> None:
        """Do nothing: workers see for themselves whether there is a place."""

    def close(self, reason: str) -> None:
        """Do nothing: the pool itself closes what it takes from."""
