"""What is done with a ledger's file that is found: read if it is whole and ours, else set aside. Never repaired.

What was in a file that is set aside is observed anew: VMs in /proc, devices at kubelet, sandboxes at the runtime.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
import time
import zlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

VERSION = 1
# "KNAL", so that `file` and we tell it from any other database.
_APPLICATION_ID = 0x4B4E414C
SCHEMA = (
    "CREATE TABLE entry (key TEXT PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT NOT NULL)",
    "CREATE TABLE boot (id TEXT NOT NULL)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {VERSION}",
)
# A node holds some hundred sandboxes; a file with more entries is none of a node's.
_MAX_ENTRIES = 100_000


Body = dict[str, Any]


# No fault: a ledger is valid for one boot.
OF_ANOTHER_BOOT = "of another boot"


class SetAsideError(Exception):
    """The file is not to be used; the message says why."""


def check_kind(path: Path) -> None:
    """Refuses what is no file.

    Raises:
        SetAsideError: something else is there.
        OSError: it cannot be seen.
    """
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise SetAsideError("not a regular file")


def read_entries(connection: sqlite3.Connection, path: Path, boot_id: str) -> dict[str, Body] | None:
    """Key → body of all that the file at `path` holds; ``None`` where it is empty, as a new one is.

    Raises:
        SetAsideError: it is not ours, of another boot, of another version, or damaged.
        sqlite3.Error: it is damaged, or cannot be read.
    """
    if not _number(connection, "page_count"):
        return None
    if _number(connection, "application_id") != _APPLICATION_ID:
        raise SetAsideError("not a ledger")
    if (version := _number(connection, "user_version")) != VERSION:
        raise SetAsideError(f"of version {version}, and this agent knows {VERSION}")
    if os.stat(path).st_size < _number(connection, "page_count") * _number(connection, "page_size"):
        # What is missing may be pages that hold nothing: those no check looks at.
        raise SetAsideError("truncated")
    if connection.execute("PRAGMA quick_check").fetchall() != [("ok",)]:
        raise SetAsideError("damaged")
    if connection.execute("SELECT id FROM boot").fetchall() != [(boot_id,)]:
        raise SetAsideError(OF_ANOTHER_BOOT)
    rows = connection.execute("SELECT key, body, crc FROM entry LIMIT ?", (_MAX_ENTRIES + 1,)).fetchall()
    if len(rows) > _MAX_ENTRIES:
        raise SetAsideError("too many entries")
    entries: dict[str, Body] = {}
    for key, text, crc in rows:
        if not (isinstance(key, str) and isinstance(text, str) and crc_of(key, text) == crc):
            raise SetAsideError("damaged: a checksum is wrong")
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise SetAsideError("damaged: an entry is none")
        entries[key] = body
    return entries


def set_aside(path: Path) -> None:
    """One is kept, for whoever wants to look into it; never its journal, which would be taken for a new file's.

    Raises:
        OSError: it cannot be moved.
    """
    place = path.with_name(path.name + ".set-aside")
    try:
        os.replace(path, place)
    except (IsADirectoryError, NotADirectoryError, FileExistsError):
        _replace_other_kind(path, place)
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        _replace_other_kind(path, place)
    for suffix in ("-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path}{suffix}")


def _replace_other_kind(path: Path, place: Path) -> None:
    """Where a folder stands in the way of a file, or the other way round; nothing of what others put there is deleted."""
    older = place.with_name(f"{place.name}-{time.time_ns()}")
    os.rename(place, older)
    os.replace(path, place)


def refuse_locked(path: Path) -> None:
    """A file that another process has locked is not ours to move away.

    Raises:
        sqlite3.Error: it is locked.
    """
    import sqlite3

    if not path.is_file() or path.is_symlink():
        return
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        if _kind_of(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            raise
    finally:
        connection.close()


def is_about_access(error: Exception) -> bool:
    """Whether the file may be good, and we cannot get at it now: locked, no space, read-only."""
    import sqlite3

    return is_about_space(error) or _kind_of(error) in {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
    }


def is_about_space(error: Exception) -> bool:
    """Whether it is the file system that takes nothing more: full, or read-only."""
    import sqlite3

    return _kind_of(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}


def _kind_of(error: Exception) -> int:
    # The low byte is the kind, the rest its variety. Source: SQLite's "Result and Error Codes".
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


# Made once: for each text of its own that is a fifth of what it takes.
_encode = json.JSONEncoder(separators=(",", ":"), sort_keys=True).encode


def _number(connection: sqlite3.Connection, pragma: str) -> int:
    (value,) = connection.execute(f"PRAGMA {pragma}").fetchone()
    return int(value)


def text_of(body: Body) -> str:
    """A body as it is stored."""
    return _encode(body)


def crc_of(key: str, text: str) -> int:
    """Tells a damaged entry: SQLite has no checksums of its own."""
    return zlib.crc32(f"{key}\0{text}".encode("utf-8", errors="surrogatepass"))
