"""What VMs that run become, and what podFixed was meant to cover, by what lies on the node: also where nobody was asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.hotplug import Vm
from kata_node_agent.capacity.sizing import forecast
from kata_node_agent.dataclass import dataclass
from kata_node_agent.host.allocations import read_allocations, signature
from kata_node_agent.report.bundle import Bundle, read_bundle
from kata_node_agent.report.risk_facts import becomes, pod_facts

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


class Forecaster:
    """Looks at what kubelet and the container runtime wrote down. Blocking, and not for several threads at once."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        self._bundles: dict[tuple[str, int], Bundle] = {}
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
        bundles: dict[tuple[str, int], Bundle] = {}
        found: dict[str, Expected] = {}
        for sandbox in sandboxes:
            key = (sandbox.id, sandbox.started)
            bundle = self._bundles.get(key) or read_bundle(self._root, sandbox.id)
            if bundle != Bundle():
                bundles[key] = bundle
            known = pod_facts(sandbox, bundle, self._allocations.get(sandbox.pod_uid or ""))
            found[sandbox.id] = Expected(
                final_bytes=_final_bytes(sandbox, known, handlers, usual),
                pod_fixed_bytes=known.overhead_bytes,
                counted_bytes=None
                if known.limits_bytes is None
                else max(known.limits_bytes, known.requests_bytes or 0),
            )
        self._bundles = bundles
        return found

    def _read_allocations(self, kubelet_root: str) -> None:
        found = signature(self._root, kubelet_root)
        if found is None or found != self._signature:
            self._allocations = read_allocations(self._root, kubelet_root) or {}
            self._signature = found


def _final_bytes(
    sandbox: Sandbox, known: PodFacts, handlers: Mapping[str, VmSettings], usual: VmSettings
) -> int:
    settings = handlers.get(sandbox.handler or "")
    if settings is None and sandbox.handler is None and len(handlers) == 1:
        # Nobody says which, and there is one.
        (settings,) = handlers.values()
    if settings is not None:
        wanted = becomes(sandbox, settings, known.pod)
    elif known.pod is not None and sandbox.vmm == "qemu":
        # Whether it was sized at boot is not known: then the limits are in what it booted with already.
        wanted = forecast(usual, known.pod, Vm(sandbox.vm_memory_bytes))
    else:
        wanted = None
    return wanted.final_bytes if wanted is not None else 0
