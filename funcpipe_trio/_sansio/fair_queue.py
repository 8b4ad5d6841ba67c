"""Which of the flows that have something to send is served next, so that they share by weight?

The rule is start-time fair queueing (P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queuing", SIGCOMM 1996). Every
flow has a tag, the virtual time at which its next item may start. The queue serves the lowest tag, first come first
served among equals, and says how far virtual time V has come: V is the tag of the flow served last.

  becoming ready:   tag = max(tag, V)            no credit for time away; a debt is kept
  being served:     V = tag; tag += cost / weight
  the queue empties: V passes every tag          all start level again

Invariant: ``V <= tag <= V + cost_max / weight`` for every ready flow. From it follows the bound: over any interval in
which two flows f and m are both ready, ``|service_f/w_f - service_m/w_m| <= cost_max_f/w_f + cost_max_m/w_m``.

Tags are integers, never floats, and stay exact forever. One unit of service by weight is ``2**bits`` ticks; the part
of a tick that a division leaves over is carried to the flow's next charge, so roundings do not add up: they cost each
of two flows less than one tick, once. Weights count relative to the first one, so 3:7 and 3*10**15 : 7*10**15 are the
same arithmetic. With relative weights a/b the lag of two flows is a multiple of ``1/(a_f * a_m)``; ``bits`` makes a
tick finer than half of that (it grows when a finer weight comes), so roundings cannot lift the lag over the bound: with
int costs it holds without any slack. Fraction costs are counted exactly too, up to a common denominator of 1024 bits
(`cost_grid`), and ticks become as fine as that asks for; what was rounded before is below ``2**-31`` of a cost of 1.

A flow that leaves with a debt finds it when it comes back before V has reached it. A crowd of ever new flows would
starve the others, each of them entitled to its first turn at V; so where more debts are left behind than flows are
present, a new flow takes over the oldest of them. This also bounds their memory.

Some flows may be passed over for a reason of their own: they are ready, but their item cannot be served yet. Then a
later one is served *out of turn*. V goes on to the tag of that one, and those that were passed over start from V when
they are served, as if they had become ready then: being passed over gives no credit, and so the bound holds between
any two flows that were not. A `View` shows the next one of some of the flows.

It is not told the time, holds no items, and does not space a heavy flow's items out among many light ones.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from fractions import Fraction
from heapq import heapify, heappop, heappush, heapreplace
from typing import Generic, TypeVar

from .._base import checks
from .._base.errors import StateError
from .._base.shown import named
from .cost_grid import CostGrid

K = TypeVar("K")

_GUARD_BITS = 32  # how much finer a tick is than int costs need: the slack left to Fraction costs
_MOST_SCALES = 1024  # how many weights are remembered
_SLACK = 16  # how many entries may be dead, or debts left behind, before they are cleaned up


class Flow(Generic[K]):
    """One flow of a `FairQueue`, made by its `add`; read-only outside the queue."""

    __slots__ = (
        "_denominator",
        "_entry",
        "_numerator",
        "_rest",
        "_tag",
        "_views",
        "key",
        "served",
        "service",
        "weight",
    )

    key: K
    served: int
    weight: int | Fraction

    def __init__(self, key: K, weight: int | Fraction, numerator: int, denominator: int) -> None:
        self.key = key
        self.weight = weight
        self.served = 0
        """How many times it was charged."""
        self.service: int | Fraction = 0
        """The sum of the costs it was charged, as they were counted."""
        self._tag = 0
        self._rest = 0  # the part of a tick not yet in the tag, in 1/denominator
        self._numerator = numerator  # a cost of 1 is numerator/denominator ticks; both are multiples of the grid's unit
        self._denominator = denominator
        self._entry = 0  # the number of its live entry in the heap; 0: not ready, -1: removed
        self._views: tuple[View[K], ...] = ()  # those that show it, and have a heap of their own

    @property
    def place(self) -> tuple[int, int]:
        """Where it stands among the ready flows of its queue: the lower one is served first."""
        return self._tag, self._entry


class View(Generic[K]):
    """Some of the flows of a `FairQueue` that are ready: which of them is next?

    While it shows all of them it asks the queue. It has a heap of its own from the first time on when it does not,
    until it is empty.
    """

    __slots__ = ("_heap", "_queue", "shown")

    def __init__(self, queue: FairQueue[K]) -> None:
        self._queue = queue
        self.shown: set[Flow[K]] = set()  # the flows that it shows
        self._heap: list[tuple[int, int, Flow[K]]] | None = None  # as in the queue; dead also if the flow is not shown

    def show(self, flow: Flow[K]) -> None:
        """Add a flow that is ready; idempotent."""
        if flow not in self.shown:
            self.shown.add(flow)
            if self._heap is not None:
                flow._views = (*flow._views, self)
                self._enter(flow)

    def hide(self, flow: Flow[K]) -> None:
        """Take a flow out, before it is not ready any more; idempotent."""
        if flow in self.shown:
            self.shown.remove(flow)
            if self._heap is not None:
                flow._views = tuple(view for view in flow._views if view is not self)
                self._compact(self._heap)
                if not self.shown:
                    self._heap = None
                    del self._queue._views[self]

    def first(self) -> Flow[K] | None:
        """Return the flow that is served next among them; None if it shows none."""
        if self._heap is None:
            if len(self.shown) == self._queue.backlogged:
                return self._queue.select()
            if not self.shown:
                return None
            self._begin()
        heap = self._heap
        while heap:
            _, entry, flow = heap[0]
            if flow._entry == entry and flow in self.shown:
                return flow
            heappop(heap)
        return None

    def _begin(self) -> None:
        """Let the queue tell from now on how its flows change."""
        self._queue._views[self] = None
        for flow in self.shown:
            flow._views = (*flow._views, self)
        self._rebuild()

    def _enter(self, flow: Flow[K]) -> None:
        assert self._heap is not None
        heappush(self._heap, (flow._tag, flow._entry, flow))
        self._compact(self._heap)

    def _compact(self, heap: list[tuple[int, int, Flow[K]]]) -> None:
        if len(heap) > 2 * len(self.shown) + _SLACK:
            self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(flow._tag, flow._entry, flow) for flow in self.shown]
        heapify(self._heap)


class FairQueue(Generic[K]):
    """Choose the flow that is served next, by weight.

    Shares hold over every interval in which flows are ready together, for every weight vector and however old the queue
    is. The same events give the same choices.

    Checkpoint: never (sync, and pure).
    """

    backlogged: int

    def __init__(self) -> None:
        self._flows: dict[K, Flow[K]] = {}
        self._departed: OrderedDict[K, Flow[K]] = OrderedDict()  # removed with a debt, the oldest first
        self._heap: list[tuple[int, int, Flow[K]]] = []  # (tag, entry, flow); dead unless entry is the flow's own
        self._late: Flow[K] | None = None  # charged since `select`: its old entry, dead, is still on top of the heap
        self._entries = 0
        self.backlogged = 0
        """The number of flows that are ready; read-only."""
        self._now = 0  # virtual time V
        self._latest = 0  # no tag is above it
        self._unit: int | Fraction = 0  # the weight that others are relative to: the first one
        self._scales: dict[int | Fraction, tuple[int, int]] = {}  # numerator and denominator of flows, by weight
        self._heaviest = 1  # the largest numerator of a relative weight
        self._grid = CostGrid()
        self._bits = _GUARD_BITS
        self._views: dict[View[K], None] = {}  # those that have a heap of their own

    def add(self, key: K, weight: int | Fraction) -> Flow[K]:
        """Add a flow; it joins level with the others, and is not ready yet.

        A key that was removed while it was ahead of its share, and that comes back before virtual time has caught up
        with it, keeps that debt: leaving and joining again gains nothing. Nor do ever new names: where more debts were
        left behind than flows are present, a new key takes over the oldest.

        Args:
          key: its name; hashable, and not present.
          weight: its share relative to the others, an int or Fraction > 0.

        Raises:
          TypeError: if the weight is not an int or Fraction.
          ValueError: if the key is present, or the weight is not positive.
        """
        if key in self._flows:
            raise checks.refuse(ValueError, "FairQueue", "key", "be new", key, show=named)
        scale = self._scale(weight)  # first: it may make ticks finer
        past = self._past(key)
        flow = self._flows[key] = Flow(key, weight, *scale)
        if past is not None and past._tag > self._now:
            flow._tag = self._rescaled(past._tag, past.weight, weight)
        return flow

    def remove(self, flow: Flow[K]) -> None:
        """Remove a flow, ready or not; its debt is remembered until virtual time has passed it."""
        if flow._entry < 0:
            return
        del self._flows[flow.key]
        if flow._tag > self._now:
            self._departed[flow.key] = flow
        self.idle(flow)
        flow._entry = -1
        self._forget()

    def ready(self, flow: Flow[K]) -> None:
        """Mark a flow as having something to send; idempotent.

        Raises:
          StateError: if the flow was removed.
        """
        if flow._entry:
            if flow._entry < 0:
                raise StateError(f"cannot make flow {named(flow.key)} ready while it is removed")
            return
        if flow._tag < self._now:
            flow._tag, flow._rest = self._now, 0
        self.backlogged += 1
        self._enter(flow)

    def idle(self, flow: Flow[K]) -> None:
        """Mark a flow as having nothing to send after all; idempotent."""
        if flow._entry <= 0:
            return
        flow._entry = 0
        if flow is self._late:
            self._late = None
        self.backlogged -= 1
        if self.backlogged:
            self._compact()
        else:
            self._level()

    def select(self) -> Flow[K] | None:
        """Return the flow to be served now; None if none is ready.

        This changes nothing: called again before `charge`, it returns the same flow.
        """
        heap, late = self._heap, self._late
        if late is not None:
            self._late = None
            heapreplace(heap, (late._tag, late._entry, late))
        while heap:
            _, entry, flow = heap[0]
            if flow._entry == entry:
                return flow
            heappop(heap)
        return None

    def overtake(self, flow: Flow[K]) -> None:
        """Let `select` return a flow that is ready, until its next charge; those before it are passed over (see above).

        Raises:
          StateError: if the flow is not ready.
        """
        if flow._entry <= 0:
            raise StateError(f"cannot serve flow {named(flow.key)} while it is not ready")
        if self.select() is not flow:
            flow._tag = max(flow._tag, self._now)
            self._entries += 1
            flow._entry = self._entries
            heappush(self._heap, (-1, flow._entry, flow))

    def charge(self, flow: Flow[K], cost: int | Fraction = 1, *, still_ready: bool) -> int | Fraction:
        """Count one service of the flow that `select` returned.

        Args:
          flow: the flow that `select` would return now.
          cost: what the service used, an int or Fraction > 0.
          still_ready: whether the flow has more to send.

        Returns:
          The cost as it was counted, see `cost_grid`; callers that sum costs should sum this one.

        Raises:
          StateError: if another flow, or none, is selected.
          TypeError: if the cost is not an int or Fraction.
          ValueError: if the cost is not positive.
        """
        # With select 0.68 us at n=2, 0.92 at n=100, 1.13 at n=1000, while the same in floats without any checks takes
        # 0.40, 0.65, 0.80 (CPU time, best of 40; CPython 3.11, a slow shared core): one function, only heapq is called.
        heap = self._heap
        if flow._entry <= 0 or (heap[0][1] != flow._entry and self.select() is not flow):
            raise StateError(f"cannot charge flow {named(flow.key)} while it is not selected")
        odd = type(cost) is not int or cost < 1
        if odd:
            checks.cost("FairQueue", "cost", cost)
            cost = self._counted(cost)
            parts = cost.numerator * (flow._numerator // cost.denominator)
        else:
            parts = cost * flow._numerator  # type: ignore[assignment]  # an int, for the cost is one
        self._now = start = flow._tag if flow._tag > self._now else self._now  # it may have been passed over
        ticks, flow._rest = divmod(parts + flow._rest, flow._denominator)
        flow._tag = tag = start + ticks
        if tag > self._latest:
            self._latest = tag
        flow.served += 1
        flow.service += cost
        if still_ready:
            self._entries = flow._entry = self._entries + 1
            self._late = flow  # one that leaves now, as at a limiter, need not be put in place: 5 us, not 6
            for view in flow._views:
                view._enter(flow)
        else:
            flow._entry = 0
            heappop(heap)
            self.backlogged -= 1
            if not self.backlogged:
                self._level()
        if odd:
            # Last: finer ticks may distinguish flows that were equal, and put another one on top of the heap.
            self._refine()
        return cost

    def set_weight(self, flow: Flow[K], weight: int | Fraction) -> None:
        """Change a weight from the next charge on; a debt is kept as a cost, so it is paid off at the new rate.

        One change moves the flow by at most ``cost_max * |1/new - 1/old|`` of normalised service.

        Args:
          flow: a flow of this queue.
          weight: its new weight, an int or Fraction > 0.

        Raises:
          StateError: if the flow was removed.
          TypeError: if the weight is not an int or Fraction.
          ValueError: if the weight is not positive.
        """
        if flow._entry < 0:
            raise StateError(f"cannot change the weight of flow {named(flow.key)} while it is removed")
        numerator, denominator = self._scale(weight)
        if weight != flow.weight:
            flow._rest = 0  # less than a tick, in parts whose size depends on the weight
            if flow._tag > self._now:
                flow._tag = self._rescaled(flow._tag, flow.weight, weight)
        flow.weight, flow._numerator, flow._denominator = weight, numerator, denominator
        if flow._entry:
            self._enter(flow)
            self._compact()

    def adjust(self, flow: Flow[K], cost: int | Fraction) -> None:
        """Correct what a flow was charged, without serving it: virtual time stays.

        Args:
          flow: a flow of this queue, ready or not.
          cost: an int or Fraction; what it used more, or below 0, less. Its debt never gets below 0.
        """
        cost = self._counted(cost)
        parts = cost.numerator * (flow._numerator // cost.denominator)
        ticks, flow._rest = divmod(parts + flow._rest, flow._denominator)
        flow._tag = max(flow._tag, self._now) + ticks
        if flow._tag < self._now:
            flow._tag, flow._rest = self._now, 0
        self._latest = max(self._latest, flow._tag)
        if flow._entry > 0:
            self._enter(flow)
            self._compact()
        self._refine()

    def debt(self, flow: Flow[K]) -> Fraction:
        """Return the cost by which a flow is ahead of virtual time, >= 0: what the others may get before its next."""
        ahead = (flow._tag - self._now) * flow._denominator + flow._rest
        return max(Fraction(0), Fraction(ahead) / flow._numerator)

    def lags(self) -> dict[K, Fraction]:
        """Return by what cost each flow that is ready is behind its fair share, below 0 if it is ahead; exact.

        What those that are ready were served beyond virtual time is divided among them by their weights; a flow lags by
        what its part of that is more than its own. So it is 0 in all, and what a flow is served lowers its lag by that,
        less its share of it.
        """
        ahead = {flow: self.debt(flow) for flow in self._flows.values() if flow._entry > 0}
        level = Fraction(sum(ahead.values()), sum(flow.weight for flow in ahead) or 1)
        return {flow.key: level * flow.weight - each for flow, each in ahead.items()}

    def _scale(self, weight: int | Fraction) -> tuple[int, int]:
        """Check a weight, and return the numerator and the denominator of a flow that has it."""
        kind = type(weight)
        if kind is int or kind is Fraction:  # no bool and no float, which equal an int
            # A key that comes and goes at a limiter takes 9.6 us without this and 5.0 with it (CPython 3.11).
            known = self._scales.get(weight)
            if known is not None:
                return known
        checks.weight("FairQueue", "weight", weight)
        self._unit = self._unit or weight
        relative = Fraction(weight) / self._unit
        self._heaviest = max(self._heaviest, relative.numerator)
        self._refine()
        scale = (relative.denominator << self._bits) * self._grid.unit, relative.numerator * self._grid.unit
        if len(self._scales) >= _MOST_SCALES:
            self._scales.clear()
        self._scales[weight] = scale
        return scale

    def _rescaled(self, tag: int, old: int | Fraction, new: int | Fraction) -> int:
        """Return a tag that is ahead of virtual time, for another weight: the debt stays the same as a cost."""
        if new != old:
            # Without this a flow raised from 1/1000 to 10 would first wait out a thousand items of old debt.
            tag = self._now + (tag - self._now) * old // new
            self._latest = max(self._latest, tag)
        return tag

    def _enter(self, flow: Flow[K]) -> None:
        """Push a new heap entry for a flow, behind its equals; an older one becomes dead."""
        self._entries += 1
        flow._entry = self._entries
        if flow is self._late:
            self._late = None
        heappush(self._heap, (flow._tag, flow._entry, flow))
        for view in flow._views:
            view._enter(flow)

    def _compact(self) -> None:
        """Drop the dead entries when they are the majority, so that the heap is about as small as the backlog."""
        if len(self._heap) > 2 * self.backlogged + _SLACK:
            self._rebuild()

    def _rebuild(self) -> None:
        self._heap = [(flow._tag, entry, flow) for _, entry, flow in self._heap if flow._entry == entry]
        if (late := self._late) is not None:
            self._late = None
            self._heap.append((late._tag, late._entry, late))
        heapify(self._heap)
        for view in self._views:
            view._rebuild()

    def _level(self) -> None:
        """End a busy period: one tick past the latest tag, all debts and rests are cleared."""
        self._now = self._latest = self._latest + 1
        self._heap.clear()
        self._departed.clear()

    def _past(self, key: K) -> Flow[K] | None:
        """Return the flow whose debt a new one takes over: that of the same key, or in a crowd the first that left."""
        past = self._departed.pop(key, None)
        if past is None and len(self._departed) > len(self._flows) + _SLACK:
            _, past = self._departed.popitem(last=False)
        return past

    def _forget(self) -> None:
        """Drop the debts that virtual time has passed, in the order in which they were left behind."""
        departed = self._departed
        while departed:
            flow = next(iter(departed.values()))
            if flow._tag > self._now:
                return
            del departed[flow.key]

    def _counted(self, cost: int | Fraction) -> int | Fraction:
        """Put a cost on the grid; if that makes the grid finer, so become the parts of a tick. No tag changes."""
        before = self._grid.unit
        cost = self._grid.counted(cost)
        if (finer := self._grid.unit // before) > 1:
            self._scales.clear()
            for flow in self._known():
                flow._numerator *= finer
                flow._denominator *= finer
                flow._rest *= finer
        return cost

    def _refine(self) -> None:
        """Make a tick at most ``2**-32`` of the smallest lag that any two weights can have; exact: tags are shifted."""
        shift = _GUARD_BITS + 2 * (self._heaviest * self._grid.unit - 1).bit_length() - self._bits
        if shift <= 0:
            return
        self._bits += shift
        self._scales.clear()
        self._now <<= shift
        self._latest = (self._latest + 1) << shift  # a rest may become whole ticks
        for flow in self._known():
            ticks, flow._rest = divmod(flow._rest << shift, flow._denominator)
            flow._tag = (flow._tag << shift) + ticks
            flow._numerator <<= shift
        self._rebuild()

    def _known(self) -> Iterable[Flow[K]]:
        yield from self._flows.values()
        yield from self._departed.values()
