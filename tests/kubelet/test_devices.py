import asyncio

from kata_node_agent.capacity.devices import DevicePlan, Limit
from kata_node_agent.kubelet.devices import RELEASE_GRACE_SECONDS, DeviceTable, Holdings

LIMIT = Limit("x", "because")


def plan(total: int, free: int, in_use: frozenset[int] = frozenset()) -> DevicePlan:
    return DevicePlan(total=total, in_use=in_use, free=free, limit=LIMIT)


def test_the_list_names_every_place_with_its_health() -> None:
    async def main() -> None:
        table = DeviceTable()
        assert table.update(plan(3, 1, frozenset({2})))
        shown = [(device.ID, device.health) for device in table.message().devices]
        assert shown == [("kata-000000", "Healthy"), ("kata-000001", "Unhealthy"), ("kata-000002", "Healthy")]

    asyncio.run(main())


def test_only_what_kubelet_would_see_wakes_the_streams() -> None:
    async def main() -> None:
        table = DeviceTable()
        table.update(plan(3, 3))
        generation = table.generation
        # Another device in use, the same ids healthy.
        assert not table.update(plan(3, 2, frozenset({0})))
        assert table.generation == generation
        waiter = asyncio.create_task(table.wait_beyond(generation))
        await asyncio.sleep(0)
        assert table.update(plan(3, 0, frozenset({0})))
        assert await asyncio.wait_for(waiter, 1) == generation + 1

    asyncio.run(main())


def test_a_device_is_given_back_after_two_answers_without_it_and_the_grace() -> None:
    holdings = Holdings()
    holdings.allocated([1], now=0)
    late = RELEASE_GRACE_SECONDS
    assert not holdings.reconcile({}, now=late, connected_since=-late)
    assert holdings.reconcile({}, now=late + 1, connected_since=-late)
    assert holdings.indices == frozenset()


def test_empty_answers_just_after_kubelets_start_give_nothing_back() -> None:
    holdings = Holdings()
    holdings.allocated([1], now=-1000)
    for second in range(int(RELEASE_GRACE_SECONDS)):
        holdings.reconcile({}, now=second, connected_since=0)
    assert holdings.indices == frozenset({1})


def test_a_device_just_allocated_is_kept_though_no_pod_names_it_yet() -> None:
    holdings = Holdings()
    holdings.reconcile({}, now=0, connected_since=-1000)
    holdings.allocated([1], now=100)
    for second in range(101, 150):
        holdings.reconcile({}, now=second, connected_since=-1000)
    assert holdings.indices == frozenset({1})


def test_devices_of_an_earlier_agent_are_learnt_from_kubelet() -> None:
    holdings = Holdings()
    assert holdings.reconcile({4: "a/b", 7: "a/c"}, now=0, connected_since=0)
    assert holdings.indices == frozenset({4, 7})


def test_an_answer_that_names_a_device_again_starts_the_count_anew() -> None:
    holdings = Holdings()
    holdings.allocated([1], now=0)
    late = 2 * RELEASE_GRACE_SECONDS
    for second, named in enumerate([{}, {1: "a/b"}, {}, {1: "a/b"}, {}]):
        holdings.reconcile(named, now=late + second, connected_since=0)
    assert holdings.indices == frozenset({1})


def test_devices_know_whose_they_are_once_kubelet_has_said_it() -> None:
    holdings = Holdings()
    holdings.allocated([1], now=0)
    assert holdings.pods == {1: ""}
    assert holdings.reconcile({1: "default/web"}, now=1, connected_since=0)
    assert holdings.pods == {1: "default/web"}
    assert not holdings.reconcile({1: "default/web"}, now=2, connected_since=0)


def test_what_an_agent_before_us_was_told_is_held_as_if_we_had_been() -> None:
    holdings = Holdings()
    holdings.restore(3, since=0, pod="default/web")
    assert not holdings.reconcile({}, now=1000, connected_since=990)
    assert holdings.indices == frozenset({3})
