import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from kata_node_agent.config.schema import Mode
from kata_node_agent.devkubelet.kubelet import DevKubelet
from kata_node_agent.kubelet.service import DevicePluginService
from kata_node_agent.ledger.gate import Decision
from kata_node_agent.pb import deviceplugin_pb2 as pb
from kata_node_agent.pb import deviceplugin_pb2_grpc
from tests.kubelet.support import WHY, Plugin, plugin_and_kubelet

Container = pb.ContainerAllocateRequest


def call(folder: Path, method: str, request: object, *, free: int = 4, mode: Mode = Mode.ENFORCE) -> Any:
    """One call to a plugin with four devices, of which `free` are healthy, as kubelet makes it."""

    async def main() -> Any:
        async with plugin_and_kubelet(folder) as (plugin, _):
            plugin.mode = mode
            plugin.show(free)
            endpoint = plugin.registrar.endpoint
            assert endpoint is not None
            async with grpc.aio.insecure_channel(f"unix:{endpoint.path}") as channel:
                return await getattr(deviceplugin_pb2_grpc.DevicePluginStub(channel), method)(request)

    return asyncio.run(main())


def allocate(
    folder: Path, *containers: list[str], free: int = 4, mode: Mode = Mode.ENFORCE
) -> pb.AllocateResponse:
    request = pb.AllocateRequest(container_requests=[Container(devices_ids=names) for names in containers])
    answer = call(folder, "Allocate", request, free=free, mode=mode)
    assert isinstance(answer, pb.AllocateResponse)
    return answer


def test_every_container_gets_an_answer(short_dir: Path) -> None:
    answer = allocate(short_dir, ["kata-000000"], ["kata-000001", "kata-000002"])
    assert len(answer.container_responses) == 2


@pytest.mark.parametrize(
    ("containers", "code", "words"),
    [
        ([], grpc.StatusCode.INVALID_ARGUMENT, "no container"),
        ([[]], grpc.StatusCode.INVALID_ARGUMENT, "no device ids"),
        ([["kata-000009"]], grpc.StatusCode.NOT_FOUND, "unknown device 'kata-000009'"),
        ([["../../etc/passwd"]], grpc.StatusCode.NOT_FOUND, "unknown device '../../etc/passwd'"),
        ([["x" * 1000]], grpc.StatusCode.NOT_FOUND, "…"),
        ([["kata-000001", "kata-000001"]], grpc.StatusCode.INVALID_ARGUMENT, "asked for twice"),
        ([["kata-000001"], ["kata-000001"]], grpc.StatusCode.INVALID_ARGUMENT, "asked for twice"),
    ],
)
def test_senseless_ids_are_refused_with_the_reason(
    short_dir: Path, containers: list[list[str]], code: grpc.StatusCode, words: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        allocate(short_dir, *containers)
    assert caught.value.code() is code
    assert words in (caught.value.details() or "")


def test_unhealthy_device_is_refused_with_what_limits(short_dir: Path) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        allocate(short_dir, ["kata-000003"], free=2)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert WHY in (caught.value.details() or "")


@pytest.mark.parametrize("mode", [Mode.WARN, Mode.OFF])
def test_other_modes_refuse_no_pod(short_dir: Path, mode: Mode) -> None:
    assert allocate(short_dir, ["kata-000003"], free=0, mode=mode).container_responses


def test_preferred_are_those_that_must_be_then_the_lowest(short_dir: Path) -> None:
    part = pb.ContainerPreferredAllocationRequest(
        available_deviceIDs=["kata-000003", "kata-000001", "kata-000002"],
        must_include_deviceIDs=["kata-000002"],
        allocation_size=2,
    )
    answer = call(
        short_dir, "GetPreferredAllocation", pb.PreferredAllocationRequest(container_requests=[part])
    )
    assert list(answer.container_responses[0].deviceIDs) == ["kata-000002", "kata-000001"]


@pytest.mark.parametrize("size", [-1, 0, 3])
def test_impossible_preference_is_refused(short_dir: Path, size: int) -> None:
    part = pb.ContainerPreferredAllocationRequest(
        available_deviceIDs=["kata-000001"], must_include_deviceIDs=["kata-000002"], allocation_size=size
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        call(short_dir, "GetPreferredAllocation", pb.PreferredAllocationRequest(container_requests=[part]))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_each_change_of_the_table_reaches_kubelet(short_dir: Path) -> None:
    async def main() -> None:
        async with plugin_and_kubelet(short_dir) as (plugin, kubelet):
            for free in (0, 3, 1, 4):
                plugin.show(free)
                await kubelet.wait_for_devices(free)
                assert kubelet.counts().capacity == 4

    asyncio.run(main())


def test_devices_in_use_stay_healthy_when_the_node_is_not_eligible_any_more(short_dir: Path) -> None:
    async def main() -> None:
        async with plugin_and_kubelet(short_dir) as (plugin, kubelet):
            pod = await kubelet.admit("default", "a", {"main": 1})
            assert pod.phase == "Running", pod
            plugin.show(0)
            await kubelet.wait_for_devices(1)

    asyncio.run(main())


def test_a_refusal_reaches_the_pods_owner(short_dir: Path) -> None:
    async def main() -> None:
        async with plugin_and_kubelet(short_dir) as (plugin, kubelet):
            # Health falls while kubelet has not heard of it yet.
            plugin.table.healthy = frozenset()
            pod = await kubelet.admit("default", "a", {"main": 1})
            assert pod.reason == "UnexpectedAdmissionError"
            assert WHY in pod.message

    asyncio.run(main())


@pytest.mark.parametrize("total", [0, 1, 100_000])
def test_kubelet_sees_any_number_of_devices(short_dir: Path, total: int) -> None:
    async def main() -> None:
        async with plugin_and_kubelet(short_dir, total) as (_, kubelet):
            assert kubelet.counts().allocatable == total

    asyncio.run(main())


def test_the_stream_ends_when_the_plugin_ends(short_dir: Path) -> None:
    async def main() -> None:
        from kata_node_agent.devkubelet.kubelet import DevKubelet

        async with DevKubelet(short_dir / "dp") as kubelet:
            async with Plugin(short_dir / "dp").running() as plugin:
                await kubelet.wait_for_devices(4)
                assert plugin.registrar.stream_open
            await kubelet.wait_for_devices(0)
            assert not list((short_dir / "dp").glob("katacontainers*.sock"))

    asyncio.run(main())


@pytest.mark.parametrize("held", [True, False])
def test_a_device_of_a_pod_that_has_just_ended_is_refused_after_another_look_only(
    short_dir: Path, held: bool
) -> None:
    """Kubelet gives it to the next pod as soon as the first has ended, and that one would fail for good."""
    looks: list[int] = []
    refusal = Decision(False, "NotEnoughMemory", "no room")

    async def look_again() -> None:
        looks.append(1)

    class Full(Plugin):
        def service(self) -> DevicePluginService:
            return DevicePluginService(
                self.table, self.holdings, lambda: self.mode, lambda: None,
                lambda indices: Decision(True, "Fits", "") if looks else refusal, look_again,
            )  # fmt: skip

    async def main() -> None:
        async with DevKubelet(short_dir / "dp") as kubelet, Full(short_dir / "dp").running() as plugin:
            await kubelet.wait_for_devices(4)
            if held:
                plugin.holdings.allocated({0}, 0.0)
            pod = await kubelet.admit("default", "a", {"main": 1})
            assert (pod.phase, len(looks)) == (("Running", 1) if held else ("Failed", 0)), pod

    asyncio.run(main())
