"""What only one agent may have: a run directory, and a resource in kubelet's folder. Refuses what can never work."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from typing import TYPE_CHECKING

from kata_node_agent.errors import HostError, SocketError, StartAnewError, describe_os_error
from kata_node_agent.kubelet.endpoint import remove_stale_sockets, socket_name_bytes, socket_prefix
from kata_node_agent.lock import Lock
from kata_node_agent.sockets import check_socket_path

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kata_node_agent.config.schema import Config

log = logging.getLogger(__name__)

_FOLDER_POLL_SECONDS = 0.05
_FOLDER_RETRY_SECONDS = 1.0


class Claims:
    """Both locks, for the settings that only a restart can change."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._directory = config.device_plugin.directory
        self._resource = config.device_plugin.resource
        hint = "stop that one, or give this one folders of its own (--run-dir, --device-plugin-dir)"
        self._run = Lock(
            config.run_dir / "lock",
            f"the run directory {config.run_dir} belongs to a running agent",
            hint=hint,
        )
        self._plugin = Lock(
            self._directory / f".{socket_prefix(self._resource)}lock",
            f"the resource {self._resource} in {self._directory} belongs to a running agent",
            hint=hint,
        )

    def check(self) -> None:
        """Refuses folders that can never do.

        Raises:
            SocketError, HostError: which one, and why.
        """
        check_socket_path(self._directory, room_bytes=1 + socket_name_bytes(self._resource))
        for folder, flag in ((self._directory, "--device-plugin-dir"), (self._config.run_dir, "--run-dir")):
            if os.path.lexists(folder) and not os.path.isdir(folder):
                raise SocketError(f"{folder}: not a directory", hint=f"name a directory with {flag}")
        if not os.path.isdir(self._config.host_root):
            hint = "name the root of the host with --host-root"
            raise HostError(f"{self._config.host_root}: no such directory", hint=hint)

    def take(self) -> None:
        """Takes the run directory, which is made, and the resource, if kubelet's folder is there.

        Raises:
            BusyError: another agent has it.
            SocketError: a folder cannot be used.
        """
        self.take_run_dir()
        if os.path.isdir(self._directory):
            self._plugin.acquire()

    def take_run_dir(self) -> None:
        """Makes sure that the run directory is there and ours; raises as `take`."""
        folder = self._config.run_dir
        try:
            os.makedirs(folder, mode=0o750, exist_ok=True)
        except OSError as error:
            hint = "run as root, or choose a folder of yours with --run-dir"
            text = f"{folder}: {describe_os_error(error)}"
            raise SocketError(text, hint=hint, reason="RunDirUnusable") from error
        self._run.renew()

    async def wait_for_resource(self, on_turn: Callable[[], None] = lambda: None) -> None:
        """Waits until kubelet's folder is there and the resource in it is ours; removes what a dead agent left.

        Args:
            on_turn: called again and again meanwhile.

        Raises:
            BusyError: another agent has it.
            StartAnewError: see `renew_resource`.
        """
        while not self._plugin.held:
            log.info("waiting for kubelet's device plugin folder", extra={"path": str(self._directory)})
            while not os.path.isdir(self._directory):
                on_turn()
                await asyncio.sleep(_FOLDER_POLL_SECONDS)
            try:
                self.renew_resource()
            except SocketError as error:
                # It may have gone again, or not be ours to write to yet.
                log.warning("the device plugin folder cannot be used yet", extra={"why": error.message})
                on_turn()
                await asyncio.sleep(_FOLDER_RETRY_SECONDS)
        if removed := remove_stale_sockets(self._directory, self._resource):
            log.info("removed sockets that a dead agent left", extra={"count": len(removed)})

    def renew_resource(self) -> None:
        """Before each registration: some kubelets remove every file in their folder, and the folder may be made anew.

        Raises:
            BusyError, SocketError: as `take`.
            StartAnewError: the folder was made after systemd's sandbox of ours, and so is read-only in it.
        """
        try:
            self._plugin.renew()
        except SocketError as error:
            _start_anew_if_read_only(error, self._directory)
            raise

    def renew_run_dir(self) -> None:
        """As `renew_resource`, for the run directory."""
        try:
            self.take_run_dir()
        except SocketError as error:
            _start_anew_if_read_only(error, self._config.run_dir)
            raise

    def release(self) -> None:
        """Gives both back."""
        self._plugin.release()
        self._run.release()


def _start_anew_if_read_only(error: SocketError, folder: Path) -> None:
    """Raises StartAnewError where a folder that we could write to at our start has become read-only."""
    if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EROFS:
        text = f"{folder} was made anew, and what is made after our start is read-only for us"
        raise StartAnewError(text, hint="start the agent again; systemd does") from error
