"""Child processes: started, read from /proc, and always ended, each by its own pid."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[1]
PROGRAMS = Path(__file__).parent / "programs"
_GRACE_SECONDS = 5.0


def program(name: str, *arguments: object) -> list[str]:
    """The command line of a file in `programs/`, under this interpreter."""
    return [sys.executable, str(PROGRAMS / f"{name}.py"), *map(str, arguments)]


def agent_command(*arguments: object) -> list[str]:
    """The real command: the installed script, else the module, which is the same."""
    script = Path(sys.executable).with_name("kata-node-agent")
    start = [str(script)] if script.exists() else [sys.executable, "-m", "kata_node_agent"]
    return [*start, *map(str, arguments)]


def environment() -> dict[str, str]:
    """Ours without what would configure the agent, or speak to our own service manager."""
    foreign = ("KATA_NODE_AGENT_", "NOTIFY_SOCKET", "WATCHDOG_", "JOURNAL_STREAM")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)}


class Child:
    """A running process whose output goes to a file."""

    def __init__(self, command: Sequence[str], log: Path, *, extra: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._log = log
        with log.open("ab") as output:
            self.started_ns = time.monotonic_ns()
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment() | dict(extra or {}),
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL for one that does not go; returns when it is gone."""
        if self._process.poll() is None:
            self._process.terminate()
            deadline = time.monotonic() + _GRACE_SECONDS
            while self._process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.005)
        self.kill()

    def kill(self) -> None:
        """At once."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """The end of its output, for a message."""
        with contextlib.suppress(OSError):
            return self._log.read_text(errors="replace")[-2000:]
        return ""


@contextmanager
def running(command: Sequence[str], log: Path) -> Iterator[Child]:
    """A process for the length of a block."""
    child = Child(command, log)
    try:
        yield child
    finally:
        child.kill()


def cpu_nanoseconds(pid: int) -> int:
    """CPU time that a process has used, its ended threads included; exact to the nanosecond, not to the clock tick.

    The clock of another process, as clock_getcpuclockid(3) makes its number.
    """
    return time.clock_gettime_ns((~pid << 3) | 2)


def memory_kib(pid: int) -> dict[str, int]:
    """What the kernel says of a process's memory, in KiB: ``rss``, ``anonymous`` and, where it may be read, ``pss``."""
    wanted = {"VmRSS": "rss", "RssAnon": "anonymous", "Pss": "pss"}
    found: dict[str, int] = {}
    for file in ("status", "smaps_rollup"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in wanted:
                    found[wanted[name]] = int(rest.split()[0])
    return found
