"""A pod's amounts as kubelet adds them up: what its cgroup may use, what it asked for, what each container may use. Pure.

Source: Kubernetes 1.37, staging/src/k8s.io/component-helpers/resource (PodLimits, PodRequests), pkg/kubelet/cm
(ResourceConfigForPod), pkg/kubelet/kuberuntime (getMemoryLimit).
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Literal

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Mapping

Role = Literal["init", "sidecar", "main", "ephemeral"]


@dataclass(frozen=True, slots=True)
class Container:
    """A container as its pod's specification has it.

    Attributes:
        name: unique in its pod.
        role: ``sidecar`` is an init container with ``restartPolicy: Always``.
        memory_limit_bytes, memory_request_bytes: ``None`` where none is set.
        hugepages_bytes: limits of huge pages of all sizes together.
        cpu_limit_millicores: ``None`` where none is set.
    """

    name: str
    role: Role = "main"
    memory_limit_bytes: int | None = None
    memory_request_bytes: int | None = None
    hugepages_bytes: int = 0
    cpu_limit_millicores: int | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """What of a pod decides its VM's size.

    Attributes:
        containers: in the order of the specification, init containers and sidecars first.
        memory_limit_bytes, memory_request_bytes, cpu_limit_millicores: set for the pod as a whole
            (``spec.resources``); ``None`` where not.
        overhead_bytes: memory of ``spec.overhead``, which is its RuntimeClass' ``podFixed``.
        overhead_millicores: CPU of the same.
        annotations: the pod's.
    """

    containers: tuple[Container, ...] = ()
    memory_limit_bytes: int | None = None
    memory_request_bytes: int | None = None
    cpu_limit_millicores: int | None = None
    overhead_bytes: int = 0
    overhead_millicores: int = 0
    annotations: Mapping[str, str] = field(default_factory=dict)


def limit_of(pod: Pod, container: Container) -> int:
    """The memory limit that kubelet gives a container, in bytes; 0 for none.

    A container without one gets the whole pod's, where the pod has one: so do ephemeral containers.
    """
    return container.memory_limit_bytes or pod.memory_limit_bytes or 0


def memory_limits_bytes(pod: Pod) -> int:
    """Memory that the pod's limits come to, without overhead: what kubelet tells the container runtime of the sandbox."""
    if pod.memory_limit_bytes is not None:
        return pod.memory_limit_bytes
    return _most(pod, {c.name: c.memory_limit_bytes or 0 for c in pod.containers})


def cpu_limits_millicores(pod: Pod) -> int:
    """CPU that the pod's limits come to, without overhead; 0 for no limit."""
    if pod.cpu_limit_millicores is not None:
        return pod.cpu_limit_millicores
    return _most(pod, {c.name: c.cpu_limit_millicores or 0 for c in pod.containers})


def memory_requests_bytes(pod: Pod) -> int:
    """Memory that the pod requests, without overhead. A limit without a request is one: the API server makes it so."""
    if (request := pod.memory_request_bytes) is None:
        request = pod.memory_limit_bytes
    if request is not None:
        return request
    wanted = {
        c.name: c.memory_request_bytes if c.memory_request_bytes is not None else c.memory_limit_bytes or 0
        for c in pod.containers
    }
    return _most(pod, wanted)


def cgroup_limit_bytes(pod: Pod) -> int | None:
    """The limit that kubelet sets on the pod's cgroup; ``None`` for no limit: one container without one is enough."""
    if pod.memory_limit_bytes is None and not all(
        c.memory_limit_bytes for c in pod.containers if c.role != "ephemeral"
    ):
        return None
    limits = memory_limits_bytes(pod)
    return limits + pod.overhead_bytes if limits else None


def _most(pod: Pod, amounts: Mapping[str, int]) -> int:
    """The most that is wanted at one time: all main containers, or one init container, each beside the sidecars so far."""
    sidecars = most = 0
    for container in pod.containers:
        amount = amounts[container.name]
        if container.role == "sidecar":
            sidecars += amount
            most = max(most, sidecars)
        elif container.role == "init":
            most = max(most, sidecars + amount)
    return max(most, sidecars + sum(amounts[c.name] for c in pod.containers if c.role == "main"))
