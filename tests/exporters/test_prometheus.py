"""The collector for Prometheus, against its own registry, server and parser.

Mutants that die here: a scrape for each metric; a run that is gone when it is over; a second run of a name; a deadlock
of a scrape in the thread of the run, or of `add` in two threads; a key, an item or a text of an error in a label.
"""

import subprocess
import sys
import urllib.request
from functools import partial

import pytest
import trio
from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.openmetrics import exposition as open_metrics
from prometheus_client.openmetrics import parser
from prometheus_client.parser import text_string_to_metric_families

from funcpipe_trio import Pipeline
from funcpipe_trio._watch.exposition import exposition
from funcpipe_trio._watch.metrics import METRICS
from funcpipe_trio.exporters import PrometheusCollector
from funcpipe_trio.testing import run_virtual
from tests._kit import endless, nap
from tests.exporters._plans import SECRET, plan


def parsed(text):
    """Return all samples of an exposition, by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def collector(registry):
    collector = PrometheusCollector()
    registry.register(collector)
    return collector


def scraped(registry):
    return parsed(generate_latest(registry).decode())


def test_a_scrape_says_what_the_report_says(registry, collector):
    """All metrics, under the names and with the values of the text that `watch_app` serves."""

    async def main():
        async with plan().open() as run:
            collector.add("shop", run)
            await run.receive()
            await run.receive()
            return scraped(registry), exposition(run.report, "shop")

    seen, text = run_virtual(main)
    assert seen == parsed(text)
    assert SECRET not in text
    names = {name for name, _labels in seen}
    assert {metric.prometheus for metric in METRICS} - names == set()


def test_open_metrics_are_well_formed(registry, collector):
    """Its parser is strict: names of families, kinds, suffixes."""

    async def main():
        async with plan().open() as run:
            collector.add("shop", run)
            await run.receive()
            return scraped(registry), open_metrics.generate_latest(registry).decode()

    seen, text = run_virtual(main)
    families = list(parser.text_string_to_metric_families(text))
    assert {sample.name for family in families for sample in family.samples} == {name for name, _labels in seen}
    assert {family.name for family in families} == {metric.prometheus.removesuffix("_total") for metric in METRICS}


def test_a_real_server_is_asked_from_outside(registry, collector):
    """By HTTP, while the loop goes on; the thread of the server waits for the loop."""

    async def main():
        server, thread = start_http_server(0, "127.0.0.1", registry)
        url = f"http://127.0.0.1:{server.server_port}/metrics"
        try:
            async with Pipeline.from_async_iterable(endless, name="numbers").buffer(1).open() as run:
                collector.add("shop", run)
                await run.receive()
                with await trio.to_thread.run_sync(urllib.request.urlopen, url) as answer:
                    return parsed(answer.read().decode())
        finally:
            await trio.to_thread.run_sync(server.shutdown)
            server.server_close()
            thread.join()

    seen = trio.run(main)
    assert seen["funcpipe_run_delivered_total", (("pipeline", "shop"),)] == 1
    assert SECRET not in str(seen)


def test_several_runs_have_a_label_each(registry, collector):
    async def main():
        async with plan().open() as first, plan().open() as second:
            collector.add("first", first)
            collector.add("second", second)
            await first.receive()
            return scraped(registry)

    seen = run_virtual(main)
    delivered = [seen["funcpipe_run_delivered_total", (("pipeline", name),)] for name in ("first", "second")]
    assert delivered == [1, 0]


def test_a_run_that_is_over_keeps_its_last_numbers(registry, collector):
    """Until it is removed, or the name is given to another; also when its trio run has ended."""
    report = run_virtual(partial(run_to_end, collector))
    seen = scraped(registry)

    assert seen["funcpipe_run_delivered_total", (("pipeline", "shop"),)] == report.delivered
    assert seen["funcpipe_run_outcome", (("outcome", "completed"), ("pipeline", "shop"))] == 1
    assert scraped(registry) == seen

    async def again():
        async with Pipeline.from_iterable([1]).open() as run:
            collector.add("shop", run)
            return scraped(registry)

    assert run_virtual(again)["funcpipe_run_delivered_total", (("pipeline", "shop"),)] == 0

    collector.remove("shop")
    assert scraped(registry) == {}


async def run_to_end(collector):
    async with trio.open_nursery() as nursery:
        run = await nursery.start(plan().run)
        collector.add("shop", run)
    return run.report


def test_a_run_is_read_once_for_each_scrape(registry, collector, monkeypatch):
    run_virtual(partial(run_to_end, collector))
    reads = []
    report = collector._runs["shop"].report
    monkeypatch.setattr("funcpipe_trio._runtime.run.run.Run.report", property(lambda run: reads.append(run) or report))

    scraped(registry)
    assert len(reads) == 1


def test_registering_asks_no_run(collector):
    """Which would wait for a loop that waits for the registration; and a second collector is refused by its names."""

    async def main():
        async with plan().open() as run:
            collector.add("shop", run)
            await trio.to_thread.run_sync(CollectorRegistry(auto_describe=True).register, collector)
            registry = CollectorRegistry()
            registry.register(collector)
            with pytest.raises(ValueError, match="Duplicated timeseries"):
                registry.register(PrometheusCollector())
            registry.unregister(collector)
            return scraped(registry)

    assert run_virtual(main) == {}


def test_threads_may_add_and_remove_while_others_scrape(registry, collector):
    """And the loop too: no lock is held while a thread waits for the loop."""

    async def main():
        async with Pipeline.from_async_iterable(endless).map(nap).open() as run, trio.open_nursery() as nursery:

            def come_and_go(name):
                for _ in range(20):
                    collector.add(name, run)
                    scraped(registry)
                    collector.remove(name)

            for number in range(3):
                nursery.start_soon(trio.to_thread.run_sync, come_and_go, f"run {number}")
            for _ in range(20):
                collector.add("here", run)
                await trio.lowlevel.checkpoint()
                scraped(registry)
                collector.remove("here")

    trio.run(main)
    assert scraped(registry) == {}


def test_a_name_belongs_to_one_run_at_work(collector):
    async def main():
        async with plan().open() as first, plan().open() as second:
            collector.add("shop", first)
            collector.add("shop", first)
            with pytest.raises(ValueError, match="add: name must be that of no other run at work, not 'shop'"):
                collector.add("shop", second)
            with pytest.raises(ValueError, match="add: name must be that of no other run at work, not 'shop'"):
                await trio.to_thread.run_sync(collector.add, "shop", second)
            first.abort()
            with pytest.raises(KeyError, match="remove: there is no run 'other'"):
                collector.remove("other")

    trio.run(main)


def test_a_name_is_only_ever_a_label(registry, collector):
    name = 'shop"} 1\n# \x1b'

    async def main():
        async with Pipeline.from_iterable([1], name=name).open() as run:
            collector.add(name, run)
            return scraped(registry)

    assert {dict(labels)["pipeline"] for _name, labels in run_virtual(main)} == {'shop"} 1\\n# \\x1b'}


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (("", None), ValueError, "PrometheusCollector.add: name must not be empty, not ''"),
        ((3, None), TypeError, "PrometheusCollector.add: name must be a str, not 3"),
        (("shop", 3), TypeError, "PrometheusCollector.add: run must be a Run, not 3\nUse the run that"),
    ],
)
def test_wrong_arguments_are_refused(collector, arguments, kind, message):
    with pytest.raises(kind) as caught:
        collector.add(*arguments)
    assert message in str(caught.value)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)

    with pytest.raises(ImportError) as caught:
        PrometheusCollector()
    assert str(caught.value) == (
        'PrometheusCollector needs prometheus_client\nUse `pip install "funcpipe-trio[prometheus]"`.'
    )


def test_to_import_the_exporters_imports_neither_package():
    code = "import sys, funcpipe_trio.exporters; print({'prometheus_client', 'opentelemetry'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
