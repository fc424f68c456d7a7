"""How many Kata sandboxes run. For the ceiling's command, which must not lower it below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.host.process_files import ProcessFiles
from kata_node_agent.host.processes import find_pids
from kata_node_agent.sandboxes.census import Census

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

# Who sees one of these sees the node's processes, and not those of a container only.
_KUBELETS = ("kubelet", "hyperkube", "k3s", "kubelite")


def count_sandboxes(root: HostRoot) -> int | None:
    """How many sandboxes have a shim or a VM that is believed; ``None`` where the node's processes cannot be seen.

    A pod whose sandbox is only about to be made is not seen.
    """
    try:
        with ProcessFiles(root) as files:
            sandboxes = len(Census(root).look(files))
    except OSError:
        return None
    return sandboxes if sandboxes or find_pids(root, *_KUBELETS) else None
