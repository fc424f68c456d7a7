"""What pods without a VM claim: kubelet's record, the limit of a Guaranteed pod's group, and what is held."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.config.schema import KubeletConfig
from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.root import HostRoot
from kata_node_agent.nodeconfig.memory import read_budget
from kata_node_agent.report.others import read_other_pods
from tests.report.kata_node import GIB, KataNode
from tests.sandboxes.support import MIB

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from kata_node_agent.capacity.free import OtherPod

UID = "0e6b1c52-0000-4000-9000-{:012x}"


class Pods(KataNode):
    """A node to which pods without a VM are added."""

    def pod(
        self, number: int, quality: str = "", *, stat: str = "", current: int = 0, limit: str = "max"
    ) -> str:
        """A pod's group; returns its uid."""
        uid = UID.format(number)
        slices = f"kubepods-{quality}.slice/kubepods-{quality}-" if quality else "kubepods-"
        group = f"sys/fs/cgroup/kubepods.slice/{slices}pod{uid.replace('-', '_')}.slice"
        self.write(f"{group}/memory.current", f"{current}\n")
        self.write(f"{group}/memory.max", f"{limit}\n")
        self.write(f"{group}/memory.stat", stat or "anon 0\n")
        return uid

    def allocated(self, pods: Mapping[str, Mapping[str, object]]) -> None:
        """Kubelet's record."""
        data = json.dumps({"entries": {uid: {"ContainerResources": each} for uid, each in pods.items()}})
        self.write("var/lib/kubelet/allocated_pods_state", json.dumps({"data": data, "checksum": 1}))

    def others(self, without: Collection[str] = ()) -> Mapping[str, OtherPod]:
        """As they are read."""
        root = HostRoot(self.folder)
        _, settings = read_budget(root, KubeletConfig(), None)
        return read_other_pods(root, settings, find_cgroup_mounts(root), without)


@pytest.fixture
def node(tmp_path: Path) -> Pods:
    return Pods(tmp_path)


def test_what_the_kernel_cannot_take_back_is_held_and_page_cache_is_not(node: Pods) -> None:
    stat = f"anon {300 * MIB}\nfile {9 * GIB}\nshmem {50 * MIB}\nunevictable {20 * MIB}\n"
    stat += (
        f"kernel {100 * MIB}\nslab {80 * MIB}\nslab_reclaimable {60 * MIB}\nslab_unreclaimable {20 * MIB}\n"
    )
    uid = node.pod(1, "burstable", stat=stat, current=10 * GIB)
    pod = node.others()[uid]
    assert pod.held_bytes == (300 + 50 + 20 + 40) * MIB
    assert pod.request_bytes is None
    # No more than is charged is held.
    node.pod(1, "burstable", stat=stat, current=200 * MIB)
    assert node.others()[uid].held_bytes == 200 * MIB


def test_requests_are_kubelets_and_the_larger_of_them_and_what_is_held_counts(node: Pods) -> None:
    idle, busy = node.pod(1, "burstable"), node.pod(2, "besteffort", stat=f"anon {GIB}\n", current=2 * GIB)
    requests = {"requests": {"memory": "256Mi"}}
    node.allocated({idle: {"a": requests, "b": requests}, busy: {"a": {}}})
    others = node.others()
    assert others[idle].claims_bytes == 512 * MIB
    assert others[busy].claims_bytes == GIB


def test_of_a_guaranteed_pod_the_groups_limit_is_what_it_requests(node: Pods) -> None:
    uid = node.pod(1, limit=str(3 * GIB))
    unlimited = node.pod(2)
    others = node.others()
    assert others[uid].claims_bytes == 3 * GIB
    assert others[unlimited].claims_bytes == 0


def test_pods_with_a_vm_and_pods_that_are_gone_are_no_others(node: Pods) -> None:
    uid = node.pod(1, limit=str(GIB))
    node.allocated({UID.format(7): {"a": {"requests": {"memory": "9Gi"}}}})
    assert list(node.others()) == [uid]
    assert not node.others(without={uid})
