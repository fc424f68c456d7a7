"""What of a node's use is kept over time, for advice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.host.cgroups import read_cgroups
from kata_node_agent.nodeconfig.memory import read_budget
from kata_node_agent.report.use import group_names

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

    Args:
        root: the host.
        ours: our own configuration about kubelet.
        known: kubelet's settings, where they were read before: which groups are meant changes with them only.

    Raises:
        HostError, QuantityError: as `read_budget`.
    """
    settings = known if known is not None else read_budget(root, ours)[1]
    groups = read_cgroups(root, group_names(root, settings), units=False, each_pod=False)
    whole, pods, system = groups.root, groups.pods, groups.system
    outside = None
    if whole is not None and whole.working_set_bytes is not None:
        # Before its first pod kubelet has made no group for them.
        outside = max(0, whole.working_set_bytes - (pods.working_set_bytes or 0 if pods is not None else 0))
    return {
        OUTSIDE: outside,
        "system_working_set": system.working_set_bytes if system is not None else None,
        "system_rss": system.rss_bytes if system is not None else None,
        "pods_working_set": pods.working_set_bytes if pods is not None else None,
        "kata_overhead": groups.kata_overhead.working_set_bytes if groups.kata_overhead is not None else None,
    }
