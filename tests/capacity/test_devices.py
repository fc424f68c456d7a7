import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.capacity.devices import Limit, device_id, device_index, plan_devices
from kata_node_agent.config.schema import MAX_SLOTS
from kata_node_agent.pb import deviceplugin_pb2 as pb

BLOCKED = Limit("eligibility", "not eligible")
MEMORY = Limit("allocatable_memory", "it is all promised")


def test_as_many_as_fit_are_healthy_beside_those_in_use() -> None:
    plan = plan_devices(by_size=8, fits=3, limit=MEMORY, max_slots=10, in_use=[1], without_device=2)
    assert (plan.total, plan.used, plan.free) == (8, 3, 3)
    assert plan.healthy_indices == [0, 1, 2, 3, 4, 5]
    assert plan.limit == MEMORY


def test_max_slots_is_named_when_it_is_the_limit() -> None:
    plan = plan_devices(by_size=10, fits=8, limit=MEMORY, max_slots=4, in_use=[0], without_device=1)
    assert (plan.total, plan.free, plan.limit.name) == (4, 2, "max_slots")
    assert "memory would allow 10" in plan.limit.message


def test_a_blocked_node_keeps_what_is_in_use_healthy() -> None:
    plan = plan_devices(
        by_size=10, fits=5, limit=MEMORY, max_slots=10, in_use=[3, 7], without_device=1, blocked=BLOCKED
    )
    assert plan.indices == list(range(10))
    assert plan.healthy_indices == [0, 3, 7]
    assert plan.limit == BLOCKED


def test_devices_in_use_beyond_a_smaller_node_stay_listed_and_healthy() -> None:
    plan = plan_devices(by_size=2, fits=0, limit=MEMORY, max_slots=10, in_use=[1, 9])
    assert plan.indices == [0, 1, 9]
    assert plan.healthy_indices == [1, 9]


def test_small_vms_may_be_more_than_the_node_has_places_by_its_size() -> None:
    plan = plan_devices(by_size=4, fits=2, limit=MEMORY, max_slots=10, in_use=[], without_device=4)
    assert (plan.total, len(plan.healthy_indices)) == (6, 6)


@given(
    by_size=st.integers(0, 50),
    fits=st.integers(0, 50),
    max_slots=st.integers(0, 100),
    in_use=st.sets(st.integers(0, 120)),
    without_device=st.integers(0, 60),
    blocked=st.sampled_from([None, BLOCKED]),
)
def test_never_fewer_healthy_than_in_use_and_never_more_than_fit(
    by_size: int, fits: int, max_slots: int, in_use: set[int], without_device: int, blocked: Limit | None
) -> None:
    plan = plan_devices(
        by_size=by_size,
        fits=fits,
        limit=MEMORY,
        max_slots=max_slots,
        in_use=in_use,
        without_device=without_device,
        blocked=blocked,
    )
    healthy = set(plan.healthy_indices)
    used = len(in_use) + without_device
    assert in_use <= healthy <= set(plan.indices)
    assert len(healthy) == used + plan.free
    assert len(healthy) <= max(used, max_slots)
    assert plan.free <= (0 if blocked else fits)
    assert (plan.limit == BLOCKED) == (blocked is not None)


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
