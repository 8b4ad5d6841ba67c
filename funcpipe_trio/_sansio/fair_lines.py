"""Which of the calls that wait for a limit is next, when keys share it by weight? A line for each set of limits.

Every key has a *lane* with its waiting calls, first come first served, and a flow in a `FairQueue`, which says whose
first call is next (start-time fair queueing). Keys may be in groups: a group is a flow beside keys, with a queue of its
own for its members.

Calls may need other limits, too. Those that need the same ones stand in one *line*; a line that waits for another limit
must not hold up the rest. So the first call of each line is known, and may start out of turn: a flow belongs to a key
and not to a line, and a `View` of each queue shows the flows that have a call in a line. So a key that waits in two
lines has one share, and the bound of `FairQueue` holds between any two keys that no other limit holds up.

Invariants: a flow is ready exactly while a call of its key, or of its group, waits; a view shows it exactly while one
waits in that line. A key without waiting calls is forgotten; the `FairQueue` keeps its debt until virtual time has
passed it.

It does not know the limit, nor the time: it says who is next, and is told who was served.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator
from fractions import Fraction
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

from .fair_queue import FairQueue, Flow, View

P = TypeVar("P")


class Branch:
    """The keys and groups that share directly with each other: of a limit, or inside of a group."""

    __slots__ = ("__weakref__", "_groups", "_kept", "_parent", "_set", "_weight_of", "flow", "lanes", "name", "queue")

    def __init__(
        self, weight_of: Callable[[Any], int | Fraction], name: tuple[Hashable, ...] = (), parent: Branch | None = None
    ) -> None:
        self.queue: FairQueue[Any] = FairQueue()  # says which flow is next
        self.name: tuple[Hashable, ...] = name  # the keys that lead to it; empty at the top
        self.lanes: dict[Hashable, Lane[Any]] = {}  # by key: those with waiting calls
        self.flow: Flow[Any] | None = None  # its own flow, in the parent's queue; None if no call waits in it
        self._parent = parent  # the branch it is a group of
        self._groups: WeakValueDictionary[Hashable, Branch] = WeakValueDictionary()  # those in use
        self._weight_of = weight_of  # of a name whose weight was not set
        self._set: dict[Hashable, int | Fraction] = {}  # weights that were set
        self._kept: set[Branch] = set()  # groups in which weights were set, which must not be forgotten

    def __reduce__(self) -> tuple[Any, ...]:
        """Make a copy: of the weights, not of who waits."""
        if self._parent is not None:
            return Branch.group, (self._parent, self.name[-1])
        return _remade, (self._weight_of, self._all_set())

    def _all_set(self) -> list[tuple[tuple[Hashable, ...], dict[Hashable, int | Fraction]]]:
        """Return the weights that were set, by the names of the groups."""
        found = [(self.name, dict(self._set))] if self._set else []
        return found + [each for group in list(self._groups.values()) for each in group._all_set()]

    def group(self, key: Hashable) -> Branch:
        """Return the group of a key."""
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Branch(self._weight_of, (*self.name, key), self)
        return group

    def full_name(self, key: Hashable) -> Hashable:
        """Return the name of a key of it: the key itself at the top, and with the groups around it in one."""
        return (*self.name, key) if self.name else key

    def weight(self, key: Hashable) -> int | Fraction:
        """Return the weight of a key or group."""
        if key in self._set:
            return self._set[key]
        return self._weight_of((*self.name, key) if self.name else key)

    def levels(self) -> tuple[tuple[Hashable, int | Fraction | None], ...]:
        """Return the names of the groups that lead to it, outermost first, each with its weight if that was set."""
        if self._parent is None:
            return ()
        return (*self._parent.levels(), (self.name[-1], self._parent._set.get(self.name[-1])))

    def set_weight(self, key: Hashable, weight: int | Fraction) -> None:
        """Give a key or group another weight from now on, whether it waits or not."""
        self._set[key] = weight
        self._keep()
        for each in (self.lanes.get(key), self._groups.get(key)):
            if each is not None and each.flow is not None:
                self.queue.set_weight(each.flow, weight)

    def copy_weights(self, other: Branch) -> None:
        """Set the weights that were set in another one, and those in its groups."""
        self._set |= other._set
        self._keep()
        for key, group in other._groups.items():
            self.group(key).copy_weights(group)

    def _keep(self) -> None:
        if self._parent is not None:
            self._parent._kept.add(self)
            self._parent._keep()

    def lane(self, key: Hashable) -> Lane[Any]:
        """Return the lane of a key, a new one if none of its calls waits."""
        lane = self.lanes.get(key)
        if lane is None:
            lane = self.lanes[key] = Lane(self, key, self.queue.add(key, self.weight(key)))
        return lane

    def drop(self, lane: Lane[Any]) -> None:
        """Forget a lane without waiting calls, and the groups around it that have no other."""
        self.queue.remove(lane.flow)
        del self.lanes[lane.key]
        branch = self
        while branch._parent is not None and branch.flow is not None and not branch.queue.backlogged:
            branch._parent.queue.remove(branch.flow)
            branch.flow = None
            branch = branch._parent

    def up(self) -> tuple[Branch, Flow[Any]] | None:
        """Return the branch that it is a group of, and its flow there; None at the top."""
        if self._parent is None:
            return None
        if self.flow is None:
            key = self.name[-1]
            self.flow = self._parent.queue.add(_Group(self), self._parent.weight(key))
        return self._parent, self.flow

    def path(self, flow: Flow[Any]) -> list[tuple[FairQueue[Any], Flow[Any]]]:
        """Return a flow of it and the flows of the groups around it, each with its queue, from the inside out."""
        path, branch = [(self.queue, flow)], self
        while branch._parent is not None and branch.flow is not None:
            path.append((branch._parent.queue, branch.flow))
            branch = branch._parent
        return path

    def adjust(self, key: Hashable, cost: int | Fraction) -> None:
        """Correct what a key was charged (see `FairQueue.adjust`), whether it waits or not."""
        lane = self.lanes.get(key)
        flow = self.queue.add(key, self.weight(key)) if lane is None else lane.flow
        for queue, each in self.path(flow):
            if queue.backlogged:  # otherwise nobody shares with it, and all will start level
                queue.adjust(each, cost)
        if lane is None:
            self.queue.remove(flow)


def _remade(weight_of: Callable[[Any], int | Fraction], weights: Iterable[tuple[Any, dict[Any, Any]]]) -> Branch:
    top = Branch(weight_of)
    for name, of_keys in weights:
        branch = top
        for key in name:
            branch = branch.group(key)
        for key, weight in of_keys.items():
            branch.set_weight(key, weight)
    return top


class _Group:
    """The key of a group's flow: equal for the same group, and to no key of a call."""

    __slots__ = ("_hash", "branch", "name")

    def __init__(self, branch: Branch) -> None:
        self.branch = branch
        self.name = branch.name
        self._hash = hash((_Group, self.name))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Group) and other.name == self.name

    def __hash__(self) -> int:
        return self._hash


class Lane(Generic[P]):
    """The waiting calls of one key, in each line in the order in which they came."""

    __slots__ = ("branch", "flow", "key", "places")

    def __init__(self, branch: Branch, key: Hashable, flow: Flow[Any]) -> None:
        self.branch: Branch = branch
        self.key: Hashable = key
        self.flow: Flow[Any] = flow
        self.places: dict[FairLine[P], OrderedDict[P, None]] = {}


class FairLine(Generic[P]):
    """The waiting calls that need the same limits, the order among them being that of one of those limits."""

    def __init__(self, top: Branch) -> None:
        self._top = top
        self._views: dict[Branch, View[Any]] = {}  # those that show a flow
        self._lanes: dict[P, Lane[P]] = {}  # of each call, in the order in which they came

    def __len__(self) -> int:
        """How many calls wait in it."""
        return len(self._lanes)

    def __iter__(self) -> Iterator[P]:
        """Iterate over them, in the order in which they came."""
        return iter(self._lanes)

    def add(self, place: P, branch: Branch, key: Hashable) -> None:
        """Put a call at the end of its key's lane.

        Raises:
          TypeError: if the key is not hashable; then nothing has changed.
        """
        lane: Lane[P] = branch.lane(key)
        self._lanes[place] = lane
        places = lane.places.get(self)
        if places is None:
            places = lane.places[self] = OrderedDict()
            self._show(branch, lane.flow)
        places[place] = None

    def remove(self, place: P) -> None:
        """Remove a call, served or not; nobody else is charged or delayed by it."""
        lane = self._lanes.pop(place)
        places = lane.places[self]
        del places[place]
        if not places:
            del lane.places[self]
            self._hide(lane.branch, lane.flow)
            if not lane.places:
                lane.branch.drop(lane)

    def first(self) -> P | None:
        """Return the call that is served next; None if none waits."""
        if not self._lanes:
            return None
        branch = self._top
        while True:
            flow = self._views[branch].first()
            assert flow is not None
            if type(flow.key) is not _Group:
                lane: Lane[P] = branch.lanes[flow.key]
                return next(iter(lane.places[self]))
            branch = flow.key.branch

    def served(self, place: P, cost: int | Fraction) -> None:
        """Charge a call that starts, which is the first of its line."""
        lane = self._lanes[place]
        for queue, flow in lane.branch.path(lane.flow):
            if queue.select() is not flow:
                queue.overtake(flow)
            queue.charge(flow, cost, still_ready=True)

    def is_before(self, place: P, other: FairLine[P], its: P) -> bool | None:
        """Return whether a call of it is served before one of another line; None if they are of the same key.

        Both lines must be of the same limit.
        """
        lane, its_lane = self._lanes[place], other._lanes[its]
        mine, theirs = ([*each.branch.path(each.flow)] for each in (lane, its_lane))
        while mine and theirs:
            (_, flow), (_, its_flow) = mine.pop(), theirs.pop()
            if flow is not its_flow:
                return flow.place < its_flow.place
        return None

    def _show(self, branch: Branch, flow: Flow[Any]) -> None:
        """Show a flow in this line, and the groups around it."""
        branch.queue.ready(flow)
        view = self._views.get(branch)
        if view is None:
            view = self._views[branch] = View(branch.queue)
            if (up := branch.up()) is not None:
                self._show(*up)
        view.show(flow)

    def _hide(self, branch: Branch, flow: Flow[Any]) -> None:
        """Hide a flow in this line, and the groups around it that have no other here."""
        view = self._views[branch]
        view.hide(flow)
        if not view.shown:
            del self._views[branch]
            if (up := branch.up()) is not None:
                self._hide(*up)
