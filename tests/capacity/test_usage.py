from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.capacity.oddities import Oddities, explain
from kata_node_agent.capacity.usage import MemoryUse, alert_fires, findings, outside_pods_bytes, signals

GIB, MIB = 1 << 30, 1 << 20
# The document's example: 32Gi, 3Gi for the system, 100Mi of threshold.
EXAMPLE = MemoryUse(
    capacity_bytes=32 * GIB,
    reserved_bytes=3 * GIB,
    allocatable_bytes=32 * GIB - 3 * GIB - 100 * MIB,
    eviction_hard="100Mi",
    root_working_set_bytes=20 * GIB,
    system_rss_bytes=GIB,
    system_working_set_bytes=2 * GIB,
    pods_limit_bytes=29 * GIB,
    pods_working_set_bytes=18 * GIB,
    available_bytes=11 * GIB,
)


def reasons(use: MemoryUse) -> list[str]:
    return [finding.reason for finding in findings(use)]


def test_both_signals_and_their_distance_to_the_threshold() -> None:
    now = signals(EXAMPLE)
    assert (now.memory_available_bytes, now.until_eviction_bytes) == (12 * GIB, 12 * GIB - 100 * MIB)
    assert (now.pods_available_bytes, now.pods_until_eviction_bytes) == (11 * GIB, 11 * GIB - 100 * MIB)
    assert reasons(EXAMPLE) == []


def test_pods_are_evicted_at_28_9_gi_while_the_node_has_memory() -> None:
    full = replace(EXAMPLE, root_working_set_bytes=29 * GIB, pods_working_set_bytes=29 * GIB - 99 * MIB)
    assert signals(full).pods_until_eviction_bytes == -MIB
    assert reasons(full) == ["EvictionUnderWay"]


def test_a_percentage_counts_of_each_signals_own_capacity() -> None:
    now = signals(replace(EXAMPLE, eviction_hard="10%"))
    assert now.until_eviction_bytes == 12 * GIB - int(32 * GIB * 0.10000000149011612)
    assert now.pods_until_eviction_bytes == 11 * GIB - int(29 * GIB * 0.10000000149011612)


def test_without_a_threshold_nothing_is_evicted() -> None:
    for threshold in ("", "0%", "100%"):
        assert signals(replace(EXAMPLE, eviction_hard=threshold)).until_eviction_bytes is None


def test_what_is_not_known_makes_no_finding() -> None:
    bare = MemoryUse(capacity_bytes=32 * GIB, eviction_hard="100Mi")
    assert signals(bare).memory_available_bytes is None
    assert alert_fires(bare) is None
    assert reasons(bare) == []


def test_more_used_than_there_is_leaves_nothing() -> None:
    now = signals(replace(EXAMPLE, root_working_set_bytes=33 * GIB))
    assert (now.memory_available_bytes, now.until_eviction_bytes) == (0, -100 * MIB)


def test_the_alert_fires_at_95_percent_of_capacity_less_allocatable() -> None:
    kept = 3 * GIB + 100 * MIB
    at = replace(EXAMPLE, system_rss_bytes=kept * 95 // 100)
    assert alert_fires(at) is False
    above = replace(EXAMPLE, system_rss_bytes=kept * 95 // 100 + 1)
    assert alert_fires(above) is True
    assert "SystemMemoryExceedsReservation" in reasons(above)


def test_what_the_alert_does_not_see_is_said() -> None:
    blind = replace(
        EXAMPLE, pods_working_set_bytes=16 * GIB, kata_overhead_bytes=512 * MIB, system_swap_bytes=200 * MIB
    )
    assert outside_pods_bytes(blind) == 4 * GIB
    found = {finding.reason: finding for finding in findings(blind)}
    assert set(found) == {"ReservationExceeded", "AlertIsBlind", "KataOutsidePods"}
    text = found["AlertIsBlind"].message
    assert "1Gi of file cache" in text
    assert "512Mi in /kata_overhead" in text
    assert "200Mi of the system in swap" in text


def test_the_kernel_may_run_out_while_kubelet_sees_plenty() -> None:
    short = replace(
        EXAMPLE, available_bytes=50 * MIB, slab_bytes=8 * GIB, page_tables_bytes=GIB, hugetlb_bytes=GIB
    )
    found = {finding.reason: finding for finding in findings(short)}
    assert set(found) == {"KubeletSeesTooMuch", "MemoryUnseen"}
    assert "slab 8Gi, page tables 1Gi, huge pages 1Gi" in found["MemoryUnseen"].message


def test_waiting_for_memory_is_a_problem() -> None:
    assert reasons(replace(EXAMPLE, pressure_percent=12.5)) == ["MemoryStalls"]


numbers = st.none() | st.integers(0, 1 << 45)


@given(
    capacity=st.integers(1, 1 << 45), reserved=st.integers(0, 1 << 45), root=numbers, rss=numbers, pods=numbers,
    limit=numbers, available=numbers, slab=numbers, threshold=st.sampled_from(["", "0", "100Mi", "5%", "1Ti"]),
)  # fmt: skip
def test_any_figures_give_findings_with_words_and_problems_with_remedies(
    capacity: int, reserved: int, root: int | None, rss: int | None, pods: int | None, limit: int | None,
    available: int | None, slab: int | None, threshold: str,
) -> None:  # fmt: skip
    use = MemoryUse(
        capacity,
        reserved,
        max(0, capacity - reserved),
        threshold,
        root,
        rss,
        rss,
        limit,
        pods,
        slab,
        available,
        slab,
    )
    for finding in findings(use):
        assert finding.message
        assert finding.remedy or not finding.problem
    now = signals(use)
    assert now.memory_available_bytes is None or now.memory_available_bytes >= 0


def test_memory_that_pods_cannot_have_is_explained() -> None:
    odd = Oddities(
        capacity_bytes=32 * GIB,
        offline_blocks=8,
        offline_bytes=8 * 128 * MIB,
        hugepages_bytes=4 * GIB,
        hugepages_free_bytes=GIB,
        hugepages_surplus_bytes=512 * MIB,
        cma_bytes=2 * GIB,
        cma_free_bytes=GIB,
        block_bytes=35 * GIB,
        crash_kernel_bytes=GIB,
    )
    found = {finding.reason: finding.message for finding in explain(odd)}
    assert "8 memory blocks (1Gi) are offline" in found["MemoryBlocksOffline"]
    assert "4Gi is set aside as huge pages, 1Gi of it free, 512Mi of it surplus" in found["HugepagesSetAside"]
    assert "2Gi is the area" in found["CmaArea"]
    assert "3Gi was taken at boot, 1Gi of it for a crash kernel" in found["MemoryTakenAtBoot"]
    assert list(explain(Oddities(32 * GIB))) == []
    # What every kernel takes for itself is no oddity.
    assert list(explain(Oddities(32 * GIB, block_bytes=33 * GIB))) == []
