"""Kubelet's memory settings from its KubeletConfiguration file.

The file is YAML or JSON of a foreign program: it may be absent, torn or full of surprises. Whatever cannot be used falls
back to kubelet's default, and the fallback is said (`KubeletSettings.problem`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kata_node_agent.capacity.allocatable import parse_percentage
from kata_node_agent.errors import AgentError, HostError
from kata_node_agent.quantity import parse_bytes

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

# RHCOS, then kubeadm. Sources: machine-config-operator's kubelet.service; the kubeadm documentation.
USUAL_FILES = (Path("/etc/kubernetes/kubelet.conf"), Path("/var/lib/kubelet/config.yaml"))
# Kubelet's default for evictionHard. Source: Kubernetes documentation, "Node-pressure Eviction".
DEFAULT_EVICTION_HARD_MEMORY = "100Mi"
_MAX_FILE_BYTES = 1024 * 1024
# KubeletConfiguration is a handful of levels deep.
_MAX_DEPTH = 50


@dataclass(frozen=True, slots=True)
class KubeletSettings:
    """Memory that kubelet keeps from pods.

    Attributes:
        system_reserved_bytes: systemReserved.memory.
        kube_reserved_bytes: kubeReserved.memory.
        eviction_hard_memory: evictionHard memory.available, an amount or a percentage; empty for none.
        origin: the file that was read, or ``kubelet's defaults``.
        problem: why a file that exists was not used; empty when all is well.
    """

    system_reserved_bytes: int = 0
    kube_reserved_bytes: int = 0
    eviction_hard_memory: str = DEFAULT_EVICTION_HARD_MEMORY
    origin: str = "kubelet's defaults"
    problem: str = ""


def read_kubelet_settings(root: HostRoot, file: Path | None = None) -> KubeletSettings:
    """Kubelet's settings from ``file``, or from the first of the usual places that is there.

    Never raises for what the file contains or that it cannot be read: see `KubeletSettings.problem`.
    """
    problem = ""
    for path in USUAL_FILES if file is None else (file,):
        try:
            content = root.read_bytes(path, _MAX_FILE_BYTES)
        except HostError as error:
            if file is not None or not isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
                problem = problem or error.message
            continue
        try:
            return parse_kubelet_settings(content, str(path))
        except AgentError as error:
            # With kubeadm, kubelet's credentials have the name that its settings have on RHCOS.
            if file is not None or error.reason != "Kubeconfig":
                problem = problem or f"{root.resolve(path)}: {error.message}"
    return KubeletSettings(problem=problem)


def parse_kubelet_settings(content: bytes, origin: str) -> KubeletSettings:
    """The settings in a KubeletConfiguration document.

    Raises:
        HostError: neither YAML nor JSON, or not a KubeletConfiguration.
        QuantityError: a reservation or threshold is no amount.
    """
    document = _parse_document(content)
    if not isinstance(document, dict) or document.get("kind") != "KubeletConfiguration":
        other = isinstance(document, dict) and document.get("kind") == "Config"
        reason = "Kubeconfig" if other else "KubeletConfigurationInvalid"
        raise HostError("not a KubeletConfiguration", reason=reason)
    hard = _mapping(document, "evictionHard")
    # A map that is set replaces kubelet's whole default: without memory.available in it there is no threshold.
    threshold = DEFAULT_EVICTION_HARD_MEMORY if not hard else hard.get("memory.available", "")
    if hard and not threshold and document.get("mergeDefaultEvictionSettings") in (True, "true"):
        threshold = DEFAULT_EVICTION_HARD_MEMORY
    if threshold.endswith("%"):
        parse_percentage(threshold)
    elif threshold:
        parse_bytes(threshold)
    return KubeletSettings(
        system_reserved_bytes=parse_bytes(_mapping(document, "systemReserved").get("memory", "0")),
        kube_reserved_bytes=parse_bytes(_mapping(document, "kubeReserved").get("memory", "0")),
        eviction_hard_memory=threshold,
        origin=origin,
    )


def _parse_document(content: bytes) -> object:
    text = content.decode("utf-8", errors="replace")
    try:
        # JSON first: it is YAML too, and does not need the YAML library in memory.
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    import yaml

    # Base loaders leave every scalar a text: no tag of a hostile file runs a constructor, `<<` merges nothing. The one in
    # C is not in every build of the library.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        # The C loader recurses without a bound when it composes nodes, and would end the process; events do not.
        depth = 0
        for event in yaml.parse(text, Loader=loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:
                raise HostError(f"nested deeper than {_MAX_DEPTH}", reason="KubeletConfigurationInvalid")
        return yaml.load(text, Loader=loader)  # noqa: S506 - see above
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        line = " ".join(str(error).split())
        raise HostError(f"neither YAML nor JSON: {line}", reason="KubeletConfigurationInvalid") from error


def _mapping(document: dict[object, object], key: str) -> dict[str, str]:
    """A map of texts in the document; a number is taken as its text, as kubelet's own reader does for quantities."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise HostError(f"{key} is not a map", reason="KubeletConfigurationInvalid")
    return {str(name): str(amount) for name, amount in value.items() if isinstance(amount, str | int | float)}
