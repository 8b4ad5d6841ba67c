"""What a run says of itself: how far it came, what became of every item, and what limited it.

All of it is counted per burst, never per item, from numbers that the links and stages keep anyway. The sums that hold:

* a stage:  received + created = emitted + absorbed + failed + dropped + discarded
  (`created` and `absorbed` are what a batch or a flat_map makes and uses up; zero elsewhere)
* a link:   passed = taken + discarded + dropped
* a plan of one-to-one operations and filters:  taken = delivered + failed + dropped + discarded
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from ..policies._frozen import dataclass
from .failures import told

if TYPE_CHECKING:
    from .attempt import Account

__all__ = [
    "InputKind",
    "InputReport",
    "LinkReport",
    "Outcome",
    "PolicyReport",
    "Report",
    "RunStatistics",
    "StageReport",
]

InputKind = Literal["merge", "fair_by", "branches"]
Outcome = Literal["completed", "drained", "left", "aborted", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class PolicyReport:
    """What the policies of a step did."""

    retries: int
    """Attempts after the first."""
    timeouts: int
    """Calls that were too late for a timeout of the step."""
    opened: int
    """How often a failed call opened the circuit."""
    refused: int
    """Calls that were not made because the circuit was open."""
    abandoned: int
    """Calls that were left behind in a thread or executor, or whose worker process was killed: outcome unknown."""
    waited_rate: float
    """Seconds in which calls waited for a rate limit, over all of them."""
    waited_retry: float
    """Seconds between attempts."""
    waited_circuit: float
    """Seconds in which calls waited for a circuit to close."""

    @staticmethod
    def of(account: Account) -> PolicyReport:
        """Read an account."""
        return PolicyReport(**{name: getattr(account, name) for name in PolicyReport.__slots__})

    def describe(self) -> str:
        """Say what is not nothing, in a few words; empty if all is."""
        counts = [
            (self.retries, "retry" if self.retries == 1 else "retries"),
            (self.timeouts, "timeout" if self.timeouts == 1 else "timeouts"),
            (self.opened, "opening of the circuit" if self.opened == 1 else "openings of the circuit"),
            (self.refused, "refused by an open circuit"),
            (self.abandoned, "left behind, outcome unknown"),
        ]
        waits = [
            (self.waited_rate, "waiting for the rate limit"),
            (self.waited_retry, "between attempts"),
            (self.waited_circuit, "waiting for the circuit"),
        ]
        said = [f"{count} {what}" for count, what in counts if count]
        return ", ".join(said + [f"{seconds:.3f} s {what}" for seconds, what in waits if seconds])


@dataclass(frozen=True, slots=True)
class StageReport:
    """One stage: what went in, what came of it, and how busy it was."""

    name: str
    kind: str
    """``source``, ``sync`` or ``async``."""
    received: int
    """Items it took."""
    emitted: int
    """Values it handed on."""
    created: int
    """Values that an operation made besides (the children of a flat_map, a batch)."""
    absorbed: int
    """Items that went into those."""
    failed: int
    """Items at which user code raised."""
    dropped: int
    """Items that an operation such as a filter let fall."""
    discarded: int
    """Items given up while this stage held them."""
    waited_input: float
    """Seconds in which it had nothing to take, over all its workers."""
    waited_room: float
    """Seconds in which it had no room for more, over all its workers."""
    busy: float
    """Share of its time, 0 to 1, in which it waited for neither; a source is busy while it waits for the outside."""
    failures: tuple[tuple[str, int], ...] = ()
    """The errors that its `OnError` dealt with (skipped, emitted, diverted): names of their types, and how often."""
    policies: PolicyReport | None = None
    """What the policies of its step did; None if it has none."""
    divert: PolicyReport | None = None
    """The same for the step of its `OnError.divert`."""


@dataclass(frozen=True, slots=True)
class LinkReport:
    """One link: what went through it, and how full it was."""

    behind: str
    """Name of the stage that fills it."""
    capacity: int
    passed: int
    taken: int
    discarded: int
    peak: int
    """The most it held."""
    dropped: int = 0
    """Items that its policy of overflow dropped."""
    name: str | None = None
    """What the buffer that sized it, or the `fair_by`, was called, if it was."""


@dataclass(frozen=True, slots=True)
class InputReport:
    """One input of a merge, one key of a `fair_by`, or what one branch gave: its part of what was handed over.

    Of keys there may be any number: reported are the 100 of the greatest cost. One that fell out of them and comes back
    is counted anew.
    """

    merge: str
    key: Hashable
    weight: int | Fraction
    taken: int
    """Items handed over."""
    cost: int | Fraction
    """Their cost."""
    contested: int | Fraction
    """Cost of the items handed over where weights decide: while every input of the merge had one waiting; of a key,
    while another key had one, too."""
    share: float
    """Its part of all contested cost, 0 to 1; 0 if there was none. Of a key: its part of all cost, for keys come
    and go."""
    kind: InputKind = "merge"
    """What it is an input of: a merge, a `fair_by`, or the merge behind branches."""


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """The state of a run at one instant."""

    taken: int
    """Items that the sources handed over."""
    delivered: int
    """Values that reached the consumer."""
    failed: int
    dropped: int
    discarded: int
    elapsed: float
    """Seconds since the run was opened, by trio's clock."""
    stages: tuple[StageReport, ...]
    links: tuple[LinkReport, ...]
    inputs: tuple[InputReport, ...]
    paused: float
    """Seconds in which the run was paused: the sources were to take nothing."""
    bottleneck: str | None
    """The stage that waited least, or ``consumer``: what limits the throughput. None if no time has passed. What gives
    more than an overflow policy behind it lets through does not count, and a source that waits for the outside only if
    nobody else is nearly as busy."""


@dataclass(frozen=True, slots=True)
class Report(RunStatistics):
    """How a run ended, and what became of every item."""

    outcome: Outcome
    error: BaseException | None
    """The failure that ended it, or that nobody read as far as."""
    cleanup_errors: tuple[BaseException, ...]
    """Errors that were met besides: in cleanup, in `on_discard`, behind the first failure. The first 100 of them."""
    cleanup_error_count: int = 0
    """How many such errors were met in all."""
    seed: int | None = None
    """What the jitter of its retries was computed from, where their `Backoff` names no seed; None if there are none.
    A pipeline within it draws its own."""

    def describe(self) -> str:
        """Show it as a table, for people."""
        lines = [
            f"{self.outcome} after {self.elapsed:.3f} s: {self.taken} taken, {self.delivered} delivered, "
            f"{self.failed} failed, {self.dropped} dropped, {self.discarded} discarded"
        ]
        if self.paused:
            lines.append(f"paused for {self.paused:.3f} s")
        if self.bottleneck is not None:
            lines.append(f"limited by: {self.bottleneck}")
        if self.seed is not None:
            lines.append(f"seed {self.seed}")
        rows: list[tuple[str, ...]] = [("stage", "in", "out", "failed", "dropped", "discarded", "busy")]
        rows += [
            (s.name, *_texts(s.received, s.emitted, s.failed, s.dropped, s.discarded), f"{s.busy:.0%}")
            for s in self.stages
        ]
        lines += ["", *_table(rows), *(line for stage in self.stages for line in _happenings(stage))]
        lines += [_losses(link) for link in self.links if link.dropped]
        for kind, columns in _SHARES.items():
            if inputs := [each for each in self.inputs if each.kind == kind]:
                lines += ["", *_table([columns, *map(_share, inputs)])]
        if self.error is not None:
            lines += ["", f"error: {told(self.error)}"]
        lines += [f"also: {told(error)}" for error in self.cleanup_errors]
        if (more := self.cleanup_error_count - len(self.cleanup_errors)) > 0:
            lines.append(f"also: {more} more, not kept")
        return "\n".join(lines)


_SHARES: dict[InputKind, tuple[str, ...]] = {
    "merge": ("input", "weight", "taken", "while all had work", "share"),
    "fair_by": ("key", "weight", "taken", "while others had work", "share of all"),
    "branches": ("branch", "gave"),
}
"""The columns of each kind. Branches have equal weights, and mostly give unequally much: shares would say nothing."""


def _share(each: InputReport) -> tuple[str, ...]:
    called = f"{each.merge} / {each.key}"
    if each.kind == "branches":
        return called, str(each.taken)
    return called, str(each.weight), str(each.taken), _amount(each.contested), f"{each.share:.1%}"


def _amount(cost: int | Fraction) -> str:
    """Show a sum of costs: as it is, unless it has more digits than anybody reads."""
    exact = str(cost)
    return exact if len(exact) <= 24 else f"{float(cost):.6g}"


def _losses(link: LinkReport) -> str:
    called = "" if link.name is None else f" {link.name}"
    return f"link{called} behind {link.behind}: {link.dropped} dropped"


def _happenings(stage: StageReport) -> Iterator[str]:
    """Tell what a stage's policies did, if they did anything."""
    for name, policies in ((stage.name, stage.policies), (f"{stage.name} (diverting)", stage.divert)):
        if policies is not None and (said := policies.describe()):
            yield f"{name}: {said}"
    if stage.failures:
        yield f"{stage.name}: went on after " + ", ".join(f"{count} {name}" for name, count in stage.failures)


def _texts(*numbers: int) -> tuple[str, ...]:
    return tuple(map(str, numbers))


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Align columns: the first to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in ([*zip(row, widths, strict=True)] for row in rows)
    ]
