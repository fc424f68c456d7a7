"""A small history of integer figures in one file of fixed size, which survives crashes and tells torn records.

The file is a ring of records, one for each ten minutes of four weeks, which hold the largest value of each figure in that
time. A record has its place by the time, its own checksum and its own time: a torn or foreign one is passed over, and one
that the ring has come round to is too old. Percentiles are exact, of those ten-minute maxima. All space is taken when the
file is made: a disk that fills later takes nothing away.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import HostError, describe_os_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

WINDOW_SECONDS = 600
RECORDS = 4 * 7 * 24 * 6
MAX_NAMES = 5
_MAGIC = b"kata-node-agent series 1\n"
_HEADER_BYTES = 256
# Checksum of the rest; window since 1970; samples; values.
_RECORD = struct.Struct(f"<IQI{MAX_NAMES}q")
_UNKNOWN = -1
_MAX_VALUE = (1 << 63) - 1
SIZE_BYTES = _HEADER_BYTES + RECORDS * _RECORD.size


@dataclass(frozen=True, slots=True)
class Observed:
    """What a figure was, over the time that is kept. Percentiles are of ten-minute maxima, by the nearest rank."""

    name: str
    records: int
    first_unix_seconds: float
    last_unix_seconds: float
    p50: int
    p95: int
    p99: int
    max: int

    @property
    def seconds(self) -> float:
        """How long was looked at least: when in its ten minutes the first look was is not kept."""
        return max(0.0, self.last_unix_seconds - self.first_unix_seconds - WINDOW_SECONDS)


class Series:
    """The one writer of a history."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        """Nothing is touched before the first `add`.

        Args:
            path: the file; its folder must be there.
            names: the figures, at most `MAX_NAMES`. A file with others is set aside.
        """
        if not 0 < len(names) <= MAX_NAMES:
            raise ValueError(f"1 to {MAX_NAMES} names, not {len(names)}")
        self._path = path
        self._names = tuple(names)
        self._window = -1
        self._samples = 0
        self._values = [_UNKNOWN] * MAX_NAMES

    def add(self, unix_seconds: float, values: Mapping[str, int | None]) -> None:
        """Adds one sample. The record of the present ten minutes is written anew.

        Raises:
            HostError: it could not be written; what the file had before is still there.
        """
        window = max(0, int(unix_seconds)) // WINDOW_SECONDS
        try:
            descriptor = self._open()
            try:
                if window != self._window:
                    before = _record(os.pread(descriptor, _RECORD.size, _offset(window)), window)
                    # An agent that was restarted goes on with the record that it had begun.
                    self._window, self._samples, self._values = (
                        window,
                        *(before or (0, [_UNKNOWN] * MAX_NAMES)),
                    )
                self._samples += 1
                for index, name in enumerate(self._names):
                    value = values.get(name)
                    if value is not None and 0 <= value <= _MAX_VALUE:
                        self._values[index] = max(self._values[index], value)
                body = _RECORD.pack(0, window, min(self._samples, 2**32 - 1), *self._values)[4:]
                os.pwrite(descriptor, struct.pack("<I", zlib.crc32(body)) + body, _offset(window))
            finally:
                os.close(descriptor)
        except OSError as error:
            hint = "free space on that file system, or name another folder in state_dir"
            raise HostError(
                f"{self._path}: {describe_os_error(error)}", hint=hint, reason="HistoryNotKept"
            ) from error

    def _open(self) -> int:
        """The file, made where there is none or where it is another's."""
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self._path, flags)
            if os.fstat(descriptor).st_size == SIZE_BYTES and _names(descriptor) == self._names:
                return descriptor
            os.close(descriptor)
            # One is kept, for whoever wants to look into it.
            os.replace(self._path, self._path.with_name(self._path.name + ".damaged"))
        self._window = -1
        # Made under another name: a file of this name is whole.
        making = self._path.with_name(f".{self._path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            making.unlink()
        descriptor = os.open(making, flags | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, SIZE_BYTES)
            os.pwrite(descriptor, _header(self._names), 0)
            os.fsync(descriptor)
            os.replace(making, self._path)
        except BaseException:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                making.unlink()
            raise
        return descriptor


def read_observed(path: Path, now: float) -> tuple[Observed, ...]:
    """What the history at ``path`` says of the four weeks before ``now``; empty where there is none, or none of ours.

    Raises:
        HostError: there is one, but it may not be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise HostError(f"{path}: {describe_os_error(error)}", hint="run as root") from error
    try:
        names = _names(descriptor)
        content = os.pread(descriptor, SIZE_BYTES - _HEADER_BYTES, _HEADER_BYTES)
    except OSError as error:
        raise HostError(f"{path}: {describe_os_error(error)}") from error
    finally:
        os.close(descriptor)
    newest = int(now) // WINDOW_SECONDS
    found: list[tuple[int, list[int]]] = []
    for slot in range(len(content) // _RECORD.size):
        record = content[slot * _RECORD.size : (slot + 1) * _RECORD.size]
        window = _RECORD.unpack(record)[1]
        # A record of the future is of a clock that was wrong.
        if window % RECORDS != slot or not newest - RECORDS < window <= newest:
            continue
        if (good := _record(record, window)) is not None:
            found.append((window, good[1]))
    return tuple(
        observed
        for index, name in enumerate(names)
        if (observed := _observed(name, [(w, values[index]) for w, values in found])) is not None
    )


def _observed(name: str, records: list[tuple[int, int]]) -> Observed | None:
    known = [(window, value) for window, value in records if value != _UNKNOWN]
    if not known:
        return None
    values = sorted(value for _, value in known)
    windows = [window for window, _ in known]

    def rank(percent: int) -> int:
        return values[-(-len(values) * percent // 100) - 1]

    return Observed(
        name, len(values), float(min(windows) * WINDOW_SECONDS), float((max(windows) + 1) * WINDOW_SECONDS),
        rank(50), rank(95), rank(99), values[-1],
    )  # fmt: skip


def _offset(window: int) -> int:
    return _HEADER_BYTES + window % RECORDS * _RECORD.size


def _record(content: bytes, window: int) -> tuple[int, list[int]] | None:
    """(samples, values) of a whole record of this time."""
    if len(content) != _RECORD.size:
        return None
    checksum, its_window, samples, *values = _RECORD.unpack(content)
    # All zero is a record that was never written; its checksum would be right for no content.
    if not samples or its_window != window or checksum != zlib.crc32(content[4:]):
        return None
    return samples, values


def _header(names: Sequence[str]) -> bytes:
    body = _MAGIC + "\n".join(names).encode() + b"\n"
    if len(body) > _HEADER_BYTES - 4:
        raise ValueError("names too long")
    body = body.ljust(_HEADER_BYTES - 4, b"\0")
    return body + struct.pack("<I", zlib.crc32(body))


def _names(descriptor: int) -> tuple[str, ...]:
    """The names in a header; empty for what is none of ours."""
    content = os.pread(descriptor, _HEADER_BYTES, 0)
    body, checksum = content[:-4], content[-4:]
    if len(content) != _HEADER_BYTES or not body.startswith(_MAGIC):
        return ()
    if struct.pack("<I", zlib.crc32(body)) != checksum:
        return ()
    return tuple(body[len(_MAGIC) :].rstrip(b"\0").decode("utf-8", errors="replace").split("\n")[:-1])
