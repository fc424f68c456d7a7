"""Prometheus' families of metrics, of the library that defines them, and without the rest of it.

Importing its package would load a web server, urllib and OpenSSL: 5 MiB for a scrape.
"""

from __future__ import annotations

from kata_node_agent.packages import bare_package

bare_package("prometheus_client")

from prometheus_client.metrics_core import (  # noqa: E402
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString  # noqa: E402

__all__ = [
    "CounterMetricFamily",
    "GaugeMetricFamily",
    "HistogramMetricFamily",
    "InfoMetricFamily",
    "Metric",
    "floatToGoString",
]
