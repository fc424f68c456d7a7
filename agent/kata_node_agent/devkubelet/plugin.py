"""Kubelet's side of one device plugin: the connection, and the calls that kubelet makes over it.

Turns gRPC into values, and errors into :class:`KubeletRefusalError` with kubelet's texts. Keeps no devices:
that is `state.py`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from kata_node_agent.dataclass import dataclass
from kata_node_agent.devkubelet import texts
from kata_node_agent.devkubelet.state import Device
from kata_node_agent.devkubelet.texts import KubeletRefusalError
from kata_node_agent.pb import deviceplugin_pb2 as pb
from kata_node_agent.pb import deviceplugin_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

# The generated glue has no types.
_glue: Any = pb_grpc

# What Go's gRPC accepts, and so kubelet: a larger ListAndWatch message ends the stream.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
PRE_START_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class PluginOptions:
    """What the plugin answered to GetDevicePluginOptions; what it says in Register does not count."""

    pre_start_required: bool = False
    get_preferred_allocation_available: bool = False


class PluginClient:
    """One registration of one plugin."""

    def __init__(self, resource: str, socket: Path) -> None:
        self.resource = resource
        self.socket = socket
        self.options = PluginOptions()
        self._closed = False
        self._channel = grpc.aio.insecure_channel(
            f"unix:{socket}",
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.default_authority", "localhost"),
                # A connection of its own for each registration, even of the same path.
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 100),
                ("grpc.max_reconnect_backoff_ms", 1000),
            ],
        )
        self._stub: Any = _glue.DevicePluginStub(self._channel)

    @property
    def endpoint(self) -> str:
        """The socket's name, as the plugin registered it."""
        return self.socket.name

    async def connect(self, timeout_seconds: float) -> None:
        """Dials, waiting until the plugin serves, and asks for its options.

        Raises:
            KubeletRefusalError: nobody serves within the time, or the call fails.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                await self._channel.channel_ready()
        except TimeoutError:
            raise KubeletRefusalError(texts.dial_failed("context deadline exceeded")) from None
        try:
            answer = await self._stub.GetDevicePluginOptions(pb.Empty())
        except grpc.aio.AioRpcError as error:
            raise KubeletRefusalError(texts.options_failed(_describe(error))) from error
        self.options = PluginOptions(answer.pre_start_required, answer.get_preferred_allocation_available)

    async def list_and_watch(self) -> AsyncGenerator[list[Device], None]:
        """The plugin's lists, as they come. Ends when the plugin ends the stream.

        Raises:
            KubeletRefusalError: the stream broke, or a message was too large.
        """
        try:
            async for message in self._stub.ListAndWatch(pb.Empty()):
                yield [Device(device.ID, device.health == "Healthy") for device in message.devices]
        except grpc.aio.AioRpcError as error:
            raise KubeletRefusalError(_describe(error)) from error

    async def preferred(self, available: list[str], count: int) -> list[str]:
        """Which ids the plugin would like to be taken; none where it offers no such call."""
        if not self.options.get_preferred_allocation_available:
            return []
        request = pb.PreferredAllocationRequest(
            container_requests=[
                pb.ContainerPreferredAllocationRequest(available_deviceIDs=available, allocation_size=count)
            ]
        )
        try:
            answer = await self._stub.GetPreferredAllocation(request)
        except grpc.aio.AioRpcError as error:
            raise KubeletRefusalError(texts.preferred_failed(_describe(error))) from error
        return list(answer.container_responses[0].deviceIDs) if answer.container_responses else []

    async def allocate(self, device_ids: tuple[str, ...]) -> pb.ContainerAllocateResponse:
        """Asks for devices for one container. Without a deadline: a slow plugin holds up every other pod."""
        request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=device_ids)])
        try:
            answer = await self._stub.Allocate(request)
        except grpc.aio.AioRpcError as error:
            raise KubeletRefusalError(_describe(error)) from error
        except asyncio.CancelledError:
            if not self._closed:
                raise
            # Not our task is cancelled, but the call: we closed the connection under it.
            why = texts.rpc_error(grpc.StatusCode.CANCELLED, "grpc: the client connection is closing")
            raise KubeletRefusalError(why) from None
        if not answer.container_responses:
            raise KubeletRefusalError("no containers return in allocation response &AllocateResponse{}")
        response = answer.container_responses[0]
        assert isinstance(response, pb.ContainerAllocateResponse)  # noqa: S101 - for mypy: the stub is untyped
        return response

    async def pre_start(self, device_ids: tuple[str, ...]) -> None:
        """Tells the plugin that a container is about to start, where it wants to know."""
        if not self.options.pre_start_required:
            return
        try:
            await self._stub.PreStartContainer(
                pb.PreStartContainerRequest(devices_ids=device_ids), timeout=PRE_START_TIMEOUT_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            raise KubeletRefusalError(texts.pre_start_failed(_describe(error))) from error

    async def close(self) -> None:
        """Drops the connection; the plugin sees its stream cancelled."""
        self._closed = True
        await self._channel.close()


def _describe(error: grpc.aio.AioRpcError) -> str:
    return texts.rpc_error(error.code(), error.details() or "")
