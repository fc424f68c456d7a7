"""Metrics for Prometheus, made from the agent's status when somebody scrapes. docs/metrics.md has the table.

This file, and of the library what defines metrics, are loaded with the first scrape. It is made on a thread of its own; the
status is asked of the event loop, which owns it, so that a loop that is stuck shows as a scrape that fails.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from kata_node_agent.errors import AgentError
from kata_node_agent.publish.account_metrics import account_metrics, one_of
from kata_node_agent.publish.exposition import accepts_gzip, chosen_format, compressed, write
from kata_node_agent.publish.families import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from kata_node_agent.publish.http import Answer
from kata_node_agent.publish.node_metrics import node_metrics
from kata_node_agent.publish.nri_metrics import nri_metrics
from kata_node_agent.publish.sandbox_metrics import sandbox_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from kata_node_agent.pb import agent_pb2
    from kata_node_agent.publish.families import Metric
    from kata_node_agent.publish.http import Request

_VERDICTS = ("eligible", "ineligible", "unknown")


class StatusCollector:
    """The status as metrics; base units, names with our prefix."""

    def __init__(
        self,
        status: Callable[[], agent_pb2.Status],
        report: Callable[[], Mapping[str, Any]],
        sandboxes: Callable[[], Mapping[str, Any]] | None = None,
        each_sandbox: Callable[[], bool] = lambda: True,
    ) -> None:
        self._status = status
        self._report = report
        self._sandboxes = sandboxes
        self._each_sandbox = each_sandbox

    def collect(self) -> Iterator[Metric]:
        """One scrape."""
        status = self._status()
        info = {
            "version": status.version,
            "profile": status.profile,
            "mode": status.mode,
            "resource": status.resource,
        }
        yield InfoMetricFamily("kata_node_agent", "The agent and what it is set to.", value=info)
        yield GaugeMetricFamily(
            "kata_node_agent_start_time_seconds",
            "When the agent was started, since 1970.",
            value=status.started_unix_seconds,
        )
        yield one_of(
            "kata_node_agent_verdict", "1 for the verdict in force.", "verdict", _VERDICTS, status.verdict
        )
        changes = CounterMetricFamily(
            "kata_node_agent_changes",
            "Changes since the agent started, as in status --history.",
            labels=["what"],
        )
        for what in ("verdict", "devices", "takeover"):
            changes.add_metric([what], status.change_counts.get(what, 0))
        yield changes
        slots = GaugeMetricFamily(
            "kata_node_agent_slots", "Places for VMs shown to kubelet.", labels=["state"]
        )
        for state in ("total", "healthy", "in_use"):
            slots.add_metric([state], getattr(status.slots, state))
        yield slots
        yield GaugeMetricFamily(
            "kata_node_agent_kubelet_registered",
            "1 while registered.",
            value=float(status.kubelet.registered),
        )
        yield GaugeMetricFamily(
            "kata_node_agent_kubelet_stream_open",
            "1 while kubelet holds the stream of devices.",
            value=float(status.kubelet.stream_open),
        )
        yield CounterMetricFamily(
            "kata_node_agent_kubelet_registrations",
            "Registrations since the agent started.",
            value=status.kubelet.registrations,
        )
        memory = GaugeMetricFamily(
            "kata_node_agent_memory_bytes", "Memory of the node, by part.", labels=["part"]
        )
        for field in status.memory.DESCRIPTOR.fields:
            memory.add_metric([field.name.removesuffix("_bytes")], getattr(status.memory, field.name))
        yield memory
        yield from nri_metrics(status.nri)
        yield from account_metrics(status)
        yield GaugeMetricFamily(
            "kata_node_agent_problems", "Problems that status shows.", value=float(len(status.problems))
        )
        problem = GaugeMetricFamily(
            "kata_node_agent_problem", "How many problems status shows for a reason.", labels=["reason"]
        )
        for reason, count in sorted(Counter(each.reason for each in status.problems).items()):
            problem.add_metric([reason], count)
        yield problem
        # The status above says what cannot be read; a scrape tells the rest all the same.
        with suppress(AgentError):
            yield from node_metrics(self._report())
        if self._sandboxes is not None:
            with suppress(AgentError):
                yield from sandbox_metrics(self._sandboxes(), each=self._each_sandbox())


class MetricsPage:
    """Answers for /metrics: formats, compression and ``name[]`` as Prometheus' libraries have them."""

    def __init__(self, collector: StatusCollector) -> None:
        self._collector = collector
        # One scrape at a time reads the node, however many ask.
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        """One scrape; raises what the collector does."""
        content_type = chosen_format(request.headers.get("accept", ""))
        names = frozenset(parse_qs(request.query).get("name[]", ())) if request.query else frozenset[str]()
        with self._lock:
            body = write(self._collector.collect(), content_type, names)
        headers = {"Vary": "Accept, Accept-Encoding"}
        if accepts_gzip(request.headers.get("accept-encoding", "")):
            body, headers["Content-Encoding"] = compressed(body), "gzip"
        return Answer(body, content_type, headers=headers)
