"""A gRPC server on a Unix socket that leaves its socket file behind when it stops, as a killed kubelet does.

gRPC removes the file when a listener closes. The real kubelet never gets there: SIGTERM and SIGKILL alike end
it with its sockets in place, and plugins must cope with a socket file that nobody serves.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import grpc

from kata_node_agent.errors import SocketError, describe_os_error
from kata_node_agent.sockets import make_room

if TYPE_CHECKING:
    from pathlib import Path


class LeavingListener:
    """Owns one ``grpc.aio`` server and its socket.

    gRPC is given the path through a descriptor of the folder, ``/proc/self/fd/N/name``. Before the server
    stops, N is made to be something else, and gRPC finds nothing to remove.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # SO_REUSEPORT means nothing for Unix sockets, and only costs a probe.
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._folder = -1

    async def start(self) -> None:
        """Listens.

        Raises:
            SocketError: the folder or the socket cannot be used.
            BusyError: somebody listens there.
        """
        make_room(self.path)
        try:
            self._folder = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.server.add_insecure_port(f"unix:/proc/self/fd/{self._folder}/{self.path.name}")
        except OSError as error:
            raise SocketError(f"{self.path}: {describe_os_error(error)}") from error
        except RuntimeError as error:
            raise SocketError(
                f"{self.path}: cannot be listened on", hint="may its folder be written?"
            ) from error
        await self.server.start()

    async def stop(self) -> None:
        """Ends all calls and connections at once; the socket file stays."""
        if self._folder < 0:
            return
        elsewhere = os.open(os.devnull, os.O_PATH | os.O_CLOEXEC)
        os.dup2(elsewhere, self._folder, inheritable=False)
        os.close(elsewhere)
        await self.server.stop(None)
        os.close(self._folder)
        self._folder = -1
