"""Whom does each part of a run wait for in the end, in a given state of all of them?

The rule: follow the waits to a part that does not wait itself.

  no input   to what fills the links that it takes from: of a merge all inputs that have not ended, of a zip those that
             have nothing, of a concat the first that has not ended
  no room    to what takes from the links that it fills; of several branches, from those that are full
  a pool     is at work for what is behind it while a place is in use, and for what is before it while no worker waits
             for room. If its free places can take nothing because of an earlier item, they wait for the pool itself.
  a source   is at work while it waits for the outside; while the run is paused, what would wait for it waits for the
             pause
  a loop     to its source, and to what fills what goes round; who is met twice on that way counts for nobody, because
             it waits for others itself
  nothing    at work upstream, because all has ended there: what keeps items until their time waits for the clock

Whoever waits for several waits for each of them in equal parts, so the parts of each wait are 1 in all. Two that wait
for each other are not stuck: one was woken and has not run. Then the one that is met twice counts.

It is pure: a state is a number (`state_times`), and a graph says where the fields are and who is whose neighbour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple

__all__ = ["CLOCK", "GONE", "NO_INPUT", "NO_ROOM", "PAUSE", "Feed", "Graph", "Node", "Out", "PoolField", "waits_in"]

NO_INPUT: Final = 1
NO_ROOM: Final = 2
GONE: Final = 3
"""What is in the field of a part, of two bits; the last: it has ended, or was not started yet. 0: it is at work."""

PAUSE: Final = -1
CLOCK: Final = -2
"""Whom one waits for who is no part of the run."""

COUNT: Final = 20
"""Bits of a count of workers: each is a task, and a million of them would need gigabytes."""
_COUNT_MASK: Final = (1 << COUNT) - 1


class PoolField:
    """The field of a pool: 1 where it is gone, 2 where it is stalled, then counts of workers."""

    GONE: Final = 1
    STALLED: Final = 2
    IN_USE: Final = 2
    STARVED: Final = 2 + COUNT
    BLOCKED: Final = 2 + 2 * COUNT
    IN_LINE: Final = 2 + 3 * COUNT
    """Bits by which a count is shifted; in line are workers that wait for room, whatever stalls the others."""
    WIDTH: Final = 2 + 4 * COUNT


class Feed(NamedTuple):
    """What a part takes from: the part that fills its link, or inputs that are fanned in."""

    how: str
    """``link``; ``merge``, ``concat`` or ``zip`` of further feeds."""
    node: int = -1
    """Of a link: the part that fills it."""
    feeds: tuple[Feed, ...] = ()
    """Of a fan-in: its inputs."""
    shift: int = 0
    """Of a zip: where its field is, with a bit for each input that has nothing."""


class Out(NamedTuple):
    """A link that a part fills."""

    taker: int
    """The part that takes from it."""
    shift: int | None = None
    """Where the bit is that says that it is full; None where it is the only one."""


class Node(NamedTuple):
    """A part of the run: a stage, or the consumer."""

    name: str
    shift: int
    """Where its field is."""
    is_pool: bool
    waits_outside: bool
    """Whether it is a source that waits for the outside; any other without a feed is one that never waits."""
    feed: Feed | None
    outs: tuple[Out, ...]


class Graph(NamedTuple):
    """The parts of a run."""

    nodes: tuple[Node, ...]
    paused: int
    """Where the bit is that says that the run is paused."""
    has_loop: bool = False
    """Whether a part may take from one behind it."""


class _Way(Enum):
    """Where to go on from a part."""

    HERE = "it is at work"
    INPUT = "it waits for input"
    ROOM = "it waits for room"
    NOWHERE = "it is gone"


HERE, INPUT, ROOM, NOWHERE = _Way
_WAYS = (HERE, INPUT, ROOM, NOWHERE)

Shares = tuple[tuple[int, float], ...]
"""Whom one waits for, with the parts of it, which are 1 in all; nobody if all is gone."""
Waits = Iterator[tuple[tuple[int, int], float]]
"""Waiter and whom it waits for, with how many of it wait so."""


def waits_in(graph: Graph, state: int) -> Waits:
    """Yield who waits for whom in the end, and in how many parts."""
    roots = _Roots(graph, state)
    for number, node in enumerate(graph.nodes):
        for way, count in _own_waits(node, state, is_paused=roots.is_paused):
            for whom, share in roots.of(number, way) or ((CLOCK, 1.0),):
                yield (number, whom), count * share


def _own_waits(node: Node, state: int, *, is_paused: bool) -> Sequence[tuple[_Way, int]]:
    field = state >> node.shift
    if not node.is_pool:
        way = _WAYS[field & 3]
        if way is INPUT or way is ROOM:
            return ((way, 1),)
        return ((INPUT, 1),) if is_paused and way is HERE and node.waits_outside else ()
    if field & PoolField.GONE:
        return ()
    is_stalled = field & PoolField.STALLED
    counts = (
        (HERE if is_stalled else INPUT, field >> PoolField.STARVED & _COUNT_MASK),
        (HERE if is_stalled else ROOM, field >> PoolField.BLOCKED & _COUNT_MASK),
        (ROOM, field >> PoolField.IN_LINE & _COUNT_MASK),
    )
    return [each for each in counts if each[1]]


class _Roots:
    """Whom one waits for who takes a way from a part, in one state."""

    def __init__(self, graph: Graph, state: int) -> None:
        self.is_paused = bool(state >> graph.paused & 1)
        self._nodes = graph.nodes
        self._state = state
        self._known: dict[tuple[int, _Way], Shares] = {}
        self._on_the_way: set[int] = set()  # parts passed that have no answer yet
        self._has_loop = graph.has_loop
        self._is_cut = False  # one was met twice, in a loop: the answers on this way hold for this way only

    def of(self, number: int, way: _Way) -> Shares:
        """Return whom a part waits for on this way: in a loop, because a line may be longer than a stack is deep."""
        passed: list[tuple[int, _Way]] = []
        shares: Shares | None = None
        self._is_cut = self._is_cut and bool(self._on_the_way)
        while shares is None:
            if way is NOWHERE:
                shares = ()
            elif way is HERE or (number in self._on_the_way and not self._has_loop):
                shares = self._here(number)
            elif number in self._on_the_way:
                shares, self._is_cut = (), True
            elif (number, way) in self._known:
                shares = self._known[number, way]
            else:
                passed.append((number, way))
                self._on_the_way.add(number)
                step = self._step(number, way)
                if step is None:
                    shares = self._parted(number, way)
                else:
                    number, way = step
        for each in passed:
            self._on_the_way.discard(each[0])
        if not self._is_cut:
            for each in passed:
                shares = self._known[each] = shares or ((CLOCK, 1.0),)
        return shares

    def _here(self, number: int) -> Shares:
        if self.is_paused and self._nodes[number].waits_outside:
            number = PAUSE
        return ((number, 1.0),)

    def _step(self, number: int, way: _Way) -> tuple[int, _Way] | None:
        """Return the only neighbour on a way, and the way on from there; None if there is not one."""
        node = self._nodes[number]
        if way is ROOM:
            return (node.outs[0].taker, self._way(node.outs[0].taker, before=True)) if len(node.outs) == 1 else None
        if node.feed is None or node.feed.how != "link":
            return None
        return node.feed.node, self._way(node.feed.node, before=False)

    def _parted(self, number: int, way: _Way) -> Shares:
        """Return whom a part waits for at a fan-in or fan-out, or at an end of the line."""
        node = self._nodes[number]
        if way is INPUT:
            return ((PAUSE, 1.0),) if node.feed is None else self._of_feed(node.feed)
        full = [each for each in node.outs if each.shift is not None and self._state >> each.shift & 1] or node.outs
        return _equal([self.of(each.taker, self._way(each.taker, before=True)) for each in full]) or self._here(number)

    def _of_feed(self, feed: Feed) -> Shares:
        if feed.how == "link":
            return self.of(feed.node, self._way(feed.node, before=False))
        feeds: Sequence[Feed] = feed.feeds
        if feed.how == "zip":
            feeds = [each for bit, each in enumerate(feeds) if self._state >> (feed.shift + bit) & 1] or feeds
        found: list[Shares] = []
        for each in feeds:
            if shares := self._of_feed(each):
                found.append(shares)
                if feed.how == "concat":
                    break
        return _equal(found)

    def _way(self, number: int, *, before: bool) -> _Way:
        """Return the way on from a part, for one that waits for its room (`before` it), or for what it gives."""
        node = self._nodes[number]
        field = self._state >> node.shift
        if not node.is_pool:
            way = _WAYS[field & 3]
            return HERE if before and way is NOWHERE else way
        if field & PoolField.GONE:
            return HERE if before else NOWHERE
        is_stalled = bool(field & PoolField.STALLED)
        blocked = field >> PoolField.BLOCKED & _COUNT_MASK if not is_stalled else 0
        has_no_room = bool(blocked or field >> PoolField.IN_LINE & _COUNT_MASK)
        is_at_work = is_stalled or bool(field >> PoolField.IN_USE & _COUNT_MASK)
        if has_no_room and (before or not is_at_work):
            return ROOM
        is_starved = bool(field >> PoolField.STARVED & _COUNT_MASK)
        return INPUT if is_starved and not is_at_work else HERE


def _equal(parts: Sequence[Shares]) -> Shares:
    """Return the equal parts of several waits as one."""
    if len(parts) <= 1:
        return parts[0] if parts else ()
    sums: dict[int, float] = {}
    for shares in parts:
        for whom, share in shares:
            sums[whom] = sums.get(whom, 0.0) + share / len(parts)
    return tuple(sums.items())
