"""How does OpenTelemetry see runs? Metrics by observable instruments, and spans by an observer of each run.

The rule for metrics: they are those of the table in `_watch.metrics`. The instruments of one collection are asked one
after the other, each once, and nobody says where a collection begins; so a snapshot serves each instrument once, and
the first that asks again takes another. What one collection says of a run is of one instant.

The rule for spans: a span has names that stand in the plan, counts and the type of an error; no item, and no text of an
error. What user code does in a call is within the span of the call, if that has one, and within that of the run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .._base import checks
from .._base.shown import line_of, type_name
from .._runtime.reports.counts import Latency
from .._runtime.reports.report import Report
from .._runtime.run.observing import Call
from .._watch.metrics import METRICS, QUANTILES, Metric, quantiles
from ._runs import Runs, needed

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter, Observation
    from opentelemetry.trace import Span, Tracer

__all__ = ["OpenTelemetryMetrics", "OpenTelemetrySpans"]

_SCOPE = "funcpipe_trio"
"""The name of the instrumentation scope."""


# ---- metrics


class OpenTelemetryMetrics(Runs):
    """Observable instruments of any number of runs: ``metrics.add("orders", run)``.

    Make one for a meter: instruments cannot be taken back. A metric has the attribute ``pipeline``, which is the name
    of the run, and those of its stage, link or input. Where a metric is a summary (``funcpipe.stage.latency``), it is a
    gauge with the attribute ``quantile``, and a counter whose name ends in ``.count``.

    A reader in another thread waits for the event loop of each run, and holds a lock of the provider meanwhile. So the
    loop must not wait for the provider: flush it with ``await trio.to_thread.run_sync(provider.force_flush)``.

    Args:
      meter: what makes the instruments; None: the global provider's meter ``funcpipe_trio``.

    Raises:
      ImportError: if ``opentelemetry-api`` is not installed: it comes with ``funcpipe-trio[opentelemetry]``.
      TypeError: if `meter` is not a meter.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        super().__init__()
        api = needed("opentelemetry.metrics", type(self).__name__, "opentelemetry")
        self._observation = api.Observation  # makes a value with its attributes
        self._snapshot: list[tuple[str, Report]] = []  # of all runs, which serves each instrument once
        self._served: set[str] = set()  # names of the instruments that had it
        self._taking = threading.Lock()  # readers may be in several threads
        if meter is None:
            meter = api.get_meter(_SCOPE)
        checks.instance("OpenTelemetryMetrics", "meter", meter, api.Meter)
        for metric in METRICS:
            self._make(meter, metric)

    def _make(self, meter: Meter, metric: Metric) -> None:
        if metric.kind == "counter":
            meter.create_observable_counter(metric.dotted, [self._asked(metric, _plain)], metric.unit, metric.help)
            return
        read = _plain if metric.kind == "gauge" else _parts
        meter.create_observable_gauge(metric.dotted, [self._asked(metric, read)], metric.unit, metric.help)
        if metric.kind == "summary":
            name, told = f"{metric.dotted}.count", f"How many of these there were. {metric.help}"
            meter.create_observable_counter(name, [self._asked(metric, _count, name)], "{call}", told)

    def _asked(self, metric: Metric, read: _Read, name: str | None = None) -> Callable[[object], Iterator[Observation]]:
        """Return the callback of an instrument."""

        def asked(_options: object) -> Iterator[Observation]:
            for pipeline, report in self._for(name or metric.dotted):
                for labels, value in metric.values(report):
                    attributes = dict(zip(("pipeline", *metric.labels), (pipeline, *labels), strict=True))
                    for number, more in read(value):
                        yield self._observation(number, {**attributes, **more})

        return asked

    def _for(self, instrument: str) -> list[tuple[str, Report]]:
        """Return the snapshot for an instrument: one that it has not had."""
        with self._taking:
            if instrument in self._served or not self._served:
                self._snapshot = self._reports()
                self._served.clear()
            self._served.add(instrument)
            return self._snapshot


_Read = Callable[[Any], Iterator[tuple[float, dict[str, str]]]]
"""Yields the numbers of a value, each with the attributes that it has besides."""


def _plain(value: float) -> Iterator[tuple[float, dict[str, str]]]:
    yield value, {}


def _parts(value: Latency) -> Iterator[tuple[float, dict[str, str]]]:
    for part, seconds in zip(QUANTILES, quantiles(value), strict=True):
        yield seconds, {"quantile": str(part)}


def _count(value: Latency) -> Iterator[tuple[float, dict[str, str]]]:
    yield value.count, {}


# ---- spans


class OpenTelemetrySpans:
    """Spans of runs: ``plan.open(observer=OpenTelemetrySpans("orders"))``, and so for `run` and `run_service`.

    ``run NAME`` lasts as long as a run, within the span that is current where the run is opened. Its status is an error
    if the run failed. For each call that fails there is a span with the name of its stage, an error, within that of the
    run; with `calls`, for every call. Spans that user code makes in a call are within the span of the call, or of the
    run. A run inside another (a pipeline of a `flat_map`) has no span of its own.

    A step with a retry is one call: what fails and is tried again is none that failed. Items at which a function
    without a call of its own fails (a sync `map`, say) have no span: those that its `OnError` handled are counted, by
    stage and type, in events ``errors handled`` of the run's span.

    Args:
      name: of the pipeline, in the name of the span and in the attribute ``pipeline``.
      calls: whether each call has a span.
      tracer: what makes the spans; None: the global provider's tracer ``funcpipe_trio``.

    Raises:
      ImportError: if ``opentelemetry-api`` is not installed: it comes with ``funcpipe-trio[opentelemetry]``.
      TypeError: if an argument has a wrong type.
      ValueError: if `name` is empty.
    """

    def __init__(self, name: str, *, calls: bool = False, tracer: Tracer | None = None) -> None:
        self._api = needed("opentelemetry.trace", type(self).__name__, "opentelemetry")  # says how a span ended
        self._name = line_of(checks.text("OpenTelemetrySpans", "name", name))  # of the pipeline
        self._calls = checks.boolean("OpenTelemetrySpans", "calls", calls)  # whether each call has a span
        if tracer is None:
            tracer = self._api.get_tracer(_SCOPE)
        self._tracer: Tracer = checks.instance("OpenTelemetrySpans", "tracer", tracer, self._api.Tracer)
        """Makes the spans."""

    def begin(self) -> _RunSpan:
        """Begin the span of a run; called by the run."""
        from opentelemetry.context import attach

        span = self._tracer.start_span(f"run {self._name}", attributes={"pipeline": self._name})
        attach(self._api.set_span_in_context(span))  # of the run's own context, which ends with the run
        return _RunSpan(self._api, self._tracer, span, self._name, calls=self._calls)


class _RunSpan:
    """The span of one run, and those of its calls."""

    def __init__(self, api: Any, tracer: Tracer, span: Span, name: str, *, calls: bool) -> None:
        self._api = api  # `opentelemetry.trace`
        self._tracer = tracer  # makes the spans of calls
        self._span = span  # of the run
        self._name = name  # of the pipeline
        self._calls = calls  # whether each call has a span, or only those that failed

    def around(self, stage: str, call: Call) -> Call:
        """Return the call with a span around it."""
        name = line_of(stage)
        attributes = {"pipeline": self._name, "stage": name}
        return self._each(name, attributes, call) if self._calls else self._failed(name, attributes, call)

    def _each(self, name: str, attributes: dict[str, str], call: Call) -> Call:
        spanned = self._tracer.start_as_current_span

        async def each(*arguments: Any) -> Any:
            # What the span would note of an error by itself is its text.
            with spanned(name, attributes=attributes, record_exception=False, set_status_on_exception=False) as span:
                try:
                    return await call(*arguments)
                except Exception as error:
                    self._fail(span, error)
                    raise

        return each

    def _failed(self, name: str, attributes: dict[str, str], call: Call) -> Call:
        async def failed(*arguments: Any) -> Any:
            began = time.time_ns()
            try:
                return await call(*arguments)
            except Exception as error:
                span = self._tracer.start_span(name, attributes=attributes, start_time=began)
                self._fail(span, error)
                span.end()
                raise

        return failed

    def _fail(self, span: Span, error: BaseException) -> None:
        span.set_attribute("error.type", type_name(error))
        span.set_status(self._api.Status(self._api.StatusCode.ERROR))

    def ended(self, report: Report) -> None:
        """End the span of the run, with what became of its items."""
        for stage in report.stages:
            for error, count in stage.failures if stage.latency is None else ():
                self._span.add_event(
                    "errors handled", {"stage": line_of(stage.name), "error.type": error, "count": count}
                )
        self._span.set_attribute("outcome", report.outcome)
        self._span.set_attributes({each: getattr(report, each) for each in _COUNTS})
        if report.error is not None:
            self._fail(self._span, report.error)
        self._span.end()


_COUNTS = ("taken", "delivered", "failed", "dropped", "discarded")
