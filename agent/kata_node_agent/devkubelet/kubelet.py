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
- No NUMA alignment, no init containers, one resource a pod; of the pod resources API only List.
- The `plugins_registry` way of registering is not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from kata_node_agent.devkubelet import checkpoint
from kata_node_agent.devkubelet.events import (
    CheckpointUnreadable,
    Event,
    EventLog,
    Registered,
    ResourceDropped,
    Started,
    Stopped,
)
from kata_node_agent.devkubelet.listener import LeavingListener
from kata_node_agent.devkubelet.names import (
    KUBELET_SOCKET,
    PLUGIN_SOCKET_NAME_BYTES,
    SANDBOX_RESOURCE,
    check_socket_path,
)
from kata_node_agent.devkubelet.podresources import PodResources
from kata_node_agent.devkubelet.pods import Pods
from kata_node_agent.devkubelet.registration import Registration
from kata_node_agent.devkubelet.state import Counts, DeviceManager
from kata_node_agent.errors import AgentError, BusyError, SocketError, describe_os_error
from kata_node_agent.pb import deviceplugin_pb2_grpc, podresources_pb2_grpc
from kata_node_agent.sockets import identity_of, refuses_connections

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kata_node_agent.devkubelet.state import Pod

# The generated glue has no types.
_deviceplugin: Any = deviceplugin_pb2_grpc
_podresources: Any = podresources_pb2_grpc


@dataclass(frozen=True)
class Timing:
    """How long kubelet takes for what; the real one's values, where it has some. Seconds."""

    socket_delay_seconds: float = 0.005  # from the wiped directory to kubelet.sock
    dial_timeout_seconds: float = 10.0
    grace_seconds: float = 300.0  # a resource without plugin is dropped after that
    readmission_seconds: float = 0.45  # after a start
    pre_start_retry_seconds: float = 10.0
    pod_resources_empty_seconds: float = 0.0  # the real one may say for a while that no pod holds anything


@dataclass
class _Life:
    """What ends with kubelet's process."""

    devices: DeviceManager
    registration: Registration
    pods: Pods
    listeners: list[LeavingListener]
    tasks: list[asyncio.Task[None]]


class DevKubelet:
    """A small kubelet over real Unix sockets, in this process.

    Args:
        directory: the device plugin directory (on a node /var/lib/kubelet/device-plugins); made when missing.
        pod_resources_socket: by default ``pod-resources/kubelet.sock`` beside the directory.
        timing: see :class:`Timing`.
    """

    def __init__(
        self, directory: Path, *, pod_resources_socket: Path | None = None, timing: Timing | None = None
    ) -> None:
        self.directory = directory
        self.socket = directory / KUBELET_SOCKET
        beside = directory.parent / "pod-resources" / KUBELET_SOCKET
        self.pod_resources_socket = pod_resources_socket or beside
        self.timing = timing or Timing()
        self.log = EventLog()
        self._life: _Life | None = None

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
        life = self._prepare()
        try:
            for folder in (self.directory, self.pod_resources_socket.parent):
                folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            deleted = _delete_sockets(self.directory)
        except OSError as error:
            raise SocketError(
                f"{error.filename or self.directory}: {describe_os_error(error)}",
                hint="give a folder that you may write, with --dir",
            ) from error
        self._life = life
        try:
            await asyncio.sleep(self.timing.socket_delay_seconds)
            for listener in life.listeners:
                await listener.start()
        except BaseException:
            await self._end(life)
            raise
        life.tasks += [
            asyncio.create_task(self._readmit(life), name="readmission"),
            asyncio.create_task(self._expire(life), name="grace"),
        ]
        self.log.record(Started(str(self.directory), deleted))

    async def crash(self, how: str = "crash") -> None:
        """Ends as the real one does, by SIGTERM or SIGKILL alike: connections drop, socket files stay."""
        if self._life is not None:
            await self._end(self._life)
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
    def _living(self) -> _Life:
        if self._life is None:
            raise AgentError("the development kubelet does not run", reason="NotRunning")
        return self._life

    def _prepare(self) -> _Life:
        """Everything of a life that needs no socket yet, from the checkpoint."""
        try:
            saved = checkpoint.read(self.directory)
        except (OSError, ValueError) as error:
            self.log.record(CheckpointUnreadable(f"{checkpoint.FILE_NAME}: {error}"))
            saved = checkpoint.Checkpoint()
        devices = DeviceManager()
        devices.restore(list(saved.resources), list(saved.holdings), time.monotonic())
        registration = Registration(
            self.directory,
            devices,
            self.log,
            on_change=self._save,
            dial_timeout_seconds=self.timing.dial_timeout_seconds,
        )
        pods = Pods(
            devices,
            registration,
            self.log,
            saved.pods,
            on_change=self._save,
            pre_start_retry_seconds=self.timing.pre_start_retry_seconds,
        )
        kubelet, pod_resources = LeavingListener(self.socket), LeavingListener(self.pod_resources_socket)
        lister = PodResources(devices, lambda: pods.active, self.timing.pod_resources_empty_seconds)
        _deviceplugin.add_RegistrationServicer_to_server(registration, kubelet.server)
        _podresources.add_PodResourcesListerServicer_to_server(lister, pod_resources.server)
        return _Life(devices, registration, pods, [pod_resources, kubelet], [])

    def _save(self) -> None:
        life = self._life
        if life is None:
            return
        # A pod in the middle of its admission is not known to anybody yet.
        pods = tuple(pod for pod in life.pods.all if pod.phase != "Pending" or pod.reason)
        uids = {pod.uid for pod in pods}
        holdings = tuple(holding for holding in life.devices.holdings if holding.pod in uids)
        checkpoint.write(self.directory, checkpoint.Checkpoint(pods, holdings, tuple(life.devices.resources)))

    async def _end(self, life: _Life) -> None:
        self._life = None
        for task in life.tasks:
            task.cancel()
        for task in life.tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        # First the sockets, so that nobody registers with a kubelet that is about to be gone.
        for listener in reversed(life.listeners):
            await listener.stop()
        await life.pods.close()
        await life.registration.close()

    async def _readmit(self, life: _Life) -> None:
        await asyncio.sleep(self.timing.readmission_seconds)
        life.pods.readmit()

    async def _expire(self, life: _Life) -> None:
        grace = self.timing.grace_seconds
        while True:
            await asyncio.sleep(min(1.0, grace / 4))
            for resource in life.devices.expire(time.monotonic(), grace):
                self.log.record(ResourceDropped(resource))
                self._save()


def _delete_sockets(directory: Path) -> tuple[str, ...]:
    """Deletes every socket in a folder, whoever's it is; gives the names."""
    deleted = []
    for path in sorted(directory.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                path.unlink()
                deleted.append(path.name)
    return tuple(deleted)
