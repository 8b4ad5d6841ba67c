"""Who made whom wait? The rows of that table, worked out when they are asked for.

A snapshot only copies for how long the run was in each of its states (`_sansio.state_times`); who waited for whom in a
state is said by `_sansio.blame`. So a snapshot costs the same whether somebody looks at the table or not.

How long each part waited is always exact. A run that changes thousands of times a second is watched for a part of the
time; then these seconds are divided in the proportions that were watched. Under a clock that is not trio's own, all is
watched.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..._base.frozen import dataclass
from ..._sansio.blame import CLOCK, PAUSE, Graph, Node, waits_in
from ..._sansio.state_times import add_up

__all__ = ["Blame", "Waited"]

Pair = tuple[int, int]
"""Waiter, and whom it waited for, by their numbers."""

_NO_PART = {PAUSE: "the pause", CLOCK: "the clock"}


@dataclass(frozen=True, slots=True)
class Blame:
    """How long one part of a run waited for another one in the end."""

    waiter: str
    """Name of the stage that waited, or ``consumer``."""
    whom: str
    """Name of the stage that was at work meanwhile, or ``consumer``; ``the pause`` while the sources were paused, and
    ``the clock`` where only the time of an item had to come."""
    seconds: float
    """For how long; of a pool, summed over its workers."""


class Waited:
    """What a snapshot holds of the waits of a run: until an instant, or between two."""

    __slots__ = ("_earlier", "_graph", "_pairs", "_seconds", "_sums", "_totals")

    def __init__(
        self,
        graph: Graph,
        totals: Sequence[float],
        seconds: dict[int, float],
        sums: dict[Pair, float],
        earlier: Waited | None = None,
    ) -> None:
        self._graph = graph  # of the run
        self._totals = totals  # how long each part waited, also while nobody watched
        self._seconds = seconds  # by the states of the run
        self._sums = sums  # of states that were added up before
        self._earlier = earlier  # what is left out; None: nothing
        self._pairs: dict[Pair, float] | None = None  # made when they are asked for

    def since(self, earlier: Waited) -> Waited:
        """Return it without what an earlier snapshot had."""
        return Waited(self._graph, self._totals, self._seconds, self._sums, earlier)

    def pairs(self) -> dict[Pair, float]:
        """Return the seconds that were watched, by waiter and whom it waited for."""
        if self._pairs is None:
            pairs = dict(self._sums)
            add_up(pairs, self._seconds, lambda state: waits_in(self._graph, state))
            self._pairs = _less(pairs, {} if self._earlier is None else self._earlier.pairs())
        return self._pairs

    def totals(self) -> list[float]:
        """Return how long each part waited."""
        earlier = [0.0] * len(self._totals) if self._earlier is None else self._earlier.totals()
        return [max(0.0, after - before) for after, before in zip(self._totals, earlier, strict=True)]

    def rows(self) -> tuple[Blame, ...]:
        """Return the table, the longest waits first: what each part waited, in the proportions that were watched."""
        names = [node.name for node in self._graph.nodes]
        pairs, totals = self.pairs(), self.totals()
        watched = [0.0] * len(names)
        for (waiter, _), seconds in pairs.items():
            watched[waiter] += seconds
        scaled = {pair: totals[pair[0]] * seconds / watched[pair[0]] for pair, seconds in pairs.items() if seconds > 0}
        for waiter, seconds in enumerate(watched):
            if not seconds:  # it waited too shortly to be watched
                scaled[waiter, _nearest(self._graph.nodes[waiter])] = totals[waiter]
        return tuple(
            Blame(names[waiter], _NO_PART.get(whom) or names[whom], seconds)
            for (waiter, whom), seconds in sorted(scaled.items(), key=lambda each: (-each[1], each[0]))
            if seconds > 0
        )


def _less(pairs: dict[Pair, float], earlier: dict[Pair, float]) -> dict[Pair, float]:
    return {pair: max(0.0, seconds - earlier.get(pair, 0.0)) for pair, seconds in pairs.items()}


def _nearest(node: Node) -> int:
    """Return a neighbour for which a part may wait."""
    if node.feed is not None and node.feed.how == "link":
        return node.feed.node
    return node.outs[0].taker if node.outs else CLOCK
