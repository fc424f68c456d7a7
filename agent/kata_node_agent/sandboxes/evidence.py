"""Whether a process is what its command line claims. Pure.

Pods' processes are in the node's /proc too, and may call themselves anything. A claim is believed where something that a
pod cannot make stands behind it; what is not believed is listed, never counted.
"""

from __future__ import annotations

from enum import IntEnum

from kata_node_agent.dataclass import dataclass

MAY_NOT_LOOK = "we may not look into it, and so cannot tell whether it is a VM of the node (CAP_SYS_PTRACE)"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a process comes from; ``None`` where it cannot be seen.

    Attributes:
        user: its effective user.
        own_pid_namespace: it lives in a PID namespace below the one that /proc belongs to, as containers do.
        host_mounts: its mount namespace is the one of the node's first process.
        closed: we lack the right to look into it, so what it does not show says nothing.
        in_container: its control group is one of a pod's, and not one of the sandbox that it claims.
        folder_of_root: the sandbox that it claims has a folder of Kata's that belongs to root.
        pid_file: the VM's pid file names it.
        child_of_sandbox: a process of the same sandbox that is believed started it.
        shares_guest_memory: it maps the memory of the sandbox's VM, which only the VMM can have given it.
    """

    user: int | None
    own_pid_namespace: bool | None
    host_mounts: bool | None
    folder_of_root: bool = False
    pid_file: bool = False
    child_of_sandbox: bool = False
    shares_guest_memory: bool = False
    in_container: bool = False
    closed: bool = False


class Strength(IntEnum):
    """How good the evidence is; where two processes claim to be one VM, the better counts."""

    NONE = 0
    FOLDER = 1
    HOST = 2
    CHILD = 3
    PID_FILE = 4


def judge(origin: Origin) -> tuple[Strength, str]:
    """How good the evidence for a claim is, and why there is none."""
    if origin.shares_guest_memory:
        return Strength.CHILD, ""
    if origin.own_pid_namespace is None or origin.user is None:
        return Strength.NONE, "its owner and its namespaces cannot be read"
    if origin.own_pid_namespace and not origin.child_of_sandbox:
        return Strength.NONE, "it runs in a container"
    if origin.pid_file and origin.folder_of_root:
        return Strength.PID_FILE, ""
    if origin.child_of_sandbox:
        return Strength.CHILD, ""
    if origin.user != 0:
        return Strength.NONE, f"it runs as user {origin.user}, and no process of the sandbox started it"
    if origin.host_mounts:
        return Strength.HOST, ""
    if origin.in_container:
        return Strength.NONE, "it runs in a container that sees the host's processes"
    if origin.folder_of_root:
        return Strength.FOLDER, ""
    if origin.closed:
        return Strength.NONE, MAY_NOT_LOOK
    return Strength.NONE, "it has mounts of its own, and its sandbox has no folder that belongs to root"


def parse_owner(status: str) -> tuple[int | None, bool | None]:
    """The effective user, and whether it lives in a PID namespace below that of /proc, of a /proc/PID/status."""
    user: int | None = None
    own: bool | None = None
    for line in status.splitlines():
        name, _, rest = line.partition(":")
        values = rest.split()
        # A process may put a newline into its name, but not into the line: the kernel escapes it.
        if name == "Uid" and len(values) >= 2 and values[1].isdecimal():
            user = int(values[1])
        elif name == "NSpid" and values:
            own = len(values) > 1
    return user, own
