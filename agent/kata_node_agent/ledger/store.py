"""The ledger's file: what was acknowledged is in it first. Blocking, for microseconds.

The file is an SQLite database in the run directory, a tmpfs, and valid for one boot: it has to survive every process and no
boot, exactly like the VMs. So nothing is ever synced (``synchronous=OFF``): what was handed to the kernel is there after any
SIGKILL. The rollback journal (kept, not removed) is what makes a transaction whole; a write-ahead log measured 5 µs less for
a commit of 31 µs, but grows to 4 MiB of memory, and the database file alone is then no whole copy. The lock is held for as
long as the file is open, so that of two agents one wins.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import LedgerError, describe_os_error
from kata_node_agent.ledger.database import Left, connect, lock, make, put
from kata_node_agent.ledger.recover import (
    Body,
    SetAsideError,
    check_kind,
    crc_of,
    is_about_access,
    is_about_space,
    read_entries,
    refuse_locked,
    set_aside,
    text_of,
)
from kata_node_agent.text import printable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

FILE_NAME = "ledger.db"
KEPT_NOTES = 1000


@dataclass(frozen=True, slots=True)
class Opened:
    """What the file held.

    Attributes:
        entries: key → body.
        set_aside: why an older file was set aside; empty where none was.
        problem: why it can be read but not written now.
    """

    entries: Mapping[str, Body]
    set_aside: str = ""
    problem: LedgerError | None = None


class Store:
    """The one writer of a ledger. Not thread-safe: owned by the event loop.

    Attributes:
        mended: how often the file was found gone, replaced or unusable, and was made good.
    """

    def __init__(self, path: Path, boot_id: str) -> None:
        """Nothing is touched before `open`.

        Args:
            path: of the file; its folder must be there.
            boot_id: of this boot; a file of another one is set aside.
        """
        self.path = path
        self.mended = 0
        self._boot_id = boot_id
        self._connection: sqlite3.Connection | None = None
        self._was_open = False
        self._left = Left(path)
        # What the file holds, so that a file that others removed can be written anew.
        self._mirror: dict[str, str] = {}
        self._next_note = 1

    @property
    def is_open(self) -> bool:
        """Whether the file was opened, and nothing happened to it that we know of."""
        return self._connection is not None

    def open(self) -> Opened:
        """Opens the file, or makes it.

        Raises:
            LedgerError: it can be neither read nor made, or another process has it.
        """
        import sqlite3

        self.close()
        why = ""
        try:
            try:
                check_kind(self.path)
                self._connection = connect(self.path)
                return self._take(read_entries(self._connection, self.path, self._boot_id))
            except SetAsideError as error:
                why = str(error)
            except sqlite3.DatabaseError as error:
                if is_about_access(error):
                    raise
                why = printable(f"damaged: {error}")
            except UnicodeDecodeError:
                # What SQLite says of a damaged file may quote it.
                why = "damaged"
            self.close()
            set_aside(self.path)
            return self._take({}, why)
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise self._error(error) from error

    def write(self, entries: Mapping[str, Body | None], notes: Iterable[Body] = ()) -> None:
        """Makes all of this durable, or none of it.

        Args:
            entries: key → body, or ``None`` to strike it out.
            notes: lines for the history.

        Raises:
            LedgerError: nothing was written. Trying again is safe, and mends what can be mended.
        """
        import sqlite3

        texts = {key: None if body is None else text_of(body) for key, body in entries.items()}
        lines = [text_of(note) for note in notes]
        try:
            self._be_in_place()
            self._transact(texts, lines)
            self._left.take()
        except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
            self._after(error)
            raise self._error(error) from error
        for key, text in texts.items():
            if text is None:
                self._mirror.pop(key, None)
            else:
                self._mirror[key] = text

    def check(self) -> None:
        """Makes good a file that others took away or replaced, before anything more depends on it.

        Raises:
            LedgerError: that cannot be done now.
        """
        import sqlite3

        try:
            self._be_in_place()
        except (sqlite3.Error, UnicodeDecodeError, OSError) as error:
            self._after(error)
            raise self._error(error) from error

    def notes(self, limit: int = KEPT_NOTES) -> list[Body]:
        """The history, newest last.

        Raises:
            LedgerError: it cannot be read.
        """
        import sqlite3

        if self._connection is None:
            return []
        try:
            rows = self._connection.execute("SELECT body FROM note ORDER BY id DESC LIMIT ?", (limit,))
            return [json.loads(body) for (body,) in rows][::-1]
        except (sqlite3.Error, ValueError) as error:
            raise self._error(error) from error

    def verify(self) -> list[str]:
        """What is wrong with the file, compared with what it should hold; empty when all is well."""
        import sqlite3

        if self._connection is None:
            return [f"{self.path}: not open"]
        found = []
        if not self._left.is_untouched:
            found.append(
                f"{self.path}: another file than the one that we write to, or others have written to it"
            )
        try:
            # What is in the file, and not what we remember of it.
            self._connection.execute("PRAGMA shrink_memory")
            checked = [text for (text,) in self._connection.execute("PRAGMA integrity_check")]
            found += [f"{self.path}: {printable(text)}" for text in checked if text != "ok"]
            rows = self._connection.execute("SELECT key, body, crc FROM entry").fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            return [*found, printable(f"{self.path}: {error}")]
        there = {key: body for key, body, _ in rows}
        found += [
            f"{self.path}: {printable(str(key))}: checksum wrong"
            for key, body, crc in rows
            if crc_of(key, body) != crc
        ]
        if there != self._mirror:
            differing = sum(there.get(key) != self._mirror.get(key) for key in {*there, *self._mirror})
            found.append(f"{self.path}: {differing} entries differ from what was written")
        return found

    def close(self) -> None:
        """Gives the file and its lock back."""
        if self._connection is not None:
            import sqlite3

            connection, self._connection = self._connection, None
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def _take(self, entries: dict[str, Body] | None, set_aside: str = "") -> Opened:
        """Goes on with the open file, or with a new one for `None` or after one was set aside."""
        import sqlite3

        if set_aside or entries is None:
            self._mirror = {}
            if self._connection is None:
                self._connection = connect(self.path)
            self._make()
        else:
            self._mirror = {key: text_of(body) for key, body in entries.items()}
        assert self._connection is not None  # noqa: S101 - made by _read or above
        (last,) = self._connection.execute("SELECT max(id) FROM note").fetchone()
        self._next_note = (last or 0) + 1
        problem = None
        try:
            lock(self._connection, self._boot_id)
        except sqlite3.Error as error:
            if not is_about_space(error):
                raise
            # What is promised is known all the same, and counts.
            problem = self._error(error)
            self.close()
        self._left.take()
        self._was_open = True
        return Opened(entries or {}, set_aside, problem)

    def _make(self) -> None:
        assert self._connection is not None  # noqa: S101 - the callers made it
        make(self._connection, self._boot_id, self._mirror)
        self._next_note = 1
        self._left.take()

    def _be_in_place(self) -> None:
        """The open file is the one at our path, with all that it should hold."""
        if self._connection is not None and self._left.is_untouched:
            return
        self.close()
        if not self._was_open:
            raise LedgerError(f"{self.path}: not open", hint="see the agent's log for why")
        if not self._take_again():
            self._write_anew()
            self.mended += 1

    def _take_again(self) -> bool:
        """Opens our own file again where it is whole: its journal may be gone, or it could not be written before."""
        import sqlite3

        if not self._left.is_our_file:
            return False
        try:
            self._connection = connect(self.path)
            held = read_entries(self._connection, self.path, self._boot_id)
            if held is not None and {key: text_of(body) for key, body in held.items()} == self._mirror:
                lock(self._connection, self._boot_id)
                self._left.take()
                return True
        except (SetAsideError, UnicodeDecodeError):
            pass
        except sqlite3.Error as error:
            if is_about_access(error):
                self.close()
                raise
        self.close()
        return False

    def _write_anew(self) -> None:
        """Our file is gone, replaced or unusable: what it held is in a new one before anything else is written."""
        if os.path.lexists(self.path):
            refuse_locked(self.path)
            set_aside(self.path)
        try:
            self._connection = connect(self.path)
            self._make()
        except BaseException:
            # Half a file would be set aside the next time, in place of the one that is worth a look.
            self.close()
            with contextlib.suppress(OSError):
                os.unlink(self.path)
            raise

    def _transact(self, texts: Mapping[str, str | None], lines: Sequence[str]) -> None:
        connection = self._connection
        assert connection is not None  # noqa: S101 - see write
        if len(texts) == 1 and not lines:
            # One statement is a transaction by itself, at a third of the price: kubelet waits for this one.
            put(connection, texts)
            return
        connection.execute("BEGIN IMMEDIATE")
        put(connection, texts)
        note = self._next_note
        for line in lines:
            connection.execute("INSERT INTO note VALUES (?, ?)", (note, line))
            note += 1
        if note != self._next_note:
            connection.execute("DELETE FROM note WHERE id < ?", (note - KEPT_NOTES,))
        connection.execute("COMMIT")
        self._next_note = note

    def _after(self, error: Exception) -> None:
        """After a failed write: back to before it, or the file is given up and written anew next time."""
        import sqlite3

        connection = self._connection
        if connection is None:
            return
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                self.close()
                return
        if not is_about_access(error):
            self.close()

    def _error(self, error: Exception) -> LedgerError:
        what = describe_os_error(error) if isinstance(error, OSError) else str(error)
        hint = "see whether the run directory is writable and has space, and whether another process has this file open"
        return LedgerError(printable(f"{self.path}: {what}"), hint=hint)
