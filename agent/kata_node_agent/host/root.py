"""The one place where the path of a host file becomes a path of ours (``--host-root``).

In a container the host is mounted at some folder; a recorded tree of a node lies at another. Every reader of the
host goes through a :class:`HostRoot` and never opens a path by itself. Reading may fail at any time, as /proc and
/sys change under us: the readers here turn that into a value (``None``) or one :class:`HostError`.
"""

from __future__ import annotations

import os
from pathlib import Path

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import HostError, describe_os_error

# Host files we parse are small; a larger one is not what it claims to be. 4 MiB holds the cpuinfo of 2,000 CPUs.
MAX_FILE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class HostRoot:
    """The host's file tree as this process sees it; ``/`` unless said otherwise."""

    path: Path = Path("/")

    def resolve(self, host_path: str | Path) -> Path:
        """Where an absolute path of the host lies for us."""
        return self.path / str(host_path).lstrip("/")

    def read_bytes(self, host_path: str | Path, limit: int = MAX_FILE_BYTES) -> bytes:
        """The content of a host file.

        Raises:
            HostError: it cannot be read, is no file, or is larger than ``limit`` bytes. ``__cause__`` has the OSError.
        """
        path = self.resolve(host_path)
        try:
            # O_NONBLOCK: a FIFO planted at the path must not hang us.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
            try:
                chunks: list[bytes] = []
                size = 0
                while size <= limit and (chunk := os.read(descriptor, min(1 << 16, limit + 1 - size))):
                    chunks.append(chunk)
                    size += len(chunk)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise HostError(f"{path}: {describe_os_error(error)}") from error
        if size > limit:
            raise HostError(f"{path}: larger than {limit} bytes", reason="HostFileTooLarge")
        return b"".join(chunks)

    def read_text(self, host_path: str | Path, limit: int = MAX_FILE_BYTES) -> str:
        """As :meth:`read_bytes`, decoded; bytes that are no UTF-8 become U+FFFD, as host text is not ours to refuse."""
        return self.read_bytes(host_path, limit).decode("utf-8", errors="replace")

    def try_read_text(self, host_path: str | Path, limit: int = MAX_FILE_BYTES) -> str | None:
        """As :meth:`read_text`, with ``None`` for anything that cannot be read."""
        try:
            return self.read_text(host_path, limit)
        except HostError:
            return None

    def exists(self, host_path: str | Path) -> bool:
        """Whether the path is there and can be reached; a link that leads nowhere is not."""
        return os.path.exists(self.resolve(host_path))

    def list_names(self, host_path: str | Path) -> list[str]:
        """Names in a host folder, sorted; empty where there is no such folder or it may not be read."""
        try:
            return sorted(os.listdir(self.resolve(host_path)))
        except OSError:
            return []
