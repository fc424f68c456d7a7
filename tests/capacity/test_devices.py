import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.capacity.devices import Limit, device_id, device_index, plan_devices
from kata_node_agent.config.schema import MAX_SLOTS
from kata_node_agent.pb import deviceplugin_pb2 as pb

BLOCKED = Limit("eligibility", "not eligible")


def test_as_many_as_fit_are_healthy_and_memory_is_named_as_the_limit() -> None:
    plan = plan_devices(allocatable_bytes=100, cost_of_one_bytes=30, max_slots=10, in_use=[], blocked=None)
    assert (plan.total, plan.healthy_indices, plan.limit.name) == (3, [0, 1, 2], "allocatable_memory")


def test_max_slots_is_named_when_it_is_the_limit() -> None:
    plan = plan_devices(allocatable_bytes=100, cost_of_one_bytes=10, max_slots=4, in_use=[], blocked=None)
    assert (plan.total, plan.limit.name) == (4, "max_slots")


def test_a_blocked_node_keeps_devices_in_use_healthy() -> None:
    plan = plan_devices(
        allocatable_bytes=100, cost_of_one_bytes=10, max_slots=10, in_use=[3, 7], blocked=BLOCKED
    )
    assert plan.indices == list(range(10))
    assert plan.healthy_indices == [3, 7]
    assert plan.limit == BLOCKED


def test_devices_in_use_beyond_a_smaller_node_stay_listed_and_healthy() -> None:
    plan = plan_devices(allocatable_bytes=20, cost_of_one_bytes=10, max_slots=10, in_use=[1, 9], blocked=None)
    assert plan.indices == [0, 1, 9]
    assert plan.healthy_indices == [1, 9]


@given(
    st.integers(0, 500),
    st.integers(1, 50),
    st.integers(0, 100),
    st.sets(st.integers(0, 120)),
    st.sampled_from([None, BLOCKED]),
)
def test_never_fewer_healthy_than_in_use_and_never_more_than_fit(
    allocatable: int, cost: int, max_slots: int, in_use: set[int], blocked: Limit | None
) -> None:
    plan = plan_devices(
        allocatable_bytes=allocatable,
        cost_of_one_bytes=cost,
        max_slots=max_slots,
        in_use=in_use,
        blocked=blocked,
    )
    healthy = set(plan.healthy_indices)
    assert in_use <= healthy <= set(plan.indices)
    assert len(healthy - in_use) == plan.free
    assert len(healthy) <= max(len(in_use), min(allocatable // cost, max_slots))


@pytest.mark.parametrize(
    "name", ["kata-0", "kata-0000001", "kata-", "kata-٠٠٠٠٠٠", "KATA-000000", "000000", "kata-99999999999999"]
)
def test_only_our_own_ids_have_an_index(name: str) -> None:
    assert device_index(name) is None


@given(st.integers(0, 10**8))
def test_ids_and_indices_are_each_others_inverse(index: int) -> None:
    assert device_index(device_id(index)) == index


def test_the_most_slots_fit_one_message_and_one_more_does_not() -> None:
    one = pb.Device(ID=device_id(MAX_SLOTS), health="Unhealthy")
    each = len(pb.ListAndWatchResponse(devices=[one]).SerializeToString())
    assert each * MAX_SLOTS <= 4 * 1024 * 1024 < each * (MAX_SLOTS + 1)
