"""The report in the shape of the ``node`` object of kubelet's Summary API (/stats/summary).

Source: Kubernetes' staging/src/k8s.io/kubelet/pkg/apis/stats/v1alpha1. Times are RFC 3339, CPU time is nanoseconds.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kata_node_agent.host.cgroup_reader import Group
    from kata_node_agent.report.collect import Report


def as_summary(report: Report) -> dict[str, Any]:
    """``{"node": {...}}``. A container is listed only where its group is there, as kubelet does."""
    when = datetime.fromtimestamp(report.cgroups.unix_seconds, UTC).isoformat(timespec="seconds")
    time = when.replace("+00:00", "Z")
    cgroups = report.cgroups
    # `misc` is the system's group: on OpenShift it contains the two before it.
    named = (
        ("kubelet", cgroups.kubelet),
        ("runtime", cgroups.runtime),
        ("misc", cgroups.system),
        ("pods", cgroups.pods),
    )
    node: dict[str, Any] = {
        "nodeName": os.uname().nodename,
        "systemContainers": [
            {"name": name, **_stats(group, time)} for name, group in named if group is not None
        ],
    }
    if cgroups.root is not None:
        node |= _stats(cgroups.root, time)
        # Of the root there is no limit; its available memory is the eviction signal.
        node["memory"]["availableBytes"] = report.signals.memory_available_bytes
    return {"node": node}


def _stats(group: Group, time: str) -> dict[str, Any]:
    memory: dict[str, Any] = {"time": time}
    working_set = group.working_set_bytes
    if group.limit_bytes is not None and working_set is not None:
        memory["availableBytes"] = max(0, group.limit_bytes - working_set)
    memory |= {
        name: value
        for name, value in (
            ("usageBytes", group.usage_bytes),
            ("workingSetBytes", working_set),
            ("rssBytes", group.rss_bytes),
        )
        if value is not None
    }
    stats: dict[str, Any] = {"memory": memory}
    if group.cpu_microseconds is not None:
        stats["cpu"] = {"time": time, "usageCoreNanoSeconds": group.cpu_microseconds * 1000}
    if group.swap_bytes is not None:
        stats["swap"] = {"time": time, "swapUsageBytes": group.swap_bytes}
    return stats
