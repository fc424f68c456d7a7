"""The development kubelet at its sockets: registration, streams, restart."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import grpc
import pytest

from kata_node_agent.devkubelet import events
from kata_node_agent.devkubelet.kubelet import DevKubelet, Timing
from kata_node_agent.devkubelet.names import SANDBOX_RESOURCE
from kata_node_agent.errors import BusyError, SocketError
from kata_node_agent.kubelet.podresources import allocatable_devices
from tests.devkubelet.support import TinyPlugin

if TYPE_CHECKING:
    from pathlib import Path


async def allocatable(kubelet: DevKubelet) -> frozenset[str]:
    return await allocatable_devices(kubelet.pod_resources_socket, SANDBOX_RESOURCE)


QUICK = Timing(dial_timeout_seconds=0.3)


def leave_socket(path: Path) -> None:
    """A socket file that nobody serves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))


async def refusal(plugin: TinyPlugin, **request: str) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await plugin.register(**request)
    return caught.value.code(), caught.value.details() or ""


def test_every_socket_in_the_directory_is_deleted_at_start_and_nothing_else(directory: Path) -> None:
    leave_socket(directory / "old-plugin.sock")
    leave_socket(directory / "kubelet.sock")
    (directory / "notes").write_text("kept")

    async def main() -> None:
        async with DevKubelet(directory) as kubelet:
            assert kubelet.log.of(events.Started)[0].deleted_sockets == ("kubelet.sock", "old-plugin.sock")
            assert not (directory / "old-plugin.sock").exists()
            assert (directory / "notes").read_text() == "kept"
            assert kubelet.socket.is_socket()

    asyncio.run(main())


def test_between_the_wiped_directory_and_kubelet_sock_is_a_gap(directory: Path) -> None:
    leave_socket(directory / "old-plugin.sock")

    async def main() -> None:
        kubelet = DevKubelet(directory, timing=Timing(socket_delay_seconds=0.3))
        start = asyncio.create_task(kubelet.start())
        await asyncio.sleep(0.1)
        assert not (directory / "old-plugin.sock").exists()
        assert not kubelet.socket.exists()
        await start
        assert kubelet.socket.exists()
        await kubelet.crash()

    asyncio.run(main())


def test_a_plugin_that_serves_and_registers_shows_its_devices(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory) as plugin:
            assert (await kubelet.wait_for_devices(2)).capacity == 2
            assert plugin.options_asked == 1
            await plugin.change(unhealthy=("d1",))
            assert (await kubelet.wait_for_devices(1)).capacity == 2
            assert await allocatable(kubelet) == {"d0"}

    asyncio.run(main())


def test_a_plugin_that_registers_before_it_serves_is_refused(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory, timing=QUICK) as kubelet:
            plugin = TinyPlugin(directory)
            code, text = await refusal(plugin)
            assert code is grpc.StatusCode.UNKNOWN
            assert text == "failed to dial device plugin: context deadline exceeded"
            assert kubelet.log.of(events.RegistrationRefused)[0].endpoint == "tiny.sock"
            assert kubelet.resources() == []

    asyncio.run(main())


def test_a_plugin_that_serves_while_kubelet_still_dials_is_accepted(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet:
            plugin = TinyPlugin(directory)
            register = asyncio.create_task(plugin.register())
            await asyncio.sleep(0.2)
            await plugin.serve()
            await register
            await kubelet.wait_for_devices(2)
            await plugin.stop()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (
            {"version": "v1beta2"},
            'requested API version "v1beta2" is not supported by kubelet. Supported version is ["v1beta1"]',
        ),
        ({"resource": "slot"}, 'the ResourceName "slot" is invalid'),
        ({"resource": "node.kubernetes.io/slot"}, 'the ResourceName "node.kubernetes.io/slot" is invalid'),
    ],
)
def test_a_registration_that_kubelet_cannot_take_is_refused_in_its_words(
    directory: Path, request_: dict[str, str], text: str
) -> None:
    async def main() -> None:
        async with DevKubelet(directory, timing=QUICK):
            plugin = TinyPlugin(directory)
            await plugin.serve()
            assert await refusal(plugin, **request_) == (grpc.StatusCode.UNKNOWN, text)
            await plugin.stop()

    asyncio.run(main())


def test_when_the_stream_ends_every_device_is_unhealthy_and_after_the_grace_the_resource_is_gone(
    directory: Path,
) -> None:
    async def main() -> None:
        async with DevKubelet(directory, timing=Timing(grace_seconds=0.4)) as kubelet:
            async with TinyPlugin(directory):
                await kubelet.wait_for_devices(2)
            assert (await kubelet.wait_for_devices(0)).capacity == 2
            await kubelet.log.wait(lambda: bool(kubelet.log.of(events.ResourceDropped)), 3, "drop")
            assert kubelet.resources() == []

    asyncio.run(main())


def test_a_plugin_that_comes_back_within_the_grace_keeps_the_resource(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory, timing=Timing(grace_seconds=0.4)) as kubelet:
            async with TinyPlugin(directory):
                await kubelet.wait_for_devices(2)
            await kubelet.wait_for_devices(0)
            async with TinyPlugin(directory, "again.sock"):
                await kubelet.wait_for_devices(2)
                await asyncio.sleep(0.7)
                assert kubelet.counts().allocatable == 2

    asyncio.run(main())


def test_up_to_1_36_a_second_plugin_takes_over_silently_and_its_end_takes_the_first_ones_devices_with_it(
    directory: Path,
) -> None:
    async def main() -> None:
        async with DevKubelet(directory, minor=36) as kubelet, TinyPlugin(directory, "first.sock") as first:
            await kubelet.wait_for_devices(2)
            async with TinyPlugin(directory, "second.sock", device_ids=("e0", "e1", "e2")) as second:
                await kubelet.wait_for_devices(3)
                assert kubelet.log.of(events.TakenOver)[0].previous == "first.sock"
                assert kubelet.endpoints() == ["first.sock", "second.sock"]
                pod = await kubelet.admit("default", "web", {"main": 1})
                assert pod.phase == "Running"
                assert (first.allocated, second.allocated) == ([], [["e0"]])
            await kubelet.wait_for_devices(0)
            assert first.streams == 1
            assert kubelet.endpoints() == ["first.sock"]

    asyncio.run(main())


def test_since_1_37_what_a_second_plugin_showed_stays_when_it_leaves_and_the_first_one_is_asked_for_it(
    directory: Path,
) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory, "first.sock") as first:
            await kubelet.wait_for_devices(2)
            async with TinyPlugin(directory, "second.sock", device_ids=("e0", "e1", "e2")):
                await kubelet.wait_for_devices(3)
            await kubelet.log.wait(lambda: bool(kubelet.log.of(events.StreamLost)), 3, "end of the second")
            assert kubelet.counts().allocatable == 3
            assert await allocatable(kubelet) == {"e0", "e1", "e2"}
            assert (await kubelet.admit("default", "web", {"main": 1})).phase == "Running"
            assert first.allocated == [["e0"]]

    asyncio.run(main())


def test_since_1_37_an_endpoint_that_is_connected_is_refused_and_its_end_is_not_noticed(
    directory: Path,
) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory) as plugin:
            await kubelet.wait_for_devices(2)
            code, text = await refusal(plugin)
            assert code is grpc.StatusCode.UNKNOWN
            assert text == f"device plugin already connected: {directory}/tiny.sock"
            assert plugin.streams == 1
            await plugin.stop()
            await kubelet.log.wait(lambda: bool(kubelet.log.of(events.StreamLost)), 3, "end of the stream")
            assert kubelet.counts().allocatable == 2

    asyncio.run(main())


def test_up_to_1_36_the_end_of_a_plugin_that_was_taken_over_stops_the_new_one_too(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory, minor=36) as kubelet:
            first = TinyPlugin(directory, "first.sock")
            await first.serve()
            await first.register()
            # Another number of devices than the first one's, so that its own list is waited for.
            async with TinyPlugin(directory, "second.sock", device_ids=("e0", "e1", "e2")) as second:
                await kubelet.wait_for_devices(3)
                await first.stop()
                await kubelet.wait_for_devices(0)
                await second.change()
                await kubelet.wait_for_devices(3)
                pod = await kubelet.admit("default", "web", {"main": 1})
                assert "endpoint second.sock has been stopped" in pod.message
                await second.register()
                assert (await kubelet.admit("default", "api", {"main": 1})).phase == "Running"

    asyncio.run(main())


def test_a_list_larger_than_4_mib_ends_the_stream(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory) as plugin:
            await kubelet.wait_for_devices(2)
            await plugin.change(device_ids=tuple(f"{'x' * 60}-{number:06d}" for number in range(60_000)))
            await kubelet.wait_for_devices(0, timeout_seconds=20)
            assert "ResourceExhausted" in kubelet.log.of(events.StreamLost)[0].message

    asyncio.run(main())


def test_a_crash_leaves_sockets_that_refuse_and_ends_the_streams(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet, TinyPlugin(directory) as plugin:
            await kubelet.wait_for_devices(2)
            await kubelet.crash()
            assert kubelet.socket.is_socket()
            assert kubelet.pod_resources_socket.is_socket()
            with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
                client.connect(str(kubelet.socket))
            async with asyncio.timeout(2):
                while plugin.streams:
                    await asyncio.sleep(0.01)

    asyncio.run(main())


def test_a_restarted_kubelet_knows_no_device_until_the_plugin_registers_again(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as kubelet:
            plugin = TinyPlugin(directory)
            await plugin.serve()
            await plugin.register()
            await kubelet.wait_for_devices(2)
            await kubelet.restart()
            assert not (directory / "tiny.sock").exists()
            assert kubelet.resources() == [SANDBOX_RESOURCE]
            assert kubelet.counts().capacity == 0
            async with TinyPlugin(directory, "again.sock"):
                await kubelet.wait_for_devices(2)
                assert len(await kubelet.wait_for_registrations(2)) == 2
            await plugin.stop()

    asyncio.run(main())


def test_a_path_longer_than_a_socket_may_have_is_refused_with_a_remedy(short_dir: Path) -> None:
    with pytest.raises(SocketError, match="107") as caught:
        asyncio.run(DevKubelet(short_dir / ("long" * 20) / "device-plugins").start())
    assert caught.value.reason == "SocketPathTooLong"
    assert "shorter" in caught.value.hint


def test_a_directory_in_the_place_of_the_socket_is_an_error_and_not_removed(directory: Path) -> None:
    (directory / "kubelet.sock").mkdir(parents=True)
    with pytest.raises(SocketError, match=r"kubelet\.sock"):
        asyncio.run(DevKubelet(directory).start())
    assert (directory / "kubelet.sock").is_dir()


def test_a_folder_where_a_kubelet_runs_already_is_left_alone(directory: Path) -> None:
    async def main() -> None:
        async with DevKubelet(directory) as first, TinyPlugin(directory) as plugin:
            with pytest.raises(BusyError, match="a kubelet is running here"):
                await DevKubelet(directory).start()
            assert (directory / plugin.endpoint).is_socket()
            await first.wait_for_devices(2)

    asyncio.run(main())
