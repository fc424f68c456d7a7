"""One development kubelet, and one `dev`, for a folder: file locks, which end with their process."""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import TYPE_CHECKING

from kata_node_agent.errors import BusyError, SocketError, describe_os_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def locked(path: Path, what: str, hint: str) -> Iterator[None]:
    """Holds a lock while the block runs. The file stays; it has the holder's pid.

    Raises:
        BusyError: another process holds it; the message says which.
        SocketError: the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SocketError(
            f"{path}: {describe_os_error(error)}", hint="give a folder that you may write, with --dir"
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            raise BusyError(
                f"{what} already runs in {path.parent}: pid {holder if holder.isdigit() else 'unknown'}",
                hint=hint,
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)
