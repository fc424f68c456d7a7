import pytest

from kata_node_agent.advice.openshift import newer_bytes, newer_millicores, older_bytes

GIB = 1 << 30


@pytest.mark.parametrize(
    ("total", "newer", "older"),
    # 64 → 4.36 and 5.48, 256 → 10.44 and 11.88 before they are rounded.
    [(0, 1, 0), (4, 1, 1), (8, 1, 2), (16, 1, 3), (64, 4, 5), (128, 8, 9), (129, 8, 9), (256, 10, 12)],
)
def test_memory_by_both_generations(total: int, newer: int, older: int) -> None:
    assert (newer_bytes(total * GIB), older_bytes(total * GIB)) == (newer * GIB, older * GIB)


def test_memory_is_what_free_prints_in_whole_gib() -> None:
    assert newer_bytes(65 * GIB - 1) == newer_bytes(64 * GIB)


@pytest.mark.parametrize(
    ("cpus", "millicores"), [(1, 500), (4, 500), (37, 500), (38, 500), (64, 820), (128, 1580)]
)
def test_cpu_has_a_floor_and_is_in_hundredths(cpus: int, millicores: int) -> None:
    assert newer_millicores(cpus) == millicores
