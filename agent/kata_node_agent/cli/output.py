"""Where commands print: one clear error where the output takes nothing, whoever reads it."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from kata_node_agent.errors import HostError, describe_os_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def write_output(name: str, text: str) -> None:
    """Writes a file, or standard output for ``-``.

    Raises:
        HostError: it cannot be written.
    """
    try:
        if name == "-":
            click.echo(text, nl=False)
            return
        with open(name, "w", encoding="utf-8") as file:
            file.write(text)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:
        raise _unwritable("standard output" if name == "-" else name, error) from None


def print_text(text: str) -> None:
    """Prints to standard output: colours only for a terminal that wants them, and ``?`` for letters that the output lacks.

    Raises:
        HostError: it cannot be written.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    text = text.encode(encoding, errors="replace").decode(encoding)
    try:
        click.echo(text, color=False if os.environ.get("NO_COLOR") else None)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise _unwritable("standard output", error) from None


def print_again_and_again(make: Callable[[], str], *, seconds: float, redraw: bool) -> None:
    """Prints what is made anew each time, until Ctrl-C.

    Args:
        make: gives the text.
        seconds: between two texts.
        redraw: on a terminal, each over the one before.

    Raises:
        HostError: it cannot be written.
    """
    try:
        while True:
            text = make()
            if redraw and sys.stdout.isatty():
                text = drawn_over(text.split("\n"))
            print_text(text)
            time.sleep(seconds)
    except KeyboardInterrupt:
        return


def drawn_over(lines: Sequence[str]) -> str:
    """The lines for a terminal that shows another one: line over line, as a screen that is cleared first flickers.

    What a line leaves of the one before is erased first: behind a line that is as wide as the terminal the cursor is still on
    its last column, and erasing from there on would take that.
    """
    return "\x1b[H" + "".join(f"\x1b[K{line}\r\n" for line in lines[:-1]) + "\x1b[J" + "".join(lines[-1:])


def _unwritable(name: str, error: OSError | ValueError) -> HostError:
    what = describe_os_error(error) if isinstance(error, OSError) else str(error)
    return HostError(f"{name}: {what}", hint="see where it leads", reason="OutputUnwritable")
