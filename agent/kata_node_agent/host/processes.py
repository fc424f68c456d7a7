"""Processes of the node by name, from /proc. Facts only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

# The kernel keeps 15 bytes of a name.
_MAX_NAME_BYTES = 64
# Who sees one of these sees the node's processes: a node may be a container itself.
_KUBELETS = ("kubelet", "hyperkube", "k3s", "kubelite")
# The initial PID namespace; source: PROC_PID_INIT_INO (0xEFFFFFFC) in Linux' include/linux/proc_ns.h.
_INITIAL = f"pid:[{0xEFFFFFFC}]"


def find_pids(root: HostRoot, *names: str) -> list[int]:
    """Ids of the processes with these names (``comm``, at most 15 bytes); empty where /proc may not be read.

    In the order of the names, then ascending.

    One open and one read a process, relative to an open /proc: a node has thousands, and the way by whole paths costs
    three times as much. A process that ends meanwhile is passed over.
    """
    wanted = {name.encode(): place for place, name in enumerate(names)}
    found: list[tuple[int, int]] = []
    try:
        proc = os.open(root.resolve("/proc"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        for entry in os.listdir(proc):
            if not (entry.isascii() and entry.isdigit()):
                continue
            try:
                # O_NONBLOCK: a FIFO in a tree that is no /proc must not hang us.
                comm = os.open(f"{entry}/comm", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=proc)
                try:
                    content = os.read(comm, _MAX_NAME_BYTES)
                finally:
                    os.close(comm)
            except OSError:
                continue
            if (place := wanted.get(content.rstrip(b"\n"))) is not None:
                found.append((place, int(entry)))
    except OSError:
        pass
    finally:
        os.close(proc)
    return [pid for _, pid in sorted(found)]


def shows_node(root: HostRoot) -> bool | None:
    """Whether this /proc shows the node's processes, and not those of a PID namespace below the node's only.

    ``None`` where nothing says it, as in a recorded tree.
    """
    # Whoever may not look into its first process sees its own namespace, or the threads of the kernel.
    first, ours = _namespace(root, "1"), _namespace(root, "self")
    if _INITIAL in {first, ours if first is None else None}:
        return True
    if first is None and root.try_read_text("/proc/2/comm", _MAX_NAME_BYTES) == "kthreadd\n":
        return True
    if find_pids(root, *_KUBELETS):
        return True
    return None if first is None and ours is None else False


def _namespace(root: HostRoot, process: str) -> str | None:
    try:
        return os.readlink(root.resolve(f"/proc/{process}/ns/pid"))
    except OSError:
        return None


def is_of_node(status: str) -> bool:
    """Whether the process of this /proc/PID/status is the node's own, and not one of a pod that took a name of the node's.

    It runs as root, and in no PID namespace below the one that this /proc belongs to.
    """
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    # Uid: real, effective, saved, file system. NSpid: one number for each PID namespace, the outermost first.
    return fields.get("Uid", [])[1:2] == ["0"] and len(fields.get("NSpid", [""])) == 1
