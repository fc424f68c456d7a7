"""The size of the tmpfs at /dev/shm, where guest memory lives that is shared with virtiofsd."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

PATH = "/dev/shm"  # noqa: S108 - the host's, looked at only
# Larger is no size of anything, and would not fit other programs' integers.
_MAX_BYTES = (1 << 63) - 1
_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True, slots=True)
class SharedMemory:
    """The size in bytes, and who said it: the file system (``statfs``) or its mount options (``mounts``)."""

    total_bytes: int
    source: str


def read_shared_memory(root: HostRoot, *, live: bool, memory_bytes: int | None) -> SharedMemory | None:
    """The size of /dev/shm, or ``None`` where nothing says it.

    In a recorded tree the folder lies on the disk of whoever looks at it, so only the recorded mount counts.
    """
    if live:
        path = root.resolve(PATH)
        try:
            # A mounted /dev without what is mounted below it shows an empty folder of the outer file system.
            if path.stat().st_dev != path.parent.stat().st_dev:
                status = os.statvfs(path)
                if status.f_blocks:
                    return SharedMemory(status.f_blocks * status.f_frsize, "statfs")
        except OSError:
            pass
    # init's view: in a container our own mounts are not the host's.
    for mounts in ("/proc/1/mounts", "/proc/mounts"):
        text = root.try_read_text(mounts)
        if text is not None and (size := parse_mount_size(text, memory_bytes)) is not None:
            return SharedMemory(size, "mounts")
    return None


def free_shared_memory(root: HostRoot) -> int | None:
    """Bytes that still go into /dev/shm of a live host; ``None`` where it is no file system of its own."""
    path = root.resolve(PATH)
    try:
        if path.stat().st_dev == path.parent.stat().st_dev:
            return None
        status = os.statvfs(path)
    except OSError:
        return None
    # A tmpfs without a limit has no blocks at all.
    return status.f_bavail * status.f_frsize if status.f_blocks else None


def parse_mount_size(text: str, memory_bytes: int | None) -> int | None:
    """The size of the last tmpfs mounted at /dev/shm; without an option it is half the memory."""
    size = None
    for line in text.split("\n"):
        words = line.split(" ")
        if len(words) < 4 or words[1] != PATH or words[2] != "tmpfs":
            continue
        size = memory_bytes // 2 if memory_bytes is not None else None
        for option in words[3].split(","):
            match = re.fullmatch(r"size=([0-9]{1,15})([kmg%]?)", option)
            if match is None:
                continue
            if match[2] == "%":
                size = memory_bytes * int(match[1]) // 100 if memory_bytes is not None else None
            else:
                size = int(match[1]) * _UNITS[match[2]]
    return size if size is None or size <= _MAX_BYTES else None
