"""Each of the risks of whole recorded nodes: one on which it threatens, and the same with one thing changed, where it does not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kata_node_agent.config.schema import Config
from kata_node_agent.report.sandboxes import SandboxObserver
from tests.report.kata_node import KataNode
from tests.sandboxes.support import MIB, qemu, region, rest, shared

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RUST = "/opt/kata/share/defaults/kata-containers/runtime-rs/configuration.toml"
COVERED = 2048 + 58


def limit(node: KataNode, threatened: bool) -> None:
    node.sandbox(overhead_mib=COVERED - (1 if threatened else 0))


def evicted(node: KataNode, threatened: bool) -> None:
    node.sandbox(overhead_mib=COVERED, request_mib=128, resident_mib=2300 if threatened else 2048)


def shm(node: KataNode, threatened: bool) -> None:
    for number in range(3 if threatened else 2):
        node.sandbox(number + 1, overhead_mib=COVERED)


def allocatable(node: KataNode, threatened: bool) -> None:
    # 32 GiB less 3 and 100 MiB: 28.9 GiB, for a VM of 2 GiB and the limit.
    node.sandbox(limit_mib=(28 if threatened else 26) * 1024, overhead_mib=COVERED)


def outside(node: KataNode, threatened: bool) -> None:
    sandbox = node.sandbox(overhead_mib=COVERED)
    if threatened:
        for pid in (1000, 1002):
            node.write(f"proc/{pid}/cgroup", f"0::/kata_overhead/{sandbox}\n")
        node.write(f"sys/fs/cgroup/kata_overhead/{sandbox}/memory.current", f"{28 * MIB}\n")
        node.write(f"sys/fs/cgroup/kata_overhead/{sandbox}/memory.stat", f"anon {28 * MIB}\nfile 0\n")


def clamped(node: KataNode, threatened: bool) -> None:
    node.write(
        "usr/share/kata-containers/defaults/config.d/x.toml", "[hypervisor.qemu]\ndefault_maxmemory = 4096\n"
    )
    node.sandbox(limit_mib=4096 if threatened else 2048, plugged_mib=2048, overhead_mib=COVERED)


def plug(node: KataNode, threatened: bool) -> None:
    """A guest of 256 MiB has 146 MiB beside its kernel: enough to describe 9.1 GiB."""
    sandbox = node.sandbox(limit_mib=(10 if threatened else 9) * 1024, plugged_mib=0, overhead_mib=COVERED)
    line = qemu(sandbox, "256M,slots=10,maxmem=32768M", *shared("256M"))
    node.process(1001, line, parent=1000, started=101)
    node.memory(
        1001, region(4096, 256, "/dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)", inode=17) + rest(1024)
    )


def tiny(node: KataNode, threatened: bool) -> None:
    sandbox = node.sandbox(limit_mib=0, plugged_mib=0, overhead_mib=COVERED)
    handler = f'[crio.runtime.runtimes.kata]\nruntime_type = "vm"\nruntime_config_path = "{RUST}"\n'
    node.write("etc/crio/crio.conf.d/50-kata", handler)
    node.write(
        RUST[1:], "[hypervisor.qemu]\noverhead_memory = 32\n[runtime]\nstatic_sandbox_resource_mgmt = true\n"
    )
    size = 32 if threatened else 544
    node.process(1001, qemu(sandbox, f"{size}M", *shared(f"{size}M")), parent=1000, started=101)
    node.memory(
        1001, region(4096, size, "/dev/shm/qemu_back_mem.dimm1.TAveDM (deleted)", inode=17) + rest(1024)
    )
    limits = {"cpu": "500m"} | ({} if threatened else {"memory": "512Mi"})
    resources = {"limits": limits, "requests": limits}
    entries = {uid: {"ContainerResources": {"app": resources}} for uid in node.allocations}
    state = {"data": json.dumps({"entries": entries}), "checksum": 1}
    node.write("var/lib/kubelet/allocated_pods_state", json.dumps(state))
    bundle = node.folder / f"run/containers/storage/overlay-containers/{sandbox}/userdata/config.json"
    document = json.loads(bundle.read_text())
    document["annotations"]["io.kubernetes.cri-o.PodLinuxResources"] = json.dumps(
        {"cpu_quota": 50000, "cpu_period": 100000}
        | ({} if threatened else {"memory_limit_in_bytes": 512 * MIB})
    )
    bundle.write_text(json.dumps(document))


def vcpus(node: KataNode, threatened: bool) -> None:
    node.sandbox(overhead_mib=COVERED, vcpus=3 if threatened else 2, quota="125000 100000")


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        ("CgroupLimitBelowVm", limit),
        ("EvictedFirst", evicted),
        ("ShmCeiling", shm),
        ("VmBeyondAllocatable", allocatable),
        ("OverheadUndercounted", limit),
        ("OutsidePodCgroup", outside),
        ("HotplugClamped", clamped),
        ("GuestNeedsMemoryToPlug", plug),
        ("CpuOnlyLimitTinyVm", tiny),
        ("VcpusBeyondPodCpu", vcpus),
    ],
)
def test_a_risk_is_there_and_with_one_thing_changed_it_is_not(
    tmp_path: Path, reason: str, make: Callable[[KataNode, bool], None]
) -> None:
    found = {}
    for threatened in (True, False):
        node = KataNode(tmp_path / str(threatened))
        make(node, threatened)
        overview = SandboxObserver(node.root, Config()).look()
        assert overview.problems == ()
        found[threatened] = [risk for view in overview.views for risk in view.risks if risk.reason == reason]
    assert found[True]
    assert found[True][0].message
    assert found[True][0].remedy
    assert not found[False]
