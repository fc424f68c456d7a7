"""Documents of a node as the page is given them, for tests of the page alone."""

from __future__ import annotations

from typing import Any

from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.publish.page import Content

MIB, GIB = 1 << 20, 1 << 30
NOW = 1_800_000_000.0


def sandbox(number: int, **changes: Any) -> dict[str, Any]:
    """One entry of the document of `sandboxes`."""
    nominal = changes.get("vm_memory_bytes", 2 * GIB)
    return {
        "id": f"{number:064x}",
        "pod": f"default/web-{number}",
        "pod_uid": f"uid-{number}",
        "handler": "kata",
        "vmm": "qemu",
        "pid": 4000 + number,
        "shim_pid": None,
        "base_bytes": nominal,
        "hotplugged_bytes": 0,
        "vm_memory_bytes": nominal,
        "max_bytes": None,
        "virtio_mem_bytes": 0,
        "memory_location": "anonymous",
        "resident_bytes": nominal // 3,
        "host_overhead_bytes": 60 * MIB,
        "commitment_bytes": nominal + 60 * MIB,
        "cost": None,
        "charge": None,
        "cgroup": None,
        "notes": [],
        "risks": [],
        **changes,
    }


def risk(
    reason: str = "CgroupLimitBelowVm",
    message: str = "the kernel kills the VM 1.7Gi before the guest is full",
) -> dict[str, str]:
    return {"reason": reason, "message": message, "remedy": "raise overhead.podFixed by 1756Mi"}


def charge(limit: int) -> dict[str, Any]:
    return {"cgroup": "/kubepods/x", "bytes": GIB, "limit_bytes": limit}


def sandboxes(*found: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The document of `sandboxes`."""
    return {
        "schema": "kata-node-agent/sandboxes/v1",
        "sandboxes": list(found),
        "unbelieved": [],
        "problems": [],
        **changes,
    }


def status(**changes: Any) -> pb.Status:
    """Of a node of 32Gi with two VMs."""
    return pb.Status(
        **{
            "version": "0.1.0",
            "pid": 4711,
            "started_unix_seconds": NOW - 7500,
            "verdict": "eligible",
            "verdict_since_unix_seconds": NOW - 7500,
            "profile": "openshift",
            "mode": "enforce",
            "resource": "katacontainers.io/sandbox",
            "slots": pb.Slots(
                total=14,
                healthy=11,
                in_use=2,
                limited_by="available_memory",
                limited_by_message="18.6Gi free of 22.8Gi available memory above eviction and margin / 2.1Gi a VM",
            ),
            "kubelet": pb.Kubelet(
                registered=True, stream_open=True, since_unix_seconds=NOW - 7500, registrations=1
            ),
            "nri": pb.Nri(
                state="synchronized", connected=True, runtime="cri-o v1.33.4", since_unix_seconds=NOW - 7500
            ),
            "memory": pb.Memory(
                capacity_bytes=32 * GIB, allocatable_bytes=30 * GIB, cost_of_one_bytes=2 * GIB + 60 * MIB
            ),
            "account": pb.Account(
                terms=[
                    pb.Term(
                        name="allocatable_memory",
                        budget_bytes=24 * GIB,
                        committed_bytes=4 * GIB,
                        free_bytes=20 * GIB,
                    ),
                    pb.Term(
                        name="available_memory",
                        budget_bytes=22 * GIB,
                        committed_bytes=4 * GIB,
                        free_bytes=18 * GIB,
                    ),
                    pb.Term(name="hugepages"),
                ],
                limited_by="available_memory",
                free_bytes=18 * GIB,
                committed_bytes=4 * GIB,
                sandboxes=2,
                devices=2,
                other_pods_bytes=6 * GIB,
                share=1.0,
            ),
            "history": [pb.Change(unix_seconds=NOW - 7500, what="verdict", message="eligible")],
            **changes,
        }
    )


def verdict(*found: dict[str, Any], word: str = "eligible") -> dict[str, Any]:
    """The document of `check`."""
    return {
        "schema": "kata-node-agent/verdict/v1",
        "verdict": word,
        "profile": "openshift",
        "checks": list(found),
    }


def check(name: str = "kvm.device", status: str = "pass", **changes: Any) -> dict[str, Any]:
    return {
        "id": name,
        "status": status,
        "required": True,
        "reason": "Ok",
        "message": "it is there",
        "evidence": {},
        "remedy": "",
        **changes,
    }


def report(**changes: Any) -> dict[str, Any]:
    """The document of `report`, as far as the page reads it."""
    return {
        "capacity": {"memory_bytes": 32 * GIB, "hugepages_bytes": 0},
        "reserved": {"system": {"memory_bytes": 2 * GIB - 100 * MIB}, "kube": {"memory_bytes": 0}},
        "eviction_hard": {"memory_available_bytes": 100 * MIB},
        "allocatable": {"memory_bytes": 30 * GIB},
        "usage": {"system": {"working_set_bytes": GIB}},
        "available": {"until_eviction_bytes": 25 * GIB},
        "findings": [],
        "problems": [],
        **changes,
    }


def decision(*, allowed: bool = True, pod: str = "default/web-1", **changes: Any) -> pb.NotedDecision:
    """One entry of the ledger's history."""
    reason = "Fits" if allowed else "NotEnoughMemory"
    return pb.NotedDecision(
        unix_seconds=NOW - 60,
        what="admit",
        sandbox="5a" * 32,
        pod=pod,
        decision=pb.Decision(
            **{"allowed": allowed, "reason": reason, "message": "it needs 2.1Gi; 18Gi are free", **changes}
        ),
    )


def content(**changes: Any) -> Content:
    """A node where all is well."""
    return Content(
        **{
            "node": "worker-3",
            "unix_seconds": NOW,
            "status": status(),
            "verdict": verdict(check(), check("vhost.net", "warn", required=False, remedy="load it")),
            "report": report(),
            "sandboxes": sandboxes(sandbox(1), sandbox(2)),
            "decisions": [decision()],
            **changes,
        }
    )


EMPTY = Content(node="worker-3", unix_seconds=NOW)
