from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.capacity.annotations import HYPERVISOR, MEMORY_OVERHEAD, with_annotations
from kata_node_agent.capacity.hotplug import VmSettings

MIB = 1 << 20
GO = VmSettings(enable_annotations=("enable_iommu", "default_memory", "memory_slots"))
RUST = replace(GO, kind="runtime-rs")


def test_what_is_permitted_changes_the_vm() -> None:
    wanted = {f"{HYPERVISOR}default_memory": "4096", f"{HYPERVISOR}memory_slots": "20"}
    settings, faults = with_annotations(GO, wanted)
    assert (settings.default_memory_bytes, settings.slots, faults) == (4096 * MIB, 20, ())


def test_cpus_are_the_annotations_too() -> None:
    permitted = VmSettings(enable_annotations=("vcpus",))
    wanted = {f"{HYPERVISOR}default_vcpus": "3", f"{HYPERVISOR}default_max_vcpus": "5"}
    settings, faults = with_annotations(permitted, wanted)
    assert (settings.default_vcpu_millis, settings.max_vcpus, faults) == (3000, 5, ())


def test_what_is_not_permitted_fails_with_go_and_is_passed_over_by_runtime_rs() -> None:
    wanted = {f"{HYPERVISOR}enable_virtio_mem": "true"}
    for kind, fatal in ((GO, True), (RUST, False)):
        settings, faults = with_annotations(kind, wanted)
        assert settings == kind
        assert [(fault.reason, fault.fatal) for fault in faults] == [("AnnotationNotEnabled", fatal)]


@pytest.mark.parametrize(
    ("settings", "value", "mib"),
    [
        (GO, "255", None),
        (GO, "256", 256),
        (GO, "4Gi", None),
        (GO, "-1", None),
        (GO, "", None),
        (GO, "9" * 50, None),
        (GO, "４０９６", None),
        (RUST, "64", 64),
        (RUST, "63", None),
        (RUST, "4Gi", 4096),
        (RUST, "512 MiB", 512),
    ],
)
def test_an_amount_is_read_as_the_runtime_reads_it(settings: VmSettings, value: str, mib: int | None) -> None:
    found, faults = with_annotations(settings, {f"{HYPERVISOR}default_memory": value})
    if mib is None:
        assert (found, [fault.reason for fault in faults]) == (settings, ["AnnotationUnusable"])
    else:
        assert (found.default_memory_bytes, faults) == (mib * MIB, ())


def test_patterns_are_searched_for_anywhere_in_the_name_and_broken_ones_match_nothing() -> None:
    for patterns, permitted in ((("mem",), True), ((".*",), True), (("^slots",), False), (("(", "["), False)):
        _, faults = with_annotations(
            VmSettings(enable_annotations=patterns), {f"{HYPERVISOR}memory_slots": "4"}
        )
        assert (not faults) == permitted


def test_openshifts_overhead_and_the_cgroup_need_no_permission() -> None:
    wanted = {MEMORY_OVERHEAD: "350", "io.katacontainers.config.runtime.sandbox_cgroup_only": "true"}
    settings, faults = with_annotations(VmSettings(), wanted)
    assert (settings.memory_overhead_bytes, settings.cgroup_only, faults) == (350 * MIB, True, ())


def test_openshifts_overhead_is_the_go_runtimes_alone() -> None:
    assert with_annotations(RUST, {MEMORY_OVERHEAD: "0"})[0] == RUST


def test_huge_pages_say_where_the_memory_lives() -> None:
    permitted = VmSettings(enable_annotations=("enable_hugepages",))
    key = f"{HYPERVISOR}enable_hugepages"
    assert with_annotations(permitted, {key: "true"})[0].memory_in == "hugepages"
    assert with_annotations(replace(permitted, memory_in="hugepages"), {key: "false"})[0].memory_in == "shm"


names = st.sampled_from(
    [f"{HYPERVISOR}{n}" for n in ("default_memory", "memory_slots", "default_vcpus", "x")] + [MEMORY_OVERHEAD]
)


@given(st.dictionaries(names | st.text(max_size=60), st.text(max_size=60)))
def test_any_annotation_leaves_settings_that_can_be_reckoned_with(annotations: dict[str, str]) -> None:
    for settings in (replace(GO, enable_annotations=(".*",)), replace(RUST, enable_annotations=(".*",))):
        found, faults = with_annotations(settings, annotations)
        assert found.default_memory_bytes >= 64 * MIB
        assert found.slots > 0
        assert all(fault.message.isprintable() for fault in faults)
