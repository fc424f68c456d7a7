"""What a command prints on a terminal, as a picture: the command runs on a terminal of its own, and rich draws what it wrote."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import termios
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console
from rich.terminal_theme import DIMMED_MONOKAI
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def printed(command: Sequence[str], environ: Mapping[str, str], columns: int, lines: int) -> str:
    """All that a command writes to a terminal of this size, colours included."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**environ, "TERM": "xterm-256color"},
    ):
        os.close(theirs)
        found = b""
        try:
            while more := os.read(ours, 65536):
                found += more
        except OSError:
            pass  # EIO: nobody has the terminal open any more
    os.close(ours)
    return found.decode().replace("\r\n", "\n")


def picture(shown: str, title: str, columns: int) -> str:
    """An SVG of a terminal with this in it, which fetches nothing."""
    console = Console(file=StringIO(), record=True, width=columns, force_terminal=True, legacy_windows=False)
    console.print(Text.from_ansi(shown.rstrip("\n")), overflow="fold")
    drawn = console.export_svg(title=title, theme=DIMMED_MONOKAI, unique_id="t")
    # Without the fonts that it would have a browser load.
    drawn = re.sub(r"@font-face \{.*?\}\n", "", drawn, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in drawn.splitlines() if line.strip()) + "\n"
