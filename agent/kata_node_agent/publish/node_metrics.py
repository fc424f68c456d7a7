"""The node's report as metrics: what is not known is not there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kata_node_agent.publish.families import CounterMetricFamily, GaugeMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kata_node_agent.publish.families import Metric

_GROUPS = ("root", "system", "kubelet", "runtime", "pods", "kata_overhead")
_MEMORY = ("usage", "working_set", "rss", "swap", "limit")
_RESOURCES = {"memory_bytes": "memory", "ephemeral_storage_bytes": "ephemeral_storage"}


def node_metrics(report: Mapping[str, Any]) -> Iterator[Metric]:
    """Metrics of the document of `report --format json`."""
    amounts = {
        "capacity": report["capacity"],
        "system_reserved": report["reserved"]["system"],
        "kube_reserved": report["reserved"]["kube"],
        "allocatable": report["allocatable"],
    }
    resources = GaugeMetricFamily(
        "kata_node_agent_node_bytes", "Memory and storage of the node, by part.", labels=["part", "resource"]
    )
    cpus = GaugeMetricFamily("kata_node_agent_node_cpus", "CPUs of the node, by part.", labels=["part"])
    for part, amount in amounts.items():
        for key, resource in _RESOURCES.items():
            if amount[key] is not None:
                resources.add_metric([part, resource], amount[key])
        if amount["cpu_millicores"] is not None:
            cpus.add_metric([part], amount["cpu_millicores"] / 1000)
    yield resources
    yield cpus
    yield from _groups(report["usage"])
    available = GaugeMetricFamily(
        "kata_node_agent_available_bytes", "Memory that is left, by who counts.", labels=["signal"]
    )
    until = GaugeMetricFamily(
        "kata_node_agent_until_eviction_bytes", "Memory left until kubelet evicts.", labels=["signal"]
    )
    left = report["available"]
    for family, signal, key in (
        (available, "memory.available", "memory_bytes"),
        (available, "allocatableMemory.available", "pods_memory_bytes"),
        (available, "MemAvailable", "mem_available_bytes"),
        (until, "memory.available", "until_eviction_bytes"),
        (until, "allocatableMemory.available", "pods_until_eviction_bytes"),
    ):
        if left[key] is not None:
            family.add_metric([signal], left[key])
    yield available
    yield until
    findings = GaugeMetricFamily(
        "kata_node_agent_findings", "1 for each finding of the report.", labels=["reason", "problem"]
    )
    # Two findings may have one reason.
    for reason, problem in sorted({(f["reason"], f["problem"]) for f in report["findings"]}):
        findings.add_metric([reason, str(problem).lower()], 1)
    yield findings


def _groups(usage: Mapping[str, Any]) -> Iterator[Metric]:
    memory = GaugeMetricFamily(
        "kata_node_agent_group_memory_bytes",
        "Memory of a control group; system contains kubelet and runtime.",
        labels=["group", "kind"],
    )
    cpu = CounterMetricFamily(
        "kata_node_agent_group_cpu_seconds", "CPU time of a control group.", labels=["group"]
    )
    stalled = GaugeMetricFamily(
        "kata_node_agent_group_stalled_ratio",
        "Share of the last 60 s in which some task of the group waited.",
        labels=["group", "resource"],
    )
    for name in _GROUPS:
        group = usage[name]
        if group is None:
            continue
        for kind in _MEMORY:
            if group[f"{kind}_bytes"] is not None:
                memory.add_metric([name, kind], group[f"{kind}_bytes"])
        if group["cpu_microseconds"] is not None:
            cpu.add_metric([name], group["cpu_microseconds"] / 1e6)
        for resource in ("memory", "cpu", "io"):
            if group[f"{resource}_pressure_percent"] is not None:
                stalled.add_metric([name, resource], group[f"{resource}_pressure_percent"] / 100)
    yield memory
    yield cpu
    yield stalled
