"""The configuration's files as they are written, for who helps from afar: broken ones too, and without secrets.

There is no secret among our settings, but a file that is broken may hold anything. So comments are left out, and so are the
values of keys that look like a secret (unless they are paths), who a URL names, long texts, and what is no setting.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from kata_node_agent.config.load import configuration_files
from kata_node_agent.errors import AgentError, describe_os_error

if TYPE_CHECKING:
    from pathlib import Path

_MAX_FILE_BYTES = 256 * 1024
_MAX_FILES = 50
_SECRET = re.compile(r"token|passw|key|secret|credential", re.IGNORECASE)
_TABLE = re.compile(r"\s*\[{1,2}[\w.\s\"'-]*\]{1,2}\s*")
_SETTING = re.compile(r"(\s*)([\w.\"'-]{1,80})(\s*=(?!=)\s*)(.*)")
# A text, or what has no spaces: number, word, half a text.
_VALUE = re.compile(r'"[^"\\]*"|\'[^\']*\'|\[[^\]#]*\]|[^\s#]+')
_LONG_TEXT = re.compile(r"\"{3}|'{3}")
_USER = re.compile(r"://[^/]*@")
_NO_SETTING = "# (a line that is no setting was here)"
_PATH = re.compile(r"[\"']/[^\s\"']*[\"']")


def read_files(file: Path | None) -> tuple[dict[str, str], dict[str, str]]:
    """The text of each file under its name in the archive, and for each that cannot be read why."""
    texts: dict[str, str] = {}
    missing: dict[str, str] = {}
    try:
        for number, path in enumerate(configuration_files(file)):
            name = f"written/{number:02}-{path.name}"
            if number == _MAX_FILES:
                missing["written"] = f"there are more than {_MAX_FILES} files of configuration"
                break
            try:
                texts[name] = f"# {path}\n{without_secrets(_read(path))}"
            except OSError as error:
                missing[name] = f"{path}: {describe_os_error(error)}"
    except AgentError as error:
        missing["written"] = str(error)
    return texts, missing


def without_secrets(text: str) -> str:
    """The lines, numbered as they were; what is left out leaves a word in its place."""
    shown, within = [], ""
    for line in text.splitlines():
        shown.append(_line(line) if not within else _NO_SETTING)
        for mark in _LONG_TEXT.findall(line):
            within = mark if not within else "" if mark == within else within
    return "".join(f"{line}\n" for line in shown)


def _line(line: str) -> str:
    if not line.strip() or _TABLE.fullmatch(line):
        return line
    if line.lstrip().startswith("#"):
        return "# (a comment was here)"
    found = _SETTING.fullmatch(line)
    if found is None:
        return _NO_SETTING
    indent, key, equals, rest = found.groups()
    value = _VALUE.match(rest)
    shown = value[0] if value is not None else ""
    if _SECRET.search(key) and not _PATH.fullmatch(shown):
        shown = "(left out)"
    elif value is not None and (after := rest[value.end() :].strip()) and not after.startswith("#"):
        shown += " (and more, left out)"
    shown = _USER.sub("://(left out)@", shown)
    return f"{indent}{key}{equals}{shown}"


def _read(path: Path) -> str:
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError(None, "not a regular file")
        return stream.read(_MAX_FILE_BYTES).decode("utf-8", errors="replace")
