"""How does Prometheus see runs? Through a collector, registered with the user's registry, that reads them when asked.

The rule: the metrics are those of the table in `_watch.metrics`, under the names there, with the label ``pipeline``. A
run is read once for each scrape, in any thread; so the numbers of one run in one scrape belong together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from .._runtime.reports.counts import Latency
from .._watch.metrics import METRICS, QUANTILES, Metric, quantiles
from ._runs import Runs, needed

if TYPE_CHECKING:
    from prometheus_client.core import Metric as Family

__all__ = ["PrometheusCollector"]


class PrometheusCollector(Runs):
    """A collector of any number of runs, for a registry of ``prometheus_client``.

    ``collector = PrometheusCollector(); REGISTRY.register(collector); collector.add("orders", run)``. A registry takes
    one collector of this kind; each run is a value of the label ``pipeline``. ``REGISTRY.unregister(collector)`` ends
    it. A scrape in another thread waits for the event loop of each run, so the loop must not wait for the scrape.

    Raises:
      ImportError: if ``prometheus_client`` is not installed: it comes with ``funcpipe-trio[prometheus]``.
    """

    def __init__(self) -> None:
        super().__init__()
        self._core = needed("prometheus_client.core", type(self).__name__, "prometheus")  # makes families

    def describe(self) -> Iterator[Family]:
        """Yield the metrics without values, so that registering it asks no run. Sync, from any thread."""
        for metric in METRICS:
            yield self._family(metric)

    def collect(self) -> Iterator[Family]:
        """Yield the metrics with the values of all runs. Sync, from any thread."""
        reports = self._reports()
        for metric in METRICS:
            family = self._family(metric)
            for name, report in reports:
                for labels, value in metric.values(report):
                    named = dict(zip(("pipeline", *metric.labels), (name, *labels), strict=True))
                    _add(family, metric.prometheus, named, value)
            yield family

    def _family(self, metric: Metric) -> Any:
        return self._core.Metric(metric.prometheus.removesuffix("_total"), metric.help, metric.kind)


def _add(family: Any, name: str, labels: dict[str, str], value: float | Latency) -> None:
    if not isinstance(value, Latency):
        family.add_sample(name, labels, value)
        return
    for part, seconds in zip(QUANTILES, quantiles(value), strict=True):
        family.add_sample(name, {**labels, "quantile": str(part)}, seconds)
    family.add_sample(f"{name}_count", labels, value.count)
