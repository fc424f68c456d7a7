"""The development kubelet itself: its lives, from start to kill, and what survives between them.

    async with DevKubelet(tmp / "device-plugins") as kubelet:
        await kubelet.wait_for_devices(healthy=4)
        pod = await kubelet.admit("default", "web", {"main": 1})
        await kubelet.restart()

How it differs from the real one:

- There is no scheduler and no API server: a pod comes straight to admission, like a static pod. Where a
  scheduler would leave it Pending, it fails here with what kubelet itself says.
- A resource that no plugin has ever shown is refused; the real kubelet runs such a pod without devices.
- Devices are taken in order of their ids, where the real one takes any.
- What the node shows changes at once, not with the next status update (up to 10 s).
- After a restart, pods with overhead are judged 0.45 s after the start, which is when the real one writes its
  first status; the real one judges them by that about 1.3 s after its start.
- No NUMA alignment, no init containers, one resource a pod; of the pod resources API not Get.
- The `plugins_registry` way of registering is not there.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from kata_node_agent.devkubelet.events import Event, EventLog, Registered, Stopped
from kata_node_agent.devkubelet.life import Life, Timing
from kata_node_agent.devkubelet.names import (
    KUBELET_SOCKET,
    PLUGIN_SOCKET_NAME_BYTES,
    SANDBOX_RESOURCE,
)
from kata_node_agent.devkubelet.state import Counts
from kata_node_agent.errors import AgentError, BusyError
from kata_node_agent.sockets import check_socket_path, identity_of, refuses_connections

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kata_node_agent.devkubelet.state import Pod

__all__ = ["DevKubelet", "Timing"]


class DevKubelet:
    """A small kubelet over real Unix sockets, in this process.

    Args:
        directory: the device plugin directory (on a node /var/lib/kubelet/device-plugins); made when missing.
        pod_resources_socket: by default ``pod-resources/kubelet.sock`` beside the directory.
        timing: see :class:`Timing`.
        minor: behaves as kubelet 1.x; up to 36, and since 37, they treat two plugins of one resource differently.
    """

    def __init__(
        self,
        directory: Path,
        *,
        pod_resources_socket: Path | None = None,
        timing: Timing | None = None,
        minor: int = 37,
    ) -> None:
        self.directory = directory
        self.socket = directory / KUBELET_SOCKET
        beside = directory.parent / "pod-resources" / KUBELET_SOCKET
        self.pod_resources_socket = pod_resources_socket or beside
        self.timing = timing or Timing()
        self.log = EventLog()
        self._minor = minor
        self._life: Life | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.crash("stop")

    @property
    def events(self) -> list[Event]:
        """All that happened, in order."""
        return self.log.events

    @property
    def running(self) -> bool:
        """Whether kubelet lives."""
        return self._life is not None

    async def start(self) -> None:
        """Starts as at boot: deletes every socket in the directory, then creates kubelet.sock.

        Raises:
            SocketError: a path is too long, or cannot be used.
        """
        if self._life is not None:
            raise AgentError("the development kubelet already runs", reason="AlreadyRunning")
        check_socket_path(self.directory, room_bytes=1 + PLUGIN_SOCKET_NAME_BYTES)
        check_socket_path(self.pod_resources_socket)
        if identity_of(self.socket) and not refuses_connections(self.socket):
            # No kubelet asks this. But it may be a real node's, and we are about to delete its plugins.
            raise BusyError(
                f"{self.socket}: a kubelet is running here", hint="give another folder with --dir"
            )
        life = Life(self.directory, self.pod_resources_socket, self.timing, self.log, self._minor)
        self._life = life
        try:
            await life.start()
        except BaseException:
            self._life = None
            raise

    async def crash(self, how: str = "crash") -> None:
        """Ends as the real one does, by SIGTERM or SIGKILL alike: connections drop, socket files stay."""
        if self._life is not None:
            life, self._life = self._life, None
            await life.end()
            self.log.record(Stopped(how))

    async def restart(self, down_seconds: float = 0.0) -> None:
        """Ends and starts again, as at boot, with the checkpoint that the last life left."""
        await self.crash("restart")
        await asyncio.sleep(down_seconds)
        await self.start()

    async def admit(
        self,
        namespace: str,
        name: str,
        containers: Mapping[str, int],
        *,
        resource: str = SANDBOX_RESOURCE,
        overhead: int = 0,
    ) -> Pod:
        """Admits a pod; see :meth:`Pods.admit`. ``containers``: name → count of devices."""
        pods = self._living.pods
        return await pods.admit(namespace, name, containers, resource=resource, overhead=overhead)

    def delete(self, namespace: str, name: str) -> Pod:
        """Deletes a pod; its devices are free."""
        return self._living.pods.delete(namespace, name)

    def pods(self) -> tuple[Pod, ...]:
        """All pods, failed ones too."""
        return self._living.pods.all

    def device_ids(self, pod: Pod) -> tuple[str, ...]:
        """What a pod holds."""
        return self._living.pods.device_ids(pod)

    def resources(self) -> list[str]:
        """The resources that the node shows."""
        return self._living.devices.resources

    def counts(self, resource: str = SANDBOX_RESOURCE) -> Counts:
        """What the node shows of a resource; zeros when it does not know it, or is down."""
        return self._life.devices.counts(resource) if self._life else Counts(0, 0, 0)

    def endpoints(self, resource: str = SANDBOX_RESOURCE) -> list[str]:
        """Socket names of the plugins whose stream for a resource is open."""
        return self._life.registration.endpoints(resource) if self._life else []

    async def wait_for_devices(
        self, healthy: int, resource: str = SANDBOX_RESOURCE, *, timeout_seconds: float = 5.0
    ) -> Counts:
        """Waits until a resource is known with exactly so many healthy devices; ``TimeoutError`` if not."""

        def there() -> bool:
            life = self._life
            return (
                life is not None
                and resource in life.devices.resources
                and life.devices.counts(resource).allocatable == healthy
            )

        await self.log.wait(there, timeout_seconds, f"{healthy} healthy {resource}")
        return self.counts(resource)

    async def wait_for_registrations(self, count: int, *, timeout_seconds: float = 5.0) -> list[Registered]:
        """Waits until plugins have registered so many times in all, since this object was made."""
        await self.log.wait(
            lambda: len(self.log.of(Registered)) >= count, timeout_seconds, f"registration number {count}"
        )
        return self.log.of(Registered)

    @property
    def _living(self) -> Life:
        if self._life is None:
            raise AgentError("the development kubelet does not run", reason="NotRunning")
        return self._life
