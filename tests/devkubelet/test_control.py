"""The control socket: what another process may say, garbage included."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from kata_node_agent.devkubelet.client import ControlClient
from kata_node_agent.devkubelet.control import MAX_LINE_BYTES, Control
from kata_node_agent.devkubelet.kubelet import DevKubelet
from kata_node_agent.devkubelet.names import SANDBOX_RESOURCE, Folder
from kata_node_agent.errors import AgentError, SocketError
from tests.devkubelet.support import TinyPlugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@contextlib.asynccontextmanager
async def controlled(folder: Path) -> AsyncIterator[DevKubelet]:
    places = Folder(folder)
    async with DevKubelet(places.device_plugins) as kubelet:
        control = Control(kubelet, places.control_socket)
        await control.start()
        try:
            yield kubelet
        finally:
            await control.close()
    assert not places.control_socket.exists()


async def say(folder: Path, *lines: bytes) -> list[dict[str, Any]]:
    """Sends lines over one connection; one answer each."""
    reader, writer = await asyncio.open_unix_connection(str(Folder(folder).control_socket), limit=1 << 22)
    answers = []
    try:
        for line in lines:
            writer.write(line)
            await writer.drain()
            answers.append(json.loads(await reader.readline()))
    finally:
        writer.close()
        await writer.wait_closed()
    return answers


def request(do: str, **arguments: object) -> bytes:
    return json.dumps({"do": do, **arguments}).encode() + b"\n"


def test_a_pod_is_admitted_listed_and_deleted(short_dir: Path) -> None:
    async def main() -> None:
        async with controlled(short_dir) as kubelet, TinyPlugin(kubelet.directory):
            await kubelet.wait_for_devices(2)
            admitted, pods, status, deleted = await say(
                short_dir,
                request("admit", name="web"),
                request("pods"),
                request("status"),
                request("delete", name="web"),
            )
            assert admitted["pod"]["device_ids"] == ["d0"]
            assert pods["pods"] == [admitted["pod"]]
            assert status["resources"] == [
                {
                    "resource": SANDBOX_RESOURCE,
                    "capacity": 2,
                    "allocatable": 2,
                    "in_use": 1,
                    "endpoints": ["tiny.sock"],
                }
            ]
            assert deleted["ok"]
            assert kubelet.pods() == ()

    asyncio.run(main())


def test_a_restart_over_the_socket_leaves_the_socket_open(short_dir: Path) -> None:
    async def main() -> None:
        async with controlled(short_dir) as kubelet, TinyPlugin(kubelet.directory):
            await kubelet.wait_for_devices(2)
            restarted, status = await say(short_dir, request("restart"), request("status"))
            assert restarted == {"ok": True}
            assert status["resources"][0]["endpoints"] == []

    asyncio.run(main())


def test_a_watcher_sees_the_state_and_then_every_event(short_dir: Path) -> None:
    async def main() -> None:
        async with controlled(short_dir) as kubelet:
            reader, writer = await asyncio.open_unix_connection(str(Folder(short_dir).control_socket))
            writer.write(request("watch"))
            assert json.loads(await reader.readline())["resources"] == []
            async with TinyPlugin(kubelet.directory):
                assert json.loads(await reader.readline())["event"] == "Registered"
                changed = json.loads(await reader.readline())
                assert (changed["event"], changed["allocatable"]) == ("DevicesChanged", 2)
            writer.close()
            await writer.wait_closed()

    asyncio.run(main())


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"hello\n",
        b"\xff\xfe\n",
        b"[]\n",
        b'{"do": 1}\n',
        b'{"do": "dance"}\n',
        b"[" * 10_000 + b"\n",
        request("admit"),
        request("admit", name=""),
        request("admit", name="a/b"),
        request("admit", name="x" * 300),
        request("admit", name="a\nb"),
        request("admit", name="web", containers=3),
        request("admit", name="web", containers={}),
        request("admit", name="web", containers={"c": -1}),
        request("admit", name="web", containers={"c": "1"}),
        request("admit", name="web", containers={"c": True}),
        request("admit", name="web", overhead=1e9),
        request("admit", name="web", resource=[]),
        request("delete", name="nobody"),
        request("restart", down_seconds="long"),
        request("restart", down_seconds=float("nan")),
    ],
)
def test_garbage_is_answered_with_a_reason_and_the_next_request_works(short_dir: Path, line: bytes) -> None:
    async def main() -> None:
        async with controlled(short_dir):
            refused, status = await say(short_dir, line, request("status"))
            assert refused["ok"] is False
            assert refused["reason"]
            assert refused["message"]
            assert status["ok"] is True
            assert status["pods"] == 0

    asyncio.run(main())


def test_a_line_without_an_end_is_answered_and_the_connection_closed(short_dir: Path) -> None:
    async def main() -> None:
        async with controlled(short_dir):
            reader, writer = await asyncio.open_unix_connection(str(Folder(short_dir).control_socket))
            writer.write(b"x" * (MAX_LINE_BYTES + 1))
            assert json.loads(await reader.readline())["reason"] == "BadRequest"
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(main())


def test_a_caller_that_goes_in_the_middle_harms_nobody(short_dir: Path) -> None:
    async def main() -> None:
        async with controlled(short_dir):
            for line in (b'{"do": "sta', request("watch"), b""):
                _, writer = await asyncio.open_unix_connection(str(Folder(short_dir).control_socket))
                writer.write(line)
                writer.close()
                await writer.wait_closed()
            assert (await say(short_dir, request("status")))[0]["ok"]

    asyncio.run(main())


def test_the_client_says_how_to_start_a_kubelet_where_there_is_none(short_dir: Path) -> None:
    with pytest.raises(SocketError, match="no development kubelet runs") as caught:
        ControlClient(Folder(short_dir))
    assert caught.value.reason == "DevKubeletNotRunning"
    assert f"devkubelet serve --dir {short_dir}" in caught.value.hint


def test_the_client_gives_the_kubelets_refusal_as_an_error(short_dir: Path) -> None:
    def ask() -> None:
        with ControlClient(Folder(short_dir)) as client:
            assert client.pid > 0
            assert client.ask("status")["pods"] == 0
            client.ask("delete", name="nobody")

    async def main() -> None:
        async with controlled(short_dir):
            with pytest.raises(AgentError, match="nobody is not here") as caught:
                await asyncio.to_thread(ask)
            assert caught.value.reason == "PodNotFound"

    asyncio.run(main())
