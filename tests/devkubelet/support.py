"""A device plugin small enough to see all of it."""
# ruff: noqa: N802 - gRPC's names

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from kata_node_agent.devkubelet.names import SANDBOX_RESOURCE
from kata_node_agent.pb import deviceplugin_pb2 as pb
from kata_node_agent.pb import deviceplugin_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import Self

    Context = grpc.aio.ServicerContext[Any, Any]

_glue: Any = deviceplugin_pb2_grpc


class TinyPlugin:
    """Serves `device_ids` on a socket in `directory`; what kubelet asked for is in `allocated` and so on."""

    def __init__(
        self,
        directory: Path,
        endpoint: str = "tiny.sock",
        *,
        device_ids: tuple[str, ...] = ("d0", "d1"),
        options: pb.DevicePluginOptions | None = None,
    ) -> None:
        self.directory = directory
        self.endpoint = endpoint
        self.device_ids = device_ids
        self.options = options or pb.DevicePluginOptions()
        self.unhealthy: set[str] = set()
        self.refusal = ""
        self.slow_seconds = 0.0
        self.pre_start_refusals = 0
        self.preference: list[str] = []
        self.allocated: list[list[str]] = []
        self.pre_started: list[list[str]] = []
        self.options_asked = 0
        self.streams = 0
        self.busy = 0
        self.most_busy = 0
        self._changed = asyncio.Condition()
        self._server: grpc.aio.Server | None = None

    async def serve(self) -> None:
        """Listens, without registering."""
        self._server = grpc.aio.server()
        _glue.add_DevicePluginServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self.directory / self.endpoint}")
        await self._server.start()

    async def register(self, *, version: str = "v1beta1", resource: str = SANDBOX_RESOURCE) -> None:
        """Registers with the kubelet of the directory."""
        async with grpc.aio.insecure_channel(f"unix:{self.directory / 'kubelet.sock'}") as channel:
            stub: Any = _glue.RegistrationStub(channel)
            await stub.Register(
                pb.RegisterRequest(version=version, endpoint=self.endpoint, resource_name=resource)
            )

    async def change(
        self, *, unhealthy: tuple[str, ...] = (), device_ids: tuple[str, ...] | None = None
    ) -> None:
        """Sends a new list to every stream."""
        async with self._changed:
            self.unhealthy = set(unhealthy)
            self.device_ids = self.device_ids if device_ids is None else device_ids
            self._changed.notify_all()

    async def stop(self) -> None:
        """Ends every stream; the socket goes."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def __aenter__(self) -> Self:
        await self.serve()
        await self.register()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def GetDevicePluginOptions(self, request: pb.Empty, context: Context) -> pb.DevicePluginOptions:
        self.options_asked += 1
        return self.options

    async def ListAndWatch(
        self, request: pb.Empty, context: Context
    ) -> AsyncIterator[pb.ListAndWatchResponse]:
        self.streams += 1
        try:
            while True:
                async with self._changed:
                    yield pb.ListAndWatchResponse(
                        devices=[
                            pb.Device(ID=id_, health="Unhealthy" if id_ in self.unhealthy else "Healthy")
                            for id_ in self.device_ids
                        ]
                    )
                    await self._changed.wait()
        finally:
            self.streams -= 1

    async def GetPreferredAllocation(
        self,
        request: pb.PreferredAllocationRequest,
        context: Context,
    ) -> pb.PreferredAllocationResponse:
        return pb.PreferredAllocationResponse(
            container_responses=[pb.ContainerPreferredAllocationResponse(deviceIDs=self.preference)]
        )

    async def Allocate(self, request: pb.AllocateRequest, context: Context) -> pb.AllocateResponse:
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await asyncio.sleep(self.slow_seconds)
        finally:
            self.busy -= 1
        if self.refusal:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, self.refusal)
        self.allocated += [list(container.devices_ids) for container in request.container_requests]
        return pb.AllocateResponse(
            container_responses=[pb.ContainerAllocateResponse() for _ in request.container_requests]
        )

    async def PreStartContainer(
        self,
        request: pb.PreStartContainerRequest,
        context: Context,
    ) -> pb.PreStartContainerResponse:
        if self.pre_start_refusals:
            self.pre_start_refusals -= 1
            await context.abort(grpc.StatusCode.INTERNAL, "not yet")
        self.pre_started.append(list(request.devices_ids))
        return pb.PreStartContainerResponse()
