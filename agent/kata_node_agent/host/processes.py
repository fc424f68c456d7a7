"""Processes of the node by name, from /proc. Facts only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

# The kernel keeps 15 bytes of a name.
_MAX_NAME_BYTES = 64


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


def is_of_node(status: str) -> bool:
    """Whether the process of this /proc/PID/status is the node's own, and not one of a pod that took a name of the node's.

    It runs as root, and in no PID namespace below the one that this /proc belongs to.
    """
    fields = {name: value.split() for name, _, value in (line.partition(":") for line in status.splitlines())}
    # Uid: real, effective, saved, file system. NSpid: one number for each PID namespace, the outermost first.
    return fields.get("Uid", [])[1:2] == ["0"] and len(fields.get("NSpid", [""])) == 1
