"""One compressed archive of texts, written whole or not at all."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from kata_node_agent.errors import HostError, describe_os_error

if TYPE_CHECKING:
    from collections.abc import Mapping


def pack(texts: Mapping[str, str], folder: str, now: float) -> bytes:
    """A ``.tar.gz`` of one folder.

    Args:
        texts: file name → content.
        folder: what the archive unpacks to.
        now: the time of its files, in seconds since 1970.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, text in texts.items():
            content = text.encode("utf-8", errors="replace")
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mtime, entry.mode = len(content), int(now), 0o600
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def write_new(name: str, content: bytes) -> None:
    """Writes a file that is not there yet, for its owner alone; standard output for ``-``.

    Raises:
        HostError: it is there, or cannot be written; then nothing of it is left.
    """
    if name == "-":
        # Not `sys.stdout.write`: this is no text.
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise HostError(
            f"{path}: it is there already", hint="name another file with --output", reason="OutputUnwritable"
        ) from None
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError | ValueError) -> HostError:
    what = describe_os_error(error) if isinstance(error, OSError) else str(error)
    return HostError(f"{path}: {what}", hint="name another file with --output", reason="OutputUnwritable")
