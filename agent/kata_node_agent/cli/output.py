"""Where commands print: one clear error where the output takes nothing, whoever reads it."""

from __future__ import annotations

import os
import sys

import click

from kata_node_agent.errors import HostError, describe_os_error


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


def _unwritable(name: str, error: OSError | ValueError) -> HostError:
    what = describe_os_error(error) if isinstance(error, OSError) else str(error)
    return HostError(f"{name}: {what}", hint="see where it leads", reason="OutputUnwritable")
