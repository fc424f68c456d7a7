"""What keeps us from seeing all VMs: said, as a node that looks empty for want of rights is not empty. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMED = 5


def closed_error(pids: Sequence[int], *, as_root: bool) -> HostError:
    """Processes that say they belong to VMs, and that we may not look into.

    Args:
        pids: of these, one at the least.
        as_root: we run as root already.
    """
    number, named = len(pids), ", ".join(map(str, pids[:_NAMED]))
    who = "1 process that claims" if number == 1 else f"{number} processes that claim"
    more = f" and {number - _NAMED} more" if number > _NAMED else ""
    remedy = "run this as root"
    if as_root:
        remedy = (
            "CAP_SYS_PTRACE is missing, or a security module forbids it: give the service or container that capability, "
            "on SELinux also the module of docs/install.md"
        )
    return HostError(
        f"cannot look into {who} to belong to Kata VMs, for want of rights: pid {named}{more}",
        hint=remedy,
        reason="SandboxesUnreadable",
    )


def namespace_error() -> HostError:
    """Only processes of a PID namespace below the node's are seen, as in a container."""
    return HostError(
        "the node's processes cannot be seen from here, only those of this PID namespace: VMs outside of it are not counted",
        hint="in a container share the node's PID namespace (hostPID: true; podman --pid=host), or mount the node's /proc "
        "below host_root",
        reason="ForeignPidNamespace",
    )
