"""The runtime's socket: whose it is, and a connection to it. Who answers there is told about every pod, so only root may."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING

from kata_node_agent.errors import NriError, describe_os_error

if TYPE_CHECKING:
    from pathlib import Path

_CONNECT_TIMEOUT_SECONDS = 2.0
# struct ucred: process, user, group. Source: unix(7), SO_PEERCRED.
_UCRED = struct.Struct("iII")


async def connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to whoever listens at the path.

    Raises:
        NriError: nobody does, or it is neither root nor ourselves; then nothing was sent.
    """
    try:
        owner = os.stat(path).st_uid
        _check_user(path, owner, "belongs to")
        async with asyncio.timeout(_CONNECT_TIMEOUT_SECONDS):
            reader, writer = await asyncio.open_unix_connection(path)
    except TimeoutError:
        raise NriError(
            f"{path}: nobody accepts our connection", hint="see whether the runtime runs"
        ) from None
    except OSError as error:
        raise NriError(
            f"{path}: {describe_os_error(error)}", hint="see whether the runtime runs, with NRI enabled"
        ) from error
    try:
        _check_user(path, _peer_user(writer), "is served by")
    except NriError:
        writer.transport.abort()
        raise
    return reader, writer


def _peer_user(writer: asyncio.StreamWriter) -> int:
    credentials = writer.get_extra_info("socket").getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size
    )
    user: int = _UCRED.unpack(credentials)[1]
    return user


def _check_user(path: Path, user: int, how: str) -> None:
    if user not in {0, os.geteuid()}:
        raise NriError(
            f"{path}: {how} user {user}, not root",
            hint="the runtime's socket is root's; see who made this one",
            reason="NriSocketNotRoots",
        )
