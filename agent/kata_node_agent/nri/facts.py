"""What the runtime tells of a pod and of a container, as facts. Numbers that make no sense are "not known"."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.pb import nri_pb2

# No machine has more; a VM with it is still within what the account takes.
_MAX_BYTES = 1 << 47
# What a runtime gives where there is no limit.
_UNLIMITED = (0, -1)
_STOPPED = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a container, or the sum over a pod's containers.

    Attributes:
        memory_bytes: ``None`` for no limit.
        hugepages_bytes: of all sizes.
        cpu_millicores: ``None`` for no limit.
    """

    memory_bytes: int | None = None
    hugepages_bytes: int = 0
    cpu_millicores: int | None = None


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A pod's sandbox.

    Attributes:
        id: the runtime's.
        uid: the pod's, as Kubernetes has it.
        pod: ``namespace/name``.
        handler: the runtime's name for how it is run; empty for the default one.
        annotations: the pod's.
        limits: of the whole pod without overhead, as kubelet told the runtime; all empty where it did not.
        overhead_bytes: RuntimeClass ``overhead.podFixed``; ``None`` where not known.
    """

    id: str
    uid: str = ""
    pod: str = ""
    handler: str = ""
    annotations: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = Limits()
    overhead_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Container:
    """A container that is not the pause container."""

    id: str
    sandbox: str
    name: str
    limits: Limits
    stopped: bool = False


def sandbox_of(message: nri_pb2.PodSandbox) -> Sandbox:
    """The facts in a message."""
    linux = message.linux
    return Sandbox(
        id=printable(message.id, 200),
        uid=printable(message.uid, 200),
        pod=printable(f"{message.namespace}/{message.name}", 400),
        handler=printable(message.runtime_handler, 200),
        annotations=dict(message.annotations),
        limits=limits_of(linux.pod_resources),
        # Told and without memory is a RuntimeClass without it: that is known, and the worst there is.
        overhead_bytes=limits_of(linux.pod_overhead).memory_bytes
        or (0 if linux.HasField("pod_overhead") else None),
    )


def container_of(message: nri_pb2.Container) -> Container:
    """The facts in a message."""
    return Container(
        id=printable(message.id, 200),
        sandbox=printable(message.pod_sandbox_id, 200),
        name=printable(message.name, 200),
        limits=limits_of(message.linux.resources),
        stopped=message.state == _STOPPED,
    )


def limits_of(message: nri_pb2.LinuxResources) -> Limits:
    """The limits in a message."""
    memory, cpu = message.memory.limit.value, message.cpu
    millicores = 1000 * cpu.quota.value // cpu.period.value if cpu.period.value > 0 else 0
    return Limits(
        memory_bytes=memory if memory not in _UNLIMITED and 0 < memory <= _MAX_BYTES else None,
        hugepages_bytes=sum(page.limit for page in message.hugepage_limits if page.limit <= _MAX_BYTES),
        cpu_millicores=millicores if 0 < millicores <= _MAX_BYTES else None,
    )
