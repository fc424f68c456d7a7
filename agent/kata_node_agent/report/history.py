"""What of a node's use is kept over time, for advice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.usage import outside_pods_bytes
from kata_node_agent.host.cgroups import read_cgroups
from kata_node_agent.host.meminfo import read_meminfo
from kata_node_agent.nodeconfig.node import read_node
from kata_node_agent.report.use import group_names, memory_use

if TYPE_CHECKING:
    from kata_node_agent.config.schema import KubeletConfig
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.kubelet import KubeletSettings

# The file in state_dir, and the figure that the reservation has to cover.
HISTORY_NAME = "system.series"
OUTSIDE = "outside_pods"
FIGURES = (OUTSIDE, "system_working_set", "system_rss", "pods_working_set", "kata_overhead")


def sample(root: HostRoot, ours: KubeletConfig, known: KubeletSettings | None) -> dict[str, int | None]:
    """The figures now, in bytes; ``None`` where one is not known.

    Raises:
        HostError, QuantityError: as `read_node`.
    """
    node = read_node(root, ours, known)
    names = group_names(root, node.settings, processes=False)
    use = memory_use(node, read_meminfo(root), read_cgroups(root, names, each_pod=False))
    figures = (
        outside_pods_bytes(use),
        use.system_working_set_bytes,
        use.system_rss_bytes,
        use.pods_working_set_bytes,
        use.kata_overhead_bytes,
    )
    return dict(zip(FIGURES, figures, strict=True))
