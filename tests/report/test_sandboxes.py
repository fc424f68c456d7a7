"""Whole sandboxes of recorded nodes, with the risks that their numbers come to."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from kata_node_agent.capacity.hotplug import VmSettings
from kata_node_agent.config.schema import Config
from kata_node_agent.report.overhead import handler_uses
from kata_node_agent.report.risk_facts import becomes
from kata_node_agent.report.sandboxes import Overview, SandboxObserver, pod_group
from kata_node_agent.sandboxes.model import Vmm
from tests.report.kata_node import CONFIGURATION, GIB, KataNode
from tests.sandboxes.support import MIB


def look(node: KataNode) -> Overview:
    return SandboxObserver(node.root, Config()).look()


def reasons(overview: Overview) -> list[list[str]]:
    return [[risk.reason for risk in view.risks] for view in overview.views]


def test_the_6gi_pod_in_an_8gi_vm_is_told_before_it_is_killed(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox(limit_mib=6144, overhead_mib=350)
    found = look(node)
    (view,) = found.views
    assert (view.sandbox.pod, view.sandbox.vm_memory_bytes, view.final_bytes) == (
        "default/web-1",
        8 * GIB,
        8 * GIB,
    )
    assert (view.known.limits_bytes, view.known.overhead_bytes) == (6 * GIB, 350 * MIB)
    assert view.commitment_bytes == 8 * GIB + 58 * MIB
    assert reasons(found) == [["CgroupLimitBelowVm", "OverheadUndercounted"]]
    assert "may use 6.3Gi, but its VM has 8Gi and 58Mi is used beside it" in view.risks[0].message
    assert found.problems == ()


def test_a_podfixed_that_covers_leaves_no_risk(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox(overhead_mib=2048 + 58)
    assert reasons(look(node)) == [[]]


def test_a_vm_that_will_grow_is_judged_by_what_it_becomes(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox(plugged_mib=0, overhead_mib=350)
    (view,) = look(node).views
    assert (view.sandbox.vm_memory_bytes, view.final_bytes) == (2 * GIB, 8 * GIB)
    assert "its VM has 2Gi and will have 8Gi" in view.risks[0].message


def test_what_a_pod_uses_beyond_its_requests_makes_it_the_first_to_go(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox(request_mib=128, overhead_mib=2106, resident_mib=2300)
    assert reasons(look(node)) == [["EvictedFirst"]]


def test_vms_of_all_pods_share_one_tmpfs(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    for number in (1, 2, 3):
        node.sandbox(number, overhead_mib=2106)
    found = look(node)
    assert found.node.shm_vm_bytes == 24 * GIB
    assert reasons(found) == [["ShmCeiling"]] * 3


def test_vcpus_and_the_pods_quota_are_read(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox(overhead_mib=2106, vcpus=3, quota="125000 100000")
    (view,) = look(node).views
    assert [risk.reason for risk in view.risks] == ["VcpusBeyondPodCpu"]
    assert "3 vCPUs, but its pod may use 1250m" in view.risks[0].message


def test_a_maximum_below_the_limits_is_said(tmp_path: Path) -> None:
    node = KataNode(tmp_path, "default_maxmemory = 4096\n")
    node.sandbox(plugged_mib=2048, overhead_mib=2106)
    assert reasons(look(node)) == [["HotplugClamped"]]


def test_a_vm_keeps_the_default_that_it_booted_with(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.write(CONFIGURATION[1:], "[hypervisor.qemu]\ndefault_memory = 4096\n")
    node.sandbox(overhead_mib=2106)
    (view,) = look(node).views
    assert (view.final_bytes, view.risks) == (8 * GIB, ())


@pytest.mark.parametrize("vmm", ["cloud-hypervisor", "dragonball", "firecracker"])
def test_what_was_there_when_a_vm_was_first_seen_is_no_default(tmp_path: Path, vmm: Vmm) -> None:
    node = KataNode(tmp_path)
    node.sandbox(limit_mib=4096)
    (view,) = look(node).views
    settings = VmSettings(hypervisor="clh", default_memory_bytes=2 * GIB)
    # First seen when all was plugged: nothing says what it booted with.
    seen = replace(view.sandbox, vmm=vmm, base_bytes=6 * GIB, hotplugged_bytes=0)
    found = becomes(seen, settings, view.known.pod)
    assert found is not None
    assert found.final_bytes == 6 * GIB
    # The default was raised since: the VM cannot have booted with more than it has.
    small = becomes(replace(seen, base_bytes=GIB), settings, view.known.pod)
    assert small is not None
    assert small.final_bytes == 5 * GIB


def test_without_kubelets_file_the_runtimes_word_counts(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox()
    (tmp_path / "var/lib/kubelet/allocated_pods_state").unlink()
    (view,) = look(node).views
    assert (view.known.limits_bytes, view.known.requests_bytes) == (6 * GIB, None)
    assert [risk.reason for risk in view.risks] == ["CgroupLimitBelowVm", "OverheadUndercounted"]


def test_podfixed_is_what_the_groups_limit_has_beyond_the_limits(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    sandbox = node.sandbox()
    bundle = tmp_path / f"run/containers/storage/overlay-containers/{sandbox}/userdata/config.json"
    document = json.loads(bundle.read_text())
    del document["annotations"]["io.kubernetes.cri-o.PodLinuxOverhead"]
    bundle.write_text(json.dumps(document))
    (view,) = look(node).views
    assert view.known.overhead_bytes == 350 * MIB


def test_a_node_that_says_nothing_else_still_shows_its_vms(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox()
    for path in ("proc/meminfo", "etc/crio/crio.conf.d/50-kata", "proc/mounts"):
        (tmp_path / path).unlink()
    found = look(node)
    assert [view.final_bytes for view in found.views] == [None]
    assert any("meminfo" in problem for problem in found.problems)


def test_a_resize_in_place_is_followed(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox(limit_mib=6144, overhead_mib=2106)
    observer = SandboxObserver(node.root, Config())
    assert observer.look().views[0].final_bytes == 8 * GIB
    (uid,) = node.allocations
    text = (tmp_path / "var/lib/kubelet/allocated_pods_state").read_text()
    (tmp_path / "var/lib/kubelet/allocated_pods_state").write_text(text.replace("6144Mi", "7168Mi"))
    (view,) = observer.look().views
    assert uid == view.sandbox.pod_uid
    assert view.final_bytes == 9 * GIB


def test_handlers_show_what_their_newest_pod_has(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    node.sandbox(1, overhead_mib=350)
    node.sandbox(2, overhead_mib=2106)
    (use,) = handler_uses(look(node), {}, 60 * MIB, openshift=True)
    assert (use.name, use.running, use.beyond_bytes) == (
        "kata",
        (350 * MIB, 2106 * MIB),
        2 * GIB,
    )
    assert (use.pod_fixed_bytes, use.pod_fixed_millicores) == (2106 * MIB, 250)


def test_openshifts_annotation_makes_a_smaller_vm_and_a_smaller_podfixed(tmp_path: Path) -> None:
    node = KataNode(tmp_path)
    annotation = {"io.katacontainers.config.hypervisor.memory_overhead": "350"}
    node.sandbox(plugged_mib=4480, overhead_mib=384 + 58, annotations=annotation)
    found = look(node)
    (view,) = found.views
    # 6144 + 350 MiB, the step rounded up to 128 MiB.
    assert (view.final_bytes, view.risks) == (6528 * MIB, ())
    (use,) = handler_uses(found, {}, 60 * MIB, openshift=True)
    assert (use.beyond_bytes, use.beyond_setting) == (384 * MIB, "annotation memory_overhead")


def test_the_pods_group_is_found_among_those_above() -> None:
    uid = "0e6b1c52-7d1c-4b7e-9d2f-2d2c0b7f3a11"
    slice_name = f"kubepods-burstable-pod{uid.replace('-', '_')}.slice"
    for pod, below in (
        (f"/kubepods/burstable/pod{uid}", "/kata_x"),
        (f"/kubepods.slice/kubepods-burstable.slice/{slice_name}", "/crio-x.scope/y"),
    ):
        assert pod_group(f"{pod}{below}") == pod == pod_group(pod)
    for outside in ("", "/", "/kata_overhead/x", "/system.slice/crio.service"):
        assert pod_group(outside) == ""
