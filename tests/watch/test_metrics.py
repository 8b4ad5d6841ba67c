"""The table of metrics: what is in it, that its names are stable, and that nothing of the user's data gets out by it.

Mutants that die here: a field of a report that no metric reads; two metrics of one name, or two values of one metric
with the same labels; a key of a `fair_by` as a label; a counter that shrinks; a name that is no name for Prometheus.
"""

import re
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcpipe_trio import FairShare, OnError, Pipeline, RateLimit, Retry, Step, fair_merge
from funcpipe_trio._runtime.reports.counts import InputReport, Latency, LinkReport, PolicyReport, StageReport
from funcpipe_trio._watch.exposition import exposition
from funcpipe_trio._watch.metrics import METRICS
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, nap

SECRET = "4111 1111 1111 1111"


async def fail(item):
    if item[1] % 3 == 0:
        raise Boom(SECRET)
    await nap(item)
    return item


def everything(name="cards"):
    line = Pipeline.from_iterable([(SECRET, number) for number in range(12)], name=name)
    keyed = line.fair_by(lambda item: (SECRET, item[1] % 2), FairShare(cost=lambda item: Fraction(1, 3)), max_keys=3)
    step = Step(fail).retry(Retry(2, on=Boom)).rate_limit(RateLimit(9))
    calls = keyed.map(step, concurrency=2, on_error=OnError.skip(), name=name)
    merged = fair_merge({name: calls, (SECRET, 1): line}, FairShare({name: 3}), name=name)
    return merged.batch(3).unbatch().broadcast({name: lambda items: items, "b": lambda items: items.map(nap)})


def ended(plan):
    return run_virtual(plan.run)


def by_name(report):
    return {metric.name: dict(metric.values(report)) for metric in METRICS}


def test_the_names_are_these():
    """They are on other people's dashboards."""
    assert [metric.prometheus for metric in METRICS if metric.name.startswith(("run", "remade", "input"))] == [
        *("funcpipe_run_taken_total", "funcpipe_run_delivered_total", "funcpipe_run_failed_total"),
        *("funcpipe_run_dropped_total", "funcpipe_run_discarded_total", "funcpipe_run_in_flight"),
        *("funcpipe_run_elapsed_seconds_total", "funcpipe_run_paused_seconds_total"),
        *("funcpipe_run_cleanup_error_count_total", "funcpipe_run_outcome"),
        *("funcpipe_input_taken_total", "funcpipe_input_cost_total", "funcpipe_input_contested_total"),
        *(f"funcpipe_input_{name}" for name in ("weight", "backlog", "lag", "longest_wait_seconds")),
        *("funcpipe_remade_used_total", "funcpipe_remade_made_total"),
    ]
    assert [metric.prometheus for metric in METRICS if metric.name.startswith("stage")] == [
        *(f"funcpipe_stage_{name}_total" for name in ("received", "emitted", "failed", "dropped", "discarded")),
        *("funcpipe_stage_errors_total", "funcpipe_stage_in_flight", "funcpipe_stage_elsewhere"),
        *(f"funcpipe_stage_{name}_seconds_total" for name in ("waited_input", "waited_room", "used", "offered")),
        *("funcpipe_stage_stalled_seconds_total", "funcpipe_stage_concurrency"),
        *("funcpipe_stage_oldest_seconds", "funcpipe_stage_latency_seconds"),
    ]
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    assert all(re.fullmatch(r"[a-z_]+", metric.prometheus) for metric in METRICS)
    assert METRICS[0].dotted == "funcpipe.run.taken"


@pytest.mark.parametrize(
    ("kind", "prefix", "left_out"),
    [
        (StageReport, "stage", {"name", "kind", "fused", "waits_for", "failures", "policies", "divert", "created",
                                "absorbed", "in_flight_peak", "elsewhere_peak", "as_failures", "adapted"}),
        (PolicyReport, "step", {"limits"}),
        (LinkReport, "link", {"behind", "name", "peak", "cost"}),
        (InputReport, "input", {"merge", "key", "kind", "share", "failure"}),
    ],
)  # fmt: skip
def test_every_count_has_a_metric(kind, prefix, left_out):
    """What is not in the table is a name, a peak, or follows from what is."""
    names = {metric.name.partition(".")[2] for metric in METRICS if metric.name.startswith(f"{prefix}.")}

    assert names - {"errors"} == set(kind.__slots__) - left_out


def test_they_are_the_numbers_of_the_report():
    report = ended(everything())
    read = by_name(report)
    (embed,) = [stage.name for stage in report.stages if stage.policies is not None]
    join, merge = (next(each.merge for each in report.inputs if each.kind == kind) for kind in ("branches", "merge"))

    assert read["run.taken"] == {(): report.taken}
    assert read["run.outcome"][("completed",)] == 1
    assert sum(read["run.outcome"].values()) == 1
    assert read["stage.received"] == {(stage.name,): stage.received for stage in report.stages}
    assert read["stage.errors"] == {(embed, "Boom"): 4}
    assert read["step.retries"] == {(embed, "call"): 4}
    assert set(read["stage.latency"]) == {(stage.name,) for stage in report.stages if stage.latency is not None}
    assert read["link.capacity"] == {(link.behind,): link.capacity for link in report.links}
    assert set(read["input.weight"]) == {
        *((merge, "cards"), (merge, "#2"), (join, "cards"), (join, "b")),
    }
    assert read["remade.made"] == {(each.name,): each.made for each in report.remade}


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1, max_size=12))
def test_no_name_breaks_the_form_and_no_data_is_in_it(name):
    """Each line is a comment or a sample, and a label says what the plan calls its part."""
    text = exposition(ended(everything(name)), name)
    label = r'[a-z]+="(?:[^"\\\n]|\\\\|\\"|\\n)*"'

    assert SECRET not in text
    assert text.encode()
    assert text.endswith("\n")
    for line in text.removesuffix("\n").split("\n"):
        assert re.fullmatch(rf"# (HELP|TYPE) [a-z_]+ .+|[a-z_]+\{{{label}(,{label})*\}} (\S+)", line), line
        if not line.startswith("#"):
            float(line.rpartition(" ")[2])


def test_no_two_samples_are_alike():
    """Not even if names differ only in what is cut off, or in their types."""
    line = Pipeline.from_iterable(range(2), name="x" * 3000)
    merged = fair_merge({1: line, "1": line, "#1": line, (2,): line}).map(nap, name="x" * 3000)
    samples = [line.rpartition(" ")[0] for line in exposition(ended(merged), "p").splitlines() if line[0] != "#"]

    assert len(set(samples)) == len(samples)


def test_a_summary_has_quantiles_and_a_count():
    lines = exposition(ended(Pipeline.from_iterable(range(4)).map(nap)), 'a "b"').splitlines()
    (found,) = [number for number, line in enumerate(lines) if line.endswith("latency_seconds summary")]
    labels = 'pipeline="a \\"b\\"",stage="nap"'
    samples = [line.rpartition(" ") for line in lines[found + 1 : found + 5]]

    assert [name for name, _, _ in samples] == [
        *(f'funcpipe_stage_latency_seconds{{{labels},quantile="{part}"}}' for part in (0.5, 0.9, 0.99)),
        f"funcpipe_stage_latency_seconds_count{{{labels}}}",
    ]
    assert [float(value) for _, _, value in samples] == pytest.approx([1, 1, 1, 4], rel=0.051)


def test_a_number_without_a_float_is_infinite():
    line = Pipeline.from_iterable(range(3))
    report = ended(fair_merge({"a": line, "b": line}, FairShare(cost=lambda item: 10**400), name="m"))

    assert by_name(report)["input.cost"] == {("m", "a"): float("inf"), ("m", "b"): float("inf")}
    assert 'funcpipe_input_cost_total{pipeline="p",merge="m",input="a"} +Inf' in exposition(report, "p")


def test_counters_only_grow():
    """Between any two snapshots of a run."""

    async def main():
        seen = []
        async with everything().open() as run:
            async for _ in run:
                seen.append(run.report)
        return [*seen, run.report]

    reports = run_virtual(main)
    for metric in METRICS:
        if metric.kind == "counter":
            for earlier, later in pairwise(reports):
                after = dict(metric.values(later))
                assert all(after[labels] >= value for labels, value in metric.values(earlier)), metric.name


def test_a_latency_stands_for_itself():
    report = ended(Pipeline.from_iterable(range(4)).map(nap))

    assert isinstance(by_name(report)["stage.latency"][("nap",)], Latency)
