"""Each risk beside the same sandbox without it: the numbers around which it begins."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.capacity.hotplug import VmSettings
from kata_node_agent.capacity.pod import Container, Pod
from kata_node_agent.capacity.risks import NodeFacts, Risk, SandboxFacts, find_risks
from kata_node_agent.capacity.sizing import forecast, plugs

MIB = 1 << 20
GIB = 1 << 30
NODE = NodeFacts(allocatable_bytes=28 * GIB, shm_bytes=16 * GIB, shm_free_bytes=9 * GIB, shm_vm_bytes=8 * GIB)
CALM = SandboxFacts(
    vm_bytes=8 * GIB,
    resident_bytes=3 * GIB,
    host_overhead_bytes=60 * MIB,
    charge_bytes=3 * GIB,
    cgroup_limit_bytes=8 * GIB + 60 * MIB,
    outside_bytes=0,
    memory_in="shm",
    limits_bytes=6 * GIB,
    requests_bytes=6 * GIB,
    overhead_bytes=2 * GIB + 60 * MIB,
    vcpus=2,
    cpu_quota_millicores=1250,
)


def reasons(sandbox: SandboxFacts, node: NodeFacts = NODE) -> list[str]:
    return [risk.reason for risk in find_risks(sandbox, node)]


def only(sandbox: SandboxFacts, node: NodeFacts = NODE) -> Risk:
    found = find_risks(sandbox, node)
    assert len(found) == 1, found
    return found[0]


def test_a_sandbox_whose_numbers_fit_has_no_risk() -> None:
    assert reasons(CALM) == []


def test_the_6gi_pod_that_got_an_8gi_vm_is_foretold() -> None:
    pod = Pod((Container("c", "main", 6 * GIB),), overhead_bytes=350 * MIB)
    becomes = forecast(VmSettings(), pod)
    found = only(
        SandboxFacts(
            vm_bytes=0,
            final_bytes=becomes.final_bytes,
            cgroup_limit_bytes=6 * GIB + 350 * MIB,
            memory_in="shm",
        )
    )
    assert found.reason == "CgroupLimitBelowVm"
    assert "may use 6.3Gi, but its VM will have 8Gi and 60Mi is used beside it" in found.message
    assert "raise overhead.podFixed by 1758Mi" in found.remedy


@pytest.mark.parametrize(
    ("reason", "sandbox"),
    [
        ("CgroupLimitBelowVm", replace(CALM, cgroup_limit_bytes=8 * GIB + 60 * MIB - 1)),
        ("CgroupLimitBelowVm", replace(CALM, host_overhead_bytes=None, cgroup_limit_bytes=8 * GIB)),
        ("EvictedFirst", replace(CALM, resident_bytes=8 * GIB + 60 * MIB + 1)),
        ("OverheadUndercounted", replace(CALM, overhead_bytes=2 * GIB + 60 * MIB - 1)),
        ("OutsidePodCgroup", replace(CALM, outside_bytes=1, outside="/kata_overhead/x")),
        ("VcpusBeyondPodCpu", replace(CALM, cpu_quota_millicores=1000)),
        ("GuestNeedsMemoryToPlug", replace(CALM, plugs=((256 * MIB, 256 * MIB + 12 * GIB),))),
    ],
)
def test_a_risk_begins_where_the_number_is_passed(reason: str, sandbox: SandboxFacts) -> None:
    found = only(sandbox)
    assert found.reason == reason
    assert found.message
    assert found.remedy


def test_the_numbers_are_said() -> None:
    found = only(replace(CALM, cgroup_limit_bytes=7 * GIB + 60 * MIB, charge_bytes=3 * GIB + 60 * MIB))
    assert "the kernel kills the VM 1Gi before the guest is full, 4Gi from now" in found.message
    used = replace(CALM, resident_bytes=9 * GIB + 60 * MIB)
    assert (
        "9.1Gi is in use, 1Gi more than the pod requests (6Gi) with its podFixed (2.1Gi)"
        in only(used).message
    )
    assert reasons(replace(CALM, resident_bytes=8 * GIB + 60 * MIB)) == []
    outside = replace(CALM, outside_bytes=GIB, outside="/kata_overhead/x")
    assert "1Gi is charged to /kata_overhead/x, outside" in only(outside).message
    assert "podFixed.cpu by 1250m" in only(replace(CALM, vcpus=3, cpu_quota_millicores=1750)).remedy


def test_the_shared_tmpfs_is_a_ceiling_for_all_vms_together_and_for_what_they_become() -> None:
    assert reasons(CALM, replace(NODE, shm_bytes=8 * GIB)) == []
    found = only(CALM, replace(NODE, shm_bytes=8 * GIB - 1, shm_free_bytes=GIB))
    assert found.reason == "ShmCeiling"
    assert "of which 1Gi is free" in found.message
    assert "give /dev/shm 8192Mi" in found.remedy
    grown = replace(CALM, final_bytes=9 * GIB, cgroup_limit_bytes=None, overhead_bytes=None)
    assert reasons(grown, replace(NODE, shm_bytes=8 * GIB)) == ["ShmCeiling"]
    assert reasons(replace(CALM, memory_in="memfd"), replace(NODE, shm_bytes=GIB)) == []


def test_a_vm_larger_than_all_pods_may_have_is_said() -> None:
    assert reasons(CALM, replace(NODE, allocatable_bytes=8 * GIB + 60 * MIB)) == []
    assert reasons(CALM, replace(NODE, allocatable_bytes=8 * GIB)) == ["VmBeyondAllocatable"]


def test_only_processes_in_the_pods_group_count_against_its_limit() -> None:
    below = replace(CALM, cgroup_limit_bytes=8 * GIB + 30 * MIB)
    assert reasons(below) == ["CgroupLimitBelowVm"]
    assert reasons(replace(below, limited_overhead_bytes=30 * MIB)) == []


def test_what_a_container_without_a_limit_requests_is_counted() -> None:
    free = replace(CALM, vm_bytes=2 * GIB, limits_bytes=0, requests_bytes=GIB, cgroup_limit_bytes=None)
    assert reasons(replace(free, overhead_bytes=GIB + 60 * MIB)) == ["EvictedFirst"]
    found = find_risks(replace(free, overhead_bytes=350 * MIB, resident_bytes=0), NODE)
    assert [risk.reason for risk in found] == ["OverheadUndercounted"]
    assert "the VM has 1Gi beyond its containers' limits or requests" in found[0].message


def test_huge_pages_are_not_in_the_memory_controller() -> None:
    assert "CgroupLimitBelowVm" not in reasons(replace(CALM, memory_in="hugepages", cgroup_limit_bytes=GIB))


def test_huge_pages_are_no_part_of_what_is_requested_as_memory() -> None:
    # 256Mi of memory and 4Gi of huge pages, in a VM whose memory is huge pages.
    huge = replace(
        CALM,
        vm_bytes=6400 * MIB,
        resident_bytes=6400 * MIB + 60 * MIB,
        memory_in="hugepages",
        limits_bytes=256 * MIB,
        requests_bytes=256 * MIB,
        overhead_bytes=60 * MIB,
    )
    assert reasons(huge) == []
    assert reasons(replace(huge, memory_in="memfd", cgroup_limit_bytes=None)) == [
        "EvictedFirst",
        "OverheadUndercounted",
    ]
    # The host's processes are ordinary memory, there too.
    assert reasons(replace(huge, overhead_bytes=60 * MIB - 1)) == ["OverheadUndercounted"]
    assert reasons(replace(huge, overhead_bytes=60 * MIB, requests_bytes=0)) == []
    assert reasons(replace(huge, host_overhead_bytes=317 * MIB, overhead_bytes=60 * MIB)) == [
        "EvictedFirst",
        "OverheadUndercounted",
    ]
    assert reasons(replace(huge, host_overhead_bytes=None)) == []


def test_a_cpu_limit_alone_makes_a_tiny_vm() -> None:
    settings = VmSettings(kind="runtime-rs", static=True)
    pod = Pod((Container("c", cpu_limit_millicores=500),))
    becomes = forecast(settings, pod)
    tiny = SandboxFacts(vm_bytes=becomes.boot_bytes, limits_bytes=0, cpu_limited=True)
    assert only(tiny).reason == "CpuOnlyLimitTinyVm"
    assert reasons(replace(tiny, cpu_limited=False)) == []
    assert reasons(replace(tiny, vm_bytes=2 * GIB)) == []


def test_faults_of_the_forecast_are_risks_with_a_remedy() -> None:
    settings = VmSettings(max_bytes=4 * GIB)
    pod = Pod((Container("c", "main", 6 * GIB),))
    becomes = forecast(settings, pod)
    found = only(SandboxFacts(vm_bytes=4 * GIB, faults=becomes.faults))
    assert (found.reason, "default_maxmemory" in found.remedy) == ("HotplugClamped", True)


def test_a_small_guest_is_plugged_in_parts_and_the_first_is_the_hardest() -> None:
    pod = Pod((Container("c", "main", 64 * GIB),))
    small = VmSettings(default_memory_bytes=256 * MIB)
    rust = replace(small, kind="runtime-rs")
    assert plugs(small, forecast(small, pod)) == ((256 * MIB, 49 * 256 * MIB),)
    assert plugs(rust, forecast(rust, pod)) == ((256 * MIB, 64 * GIB + 256 * MIB),)
    assert plugs(replace(small, virtio_mem=True), forecast(replace(small, virtio_mem=True), pod)) == ()
    found = only(SandboxFacts(vm_bytes=256 * MIB, plugs=plugs(small, forecast(small, pod))))
    assert "to take 12Gi more the guest" in found.message
    assert "needs 192Mi first, but of its 256Mi only 146Mi is left" in found.message
    assert "default_memory to 302Mi" in found.remedy


def test_what_is_not_known_is_not_a_risk() -> None:
    assert reasons(SandboxFacts(vm_bytes=8 * GIB), NodeFacts()) == []


amounts = st.integers(0, 1 << 44)
maybe = st.none() | amounts
sandboxes = st.builds(
    SandboxFacts,
    vm_bytes=amounts,
    final_bytes=maybe,
    resident_bytes=maybe,
    host_overhead_bytes=maybe,
    charge_bytes=maybe,
    cgroup_limit_bytes=maybe,
    outside_bytes=maybe,
    memory_in=st.sampled_from(("shm", "memfd", "hugepages", "anonymous", "elsewhere")),
    limits_bytes=maybe,
    requests_bytes=maybe,
    overhead_bytes=maybe,
    plugs=st.lists(st.tuples(amounts, amounts), max_size=3).map(tuple),
    cpu_limited=st.booleans(),
    vcpus=st.none() | st.integers(0, 1024),
    cpu_quota_millicores=st.none() | st.integers(0, 1 << 20),
)
nodes = st.builds(
    NodeFacts, allocatable_bytes=maybe, shm_bytes=maybe, shm_free_bytes=maybe, shm_vm_bytes=amounts
)


@given(sandboxes, nodes)
def test_every_risk_says_what_to_do_and_none_is_said_twice(sandbox: SandboxFacts, node: NodeFacts) -> None:
    found = find_risks(sandbox, node)
    assert all(risk.message and risk.remedy for risk in found)
    assert len({risk.reason for risk in found}) == len(found)


@given(sandboxes, nodes, amounts)
def test_a_higher_limit_and_a_larger_podfixed_take_risks_away_and_add_none(
    sandbox: SandboxFacts, node: NodeFacts, more: int
) -> None:
    before = {risk.reason for risk in find_risks(sandbox, node)}
    better = replace(
        sandbox,
        cgroup_limit_bytes=None if sandbox.cgroup_limit_bytes is None else sandbox.cgroup_limit_bytes + more,
        overhead_bytes=None if sandbox.overhead_bytes is None else sandbox.overhead_bytes + more,
    )
    assert {risk.reason for risk in find_risks(better, node)} <= before


@given(sandboxes, nodes)
def test_following_the_remedy_ends_the_risk(sandbox: SandboxFacts, node: NodeFacts) -> None:
    for risk in find_risks(sandbox, node):
        if risk.reason == "OverheadUndercounted":
            mib = int(risk.remedy.split(" to ")[1].split("Mi")[0])
            assert "OverheadUndercounted" not in reasons(replace(sandbox, overhead_bytes=mib * MIB), node)
        if risk.reason == "CgroupLimitBelowVm" and sandbox.cgroup_limit_bytes is not None:
            mib = int(risk.remedy.split(" by ")[1].split("Mi")[0])
            limit = sandbox.cgroup_limit_bytes + mib * MIB
            assert "CgroupLimitBelowVm" not in reasons(replace(sandbox, cgroup_limit_bytes=limit), node)
