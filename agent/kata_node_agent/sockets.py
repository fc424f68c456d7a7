"""Unix sockets as files: whether a path fits, who is behind it, whether it is still the one that we saw. May there be TCP?"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import BusyError, SocketError, describe_os_error

if TYPE_CHECKING:
    from pathlib import Path

# Whose members may ask us.
GROUP = "kata-node-agent"
# sun_path has 108 bytes with its closing NUL. Source: unix(7).
MAX_PATH_BYTES = 107
_CONNECT_TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Tells a file from a later one at the same path.

    An inode number alone does not: it was reused in 1 of 4 restarts of a real kubelet. The time of the last change of
    the inode (nanoseconds) is set when it is made.
    """

    device: int
    inode: int
    changed_ns: int


def identity_of(path: Path) -> FileIdentity | None:
    """The identity of the socket at ``path``; ``None`` where there is no socket, or it cannot be seen."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return (
        FileIdentity(status.st_dev, status.st_ino, status.st_ctime_ns)
        if stat.S_ISSOCK(status.st_mode)
        else None
    )


def check_tcp_permitted(address: str) -> None:
    """Refuses to listen where the service may have no TCP socket at all, which no other address would change.

    Args:
        address: that was to be listened on.

    Raises:
        SocketError: such sockets are refused: systemd's RestrictAddressFamilies=.
    """
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            raise SocketError(
                f"{address}: cannot listen: the service's sandbox permits no network",
                hint="add the drop-in systemd/examples/listeners.conf to the unit, which says how",
            ) from error


def check_socket_path(path: Path, *, room_bytes: int = 0) -> None:
    """Refuses a path that no socket can have.

    Args:
        path: of the socket, or of the folder that sockets will be in.
        room_bytes: for what will be appended to the path.

    Raises:
        SocketError: longer than the system allows.
    """
    length = len(os.fsencode(path)) + room_bytes
    if length > MAX_PATH_BYTES:
        what = f"{length} bytes with a socket's name in it" if room_bytes else f"{length} bytes"
        raise SocketError(
            f"{path}: {what}; a Unix socket's path has at most {MAX_PATH_BYTES}",
            hint="choose a folder with a shorter path, such as /tmp/kata",
            reason="SocketPathTooLong",
        )


# For a channel that shall really dial: by default gRPC shares connections, and the pauses after a refusal, between all
# channels of a process to the same target.
FRESH_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


def unix_target(path: Path) -> str:
    """The path as a gRPC target. gRPC reads targets as URIs, so what means something there is percent-encoded."""
    plain = b"/._-~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    return "unix:" + "".join(chr(byte) if byte in plain else f"%{byte:02X}" for byte in os.fsencode(path))


def refuses_connections(path: Path) -> bool:
    """Whether nobody listens behind a socket file: it was left by a process that is gone."""
    try:
        connect_once(path)
    except OSError as error:
        return error.errno == errno.ECONNREFUSED
    return False


def connect_once(path: Path) -> None:
    """Connects and hangs up.

    Raises:
        OSError: ConnectionRefusedError where nobody listens; whatever else keeps us from it.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(_CONNECT_TIMEOUT_SECONDS)
        probe.connect(str(path))


def make_room(path: Path) -> None:
    """Prepares a path for a socket of ours: removes one that a dead process left, touches nothing else.

    Raises:
        SocketError: the path is too long, cannot be reached, or something that is no socket is there.
        BusyError: a living process listens there.
    """
    check_socket_path(path)
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SocketError(
            f"{path}: {describe_os_error(error)}", hint="choose another folder, or run as root"
        ) from error
    if not stat.S_ISSOCK(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a file that is no socket"
        raise SocketError(f"{path}: {kind} is in the way", hint="remove it, or choose another folder")
    if not refuses_connections(path):
        raise BusyError(f"{path}: another process listens there", hint="stop it, or choose another folder")
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SocketError(
            f"{path}: a dead process left this socket, and it cannot be removed: {describe_os_error(error)}",
            hint="remove it, or run as root",
        ) from error


def give_to_group(path: Path, mode: int | None = None) -> None:
    """Lets our group in, where there is one and we may; a socket stays root's alone otherwise."""
    with contextlib.suppress(KeyError, OSError):
        group = grp.getgrnam(GROUP).gr_gid
        # Started with it as our own, all is born with it; and to give files away we may then not have the right.
        if os.lstat(path).st_gid != group:
            os.chown(path, -1, group, follow_symlinks=False)
        if mode is not None:
            os.chmod(path, mode)
