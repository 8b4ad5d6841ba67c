"""What is counted of each part of a run: of a stage, its policies, a link, an input of a merge, what remakes values?

They are frozen values without a way back to the run; `RunStatistics` puts them together.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import field
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from ..._base.frozen import dataclass
from ..._base.shown import named
from ..._sansio.latencies import quantile

if TYPE_CHECKING:
    from ..core.step_counters import StepCounters

__all__ = [
    "AdaptiveReport",
    "InputKind",
    "InputReport",
    "Latency",
    "LimitWaitReport",
    "LinkReport",
    "PolicyReport",
    "RemakeReport",
    "StageReport",
]

_SHOWN = 5
"""The most keys that a line shows."""

InputKind = Literal["merge", "fair_by", "branches"]


@dataclass(frozen=True, slots=True)
class LimitWaitReport:
    """How long the calls of one key have waited for one limit."""

    limit: str
    """The limit, as the plan describes it; several that are met at one instant are one."""
    key: Hashable
    """The key there, None without shares; in a group, a tuple of the names of the groups and the key."""
    calls: int
    """Calls that waited."""
    waited: float
    """Seconds in which they waited, summed over the calls."""
    longest: float
    """The longest of these waits, in seconds; also of a difference."""


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """What the policies of a step did."""

    retries: int
    """Attempts after the first."""
    timeouts: int
    """Calls that missed a timeout of the step."""
    opened: int
    """How often a failed call opened the circuit."""
    refused: int
    """Calls that were not made because the circuit was open."""
    abandoned: int
    """Calls of unknown outcome, left behind in a thread or executor, or in a worker process that was killed."""
    waited_rate: float
    """Seconds in which calls waited for a rate limit, summed over the calls."""
    waited_retry: float
    """Seconds in which calls waited between attempts, summed likewise."""
    waited_circuit: float
    """Seconds in which calls waited for a circuit to close, summed likewise."""
    resources: int = 0
    """Resources that were opened for its calls."""
    waited_resource: float = 0.0
    """Seconds in which calls waited until a resource was open, summed likewise."""
    waited_places: float = 0.0
    """Seconds in which calls waited for places, summed likewise."""
    limits: tuple[LimitWaitReport, ...] = field(default=(), compare=False)
    """Which key waited for which limit, the 100 of the longest waits; waits that are over. The sums are exact for up to
    10,000 pairs of limit and key; past that the least are forgotten, and counted from 0 again when they come back."""
    fallbacks: int = 0
    """Failures after which the other step of a `fallback` was called."""
    hedges: int = 0
    """Further calls that a `hedge` made because the first was slow."""
    coalesced: int = 0
    """Calls that a `coalesce` did not make, because an equal one was under way, whose outcome they got."""
    waited_elsewhere: float = 0.0
    """Of the seconds between attempts, those in which the items had no place (`retries_elsewhere`), summed likewise."""

    @staticmethod
    def of(counters: StepCounters) -> PolicyReport:
        """Return the present state of a step's counters."""
        waits = () if counters.limits is None else counters.limits.greatest()
        limits = tuple(LimitWaitReport(*each.key, each.calls, each.waited, each.longest) for each in waits)
        counts = {name: getattr(counters, name) for name in PolicyReport.__slots__ if name != "limits"}
        return PolicyReport(**counts, limits=limits)

    def describe(self) -> str:
        """Summarise the counters that are not zero; an empty string if all are."""
        counts = [
            (self.retries, "retry" if self.retries == 1 else "retries"),
            (self.timeouts, "timeout" if self.timeouts == 1 else "timeouts"),
            (self.opened, "opening of the circuit" if self.opened == 1 else "openings of the circuit"),
            (self.refused, "refused by an open circuit"),
            (self.abandoned, "left behind, outcome unknown"),
            (self.resources, "resource opened" if self.resources == 1 else "resources opened"),
            (self.fallbacks, "fallback" if self.fallbacks == 1 else "fallbacks"),
            (self.hedges, "hedge" if self.hedges == 1 else "hedges"),
            (self.coalesced, "shared an equal call"),
        ]
        waits = [
            (self.waited_rate, "waiting for the rate limit"),
            (self.waited_retry, "between attempts"),
            (self.waited_elsewhere, "of that elsewhere"),
            (self.waited_circuit, "waiting for the circuit"),
            (self.waited_resource, "waiting for a resource"),
            (self.waited_places, "waiting for places"),
        ]
        said = [f"{count} {what}" for count, what in counts if count]
        said += [f"{seconds:.3f} s {what}" for seconds, what in waits if seconds]
        keyed = [each for each in self.limits if each.key is not None]
        if keyed:
            shown = [f"{named(each.key)} {each.waited:.3f} s" for each in keyed[:_SHOWN]]
            more = f", and {len(keyed) - _SHOWN} more" if len(keyed) > _SHOWN else ""
            said.append(f"by key: {', '.join(shown)}{more}")
        return ", ".join(said)


@dataclass(frozen=True, slots=True)
class Latency:
    """How long calls took, in seconds.

    From when an item was taken up to the end of its call, so with all its attempts and its waits for limits; in a
    `flat_map`, until the last child was out. Calls that were cancelled do not count.

    A quantile is wrong by at most 5 %: it is read from counts in buckets, whose number does not grow with the calls.
    """

    max: float
    """The longest; of a difference, the longest of the whole run."""
    _buckets: Mapping[int, int] = field(repr=False, hash=False)
    """How many calls are in each bucket; the quantiles are computed from that when they are asked for."""

    @property
    def count(self) -> int:
        """Calls that ended."""
        return sum(self._buckets.values())

    @property
    def p50(self) -> float:
        """Half of them took no longer."""
        return self._part(0.5)

    @property
    def p90(self) -> float:
        """Nine in ten took no longer."""
        return self._part(0.9)

    @property
    def p99(self) -> float:
        """Ninety-nine in a hundred took no longer."""
        return self._part(0.99)

    def _part(self, part: float) -> float:
        return min(quantile(self._buckets, part), self.max)

    def since(self, earlier: Latency) -> Latency:
        """Return what an earlier one did not count."""
        before = earlier._buckets
        grown = {bucket: count - before.get(bucket, 0) for bucket, count in self._buckets.items()}
        return Latency(self.max, {bucket: count for bucket, count in grown.items() if count})


@dataclass(frozen=True, slots=True)
class AdaptiveReport:
    """How the concurrency of a stage adapted. What it is now is `StageReport.concurrency`."""

    lowest: int
    """The fewest calls at once that it chose, over the whole run."""
    highest: int
    """The most, likewise."""
    changes: int
    """How often it changed."""
    maximum: int
    """The most that it may choose."""

    def describe(self) -> str:
        """Summarise it in a few words."""
        times = "time" if self.changes == 1 else "times"
        return f"{self.lowest} to {self.highest}, changed {self.changes} {times}"


@dataclass(frozen=True, slots=True)
class StageReport:
    """One stage: what went in, what came of it, and how busy it was."""

    name: str
    """As the plan calls it."""
    kind: str
    """``source``, ``sync``, ``async`` (it makes calls) or ``through``."""
    fused: tuple[str, ...]
    """Names of the operations fused into it, in their order; the time that they take counts as the stage's."""
    received: int
    """Items it took."""
    emitted: int
    """Values it passed on."""
    created: int
    """Values that an operation made of others (the children of a flat_map, a batch)."""
    absorbed: int
    """Items that those were made of."""
    failed: int
    """Items at which user code raised."""
    dropped: int
    """Items that an operation such as a filter dropped."""
    discarded: int
    """Items given up while this stage held them."""
    waited_input: float
    """Seconds in which it had nothing to take, summed over its workers; for a source, those in which it was paused."""
    waited_room: float
    """Seconds in which it had no room for a value, or no place for an item, summed over its workers."""
    used: float
    """Seconds in which its places were in use, summed over the places; for a stage without places (`concurrency`),
    those in which it waited neither for input nor for room.

    A place is in use while it has an item in a call, also while the call waits for a rate limit, for a place of a
    `PlaceLimiter` or for a circuit, or between two attempts (but an item that waits elsewhere, see `retries_elsewhere`,
    has no place). It is not in use before a worker was started for it, while its worker waits for an item or for room,
    or while its result waits for its turn. The place of a `flat_map` is in use while the stream of its item is silent,
    but not while the next child waits for room. A source that waits for the outside is in use."""
    offered: float
    """Seconds for which it had its places, summed over the places, from its start to its end or to now. While its
    concurrency was another, that number counts."""
    stalled: float
    """Seconds, summed over the places, in which places were not in use but could take nothing, because earlier items
    were not done (one before it where results are ordered, one of the same key, the last ones of the stream)."""
    in_flight: int = 0
    """Items and values that are in it now, such as in calls, waiting for their turn, or in a batch that is not full."""
    in_flight_peak: int = 0
    """The most items that were in its calls, or waited for their turn behind them; 0 for a stage without calls."""
    oldest: float = 0.0
    """Seconds since its oldest call that is not over took its item up; 0 without one."""
    latency: Latency | None = None
    """How long its calls took; None for a stage without calls."""
    waits_for: str | None = None
    """What it waits for now, ``input``, ``room behind NAME``, ``source``, ``paused`` or ``the clock``; or where most of
    its calls are, ``call``, ``rate limit``, ``places``, ``circuit``, ``retry``, ``thread``, ``process``, ``executor``,
    ``runner``, ``concurrency`` (for a place, after a wait elsewhere). None if it runs, has not begun, or has ended."""
    as_failures: int = 0
    """Items that its `OnError.emit` replaced by a `Failure`, a value like others; none of them counts as `failed`."""
    failures: tuple[tuple[str, int], ...] = ()
    """The errors that its `OnError` handled (skipped, emitted, diverted), as names of their types with counts."""
    policies: PolicyReport | None = None
    """What the policies of its step did; None without a step."""
    divert: PolicyReport | None = None
    """The same for the step of its `OnError.divert`; None without one."""
    elsewhere: int = 0
    """Items that have no place now, because they wait for their next attempt elsewhere (`retries_elsewhere`)."""
    elsewhere_peak: int = 0
    """The most items that had none; if that is `retries_elsewhere`, others may have had to wait in their places."""
    concurrency: int = 0
    """Calls that it may make at once, as it is now; 0 for a stage without calls."""
    adapted: AdaptiveReport | None = None
    """How that number changed by itself; None if it is not `Adaptive`."""

    @property
    def busy(self) -> float:
        """Share of the time of its places, 0 to 1, in which they were in use (`used` / `offered`)."""
        return min(1.0, self.used / self.offered) if self.offered > 0 else 0.0


@dataclass(frozen=True, slots=True)
class LinkReport:
    """One link: what went through it, and how full it was."""

    behind: str
    """Name of the stage that fills it."""
    capacity: int | float
    """The most items that it may hold."""
    passed: int
    """Items that were put into it; each was taken, discarded or dropped, or is still in it."""
    taken: int
    """Items that the stage behind it, or the consumer, took out of it."""
    discarded: int
    """Items given up while it held them."""
    peak: int
    """The most items that it held."""
    held: int = 0
    """Items that are in it now."""
    dropped: int = 0
    """Items that its policy of overflow dropped."""
    name: str | None = None
    """Name of the `buffer` that sized it, or of the `fair_by`; None if it has none."""
    turned_away: int = 0
    """Items that a `fair_by` did not admit, because the queue of their key was full; they were dropped or diverted."""
    cost: int | Fraction = 0
    """Cost of the items that were taken from a `fair_by`, over all keys; 0 for another link."""


@dataclass(frozen=True, slots=True)
class InputReport:
    """One input of a merge, one key of a `fair_by`, or what one branch gave: its part of what was handed over.

    There may be any number of keys: the 100 of the greatest cost are reported. The sums are exact for up to 10,000
    keys that have nothing now; past that the least are forgotten, and counted from 0 again when they come back.
    """

    merge: str
    """Name of the merge or `fair_by`."""
    key: Hashable
    """The input, key or branch."""
    weight: int | Fraction
    """The weight in force, or the last that was."""
    taken: int
    """Items handed over."""
    cost: int | Fraction
    """Their cost."""
    contested: int | Fraction
    """Cost of the items handed over while weights decided, which is while every input of the merge had one waiting; for
    a key, while another key had one too."""
    share: float
    """Its part of all contested cost, 0 to 1; 0 if there was none. For a key it is the part of all cost, because
    keys come and go."""
    kind: InputKind = "merge"
    """Whether it is an input of a merge, of a `fair_by`, or of the merge behind branches."""
    backlog: int = 0
    """Items that wait there now, in its last link (of each input, if it is a merge itself), or with its key."""
    lag: float = 0.0
    """By what cost it is behind its fair share now, below 0 if it is ahead; 0 if it has nothing.

    What the inputs that have an item were served beyond the virtual time of the fair queue is divided among them by
    weight; an input lags by what its part of that is more than its own. So it is 0 over all of them, and at most the
    cost of a few items. It says who is next, and that nobody falls behind."""
    longest_wait: float = 0.0
    """The most seconds for which it had an item and none of it was taken, the wait of now included; also of a
    difference. Whoever serves many tenants sees here whether one of them ever had to wait for long."""
    failure: str | None = None
    """The type of the error with which an input failed, in a merge whose `on_error` deals with that; None otherwise."""


@dataclass(frozen=True, slots=True)
class RemakeReport:
    """An operation that makes other values of those it takes: a batch, a flat_map, a zip, a broadcast."""

    name: str
    """As the plan calls it."""
    used: int
    """Values that others were made of."""
    made: int
    """Values that were made of those."""
