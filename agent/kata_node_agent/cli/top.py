"""`kata-node-agent top`: the Kata VMs, live and sorted."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

import click

from kata_node_agent.cli import options
from kata_node_agent.cli.output import drawn_over, print_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import FrameType

    from kata_node_agent.report.sandboxes import SandboxObserver

_WIDTH, _HEIGHT = 80, 24
# The other screen, without a cursor and without wrapping; and back.
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l\x1b[?7l", "\x1b[?7h\x1b[?25h\x1b[?1049l"


@click.command("top", short_help="The Kata VMs, live and sorted.")
@options.config_file
@options.host_root
@options.output_format
@options.sort(("resident", "vm", "beside", "risks", "pod"), "resident")
@options.limit
@options.interval("Time between two looks.")
@click.option(
    "--once",
    is_flag=True,
    help="One look, then end; so it is with json, and where the output is no terminal.",
)
def command(
    config_file: Path | None,
    host_root: Path,
    output_format: str,
    sort: str,
    limit: int | None,
    interval: float,
    once: bool,
) -> None:
    """The Kata VMs of this node, live and sorted: size, what is resident, what runs beside them, risks.

    Keys: m resident, v VM, o beside, r risks, p pod; q or Ctrl-C ends it. Reads the node itself.

    \b
    Examples:
      kata-node-agent top
      kata-node-agent top --sort risks
      kata-node-agent top --once --limit 10
      kata-node-agent top --once --format json | jq '.sandboxes[0].pod'

    \b
    Exit codes: 0 ended; 2 no VM may be looked into, the node cannot be read, or bad usage.
    """
    from kata_node_agent.cli.sandbox_order import ordered, seen
    from kata_node_agent.config.load import load
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.report.sandboxes import SandboxObserver

    config = load(config_file).config
    observer = SandboxObserver(HostRoot(options.host_root_or(host_root, config.host_root)), config)
    # The first look before the screen is taken: an error is said where it can be read.
    first = seen(observer.look())
    if output_format == "json":
        print_text(json.dumps(ordered(first, sort, limit).document()))
        return
    if once or not sys.stdout.isatty():
        print_text("\n".join(_lines(observer, sort, limit, _WIDTH, None, live=False)))
        return
    with contextlib.suppress(KeyboardInterrupt), _screen():
        _show(observer, sort, limit, interval)


def _show(observer: SandboxObserver, order: str, limit: int | None, interval: float) -> None:
    from kata_node_agent.cli.top_text import KEYS

    while True:
        # The output's own size: a pipe may feed the input.
        columns, rows = shutil.get_terminal_size((_WIDTH, _HEIGHT))
        lines = _lines(observer, order, limit, columns, rows, live=sys.stdin.isatty())
        print_text(drawn_over(lines[:rows]))
        key = _key(interval)
        if key in {"q", "Q", "\x03", "\x04"}:
            return
        order = KEYS.get(key, order)


def _lines(
    observer: SandboxObserver, order: str, limit: int | None, width: int, height: int | None, *, live: bool
) -> list[str]:
    from kata_node_agent.cli.top_text import picture

    return picture(
        observer.look(),
        order=order,
        width=width,
        height=height,
        clock=time.strftime("%H:%M:%S"),
        live=live,
        limit=limit,
    )


def _key(seconds: float) -> str:
    """The key that was pressed within so long; empty for none."""
    if not sys.stdin.isatty():
        time.sleep(seconds)
        return ""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    # Past what Python buffers, or a second key would lie there unseen by select. An end of the input is as q.
    return os.read(sys.stdin.fileno(), 1).decode("ascii", errors="replace") or "q" if ready else ""


@contextlib.contextmanager
def _screen() -> Iterator[None]:
    """The terminal as it is needed, and afterwards as it was, also when somebody ends us."""
    import termios
    import tty

    def end(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    descriptor = sys.stdin.fileno() if sys.stdin.isatty() else None
    before = termios.tcgetattr(descriptor) if descriptor is not None else None
    terminate = signal.signal(signal.SIGTERM, end)
    try:
        if descriptor is not None:
            tty.setcbreak(descriptor)
            mode = termios.tcgetattr(descriptor)
            # Stopped by Ctrl-Z, the other screen would stay, without a cursor.
            mode[6][termios.VSUSP] = b"\0"
            termios.tcsetattr(descriptor, termios.TCSANOW, mode)
        sys.stdout.write(_ENTER)
        yield
    finally:
        signal.signal(signal.SIGTERM, terminate)
        # The terminal itself may be gone.
        with contextlib.suppress(OSError, termios.error):
            sys.stdout.write(_LEAVE)
            sys.stdout.flush()
            if descriptor is not None and before is not None:
                termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
