"""Runs told to others: metrics for Prometheus and OpenTelemetry, spans for OpenTelemetry.

Each needs a package of its own, imported when it is made: ``funcpipe-trio[prometheus]``, ``[opentelemetry]``.
"""

from .opentelemetry import OpenTelemetryMetrics as OpenTelemetryMetrics
from .opentelemetry import OpenTelemetrySpans as OpenTelemetrySpans
from .prometheus import PrometheusCollector as PrometheusCollector
