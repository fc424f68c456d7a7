"""Follows whichever development kubelet serves a folder, over kills and restarts by whomever.

Plain asyncio over the control socket. Judges nothing: it hands on what the kubelet says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.devkubelet.names import Folder

RETRY_SECONDS = 0.1
_LIMIT_BYTES = 4 * 1024 * 1024


async def follow(
    folder: Folder,
    *,
    here: Callable[[dict[str, Any]], None],
    event: Callable[[dict[str, Any]], None],
    gone: Callable[[], None],
) -> None:
    """Runs until it is cancelled.

    Args:
        folder: where the control socket is.
        here: called with the kubelet's status whenever a connection is made.
        event: called with each event, as JSON.
        gone: called when the connection is lost.
    """
    while True:
        with contextlib.suppress(OSError, ValueError):
            reader, writer = await asyncio.open_unix_connection(
                str(folder.control_socket), limit=_LIMIT_BYTES
            )
            try:
                writer.write(b'{"do": "watch"}\n')
                if line := await reader.readline():
                    here(json.loads(line))
                    try:
                        while line := await reader.readline():
                            event(json.loads(line))
                    finally:
                        gone()
            finally:
                writer.close()
        await asyncio.sleep(RETRY_SECONDS)
