"""What the container runtime wrote down of a pod when it made its sandbox: limits, podFixed, Kata's annotations.

Sources: containerd's pkg/cri/annotations (sandbox-memory, sandbox-cpu-quota, which have no overhead in them), CRI-O's
pkg/annotations (PodLinuxResources, PodLinuxOverhead: each a LinuxContainerResources of the CRI as JSON).
"""

from __future__ import annotations

import json
import re
from dataclasses import field
from typing import TYPE_CHECKING, Any

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.host.root import HostRoot

_CONTAINERD = "/run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json"
_CRIO = "/run/containers/storage/overlay-containers/{}/userdata/config.json"
# The second is the name that CRI-O is moving to.
_CRIO_RESOURCES = ("io.kubernetes.cri-o.PodLinuxResources", "pod-linux-resources.crio.io")
_CRIO_OVERHEAD = ("io.kubernetes.cri-o.PodLinuxOverhead", "pod-linux-overhead.crio.io")
_CRI = "io.kubernetes.cri.sandbox-"
_KATA = "io.katacontainers."
_MAX_BYTES = 1 << 20
_MAX_AMOUNT = 1 << 60
_SANDBOX_ID = re.compile(r"[0-9a-zA-Z][0-9a-zA-Z_.-]{0,127}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A sandbox as it was asked for. Amounts are bytes and millicores; ``None`` where nothing says it.

    Attributes:
        limits_bytes: what its containers' limits come to; 0 for none.
        limits_millicores: the same of CPU.
        overhead_bytes, overhead_millicores: podFixed.
        annotations: Kata's, of the pod.
    """

    limits_bytes: int | None = None
    limits_millicores: int | None = None
    overhead_bytes: int | None = None
    overhead_millicores: int | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)


def read_bundle(root: HostRoot, sandbox_id: str) -> Bundle:
    """What is written down of a sandbox; empty where nothing is."""
    if _SANDBOX_ID.fullmatch(sandbox_id) is None:
        return Bundle()
    for place, understand in ((_CONTAINERD, _containerd), (_CRIO, _crio)):
        text = root.try_read_text(place.format(sandbox_id), _MAX_BYTES)
        if text is None:
            continue
        document = _object(text)
        annotations = document.get("annotations")
        if isinstance(annotations, dict):
            return understand(annotations)
    return Bundle()


def _containerd(annotations: Mapping[str, Any]) -> Bundle:
    memory = _number(annotations.get(f"{_CRI}memory"))
    quota, period = (_number(annotations.get(f"{_CRI}cpu-{name}")) for name in ("quota", "period"))
    return Bundle(
        limits_bytes=memory, limits_millicores=_millicores(quota, period), annotations=_kata(annotations)
    )


def _crio(annotations: Mapping[str, Any]) -> Bundle:
    limits, millicores = _resources(annotations, _CRIO_RESOURCES)
    overhead, overhead_millicores = _resources(annotations, _CRIO_OVERHEAD)
    return Bundle(limits, millicores, overhead, overhead_millicores, _kata(annotations))


def _resources(annotations: Mapping[str, Any], names: tuple[str, ...]) -> tuple[int | None, int | None]:
    text = next((annotations[name] for name in names if isinstance(annotations.get(name), str)), None)
    if text is None:
        return None, None
    resources = _object(text)
    # What is 0 is left out of the JSON.
    memory, quota, period = (
        _number(resources.get(name, 0)) for name in ("memory_limit_in_bytes", "cpu_quota", "cpu_period")
    )
    return memory, _millicores(quota, period)


def _millicores(quota: int | None, period: int | None) -> int | None:
    if quota is None:
        return None
    return quota * 1000 // period if period else 0


def _kata(annotations: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: value for key, value in annotations.items() if key.startswith(_KATA) and isinstance(value, str)
    }


def _object(text: str) -> Mapping[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _number(value: object) -> int | None:
    """A whole number, as such or as text; a limit below 0 is none."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value > _MAX_AMOUNT:
        return None
    return max(0, value)
