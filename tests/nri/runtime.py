"""A small runtime: listens as containerd does, takes plugins in, asks them. Its messages are the protocol's own."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from kata_node_agent.errors import NriError
from kata_node_agent.nri.connection import Call, Connection
from kata_node_agent.nri.mux import PLUGIN, RUNTIME
from kata_node_agent.pb import nri_pb2

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SERVICE = "nri.pkg.api.v1alpha1.Plugin"
GIB = 1 << 30
_PATIENCE_SECONDS = 30.0


def pod(
    number: int, limit_bytes: int = 0, handler: str = "kata", overhead_bytes: int = 0
) -> nri_pb2.PodSandbox:
    """A pod; its limits are known to the runtime unless they are 0."""
    message = nri_pb2.PodSandbox(
        id=f"sandbox{number}",
        name=f"pod{number}",
        namespace="default",
        uid=f"uid{number}",
        runtime_handler=handler,
    )
    if limit_bytes:
        message.linux.pod_resources.memory.limit.value = limit_bytes
    if overhead_bytes:
        message.linux.pod_overhead.memory.limit.value = overhead_bytes
    return message


def container(of: nri_pb2.PodSandbox, name: str = "main", limit_bytes: int = 0) -> nri_pb2.Container:
    """A container of the pod."""
    message = nri_pb2.Container(id=f"{of.id}-{name}", pod_sandbox_id=of.id, name=name, state=1)
    if limit_bytes:
        message.linux.resources.memory.limit.value = limit_bytes
    return message


@dataclass(slots=True)
class Taken:
    """A plugin that was taken in."""

    connection: Connection
    registration: nri_pb2.RegisterPluginRequest
    events: int


class Runtime:
    """Serves the socket while it is entered."""

    def __init__(
        self,
        path: Path,
        *,
        nri_version: str = "v0.12.3",
        pods: Sequence[nri_pb2.PodSandbox] = (),
        containers: Sequence[nri_pb2.Container] = (),
        pods_per_message: int = 1000,
        request_timeout_seconds: float = 2.0,
    ) -> None:
        self.path = path
        self.nri_version = nri_version
        self.pods = list(pods)
        self.containers = list(containers)
        self.pods_per_message = pods_per_message
        self.request_timeout_seconds = request_timeout_seconds
        self.plugin: Taken | None = None
        self.taken = asyncio.Event()
        self.times = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._accepted: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.path.unlink(missing_ok=True)
        # Who is accepted in this moment is hung up on as well.
        await asyncio.sleep(0)
        while self._accepted:
            self.drop()
            await asyncio.wait(self._accepted)

    def drop(self) -> None:
        """Hangs up on every plugin."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self._accepted.add(task)
        task.add_done_callback(self._accepted.discard)
        registered: asyncio.Future[nri_pb2.RegisterPluginRequest] = asyncio.get_running_loop().create_future()

        async def serve(call: Call) -> bytes:
            registered.set_result(nri_pb2.RegisterPluginRequest.FromString(call.payload))
            return b""

        connection = Connection(reader, writer, serve, serves=RUNTIME, calls=PLUGIN)
        running = asyncio.create_task(connection.run())
        try:
            either: list[asyncio.Future[Any]] = [running, registered]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not registered.done():
                return
            # It may hang up, or we on it, while it is taken in.
            with suppress(NriError):
                await self._take_in(connection, registered.result())
            await asyncio.wait([running])
        finally:
            running.cancel()
            await asyncio.wait([running])
            if self.plugin is not None and self.plugin.connection is connection:
                self.plugin = None
                self.taken.clear()

    async def _take_in(self, connection: Connection, registration: nri_pb2.RegisterPluginRequest) -> None:
        configure = nri_pb2.ConfigureRequest(
            runtime_name="runtime",
            runtime_version="v9",
            request_timeout=int(self.request_timeout_seconds * 1000),
            NRI_version=self.nri_version,
        )
        self.plugin = Taken(connection, registration, 0)
        answer = nri_pb2.ConfigureResponse.FromString(await self.call("Configure", configure))
        self.plugin.events = answer.events
        left, containers = self.pods, self.containers
        while True:
            now, left = left[: self.pods_per_message], left[self.pods_per_message :]
            request = nri_pb2.SynchronizeRequest(pods=now, containers=containers, more=bool(left))
            containers = []
            reply = nri_pb2.SynchronizeResponse.FromString(await self.call("Synchronize", request))
            assert reply.more == request.more
            if not request.more:
                break
        self.times += 1
        self.taken.set()

    async def call(self, method: str, message: Any) -> bytes:
        """Asks the plugin that was taken in.

        Raises:
            NriError: it said no, or nothing.
        """
        if self.plugin is None:
            raise NriError("no plugin is there any more")
        # More patient than it says it is: a busy machine is no finding.
        return await self.plugin.connection.call(
            SERVICE, method, message.SerializeToString(), timeout_seconds=_PATIENCE_SECONDS
        )

    async def run(self, of: nri_pb2.PodSandbox) -> None:
        """RunPodSandbox."""
        await self.call("RunPodSandbox", nri_pb2.PodRequest(pod=of))

    async def create(self, of: nri_pb2.PodSandbox, what: nri_pb2.Container) -> None:
        """CreateContainer."""
        await self.call("CreateContainer", nri_pb2.ContainerRequest(pod=of, container=what))

    async def end(self, of: nri_pb2.PodSandbox) -> None:
        """StopPodSandbox and RemovePodSandbox."""
        await self.call("StopPodSandbox", nri_pb2.PodRequest(pod=of))
        await self.call("RemovePodSandbox", nri_pb2.PodRequest(pod=of))
