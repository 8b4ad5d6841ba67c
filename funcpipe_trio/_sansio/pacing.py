"""When may an item go on, and which one, if the clock decides that? The machines behind the operations of time.

The rule of all: a pacer takes items (`add`, unless it `is_full`) and hands out one at a time (`pop`), not before
`deadline`. A deadline comes before an item of the same instant: an item that arrives just when the one before it is due
does not take its place. So what is handed out does not depend on which task the scheduler runs first.

  Throttler   each item when the bucket has its tokens; they are taken when it is handed out, not when it came
  Debouncer   the last item, when no newer one came for a time
  Sampler     the last item, at the first multiple of a period after the item that began to wait
  Delayer     each item, a time after it came

The invariant: items leave in the order in which they came; each leaves, or is counted in `superseded`. At the `end`
what a Debouncer or Sampler keeps is due at once. They are told the time; they never wait.
"""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction
from typing import Any

from ..policies.rate_limit import RateLimit
from .multiples import Multiples
from .token_bucket import TokenBucket


class Pacer:
    """What all pacers share: the items they keep, and when the first of them is due."""

    deadline: float
    """When the next item may be handed out; infinite if there is none."""
    superseded: int
    """Items whose place a newer one took."""

    def __init__(self, capacity: int) -> None:
        self.items: deque[Any] = deque()
        self.deadline = math.inf
        self.superseded = 0
        self._capacity = capacity

    @property
    def is_full(self) -> bool:
        """Whether it takes no further item now."""
        return len(self.items) >= self._capacity

    def begin(self, now: float) -> None:
        """Hear that the run starts."""

    def add(self, item: Any, cost: int | Fraction, now: float) -> None:
        """Take an item; `cost` is in tokens."""
        raise NotImplementedError

    def pop(self, now: float) -> Any:
        """Hand out the item that is due."""
        self.deadline = math.inf
        return self.items.popleft()

    def end(self) -> None:
        """Hear that no more will come."""

    def clear(self) -> list[Any]:
        """Hand out, and forget, what is kept."""
        items = list(self.items)
        self.items.clear()
        self.deadline = math.inf
        return items


class Throttler(Pacer):
    """Each item when a token bucket lets it.

    To ask the bucket costs more than all else that is done for an item. So after a yes `credit` more items of cost 1
    may go on unasked (whoever lets one go takes 1 off). They are paid for together, before the next question or in
    `settle`, which ends the turn. To take a token later than its item left never leaves more in the bucket, so the
    bound holds as ever, in every window. It may leave less, by what a full bucket would have gained again within the
    turn (10 ms and one item; nothing where no time passes in a turn), but not to who keeps the pace: what was asked for
    was taken at once, so while each item gains a token there is one for the next.
    """

    _cost: int | Fraction
    credit: int
    deadline: float

    def __init__(self, rate_limit: RateLimit) -> None:
        super().__init__(1)
        self._bucket = TokenBucket(rate_limit)
        self._cost = 1
        self.credit = self._lent = 0

    def add(self, item: Any, cost: int | Fraction, now: float) -> None:
        """Take an item; it is due when the bucket will have its tokens."""
        self.items.append(item)
        self._cost = cost
        self.deadline = self._bucket.when(now, cost)

    @property
    def owes(self) -> bool:
        """Whether it has lent a credit; it must be settled at the end of the turn."""
        return self._lent > 0

    def passes(self, now: float) -> bool:
        """Say whether an item of cost 1 may go on as it comes, and take its token; only while none is kept.

        The same as `add` and `pop` at one instant, at half their cost.
        """
        self.settle(now)
        if self._bucket.take(now, 1) is not None:
            return False
        self.credit = self._lent = self._bucket.whole_tokens(now)
        return True

    def settle(self, now: float) -> None:
        """Take the tokens of what went on by credit; there is none until the next question."""
        owed, self.credit, self._lent = self._lent - self.credit, 0, 0
        if owed:
            self._bucket.take(now, owed)  # it held so much, and holds no less now

    def pop(self, now: float) -> Any:
        """Hand out the item that is due, and take its tokens."""
        # Now, and not when the item came: one that had to wait for room would leave together with the next.
        self._bucket.take(now, self._cost)
        return super().pop(now)


class Latest(Pacer):
    """Keeps the last item only."""

    deadline: float
    superseded: int

    def __init__(self) -> None:
        super().__init__(1)

    @property
    def is_full(self) -> bool:
        """Never: a newer item takes the place of the one that is kept."""
        return False

    def replace(self, item: Any) -> None:
        """Keep this item in place of the one before it."""
        self.superseded += len(self.items)
        self.items.clear()
        self.items.append(item)

    def end(self) -> None:
        """Hear that no more will come: what is kept is due."""
        if self.items:
            self.deadline = -math.inf


class Debouncer(Latest):
    """The last item, when no newer one came for `delay` seconds."""

    deadline: float

    def __init__(self, delay: float) -> None:
        super().__init__()
        self._delay = delay

    def add(self, item: Any, cost: int | Fraction, now: float) -> None:
        """Take an item in place of the one before it; the time begins again."""
        self.replace(item)
        self.deadline = now + self._delay


class Sampler(Latest):
    """The last item, at a multiple of `period`."""

    deadline: float

    def __init__(self, period: float) -> None:
        super().__init__()
        self._multiples = Multiples(period)

    def begin(self, now: float) -> None:
        """Hear that the run starts: multiples are counted from here."""
        self._multiples.begin(now)

    def add(self, item: Any, cost: int | Fraction, now: float) -> None:
        """Take an item in place of the one before it, if there is one, and at the same multiple."""
        if not self.items:
            self.deadline = self._multiples.after(now)
        self.replace(item)


class Delayer(Pacer):
    """Each item, `seconds` after it came; at most so many wait."""

    deadline: float

    def __init__(self, seconds: float, capacity: int) -> None:
        super().__init__(capacity)
        self._seconds = seconds
        self._dues: deque[float] = deque()

    def add(self, item: Any, cost: int | Fraction, now: float) -> None:
        """Take an item; it is due so much later."""
        self.items.append(item)
        self._dues.append(now + self._seconds)
        self.deadline = self._dues[0]

    def pop(self, now: float) -> Any:
        """Hand out the item that is due; the next one is so at its own time."""
        item = super().pop(now)
        self._dues.popleft()
        if self._dues:
            self.deadline = self._dues[0]
        return item
