"""The real kubelet and the development kubelet under one face, and our plugin with a record of what they ask."""
# ruff: noqa: N802 - gRPC's names

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any, Protocol

from kata_node_agent.devkubelet.kubelet import DevKubelet, Timing
from kata_node_agent.kubelet.service import DevicePluginService
from kata_node_agent.sockets import refuses_connections
from tests.conformance.support import RealNode, wait_until
from tests.kubelet.support import Plugin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from kata_node_agent.pb import deviceplugin_pb2 as pb

# What became of a pod: phase, reason, message.
Outcome = tuple[str, str, str]


class Side(Protocol):
    """A kubelet, as a script uses it."""

    plugins: Path
    pod_resources: Path

    async def start(self) -> None: ...

    async def kill(self) -> None: ...

    async def admit(self, name: str, devices: int) -> Outcome: ...

    async def running(self, name: str) -> None:
        """Waits until the pod runs."""

    async def delete(self, name: str) -> None: ...


class DevSide:
    """The development kubelet."""

    def __init__(self, folder: Path) -> None:
        self.plugins = folder / "dp"
        self.kubelet = DevKubelet(self.plugins, timing=Timing(pre_start_retry_seconds=0.5))
        self.pod_resources = self.kubelet.pod_resources_socket

    async def start(self) -> None:
        await self.kubelet.start()

    async def kill(self) -> None:
        await self.kubelet.crash()

    async def admit(self, name: str, devices: int) -> Outcome:
        pod = await self.kubelet.admit("default", name, {"main": devices})
        return pod.phase, pod.reason, pod.message

    async def running(self, name: str) -> None:
        await self.kubelet.log.wait(
            lambda: any(pod.name == name and pod.phase == "Running" for pod in self.kubelet.pods()), 5, name
        )

    async def delete(self, name: str) -> None:
        self.kubelet.delete("default", name)


class RealSide:
    """The real one."""

    def __init__(self, node: RealNode) -> None:
        self.node = node
        self.plugins = node.plugins
        self.pod_resources = node.folder / "root/pod-resources/kubelet.sock"

    async def start(self) -> None:
        self.node.start_kubelet()
        socket = self.plugins / "kubelet.sock"
        await self._until(lambda: socket.exists() and not refuses_connections(socket))

    async def kill(self) -> None:
        await asyncio.to_thread(self.node.stop_kubelet, signal.SIGKILL)

    async def admit(self, name: str, devices: int) -> Outcome:
        self.node.add_pod(name, devices)
        await self._until(lambda: self._outcome(name)[0] == "Failed" or self._waits_or_runs(name))
        return await asyncio.to_thread(self._outcome, name)

    async def running(self, name: str) -> None:
        await self._until(lambda: self.node.running(name))

    async def delete(self, name: str) -> None:
        self.node.remove_pod(name)
        await self._until(lambda: name not in self.node.pods())

    async def _until(self, ready: Callable[[], object]) -> None:
        await asyncio.to_thread(wait_until, ready, "kubelet has done it")

    def _waits_or_runs(self, name: str) -> str:
        states = self.node.pods()[name].get("containerStatuses", [])
        if not states:
            return ""
        # What every container says until kubelet has tried to make it.
        waiting = states[0]["state"].get("waiting", {}).get("reason", "")
        return self.node.running(name) or waiting.replace("ContainerCreating", "")

    def _outcome(self, name: str) -> Outcome:
        status = self.node.pods()[name]
        if status["phase"] == "Failed":
            return "Failed", status.get("reason", ""), status.get("message", "")
        waiting = status.get("containerStatuses", [{"state": {}}])[0]["state"].get("waiting", {})
        return status["phase"], waiting.get("reason", ""), waiting.get("message", "")


class Recorded(DevicePluginService):
    """Our service, and what kubelet asks of it."""

    calls: list[Any]

    async def GetDevicePluginOptions(self, request: Any, context: Any) -> pb.DevicePluginOptions:
        self.calls.append("GetDevicePluginOptions")
        return await super().GetDevicePluginOptions(request, context)

    async def ListAndWatch(self, request: Any, context: Any) -> AsyncIterator[pb.ListAndWatchResponse]:
        self.calls.append("ListAndWatch")
        async for message in super().ListAndWatch(request, context):
            yield message

    async def GetPreferredAllocation(self, request: Any, context: Any) -> pb.PreferredAllocationResponse:
        for part in request.container_requests:
            asked = (
                sorted(part.available_deviceIDs),
                sorted(part.must_include_deviceIDs),
                part.allocation_size,
            )
            self.calls.append(("GetPreferredAllocation", asked))
        return await super().GetPreferredAllocation(request, context)

    async def Allocate(self, request: Any, context: Any) -> pb.AllocateResponse:
        self.calls.append(("Allocate", [sorted(part.devices_ids) for part in request.container_requests]))
        return await super().Allocate(request, context)

    async def PreStartContainer(self, request: Any, context: Any) -> pb.PreStartContainerResponse:
        self.calls.append("PreStartContainer")
        return await super().PreStartContainer(request, context)


class RecordedPlugin(Plugin):
    """Our plugin, real but for the node behind it, with the calls of all its listeners."""

    def __init__(self, directory: Path, total: int) -> None:
        self.calls: list[Any] = []
        super().__init__(directory, total)

    def service(self) -> DevicePluginService:
        service = Recorded(self.table, self.holdings, lambda: self.mode, lambda: None)
        service.calls = self.calls
        return service
