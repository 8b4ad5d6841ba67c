"""Tasks that wait for tokens, of one bucket or of several at once: which asks, and which is woken when one leaves?

The choice is `_sansio.token_claims`. Tasks that need the same buckets stand in one `WaitQueue`. Its first task asks and
takes the tokens of all its buckets in the step in which it goes on: none is held meanwhile, so none can be lost, and no
two tasks can wait for each other. A bucket knows the lines in which a task waits for its tokens. The first task of each
line has a *claim* there, older or younger than others by the number with which it came; a younger claim may pass an
older one only if that does not delay the older. So a first task asks again when its tokens are due; or, if it must not
delay an older one, when that one has left, or will be later than it said. Of several older ones it follows the
youngest, whose turn is the last: so a task that leaves wakes those that may be next, and not all.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from fractions import Fraction
from math import inf
from operator import itemgetter

import trio

from ..._sansio.cost_grid import CostGrid
from ..._sansio.meters import meter_of, meter_under
from ..._sansio.token_claims import Claim, delays, may_start, ready_at
from ...policies.rate_limit import AnyLimit
from ..core.wait_queue import WaitQueue
from .one_run import OneRun

Cost = int | Fraction


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
        "joined",
        "lines",
        "meter",
    )

    def __init__(self, rate_limit: AnyLimit) -> None:
        self.meter = meter_of(rate_limit)  # decides when tokens are there
        self.lines: dict[TokenQueue, None] = {}  # those in which a task waits
        self.joined: int = 0  # tasks that came to wait, which numbers them
        self.acquired: int = 0  # how often tokens were taken
        self.acquired_cost: Cost = 0  # how many, in total
        self._waiting = 0  # tasks that wait
        self._waited = 0.0  # seconds in which tasks waited, summed over them, up to when that number last changed
        self._counted = 0.0  # when that was
        self._grid = CostGrid()  # bounds the digits of that sum; the meter has its own
        self._run = OneRun("RateLimiter: it", "Use a RateLimiter in each of them, with a part of the rate.")
        """The trio run whose clock it goes by, and whose tasks it may wake."""

    def now(self) -> float:
        """Return the time; refuse a second trio run, whose tasks this one could not wake."""
        now = trio.current_time()
        if not self._run.is_current():  # its times cannot be compared with those of the run before
            self._run.enter()
            self.meter.rebase(now)
        return now

    def waited(self, now: float) -> float:
        """Return the seconds in which tasks waited, summed over the tasks; with the waits that are not over."""
        return self._waited + self._waiting * (now - self._counted)

    def count_waiting(self, now: float, change: int) -> None:
        """Count one task more, or one less, that waits from now on."""
        self._waited, self._counted = self.waited(now), now
        self._waiting += change

    def take(self, now: float, cost: Cost) -> float | None:
        """Take tokens and return None; if they are not there, return when they will be."""
        again_at = self.meter.take(now, cost)
        if again_at is None:
            self.acquired += 1
            self.acquired_cost += self._grid.counted(cost)
        return again_at

    def when(self, now: float, cost: Cost, *, behind: Cost = 0) -> float:
        """Return the earliest time at which a call may start; with `behind`, if one of that cost does first."""
        return self.meter.when(now, cost, behind=behind)

    def set_rate(self, rate_limit: AnyLimit) -> None:
        """Continue under another limit."""
        self.meter = meter_under(self.meter, self.now(), rate_limit)
        self.poke()

    def poke(self) -> None:
        """Let the first task of each line ask again."""
        for line in self.lines:
            line.poke()


class _Claimant:
    """A task in a line, and what it claims."""

    __slots__ = ("claim", "costs", "followers", "numbers", "ready")

    def __init__(self, buckets: Sequence[SharedBucket], costs: Sequence[Cost]) -> None:
        self.costs = costs  # tokens that it needs, in the order of the buckets
        self.claim: Claim = dict(zip(buckets, costs, strict=True))  # by bucket
        self.numbers: dict[SharedBucket, int] = {}  # its number in the order of arrival at each; empty before it waits
        self.followers: dict[TokenQueue, None] = {}  # lines whose first task must not delay it
        self.ready: float = inf  # when its tokens will be there, as it last asked

    def let_follow(self, now: float | None = None) -> None:
        """Let the lines ask again that stand back for it; given a time, only those that need not do so any more."""
        for line in tuple(self.followers):
            first = line._first
            if now is None or first is None or not delays(now, first.claim, self.claim):
                del self.followers[line]
                line.poke()


class TokenQueue:
    """The tasks that wait for tokens of the same buckets, in the order in which they came."""

    def __init__(self, *buckets: SharedBucket) -> None:
        self._buckets = buckets  # each task takes tokens of all of them
        self._line = WaitQueue()  # its first task asks
        self._claimants: OrderedDict[_Claimant, None] = OrderedDict()  # what the tasks claim, in the order of the line

    def __len__(self) -> int:
        """How many tasks wait."""
        return len(self._claimants)

    def poke(self) -> None:
        """Let the first task ask again."""
        self._line.poke()

    def most(self, bucket: SharedBucket) -> Cost:
        """Return the most tokens of a bucket that a waiting task needs."""
        return max(place.claim[bucket] for place in self._claimants)

    def try_take(self, costs: Sequence[Cost]) -> bool:
        """Take tokens of all buckets if they are there, and if that delays no waiting task; return whether it did."""
        if self._claimants:
            return False
        if self._is_alone():
            return self._buckets[0].take(self._buckets[0].now(), costs[0]) is None
        return self._ask(_Claimant(self._buckets, costs)) is None

    async def take(self, costs: Sequence[Cost], *, checkpoint: bool = False) -> None:
        """Wait for tokens of all buckets; they are taken in the step in which this returns.

        Checkpoint: if it waits, or if `checkpoint` is set.
        Cancellation: the place in line is given back, and nothing was taken.
        """
        now = self._now()
        place = _Claimant(self._buckets, costs)
        self._join(place, now)
        try:
            await self._line.join(lambda: self._ask(place), checkpoint=checkpoint)
        finally:
            self._leave(place, trio.current_time())

    def _ask(self, place: _Claimant) -> float | None:
        """Take the tokens for the first task here and return None, or return when to ask again."""
        now = self._now()
        if self._is_alone():
            return self._buckets[0].take(now, place.costs[0])
        older = self._older(place)
        answer = may_start(now, place.claim, [each.claim for each in older])
        if answer is None:
            for each, cost in zip(self._buckets, place.costs, strict=True):
                each.take(now, cost)
            return None
        before, place.ready = place.ready, ready_at(now, place.claim)
        if place.ready > before:  # an older one took tokens, or the rate was changed
            place.let_follow(now)
        if isinstance(answer, float):
            return answer
        next(each for each in older if each.claim is answer).followers[self] = None
        return inf

    def _is_alone(self) -> bool:
        """Whether only tasks of this line can want its tokens, which is the usual case."""
        lines = self._buckets[0].lines
        return len(self._buckets) == 1 and (not lines or (len(lines) == 1 and self in lines))

    def _older(self, place: _Claimant) -> list[_Claimant]:
        """Return the first claims of other lines that came before; at each bucket the youngest first."""
        older: list[_Claimant] = []
        for each in self._buckets:
            number = place.numbers.get(each, inf)
            firsts = [
                (first.numbers[each], first) for line in each.lines if line is not self and (first := line._first)
            ]
            older += [first for came, first in sorted(firsts, key=itemgetter(0), reverse=True) if came < number]
        return older

    @property
    def _first(self) -> _Claimant | None:
        return next(iter(self._claimants), None)

    def _join(self, place: _Claimant, now: float) -> None:
        self._claimants[place] = None
        for each in self._buckets:
            place.numbers[each], each.joined = each.joined, each.joined + 1
            each.lines[self] = None
            each.count_waiting(now, 1)

    def _leave(self, place: _Claimant, now: float) -> None:
        del self._claimants[place]
        for each in self._buckets:
            each.count_waiting(now, -1)
            if not self._claimants:
                del each.lines[self]
        place.let_follow()

    def _now(self) -> float:
        return max([each.now() for each in self._buckets])
