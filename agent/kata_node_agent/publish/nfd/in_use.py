"""How many Kata sandboxes run: each has one shim process. For the ceiling's command, which must not lower it below."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

# kata-deploy installs the shim also under names such as containerd-shim-kata-qemu-v2.
_SHIM = re.compile(r"containerd-shim-kata(-[a-z0-9-]+)?-v2")
# Who sees one of these sees the node's processes, and not those of a container only.
_KUBELETS = frozenset({"kubelet", "hyperkube", "k3s", "kubelite"})
_MAX_CMDLINE_BYTES = 64 * 1024


def count_sandboxes(root: HostRoot) -> int | None:
    """How many sandboxes have a shim; ``None`` where the node's processes cannot be seen.

    A pod whose sandbox is only about to be made is not seen.
    """
    sandboxes: set[str] = set()
    kubelet_seen = False
    for name in root.list_names("/proc"):
        if not name.isdecimal():
            continue
        words = (root.try_read_text(f"/proc/{name}/cmdline", _MAX_CMDLINE_BYTES) or "").split("\0")
        program = words[0].partition(" ")[0].rpartition("/")[2]
        if _SHIM.fullmatch(program):
            # A shim that starts another one for its sandbox has the same id.
            place = words.index("-id") + 1 if "-id" in words else 0
            sandboxes.add(words[place] if 0 < place < len(words) else name)
        kubelet_seen = kubelet_seen or program in _KUBELETS
    return len(sandboxes) if sandboxes or kubelet_seen else None
