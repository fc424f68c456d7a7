import pytest

from kata_node_agent.capacity.allocatable import MemoryBudget, eviction_threshold_bytes
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


@pytest.mark.parametrize("threshold", ["", "0", "0%"])
def test_no_threshold(threshold: str) -> None:
    assert eviction_threshold_bytes(threshold, 20 * GIB) == 0


@pytest.mark.parametrize("threshold", ["%", "x%", "-1%", "101%", "nan%", "ten"])
def test_bad_threshold_is_a_typed_error(threshold: str) -> None:
    with pytest.raises(QuantityError):
        eviction_threshold_bytes(threshold, 20 * GIB)
