"""Which handlers are Kata's, and what the VM of a pod becomes from what the runtime tells of it. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kata_node_agent.capacity import pod
from kata_node_agent.capacity.annotations import with_annotations
from kata_node_agent.capacity.hotplug import Vm
from kata_node_agent.capacity.sizing import forecast

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kata_node_agent.capacity.hotplug import VmSettings
    from kata_node_agent.nri.facts import Container, Sandbox
    from kata_node_agent.nri.pods import Size


def size_for(
    handler: str, settings: Mapping[str, VmSettings], configured: Collection[str], default: VmSettings
) -> Size | None:
    """How big a VM of the handler becomes; ``None`` for one that is not Kata's.

    Args:
        handler: as the runtime names it.
        settings: of the handlers that the runtime's configuration leads to Kata.
        configured: the handlers that are Kata's; empty: those above, and those that are named like it, as a runtime's
            configuration may be where we do not look.
        default: for a handler whose settings are not known.
    """
    found = handler in settings or handler == "kata" or handler.startswith("kata-")
    ours = handler in configured if configured else found
    return size_with(settings.get(handler, default)) if ours else None


def size_with(settings: VmSettings) -> Size:
    """How big a VM with these settings becomes."""

    def size(sandbox: Sandbox, containers: Collection[Container], granted_bytes: int | None) -> int:
        """The sum that kubelet told counts, or that of the containers that we have seen where it is more."""
        told, seen = sandbox.limits, [container.limits for container in containers]
        whole = pod.Container(
            name=sandbox.pod,
            memory_limit_bytes=max(told.memory_bytes or 0, sum(limits.memory_bytes or 0 for limits in seen)),
            hugepages_bytes=max(told.hugepages_bytes, sum(limits.hugepages_bytes for limits in seen)),
            cpu_limit_millicores=told.cpu_millicores,
        )
        here, _ = with_annotations(settings, sandbox.annotations)
        granted = None if granted_bytes is None else Vm(granted_bytes)
        wanted = pod.Pod(containers=(whole,))
        # A pod's own annotation whose effect nobody documents may ask for more than the settings do, not for less.
        plain = replace(here, memory_overhead_bytes=None)
        return max(forecast(each, wanted, granted).final_bytes for each in {here, plain})

    return size
