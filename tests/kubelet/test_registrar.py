import asyncio
import os
import socket
import time
from pathlib import Path

import pytest

from kata_node_agent.backoff import Backoff
from kata_node_agent.devkubelet.kubelet import DevKubelet
from kata_node_agent.errors import SocketError
from kata_node_agent.host import native
from kata_node_agent.host.watch import FolderWatch
from kata_node_agent.kubelet import registrar as module
from kata_node_agent.kubelet.endpoint import Endpoint, remove_stale_sockets
from kata_node_agent.kubelet.registrar import State
from tests.kubelet.support import RESOURCE, Plugin, plugin_and_kubelet, until


@pytest.fixture(params=["inotify", "polling"])
def _watching(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of noticing: with events, and with none to be had."""
    if request.param == "polling":

        def none_left(_: str) -> int:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(native, "watch_folder", none_left)


@pytest.mark.usefixtures("_watching")
def test_registers_again_after_each_of_20_crashes(short_dir: Path) -> None:
    async def main() -> None:
        async with plugin_and_kubelet(short_dir) as (plugin, kubelet):
            for count in range(20):
                await kubelet.crash()
                await until(lambda: not plugin.registrar.stream_open)
                await kubelet.start()
                await kubelet.wait_for_registrations(count + 2)
                await kubelet.wait_for_devices(4)
            names = {event.endpoint for event in await kubelet.wait_for_registrations(21)}
            assert len(names) == 21, "every listener has a fresh name"

    asyncio.run(main())


@pytest.mark.usefixtures("_watching")
def test_registers_when_kubelet_starts_after_us_in_a_folder_that_was_not_there(short_dir: Path) -> None:
    async def main() -> None:
        async with Plugin(short_dir / "dp").running() as plugin:
            await asyncio.sleep(0.1)
            assert plugin.registrar.status.state is State.NO_DIRECTORY
            async with DevKubelet(short_dir / "dp") as kubelet:
                await kubelet.wait_for_devices(4)
            assert plugin.registrar.status.registrations == 1

    asyncio.run(main())


@pytest.mark.usefixtures("_watching")
def test_registers_again_when_kubelet_deletes_our_socket(short_dir: Path) -> None:
    async def main() -> None:
        async with plugin_and_kubelet(short_dir) as (plugin, kubelet):
            endpoint = plugin.registrar.endpoint
            assert endpoint is not None
            endpoint.path.unlink()
            await kubelet.wait_for_registrations(2, timeout_seconds=10)
            await until(lambda: plugin.registrar.stream_open)

    asyncio.run(main())


@pytest.mark.usefixtures("_watching")
def test_a_kubelet_that_starts_while_we_register_does_not_keep_us_waiting_for_its_dial(
    short_dir: Path,
) -> None:
    async def main() -> None:
        async with plugin_and_kubelet(short_dir) as (plugin, kubelet):
            ready = plugin.registrar._ready_endpoint
            starts = iter([kubelet.start])

            async def ready_and_then_deleted() -> Endpoint:
                endpoint = await ready()
                # Deletes our socket, and makes its own at the path that we are about to call.
                for start in starts:
                    await start()
                return endpoint

            await kubelet.crash()
            plugin.registrar._ready_endpoint = ready_and_then_deleted  # type: ignore[method-assign]
            await kubelet.wait_for_registrations(2, timeout_seconds=3)
            await kubelet.wait_for_devices(4)

    asyncio.run(main())


def test_two_plugins_for_one_resource_do_not_fight_in_a_tight_loop(short_dir: Path) -> None:
    async def main() -> None:
        async with plugin_and_kubelet(short_dir) as (_, kubelet), Plugin(short_dir / "dp", 9).running():
            await asyncio.sleep(3)
            assert len(await kubelet.wait_for_registrations(2)) < 30

    asyncio.run(main())


def test_registers_again_when_only_the_stream_is_lost(short_dir: Path) -> None:
    async def main() -> None:
        async with plugin_and_kubelet(short_dir) as (plugin, kubelet):
            endpoint = plugin.registrar.endpoint
            assert endpoint is not None
            endpoint.service.close()
            await kubelet.wait_for_registrations(2)
            await until(lambda: plugin.registrar.stream_open and kubelet.counts().allocatable == 4)

    asyncio.run(main())


def test_registers_again_when_it_is_told_to_and_says_why(short_dir: Path) -> None:
    async def main() -> None:
        async with plugin_and_kubelet(short_dir) as (plugin, kubelet):
            errors: list[str] = []
            plugin.registrar._on_change = lambda: errors.append(plugin.registrar.status.last_error)
            plugin.registrar.register_again("kubelet shows devices of another plugin")
            await kubelet.wait_for_registrations(2)
            await until(lambda: plugin.registrar.stream_open and kubelet.counts().allocatable == 4)
            assert "kubelet shows devices of another plugin" in errors
            await asyncio.sleep(0.1)
            assert len(await kubelet.wait_for_registrations(2)) == 2, "once is enough"

    asyncio.run(main())


def test_kubelets_refusal_is_remembered_in_its_words(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "API_VERSION", "v1beta9")

    async def main() -> None:
        async with DevKubelet(short_dir / "dp"), Plugin(short_dir / "dp").running() as plugin:
            await until(lambda: "requested API version" in plugin.registrar.status.last_error)
            assert plugin.registrar.status.registrations == 0

    asyncio.run(main())


def test_a_socket_of_a_dead_kubelet_is_tried_with_growing_pauses(short_dir: Path) -> None:
    (short_dir / "dp").mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(short_dir / "dp" / "kubelet.sock"))

    async def main() -> None:
        async with Plugin(short_dir / "dp").running() as plugin:
            await until(lambda: "UNAVAILABLE" in plugin.registrar.status.last_error)
            assert plugin.registrar.status.state is State.REGISTERING

    asyncio.run(main())


def test_a_directory_in_place_of_kubelets_socket_is_waited_out(short_dir: Path) -> None:
    (short_dir / "dp" / "kubelet.sock").mkdir(parents=True)

    async def main() -> None:
        async with Plugin(short_dir / "dp").running() as plugin:
            await until(lambda: plugin.registrar.status.state is State.NO_KUBELET)

    asyncio.run(main())


def test_a_path_too_long_for_a_socket_is_said(short_dir: Path) -> None:
    folder = short_dir / ("x" * 60)
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as kubelet:
        kubelet.bind(str(folder / "kubelet.sock"))

    async def main() -> None:
        async with Plugin(folder).running() as plugin:
            await until(lambda: "107" in plugin.registrar.status.last_error)

    asyncio.run(main())


def test_our_own_probe_tells_whether_kubelet_could_reach_us(short_dir: Path) -> None:
    async def main() -> None:
        async with plugin_and_kubelet(short_dir) as (plugin, _):
            assert await plugin.registrar.probe()
            endpoint = plugin.registrar.endpoint
            assert endpoint is not None
            os.rename(endpoint.path, endpoint.path.with_suffix(".moved"))
            assert not await endpoint.answers()

    asyncio.run(main())


def test_only_sockets_of_dead_agents_for_our_resource_are_removed(short_dir: Path) -> None:
    ours, other = (
        short_dir / "katacontainers.io_sandbox-00000000.sock",
        short_dir / "example.com_x-00000000.sock",
    )
    alive, text = (
        short_dir / "katacontainers.io_sandbox-11111111.sock",
        short_dir / "katacontainers.io_sandbox-2.sock",
    )
    text.write_text("no socket")
    for path in (ours, other):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(alive))
        living.listen()
        assert remove_stale_sockets(short_dir, RESOURCE) == [ours.name]
    assert {path.name for path in short_dir.iterdir()} == {other.name, alive.name, text.name}


def test_pauses_grow_to_a_bound_and_begin_small_again() -> None:
    backoff = Backoff()
    pauses = [backoff.pause() for _ in range(20)]
    assert pauses[0] <= 0.01
    assert 2.5 <= pauses[-1] <= 5.0
    backoff.reset()
    assert backoff.pause() <= 0.01


def test_a_wake_from_outside_ends_the_wait(short_dir: Path) -> None:
    async def main() -> None:
        watch = FolderWatch(short_dir / "none")
        watch.wake()
        started = time.monotonic()
        await watch.wait(30)
        assert time.monotonic() - started < 5

    asyncio.run(main())


def test_endpoint_says_why_it_cannot_listen(short_dir: Path) -> None:
    async def main() -> None:
        plugin = Plugin(short_dir)
        with pytest.raises(SocketError, match="No such file or directory"):
            await Endpoint(short_dir / "none", RESOURCE, plugin.service()).start()

    asyncio.run(main())


def test_no_task_is_left_for_each_restart_of_kubelet(short_dir: Path) -> None:
    async def main() -> None:
        async with plugin_and_kubelet(short_dir) as (plugin, kubelet):
            for count in range(15):
                await kubelet.restart()
                await kubelet.wait_for_registrations(count + 2)
                await until(lambda: plugin.registrar.stream_open)
            await asyncio.sleep(0.2)
            waiting = [task for task in asyncio.all_tasks() if "wait_beyond" in repr(task.get_coro())]
            assert len(waiting) <= 2

    asyncio.run(main())


def test_a_folder_made_anew_is_watched_anew_whatever_its_inode(short_dir: Path) -> None:
    async def main() -> None:
        folder = short_dir / "dp"
        folder.mkdir()
        watch = FolderWatch(folder)
        await watch.wait(0.01)
        if watch.uses_inotify:
            for _ in range(5):
                folder.rmdir()
                folder.mkdir()
                await watch.wait(1)
                await watch.wait(0.05)
                (folder / "x").touch()
                began = time.monotonic()
                await watch.wait(3)
                assert time.monotonic() - began < 1
                (folder / "x").unlink()
        watch.close()

    asyncio.run(main())
