"""Each row of the tables is a statement about Kata Containers 4.1.0; the sources are named in the rooms that are tested."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kata_node_agent.capacity.hotplug import Fault, Vm, VmSettings, grow
from kata_node_agent.capacity.pod import Container, Pod, Role, memory_limits_bytes
from kata_node_agent.capacity.sizing import forecast

MIB = 1 << 20
GIB = 1 << 30
GO = VmSettings()
GO_STATIC = VmSettings(static=True)
RUST = VmSettings(kind="runtime-rs", static=True)
RUST_DYNAMIC = VmSettings(kind="runtime-rs")


def main(*mib: int | None) -> Pod:
    return Pod(tuple(Container(f"c{i}", "main", None if m is None else m * MIB) for i, m in enumerate(mib)))


def staged(*each: tuple[Role, int]) -> Pod:
    return Pod(tuple(Container(f"{role}{i}", role, mib * MIB) for i, (role, mib) in enumerate(each)))


CPU_ONLY = Pod((Container("c", cpu_limit_millicores=500),))


@pytest.mark.parametrize(
    ("fact", "settings", "pod", "boot_mib", "final_mib"),
    [
        ("default_memory + sum of limits: a 6Gi pod gets 8 GiB", GO, main(6144), 2048, 8192),
        ("a container without limit adds nothing", GO, main(None, None), 2048, 2048),
        ("requests are ignored", GO, Pod((Container("c", memory_request_bytes=GIB),)), 2048, 2048),
        ("podFixed is not consulted", GO, replace(main(1024), overhead_bytes=GIB), 2048, 3072),
        ("huge pages of the pod count", GO, Pod((Container("c", "main", GIB, hugepages_bytes=GIB),)), 2048, 4096),
        ("a step is rounded up to the guest's block of 128 MiB", GO, main(1), 2048, 2176),
        ("each step is rounded, what is over serves the next", GO, main(100, 100), 2048, 2304),
        ("limits are cut to whole MiB", GO, Pod((Container("c", "main", 128 * MIB + 1),)), 2048, 2176),
        ("init containers run one after another", GO, staged(("init", 512), ("init", 1024)), 2048, 3072),
        ("an init container's memory stays: DIMMs are not unplugged", GO, staged(("init", 4096), ("main", 1024)), 2048, 6144),
        ("main containers reuse what an init container left", GO, staged(("init", 1024), ("main", 2048)), 2048, 4096),
        ("a sidecar counts beside all", GO, staged(("sidecar", 512), ("init", 1024), ("main", 2048)), 2048, 4608),
        (
            "with a pod-level limit each container without its own is given the whole of it",
            GO,
            replace(main(None, None, None), memory_limit_bytes=4 * GIB),
            2048,
            2048 + 3 * 4096,
        ),
        (
            "so is an ephemeral container",
            GO,
            replace(staged(("main", 1024), ("ephemeral", 0)), memory_limit_bytes=GIB),
            2048,
            4096,
        ),
        ("OpenShift's memory_overhead: limits + overhead", replace(GO, memory_overhead_bytes=350 * MIB), main(6144), 2048, 6528),
        ("and never less than it boots with", replace(GO, memory_overhead_bytes=350 * MIB), main(512), 2048, 2048),
        ("s390x and ppc64le have larger blocks", replace(GO, block_bytes=256 * MIB), main(1), 2048, 2304),
        ("virtio-mem is not rounded", replace(GO, virtio_mem=True), main(1000), 2048, 3048),
        ("static, Go: default_memory + limits at boot", GO_STATIC, main(6144), 8192, 8192),
        ("static: the largest of init and main containers", GO_STATIC, staged(("init", 4096), ("main", 1024)), 6144, 6144),
        ("static: a pod-level limit is the pod's", GO_STATIC, replace(main(None, None), memory_limit_bytes=4 * GIB), 6144, 6144),
        ("static: huge pages are not in it", GO_STATIC, Pod((Container("c", "main", GIB, hugepages_bytes=GIB),)), 3072, 3072),
        ("static, runtime-rs: overhead_memory + limits", RUST, main(6144), 6176, 6176),
        ("an odd number of MiB is made even", RUST, main(511), 544, 544),
        ("without any limit default_memory", RUST, main(None), 2048, 2048),
        ("a CPU limit alone gives overhead_memory", RUST, CPU_ONLY, 32, 32),
        ("for a TEE", replace(RUST, overhead_memory_bytes=128 * MIB), main(1024), 1152, 1152),
        ("runtime-rs, dynamic: same sum, aligned up", RUST_DYNAMIC, main(6144, 1), 2048, 8320),
        ("runtime-rs aligns the sum, not each step", RUST_DYNAMIC, main(100, 100), 2048, 2304),
        ("kata-remote costs the node only its shim", replace(GO, runs_here=False), main(6144), 0, 0),
        ("a confidential guest is never given more", replace(GO, hotplug=False), main(6144), 2048, 2048),
    ],
)  # fmt: skip
def test_a_vm_becomes_what_the_runtime_makes_of_it(
    fact: str, settings: VmSettings, pod: Pod, boot_mib: int, final_mib: int
) -> None:
    found = forecast(settings, pod)
    assert (found.boot_bytes // MIB, found.final_bytes / MIB) == (boot_mib, final_mib), fact
    assert found.starts, fact


def reasons(faults: tuple[Fault, ...]) -> list[str]:
    return [fault.reason for fault in faults]


@pytest.mark.parametrize(
    ("fact", "settings", "pod", "final_mib", "faults", "starts"),
    [
        ("silently clamped", replace(GO, max_bytes=4 * GIB), main(6144), 4096, ["HotplugClamped"], True),
        ("clamped once, it starts", replace(GO, max_bytes=4000 * MIB), main(6144), 4096, ["HotplugClamped", "RoundedPastMaximum"], True),
        (
            "rounded after the clamp, then the next step underflows",
            replace(GO, max_bytes=4000 * MIB),
            main(6144, 1),
            4096,
            ["HotplugClamped", "RoundedPastMaximum", "HotplugUnderflow"],
            False,
        ),
        ("past the maximum by rounding alone", replace(GO, max_bytes=4000 * MIB), main(1930), 4096, ["RoundedPastMaximum"], True),
        ("Cloud Hypervisor clamps after rounding", replace(GO, hypervisor="clh", max_bytes=4000 * MIB), main(1930, 64), 4000, ["HotplugClamped"], True),
        ("virtio-mem beyond the maximum never ends", replace(GO, virtio_mem=True, max_bytes=4 * GIB), main(6144), 4096, ["ResizeNeverEnds"], False),
        ("so does a step of 48 times the maximum", replace(GO, default_memory_bytes=256 * MIB, max_bytes=256 * MIB), main(13 * 1024), 256, ["HotplugClamped", "ResizeNeverEnds"], False),
        ("slots run out", replace(GO, slots=2), main(128, 128, 128), 2304, ["NoMemorySlotLeft"], False),
        ("with runtime-rs too", replace(RUST_DYNAMIC, slots=2), main(128, 128, 128), 2304, ["NoMemorySlotLeft"], False),
        ("static beyond the maximum does not start", replace(GO_STATIC, max_bytes=4 * GIB), main(6144), 8192, ["BootBeyondMaximum"], False),
        ("runtime-rs raises its maximum", replace(RUST, max_bytes=4 * GIB), main(6144), 6176, [], True),
        ("runtime-rs, dynamic: an error", replace(RUST_DYNAMIC, max_bytes=4 * GIB), main(1024, 6144), 3072, ["BeyondMaximum"], False),
        ("a guest without hotplug", replace(GO, hotplug=False), main(1), 2048, ["HotplugUnsupported"], True),
    ],
)  # fmt: skip
def test_what_goes_wrong_is_said(
    fact: str, settings: VmSettings, pod: Pod, final_mib: int, faults: list[str], starts: bool
) -> None:
    found = forecast(settings, pod)
    assert (found.final_bytes / MIB, reasons(found.faults), found.starts) == (final_mib, faults, starts), fact
    assert all(fault.message and fault.remedy for fault in found.faults)


def test_a_step_is_at_most_48_times_what_is_there() -> None:
    small = replace(GO, default_memory_bytes=256 * MIB)
    found = forecast(small, main(64 * 1024))
    # 256 MiB can describe 12 GiB more; 12.25 GiB can describe all the rest.
    assert found.final_bytes == 64 * GIB + 256 * MIB
    assert grow(small, Vm(256 * MIB), found.final_bytes)[0].dimms == 2
    assert grow(replace(small, slots=1), Vm(256 * MIB), found.final_bytes)[0] == Vm(49 * 256 * MIB, 1)


def test_slots_of_what_was_plugged_before_are_taken() -> None:
    for settings in (replace(GO, slots=2), replace(RUST_DYNAMIC, slots=2)):
        assert forecast(settings, main(128), Vm(2 * GIB, dimms=1)).starts
        assert not forecast(settings, main(128), Vm(2 * GIB, dimms=2)).starts


def test_a_restart_and_a_smaller_limit_change_nothing_and_a_larger_one_grows() -> None:
    now = Vm(8 * GIB, dimms=1)
    assert forecast(GO, main(6144), now).final_bytes == 8 * GIB
    assert forecast(GO, main(1024), now).final_bytes == 8 * GIB
    resized = forecast(GO, main(7168), now)
    assert (resized.final_bytes, [step.vm_bytes for step in resized.steps]) == (9 * GIB, [9 * GIB])


def test_a_vm_with_virtio_mem_shrinks_and_its_high_water_stays() -> None:
    virtio = replace(GO, virtio_mem=True)
    found = forecast(virtio, staged(("init", 4096), ("main", 1024)))
    assert (found.final_bytes, found.settled_bytes) == (6 * GIB, 3 * GIB)
    assert forecast(virtio, main(1024), Vm(6 * GIB)).settled_bytes == 3 * GIB


def test_a_static_vm_keeps_its_size_when_limits_grow() -> None:
    found = forecast(GO_STATIC, main(6144), Vm(4 * GIB))
    assert (found.final_bytes, reasons(found.faults), found.starts) == (4 * GIB, ["LimitBeyondVm"], True)
    assert "come to a VM of 8192 MiB, but it keeps its 4096 MiB" in found.faults[0].message
    assert not forecast(GO_STATIC, main(2048), Vm(4 * GIB)).faults


@pytest.mark.parametrize(
    ("settings", "millicores", "vcpus"),
    [
        (GO, 0, 1),
        (GO, 1500, 3),
        (replace(GO, max_vcpus=2), 4000, 2),
        (GO_STATIC, 1500, 3),
        (RUST, 0, 1),
        (RUST, 500, 1),
        (RUST, 1900, 3),
    ],
)
def test_vcpus_are_the_default_and_the_limits_rounded_up(
    settings: VmSettings, millicores: int, vcpus: int
) -> None:
    pod = Pod((Container("c", cpu_limit_millicores=millicores or None),))
    assert forecast(settings, pod).vcpus == vcpus


roles = st.sampled_from(("init", "sidecar", "main"))
limits = st.lists(st.tuples(roles, st.integers(0, 64 * 1024)), max_size=6)
handlers = st.builds(
    VmSettings,
    kind=st.sampled_from(("go", "runtime-rs")),
    hypervisor=st.sampled_from(("qemu", "clh")),
    static=st.booleans(),
    default_memory_bytes=st.integers(256, 8192).map(lambda mib: mib * MIB),
    max_bytes=st.integers(8192, 1 << 20).map(lambda mib: mib * MIB),
    slots=st.integers(1, 40),
    virtio_mem=st.booleans(),
    hotplug=st.booleans(),
)


@given(handlers, limits)
def test_the_most_is_never_below_boot_nor_below_any_step(
    settings: VmSettings, each: list[tuple[Role, int]]
) -> None:
    found = forecast(settings, staged(*each))
    assert found.final_bytes >= max(found.boot_bytes, found.settled_bytes)
    assert found.final_bytes == max([found.boot_bytes, *(step.vm_bytes for step in found.steps)])
    assert found.final_bytes % MIB == 0


@given(handlers, limits)
def test_dimms_are_whole_blocks_on_top_of_what_booted(
    settings: VmSettings, each: list[tuple[Role, int]]
) -> None:
    settings = replace(settings, static=False, virtio_mem=False, hypervisor="qemu", hotplug=True)
    found = forecast(settings, staged(*each))
    assert (found.final_bytes - found.boot_bytes) % settings.block_bytes == 0


@given(handlers, limits, st.data())
def test_more_limit_never_makes_a_smaller_vm(
    settings: VmSettings, each: list[tuple[Role, int]], data: st.DataObject
) -> None:
    # With runtime-rs the smallest limit of all makes the VM smaller than none does: see the table.
    assume(any(mib for _, mib in each))
    # Where neither a maximum nor slots come in between: past those a VM may fail early and stay small.
    settings = replace(settings, max_bytes=1 << 50, slots=1000)
    index = data.draw(st.integers(0, len(each) - 1))
    more = list(each)
    more[index] = (each[index][0], each[index][1] + data.draw(st.integers(0, 4096)))
    # Rounding of earlier steps can save a later one: a block for each container is the most that this can hide.
    slack = settings.block_bytes * len(each)
    less_mib = forecast(settings, staged(*each)).final_bytes
    assert forecast(settings, staged(*more)).final_bytes >= less_mib - slack


@given(handlers, limits)
def test_a_pod_that_starts_has_room_for_its_limits_unless_a_fault_is_said(
    settings: VmSettings, each: list[tuple[Role, int]]
) -> None:
    settings = replace(settings, memory_overhead_bytes=None)
    pod = staged(*each)
    found = forecast(settings, pod)
    if not found.faults:
        assert found.final_bytes >= memory_limits_bytes(pod) // MIB * MIB


@given(handlers, limits)
def test_a_forecast_of_a_vm_that_is_as_forecast_changes_nothing(
    settings: VmSettings, each: list[tuple[Role, int]]
) -> None:
    settings = replace(settings, virtio_mem=False)
    pod = staged(*each)
    first = forecast(settings, pod)
    assume(not first.faults)
    assert forecast(settings, pod, Vm(first.final_bytes, len(first.steps))).final_bytes == first.final_bytes
