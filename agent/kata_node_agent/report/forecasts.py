"""What VMs that run become, and what podFixed was meant to cover, by what lies on the node: also where nobody was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.hotplug import Vm
from kata_node_agent.capacity.sizing import forecast
from kata_node_agent.dataclass import dataclass
from kata_node_agent.host.allocations import read_allocations, signature
from kata_node_agent.report.bundle import Bundle, read_bundle
from kata_node_agent.report.risk_facts import becomes, handler_of, pod_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kata_node_agent.capacity.hotplug import VmSettings
    from kata_node_agent.host.allocations import PodAllocation
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.report.risk_facts import PodFacts
    from kata_node_agent.sandboxes.model import Sandbox


@dataclass(frozen=True, slots=True)
class Expected:
    """Of one sandbox, in bytes.

    Attributes:
        final_bytes: memory of its VM in the end; 0 where its pod's limits are not known.
        pod_fixed_bytes: overhead that the pod was admitted with; ``None`` where nothing says it.
        counted_bytes: what its containers' limits come to, or their requests where that is more; the same.
    """

    final_bytes: int = 0
    pod_fixed_bytes: int | None = None
    counted_bytes: int | None = None


# A sandbox's record is there before its VM; where it is not by then, it is looked for some times more.
_BUNDLE_LOOKS = 5


@dataclass(frozen=True, slots=True)
class _Made:
    """What was made of a sandbox, and of what: most of the time nothing has changed, for hundreds of them."""

    sandbox: Sandbox
    allocation: PodAllocation | None
    handlers: Mapping[str, VmSettings]
    usual: VmSettings
    bundle: Bundle
    looks: int
    expected: Expected

    def stands(
        self,
        sandbox: Sandbox,
        allocation: PodAllocation | None,
        handlers: Mapping[str, VmSettings],
        usual: VmSettings,
    ) -> bool:
        """Whether it need not be made again."""
        return (
            sandbox is self.sandbox
            and (self.bundle != Bundle() or self.looks >= _BUNDLE_LOOKS)
            and handlers is self.handlers
            and allocation == self.allocation
            and usual == self.usual
        )

    def bundle_of(self, sandbox: Sandbox) -> tuple[Bundle, int]:
        """The record of the sandbox, if this is the same one, and how often it was looked for."""
        same = sandbox.started == self.sandbox.started
        return (self.bundle, self.looks) if same else (Bundle(), 0)


class Forecaster:
    """Looks at what kubelet and the container runtime wrote down. Blocking, and not for several threads at once."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        self._made: dict[str, _Made] = {}
        self._allocations: Mapping[str, PodAllocation] = {}
        self._signature: tuple[int, ...] | None = None

    def look(
        self,
        sandboxes: Iterable[Sandbox],
        handlers: Mapping[str, VmSettings],
        kubelet_root: str,
        usual: VmSettings,
    ) -> dict[str, Expected]:
        """By sandbox, what is to be expected of it.

        Args:
            sandboxes: as they were seen.
            handlers: Kata's settings by handler.
            kubelet_root: kubelet's folder.
            usual: for a handler whose settings were not found.
        """
        self._read_allocations(kubelet_root)
        made: dict[str, _Made] = {}
        for sandbox in sandboxes:
            allocation = self._allocations.get(sandbox.pod_uid or "")
            before = self._made.get(sandbox.id)
            if before is not None and before.stands(sandbox, allocation, handlers, usual):
                made[sandbox.id] = before
                continue
            bundle, looks = before.bundle_of(sandbox) if before is not None else (Bundle(), 0)
            if bundle == Bundle():
                bundle, looks = read_bundle(self._root, sandbox.id), looks + 1
            known = pod_facts(sandbox, bundle, allocation)
            expected = Expected(
                final_bytes=_final_bytes(sandbox, known, handlers, usual),
                pod_fixed_bytes=known.overhead_bytes,
                counted_bytes=None
                if known.limits_bytes is None
                else max(known.limits_bytes, known.requests_bytes or 0),
            )
            made[sandbox.id] = _Made(sandbox, allocation, handlers, usual, bundle, looks, expected)
        self._made = made
        return {sandbox: each.expected for sandbox, each in made.items()}

    def _read_allocations(self, kubelet_root: str) -> None:
        found = signature(self._root, kubelet_root)
        if found == self._signature:
            return
        read = read_allocations(self._root, kubelet_root)
        # One that is there and not understood takes nothing from what is promised to a VM.
        if read is not None or found is None:
            self._allocations = read or {}
        self._signature = found


def _final_bytes(
    sandbox: Sandbox, known: PodFacts, handlers: Mapping[str, VmSettings], usual: VmSettings
) -> int:
    settings = handlers.get(handler_of(sandbox, handlers) or "")
    if settings is not None:
        wanted = becomes(sandbox, settings, known.pod)
    elif known.pod is not None and sandbox.vmm == "qemu":
        # Whether it was sized at boot is not known: then the limits are in what it booted with already.
        wanted = forecast(usual, known.pod, Vm(sandbox.vm_memory_bytes))
    else:
        wanted = None
    return wanted.final_bytes if wanted is not None else 0
