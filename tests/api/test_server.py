import asyncio
import os
import shutil
import socket
import stat
import tempfile
import weakref
from pathlib import Path
from typing import Any, Self

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kata_node_agent.api.server import ApiServer
from kata_node_agent.errors import BusyError, HostError, SocketError
from kata_node_agent.pb import agent_pb2, agent_pb2_grpc
from tests.api.keeper import TestKeeper
from tests.ledger.support import GIB, World

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Api:
    """A server whose state the test sets."""

    def __init__(self, folder: Path) -> None:
        self.serving: dict[str, bool] = {"": True, "device-plugin": False}
        self.unreadable = False
        status = agent_pb2.Status(verdict="eligible")
        # Not beside the socket: the tests look at what is left there.
        ledger = Path(tempfile.mkdtemp(prefix="kna-"))
        weakref.finalize(self, shutil.rmtree, ledger, ignore_errors=True)
        self.keeper = TestKeeper(World(ledger, allocatable_bytes=5 * GIB))
        self.server = ApiServer(folder, lambda: status, lambda: self.serving, self.node, self.keeper)

    async def node(self) -> agent_pb2.Node:
        if self.unreadable:
            raise HostError("/proc/meminfo: no usable MemTotal", hint="look at how /proc is mounted")
        return agent_pb2.Node(schema="kata-node-agent/report/v1")

    async def __aenter__(self) -> Self:
        await self.server.start()
        self.channel = grpc.aio.insecure_channel(f"unix:{self.server.path}")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self.server.stop()
        self.keeper.account.close()

    @property
    def health(self) -> Any:
        return health_pb2_grpc.HealthStub(self.channel)


def test_answers_status_and_leaves_no_socket(short_dir: Path) -> None:
    async def main() -> None:
        async with Api(short_dir) as api:
            status = await agent_pb2_grpc.NodeAgentStub(api.channel).GetStatus(agent_pb2.GetStatusRequest())
            assert status.verdict == "eligible"
        assert not list(short_dir.iterdir())

    asyncio.run(main())


def test_answers_with_the_node_or_why_it_cannot_be_read(short_dir: Path) -> None:
    async def main() -> None:
        async with Api(short_dir) as api:
            stub = agent_pb2_grpc.NodeAgentStub(api.channel)
            assert (await stub.GetNode(agent_pb2.GetNodeRequest())).schema == "kata-node-agent/report/v1"
            api.unreadable = True
            with pytest.raises(grpc.RpcError) as caught:
                await stub.GetNode(agent_pb2.GetNodeRequest())
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "no usable MemTotal (look at how /proc is mounted)" in (caught.value.details() or "")

    asyncio.run(main())


def test_a_socket_that_could_not_be_had_is_not_in_place_and_can_be_had_later(short_dir: Path) -> None:
    async def main() -> None:
        async with Api(short_dir) as api:
            in_place = [api.server.in_place]
            await api.server.stop()
            api.server.path.mkdir()
            with pytest.raises(SocketError, match="in the way"):
                await api.server.start()
            in_place.append(api.server.in_place)
            api.server.path.rmdir()
            await api.server.start()
            assert [*in_place, api.server.in_place] == [True, False, True]

    asyncio.run(main())


def test_a_port_that_is_taken_is_a_problem_and_had_when_it_is_free(short_dir: Path) -> None:
    async def main() -> None:
        async with Api(short_dir) as api:
            await api.server.stop()
            with socket.create_server(("127.0.0.1", 0)) as taken:
                address = f"127.0.0.1:{taken.getsockname()[1]}"
                await api.server.start(address)
                problems = [str(api.server.problem)]
            await api.server.look()
            problems.append(str(api.server.problem))
            assert f"{address}: cannot listen" in problems[0]
            assert problems[1] == "None"
            async with grpc.aio.insecure_channel(address) as channel:
                answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
            assert answer.status == SERVING

    asyncio.run(main())


def test_the_socket_is_not_for_everybody(short_dir: Path) -> None:
    async def main() -> None:
        async with Api(short_dir) as api:
            assert stat.S_IMODE(os.stat(api.server.path).st_mode) in {0o600, 0o660}

    asyncio.run(main())


def test_health_is_that_of_the_moment(short_dir: Path) -> None:
    async def main() -> None:
        async with Api(short_dir) as api:
            request = health_pb2.HealthCheckRequest(service="device-plugin")
            assert (await api.health.Check(request)).status == NOT_SERVING
            api.serving["device-plugin"] = True
            assert (await api.health.Check(request)).status == SERVING

    asyncio.run(main())


def test_unknown_service_is_not_found_with_the_names_there_are(short_dir: Path) -> None:
    async def main() -> None:
        async with Api(short_dir) as api:
            with pytest.raises(grpc.aio.AioRpcError, match="'device-plugin'") as caught:
                await api.health.Check(health_pb2.HealthCheckRequest(service="none"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    asyncio.run(main())


def test_list_names_all_services(short_dir: Path) -> None:
    async def main() -> None:
        async with Api(short_dir) as api:
            answer = await api.health.List(health_pb2.HealthListRequest())
            assert {name: one.status for name, one in answer.statuses.items()} == {
                "": SERVING,
                "device-plugin": NOT_SERVING,
            }

    asyncio.run(main())


def test_watch_sends_each_change_and_an_unknown_name_as_unknown(short_dir: Path) -> None:
    async def main() -> None:
        async with Api(short_dir) as api:
            watch = api.health.Watch(health_pb2.HealthCheckRequest(service="late"))
            assert (await watch.read()).status == UNKNOWN
            api.serving["late"] = False
            assert (await watch.read()).status == NOT_SERVING
            api.serving["late"] = True
            assert (await watch.read()).status == SERVING
            watch.cancel()

    asyncio.run(main())


def test_reflection_names_our_services(short_dir: Path) -> None:
    async def main() -> None:
        from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

        async with Api(short_dir) as api:
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            channel: Any = api.channel
            stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
            async for answer in stub.ServerReflectionInfo(iter([request])):
                names = {service.name for service in answer.list_services_response.service}
                assert {"kata_node_agent.v1.NodeAgent", "grpc.health.v1.Health"} <= names

    asyncio.run(main())


def test_a_second_server_on_the_socket_is_refused(short_dir: Path) -> None:
    async def main() -> None:
        async with Api(short_dir):
            with pytest.raises(BusyError):
                await Api(short_dir).server.start()

    asyncio.run(main())


def test_health_alone_is_on_tcp(short_dir: Path) -> None:
    async def main() -> None:
        import socket

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        api = Api(short_dir)
        await api.server.start(address)
        async with grpc.aio.insecure_channel(address) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await agent_pb2_grpc.NodeAgentStub(channel).GetStatus(agent_pb2.GetStatusRequest())
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        await api.server.stop()

    asyncio.run(main())
