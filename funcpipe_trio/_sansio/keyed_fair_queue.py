"""Which item of one mixed stream goes next, so that the keys in it share by weight, and which item is in no queue yet?

Each key that has items has a *lane*: a queue of at most `capacity` items, first come first served, and a flow in a
`FairQueue`, which says whose first item is next. The next key of a stream cannot be known in advance, so one item may
wait *outside*: its lane is full, or it would need a lane more than `max_keys`. The stream stands still behind it. It
enters in the same step in which a place for it becomes free, so a key with an item outside never looks idle.

Invariants: a lane holds 1 to `capacity` items; there are at most `max_keys` lanes; while an item is outside there is no
place for it. So at most ``max_keys * capacity + 1`` items are here.

A key whose last item was taken has no lane from that step on. Its debt is not forgotten: the `FairQueue` keeps it
until virtual time has passed it, so a key gains nothing by coming and going.

It never waits, and does not decide what happens to an item outside: that is up to the caller.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from fractions import Fraction
from typing import Any

from .fair_queue import FairQueue, Flow
from .key_accounts import KeyAccount, KeyAccounts, cost_of


class Lane:
    """The items of one key."""

    __slots__ = ("account", "entries", "flow", "since")

    account: KeyAccount
    flow: Flow[Hashable]

    def __init__(self, flow: Flow[Hashable], account: KeyAccount, since: float) -> None:
        self.since = since  # when its last item was taken, or its first one came
        self.flow = flow
        self.account = account
        self.entries: deque[Entry] = deque()


class Entry:
    """An item with its key and cost; `lane` is the lane of its key, None if it has none; `came` is when it came."""

    __slots__ = ("came", "cost", "item", "key", "lane")

    came: float
    cost: int | Fraction
    item: Any
    key: Hashable
    lane: Lane | None

    def __init__(self, item: Any, key: Hashable, cost: int | Fraction, lane: Lane | None, came: float) -> None:
        self.came = came
        self.item = item
        self.key = key
        self.cost = cost
        self.lane = lane


class KeyedFairQueue:
    """Bounded queues by key, and the fair choice among them."""

    cost: int | Fraction
    outside: Entry | None
    """The item for which no queue has room."""

    def __init__(self, weight_of: Callable[[Any], int | Fraction], capacity: int, max_keys: int) -> None:
        self._weight_of = weight_of
        self._changed: dict[Hashable, int | Fraction] = {}  # weights set later
        self._capacity = capacity
        self._max_keys = max_keys
        self._lanes: dict[Hashable, Lane] = {}
        self._queue: FairQueue[Hashable] = FairQueue()
        self._accounts = KeyAccounts[KeyAccount](cost_of)
        self._inside = 0
        self.outside = None
        self.cost = 0
        """Total cost of the items handed over."""

    def __len__(self) -> int:
        """How many items are here."""
        return self._inside + (self.outside is not None)

    @property
    def keys(self) -> int:
        """How many keys have a lane."""
        return len(self._lanes)

    def entry(self, item: Any, key: Hashable, cost: int | Fraction, now: float = 0.0) -> Entry:
        """Look up the lane of the item to be added next, which has come now; this changes nothing.

        Raises:
          TypeError: if the key is not hashable.
        """
        return Entry(item, key, cost, self._lanes.get(key), now)

    def is_full(self, entry: Entry) -> bool:
        """Whether the queue of an item's own key has no room for it."""
        return entry.lane is not None and len(entry.lane.entries) == self._capacity

    def add(self, entry: Entry) -> bool:
        """Take an item; return whether it had to stay outside, which only one may."""
        if self.is_full(entry) or (entry.lane is None and len(self._lanes) == self._max_keys):
            self.outside = entry
            return True
        self._enter(entry)
        return False

    def set_weight(self, key: Hashable, weight: int | Fraction) -> None:
        """Give a key another weight from now on, whether it has items or not."""
        self._changed[key] = weight
        lane = self._lanes.get(key)
        if lane is not None:
            self._queue.set_weight(lane.flow, weight)
            lane.account.weight = weight

    def take(self, now: float = 0.0) -> Any:
        """Hand over the item whose turn it is; call it only while there is one."""
        queue = self._queue
        flow = queue.select()
        assert flow is not None, "an item was asked for where none is"
        lane = self._lanes[flow.key]
        entry = lane.entries.popleft()
        self._inside -= 1
        contested = queue.backlogged > 1
        if self.outside is not None and self.outside.lane is lane:
            self._let_in()  # before the charge: with an item outside the key is still backlogged
        cost = queue.charge(flow, entry.cost, still_ready=bool(lane.entries))
        self.cost += cost
        lane.account.count(cost, contested=contested)
        waited, lane.since = now - lane.since, now
        if waited > lane.account.longest_wait:
            lane.account.longest_wait = waited
        if not lane.entries:
            self._forget(lane)
        return entry.item

    def take_back(self) -> Entry | None:
        """Remove and return the item outside if the queue of its own key is full; None otherwise."""
        entry = self.outside
        if entry is None or entry.lane is None:
            return None
        self.outside = None
        return entry

    def clear(self) -> list[Any]:
        """Remove and return all items; those of a key in order."""
        items = [entry.item for lane in self._lanes.values() for entry in lane.entries]
        if self.outside is not None:
            items.append(self.outside.item)
        for lane in self._lanes.values():
            self._accounts.put_aside(lane.account)
        self._lanes.clear()
        self._queue = FairQueue()
        self._inside, self.outside = 0, None
        return items

    def accounts(self) -> list[KeyAccount]:
        """Return what the keys were served: the `MOST_SHOWN` with the highest cost, highest first."""
        live = [lane.account for lane in self._lanes.values()]
        if self.outside is not None and self.outside.lane is None:
            key = self.outside.key
            live.append(self._accounts.of(key) or KeyAccount(key, self._weight_now(key)))
        return self._accounts.greatest(live)

    def waiting(self) -> dict[Hashable, tuple[int, float | Fraction, float]]:
        """Return the keys that have items: how many, by what cost they lag, and since when none was taken.

        One whose only item is outside does not lag: it has no share before it has a queue.
        """
        lags = self._queue.lags()
        found: dict[Hashable, tuple[int, float | Fraction, float]] = {
            key: (len(lane.entries), lags.get(key, 0.0), lane.since) for key, lane in self._lanes.items()
        }
        if self.outside is not None:
            count, lag, since = found.get(self.outside.key, (0, 0.0, self.outside.came))
            found[self.outside.key] = count + 1, lag, since
        return found

    def _enter(self, entry: Entry) -> None:
        lane = entry.lane or self._new_lane(entry.key, entry.came)
        lane.entries.append(entry)
        self._inside += 1
        self._queue.ready(lane.flow)

    def _let_in(self) -> None:
        entry, self.outside = self.outside, None
        assert entry is not None
        self._enter(entry)

    def _new_lane(self, key: Hashable, came: float) -> Lane:
        weight = self._weight_now(key)
        account = self._accounts.resume(key) or KeyAccount(key, weight)
        lane = self._lanes[key] = Lane(self._queue.add(key, weight), account, came)
        lane.account.weight = weight
        return lane

    def _weight_now(self, key: Hashable) -> int | Fraction:
        return self._changed.get(key) or self._weight_of(key)

    def _forget(self, lane: Lane) -> None:
        """Remove a key without items; its place goes to the item outside, if that waits for one."""
        del self._lanes[lane.flow.key]
        self._queue.remove(lane.flow)
        self._accounts.put_aside(lane.account)
        if self.outside is not None and self.outside.lane is None:
            self._let_in()
