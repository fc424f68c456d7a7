"""One listener of the device plugin: a gRPC server on a socket of its own in kubelet's folder.

Every listener gets a fresh file name. On a name used before, the new socket can be lost to the late unlink of the old
server's: seen in 1 of 100 kubelet restarts, in none of 300 with fresh names.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc

from kata_node_agent.errors import SocketError, describe_os_error
from kata_node_agent.pb import deviceplugin_pb2, deviceplugin_pb2_grpc
from kata_node_agent.sockets import (
    FRESH_CONNECTION,
    check_socket_path,
    identity_of,
    refuses_connections,
    unix_target,
)

if TYPE_CHECKING:
    from kata_node_agent.kubelet.service import DevicePluginService

# A message of kubelet's is small; what is larger is none.
_MAX_REQUEST_BYTES = 4 * 1024 * 1024
_STOP_GRACE_SECONDS = 0.5
_PROBE_TIMEOUT_SECONDS = 1.0
_SETTLING_SECONDS = 10.0


def socket_prefix(resource: str) -> str:
    """How the names of this resource's sockets begin: two agents for two resources may share the folder."""
    return resource.replace("/", "_") + "-"


def socket_name_bytes(resource: str) -> int:
    """How long the name of a socket of this resource is."""
    return len(socket_prefix(resource)) + 8 + len(".sock")


def remove_stale_sockets(directory: Path, resource: str) -> list[str]:
    """Removes sockets that a dead agent for the same resource left; returns their names.

    Only to be called by the one who holds the lock of folder and resource. A socket that still answers stays.
    """
    removed: list[str] = []
    prefix = socket_prefix(resource)
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if not (entry.name.startswith(prefix) and entry.name.endswith(".sock")):
                continue
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode) and refuses_connections(
                    Path(entry.path)
                ):
                    os.unlink(entry.path)
                    removed.append(entry.name)
    return removed


class Endpoint:
    """A listener that serves from `start` until `stop`."""

    def __init__(self, directory: Path, resource: str, service: DevicePluginService) -> None:
        self.name = f"{socket_prefix(resource)}{os.urandom(4).hex()}.sock"
        self.path = directory / self.name
        self.service = service
        self._server: grpc.aio.Server | None = None
        self._started_at = float("inf")
        self._inode: tuple[int, int] | None = None

    async def start(self) -> Self:
        """Serves.

        Raises:
            SocketError: the path is too long, or the folder does not let us.
        """
        check_socket_path(self.path)
        options = [("grpc.max_receive_message_length", _MAX_REQUEST_BYTES), ("grpc.so_reuseport", 0)]
        server = grpc.aio.server(options=options)
        deviceplugin_pb2_grpc.add_DevicePluginServicer_to_server(self.service, server)
        try:
            server.add_insecure_port(unix_target(self.path))
        except RuntimeError as error:
            raise SocketError(
                f"{self.path}: cannot listen: {_why_not_writable(self.path.parent)}",
                hint="the agent must be able to create sockets in kubelet's device plugin folder: run it as root",
            ) from error
        await server.start()
        self._server = server
        self._inode = self._inode_now()
        self._started_at = time.monotonic()
        return self

    @property
    def settled(self) -> bool:
        """Whether it has served for long enough that our own probe must have found it."""
        return time.monotonic() - self._started_at > _SETTLING_SECONDS

    @property
    def in_place(self) -> bool:
        """Whether the file at our path is still the socket that we made."""
        return self._inode is not None and self._inode_now() == self._inode

    def _inode_now(self) -> tuple[int, int] | None:
        # Nobody else uses our name, so an inode number is not reused under it; a chmod does not make it another socket.
        identity = identity_of(self.path)
        return None if identity is None else (identity.device, identity.inode)

    async def answers(self) -> bool:
        """Whether a call over our own socket is answered: what kubelet would find if it dialed now."""
        async with grpc.aio.insecure_channel(unix_target(self.path), options=FRESH_CONNECTION) as channel:
            stub = deviceplugin_pb2_grpc.DevicePluginStub(channel)
            try:
                await stub.GetDevicePluginOptions(deviceplugin_pb2.Empty(), timeout=_PROBE_TIMEOUT_SECONDS)
            except grpc.aio.AioRpcError:
                return False
        return True

    async def stop(self) -> None:
        """Ends the streams, then the server, and removes the socket if it is still ours."""
        self.service.close()
        if self._server is not None:
            ours = self.in_place
            await self._server.stop(_STOP_GRACE_SECONDS)
            self._server = None
            if ours:
                with contextlib.suppress(OSError):
                    self.path.unlink(missing_ok=True)


def _why_not_writable(directory: Path) -> str:
    try:
        with os.scandir(directory):
            pass
    except OSError as error:
        return describe_os_error(error)
    return (
        "no permission to create a socket" if not os.access(directory, os.W_OK) else "refused by the system"
    )
