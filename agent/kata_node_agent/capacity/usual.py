"""What a VM of the usual size is: as Kata's settings have it, where our own configuration does not say. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.capacity.hotplug import VmSettings

T = TypeVar("T")

# Handlers of this name are the usual ones: Kata's own RuntimeClass, and OpenShift's.
USUAL_HANDLER = "kata"
# Kata's default_memory, and what the requirements give for the processes beside a VM.
DEFAULT_VM_BYTES = 2 << 30
DEFAULT_OVERHEAD_BYTES = 60 << 20
# A percentile that moves by less is the same: slots need not follow it.
_STEP_BYTES = 4 << 20


def usual(of: Mapping[str, T]) -> T | None:
    """Of the usual handler where it is there, else of the first one by name; ``None`` where there is none."""
    if USUAL_HANDLER in of:
        return of[USUAL_HANDLER]
    return next((of[name] for name in sorted(of)), None)


def usual_vm_bytes(configured: int | None, handlers: Mapping[str, VmSettings]) -> int:
    """Memory of a VM at boot: what is configured, else Kata's default_memory of the usual handler whose VMs are here."""
    if configured is not None:
        return configured
    settings = usual({name: each for name, each in handlers.items() if each.runs_here})
    return settings.default_memory_bytes if settings is not None else DEFAULT_VM_BYTES


def usual_overhead_bytes(configured: int | None, observed: Mapping[str, int]) -> int:
    """The host's processes beside it: what is configured, else the p99 that was observed for the usual handler."""
    if configured is not None:
        return configured
    seen = usual(observed)
    return -(-seen // _STEP_BYTES) * _STEP_BYTES if seen is not None else DEFAULT_OVERHEAD_BYTES
