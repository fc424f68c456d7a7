import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.capacity.pod import (
    Container,
    Pod,
    Role,
    cgroup_limit_bytes,
    cpu_limits_millicores,
    limit_of,
    memory_limits_bytes,
    memory_requests_bytes,
)

GIB = 1 << 30
MIB = 1 << 20


def container(name: str, gib: float | None, role: Role = "main") -> Container:
    return Container(name, role, None if gib is None else int(gib * GIB))


@pytest.mark.parametrize(
    ("containers", "wanted_gib"),
    [
        ((), 0),
        ((container("a", 1), container("b", 2)), 3),
        # An init container runs alone: the larger of it and the main containers.
        ((container("i", 5, "init"), container("a", 1)), 5),
        ((container("i", 1, "init"), container("j", 2, "init"), container("a", 1)), 2),
        # Sidecars run beside the init containers after them, and beside the main ones.
        ((container("s", 1, "sidecar"), container("i", 5, "init"), container("a", 1)), 6),
        ((container("i", 5, "init"), container("s", 1, "sidecar"), container("a", 1)), 5),
        ((container("s", 1, "sidecar"), container("a", 1)), 2),
        ((container("a", 1), container("b", None)), 1),
        ((container("a", 1), container("debug", None, "ephemeral")), 1),
    ],
)
def test_limits_are_the_most_that_runs_at_one_time(
    containers: tuple[Container, ...], wanted_gib: int
) -> None:
    assert memory_limits_bytes(Pod(containers)) == wanted_gib * GIB


def test_a_pod_level_limit_counts_for_the_pod_and_for_containers_without_one() -> None:
    pod = Pod((container("a", 1), container("b", None)), memory_limit_bytes=4 * GIB, overhead_bytes=MIB)
    assert memory_limits_bytes(pod) == 4 * GIB
    assert [limit_of(pod, each) for each in pod.containers] == [GIB, 4 * GIB]
    assert cgroup_limit_bytes(pod) == 4 * GIB + MIB


def test_one_container_without_a_limit_leaves_the_pods_cgroup_without_one() -> None:
    limited, free = container("a", 6), container("b", None)
    assert cgroup_limit_bytes(Pod((limited,), overhead_bytes=350 * MIB)) == 6 * GIB + 350 * MIB
    assert cgroup_limit_bytes(Pod((limited, free), overhead_bytes=350 * MIB)) is None
    assert cgroup_limit_bytes(Pod((limited, container("debug", None, "ephemeral")))) == 6 * GIB
    assert cgroup_limit_bytes(Pod(overhead_bytes=350 * MIB)) is None


def test_a_limit_without_a_request_is_requested() -> None:
    asked = Container("a", memory_limit_bytes=2 * GIB, memory_request_bytes=GIB)
    assert memory_requests_bytes(Pod((asked, container("b", 3)))) == 4 * GIB
    assert memory_requests_bytes(Pod((asked,), memory_limit_bytes=5 * GIB)) == 5 * GIB
    assert (
        memory_requests_bytes(Pod((asked,), memory_limit_bytes=5 * GIB, memory_request_bytes=3 * GIB))
        == 3 * GIB
    )


def test_cpu_is_added_as_memory_is() -> None:
    containers = (Container("i", "init", cpu_limit_millicores=900), Container("a", cpu_limit_millicores=250))
    assert cpu_limits_millicores(Pod(containers)) == 900
    assert cpu_limits_millicores(Pod(containers, cpu_limit_millicores=2000)) == 2000


roles: st.SearchStrategy[Role] = st.sampled_from(("init", "sidecar", "main", "ephemeral"))
containers = st.lists(st.tuples(roles, st.none() | st.integers(1, 64 * GIB)), max_size=8).map(
    lambda found: tuple(Container(str(i), role, limit) for i, (role, limit) in enumerate(found))
)


@given(containers)
def test_limits_lie_between_the_largest_and_the_sum(found: tuple[Container, ...]) -> None:
    amounts = [c.memory_limit_bytes or 0 for c in found if c.role != "ephemeral"]
    assert max(amounts, default=0) <= memory_limits_bytes(Pod(found)) <= sum(amounts)
