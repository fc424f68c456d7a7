"""A node's resources beside what kubelet gives for the same settings, worked out by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kata_node_agent.capacity.allocatable import Resources
from kata_node_agent.config.schema import KubeletConfig
from kata_node_agent.host import machine
from kata_node_agent.host.root import HostRoot
from kata_node_agent.nodeconfig import memory
from kata_node_agent.nodeconfig.node import NodeResources, read_node

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
MIB = 2**20


def node_of(tree: Path, settings: str, *, flags: str = "", storage: int | None = None) -> NodeResources:
    """8 CPUs, 32Gi with 1Gi of it in huge pages, a limit of 32768 pids."""
    files = {
        "proc/meminfo": f"MemTotal: {32 * 2**20} kB\nHugetlb: {2**20} kB\n",
        "proc/sys/kernel/pid_max": "32768\n",
        "sys/devices/system/cpu/online": "0-7\n",
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "512\n",
        "etc/kubernetes/kubelet.conf": f"kind: KubeletConfiguration\n{settings}\n",
        "proc/9/comm": "kubelet\n",
        "proc/9/status": "Uid:\t0\t0\t0\t0\nNSpid:\t9\n",
        "proc/9/cmdline": f"kubelet\0--config=/etc/kubernetes/kubelet.conf\0{flags}\0",
    }
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    return read_node(HostRoot(tree), KubeletConfig())


@pytest.fixture(autouse=True)
def disk(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """100Gi for kubelet's folder; the folders that were asked for."""
    asked: list[str] = []

    def size(_: HostRoot, folder: str) -> int:
        asked.append(folder)
        return 100 * GIB

    monkeypatch.setattr(machine, "storage_bytes", size)
    monkeypatch.setattr(memory, "storage_bytes", size)
    return asked


def test_every_resource_is_capacity_less_what_is_kept(tmp_path: Path, disk: list[str]) -> None:
    settings = """
systemReserved: {cpu: 500m, memory: 3Gi, ephemeral-storage: 1Gi, pid: '1000'}
kubeReserved: {cpu: 60m, memory: 1Gi, pid: '500'}
evictionHard: {memory.available: 100Mi, nodefs.available: 10Gi, pid.available: 5%}
evictionSoft: {memory.available: 7%}
"""
    node = node_of(tmp_path, settings, flags="--root-dir=/data/kubelet")
    assert set(disk) == {"/data/kubelet"}
    assert node.capacity == Resources(32 * GIB, 8000, 100 * GIB, 32768)
    assert node.system_reserved == Resources(3 * GIB, 500, GIB, 1000)
    assert node.kube_reserved == Resources(GIB, 60, 0, 500)
    # Memory is also less the huge pages; of process ids no threshold is taken off.
    assert node.allocatable == Resources(27 * GIB - 100 * MIB, 7440, 89 * GIB, 31268)
    assert node.machine.hugepages_bytes == {2 * MIB: GIB}
    assert (node.eviction_hard["pid.available"], node.eviction_soft) == ("5%", {"memory.available": "7%"})
    assert node.nodefs_threshold_bytes == 10 * GIB
    assert node.settings.complaints == ()


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        # A tenth as a float32 is a little more.
        ("10%", 3435973888),
        ("0%", 0),
        ("100%", 0),
        ("0", 0),
        ("1500Mi", 1500 * MIB),
        ("0.5Gi", 512 * MIB),
    ],
)
def test_a_threshold_is_what_kubelet_takes_it_for(tmp_path: Path, threshold: str, kept: int) -> None:
    node = node_of(tmp_path, f"evictionHard: {{memory.available: {threshold!r}}}")
    assert node.allocatable.memory_bytes == 31 * GIB - kept
    refused = [complaint.message for complaint in node.settings.complaints]
    assert refused == (
        ["eviction threshold memory.available must be positive: 0"] if threshold == "0" else []
    )


def test_what_is_kept_beyond_capacity_leaves_nothing_and_kubelet_would_not_start(tmp_path: Path) -> None:
    node = node_of(
        tmp_path, "systemReserved: {cpu: '9', memory: 33Gi, ephemeral-storage: 101Gi, pid: '40000'}"
    )
    assert node.allocatable == Resources(0, 0, 0, 0)
    (complaint,) = node.settings.complaints
    assert complaint.reason == "KubeletWouldRefuse"
    assert complaint.message.count("Expected capacity >= reservation.") == 3
    assert '"cpu" has a reservation of 9 but capacity of 8' in complaint.message


def test_without_huge_pages_of_its_own_the_memory_manager_needs_the_nodes_that_there_are(
    tmp_path: Path,
) -> None:
    (tmp_path / "sys/devices/system/node/node0").mkdir(parents=True)
    settings = """
memoryManagerPolicy: Static
systemReserved: {memory: 1Gi}
reservedMemory: [{numaNode: 3, limits: {memory: 1124Mi}}]
"""
    (complaint,) = node_of(tmp_path, settings).settings.complaints
    assert "references a NUMA node 3 that does not exist" in complaint.message
