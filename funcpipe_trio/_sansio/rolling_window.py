"""May a call start now, if at most n may start in any window of a given length? If not, when?

The rule: a start counts for `per` seconds, in the half-open window (t - per, t]; a call starts if what counts, with its
own cost, is at most n. So the (n+1)-th start is allowed exactly `per` after the first one. All n may start at once, and
again `per` later: a token bucket either forbids the first or allows more than n in some window.

The invariant: the records are in the order of their instants, and what they count, apart from a limit that was made
smaller, is at most n; so there are at most n of them. A cost is a whole number of starts. What is given back makes the
record of its own start smaller. A debt is paid by each start at the instant at which it stops to count; so while there
is a debt nothing is free. It is exact, in ticks (`meter`).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from copy import copy
from fractions import Fraction

from ..policies.rate_limit import AnyLimit, RollingLimit
from .meter import SCALE, TICKS, Meter, not_before


class RollingWindow(Meter):
    """The starts that count under one `RollingLimit`."""

    def __init__(self, rate_limit: RollingLimit) -> None:
        super().__init__()
        self._adopt(rate_limit)
        self._records: OrderedDict[int, int] = OrderedDict()  # starts that count, by their tick, oldest first
        self._used = 0  # how many there are
        self._debt = 0  # starts that are not paid; if there are any, n or more count

    def __copy__(self) -> RollingWindow:
        other = object.__new__(RollingWindow)
        vars(other).update(vars(self), _records=self._records.copy())
        return other

    def take(self, now: float, cost: int | Fraction) -> float | None:
        tick = math.floor(now * SCALE)
        self._advance(tick)
        need = math.ceil(cost)
        if self._used + need <= self._most and (not self._resumes or self._begin(tick) == tick):
            self._record(math.ceil(now * SCALE), need)
            return None
        return self.when(now, cost)

    def when(self, now: float, cost: int | Fraction, *, behind: int | Fraction = 0) -> float:
        first, need, tick = math.ceil(behind), math.ceil(cost), math.floor(now * SCALE)
        if need > self._most:
            return math.inf
        self._advance(tick)
        if self._debt:
            return self._paid().when(now, cost, behind=behind)
        begin = max(self._begin(tick), self._frees(first))
        begin = max(begin, self._frees(first + need)) if first + need <= self._most else begin + self._per
        return now if begin == tick else not_before(begin)

    def full_at(self, now: float) -> float:
        """Return when nothing will count any more, and it is not paused."""
        tick = math.floor(now * SCALE)
        self._advance(tick)
        if self._debt:
            return self._paid().full_at(now)
        begin = self._begin(tick)
        if self._records:
            begin = max(begin, next(reversed(self._records)) + self._per)
        return now if begin == tick else not_before(begin)

    def held(self, now: float) -> int:
        self._advance(math.floor(now * SCALE))
        return max(0, self._most - self._used) - self._debt

    def give_back(self, now: float, cost: int | Fraction, since: float) -> None:
        """Return what a call took at `since`, if that start still counts."""
        self._advance(math.floor(now * SCALE))
        tick = math.ceil(since * SCALE)
        count = self._records.get(tick, 0)
        back = min(math.floor(cost), count)
        self._used -= back
        if back < count:
            self._records[tick] = count - back
        elif count:
            del self._records[tick]
        self._pay(math.ceil(now * SCALE))

    def charge(self, now: float, cost: int | Fraction) -> int:
        need = math.ceil(cost)
        taken = min(need, max(0, self.held(now)))
        self._record(math.ceil(now * SCALE), taken)
        return need - taken

    def owe(self, now: float, cost: int | Fraction) -> None:
        rest = self.charge(now, cost)  # which may find a part of the old debt paid
        self._debt += rest

    def set_rate(self, now: float, rate_limit: AnyLimit) -> None:
        """Continue under another limit: each start that still counts does so for the new length."""
        tick = math.floor(now * SCALE)
        self._advance(tick)
        debt, self._debt = self._debt, 0
        self._adopt(rate_limit)
        self._advance(tick)
        self._debt = debt
        self._pay(math.ceil(now * SCALE))

    def rebase(self, now: float) -> None:
        super().rebase(now)
        if self._records:
            self._shift(math.ceil(now * SCALE) - next(reversed(self._records)))

    def _is_new(self) -> bool:
        return not self._records

    def _adopt(self, rate_limit: AnyLimit) -> None:
        self.rate_limit = rate_limit
        self._most = rate_limit.burst  # starts that may count
        self._per = math.ceil(Fraction(rate_limit.per) * TICKS)  # ticks for which a start counts

    def _record(self, tick: int, count: int) -> None:
        if count:
            self._records[tick] = self._records.get(tick, 0) + count
            self._used += count

    def _frees(self, count: int) -> int:
        """Return the tick at which so many more may start, if none does before; 0 if they may already."""
        missing, tick = count - self._most + self._used, 0
        for at, starts in self._records.items():
            if missing <= 0:
                break
            missing, tick = missing - starts, at + self._per
        return tick

    def _advance(self, tick: int) -> None:
        """Forget what does not count any more, and let it pay the debt."""
        records = self._records
        while records:
            if self._debt >= self._most == self._used:
                self._skip(min(self._debt // self._most, (tick - next(reversed(records))) // self._per))
                records = self._records
            at = next(iter(records))
            if at + self._per > tick:
                break
            self._used -= records.pop(at)
            self._pay(at + self._per)

    def _pay(self, tick: int) -> None:
        """Let what is free at an instant pay the debt."""
        paid = min(self._debt, max(0, self._most - self._used))
        self._debt -= paid
        self._record(tick, paid)

    def _skip(self, times: int) -> None:
        """Let all starts pay the debt so many times, one by one: each time the same pattern comes a length later."""
        if times > 0:
            self._debt -= times * self._most
            self._shift(times * self._per)

    def _shift(self, ticks: int) -> None:
        self._records = OrderedDict((at + ticks, count) for at, count in self._records.items())

    def _paid(self) -> RollingWindow:
        """Return what it will be when its debt is paid; nothing is taken before."""
        paid = copy(self)
        while paid._debt:
            if paid._used == paid._most:
                paid._skip(paid._debt // paid._most)
            if paid._debt:
                paid._advance(next(iter(paid._records)) + paid._per)
        paid._resumes = max(paid._resumes, next(reversed(paid._records)))
        return paid
