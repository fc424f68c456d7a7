"""One life of the development kubelet: what begins with its process and ends with it.

Owns the sockets, the plugins' streams and the timers of that life. What survives it is the checkpoint.
"""

from __future__ import annotations

import asyncio
import contextlib
import stat
import time
from typing import TYPE_CHECKING, Any

from kata_node_agent.dataclass import dataclass
from kata_node_agent.devkubelet import checkpoint, events
from kata_node_agent.devkubelet.listener import LeavingListener
from kata_node_agent.devkubelet.names import KUBELET_SOCKET
from kata_node_agent.devkubelet.podresources import PodResources
from kata_node_agent.devkubelet.pods import Pods
from kata_node_agent.devkubelet.registration import Registration
from kata_node_agent.devkubelet.state import DeviceManager
from kata_node_agent.errors import SocketError, describe_os_error
from kata_node_agent.pb import deviceplugin_pb2_grpc, podresources_pb2_grpc

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.devkubelet.events import EventLog

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


class Life:
    """Built from the checkpoint in ``directory``; nothing is on disk or on a socket before :meth:`start`."""

    def __init__(
        self, directory: Path, pod_resources_socket: Path, timing: Timing, log: EventLog, minor: int
    ) -> None:
        self._directory = directory
        self._timing = timing
        self._log = log
        self._alive = True
        self._tasks: list[asyncio.Task[None]] = []
        try:
            saved = checkpoint.read(directory)
        except (OSError, ValueError) as error:
            log.record(events.CheckpointUnreadable(f"{checkpoint.FILE_NAME}: {error}"))
            saved = checkpoint.Checkpoint()
        self.devices = DeviceManager()
        self.devices.restore(list(saved.resources), list(saved.holdings), time.monotonic())
        self.registration = Registration(
            directory,
            self.devices,
            log,
            on_change=self._save,
            dial_timeout_seconds=timing.dial_timeout_seconds,
            minor=minor,
        )
        self.pods = Pods(
            self.devices,
            self.registration,
            log,
            saved.pods,
            on_change=self._save,
            pre_start_retry_seconds=timing.pre_start_retry_seconds,
        )
        lister = PodResources(self.devices, lambda: self.pods.active, timing.pod_resources_empty_seconds)
        kubelet, pod_resources = (
            LeavingListener(directory / KUBELET_SOCKET),
            LeavingListener(pod_resources_socket),
        )
        _deviceplugin.add_RegistrationServicer_to_server(self.registration, kubelet.server)
        _podresources.add_PodResourcesListerServicer_to_server(lister, pod_resources.server)
        # kubelet.sock comes last: it is what plugins wait for.
        self._listeners = [pod_resources, kubelet]

    async def start(self) -> None:
        """Deletes every socket in the directory, then creates kubelet.sock.

        Raises:
            SocketError: a path cannot be used. Nothing runs then.
        """
        try:
            for folder in {listener.path.parent for listener in self._listeners}:
                folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            deleted = _delete_sockets(self._directory)
        except OSError as error:
            raise SocketError(
                f"{error.filename or self._directory}: {describe_os_error(error)}",
                hint="give a folder that you may write, with --dir",
            ) from error
        try:
            await asyncio.sleep(self._timing.socket_delay_seconds)
            for listener in self._listeners:
                await listener.start()
        except BaseException:
            await self.end()
            raise
        self._tasks = [
            asyncio.create_task(self._readmit(), name="readmission"),
            asyncio.create_task(self._expire(), name="grace"),
        ]
        self._log.record(events.Started(str(self._directory), deleted))

    async def end(self) -> None:
        """Drops every connection; the socket files stay."""
        self._alive = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # First the sockets, so that nobody registers with a kubelet that is about to be gone.
        for listener in reversed(self._listeners):
            await listener.stop()
        await self.pods.close()
        await self.registration.close()

    def _save(self) -> None:
        if not self._alive:
            return
        # A pod in the middle of its admission is not known to anybody yet.
        pods = tuple(pod for pod in self.pods.all if pod.phase != "Pending" or pod.reason)
        uids = {pod.uid for pod in pods}
        holdings = tuple(holding for holding in self.devices.holdings if holding.pod in uids)
        saved = checkpoint.Checkpoint(pods, holdings, tuple(self.devices.resources))
        try:
            checkpoint.write(self._directory, saved)
        except OSError as error:
            self._log.record(events.CheckpointUnwritable(f"{self._directory}: {describe_os_error(error)}"))

    async def _readmit(self) -> None:
        await asyncio.sleep(self._timing.readmission_seconds)
        self.pods.readmit()

    async def _expire(self) -> None:
        grace = self._timing.grace_seconds
        while True:
            await asyncio.sleep(min(1.0, grace / 4))
            for resource in self.devices.expire(time.monotonic(), grace):
                self._log.record(events.ResourceDropped(resource))
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
