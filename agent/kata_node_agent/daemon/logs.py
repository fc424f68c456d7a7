"""The log: one event a line, `message key=value …`, on stderr; with priorities that journald reads under systemd."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Mapping

# syslog priorities, as sd-daemon(3) has them before each line.
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _Formatter(logging.Formatter):
    """Puts the `extra` of a record behind its message; values with spaces or quotes are quoted."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line; control characters in foreign texts are escaped, so that no value can forge a line."""
        parts = [_escaped(record.getMessage())]
        parts += [f"{key}={_quoted(value)}" for key, value in record.__dict__.items() if key not in _OWN]
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        level = _PRIORITIES.get(record.levelno, 6)
        if self._journal:
            return "\n".join(f"<{level}>{part}" for part in line.split("\n"))
        return f"{self.formatTime(record)} {record.levelname.lower():7} {line}"


def _quoted(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and not set(text) & set(' "='):
        return text
    return '"' + _escaped(text.replace("\\", "\\\\")).replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def under_journal(stream: TextIO, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the stream goes to journald: systemd names the device and inode of the stream it made."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def set_up(level: str, stream: TextIO = sys.stderr) -> None:
    """Sends all log records of ``level`` and above to ``stream``. May be called again to change the level."""
    root = logging.getLogger()
    if not any(isinstance(handler.formatter, _Formatter) for handler in root.handlers):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(_Formatter(journal=under_journal(stream)))
        root.addHandler(handler)
    root.setLevel(level.upper())
