"""How many Kata sandboxes run. For the ceiling's command, which must not lower it below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.host.process_files import ProcessFiles
from kata_node_agent.host.processes import shows_node
from kata_node_agent.sandboxes.census import Census

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot


def count_sandboxes(root: HostRoot) -> int | None:
    """How many sandboxes have a shim or a VM that is believed; ``None`` where the node's processes cannot be seen.

    A pod whose sandbox is only about to be made is not seen.
    """
    census = Census(root)
    try:
        with ProcessFiles(root) as files:
            sandboxes = len(census.look(files))
    except OSError:
        return None
    if census.closed:
        # Whose sandbox each of these is, if any, is not known.
        return None
    return sandboxes if sandboxes or shows_node(root) else None
