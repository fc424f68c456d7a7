"""The Registration service, and the streams of the plugins that registered.

Register answers only when the plugin has been dialled and asked for its options: a plugin that registers
before it serves is refused. Each stream is a task that this room owns and waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import grpc

from kata_node_agent.devkubelet import events, texts
from kata_node_agent.devkubelet.names import API_VERSION, is_extended_resource
from kata_node_agent.devkubelet.plugin import PluginClient
from kata_node_agent.devkubelet.texts import KubeletRefusalError
from kata_node_agent.pb import deviceplugin_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kata_node_agent.devkubelet.events import EventLog
    from kata_node_agent.devkubelet.state import Counts, DeviceManager


# The release 1.x since which a resource is healthy as long as any of its plugins is connected.
_KEEPS_WITH_ANY = 37


class Registration:
    """Plugins of one life of kubelet, from its start to its end."""

    def __init__(
        self,
        directory: Path,
        devices: DeviceManager,
        log: EventLog,
        *,
        dial_timeout_seconds: float,
        minor: int,
        on_change: Callable[[], None],
    ) -> None:
        self._directory = directory
        self._minor = minor
        self._devices = devices
        self._log = log
        self._dial_timeout_seconds = dial_timeout_seconds
        self._on_change = on_change
        # By resource, in order of registration: the last one is asked for allocations. Those before it keep
        # their streams, and what they report counts as much.
        self._clients: dict[str, list[PluginClient]] = {}
        # The one that is asked, kept when its stream has ended: kubelet goes on to name it in its errors.
        self._endpoints: dict[str, PluginClient] = {}
        self._streams: set[asyncio.Task[None]] = set()
        # Endpoints that were registered twice while connected: since 1.37 kubelet does not notice their end any more.
        self._unwatched: set[Path] = set()

    async def Register(
        self,
        request: pb.RegisterRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> pb.Empty:
        """Serves v1beta1.Registration/Register."""
        try:
            await self._register(request)
        except KubeletRefusalError as error:
            self._log.record(events.RegistrationRefused(request.resource_name, request.endpoint, str(error)))
            await context.abort(grpc.StatusCode.UNKNOWN, str(error))
        return pb.Empty()

    def endpoint(self, resource: str) -> PluginClient:
        """The plugin to ask for a resource.

        Raises:
            KubeletRefusalError: there is none, or kubelet thinks that it has stopped.
        """
        client = self._endpoints.get(resource)
        if client is None or self._devices.is_stopped(resource):
            raise KubeletRefusalError(texts.endpoint_stopped(client.endpoint if client else resource))
        return client

    def endpoints(self, resource: str) -> list[str]:
        """Socket names of the plugins whose stream is open; more than one after a takeover."""
        return [client.endpoint for client in self._clients.get(resource, [])]

    async def close(self) -> None:
        """Drops every connection."""
        for task in self._streams:
            task.cancel()
        if self._streams:
            await asyncio.wait(self._streams)

    async def _register(self, request: pb.RegisterRequest) -> None:
        resource = request.resource_name
        if request.version != API_VERSION:
            raise KubeletRefusalError(texts.unsupported_version(request.version, API_VERSION))
        if not is_extended_resource(resource):
            raise KubeletRefusalError(texts.invalid_resource_name(resource))
        client = PluginClient(resource, self._directory / request.endpoint)
        try:
            await client.connect(self._dial_timeout_seconds)
        except BaseException:
            await client.close()
            raise
        clients = self._clients.setdefault(resource, [])
        if self._minor >= _KEEPS_WITH_ANY and any(other.socket == client.socket for other in clients):
            await client.close()
            self._unwatched.add(client.socket)
            raise KubeletRefusalError(texts.already_connected(str(client.socket)))
        if clients:
            self._log.record(events.TakenOver(resource, client.endpoint, clients[-1].endpoint))
        clients.append(client)
        self._endpoints[resource] = client
        self._devices.connected(resource)
        self._log.record(events.Registered(resource, client.endpoint))
        task = asyncio.create_task(self._watch(client), name=f"ListAndWatch of {client.endpoint}")
        self._streams.add(task)
        task.add_done_callback(self._streams.discard)

    async def _watch(self, client: PluginClient) -> None:
        why = "rpc error: code = Unavailable desc = the plugin ended the stream"
        try:
            async with contextlib.aclosing(client.list_and_watch()) as lists:
                async for devices in lists:
                    self._changed(client.resource, self._devices.reported(client.resource, devices))
        except KubeletRefusalError as error:
            why = str(error)
        except asyncio.CancelledError:
            # Kubelet dies: nobody is left to mark anything.
            await client.close()
            raise
        await client.close()
        self._log.record(events.StreamLost(client.resource, client.endpoint, why))
        if client.socket in self._unwatched:
            return
        # Kubelet looks up by path whom to disconnect. Here it can be nobody else.
        self._clients[client.resource].remove(client)
        # Up to 1.36 of the resource, not of the plugin: an old plugin that ends after a takeover takes the new one's
        # devices with it, and kubelet thinks the new one stopped until it registers again. Since 1.37 another one that
        # is left is asked from now on, and the devices stay those of the last list, whoever sent it.
        if self._minor < _KEEPS_WITH_ANY or not self._clients[client.resource]:
            self._changed(client.resource, self._devices.disconnected(client.resource, time.monotonic()))
        else:
            self._endpoints[client.resource] = self._clients[client.resource][-1]

    def _changed(self, resource: str, counts: Counts) -> None:
        self._log.record(events.DevicesChanged(resource, counts.capacity, counts.allocatable, counts.in_use))
        self._on_change()
