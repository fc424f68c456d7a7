"""The ledger's file as SQLite has it: how it is opened, made, locked and written to."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from kata_node_agent.ledger.recover import SCHEMA, crc_of

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping
    from pathlib import Path

_PRAGMAS = (
    "locking_mode = EXCLUSIVE",
    "journal_mode = PERSIST",
    "synchronous = OFF",
    "cache_size = -256",
    "temp_store = MEMORY",
)


def connect(path: Path) -> sqlite3.Connection:
    """The file, made for root alone where there is none.

    Raises:
        sqlite3.Error: it cannot be opened, or is no database.
    """
    import sqlite3

    before = os.umask(0o077)
    try:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    finally:
        os.umask(before)
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def make(connection: sqlite3.Connection, boot_id: str, texts: Mapping[str, str]) -> None:
    """The tables in an empty file, with these entries, in one transaction: half a file is none."""
    connection.execute("BEGIN IMMEDIATE")
    for statement in SCHEMA:
        connection.execute(statement)
    connection.execute("INSERT INTO boot VALUES (?)", (boot_id,))
    put(connection, texts)
    connection.execute("COMMIT")


def lock(connection: sqlite3.Connection, boot_id: str) -> None:
    """The lock is taken by the first write, and kept; so is the journal. A write that changes nothing would make none."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("UPDATE boot SET id = ''")
        connection.execute("UPDATE boot SET id = ?", (boot_id,))
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(Exception):
            connection.execute("ROLLBACK")
        raise


def put(connection: sqlite3.Connection, texts: Mapping[str, str | None]) -> None:
    """Entries, or ``None`` to strike one out."""
    for key, text in texts.items():
        if text is None:
            connection.execute("DELETE FROM entry WHERE key = ?", (key,))
        else:
            row = (key, text, crc_of(key, text))
            connection.execute("INSERT OR REPLACE INTO entry VALUES (?, ?, ?)", row)


class Left:
    """The file and its journal as our own last write left them, to tell what others do to them."""

    def __init__(self, path: Path) -> None:
        self._path, self._journal_path = os.fspath(path), f"{path}-journal"
        self._file: _Seen | None = None
        self._journal: _Seen | None = None

    def take(self) -> None:
        """We have written."""
        self._file, self._journal = _look(self._path), _look(self._journal_path)

    @property
    def is_our_file(self) -> bool:
        """Whether the file at the path is the one that we wrote to, whatever is in it."""
        now = _look(self._path)
        return now is not None and self._file is not None and now[:2] == self._file[:2]

    @property
    def is_untouched(self) -> bool:
        """Whether nobody has replaced file or journal since, nor written to the file."""
        if _look(self._path) != self._file:
            return False
        journal = _look(self._journal_path)
        return (journal and journal[:2]) == (self._journal and self._journal[:2])


# Device and inode, which tell a file from others at its path; size and time, which tell a write, whoever wrote.
_Seen = tuple[int, int, int, int]


def _look(path: str) -> _Seen | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
