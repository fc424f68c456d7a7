"""Files in NFD's folder: whole or not at all, never through a link, and no failure where NFD is not installed.

A file is replaced by rename(2) within the folder, from a name that begins with a dot, which NFD does not read. That also
replaces a link planted under our name instead of following it.
"""

from __future__ import annotations

import contextlib
import enum
import os
import stat
import time
from typing import TYPE_CHECKING

from kata_node_agent.errors import AgentError, describe_os_error
from kata_node_agent.publish.nfd.text import compose, is_current

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# NFD ignores a larger file.
MAX_FILE_BYTES = 64 * 1024
# A temporary file of ours that is older was left by a process that did not live to rename it.
_STALE_SECONDS = 60.0
_NO_FOLDER_HINT = (
    "install Node Feature Discovery, or set nfd.features_dir to the folder that its worker reads"
)


class PublishError(AgentError):
    """A file for NFD cannot be read or written."""

    reason = "FeatureFileUnusable"


class Outcome(enum.StrEnum):
    """What came of publishing."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    # NFD is not installed, or not yet. No failure: try again later.
    NO_FOLDER = "no-folder"


class FeatureFile:
    """One file in NFD's folder. Holds nothing open, remembers nothing: what is there is looked at each time."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def publish(self, body: str, *, lifetime_seconds: int, now: float | None = None) -> Outcome:
        """Writes the file if it does not say this yet, or not for long enough; see `text.is_current`.

        Args:
            body: what it shall say, without the expiry time.
            lifetime_seconds: how long NFD shall believe it.
            now: Unix seconds; the time of the call unless given.

        Raises:
            PublishError: the folder or file cannot be used; what was there before still is.
        """
        now = time.time() if now is None else now
        with self._folder() as folder:
            if folder is None:
                return Outcome.NO_FOLDER
            present = self._read_ours(folder)
            if present is not None and is_current(present, body, lifetime_seconds=lifetime_seconds, now=now):
                return Outcome.UNCHANGED
            self._write(folder, compose(body, int(now) + lifetime_seconds))
            return Outcome.WRITTEN

    def write(self, text: str) -> Outcome:
        """Writes the file as given, unless it says exactly this.

        Raises:
            PublishError: see `publish`.
        """
        with self._folder() as folder:
            if folder is None:
                return Outcome.NO_FOLDER
            if self._read_ours(folder) == text:
                return Outcome.UNCHANGED
            self._write(folder, text)
            return Outcome.WRITTEN

    def read(self) -> str | None:
        """What the file says; ``None`` where there is none.

        Raises:
            PublishError: it cannot be read, or is a link or another thing than a file.
        """
        with self._folder() as folder:
            return None if folder is None else self._read(folder)

    def remove(self) -> bool:
        """Deletes the file; returns whether there was one.

        Raises:
            PublishError: it is there and cannot be deleted.
        """
        with self._folder() as folder:
            if folder is None:
                return False
            try:
                os.unlink(self.path.name, dir_fd=folder)
                os.fsync(folder)
            except FileNotFoundError:
                return False
            except OSError as error:
                raise self._error("cannot be removed", error) from error
            return True

    def folder_exists(self) -> bool:
        """Whether NFD's folder is there.

        Raises:
            PublishError: it is there, or something is, and cannot be used.
        """
        with self._folder() as folder:
            return folder is not None

    def no_folder(self) -> PublishError:
        """The error for a person who wants the file written now."""
        return PublishError(
            f"{self.path.parent}: there is no such folder", hint=_NO_FOLDER_HINT, reason="NfdNotInstalled"
        )

    @contextlib.contextmanager
    def _folder(self) -> Iterator[int | None]:
        """A descriptor of the folder, so that all steps are done in the same one."""
        try:
            descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            message = f"{self.path.parent}: {describe_os_error(error)}"
            raise PublishError(
                message, hint="run as root, or set nfd.features_dir to another folder"
            ) from error
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _read(self, folder: int) -> str | None:
        try:
            # O_NONBLOCK: a FIFO under our name must not hang us.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(self.path.name, flags, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error("cannot be read", error) from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PublishError(
                    f"{self.path} is no regular file", hint="remove it: it is not of our making"
                )
            content = os.read(descriptor, MAX_FILE_BYTES + 1)
        except OSError as error:
            raise self._error("cannot be read", error) from error
        finally:
            os.close(descriptor)
        return content.decode("utf-8", errors="replace")

    def _read_ours(self, folder: int) -> str | None:
        """As `_read`; what cannot be read, a planted link for one, is to be replaced."""
        try:
            return self._read(folder)
        except PublishError:
            return None

    def _write(self, folder: int, text: str) -> None:
        content = text.encode()
        if len(content) > MAX_FILE_BYTES:
            raise PublishError(f"{self.path}: {len(content)} bytes; NFD ignores files above {MAX_FILE_BYTES}")
        self._sweep(folder)
        temporary = f".{self.path.name}.{os.getpid()}.tmp"
        try:
            try:
                _write_new(folder, temporary, content)
                os.rename(temporary, self.path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=folder)
                raise
            os.fsync(folder)
        except OSError as error:
            raise self._error("cannot be written", error) from error

    def _sweep(self, folder: int) -> None:
        """Removes temporary files that killed processes left; nothing depends on it."""
        start = f".{self.path.name}."
        with contextlib.suppress(OSError):
            for name in os.listdir(folder):
                if name.startswith(start) and name.endswith(".tmp"):
                    with contextlib.suppress(OSError):
                        if time.time() - os.lstat(name, dir_fd=folder).st_mtime > _STALE_SECONDS:
                            os.unlink(name, dir_fd=folder)

    def _error(self, what: str, error: OSError) -> PublishError:
        hint = "see that the folder can be written to (as root, not mounted read-only) and that the disk is not full"
        return PublishError(f"{self.path} {what}: {describe_os_error(error)}", hint=hint)


def _write_new(folder: int, name: str, content: bytes) -> None:
    """A new file with this content, safe on disk. One of the same name is a leftover of a process that had our pid."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
    descriptor = os.open(
        name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder
    )
    try:
        while content:
            content = content[os.write(descriptor, content) :]
        # NFD's worker runs as another user, whatever our umask is.
        os.fchmod(descriptor, 0o644)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
