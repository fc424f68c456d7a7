"""Wakes its waiter when something in a folder may have changed. A wake says "look", never what happened.

inotify where it can be had; the system gives few instances (128 a user by default) and others use them up, so polling is
always underneath: it only gets slower when inotify works.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import struct
from typing import TYPE_CHECKING

from kata_node_agent.errors import describe_os_error
from kata_node_agent.host import native

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

POLL_SECONDS = 0.05
# struct inotify_event, and the bits that end a watch. Source: inotify(7).
_EVENT = struct.Struct("iIII")
_GONE = 0x00000400 | 0x00000800 | 0x00008000  # IN_DELETE_SELF, IN_MOVE_SELF, IN_IGNORED
POLL_WITH_INOTIFY_SECONDS = 5.0


class FolderWatch:
    """Watches one folder, which may not exist yet, be removed or be replaced.

    While it does not exist the nearest folder above it is watched instead: most nodes lack one of ours, and to look for it
    again and again would be most of what an idle agent does.
    """

    def __init__(self, directory: Path, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._poll_seconds = poll_seconds
        self._directory = directory
        self._descriptor: int | None = None
        self._watched: tuple[int, int] | None = None
        self._woken = asyncio.Event()
        self._complained = False

    @property
    def uses_inotify(self) -> bool:
        """Whether changes arrive as events; otherwise they are found by polling."""
        return self._watched is not None

    async def wait(self, timeout: float | None = None) -> None:
        """Returns when something may have changed, at the latest after ``timeout`` or the polling interval, in seconds."""
        self._arm()
        limit = POLL_WITH_INOTIFY_SECONDS if self.uses_inotify else self._poll_seconds
        # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the event.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit if timeout is None else min(limit, timeout)):
                await self._woken.wait()
        self._woken.clear()

    def wake(self) -> None:
        """Ends the wait from outside: a stream was lost, the settings changed."""
        self._woken.set()

    def close(self) -> None:
        """Gives the inotify instance back."""
        if self._descriptor is not None:
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = self._watched = None

    def _arm(self) -> None:
        """Puts a watch on the folder that is at the path now, or the nearest above, if it is another one than before."""
        folder, identity = _nearest(self._directory)
        if identity == self._watched:
            return
        self.close()
        try:
            self._descriptor = native.watch_folder(str(folder))
        except OSError as error:
            if not self._complained:
                log.warning("no inotify, polling instead", extra={"why": describe_os_error(error)})
                self._complained = True
            return
        asyncio.get_running_loop().add_reader(self._descriptor, self._drain, self._descriptor)
        self._watched = identity
        # What happened before the watch was there is not told: look once.
        self._woken.set()

    def _drain(self, descriptor: int) -> None:
        # Which names changed does not matter, the waiter looks at all it knows; only the queue must be emptied. But a
        # folder that is gone takes its watch along, also when one with the same inode number follows.
        with contextlib.suppress(BlockingIOError):
            while events := os.read(descriptor, 1 << 16):
                offset = 0
                while offset + _EVENT.size <= len(events):
                    _, mask, _, name_bytes = _EVENT.unpack_from(events, offset)
                    if mask & _GONE:
                        self._watched = None
                    offset += _EVENT.size + name_bytes
        self._woken.set()


def _nearest(directory: Path) -> tuple[Path, tuple[int, int] | None]:
    """The folder, or the nearest above it that is there, with its identity; none where not even the root can be seen."""
    for folder in (directory, *directory.parents):
        try:
            status = os.stat(folder)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode):
            return folder, (status.st_dev, status.st_ino)
    return directory, None
