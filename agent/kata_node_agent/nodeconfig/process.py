"""The running kubelet: its flags decide over its files. Facts only.

Any pod may name a process ``kubelet``, and all processes of the node are in its /proc: one counts only if it runs as root
and in no PID namespace below the one that this /proc belongs to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import HostError
from kata_node_agent.host.processes import find_pids, is_of_node

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

_COMMAND = "kubelet"
_MAX_COMMAND_LINE_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class KubeletProcess:
    """A kubelet that runs, or ran when it was last looked for.

    Attributes:
        pid: its process id.
        arguments: its flags as given, without the program's name.
    """

    pid: int
    arguments: tuple[str, ...]


def find_kubelet(root: HostRoot, known: KubeletProcess | None = None) -> KubeletProcess | None:
    """The node's kubelet; ``None`` where none runs, or the node's processes are not to be seen.

    Costs one small read a process; two reads in all where ``known`` still runs. A process that ends while it is read is
    passed over.

    Args:
        root: the host.
        known: what an earlier look found.
    """
    if known is not None and (same := _read(root, known.pid)) is not None:
        return same
    # Lowest first, for the same answer each time; the kernel gives no order of age.
    return next((found for pid in find_pids(root, _COMMAND) if (found := _read(root, pid)) is not None), None)


def _read(root: HostRoot, pid: int) -> KubeletProcess | None:
    try:
        status = root.read_text(f"/proc/{pid}/status")
        command_line = root.read_bytes(f"/proc/{pid}/cmdline", _MAX_COMMAND_LINE_BYTES)
    except HostError:
        return None
    if not is_of_node(status):
        return None
    # The arguments of a process that is ending are empty.
    program, *arguments = command_line.decode("utf-8", errors="replace").removesuffix("\0").split("\0")
    if program.rpartition("/")[2] != _COMMAND:
        return None
    return KubeletProcess(pid, tuple(arguments))
