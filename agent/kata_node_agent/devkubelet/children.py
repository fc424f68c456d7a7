"""Child processes of `dev`: started so that none outlives us, their output handed on line by line.

A child dies with us even when we are killed: the kernel sends it SIGTERM. That setting must be made in the
child; a small program makes it and becomes the child, as code between fork and exec is not safe with threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING

from kata_node_agent.errors import AgentError, describe_os_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# 1 is PR_SET_PDEATHSIG. We may have died before it is set: then we are not the parent any more.
_BECOME = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
_MAX_LINE_BYTES = 64 * 1024


class Child:
    """One child process.

    Attributes:
        name: of the program, for people.
        pid: 0 until it is started.
        code: its exit code, or minus the signal that ended it; ``None`` while it runs.
    """

    def __init__(
        self, name: str, command: list[str], environment: Mapping[str, str], show: Callable[[str], None]
    ) -> None:
        self.name = name
        self.pid = 0
        self.code: int | None = None
        self._command = command
        self._environment = environment
        self._show = show
        self._process: asyncio.subprocess.Process | None = None
        self._ended: asyncio.Task[int] | None = None

    async def start(self) -> asyncio.Task[int]:
        """Starts it, in a process group of its own: Ctrl-C reaches us, and we decide who ends when.

        Returns:
            a task that ends with the exit code, after the last line of output.

        Raises:
            AgentError: the system refuses a process.
        """
        pipe = asyncio.subprocess.PIPE
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-ISc", _BECOME, str(os.getpid()), *self._command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe,
                stderr=asyncio.subprocess.STDOUT,
                process_group=0,
                env={**os.environ, **self._environment, "PYTHONUNBUFFERED": "1"},
            )
        except OSError as error:
            raise AgentError(
                f"the {self.name} cannot be started: {describe_os_error(error)}", reason="ProcessNotStarted"
            ) from error
        self.pid = self._process.pid
        self._ended = asyncio.create_task(self._run(self._process), name=self.name)
        return self._ended

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal, if it still runs."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _run(self, process: asyncio.subprocess.Process) -> int:
        assert process.stdout is not None  # noqa: S101 - asked for above
        reading = asyncio.create_task(self._relay(process.stdout))
        self.code = await process.wait()
        # A grandchild that holds the pipe must not keep us.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reading, 0.5)
        return self.code

    async def _relay(self, stream: asyncio.StreamReader) -> None:
        rest = b""
        while chunk := await stream.read(_MAX_LINE_BYTES):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._show(printable(line))
            if len(rest) > _MAX_LINE_BYTES:
                self._show(printable(rest))
                rest = b""
        if rest:
            self._show(printable(rest))


async def end(children: list[Child], tasks: list[asyncio.Task[int]], grace_seconds: float) -> None:
    """Ends children with SIGTERM, and those that do not go with SIGKILL."""
    if not tasks:
        return
    for child in children:
        child.signal(signal.SIGTERM)
    _, pending = await asyncio.wait(tasks, timeout=grace_seconds)
    if pending:
        for child in children:
            child.signal(signal.SIGKILL)
        await asyncio.wait(pending)


def printable(line: bytes) -> str:
    """A line of somebody's output, without what could move the cursor; colours stay out too."""
    text = line.decode("utf-8", errors="replace").rstrip("\r")
    return "".join(c if c.isprintable() or c == "\t" else "�" for c in text)


def describe_end(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


def exit_code(code: int) -> int:
    """An exit code as a shell would give it: 128 + the signal's number."""
    return code if code >= 0 else 128 - code
