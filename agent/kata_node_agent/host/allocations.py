"""What kubelet has allocated to each pod's containers, from its own checkpoint. Facts only.

Source: Kubernetes 1.37, pkg/kubelet/allocation (allocated_pods_state: main containers and sidecars, and what is set for
the pod as a whole where the feature for resizing it is on). Older releases have no such file, or another format.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import QuantityError
from kata_node_agent.host.machine import KUBELET_ROOT
from kata_node_agent.quantity import parse, parse_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.host.root import HostRoot

NAME = "allocated_pods_state"
# 1,000 pods of five containers each need less.
_MAX_FILE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Amounts:
    """Resources of a container, or of a pod; ``None`` where none is set."""

    memory_limit_bytes: int | None = None
    memory_request_bytes: int | None = None
    cpu_limit_millicores: int | None = None
    hugepages_bytes: int = 0


@dataclass(frozen=True, slots=True)
class PodAllocation:
    """A pod's containers by name, and what is set for the pod as a whole."""

    containers: Mapping[str, Amounts]
    pod: Amounts | None = None


def read_allocations(root: HostRoot, kubelet_root: str = KUBELET_ROOT) -> Mapping[str, PodAllocation] | None:
    """Pod uid → what is allocated; ``None`` where the file is not there, or not one that is understood."""
    text = root.try_read_text(f"{kubelet_root}/{NAME}", _MAX_FILE_BYTES)
    if text is None:
        return None
    try:
        entries = json.loads(json.loads(text)["data"])["entries"].items()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return {uid: found for uid, entry in entries if (found := _pod(entry)) is not None}


def signature(root: HostRoot, kubelet_root: str = KUBELET_ROOT) -> tuple[int, ...] | None:
    """Another one where the file is another: kubelet replaces it as a whole. ``None`` where there is none."""
    try:
        status = os.stat(root.resolve(f"{kubelet_root}/{NAME}"))
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def _pod(entry: Any) -> PodAllocation | None:
    try:
        containers = {name: _amounts(each) for name, each in entry["ContainerResources"].items()}
        level = entry.get("PodLevelResources")
        return PodAllocation(containers, _amounts(level) if level else None)
    except (KeyError, TypeError, AttributeError, QuantityError):
        # One that is not understood hides no other.
        return None


def _amounts(resources: Mapping[str, Any]) -> Amounts:
    limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
    cpu = limits.get("cpu")
    return Amounts(
        memory_limit_bytes=parse_bytes(limits["memory"]) if "memory" in limits else None,
        memory_request_bytes=parse_bytes(requests["memory"]) if "memory" in requests else None,
        cpu_limit_millicores=-int(-parse(cpu) * 1000 // 1) if cpu is not None else None,
        hugepages_bytes=sum(parse_bytes(limits[name]) for name in limits if name.startswith("hugepages-")),
    )
