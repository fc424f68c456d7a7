"""What pods without a VM claim of the node's memory: what they request and what they hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import OtherPod
from kata_node_agent.host.allocations import read_allocations
from kata_node_agent.host.cgroup_reader import GroupReader
from kata_node_agent.host.cgroups import read_cgroups
from kata_node_agent.host.machine import KUBELET_ROOT
from kata_node_agent.report.use import group_names
from kata_node_agent.sandboxes.identity import read_pod_names

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kata_node_agent.host.allocations import PodAllocation
    from kata_node_agent.host.cgroup_mounts import CgroupMounts
    from kata_node_agent.host.cgroup_reader import Group
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.kubelet import KubeletSettings


def read_other_pods(
    root: HostRoot, settings: KubeletSettings, mounts: CgroupMounts, without: Collection[str] = ()
) -> Mapping[str, OtherPod]:
    """By uid, the pods that have a control group. Blocking: two small files a pod.

    Kubelet's record of a pod outlives its group, as the pod does when it has completed; it claims nothing then.

    Args:
        root: the host.
        settings: kubelet's.
        mounts: of the control groups.
        without: uids of pods with a VM.
    """
    names = group_names(root, settings)
    cgroups = read_cgroups(root, names, mounts, units=False, each_pod=True)
    allocations = read_allocations(root, settings.text("rootDir") or KUBELET_ROOT) or {}
    reader = GroupReader(root, mounts)
    pod_names = read_pod_names(root)
    found: dict[str, OtherPod] = {}
    for pod in cgroups.pod_groups:
        if pod.uid in without:
            continue
        request = requested_bytes(allocations[pod.uid]) if pod.uid in allocations else None
        if request is None and pod.quality == "guaranteed":
            # Requests are limits there, and the group has the sum of them.
            group = reader.group(pod.group.path, whole=True)
            request = group.limit_bytes if group is not None else None
        found[pod.uid] = OtherPod(request, held_bytes(pod.group), pod_names.get(pod.uid, ""))
    return found


def requested_bytes(allocation: PodAllocation) -> int:
    """What a pod requests: what is set for it as a whole, else the sum over its containers."""
    if allocation.pod is not None and allocation.pod.memory_request_bytes is not None:
        return allocation.pod.memory_request_bytes
    return sum(amounts.memory_request_bytes or 0 for amounts in allocation.containers.values())


def held_bytes(group: Group) -> int | None:
    """What the kernel cannot take back: all but page cache and reclaimable slab; ``None`` where nothing is said.

    Memory that is locked counts as unevictable and, where it is anonymous or shared, as that too; no more than is charged
    is ever held.
    """
    if group.rss_bytes is None:
        return None
    kernel = group.kernel_bytes or 0
    if group.slab_bytes is not None and group.slab_unreclaimable_bytes is not None:
        kernel = max(0, kernel - (group.slab_bytes - group.slab_unreclaimable_bytes))
    held = group.rss_bytes + (group.shmem_bytes or 0) + (group.unevictable_bytes or 0) + kernel
    return held if group.usage_bytes is None else min(held, group.usage_bytes)
