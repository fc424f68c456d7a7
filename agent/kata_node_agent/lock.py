"""Only one process at a time: file locks that name their holder and end with it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING, Self

from kata_node_agent.errors import BusyError, SocketError, describe_os_error

if TYPE_CHECKING:
    from pathlib import Path

_MAX_HOLDER_BYTES = 512


class Lock:
    """An flock(2) on a file that names its holder. The file stays: removing it would let two processes hold "it"."""

    def __init__(self, path: Path, busy: str, *, hint: str) -> None:
        """See the class.

        Args:
            path: of the lock file, in a folder that exists when the lock is taken.
            busy: what to say when another process holds it; its pid is added.
            hint: what to do then.
        """
        self.path = path
        self._busy = busy
        self._hint = hint
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def held(self) -> bool:
        """Whether we hold it."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Takes the lock at once.

        Raises:
            BusyError: another process holds it; the message says which.
            SocketError: the file cannot be made.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise SocketError(
                f"{self.path}: {describe_os_error(error)}",
                hint="choose a folder that can be written to, or run as root",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise SocketError(f"{self.path}: cannot lock: {describe_os_error(error)}") from error
            raise BusyError(f"{self._busy}: {holder} ({self.path})", hint=self._hint) from None
        # Only a note for people: a full disk must not keep us from holding the lock.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"pid {os.getpid()}\n".encode())
        self._descriptor = descriptor

    def renew(self) -> None:
        """Makes sure that what we hold is still the file at the path: others may have removed it, and the folder.

        Raises:
            BusyError, SocketError: as `acquire`.
        """
        if self._descriptor is not None:
            held = os.fstat(self._descriptor)
            with contextlib.suppress(OSError):
                there = os.stat(self.path)
                if (there.st_dev, there.st_ino) == (held.st_dev, held.st_ino):
                    return
        self.release()
        self.acquire()

    def release(self) -> None:
        """Gives the lock back; nothing if it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _holder(descriptor: int) -> str:
    try:
        text = os.pread(descriptor, _MAX_HOLDER_BYTES, 0).decode(errors="replace").strip()
    except OSError:
        text = ""
    return text if text.isprintable() and text else "unknown process"
