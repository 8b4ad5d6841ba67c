"""How is a report written for Prometheus? As its text exposition format, version 0.0.4.

The rule: every metric of the table (`metrics`), with the pipeline's name as one more label. A summary has its quantiles
and its count; there is no sum. A name is written with its control characters escaped, so no name can be anything but
the value of a label.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

from .._base.shown import line_of
from .._runtime.reports.counts import Latency
from .._runtime.reports.report import Report
from .metrics import METRICS, QUANTILES, Labels, Metric, quantiles

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def exposition(report: Report, pipeline: str) -> str:
    """Return all metrics of a report, for a pipeline of that name."""
    lines = [line for metric in METRICS for line in _metric(metric, report, line_of(pipeline))]
    return "\n".join([*lines, ""])


def _metric(metric: Metric, report: Report, pipeline: str) -> Iterator[str]:
    name, names = metric.prometheus, ("pipeline", *metric.labels)
    yield f"# HELP {name} {_help(metric.help)}"
    yield f"# TYPE {name} {metric.kind}"
    for labels, value in metric.values(report):
        values = (pipeline, *labels)
        if isinstance(value, Latency):
            for part, seconds in zip(QUANTILES, quantiles(value), strict=True):
                yield _sample(name, (*names, "quantile"), (*values, str(part)), seconds)
            yield _sample(f"{name}_count", names, values, value.count)
        else:
            yield _sample(name, names, values, value)


def _sample(name: str, names: Labels, values: Labels, value: float) -> str:
    labels = ",".join(f'{label}="{_label(said)}"' for label, said in zip(names, values, strict=True))
    return f"{name}{{{labels}}} {_number(value)}"


def _number(value: float) -> str:
    if value == inf:
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)


def _label(text: str) -> str:
    return _help(text).replace('"', r"\"")


def _help(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")
