"""Which metrics does a run have? A table: what each is called, its kind and unit, and how to read it out of a report.

The rule: every way to export metrics reads this table, so a metric has the same name on all of them. It is written with
dots (``stage.waited_input``), as OpenTelemetry does; `Metric.prometheus` is the name that Prometheus has for it
(``funcpipe_stage_waited_input_seconds_total``), which is also what OpenTelemetry makes of it there. A name that is in
the table stays.

The invariant: counts, times, and names that stand in the plan. No item, no key of a `fair_by` and no text of an error
is in it; an error is told by its type. No two values of a metric have the same labels. It says what was counted since
the run began, never a rate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from math import inf
from typing import Final, Literal, TypeAlias, get_args

from .._base.frozen import dataclass
from .._base.shown import line_of
from .._runtime.reports.counts import InputReport, Latency, PolicyReport, StageReport
from .._runtime.reports.report import Outcome, Report

PREFIX: Final = "funcpipe"
QUANTILES: Final = (0.5, 0.9, 0.99)
"""Of a summary; `quantiles` reads them."""

Kind: TypeAlias = Literal["counter", "gauge", "summary"]
Unit: TypeAlias = Literal["{item}", "{call}", "{cost}", "{error}", "s", "1"]
Labels: TypeAlias = tuple[str, ...]
Value: TypeAlias = "float | Latency"

_UNITS: Final[dict[Unit, str]] = {"s": "_seconds"}
"""What a unit adds to a name of Prometheus; things that are counted add nothing."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a run; it has a value for each stage, link or the like that it is about."""

    name: str
    """With dots, without the prefix: ``stage.received``."""
    kind: Kind
    """Whether it only grows (``counter``), is what is so now (``gauge``), or says how long calls took (``summary``)."""
    unit: Unit
    """Seconds, or what is counted, as OpenTelemetry writes units."""
    help: str
    """What it says, in one sentence."""
    labels: Labels
    """Names of the labels of each value."""
    read: Callable[[Report], Iterator[tuple[Labels, Value]]]
    """Yield its values in a report, for `values`."""

    def values(self, report: Report) -> Iterator[tuple[Labels, Value]]:
        """Yield its values, each with the values of its labels: a number, or the `Latency` of a summary.

        Names that differ only in what cannot be shown are numbered: ``#2``.
        """
        seen: Counter[Labels] = Counter()
        for labels, value in self.read(report):
            seen[labels] += 1
            yield labels if seen[labels] == 1 else (*labels[:-1], f"{labels[-1]}#{seen[labels]}"), value

    @property
    def prometheus(self) -> str:
        """Its name for Prometheus."""
        end = "_total" if self.kind == "counter" else ""
        return f"{PREFIX}_{self.name.replace('.', '_')}{_UNITS.get(self.unit, '')}{end}"

    @property
    def dotted(self) -> str:
        """Its name for OpenTelemetry."""
        return f"{PREFIX}.{self.name}"


def quantiles(latency: Latency) -> tuple[float, ...]:
    """Return the values of the `QUANTILES`, in seconds."""
    return latency.p50, latency.p90, latency.p99


# ---- what is read for each stage, link and so on


def _number(value: int | float | Fraction) -> float:
    try:
        return float(value)
    except OverflowError:  # costs may be any int
        return inf


def _of_run(name: str) -> Callable[[Report], Iterator[tuple[Labels, Value]]]:
    def read(report: Report) -> Iterator[tuple[Labels, Value]]:
        yield (), _number(getattr(report, name))

    return read


def _outcome(report: Report) -> Iterator[tuple[Labels, Value]]:
    for outcome in get_args(Outcome):
        yield (outcome,), float(outcome == report.outcome)


def _of_stages(
    get: Callable[[StageReport], int | float | Latency | None],
) -> Callable[..., Iterator[tuple[Labels, Value]]]:
    """Read what a function gets of each stage, unless that is None."""

    def read(report: Report) -> Iterator[tuple[Labels, Value]]:
        for stage in report.stages:
            if (value := get(stage)) is not None:
                yield (line_of(stage.name),), value if isinstance(value, Latency) else _number(value)

    return read


def _of_calls(name: str) -> Callable[[Report], Iterator[tuple[Labels, Value]]]:
    """Read a field of each stage that makes calls."""
    return _of_stages(lambda stage: None if stage.latency is None else getattr(stage, name))


def _failures(report: Report) -> Iterator[tuple[Labels, Value]]:
    for stage in report.stages:
        for error, count in stage.failures:
            yield (line_of(stage.name), line_of(error)), float(count)


def _of_policies(name: str) -> Callable[[Report], Iterator[tuple[Labels, Value]]]:
    def read(report: Report) -> Iterator[tuple[Labels, Value]]:
        for stage in report.stages:
            both: tuple[tuple[str, PolicyReport | None], ...] = ("call", stage.policies), ("divert", stage.divert)
            for step, policies in both:
                if policies is not None:
                    yield (line_of(stage.name), step), _number(getattr(policies, name))

    return read


def _of_links(name: str) -> Callable[[Report], Iterator[tuple[Labels, Value]]]:
    def read(report: Report) -> Iterator[tuple[Labels, Value]]:
        for link in report.links:
            yield (line_of(link.behind),), _number(getattr(link, name))

    return read


def _of_inputs(name: str) -> Callable[[Report], Iterator[tuple[Labels, Value]]]:
    def read(report: Report) -> Iterator[tuple[Labels, Value]]:
        for each, key in _named_inputs(report.inputs):
            yield (line_of(each.merge), key), _number(getattr(each, name))

    return read


def _named_inputs(inputs: Sequence[InputReport]) -> Iterator[tuple[InputReport, str]]:
    """Yield inputs of merges and branches, each with its name: a key that is a str or int, otherwise its place.

    Keys of a `fair_by` are data of the user's, and are left out.
    """
    places: Counter[str] = Counter()
    for each in inputs:
        if each.kind != "fair_by":
            places[each.merge] += 1
            yield each, line_of(str(each.key)) if type(each.key) in (str, int) else f"#{places[each.merge]}"


def _of_remade(name: str) -> Callable[[Report], Iterator[tuple[Labels, Value]]]:
    def read(report: Report) -> Iterator[tuple[Labels, Value]]:
        sums: Counter[str] = Counter()
        for each in report.remade:
            sums[line_of(each.name)] += getattr(each, name)
        for operation, count in sums.items():
            yield (operation,), _number(count)

    return read


# ---- the table


def _run(name: str, kind: Kind, unit: Unit, told: str) -> Metric:
    return Metric(f"run.{name}", kind, unit, told, (), _of_run(name))


def _stage(name: str, kind: Kind, unit: Unit, told: str, *, calls: bool = False) -> Metric:
    read = _of_calls(name) if calls else _of_stages(lambda stage: getattr(stage, name))
    return Metric(f"stage.{name}", kind, unit, told, ("stage",), read)


def _policy(name: str, unit: Unit, told: str) -> Metric:
    return Metric(f"step.{name}", "counter", unit, told, ("stage", "step"), _of_policies(name))


def _link(name: str, kind: Kind, unit: Unit, told: str) -> Metric:
    return Metric(f"link.{name}", kind, unit, told, ("behind",), _of_links(name))


def _input(name: str, kind: Kind, unit: Unit, told: str) -> Metric:
    return Metric(f"input.{name}", kind, unit, told, ("merge", "input"), _of_inputs(name))


def _remade(name: str, told: str) -> Metric:
    return Metric(f"remade.{name}", "counter", "{item}", told, ("operation",), _of_remade(name))


METRICS: Final[tuple[Metric, ...]] = (
    _run("taken", "counter", "{item}", "Items that the sources handed over."),
    _run("delivered", "counter", "{item}", "Values that reached the consumer."),
    _run("failed", "counter", "{item}", "Items at which user code raised."),
    _run("dropped", "counter", "{item}", "Items that an operation or a policy of overflow dropped on purpose."),
    _run("discarded", "counter", "{item}", "Items given up because the run ended before they were through."),
    _run("in_flight", "gauge", "{item}", "Items and values under way."),
    _run("elapsed", "counter", "s", "Seconds since the run was opened."),
    _run("paused", "counter", "s", "Seconds in which the run was paused."),
    _run("cleanup_error_count", "counter", "{error}", "Errors in cleanup, in on_discard, or behind the first failure."),
    Metric(
        *("run.outcome", "gauge", "1", "1 for how the run ended, or for running; 0 for the others."),
        *(("outcome",), _outcome),
    ),
    _stage("received", "counter", "{item}", "Items that the stage took."),
    _stage("emitted", "counter", "{item}", "Values that it passed on."),
    _stage("failed", "counter", "{item}", "Items at which its user code raised."),
    _stage("dropped", "counter", "{item}", "Items that it dropped on purpose."),
    _stage("discarded", "counter", "{item}", "Items given up while it held them."),
    Metric(
        *("stage.errors", "counter", "{error}", "Errors that its OnError handled, by their type."),
        *(("stage", "error"), _failures),
    ),
    _stage("in_flight", "gauge", "{item}", "Items and values that are in it now."),
    _stage("elsewhere", "gauge", "{item}", "Items that wait for their next attempt without a place.", calls=True),
    _stage("waited_input", "counter", "s", "Seconds in which it had nothing to take, summed over its workers."),
    _stage("waited_room", "counter", "s", "Seconds in which it had no room, summed over its workers."),
    _stage("used", "counter", "s", "Seconds in which its places were in use, summed over the places."),
    _stage("offered", "counter", "s", "Seconds for which it had its places, summed over the places."),
    _stage("stalled", "counter", "s", "Seconds in which its places had to wait for earlier items, summed likewise."),
    _stage("concurrency", "gauge", "{call}", "Calls that it may make at once, as it is now.", calls=True),
    _stage("oldest", "gauge", "s", "Age of its oldest call that is not over.", calls=True),
    _stage("latency", "summary", "s", "How long its calls took, over the whole run, within 5 %.", calls=True),
    _policy("retries", "{call}", "Attempts after the first."),
    _policy("timeouts", "{call}", "Calls that missed a timeout of the step."),
    _policy("opened", "{call}", "Failed calls that opened the circuit."),
    _policy("refused", "{call}", "Calls that were not made because the circuit was open."),
    _policy("abandoned", "{call}", "Calls of unknown outcome."),
    _policy("waited_rate", "s", "Seconds in which calls waited for a rate limit, summed over the calls."),
    _policy("waited_retry", "s", "Seconds in which calls waited between attempts, summed likewise."),
    _policy("waited_elsewhere", "s", "Seconds of these in which they had no place of their stage."),
    _policy("waited_circuit", "s", "Seconds in which calls waited for a circuit to close, summed likewise."),
    _policy("resources", "1", "Resources that were opened for its calls."),
    _policy("waited_resource", "s", "Seconds in which calls waited until a resource was open, summed likewise."),
    _policy("waited_places", "s", "Seconds in which calls waited for places, summed likewise."),
    _policy("fallbacks", "{call}", "Calls of the other step of a fallback."),
    _policy("hedges", "{call}", "Further calls of a hedge, because the first was slow."),
    _policy("coalesced", "{call}", "Calls that were not made, because an equal one was under way."),
    _link("passed", "counter", "{item}", "Items that were put into the link behind a stage, or into that of a branch."),
    _link("taken", "counter", "{item}", "Items that were taken out of it."),
    _link("dropped", "counter", "{item}", "Items that its policy of overflow dropped."),
    _link("turned_away", "counter", "{item}", "Items that a fair_by did not admit."),
    _link("discarded", "counter", "{item}", "Items given up while it held them."),
    _link("held", "gauge", "{item}", "Items that are in it now."),
    _link("capacity", "gauge", "{item}", "The most items that it may hold."),
    _input("taken", "counter", "{item}", "Items of the input of a merge, or of a branch, that were handed over."),
    _input("cost", "counter", "{cost}", "Their cost."),
    _input("contested", "counter", "{cost}", "Cost of those handed over while weights decided."),
    _input("weight", "gauge", "1", "The weight in force."),
    _input("backlog", "gauge", "{item}", "Items of it that wait to be handed over."),
    _input("lag", "gauge", "{cost}", "By what cost it is behind its fair share now; below 0 if it is ahead."),
    _input("longest_wait", "gauge", "s", "The longest time so far for which it had an item and none was taken."),
    _remade("used", "Values that others were made of by an operation, such as a batch."),
    _remade("made", "Values that were made of those."),
)
"""All metrics, in the order in which they are shown."""
