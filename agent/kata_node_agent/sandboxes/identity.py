"""Whose sandbox it is: pod and handler, from what lies on the node. Nobody is asked."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

# cgroupfs' names (``pod<uid>``) and systemd's (``kubepods-burstable-pod<uid>.slice``), which have underscores for dashes.
_POD_GROUP = re.compile(r"(?:.*-)?pod([0-9a-zA-Z][0-9a-zA-Z_-]{2,63}?)(?:\.slice)?")
# Kubelet's folder of a pod's logs: namespace_name_uid, where none of the first two may have an underscore.
_LOG_FOLDER = re.compile(r"([a-z0-9-]{1,63})_([a-z0-9.-]{1,253})_([0-9a-zA-Z-]{3,64})")
_LOGS = "/var/log/pods"
# Where a container runtime keeps a sandbox's OCI configuration, and how it names what Kubernetes said.
# Sources: containerd's pkg/cri/annotations, CRI-O's pkg/annotations.
_BUNDLES = (
    "/run/containerd/io.containerd.runtime.v2.task/k8s.io/{}/config.json",
    "/run/containers/storage/overlay-containers/{}/userdata/config.json",
)
_UID = ("io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid")
_NAMESPACE = ("io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace")
_NAME = ("io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name")
_HANDLER = ("io.containerd.cri.runtime-handler", "io.kubernetes.cri-o.RuntimeHandler")
_MAX_BUNDLE_BYTES = 1 << 20
_MAX_TEXT = 512


@dataclass(frozen=True, slots=True)
class Identity:
    """The pod of a sandbox; ``None`` for what nothing says."""

    pod_uid: str | None = None
    pod: str | None = None
    handler: str | None = None


def pod_uid_of(cgroup: str) -> str | None:
    """The pod whose control group this is, or is within; ``None`` for any other group."""
    parts = cgroup.split("/")
    if not any("kubepods" in part for part in parts):
        return None
    for part in parts:
        if match := _POD_GROUP.fullmatch(part):
            return match[1].replace("_", "-")
    return None


def read_bundle(root: HostRoot, sandbox_id: str) -> Identity:
    """What the container runtime wrote down when it made the sandbox."""
    for place in _BUNDLES:
        text = root.try_read_text(place.format(sandbox_id), _MAX_BUNDLE_BYTES)
        if text is None:
            continue
        try:
            document = json.loads(text)
        except (ValueError, RecursionError):
            continue
        annotations = document.get("annotations") if isinstance(document, dict) else None
        if not isinstance(annotations, dict):
            continue
        namespace, name = _first(annotations, _NAMESPACE), _first(annotations, _NAME)
        pod = f"{namespace}/{name}" if namespace and name else None
        return Identity(_first(annotations, _UID), pod, _first(annotations, _HANDLER))
    return Identity()


def read_pod_names(root: HostRoot) -> dict[str, str]:
    """``namespace/name`` of each pod of the node by its uid, from the folders of their logs."""
    matches = (_LOG_FOLDER.fullmatch(name) for name in root.list_names(_LOGS))
    return {match[3]: f"{match[1]}/{match[2]}" for match in matches if match}


def _first(annotations: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = annotations.get(key)
        if isinstance(value, str) and value and value.isprintable():
            return value[:_MAX_TEXT]
    return None
