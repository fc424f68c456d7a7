"""Pods given to the development kubelet: admission, refusal, restart, the pod resources API."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from kata_node_agent.devkubelet import checkpoint, events
from kata_node_agent.devkubelet.kubelet import DevKubelet, Timing
from kata_node_agent.devkubelet.names import SANDBOX_RESOURCE
from kata_node_agent.devkubelet.pods import PodError
from kata_node_agent.pb import deviceplugin_pb2 as pb
from kata_node_agent.pb import podresources_pb2, podresources_pb2_grpc
from tests.devkubelet.support import TinyPlugin

if TYPE_CHECKING:
    from pathlib import Path


async def listed(kubelet: DevKubelet) -> dict[str, dict[str, list[str]]]:
    """What the pod resources API says: pod → container → device ids."""
    glue: Any = podresources_pb2_grpc
    async with grpc.aio.insecure_channel(f"unix:{kubelet.pod_resources_socket}") as channel:
        answer = await glue.PodResourcesListerStub(channel).List(podresources_pb2.ListPodResourcesRequest())
    return {
        f"{pod.namespace}/{pod.name}": {
            container.name: [id_ for devices in container.devices for id_ in devices.device_ids]
            for container in pod.containers
        }
        for pod in answer.pod_resources
    }


def test_a_pod_gets_free_healthy_devices_by_one_allocate_for_each_container(directory: Path) -> None:
    async def main() -> None:
        async with (
            DevKubelet(directory) as kubelet,
            TinyPlugin(directory, device_ids=("d0", "d1", "d2", "d3")) as plugin,
        ):
            await plugin.change(unhealthy=("d0",))
            await kubelet.wait_for_devices(3)
            pod = await kubelet.admit("default", "web", {"main": 1, "helper": 2, "none": 0})
            assert pod.phase == "Running"
            assert plugin.allocated == [["d1"], ["d2", "d3"]]
            assert await listed(kubelet) == {
                "default/web": {"main": ["d1"], "helper": ["d2", "d3"], "none": []}
            }
            assert kubelet.counts().in_use == 3
            kubelet.delete("default", "web")
            assert await listed(kubelet) == {}
            assert kubelet.counts().in_use == 0

    asyncio.run(main())


def test_the_plugin_says_which_devices_it_would_like_to_be_taken(directory: Path) -> None:
    async def main() -> None:
        options = pb.DevicePluginOptions(get_preferred_allocation_available=True)
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory, options=options) as plugin:
            await kubelet.wait_for_devices(2)
            plugin.preference = ["not-there", "d1"]
            assert kubelet.device_ids(await kubelet.admit("default", "web", {"main": 1})) == ("d1",)

    asyncio.run(main())


def test_a_refusal_fails_the_pod_with_kubelets_words_around_the_plugins(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory) as plugin:
            await kubelet.wait_for_devices(2)
            plugin.refusal = "no memory left for a VM"
            pod = await kubelet.admit("default", "web", {"main": 1})
            assert (pod.phase, pod.reason) == ("Failed", "UnexpectedAdmissionError")
            assert pod.message == (
                "Pod was rejected: Allocate failed due to rpc error: code = ResourceExhausted "
                "desc = no memory left for a VM, which is unexpected"
            )
            assert kubelet.counts().in_use == 0
            assert await listed(kubelet) == {}

    asyncio.run(main())


def test_a_pod_whose_second_container_is_refused_keeps_nothing(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory) as plugin:
            await kubelet.wait_for_devices(2)
            pod = await kubelet.admit("default", "web", {"main": 1, "helper": 2})
            assert pod.message == (
                f"Pod was rejected: Allocate failed due to requested number of devices unavailable for "
                f"{SANDBOX_RESOURCE}. Requested: 2, Available: 1, which is unexpected"
            )
            assert plugin.allocated == [["d0"]]
            assert kubelet.counts().in_use == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (False, f"cannot allocate unregistered device {SANDBOX_RESOURCE}"),
        (True, f"no healthy devices present; cannot allocate unhealthy devices {SANDBOX_RESOURCE}"),
    ],
)
def test_without_a_plugin_a_pod_fails_for_good(directory: Path, known: bool, text: str) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet:
            if known:
                async with TinyPlugin(directory):
                    await kubelet.wait_for_devices(2)
                await kubelet.wait_for_devices(0)
            pod = await kubelet.admit("default", "web", {"main": 1})
            assert pod.phase == "Failed"
            assert text in pod.message

    asyncio.run(main())


def test_admissions_come_one_after_the_other_however_slow_the_plugin(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory) as plugin:
            await kubelet.wait_for_devices(2)
            plugin.slow_seconds = 0.1
            pods = await asyncio.gather(
                *(kubelet.admit("default", f"web-{number}", {"main": 1}) for number in range(2))
            )
            assert [pod.phase for pod in pods] == ["Running", "Running"]
            assert plugin.most_busy == 1

    asyncio.run(main())


def test_overhead_counts_against_the_node_without_a_device(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory) as plugin:
            await kubelet.wait_for_devices(2)
            for name in ("one", "two"):
                assert (await kubelet.admit("default", name, {"main": 0}, overhead=1)).phase == "Running"
            assert plugin.allocated == []
            pod = await kubelet.admit("default", "three", {"main": 0}, overhead=1)
            assert pod.reason == f"OutOf{SANDBOX_RESOURCE}"
            assert pod.message == (
                f"Pod was rejected: Node didn't have enough resource: {SANDBOX_RESOURCE}, "
                "requested: 1, used: 2, capacity: 2"
            )
            # Devices are free, and Allocate is called before the node as a whole is looked at.
            assert (await kubelet.admit("default", "four", {"main": 1})).reason == f"OutOf{SANDBOX_RESOURCE}"
            assert plugin.allocated == [["d0"]]

    asyncio.run(main())


def test_pre_start_is_called_where_required_and_tried_again_after_an_error(directory: Path) -> None:
    async def main() -> None:
        timing = Timing(pre_start_retry_seconds=0.05)
        options = pb.DevicePluginOptions(pre_start_required=True)
        async with (
            DevKubelet(directory, timing=timing) as kubelet,
            TinyPlugin(directory, options=options) as plugin,
        ):
            await kubelet.wait_for_devices(2)
            plugin.pre_start_refusals = 1
            pod = await kubelet.admit("default", "web", {"main": 1})
            assert (pod.phase, pod.reason) == ("Pending", "CreateContainerConfigError")
            assert pod.message == (
                "device plugin PreStartContainer rpc failed with err: rpc error: code = Internal "
                "desc = not yet"
            )
            await kubelet.log.wait(lambda: bool(kubelet.log.of(events.PodAdmitted)), 3, "start")
            assert plugin.pre_started == [["d0"]]
            assert kubelet.pods()[0].phase == "Running"

    asyncio.run(main())


def test_pods_keep_their_devices_over_a_restart_and_nothing_is_allocated_again(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory) as plugin:
            await kubelet.wait_for_devices(2)
            await kubelet.admit("default", "web", {"main": 1})
            await kubelet.crash()
        # Another process would start like this.
        async with DevKubelet(directory) as kubelet:
            assert await listed(kubelet) == {"default/web": {"main": ["d0"]}}
            async with TinyPlugin(directory, "again.sock") as plugin:
                await kubelet.wait_for_devices(2)
                await kubelet.admit("default", "api", {"main": 1})
                assert plugin.allocated == [["d1"]]

    asyncio.run(main())


@pytest.mark.parametrize("in_time", [True, False])
def test_pods_with_overhead_survive_a_restart_only_if_the_plugin_is_back_at_once(
    directory: Path, in_time: bool
) -> None:
    async def main() -> None:
        async with DevKubelet(directory, timing=Timing(readmission_seconds=0.3)) as kubelet:
            async with TinyPlugin(directory):
                await kubelet.wait_for_devices(2)
                await kubelet.admit("default", "counted", {"main": 0}, overhead=1)
                await kubelet.admit("default", "holds", {"main": 1})
                await kubelet.restart()
            if not in_time:
                await asyncio.sleep(0.5)
            async with TinyPlugin(directory, "again.sock"):
                await kubelet.wait_for_devices(2)
                await asyncio.sleep(0.5)
                phases = {pod.name: pod.phase for pod in kubelet.pods()}
                assert phases == {"counted": "Running" if in_time else "Failed", "holds": "Running"}

    asyncio.run(main())


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"pods": 1}', '{"pods": [{}], "holdings": [], "resources": []}', "[" * 100_000],
)
def test_a_checkpoint_that_makes_no_sense_is_reported_and_forgotten(directory: Path, content: str) -> None:
    directory.mkdir()
    (directory / checkpoint.FILE_NAME).write_text(content)

    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory):
            await kubelet.wait_for_devices(2)
            assert len(kubelet.log.of(events.CheckpointUnreadable)) == 1
            assert kubelet.pods() == ()

    asyncio.run(main())


def test_pod_resources_may_be_empty_for_a_while_after_a_start(directory: Path) -> None:
    async def main() -> None:
        timing = Timing(pod_resources_empty_seconds=0.3)
        async with DevKubelet(directory, timing=timing) as kubelet, TinyPlugin(directory):
            await kubelet.wait_for_devices(2)
            await kubelet.admit("default", "web", {"main": 1})
            assert await listed(kubelet) == {}
            await asyncio.sleep(0.4)
            assert await listed(kubelet) == {"default/web": {"main": ["d0"]}}

    asyncio.run(main())


def test_a_pod_of_a_name_that_is_there_and_one_that_is_not_are_errors(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory):
            await kubelet.wait_for_devices(2)
            await kubelet.admit("default", "web", {"main": 1})
            with pytest.raises(PodError, match="already here"):
                await kubelet.admit("default", "web", {"main": 1})
            with pytest.raises(PodError, match="not here"):
                kubelet.delete("default", "api")

    asyncio.run(main())


def test_a_kubelet_that_dies_during_an_allocate_does_not_know_the_pod_afterwards(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory) as plugin:
            await kubelet.wait_for_devices(2)
            plugin.slow_seconds = 10
            admission = asyncio.create_task(kubelet.admit("default", "web", {"main": 1}))
            while not plugin.busy:
                await asyncio.sleep(0.01)
            await kubelet.restart()
            assert (await admission).phase == "Failed"
            assert kubelet.pods() == ()
            assert kubelet.counts().in_use == 0

    asyncio.run(main())


def test_a_checkpoint_that_cannot_be_written_is_reported_and_kubelet_goes_on(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory):
            await kubelet.wait_for_devices(2)
            monkeypatch.setattr(checkpoint, "write", full)
            assert (await kubelet.admit("default", "web", {"main": 1})).phase == "Running"
            assert "ENOSPC" in kubelet.log.of(events.CheckpointUnwritable)[0].message

    asyncio.run(main())
