"""ListSandboxes and WatchSandboxes over a real socket."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from kata_node_agent.api.sandboxes import MAX_WATCHERS, as_message
from kata_node_agent.api.server import ApiServer
from kata_node_agent.capacity.risks import Risk
from kata_node_agent.errors import HostError
from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.pb import agent_pb2_grpc
from kata_node_agent.sandboxes.document import as_document
from kata_node_agent.sandboxes.model import Unbelieved
from tests.api.keeper import TestKeeper
from tests.ledger.support import World
from tests.sandboxes.support import MIB, sandbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Followed:
    """What a daemon would have seen; the test says when there is something new."""

    def __init__(self) -> None:
        self.now: dict[str, Any] | None = as_document([], host_overhead_bytes=0)
        self.new = asyncio.Event()

    async def document(self) -> dict[str, Any]:
        if self.now is None:
            raise HostError("/proc: Permission denied (EACCES)")
        return self.now

    async def changes(self) -> AsyncIterator[None]:
        while True:
            new = self.new
            yield
            await new.wait()

    async def tell(self, document: dict[str, Any] | None) -> None:
        self.now = document
        self.new.set()
        self.new = asyncio.Event()


@asynccontextmanager
async def served(folder: Path, seen: Followed | None) -> AsyncIterator[Any]:
    async def node() -> pb.Node:
        return pb.Node()

    keeper = TestKeeper(World(folder))
    server = ApiServer(folder, pb.Status, dict, node, keeper, sandboxes=seen)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"unix:{server.path}") as channel:
            yield agent_pb2_grpc.NodeAgentStub(channel)
    finally:
        await server.stop()


def test_every_field_of_the_document_is_in_the_message() -> None:
    risk = Risk("ShmCeiling", "full", "grow it")
    fake = Unbelieved(7, "qemu of sandbox x", "it runs in a container")
    message = as_message(as_document([sandbox()], [fake], host_overhead_bytes=0, risks={"a": [risk]}))
    (found,) = message.sandboxes
    assert (found.id, found.pod, found.vm_memory_bytes) == ("a", "shop/web-0", 3072 * MIB)
    assert (found.resident_bytes, found.cost.guest_bytes) == (360 * MIB, 300 * MIB)
    assert (found.charge.limit_bytes, found.charge.HasField("kernel_bytes")) == (1000 * MIB, False)
    assert found.risks[0].reason == "ShmCeiling"
    assert message.unbelieved[0].why == "it runs in a container"


def test_what_is_not_known_is_not_set() -> None:
    unknown = sandbox(cost=None, charge=None, pod=None, handler=None)
    (found,) = as_message(as_document([unknown], host_overhead_bytes=0)).sandboxes
    for name in ("pod", "handler", "resident_bytes", "cost", "charge", "max_bytes"):
        assert not found.HasField(name)


def test_a_watcher_is_told_at_once_and_at_each_change_and_of_nothing_else(short_dir: Path) -> None:
    async def main() -> None:
        seen = Followed()
        async with served(short_dir, seen) as stub, asyncio.timeout(10):
            assert not (await stub.ListSandboxes(pb.ListSandboxesRequest())).sandboxes
            call = stub.WatchSandboxes(pb.WatchSandboxesRequest())
            assert not (await call.read()).sandboxes
            one = as_document([sandbox()], host_overhead_bytes=0)
            await seen.tell(one)
            assert [found.id for found in (await call.read()).sandboxes] == ["a"]
            await seen.tell(dict(one))
            await seen.tell(as_document([sandbox(hotplugged_bytes=0)], host_overhead_bytes=0))
            assert [found.vm_memory_bytes for found in (await call.read()).sandboxes] == [2048 * MIB]
            call.cancel()

    asyncio.run(main())


def test_vms_that_cannot_be_read_are_an_error_that_says_why(short_dir: Path) -> None:
    async def main() -> None:
        seen = Followed()
        seen.now = None
        async with served(short_dir, seen) as stub, asyncio.timeout(10):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.ListSandboxes(pb.ListSandboxesRequest())
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
            assert "Permission denied" in (caught.value.details() or "")

    asyncio.run(main())


def test_an_agent_that_follows_none_says_so(short_dir: Path) -> None:
    async def main() -> None:
        async with served(short_dir, None) as stub, asyncio.timeout(10):
            for call in (
                stub.ListSandboxes(pb.ListSandboxesRequest()),
                stub.WatchSandboxes(pb.WatchSandboxesRequest()).read(),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call
                assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
                assert "sandbox.follow" in (caught.value.details() or "")

    asyncio.run(main())


def test_watchers_are_bounded_and_one_that_hangs_up_makes_room(short_dir: Path) -> None:
    async def main() -> None:
        async with served(short_dir, Followed()) as stub, asyncio.timeout(20):
            calls = [stub.WatchSandboxes(pb.WatchSandboxesRequest()) for _ in range(MAX_WATCHERS)]
            for call in calls:
                await call.read()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.WatchSandboxes(pb.WatchSandboxesRequest()).read()
            assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            calls[0].cancel()
            while True:
                try:
                    await stub.WatchSandboxes(pb.WatchSandboxesRequest()).read()
                    break
                except grpc.aio.AioRpcError:
                    await asyncio.sleep(0.02)
            for call in calls:
                call.cancel()

    asyncio.run(main())
