"""Tasks that wait for tokens, of one bucket or of several at once: which asks, and which is woken when one leaves?

The choice is `_sansio.token_claims`. Tasks that need the same buckets stand in one `TokenQueue`. Its first task asks,
and takes the tokens of all its buckets in the step in which it goes on: none is held meanwhile, so none can be lost,
and no two tasks can wait for each other. A bucket knows the lines in which a task waits for its tokens. The first task
of each line has a *claim* there, older or younger than others; a younger claim may pass an older one only if that does
not delay the older. So a first task asks again when its tokens are due; or, if it must not delay an older one, when
that one has left, is first no more, or will be later than it said; and, should another limit hold that one up, when
there are tokens for both. Of several older ones it follows the youngest, whose turn is the last: so a task that leaves
wakes those that may be next, and not all.

Which task is the first of its line, and which claim is older, is a question of arrival; unless a bucket of the line has
shares: then it is one of the order of keys there (`_sansio.fair_lines`), of the first such bucket. When that order has
changed, a first task asks again that stood back for one which is now behind it. If such orders of several buckets make
first tasks stand back for one another in a circle, the one that closes it goes on.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from math import ceil, inf
from operator import itemgetter

import trio

from ..._sansio.fair_lines import Branch, FairLine
from ..._sansio.places import Places
from ..._sansio.token_claims import Claim, delays, may_start, ready_at
from ..core.wait_queue import Order, Waiter, WaitQueue
from .shared_bucket import Cost, Seat, SharedBucket

_PARTS = 100
"""In at most so many parts a key pays a burst."""


class Claimant(Waiter):
    """A task in a line, and what it claims."""

    __slots__ = (
        "_claim",
        "_debt_claim",
        "behind",
        "costs",
        "followers",
        "held_by",
        "line",
        "numbers",
        "owed",
        "ready",
        "refused",
        "seats",
        "since",
    )

    def __init__(self, line: TokenQueue, costs: Sequence[Cost], seats: Sequence[Seat | None], since: float) -> None:
        super().__init__()
        self.line: TokenQueue = line  # where it waits
        self.costs: Sequence[Cost] = costs  # tokens that it needs, in the order of the buckets
        self.seats: Sequence[Seat | None] = seats  # where it stands there; None where there are no shares
        self.since: float = since  # when it came
        self.numbers: dict[SharedBucket, int] = {}  # its number in the order of arrival at each; empty before it waits
        self.behind: Claimant | None = None  # the older one that it last stood back for
        self.followers: dict[TokenQueue, None] = {}  # lines whose first task must not delay it
        self.held_by: tuple[SharedBucket, ...] | None = None  # what its `head` waited for when its followers last knew
        self.ready: float = inf  # when its tokens will be there, as it, or one that stands back for it, last saw it
        self.refused: Exception | None = None  # why it could not join: its key raised
        self.owed: tuple[SharedBucket, Cost] | None = None  # a debt of its key, of which it pays so much before it goes
        self._claim: Claim | None = None  # all that it needs; made when asked for, which is not where a line is alone
        self._debt_claim: Claim = {}  # what it pays of the debt

    def owes(self, bucket: SharedBucket, cost: Cost) -> None:
        """Let it pay a part of its key's debt before it goes."""
        self.owed, self._debt_claim = (bucket, cost), {bucket: cost}

    @property
    def claim(self) -> Claim:
        """What it needs next, by bucket; the same object as long as that is the same."""
        if self.owed is not None:
            return self._debt_claim
        if self._claim is None:
            self._claim = dict(zip(self.line.buckets, self.costs, strict=True))
        return self._claim

    @property
    def head(self) -> Claimant:
        """The one that it waits for in the end, which stands back for nobody; itself if it does not."""
        place = self
        while place.behind is not None:
            place = place.behind
        return place

    def waits_for(self, now: float) -> tuple[SharedBucket, ...]:
        """Return the buckets whose tokens will be there last."""
        claim, ready = self.claim, ready_at(now, self.claim)
        return tuple([each for each in self.line.buckets if each in claim and each.when(now, claim[each]) >= ready])

    def has_turn(self, decides: SharedBucket, now: float) -> bool:
        """Whether shares of that bucket say whose turn it is here, and nothing else holds it up.

        Those that it stands back for have their turn before, or it would be held up.
        """
        place: Claimant | None = self
        while place is not None:
            if place.line.decides is not decides or decides not in place.claim:
                return False
            if decides.when(now, place.claim[decides]) < ready_at(now, place.claim):
                return False
            place = place.behind
        return True

    def let_follow(self, now: float | None = None, taken: SharedBucket | None = None) -> None:
        """Let the lines ask again that stand back for it; given a time, only those that need not do so any more.

        If that is so because tokens of a bucket were taken, only those need not that do not wait for these as well.
        """
        for line in [line for line in self.followers if taken not in line.buckets]:
            first = line.first
            if now is None or first is None or not self._goes_before(first, now):
                del self.followers[line]
                line.poke()

    def let_pass(self, now: float) -> None:
        """Let those ask again that stand back for it, and for whom it may now be another that they have to wait for."""
        head = self.head
        held_by = head.waits_for(now)
        if held_by == self.held_by:
            return
        self.held_by, waiting = held_by, [self]
        while waiting:
            place = waiting.pop()
            for line in place.followers:
                first = line.first
                if first is None or first.behind is not place:
                    continue
                if place is not head and _passes_at(now, first, place, head, held_by) < inf:
                    line.poke()
                else:
                    first.held_by = held_by
                    waiting.append(first)

    def _goes_before(self, younger: Claimant, now: float) -> bool:
        """Whether a younger one must not start before it."""
        decides = younger.line.decides
        return delays(now, younger.claim, self.claim) or (decides is not None and self.has_turn(decides, now))


class _ByKey:
    """The order of a line in which one bucket has shares."""

    def __init__(self, top: Branch, index: int) -> None:
        self.fair: FairLine[Claimant] = FairLine(top)  # says who is first
        self._index = index  # which of the buckets it is

    def __len__(self) -> int:
        return len(self.fair)

    def __iter__(self) -> Iterator[Claimant]:
        return iter(self.fair)

    def add(self, place: Claimant) -> None:
        seat = place.seats[self._index]
        assert seat is not None
        self.fair.add(place, seat.branch, seat.key)

    def remove(self, place: Claimant) -> None:
        self.fair.remove(place)

    def first(self) -> Claimant | None:
        return self.fair.first()


class TokenQueue:
    """The tasks that wait for tokens of the same buckets."""

    def __init__(self, *buckets: SharedBucket) -> None:
        self.buckets: tuple[SharedBucket, ...] = buckets  # each task takes tokens of all of them
        self.decides: SharedBucket | None = None  # the one whose keys say who is first; None: first come, first served
        self._by_key: _ByKey | None = None  # the order that follows from that
        order: Order[Claimant] | None = None
        for index, each in enumerate(buckets):
            if each.top is not None:
                self.decides, order = each, _ByKey(each.top, index)
                self._by_key = order
                break
        self._line: WaitQueue[Claimant] = WaitQueue(order)  # its first task asks
        self._shown: Claimant | None = None  # the first one, as far as others know
        self._entering: OrderedDict[Claimant, None] = OrderedDict()
        """Tasks in their checkpoint, that have not joined: one that comes alone, and finds its tokens, need not. With
        shares that saves two thirds of the time of a call that does not wait."""
        of_places = [isinstance(each.meter, Places) for each in buckets]
        self.is_mixed: bool = any(of_places) and not all(of_places)  # whether it waits for places and for tokens
        self._for_places = 0.0  # seconds in which it waited for places, if it may wait for either
        self._since: float | None = None  # since when it does so now; None if it does not

    def __len__(self) -> int:
        """How many tasks wait."""
        return len(self._line) + len(self._entering)

    @property
    def first(self) -> Claimant | None:
        """The task that is served next."""
        if self._entering:
            self._let_in()
        return self._line.order.first()

    def waited_places(self, now: float) -> float:
        """Return for how many seconds it has waited for places, and not for tokens only."""
        return self._for_places + (0.0 if self._since is None else now - self._since)

    def poke(self) -> None:
        """Let the first task ask again."""
        if (first := self.first) is not None:
            first.behind = None
        self._line.poke()

    def look(self) -> None:
        """Let the first task ask if it was not the first before, and those that stand back for that one.

        Or if it stood back for one that keys of the same shares have put behind it since.
        """
        first, shown = self.first, self._shown
        if first is not shown:
            self._shown = first
            if shown is not None:
                shown.let_follow()
            self.poke()
        elif first is not None and first.behind is not None and self._is_passed(first, first.behind):
            self.poke()

    def let_follow(self, now: float, taken: SharedBucket) -> None:
        """Let the lines ask again that need not stand back for the first task any more, as tokens were taken."""
        if (first := self.first) is not None and first.followers:
            first.let_follow(now, taken)

    def most(self, bucket: SharedBucket) -> Cost:
        """Return the most tokens of a bucket that a waiting task needs."""
        index = self.buckets.index(bucket)
        self._let_in()
        return max(place.costs[index] for place in self._line.order)

    def try_take(self, costs: Sequence[Cost], seats: Sequence[Seat | None]) -> bool:
        """Take tokens of all buckets if they are there, and if that delays no waiting task; return whether it did."""
        if self._shown is not None or self._entering:
            return False
        bucket = self.buckets[0]
        if self._is_alone() and (bucket.top is None or not bucket.debts):
            return bucket.take(bucket.now(), costs[0], seats[0]) is None
        self._collect(self._now())
        if any(seat is not None and seat in each.debts for each, seat in zip(self.buckets, seats, strict=True)):
            return False
        return self._ask(Claimant(self, costs, seats, 0.0)) is None

    async def take(self, costs: Sequence[Cost], seats: Sequence[Seat | None], *, checkpoint: bool = False) -> None:
        """Wait for tokens of all buckets; they are taken in the step in which this returns.

        Checkpoint: if it waits, or if `checkpoint` is set.
        Cancellation: the place in line is given back, and nothing was taken.
        """
        now = self._now()
        place = Claimant(self, costs, seats, now)
        if checkpoint and self._by_key is not None:
            if await self._took_on_entry(place):
                return
            checkpoint = False
        else:
            if self._entering:
                self._let_in()  # who came before joins before
            self._join(place, now)
        try:
            ask = self._ask if not self.is_mixed else self._ask_and_note
            await self._line.wait(place, lambda: ask(place), checkpoint=checkpoint)
        finally:
            self._leave(place, trio.current_time())

    async def _took_on_entry(self, place: Claimant) -> bool:
        """Do the checkpoint, and return whether the task has its tokens; otherwise it has joined."""
        self._entering[place] = None
        for each in self.buckets:
            each.lines[self] = None
        try:
            await trio.lowlevel.checkpoint()
        except BaseException:
            if place in self._entering:
                self._entered(place)
            elif place.refused is None:
                self._leave(place, trio.current_time())
            raise
        if place not in self._entering:
            _refuse(place)
            return False
        bucket = self.buckets[0]
        is_only = len(self) == 1 and self._is_alone() and not bucket.debts
        if is_only and bucket.take(self._now(), place.costs[0], place.seats[0]) is None:
            self._entered(place)
            return True
        self._let_in()
        _refuse(place)
        return False

    def _entered(self, place: Claimant) -> None:
        del self._entering[place]
        if not len(self):
            for each in self.buckets:
                del each.lines[self]

    def _let_in(self) -> None:
        """Let the tasks join that are in their checkpoint: it matters now who is first."""
        entering, self._entering = self._entering, OrderedDict()
        for place in entering:
            try:
                self._join(place, self._now())
            except Exception as error:  # the key's own: raised in the task whose key it is
                place.refused = error
        if not len(self):
            for each in self.buckets:
                each.lines.pop(self, None)

    def _ask_and_note(self, place: Claimant) -> float | None:
        again_at = self._ask(place)
        now = self._now()
        self._note(now, is_for_places=again_at is not None and ready_at(now, place.claim) == inf)
        return again_at

    def _note(self, now: float, *, is_for_places: bool) -> None:
        """Note what it waits for from now on."""
        self._for_places, self._since = self.waited_places(now), now if is_for_places else None

    def _ask(self, place: Claimant) -> float | None:
        """Take the tokens for the first task here and return None, or return when to ask again."""
        now = self._now()
        if self.decides is not None:
            self._collect(now)
        while self.decides is not None and self._owes(place):
            again_at = self._may_start(place, now)
            if again_at is not None:
                return again_at
            self._pay(place, now)
            if self.first is not place:
                return inf
        if self.decides is None and self._is_alone():  # as always without shares, for a limiter by itself
            return self.buckets[0].take(now, place.costs[0], None)
        again_at = self._may_start(place, now)
        if again_at is None:
            self._take(place, now)
        return again_at

    def _may_start(self, place: Claimant, now: float) -> float | None:
        """Return None if it may take what it claims now, or when it is to ask again."""
        place.behind = None
        if self._is_alone():
            ready = ready_at(now, place.claim)
            return None if ready <= now else ready
        older = self._older(place)
        while True:
            answer = self._turn_before(older, now) or may_start(now, place.claim, [each.claim for each in older])
            if answer is None:
                return None
            other = None if isinstance(answer, float) else next(each for each in older if each.claim is answer)
            if other is not None and _closes_circle(place, other):
                older.remove(other)
                continue
            place.behind = other
            before, place.ready = place.ready, ready_at(now, place.claim)
            if place.ready > before or self.decides is not None:  # an older one took tokens, or the rate was changed
                place.let_follow(now)
            place.let_pass(now)
            if isinstance(answer, float):
                return answer
            assert other is not None
            other.followers[self], other.ready = None, min(other.ready, ready_at(now, other.claim))
            head = other.head
            if head is other:
                other.held_by = None  # should it stand back itself, this one may pass it
                return inf  # it waits for tokens, and who takes some of them, however late, delays it
            held_by = head.waits_for(now)
            if held_by != other.held_by:
                other.held_by = None  # not all of its followers know the same
            return _passes_at(now, place, other, head, held_by)

    def _turn_before(self, older: Sequence[Claimant], now: float) -> Claim | None:
        """Return the claim of an older one whose turn it is by the same shares: of several, the last one.

        That one goes first even if there are tokens for both, or if one of the two could use what is left without
        delaying the other: otherwise the lines would not share by weight.
        """
        decides = self.decides
        if decides is None:
            return None
        last: Claimant | None = None
        for each in [each for each in older if each.line.decides is decides]:
            is_later = last is None or last.line._is_before(last, each.line, each, decides)
            if is_later and each.has_turn(decides, now):
                last = each
        return None if last is None else last.claim

    def _take(self, place: Claimant, now: float) -> None:
        """Take all tokens of a task, which leaves with them in this step, and charge its keys."""
        for each, cost, seat in zip(self.buckets, place.costs, place.seats, strict=True):
            each.take(now, cost, seat)
            self._charge(place, each, cost, seat)
            each.let_follow(now)

    def _charge(self, place: Claimant, bucket: SharedBucket, cost: Cost, seat: Seat | None) -> None:
        if seat is None:
            return
        if bucket is self.decides and self._by_key is not None and place.numbers:
            self._by_key.fair.served(place, cost)
        else:
            seat.branch.adjust(seat.key, cost)
            bucket.look()

    def _collect(self, now: float) -> None:
        for each in self.buckets:
            if each.debts:
                each.collect(now)

    def _owes(self, place: Claimant) -> bool:
        """Whether its key has a debt to pay before it goes; then it claims the next part of that."""
        place.owed = None
        for each, cost, seat in zip(self.buckets, place.costs, place.seats, strict=True):
            if seat is not None and seat in each.debts:
                # Small parts, each in its turn: while it pays, others get their share. The second bounds their number.
                part = max(cost, ceil(each.meter.rate_limit.burst / _PARTS))
                place.owes(each, min(each.debts.of(seat), part))
                return True
        return False

    def _pay(self, place: Claimant, now: float) -> None:
        """Pay a part of the debt of its key, which has been found to be there."""
        assert place.owed is not None
        bucket, cost = place.owed
        seat = place.seats[self.buckets.index(bucket)]
        assert seat is not None
        bucket.meter.take(now, cost)
        bucket.debts.pay(seat, cost)
        place.owed = None
        self._charge(place, bucket, cost, seat)
        bucket.look()
        bucket.poke()  # others of the key may have waited to pay the same

    def _is_alone(self) -> bool:
        """Whether only tasks of this line can want its tokens, which is the usual case."""
        lines = self.buckets[0].lines
        return len(self.buckets) == 1 and (not lines or (len(lines) == 1 and self in lines))

    def _older(self, place: Claimant) -> list[Claimant]:
        """Return the first claims of other lines that go before; at each bucket the youngest first."""
        older: list[Claimant] = []
        for each in self.buckets:
            firsts = [
                (first.numbers[each], first)
                for line in each.lines
                if line is not self and (first := line.first) and line._is_before(first, self, place, each)
            ]
            older += [first for _, first in sorted(firsts, key=itemgetter(0), reverse=True)]
        return older

    def _is_passed(self, first: Claimant, older: Claimant) -> bool:
        """Whether the first task here goes before one that it stands back for: shares of both lines say so now."""
        if self.decides is None or older.line.decides is not self.decides or older.line.first is not older:
            return False
        return self._is_before(first, older.line, older, self.decides)

    def _is_before(self, mine: Claimant, other: TokenQueue, its: Claimant, bucket: SharedBucket) -> bool:
        """Whether the first task here is older than that of another line."""
        if not its.numbers:
            return True
        if self._by_key is not None and other._by_key is not None and self.decides is other.decides:
            answer = self._by_key.fair.is_before(mine, other._by_key.fair, its)
            if answer is not None:
                return answer
        return mine.numbers[bucket] < its.numbers[bucket]

    def _join(self, place: Claimant, now: float) -> None:
        self._line.order.add(place)
        begun: list[tuple[SharedBucket, Seat]] = []
        try:
            for each, seat in zip(self.buckets, place.seats, strict=True):
                if seat is not None:
                    each.waits.begin(seat.branch.full_name(seat.key), now)
                    begun.append((each, seat))
        except BaseException:
            self._line.order.remove(place)
            for each, seat in begun:
                each.waits.end(seat.branch.full_name(seat.key), now, now)
            raise
        for each in self.buckets:
            place.numbers[each], each.joined = each.joined, each.joined + 1
            each.lines[self] = None
            each.count_waiting(now, 1)
        (self.decides or self).look()  # a new key may make ticks finer, which breaks ties in other lines

    def _leave(self, place: Claimant, now: float) -> None:
        self._line.order.remove(place)
        for each, seat in zip(self.buckets, place.seats, strict=True):
            each.count_waiting(now, -1)
            if not len(self):
                del each.lines[self]
            if seat is not None:
                each.waits.end(seat.branch.full_name(seat.key), place.since, now)
        if self.is_mixed and not self._line:
            self._note(now, is_for_places=False)
        if place.followers:
            place.let_follow()
        (self.decides or self).look()

    def _now(self) -> float:
        return self.buckets[0].now() if len(self.buckets) == 1 else max([each.now() for each in self.buckets])


def _refuse(place: Claimant) -> None:
    """Raise the error of a task that could not join."""
    if place.refused is not None:
        raise place.refused


def _passes_at(
    now: float, place: Claimant, other: Claimant, head: Claimant, held_by: tuple[SharedBucket, ...]
) -> float:
    """Return when a task will not delay an older one that stands back itself; inf if not before that one goes.

    If it needs the same as the one that all of them wait for, and is behind that one, it goes after it.
    """
    claim, older, line = place.claim, other.claim, head.line
    if any(bucket in claim and line._is_before(head, place.line, place, bucket) for bucket in held_by):
        return inf
    at = max(bucket.when(now, cost + older[bucket]) for bucket, cost in claim.items() if bucket in older)
    return at if at > now else inf


def _closes_circle(place: Claimant, other: Claimant) -> bool:
    """Whether an older one stands back, in the end, for the one that would stand back for it."""
    behind: Claimant | None = other
    while behind is not None:
        if behind is place:
            return True
        behind = behind.behind
    return False
