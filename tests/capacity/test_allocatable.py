import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.capacity.allocatable import (
    MemoryBudget,
    Resources,
    allocatable,
    eviction_threshold_bytes,
)
from kata_node_agent.errors import QuantityError
from kata_node_agent.quantity import format_bytes, parse_bytes

GIB = 2**30


def budget(
    capacity: str, system: str = "0", kube: str = "0", eviction: str = "0", hugepages: str = "0"
) -> MemoryBudget:
    capacity_bytes = parse_bytes(capacity)
    return MemoryBudget(
        capacity_bytes,
        parse_bytes(system),
        parse_bytes(kube),
        eviction_threshold_bytes(eviction, capacity_bytes),
        parse_bytes(hugepages),
    )


def test_the_example_of_the_openshift_documentation() -> None:
    node = budget("32Gi", system="3Gi", eviction="100Mi")
    assert node.allocatable_bytes == 32 * GIB - 3 * GIB - 100 * 2**20
    assert format_bytes(node.allocatable_bytes) == "28.9Gi"


def test_never_below_zero() -> None:
    assert budget("1Gi", system="3Gi").allocatable_bytes == 0


def test_preallocated_hugepages_are_no_memory() -> None:
    assert budget("8Gi", hugepages="3Gi").allocatable_bytes == 5 * GIB


def test_percentage_is_kept_as_float32_like_kubelets() -> None:
    assert eviction_threshold_bytes("10%", 20 * GIB) == 2147483680


@pytest.mark.parametrize("threshold", ["", "0", "0%", "100%"])
def test_no_threshold(threshold: str) -> None:
    assert eviction_threshold_bytes(threshold, 20 * GIB) == 0


@pytest.mark.parametrize("threshold", ["%", "x%", "-1%", "101%", "nan%", "ten"])
def test_bad_threshold_is_a_typed_error(threshold: str) -> None:
    with pytest.raises(QuantityError):
        eviction_threshold_bytes(threshold, 20 * GIB)


NODE = Resources(
    memory_bytes=32 * GIB, cpu_millicores=8000, ephemeral_storage_bytes=100 * GIB, pids=4_194_304
)


def test_every_resource_is_less_its_reservations_and_its_threshold() -> None:
    left = allocatable(
        NODE,
        [
            {"memory": "3Gi", "cpu": "500m", "ephemeral-storage": "1Gi", "pid": "1000"},
            {"memory": "1Gi", "cpu": "0.1", "pid": "24"},
        ],
        {
            "memory.available": "100Mi",
            "nodefs.available": "10%",
            "pid.available": "5%",
            "imagefs.available": "15%",
        },
        hugepages_bytes=2 * GIB,
    )
    assert left.memory_bytes == 26 * GIB - 100 * 2**20
    assert left.cpu_millicores == 7400
    # 10 % as a float32 is a little more than 10 %.
    assert left.ephemeral_storage_bytes == 99 * GIB - 10737418400
    assert left.pids == 4_194_304 - 1024


def test_a_reservation_above_capacity_leaves_nothing() -> None:
    much = {"memory": "1Ti", "cpu": "9", "ephemeral-storage": "1Ti", "pid": "5M"}
    assert allocatable(NODE, [much], {}) == Resources(0, 0, 0, 0)


def test_what_the_node_has_not_told_stays_unknown() -> None:
    assert allocatable(Resources(memory_bytes=GIB), [{"cpu": "1"}], {"nodefs.available": "10%"}) == Resources(
        GIB
    )


def test_parts_of_a_millicore_are_added_before_they_are_rounded() -> None:
    left = allocatable(NODE, [{"cpu": "500u"}, {"cpu": "500u"}], {})
    assert left.cpu_millicores == 7999


@given(st.integers(0, 2**50), st.integers(0, 2**50), st.integers(0, 2**50), st.integers(0, 2**50))
def test_memory_agrees_with_the_budget(capacity: int, system: int, kube: int, eviction: int) -> None:
    reserved = [{"memory": str(system)}, {"memory": str(kube)}]
    left = allocatable(Resources(memory_bytes=capacity), reserved, {"memory.available": str(eviction)})
    assert left.memory_bytes == MemoryBudget(capacity, system, kube, eviction, 0).allocatable_bytes
