"""The command line's side of the control socket. Plain sockets: it must be there at once, without gRPC."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, Self

from kata_node_agent.errors import AgentError, SocketError, describe_os_error

if TYPE_CHECKING:
    from pathlib import Path

    from kata_node_agent.devkubelet.names import Folder

# An admission lasts as long as the plugin likes.
ANSWER_TIMEOUT_SECONDS = 60.0
_CREDENTIALS = struct.Struct("3i")


class ControlClient:
    """One connection to the development kubelet of a folder.

    Raises:
        SocketError: nobody serves there, or it may not be reached.
    """

    def __init__(self, folder: Folder, timeout_seconds: float = ANSWER_TIMEOUT_SECONDS) -> None:
        self._folder = folder
        self._socket = connect(folder, timeout_seconds)
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    @property
    def pid(self) -> int:
        """The process that listens, as the kernel says; 0 when it is in another PID namespace."""
        raw = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        return int(_CREDENTIALS.unpack(raw)[0])

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        """One request, one answer.

        Raises:
            AgentError: what the kubelet answered, or that it did not.
        """
        try:
            self._socket.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            line = self._lines.readline()
            answer = json.loads(line) if line else None
        except TimeoutError:
            raise SocketError(
                f"{self._folder.control_socket}: no answer in time",
                hint="a plugin may be slow in Allocate; the kubelet's output tells",
            ) from None
        except (OSError, ValueError) as error:
            raise SocketError(f"{self._folder.control_socket}: {error}") from error
        if not isinstance(answer, dict):
            raise SocketError(
                f"{self._folder.control_socket}: the development kubelet ended before it answered"
            )
        if not answer.get("ok"):
            raise AgentError(
                str(answer.get("message", "refused")),
                hint=str(answer.get("hint", "")),
                reason=str(answer.get("reason", "Error")),
            )
        return answer

    def kill(self, timeout_seconds: float = 5.0) -> int:
        """Kills the kubelet's process with SIGKILL, by its pid, and waits until it is gone; gives the pid."""
        pid = int(self.ask("status")["pid"])
        if pid != self.pid:
            raise AgentError(
                f"the development kubelet says that its pid is {pid}, the kernel that it is {self.pid}",
                hint="it runs in another PID namespace; kill it there",
                reason="PidUnknown",
            )
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError as error:
            raise AgentError(
                f"pid {pid}: {describe_os_error(error)}",
                hint="run this as the same user",
                reason="KillFailed",
            ) from error
        deadline = time.monotonic() + timeout_seconds
        # The kernel closes the connection with the process.
        self._socket.settimeout(timeout_seconds)
        try:
            while self._lines.readline() and time.monotonic() < deadline:
                pass
        except OSError:
            pass
        return pid


def connect(folder: Folder, timeout_seconds: float) -> socket.socket:
    """A connection to the control socket; ``SocketError`` says how to start a kubelet when there is none."""
    folder.check()
    path: Path = folder.control_socket
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    connection.settimeout(timeout_seconds)
    try:
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        if isinstance(error, FileNotFoundError | ConnectionRefusedError):
            raise SocketError(
                f"no development kubelet runs in {folder.root}",
                reason="DevKubeletNotRunning",
                hint=f"start one with: kata-node-agent devkubelet serve --dir {folder.root}",
            ) from None
        raise SocketError(
            f"{path}: {describe_os_error(error)}",
            hint="it belongs to another user; run this as that user, or as root",
        ) from error
    return connection
