"""The report as one JSON document, schema ``kata-node-agent/report/v1``; our gRPC API has the same fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kata_node_agent.capacity.allocatable import Resources, eviction_threshold_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.host.cgroup_reader import Group
    from kata_node_agent.host.pressure import Pressure
    from kata_node_agent.nodeconfig.merge import Setting
    from kata_node_agent.report.collect import Report

SCHEMA = "kata-node-agent/report/v1"


def as_document(report: Report) -> dict[str, Any]:
    """All of the report. Amounts are bytes, millicores, microseconds and percent, as the names say; ``null``: not known."""
    node, cgroups, now = report.node, report.cgroups, report.signals
    capacity = node.budget.capacity_bytes
    return {
        "schema": SCHEMA,
        "unix_seconds": report.unix_seconds,
        "capacity": {
            **_amounts(node.capacity),
            "hugepages_bytes": node.budget.hugepages_bytes,
            "hugepages": [
                {"page_size_bytes": size, "bytes": amount}
                for size, amount in sorted(node.machine.hugepages_bytes.items())
            ],
        },
        "reserved": {"system": _amounts(node.system_reserved), "kube": _amounts(node.kube_reserved)},
        "eviction_hard": {
            **_threshold(node.eviction_hard, capacity),
            "nodefs_available_bytes": node.nodefs_threshold_bytes,
        },
        "eviction_soft": _threshold(node.eviction_soft, capacity),
        "allocatable": _amounts(node.allocatable),
        "usage": {
            "hierarchy": cgroups.hierarchy,
            "root": _group(cgroups.root),
            "system": _group(cgroups.system),
            "kubelet": _group(cgroups.kubelet),
            "runtime": _group(cgroups.runtime),
            "pods": _group(cgroups.pods),
            "kata_overhead": _group(cgroups.kata_overhead),
        },
        "available": {
            "memory_bytes": now.memory_available_bytes,
            "until_eviction_bytes": now.until_eviction_bytes,
            "pods_memory_bytes": now.pods_available_bytes,
            "pods_until_eviction_bytes": now.pods_until_eviction_bytes,
            "mem_available_bytes": report.memory.available_bytes,
            "unseen_bytes": now.unseen_bytes,
        },
        "consumers": [
            {"unit": c.unit, "process": c.process, "pid": c.pid, "memory_bytes": c.memory_bytes}
            for c in report.consumers
        ],
        "findings": [
            {"reason": f.reason, "message": f.message, "remedy": f.remedy, "problem": f.problem}
            for f in report.findings
        ],
        "kata": [
            {
                "name": k.handler,
                "runtime": k.runtime,
                "kind": k.kind,
                "hypervisor": k.hypervisor,
                "file": k.file,
                "settings": settings_list(k.values),
                "problem": k.problem,
            }
            for k in report.kata
        ],
        "settings": settings_list(node.settings.values),
        "advice": [
            {"reason": a.reason, "message": a.message, "why": a.why, "setting": a.setting}
            for a in report.advice
        ],
        "observed": [
            {
                "name": o.name,
                "records": o.records,
                "first_unix_seconds": o.first_unix_seconds,
                "last_unix_seconds": o.last_unix_seconds,
                "p50": o.p50,
                "p95": o.p95,
                "p99": o.p99,
                "max": o.max,
            }
            for o in report.observed
        ],
        "problems": list(report.problems),
    }


def settings_list(settings: Mapping[str, Setting]) -> list[dict[str, str]]:
    """Settings by name, each with its origin."""
    return [
        {"name": name, "value": _shown(setting.value), "origin": setting.origin}
        for name, setting in sorted(settings.items())
    ]


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _amounts(amounts: Resources) -> dict[str, int | None]:
    return {
        "memory_bytes": amounts.memory_bytes,
        "cpu_millicores": amounts.cpu_millicores,
        "ephemeral_storage_bytes": amounts.ephemeral_storage_bytes,
        "pids": amounts.pids,
    }


def _threshold(signals: Mapping[str, str], capacity_bytes: int) -> dict[str, Any]:
    memory = signals.get("memory.available")
    return {
        "memory_available_bytes": eviction_threshold_bytes(memory, capacity_bytes) if memory else None,
        "signals": dict(sorted(signals.items())),
    }


def _group(group: Group | None) -> dict[str, Any] | None:
    if group is None:
        return None
    return {
        "path": group.path,
        "usage_bytes": group.usage_bytes,
        "working_set_bytes": group.working_set_bytes,
        "rss_bytes": group.rss_bytes,
        "swap_bytes": group.swap_bytes,
        "limit_bytes": group.limit_bytes,
        "cpu_microseconds": group.cpu_microseconds,
        "memory_pressure_percent": _percent(group.memory_pressure),
        "cpu_pressure_percent": _percent(group.cpu_pressure),
        "io_pressure_percent": _percent(group.io_pressure),
    }


def _percent(pressure: Pressure | None) -> float | None:
    """Time in which some task waited, last 60 s."""
    return pressure.some_avg60 if pressure is not None else None
