"""What is shared where many tasks wait for one limit? Its tokens, the lines of those who wait, and what keys owe.

Which task takes tokens, and when it is woken, is for `TokenQueue` to say: a bucket knows the lines, and tells them when
something has changed.
"""

from __future__ import annotations

from collections.abc import Hashable
from fractions import Fraction
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakValueDictionary

import trio

from ..._sansio.cost_grid import CostGrid
from ..._sansio.fair_lines import Branch
from ..._sansio.key_debts import KeyDebts
from ..._sansio.key_waits import KeyWaits
from ..._sansio.meter import Meter
from ...policies.fair_share import FairShare
from .one_run import OneRun

if TYPE_CHECKING:
    from .token_queue import TokenQueue

Cost = int | Fraction


class Seat(NamedTuple):
    """Where a call stands at a bucket with shares."""

    branch: Branch
    """The limiter's keys, or those of a group."""
    key: Hashable
    """Its key there."""


class _Queues(WeakValueDictionary["tuple[SharedBucket, ...]", "TokenQueue"]):
    """Queues by the limits that a task in them needs; a copy has none yet."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _Queues, ()


class SharedBucket:
    """A bucket, the lines in which tasks wait for its tokens, and how many were taken."""

    __slots__ = (
        "_counted",
        "_grid",
        "_run",
        "_waited",
        "_waiting",
        "acquired",
        "acquired_cost",
        "debts",
        "joined",
        "lines",
        "meter",
        "queues",
        "share",
        "top",
        "waits",
    )

    def __init__(self, meter: Meter, share: FairShare[Any] | None, what: str, use: str) -> None:
        self.meter: Meter = meter  # decides when tokens are there
        self.share: FairShare[Any] | None = share  # the weights of its keys; None without shares
        self.top: Branch | None = None if share is None else Branch(share.weight_of)  # its keys, likewise
        self.waits: KeyWaits = KeyWaits()  # which key waited for how long; only with shares
        self.debts: KeyDebts[Seat] = KeyDebts(self._comes_in)  # what keys owe for calls that cost more than was said
        self.lines: dict[TokenQueue, None] = {}  # those in which a task waits
        # The queues for several limits of which this is the first, while they are in use. All who need the same ones
        # stand in one: a call asks the first of each other line, so a line for each start of a step makes each slow.
        self.queues: _Queues = _Queues()
        self.joined: int = 0  # tasks that came to wait, which numbers them
        self.acquired: int = 0  # how often tokens were taken
        self.acquired_cost: Cost = 0  # how many, in total
        self._waiting = 0  # tasks that wait
        self._waited = 0.0  # seconds in which tasks waited, summed over them, up to when that number last changed
        self._counted = 0.0  # when that was
        self._grid = CostGrid()  # bounds the digits of that sum; the bucket has its own
        self._run = OneRun(what, use)  # the trio run whose clock it goes by, and whose tasks it may wake

    def now(self) -> float:
        """Return the time; refuse a second trio run, whose tasks this one could not wake."""
        now = trio.current_time()
        if not self._run.is_current():  # its times cannot be compared with those of the run before
            self._run.enter()
            self.meter.rebase(now)
            self.debts.restart(now)
        return now

    def waited(self, now: float) -> float:
        """Return the seconds in which tasks waited, summed over the tasks; with the waits that are not over."""
        return self._waited + self._waiting * (now - self._counted)

    def count_waiting(self, now: float, change: int) -> None:
        """Count one task more, or one less, that waits from now on."""
        self._waited, self._counted = self.waited(now), now
        self._waiting += change

    def take(self, now: float, cost: Cost, seat: Seat | None) -> float | None:
        """Take tokens and return None; if they are not there, return when they will be."""
        again_at = self.meter.take(now, cost)
        if again_at is None:
            self.acquired += 1
            counted = self._grid.counted(cost)
            self.acquired_cost += counted
            if seat is not None:
                self.waits.took(seat.branch.full_name(seat.key), counted)
        return again_at

    def when(self, now: float, cost: Cost, *, behind: Cost = 0) -> float:
        """Return when tokens will be there (see `Meter.when`)."""
        return self.meter.when(now, cost, behind=behind)

    def pause(self, seconds: float) -> None:
        """Let nothing be taken for so long."""
        self.meter.pause(self.now(), seconds)
        self.poke()  # they will be ready later than they said, and younger tasks of other lines may go first

    def poke(self) -> None:
        """Let the first task of each line ask again."""
        for line in self.lines:
            line.poke()

    def let_follow(self, now: float) -> None:
        """Called when tokens were taken: who waits for them may be later, and need not be stood back for any more."""
        for line in self.lines:
            line.let_follow(now, self)

    def look(self) -> None:
        """Called when the order of keys has changed: let those tasks ask that are first now."""
        for line in self.lines:
            line.look()

    def set_weight(self, branch: Branch, key: Hashable, weight: Cost) -> None:
        """Change the weight of a key, also for tasks that wait."""
        branch.set_weight(key, weight)
        self.look()

    def settle(self, now: float, seat: Seat | None, since: float, cost: Cost, really: Cost) -> None:
        """Give back, or charge, what a call that took `cost` at `since` has really cost."""
        more = really - cost
        if not more:
            return
        if more < 0:
            self.meter.give_back(now, -more, since)
            paid = more
        else:
            rest = self.meter.charge(now, more)
            paid = more - rest
            self._owe(now, seat, rest)
        counted = self._grid.counted(more)
        self.acquired_cost += counted
        if seat is not None:
            self.waits.settled(seat.branch.full_name(seat.key), counted)
        if seat is not None and paid:
            seat.branch.adjust(seat.key, paid)
            self.look()
        if more < 0:
            self.poke()
        else:
            self.let_follow(now)

    def _owe(self, now: float, seat: Seat | None, cost: Cost) -> None:
        """Let a key owe something; without shares, or if too many keys do, the limiter owes it."""
        if cost and seat is not None:
            cost = self.debts.add(seat, cost, now)
        if cost:
            self.meter.owe(now, cost)

    def collect(self, now: float) -> None:
        """Let the limiter owe what is not the debt of a key any more."""
        owed = self.debts.collect(now, _waits)
        if owed:
            self.meter.owe(now, owed)

    def _comes_in(self, cost: Cost) -> float:
        """Return in how many seconds so much comes in, in the long run."""
        try:
            return float(cost) * self.meter.rate_limit.per / self.meter.rate_limit.rate
        except OverflowError:
            return inf


def _waits(seat: Seat) -> bool:
    """Whether a call of a key waits."""
    return seat.key in seat.branch.lanes
