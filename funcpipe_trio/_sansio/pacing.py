"""When may an item continue, and which one, if the clock decides that? The machines behind the time operations.

The common rule: a pacer takes items (`add`, unless it `is_full`) and hands out one at a time (`pop`), not before
`deadline`. A deadline comes before an item of the same instant: an item that arrives exactly when the previous one is
due does not replace it. So what is handed out does not depend on which task the scheduler runs first.

  Throttler   each item when its limit has the tokens; they are taken when it is handed out, not when it arrived
  Debouncer   the last item, when no newer one has arrived for a time, or the first has waited for a longer one
  Sampler     the last item, at the first multiple of a period after the item that began to wait
  Delayer     each item, a time after it arrived

The invariant: items leave in the order in which they arrived; each leaves, or is counted in `superseded`. At the `end`
what a Debouncer or Sampler keeps is due at once. They are told the time; they never wait.
"""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction
from typing import Any

from ..policies.rate_limit import AnyLimit
from .meters import meter_of
from .multiples import Multiples


class Pacer:
    """What all pacers share: the items they keep, and when the first of them is due."""

    deadline: float
    """When the next item may be handed out; infinite if there is none."""
    superseded: int
    """Number of items replaced by a newer one."""

    def __init__(self, capacity: int) -> None:
        self.items: deque[Any] = deque()
        self.deadline = math.inf
        self.superseded = 0
        self._capacity = capacity

    @property
    def is_full(self) -> bool:
        """Whether it can take no further item now."""
        return len(self.items) >= self._capacity

    def begin(self, now: float) -> None:
        """Called when the run starts."""

    def add(self, item: Any, cost: int | Fraction, now: float) -> None:
        """Take an item; `cost` is in tokens."""
        raise NotImplementedError

    def pop(self, now: float) -> Any:
        """Hand out the item that is due."""
        self.deadline = math.inf
        return self.items.popleft()

    def end(self) -> None:
        """Called when no more items will arrive."""

    def clear(self) -> list[Any]:
        """Remove and return the kept items."""
        items = list(self.items)
        self.items.clear()
        self.deadline = math.inf
        return items


class Throttler(Pacer):
    """Each item when a limit allows it.

    Asking the meter costs more than everything else that is done for an item. So after a yes, `credit` more items of
    cost 1 may pass without asking (the caller subtracts 1 for each). They are paid for together, before the next
    question or in `settle`, which ends the turn. Taking a token later than its item left never leaves more of
    them, so the bound still holds in every window. Paying late can only cost tokens that a full bucket would have
    regained within the turn (10 ms and one item; nothing if no time passes in a turn); a sender that stays within the
    rate loses nothing, because the token that was asked for is taken at once.
    """

    _cost: int | Fraction
    credit: int
    deadline: float

    def __init__(self, rate_limit: AnyLimit) -> None:
        super().__init__(1)
        self._meter = meter_of(rate_limit)
        self._cost = 1
        self.credit = self._lent = 0

    def add(self, item: Any, cost: int | Fraction, now: float) -> None:
        """Take an item; it is due when the limit will have its tokens."""
        self.items.append(item)
        self._cost = cost
        self.deadline = self._meter.when(now, cost)

    @property
    def owes(self) -> bool:
        """Whether it has given a credit, which must be settled at the end of the turn."""
        return self._lent > 0

    def passes(self, now: float) -> bool:
        """Return whether an item of cost 1 may pass at once, and take its token; call it only while no item is kept.

        The same as `add` and `pop` at the same time, at half their cost.
        """
        self.settle(now)
        if self._meter.take(now, 1) is not None:
            return False
        self.credit = self._lent = self._meter.whole_tokens(now)
        return True

    def settle(self, now: float) -> None:
        """Take the tokens of the items that passed on credit; there is no credit until the next question."""
        owed, self.credit, self._lent = self._lent - self.credit, 0, 0
        if owed:
            self._meter.take(now, owed)  # it held that many, and still does

    def pop(self, now: float) -> Any:
        """Hand out the item that is due, and take its tokens."""
        # Now, and not when the item arrived: one that had to wait for room would leave together with the next.
        self._meter.take(now, self._cost)
        return super().pop(now)


class Latest(Pacer):
    """Keeps only the last item."""

    deadline: float
    superseded: int

    def __init__(self) -> None:
        super().__init__(1)

    @property
    def is_full(self) -> bool:
        """Never: a newer item replaces the one that is kept."""
        return False

    def replace(self, item: Any) -> None:
        """Keep this item instead of the previous one."""
        self.superseded += len(self.items)
        self.items.clear()
        self.items.append(item)

    def end(self) -> None:
        """Called when no more items will arrive: what is kept is due."""
        if self.items:
            self.deadline = -math.inf


class Debouncer(Latest):
    """The last item, when no newer one has arrived for `delay` seconds, or `max_wait` after the first that waited."""

    deadline: float

    def __init__(self, delay: float, max_wait: float = math.inf) -> None:
        super().__init__()
        self._delay, self._max_wait = delay, max_wait
        self._latest = math.inf

    def add(self, item: Any, cost: int | Fraction, now: float) -> None:
        """Take an item instead of the previous one; the time starts again."""
        if not self.items:
            self._latest = now + self._max_wait
        self.replace(item)
        self.deadline = min(now + self._delay, self._latest)


class Sampler(Latest):
    """The last item, at a multiple of `period`."""

    deadline: float

    def __init__(self, period: float) -> None:
        super().__init__()
        self._multiples = Multiples(period)

    def begin(self, now: float) -> None:
        """Called when the run starts: multiples are counted from here."""
        self._multiples.begin(now)

    def add(self, item: Any, cost: int | Fraction, now: float) -> None:
        """Take an item instead of the previous one, if there is one, for the same multiple."""
        if not self.items:
            self.deadline = self._multiples.after(now)
        self.replace(item)


class Delayer(Pacer):
    """Each item, `seconds` after it arrived; at most `capacity` of them wait."""

    deadline: float

    def __init__(self, seconds: float, capacity: int) -> None:
        super().__init__(capacity)
        self._seconds = seconds
        self._dues: deque[float] = deque()

    def add(self, item: Any, cost: int | Fraction, now: float) -> None:
        """Take an item; it is due `seconds` later."""
        self.items.append(item)
        self._dues.append(now + self._seconds)
        self.deadline = self._dues[0]

    def pop(self, now: float) -> Any:
        """Hand out the item that is due; the next one is due at its own time."""
        item = super().pop(now)
        self._dues.popleft()
        if self._dues:
            self.deadline = self._dues[0]
        return item
