"""KVM as a fact: what lies at /dev/kvm, and how far a VM got on it.

The outcome is a copy of what the native probe says, so that a snapshot can be judged where there is no native
module for this machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.host.devices import KVM, DeviceNode, read_device

if TYPE_CHECKING:
    from kata_node_agent.host.native import KvmProbe
    from kata_node_agent.host.root import HostRoot

# KVM's minor number under the misc devices' major is fixed.
KVM_NUMBER = (10, 232)
# Takes the path of the device as we see it.
Prober = Callable[[str], "KvmProbe"]

# In the order they are taken; "done" is after the last.
STEPS = (
    "open",
    "device",
    "api-version",
    "create-vm",
    "memory",
    "create-vcpu",
    "mmap",
    "registers",
    "run",
    "value",
    "done",
)


@dataclass(frozen=True, slots=True)
class KvmOutcome:
    """How far a VM got; the fields are those of ``native.KvmProbe``, which documents them."""

    step: str
    errno: int = 0
    api_version: int | None = None
    exit_reason: int | None = None
    exit_reason_name: str = ""
    exit_detail: int = 0
    value: int | None = None
    expected: int | None = None
    microseconds: int | None = None
    capabilities: Mapping[str, int] = field(default_factory=dict)
    guest_supported: bool = True

    def reached(self, step: str) -> bool:
        """Whether the step was taken, and did not fail."""
        return self.step in STEPS and STEPS.index(self.step) > STEPS.index(step)


@dataclass(frozen=True, slots=True)
class KvmFacts:
    """The device node, and the outcome of the probe where one was made."""

    node: DeviceNode
    outcome: KvmOutcome | None = None


def read_kvm(root: HostRoot, probe: Prober | None = None) -> KvmFacts:
    """Looks at /dev/kvm and, if it is KVM's device, runs a guest on it.

    Another device in its place is not opened: opening some (watchdogs, tapes) does things.
    """
    node = read_device(root, KVM)
    if node.kind != "char" or (node.major, node.minor) != KVM_NUMBER:
        return KvmFacts(node)
    return KvmFacts(node, _outcome((probe or _native_probe)(str(root.resolve(KVM)))))


def _native_probe(path: str) -> KvmProbe:
    from kata_node_agent.host.native import probe_kvm

    return probe_kvm(path)


def _outcome(probe: KvmProbe) -> KvmOutcome:
    return KvmOutcome(
        step=probe.step.value,
        errno=probe.errno,
        api_version=probe.api_version,
        exit_reason=probe.exit_reason,
        exit_reason_name=probe.exit_reason_name,
        exit_detail=probe.exit_detail,
        value=probe.value,
        expected=probe.expected,
        microseconds=probe.microseconds,
        capabilities=dict(sorted(probe.capabilities.items())),
        guest_supported=probe.guest_supported,
    )
