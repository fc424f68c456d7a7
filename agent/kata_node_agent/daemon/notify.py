"""Tells systemd how we are (sd_notify(3)): one datagram of NAME=value lines to $NOTIFY_SOCKET."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Notifier:
    """Sends to the service manager; does nothing where there is none."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # A leading @ is the abstract namespace, which the system writes as a NUL.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._status = ""
        self.watchdog_seconds = _watchdog_seconds(environ)

    def ready(self) -> None:
        """All is serving; also the end of a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """A reload begins; systemd wants to know when, to tell it from earlier ones."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """One line that `systemctl status` shows; sent when it changes."""
        if text != self._status:
            self._status = text
            self._send("STATUS=" + text.replace("\n", " "))

    async def feed_watchdog(self, alive: Callable[[], bool]) -> None:
        """Says that we are alive, as often as the manager wants to hear it, and only while that is true.

        A watchdog that is fed by a timer alone would vouch for a dead agent.
        """
        while self.watchdog_seconds is not None:
            if alive():
                self.watchdog()
            await asyncio.sleep(self.watchdog_seconds / 3)

    def watchdog(self) -> None:
        """We are alive."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A manager that does not listen is no reason to fail, nor to wait.
        with (
            contextlib.suppress(OSError),
            socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
            ) as stream,
        ):
            stream.sendto(message.encode(), self._address)


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """The interval after which systemd kills us; ``None`` without a watchdog, or when it is meant for another process."""
    micros, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
    if not (micros.isascii() and micros.isdigit() and int(micros)) or (pid and pid != str(os.getpid())):
        return None
    return int(micros) / 1e6
