"""The document of `sandboxes --format json`; the API and the metrics are made of it too, so that none says other numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata_node_agent.sandboxes.model import Sandbox, Unbelieved

SCHEMA = "kata-node-agent/sandboxes/v1"


class Risk(Protocol):
    """What threatens a sandbox, or others by it: a stable reason, words, and what to do."""

    @property
    def reason(self) -> str:
        """CamelCase."""

    @property
    def message(self) -> str:
        """With the numbers."""

    @property
    def remedy(self) -> str:
        """What to do."""


def as_document(
    sandboxes: Sequence[Sandbox],
    unbelieved: Sequence[Unbelieved] = (),
    *,
    host_overhead_bytes: int,
    commitments: Mapping[str, int] | None = None,
    risks: Mapping[str, Sequence[Risk]] | None = None,
) -> dict[str, Any]:
    """The document; what is not known is ``None`` in it.

    Args:
        sandboxes: as the watcher has them.
        unbelieved: as it has them.
        host_overhead_bytes: what is taken for a sandbox whose cost cannot be read.
        commitments: what the account has committed for a sandbox, by id; for the others it is size and host overhead.
        risks: of each sandbox, by id.
    """
    return {
        "schema": SCHEMA,
        "sandboxes": [
            _sandbox(
                sandbox,
                (commitments or {}).get(sandbox.id, commitment_of(sandbox, host_overhead_bytes)),
                (risks or {}).get(sandbox.id, ()),
            )
            for sandbox in sandboxes
        ],
        "unbelieved": [{"pid": one.pid, "claim": one.claim, "why": one.why} for one in unbelieved],
    }


def commitment_of(sandbox: Sandbox, host_overhead_bytes: int) -> int:
    """What a running VM may come to use: all of its memory, and its host overhead as observed, or as given."""
    cost = sandbox.cost
    return sandbox.vm_memory_bytes + (cost.host_overhead_bytes if cost is not None else host_overhead_bytes)


def _sandbox(sandbox: Sandbox, commitment: int, risks: Sequence[Risk]) -> dict[str, Any]:
    cost, charge = sandbox.cost, sandbox.charge
    return {
        "id": sandbox.id,
        "pod": sandbox.pod,
        "pod_uid": sandbox.pod_uid,
        "handler": sandbox.handler,
        "vmm": sandbox.vmm,
        "pid": sandbox.pid,
        "shim_pid": sandbox.shim_pid,
        "base_bytes": sandbox.base_bytes,
        "hotplugged_bytes": sandbox.hotplugged_bytes,
        "vm_memory_bytes": sandbox.vm_memory_bytes,
        "max_bytes": sandbox.max_bytes,
        "virtio_mem_bytes": sandbox.virtio_mem_bytes,
        "size_certainty": sandbox.size_certainty,
        "memory_location": sandbox.memory_location,
        "resident_bytes": cost.resident_bytes if cost else None,
        "host_overhead_bytes": cost.host_overhead_bytes if cost else None,
        "commitment_bytes": commitment,
        "cost": {
            "guest_bytes": cost.guest_bytes,
            "vmm_bytes": cost.vmm_bytes,
            "virtiofsd_bytes": cost.virtiofsd_bytes,
            "shim_bytes": cost.shim_bytes,
            "page_table_bytes": cost.page_table_bytes,
            "guest_swapped_bytes": cost.guest_swapped_bytes,
            "rss_sum_bytes": cost.rss_sum_bytes,
            "guest_huge_bytes": cost.guest_huge_bytes,
        }
        if cost
        else None,
        "charge": {
            "cgroup": charge.cgroup,
            "bytes": charge.bytes,
            "limit_bytes": charge.limit_bytes,
            "file_cache_bytes": charge.file_cache_bytes,
            "kernel_bytes": charge.kernel_bytes,
            "elsewhere": list(charge.elsewhere),
            "elsewhere_bytes": charge.elsewhere_bytes,
            "difference": charge.difference,
        }
        if charge
        else None,
        "cgroup": sandbox.cgroup,
        "notes": list(sandbox.notes),
        "risks": [{"reason": risk.reason, "message": risk.message, "remedy": risk.remedy} for risk in risks],
    }
