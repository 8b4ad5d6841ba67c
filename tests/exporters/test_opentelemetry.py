"""Metrics and spans for OpenTelemetry, against its own SDK with exporters in memory.

Mutants that die here: a snapshot for each instrument, or one that two collections share; a span for an attempt; a span
of user code that is nobody's child; a text of an error in a span; a span that a cancelled call leaves open; a variable
that one call leaves to the next.
"""

import sys
import time
from collections import Counter

import pytest
import trio
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from funcpipe_trio import OnError, Pipeline, Retry, Step
from funcpipe_trio._runtime.run.run import Run
from funcpipe_trio._watch.metrics import METRICS
from funcpipe_trio.exporters import OpenTelemetryMetrics, OpenTelemetrySpans
from funcpipe_trio.testing import run_virtual
from tests._kit import Boom, nap
from tests.exporters._plans import SECRET, plan

# ---- metrics


class Meters:
    """A provider with readers in memory."""

    def __init__(self, readers=1):
        self.readers = [InMemoryMetricReader() for _ in range(readers)]
        self.provider = MeterProvider(self.readers)
        self.metrics = OpenTelemetryMetrics(self.provider.get_meter("tests"))

    def collected(self, reader=0):
        """Collect, and return the values by name and attributes."""
        data = self.readers[reader].get_metrics_data()
        return {
            (metric.name, tuple(sorted(point.attributes.items()))): point.value
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        }


@pytest.fixture
def meters():
    meters = Meters(readers=2)
    yield meters
    meters.provider.shutdown()


@pytest.fixture
def reads(monkeypatch):
    """Count the snapshots of runs."""
    reads = Counter()
    report = Run.report.fget

    def counted(run):
        reads[run] += 1
        return report(run)

    monkeypatch.setattr(Run, "report", property(counted))
    return reads


def test_a_collection_says_what_the_report_says(meters):
    async def main():
        async with plan().open() as run:
            meters.metrics.add("shop", run)
            await run.receive()
            await run.receive()
            return meters.collected(), run.report

    seen, report = run_virtual(main)
    expected = {}
    for metric in METRICS:
        for labels, value in metric.values(report):
            named = {"pipeline": "shop", **dict(zip(metric.labels, labels, strict=True))}
            if metric.kind != "summary":
                expected[metric.dotted, tuple(sorted(named.items()))] = value
                continue
            expected[f"{metric.dotted}.count", tuple(sorted(named.items()))] = value.count
            for part, seconds in (("0.5", value.p50), ("0.9", value.p90), ("0.99", value.p99)):
                expected[metric.dotted, tuple(sorted({**named, "quantile": part}.items()))] = seconds
    assert seen == expected
    assert {metric.dotted for metric in METRICS} <= {name for name, _ in seen}
    assert SECRET not in str(seen)


def test_a_run_is_read_once_for_each_collection(meters, reads):
    """However many instruments there are, and also if two readers collect in turn."""

    async def main():
        async with plan().open() as first, plan().open() as second:
            meters.metrics.add("first", first)
            meters.metrics.add("second", second)
            for turn, reader in enumerate((0, 1, 0, 0, 1), 1):
                await first.receive()
                seen = meters.collected(reader)
                assert seen["funcpipe.run.delivered", (("pipeline", "first"),)] == turn
                assert set(reads.values()) == {turn}

    run_virtual(main)


def test_readers_in_threads_collect_while_the_run_goes_on(meters):
    """Each value of one collection is of one instant: the sum adds up."""

    async def main():
        async with Pipeline.from_iterable(range(10**6)).map(nap, concurrency=4).open() as run:
            meters.metrics.add("shop", run)
            async with trio.open_nursery() as nursery:
                for reader in (0, 1):

                    @nursery.start_soon
                    async def collect(reader=reader):
                        for _ in range(10):
                            seen = await trio.to_thread.run_sync(meters.collected, reader)
                            count = {name: seen[f"funcpipe.run.{name}", (("pipeline", "shop"),)] for name in COUNTS}
                            assert count.pop("taken") == sum(count.values())

                for _ in range(3):
                    await run.receive()

    trio.run(main)


COUNTS = ("taken", "delivered", "failed", "dropped", "discarded", "in_flight")


def test_a_run_that_is_over_keeps_its_last_numbers(meters):
    async def main():
        async with Pipeline.from_iterable(range(3)).open() as run:
            meters.metrics.add("shop", run)
            async for _ in run:
                pass

    run_virtual(main)
    assert meters.collected()["funcpipe.run.delivered", (("pipeline", "shop"),)] == 3

    meters.metrics.remove("shop")
    assert meters.collected() == {}


def test_units_and_kinds_are_those_of_the_table(meters):
    async def main():
        async with plan().open() as run:
            meters.metrics.add("shop", run)
            await run.receive()
            return meters.readers[0].get_metrics_data()

    (resource,) = run_virtual(main).resource_metrics
    (scope,) = resource.scope_metrics
    made = {metric.name: metric for metric in scope.metrics}
    for metric in METRICS:
        assert (made[metric.dotted].unit, made[metric.dotted].description) == (metric.unit, metric.help)
        assert hasattr(made[metric.dotted].data, "is_monotonic") == (metric.kind == "counter")


# ---- spans


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter):
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("tests")
    provider.shutdown()


def parent_of(span, spans):
    return next((each.name for each in spans if span.parent and each.context.span_id == span.parent.span_id), None)


def nothing_private(spans):
    """Whether no span has an item, a text of an error, or the event that holds one."""
    events = [event for span in spans for event in span.events]
    said = [(span.name, dict(span.attributes), span.status.description) for span in spans]
    said += [(event.name, dict(event.attributes), None) for event in events]
    return SECRET not in repr(said) and not any(event.name == "exception" for event in events)


def test_a_run_has_a_span(exporter, tracer):
    """Within the one where it was opened, with what became of its items; the block of the run is not within it."""
    seen = []

    async def main():
        with tracer.start_as_current_span("request"):
            async with (
                Pipeline.from_iterable(range(5))
                .map(nap)
                .open(observer=OpenTelemetrySpans("shop", tracer=tracer)) as run
            ):
                seen.append(trace.get_current_span().name)
                async for _ in run:
                    pass

    run_virtual(main)
    run, request = exporter.get_finished_spans()
    assert (run.name, parent_of(run, [request]), seen) == ("run shop", "request", ["request"])
    assert dict(run.attributes) == {
        "pipeline": "shop",
        "outcome": "completed",
        "taken": 5,
        "delivered": 5,
        "failed": 0,
        "dropped": 0,
        "discarded": 0,
    }
    assert run.status.status_code is StatusCode.UNSET


async def fail(_item):
    await trio.sleep(1)
    raise Boom(SECRET)


@pytest.mark.parametrize("calls", [False, True])
def test_a_run_that_fails_is_an_error_by_its_type(exporter, tracer, calls):
    """And so is the call that failed."""
    observer = OpenTelemetrySpans("shop", calls=calls, tracer=tracer)

    with pytest.raises(Boom):
        run_virtual(lambda: Pipeline.from_iterable([SECRET]).map(fail).run(observer=observer))

    call, run = exporter.get_finished_spans()
    assert (call.name, parent_of(call, [run])) == ("fail", "run shop")
    assert dict(call.attributes) == {"pipeline": "shop", "stage": "fail", "error.type": "Boom"}
    assert (run.attributes["outcome"], run.attributes["error.type"]) == ("failed", "Boom")
    for span in (call, run):
        assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert nothing_private([call, run])


FORMS = {
    "map": lambda line, fn: line.map(fn, concurrency=2),
    "unordered": lambda line, fn: line.map(fn, concurrency=2, ordered=False),
    "by key": lambda line, fn: line.map(fn, concurrency=2, key=lambda item: item),
    "step": lambda line, fn: line.map(Step(fn).timeout(9), concurrency=2),
    "started": lambda line, fn: line.map(Step(fn).start(), concurrency=2),
    "filter": lambda line, fn: line.filter(fn),
    "tap": lambda line, fn: line.tap(fn),
    "flat_map": lambda line, fn: line.flat_map(fn, concurrency=2),
    "branch": lambda line, fn: line.broadcast({"a": lambda branch: branch.map(fn)}),
    "inner": lambda line, fn: line.flat_map(
        lambda item: Pipeline.from_iterable([item]).map(fn), concurrency=2, name="outer"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_call_has_a_span_and_what_it_does_is_within(exporter, tracer, form):
    async def work(item):
        with tracer.start_as_current_span("query"):
            await trio.sleep(1)
        return [item]

    pipeline = FORMS[form](Pipeline.from_iterable(range(4)), work)
    report = run_virtual(lambda: pipeline.run(observer=OpenTelemetrySpans("shop", calls=True, tracer=tracer)))

    spans = exporter.get_finished_spans()
    names = Counter((span.name, parent_of(span, spans)) for span in spans if span.name != "outer")
    assert names == {("query", "work"): 4, ("work", "run shop"): 4, ("run shop", None): 1}
    assert report.outcome == "completed"


def test_without_calls_what_a_call_does_is_within_the_run(exporter, tracer):
    async def work(_item):
        with tracer.start_as_current_span("query"):
            await trio.sleep(1)

    run_virtual(lambda: Pipeline.from_iterable([1]).map(work).run(observer=OpenTelemetrySpans("shop", tracer=tracer)))

    spans = exporter.get_finished_spans()
    assert [(span.name, parent_of(span, spans)) for span in spans] == [("query", "run shop"), ("run shop", None)]


@pytest.mark.parametrize("calls", [False, True])
def test_attempts_are_one_call(exporter, tracer, calls):
    """Two fail and the third does not: nothing has failed. Three fail: one call has."""
    tries = Counter()

    async def flaky(item):
        tries[item] += 1
        if tries[item] < item:
            raise Boom(SECRET)

    pipeline = Pipeline.from_iterable([3, 4]).map(Step(flaky).retry(Retry(3)), on_error=OnError.skip())
    run_virtual(lambda: pipeline.run(observer=OpenTelemetrySpans("shop", calls=calls, tracer=tracer)))

    *made, run = exporter.get_finished_spans()
    codes = [span.status.status_code for span in made]
    assert codes == ([StatusCode.UNSET, StatusCode.ERROR] if calls else [StatusCode.ERROR])
    assert nothing_private(made)
    assert run.events == ()  # it has a span already


def test_a_failed_call_has_its_time(exporter, tracer):
    """It begins when the call does, though nobody knew then that it would fail."""
    observer = OpenTelemetrySpans("shop", tracer=tracer)
    began = []

    async def late(item):
        began.append(time.time_ns())
        await fail(item)

    with pytest.raises(Boom):
        run_virtual(lambda: Pipeline.from_iterable([1]).map(late).run(observer=observer))

    call, run = exporter.get_finished_spans()
    assert run.start_time <= call.start_time <= began[0] <= call.end_time <= run.end_time


def test_what_fails_without_a_call_is_counted_in_the_run(exporter, tracer):
    def check(item):
        raise Boom(SECRET)

    pipeline = Pipeline.from_iterable(range(3)).map(check, on_error=OnError.skip(), name="check")
    run_virtual(lambda: pipeline.run(observer=OpenTelemetrySpans("shop", tracer=tracer)))

    (run,) = exporter.get_finished_spans()
    (event,) = run.events
    assert (event.name, dict(event.attributes)) == (
        "errors handled",
        {"stage": "iterable", "error.type": "Boom", "count": 3},
    )


def test_the_step_for_failures_is_a_call_too(exporter, tracer):
    pipeline = Pipeline.from_iterable([1]).map(fail, on_error=OnError.divert(Step(nap)), name="embed")
    run_virtual(lambda: pipeline.run(observer=OpenTelemetrySpans("shop", calls=True, tracer=tracer)))

    names = [(span.name, span.status.status_code) for span in exporter.get_finished_spans()]
    assert names == [
        ("embed", StatusCode.ERROR),
        ("embed (diverting)", StatusCode.UNSET),
        ("run shop", StatusCode.UNSET),
    ]


@pytest.mark.parametrize("calls", [False, True])
def test_a_cancelled_call_ends_its_span_and_has_not_failed(exporter, tracer, calls):
    async def main():
        with trio.move_on_after(0.5):
            await (
                Pipeline.from_iterable([1])
                .map(nap)
                .run(observer=OpenTelemetrySpans("shop", calls=calls, tracer=tracer))
            )

    run_virtual(main)
    spans = exporter.get_finished_spans()
    assert [span.name for span in spans] == (["nap", "run shop"] if calls else ["run shop"])
    assert {span.status.status_code for span in spans} == {StatusCode.UNSET}
    assert spans[-1].attributes["outcome"] == "cancelled"


def test_one_observer_serves_many_runs_at_once(exporter, tracer):
    observer = OpenTelemetrySpans("shop", calls=True, tracer=tracer)

    async def main():
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lambda: Pipeline.from_iterable([1]).map(nap).run(observer=observer))

    run_virtual(main)
    spans = exporter.get_finished_spans()
    runs = [span.context.span_id for span in spans if span.name == "run shop"]
    assert sorted(span.parent.span_id for span in spans if span.name == "nap") == sorted(runs)


def test_without_a_provider_it_does_nothing():
    """The API alone makes no spans and no metrics."""

    async def main():
        metrics = OpenTelemetryMetrics()
        async with plan().open(observer=OpenTelemetrySpans("shop", calls=True)) as run:
            metrics.add("shop", run)
            return [len(batch) async for batch in run]

    assert sum(run_virtual(main)) > 0


# ---- wrong use


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: OpenTelemetrySpans(""), ValueError, "OpenTelemetrySpans: name must not be empty, not ''"),
        (lambda: OpenTelemetrySpans(3), TypeError, "OpenTelemetrySpans: name must be a str, not 3"),
        (lambda: OpenTelemetrySpans("a", calls=1), TypeError, "OpenTelemetrySpans: calls must be a bool, not 1"),
        (lambda: OpenTelemetrySpans("a", tracer=3), TypeError, "OpenTelemetrySpans: tracer must be a Tracer, not 3"),
        (lambda: OpenTelemetryMetrics(3), TypeError, "OpenTelemetryMetrics: meter must be a Meter, not 3"),
        (
            lambda: OpenTelemetryMetrics().add("a", 3),
            TypeError,
            "OpenTelemetryMetrics.add: run must be a Run, not 3\nUse the run that",
        ),
    ],
)
def test_wrong_arguments_are_refused(make, kind, message):
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("module", "make"),
    [
        ("opentelemetry.metrics", OpenTelemetryMetrics),
        ("opentelemetry.trace", lambda: OpenTelemetrySpans("shop")),
    ],
)
def test_without_the_package_the_extra_is_named(monkeypatch, module, make):
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ImportError) as caught:
        make()
    assert str(caught.value).endswith('needs opentelemetry-api\nUse `pip install "funcpipe-trio[opentelemetry]"`.')
