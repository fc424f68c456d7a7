"""Processes of the node by name, from /proc. Facts only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

# The kernel keeps 15 bytes of a name.
_MAX_NAME_BYTES = 64


def find_pids(root: HostRoot, name: str) -> list[int]:
    """Ids of the processes with this name (``comm``, at most 15 bytes), ascending; empty where /proc may not be read.

    One open and one read a process, relative to an open /proc: a node has thousands, and the way by whole paths costs
    three times as much. A process that ends meanwhile is passed over.
    """
    wanted = name.encode()
    found: list[int] = []
    try:
        proc = os.open(root.resolve("/proc"), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return found
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
            if content.rstrip(b"\n") == wanted:
                found.append(int(entry))
    except OSError:
        pass
    finally:
        os.close(proc)
    return sorted(found)
