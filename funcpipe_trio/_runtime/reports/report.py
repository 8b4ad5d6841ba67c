"""What does a run report about itself? How far it came, what became of every item, and what limited it.

All of it is counted per burst, never per item, from numbers that the links and stages keep anyway. These sums hold:

* a stage:  received + created = emitted + absorbed + failed + dropped + discarded
  (`created` and `absorbed` are what a batch or a flat_map makes and uses up; 0 elsewhere)
* a link:   passed = taken + discarded + dropped
* a plan:   taken + made = delivered + used + failed + dropped + discarded
  (`made` and `used` over all of `remade`: batches and the like, and copies for branches, tuples of a zip)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import field
from fractions import Fraction
from os import PathLike
from typing import Any, Literal

from ..._base import checks
from ..._base.frozen import dataclass
from ..._base.functions import LONGEST_NAME
from ..._base.shown import cut, escaped, label, line_of, shown, told, type_name
from .blame import Blame
from .bottleneck import Basis
from .counts import InputKind, InputReport, LinkReport, RemakeReport, StageReport

__all__ = ["Outcome", "Report", "RunState", "RunStatistics"]

Outcome = Literal["running", "completed", "drained", "left", "aborted", "failed", "cancelled"]
RunState = Literal["running", "paused", "draining", "completed", "drained", "left", "aborted", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class RunStatistics:
    """The state of a run at one instant; or, made by `since`, what happened between two."""

    taken: int
    """Items that the sources handed over."""
    delivered: int
    """Values that reached the consumer."""
    failed: int
    """Items at which user code raised, so that they ended the stream, or were skipped or diverted. One that goes on as
    a `Failure` does not count."""
    dropped: int
    """Items that an operation dropped on purpose, such as a filter, a policy of overflow, a debounce."""
    discarded: int
    """Items given up because the run ended before they were through; `on_discard` was called with each."""
    elapsed: float
    """Seconds since the run was opened, by trio's clock."""
    stages: tuple[StageReport, ...]
    """The stages, upstream first."""
    links: tuple[LinkReport, ...]
    """The links between them, upstream first."""
    inputs: tuple[InputReport, ...]
    """The inputs of merges, the branches and the keys of a `fair_by`, with their shares."""
    remade: tuple[RemakeReport, ...]
    """The operations that make other values of those they take. They complete the sum, in which what was taken, less
    all that was used, plus all that was made, was delivered, failed, dropped or discarded, or is under way."""
    paused: float
    """Seconds in which the run was paused, so that its sources took nothing."""
    bottleneck: str | None
    """What limits the throughput, as the name of a stage, or ``consumer``; None if none worked or no time passed.

    It is the one that worked longest, because all others waited for it; of equals the one furthest downstream. A stage
    works while it waits neither for input nor for room. One with places (`concurrency`) works in proportion to those in
    use, and while places are `stalled`, as if all were. A source works while it waits for the outside, and is named
    only if nothing else worked nearly as long; so in an idle service it is the source. A stage that gives more than an
    overflow policy behind it lets through is not named, and the time of pauses does not count."""
    _basis: Basis = field(repr=False, compare=False)
    """What else `since` needs."""

    @property
    def in_flight(self) -> int:
        """Items and values under way, in stages, in links or in a merge; of a difference, by how many more."""
        made = sum(each.made - each.used for each in self.remade)
        return self.taken + made - self.delivered - self.failed - self.dropped - self.discarded

    @property
    def blame(self) -> tuple[Blame, ...]:
        """Who made whom wait, and for how long, the longest waits first; exact, not sampled.

        For each second in which a stage, or the consumer, waited: whom for in the end. A stage without input waits for
        the first stage upstream that is at work, or for the source; one without room for the stage behind the last
        full link. One that waits for several (the inputs of a merge, branches that are full) waits for each of them in
        equal parts. A pool is at work while it has an item in a call; while an earlier item holds it up it waits for
        itself. The rows of a stage add up to its `waited_input` and `waited_room`.
        """
        return self._basis.waited.rows()

    @property
    def advice(self) -> str:
        """What limits the throughput and what would help, in one sentence; empty if that is not sure.

        It says of the `bottleneck` what would help it most: more concurrency, a higher rate, ordered=False, a place
        outside the event loop, or that only the source or the consumer can. Where it says "about 1.9x", that is the
        throughput to expect, as the utilisation law gives it: nothing can be at work for more than all of the time. It
        holds if calls take no longer when more are made at once, and there are enough items to keep all busy.
        """
        from .advice import advise  # few runs are asked

        return advise(self)

    @property
    def throughput(self) -> float:
        """Values delivered per second; 0 if no time has passed."""
        return self.delivered / self.elapsed if self.elapsed > 0 else 0.0

    def to_dict(self, *, keys: Callable[[Hashable], str] | None = None) -> dict[str, Any]:
        """Return the snapshot as plain JSON values: counts, times, and names that stand in the plan.

        No item, no key of an item and no text of an error is in it. It has the fields of the class by their names, the
        properties `throughput`, `in_flight`, `blame`, `advice` and, for each stage, `busy`; and ``version``, 1 now,
        which changes when a name goes or means something else. Errors are told as the names of their types.

        Args:
          keys: ``keys(key)`` returns what to call a key of a `fair_by`; by default it is called by its rank (``#1``).

        Checkpoint: never (sync, anywhere).
        """
        from .plain import VERSION, plain, plain_inputs

        if keys is not None:
            checks.takes(
                "RunStatistics.to_dict", "keys", checks.sync_callable("RunStatistics.to_dict", "keys", keys), 1
            )
        stages = [{**plain(stage), "busy": stage.busy, "failures": dict(stage.failures)} for stage in self.stages]
        return {
            "version": VERSION,
            **{name: plain(getattr(self, name)) for name in _PLAIN},
            "throughput": self.throughput,
            "in_flight": self.in_flight,
            "stages": stages,
            "inputs": plain_inputs(self.inputs, keys),
            "blame": plain(self.blame),
            "advice": self.advice,
        }

    def since(self, earlier: RunStatistics) -> RunStatistics:
        """Return what happened between an earlier snapshot of this run and this one.

        Counts, seconds, costs and policies are those of the time between: what the later snapshot counts, less what
        the earlier one does. `busy`, `share`, `bottleneck`, `blame` and `advice` are computed from that, so they say
        what is going on now, where those of a whole run say what was going on most of the time. What cannot be taken
        apart (`peak`, `held`, `in_flight`, `oldest`, `waits_for`, `weight`, `backlog`, `lag`, `longest_wait`) is that
        of the later snapshot. A key that the earlier snapshot did not report counts in full. A count is below 0 if
        something was recounted in between: a failure that turned out to be behind an earlier one is discarded.

        Args:
          earlier: what `Run.statistics` or `Run.report` of the same run returned before.

        Raises:
          TypeError: if that is not a snapshot.
          ValueError: if it is one of another run, or a later one.

        Checkpoint: never (sync, anywhere).
        """
        from .between import between  # a fifth of what this module costs to import, and few runs are compared

        where = f"{type(self).__name__}.since"
        if not isinstance(earlier, RunStatistics):
            raise checks.refuse(TypeError, where, "earlier", "be a snapshot of the same run", earlier, _SNAPSHOT)
        if earlier._basis.wiring is not self._basis.wiring:
            raise ValueError(f"{where}: earlier must be a snapshot of the same run, not of another\n{_SNAPSHOT}")
        if earlier.elapsed > self.elapsed or earlier.taken > self.taken:
            raise ValueError(
                f"{where}: earlier must be the earlier of the two, not the later\nUse later.since(earlier)."
            )
        return RunStatistics(**between(earlier, self))


_PLAIN = (
    *("taken", "delivered", "failed", "dropped", "discarded", "elapsed", "paused"),
    *("links", "remade", "bottleneck"),
)
"""Fields that `to_dict` takes as they are."""
_SNAPSHOT = "Use what statistics() of that run returned before."


@dataclass(frozen=True, slots=True)
class Report(RunStatistics):
    """How a run ended, and what became of every item."""

    outcome: Outcome
    """``running`` while it is at work; ``completed`` if its sources ended or it had all it needed, ``drained``,
    ``left`` if the block was left early, ``aborted``, ``failed``, or ``cancelled`` from outside."""
    error: BaseException | None
    """The failure that ended it, or that was not read; None without one."""
    cleanup_errors: tuple[BaseException, ...]
    """Other errors, in cleanup, in `on_discard`, or behind the first failure. The first 100 of them."""
    cleanup_error_count: int = 0
    """How many such errors there were in all."""
    seed: int | None = None
    """Seed of the jitter of its retries, where their `Backoff` names none; None if there are none. A pipeline within it
    draws its own."""

    def to_dict(self, *, keys: Callable[[Hashable], str] | None = None) -> dict[str, Any]:
        """As `RunStatistics.to_dict`; also the outcome, the seed, and the types of the errors."""
        return {
            **RunStatistics.to_dict(self, keys=keys),
            "outcome": self.outcome,
            "error": None if self.error is None else type_name(self.error),
            "cleanup_errors": [type_name(error) for error in self.cleanup_errors],
            "cleanup_error_count": self.cleanup_error_count,
            "seed": self.seed,
        }

    def describe(self) -> str:
        """Format the report as a table, for people.

        Its first line adds up: items taken, less those made into other values, plus these, are what became of them.
        """
        lines = [*_heads(self)]
        if waits := [each for each in self.blame[:_MOST_WAITS] if each.seconds >= _SHORTEST_WAIT]:
            lines += ["", "who waited for whom", *(f"  {line}" for line in _table([*map(_wait, waits)]))]
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
        lines += [
            f"{each.merge} / {label(each.key)}: failed with {each.failure}"
            for each in self.inputs
            if each.failure is not None
        ]
        if self.error is not None:
            lines += ["", f"error: {told(self.error)}"]
        lines += [f"also: {told(error)}" for error in self.cleanup_errors]
        if (more := self.cleanup_error_count - len(self.cleanup_errors)) > 0:
            lines.append(f"also: {more} more, not kept")
        return "\n".join(map(line_of, lines))

    def plot(self, path: str | PathLike[str]) -> None:
        """Draw the report into a file: how each stage spent its time, and what each input of a merge got.

        A bar is the time of a stage's places: in use, or waiting for what. The bottleneck is marked. The shares are
        beside what was due by weight. It takes some tenths of a second, so within trio call it in a thread.

        Args:
          path: of the file; its ending says in which form, such as ``.svg``, ``.png`` or ``.pdf``.

        Raises:
          ImportError: if matplotlib is not installed: it comes with ``funcpipe-trio[plot]``.
          TypeError: if `path` is neither a str nor a path.
          ValueError: if matplotlib knows no form with that ending.
          OSError: if the file cannot be written.
        """
        from .plot import plot

        if not isinstance(path, str | PathLike):
            raise checks.refuse(TypeError, "Report.plot", "path", "be a str or a path", path)
        plot(self, path, "\n".join(map(line_of, _heads(self))))

    def _repr_html_(self) -> str:
        from .html import html

        return html(self, [*_heads(self)])


_WIDTH = 80
"""Characters of a line of advice."""
_MOST_WAITS = 5
"""Rows of who waited for whom."""
_SHORTEST_WAIT = 0.0005
"""Seconds that are shown as more than none."""
_LONGEST_OF_WAITS = 30
"""Characters of a name there."""
_MOST_REMADE = 4
"""How many operations of `remade` the first line names."""
_LONGEST_IN_HEAD = 60
"""Characters of such a name."""


def _heads(report: Report) -> Iterator[str]:
    """Yield the lines above the table."""
    yield _head(report)
    if report.paused:
        yield f"paused for {report.paused:.3f} s"
    if report.bottleneck is not None:
        yield f"limited by: {report.bottleneck}{_cause(report)}"
    if advice := report.advice:
        yield from _wrapped(f"advice: {advice}")
    if report.seed is not None:
        yield f"seed {report.seed}"


def _wrapped(text: str) -> list[str]:
    from textwrap import wrap  # few programs load it, and few reports are printed

    return wrap(text, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def _wait(each: Blame) -> tuple[str, ...]:
    return cut(each.waiter, _LONGEST_OF_WAITS), cut(each.whom, _LONGEST_OF_WAITS), f"{each.seconds:.3f} s"


def _made(each: RemakeReport) -> str:
    return f"{each.used} made into {each.made}" if each.used else f"{each.made} made"


def _head(report: Report) -> str:
    """Return the first line: what became of the items taken, in numbers that add up."""
    shown, others = report.remade[:_MOST_REMADE], report.remade[_MOST_REMADE:]
    made = [f", {_made(each)} ({cut(each.name, _LONGEST_IN_HEAD)})" for each in shown]
    if others:
        sums = sum(each.used for each in others), sum(each.made for each in others)
        made.append(", {} made into {} ({} more)".format(*sums, len(others)))
    fates = {name: getattr(report, name) for name in ("delivered", "failed", "dropped", "discarded")}
    changed = sum(each.made - each.used for each in report.remade)
    fates["under way"] = report.taken + changed - sum(fates.values())
    said = [f"{count} {name}" for name, count in fates.items() if count or name != "under way"]
    if as_failures := sum(stage.as_failures for stage in report.stages):
        said[1] += f" ({as_failures} more became {'a Failure' if as_failures == 1 else 'Failures'})"
    return f"{report.outcome} after {report.elapsed:.3f} s; of {report.taken} taken{''.join(made)}: {', '.join(said)}"


_SHARES: dict[InputKind, tuple[str, ...]] = {
    "merge": ("input", "weight", "taken", "while all had work", "share"),
    "fair_by": ("key", "weight", "taken", "while others had work", "share of all"),
    "branches": ("branch", "gave"),
}
"""The columns of each kind. Branches have equal weights, and mostly give unequally: shares would say nothing."""


def _share(each: InputReport) -> tuple[str, ...]:
    called = f"{each.merge} / {label(each.key)}"
    if each.kind == "branches":
        return called, str(each.taken)
    share = f"{each.share:.1%}" if each.contested or each.kind == "fair_by" else "-"  # nothing has no shares
    return called, _amount(each.weight), str(each.taken), _amount(each.contested), share


_READ = 64
"""Bits of a number up to which it is shown in full."""


def _amount(cost: int | Fraction) -> str:
    """Show a weight, or a sum of costs: in full, unless it has more digits than people read."""
    if max(cost.numerator.bit_length(), cost.denominator.bit_length()) <= _READ:
        return str(cost)
    try:
        return f"{float(cost):.6g}"
    except OverflowError:
        return shown(cost)


def _cause(report: Report) -> str:
    """Return why the limiting stage is slow: what it waits for itself, or what is fused into it; empty if unknown."""
    stage = next((stage for stage in report.stages if stage.name == report.bottleneck), None)
    if stage is None:
        return ""
    if stage.stalled > stage.used:
        return " (its places wait for earlier items)"
    policies = stage.policies
    waits = (
        {}
        if policies is None
        else {
            "its rate limit": policies.waited_rate,
            "its waits between attempts": policies.waited_retry - policies.waited_elsewhere,
            "its open circuit": policies.waited_circuit,
            "the opening of its resource": policies.waited_resource,
            "the places that it shares": policies.waited_places,
        }
    )
    cause = max(waits, key=waits.__getitem__, default="")
    if cause and waits[cause] > stage.used / 2:
        return f" ({cause})"
    return f" (with {', '.join(stage.fused)})" if stage.fused else ""


def _losses(link: LinkReport) -> str:
    called = "" if link.name is None else f" {link.name}"
    return f"link{called} behind {link.behind}: {link.dropped} dropped"


def _happenings(stage: StageReport) -> Iterator[str]:
    """Yield a line for what each policy of a stage did, if it did anything."""
    for name, policies in ((stage.name, stage.policies), (f"{stage.name} (diverting)", stage.divert)):
        if policies is not None and (said := policies.describe()):
            yield f"{name}: {said}"
    if stage.adapted is not None:
        yield f"{stage.name}: concurrency {stage.concurrency} now, {stage.adapted.describe()}"
    if stage.failures:
        yield f"{stage.name}: went on after " + ", ".join(f"{count} {name}" for name, count in stage.failures)


def _texts(*numbers: int) -> tuple[str, ...]:
    return tuple(map(str, numbers))


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """Align columns: the first to the left, numbers to the right."""
    rows = [tuple(escaped(cut(cell, LONGEST_NAME)) for cell in row) for row in rows]  # before they are measured
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width) for column, (cell, width) in enumerate(pairs))
        for pairs in ([*zip(row, widths, strict=True)] for row in rows)
    ]
