"""Keeps us registered with the runtime: connects when its socket is there, again when it hangs up or is another one."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from typing import TYPE_CHECKING

from kata_node_agent.backoff import Backoff
from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import NriError
from kata_node_agent.host.watch import FolderWatch
from kata_node_agent.nri.connection import Connection
from kata_node_agent.nri.dial import connect
from kata_node_agent.pb import nri_pb2
from kata_node_agent.sockets import identity_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kata_node_agent.nri.plugin import Plugin
    from kata_node_agent.sockets import FileIdentity

log = logging.getLogger(__name__)

SERVICE = "nri.pkg.api.v1alpha1.Runtime"
NAME = "kata-node-agent"
# Plugins are asked in this order, and what is admitted stays so when one after us refuses: we are to be the last.
INDEX = "99"
# The version whose messages we know.
NRI_VERSION = "v0.12.0"
# The runtime takes plugins one after the other, and waits up to 5 s for each.
_REGISTER_TIMEOUT_SECONDS = 15.0
# Where there is no NRI its folder is missing, too, and cannot be watched.
_POLL_SECONDS = 0.5
# A conversation that held this long was a good one: the next trouble is a new one.
_STABLE_SECONDS = 10.0


class State(enum.StrEnum):
    """Where the conversation stands."""

    ABSENT = "no NRI socket"
    CONNECTING = "connecting"
    REGISTERED = "registered"
    SYNCHRONIZED = "synchronized"


@dataclass(slots=True)
class Status:
    """What `status` tells. Times are seconds since 1970.

    Attributes:
        since: of the present state.
        synchronizations: how often a runtime has taken us in, since the agent started.
        last_error: why there is no conversation; empty while there is one, and where there is no socket.
    """

    state: State = State.ABSENT
    since: float = 0.0
    synchronizations: int = 0
    last_error: str = ""


class Client:
    """Our side towards one runtime's socket. The plugin answers what it asks."""

    def __init__(self, path: Path, plugin: Plugin, on_change: Callable[[], None] = lambda: None) -> None:
        self.path = path
        self.plugin = plugin
        self._on_change = on_change
        self._watch = FolderWatch(path.parent, poll_seconds=_POLL_SECONDS)
        self.status = Status(since=time.time())
        plugin.on_synchronized = self._synchronized

    async def run(self) -> None:
        """Runs until cancelled; then hangs up."""
        backoff, tried = Backoff(), None
        try:
            while True:
                seen = identity_of(self.path)
                if seen is None:
                    self.status.last_error = ""
                    self._set_state(State.ABSENT)
                    backoff.reset()
                    await self._watch.wait()
                    continue
                if seen != tried:
                    backoff.reset()
                tried = seen
                begun = time.monotonic()
                await self._converse()
                if time.monotonic() - begun > _STABLE_SECONDS:
                    backoff.reset()
                await self._pause(backoff, seen)
        finally:
            self._watch.close()
            await self.plugin.close()

    async def _pause(self, backoff: Backoff, seen: FileIdentity) -> None:
        """Waits for the next try, or for a new socket, which is tried at once."""
        deadline = time.monotonic() + backoff.pause()
        while (left := deadline - time.monotonic()) > 0 and identity_of(self.path) == seen:
            await self._watch.wait(left)

    async def _converse(self) -> None:
        """One conversation to its end, whatever that is."""
        self._set_state(State.CONNECTING)
        try:
            reader, writer = await connect(self.path)
        except NriError as error:
            self._failed(str(error))
            return
        self.plugin.connected()
        connection = Connection(reader, writer, self.plugin.serve)
        running = asyncio.create_task(connection.run())
        why = "the runtime hung up"
        try:
            await self._register(connection)
            await asyncio.wait([running])
        except NriError as error:
            why = str(error)
        finally:
            if not running.done():
                running.cancel()
                await asyncio.wait([running])
        fault = None if running.cancelled() else running.exception()
        if fault is not None:
            if not isinstance(fault, NriError):
                log.error("NRI conversation failed", exc_info=fault)
            why = str(fault) or type(fault).__name__
        if self.status.state is State.REGISTERED:
            why += " before it told of its pods; its log says why"
        self._failed(why)

    async def _register(self, connection: Connection) -> None:
        request = nri_pb2.RegisterPluginRequest(plugin_name=NAME, plugin_idx=INDEX, NRI_version=NRI_VERSION)
        await connection.call(
            SERVICE,
            "RegisterPlugin",
            request.SerializeToString(),
            timeout_seconds=_REGISTER_TIMEOUT_SECONDS,
        )
        # It may have told of its pods already.
        if self.status.state is State.CONNECTING:
            self._set_state(State.REGISTERED)

    def _synchronized(self) -> None:
        self.status.synchronizations += 1
        self.status.last_error = ""
        self._set_state(State.SYNCHRONIZED)
        if (runtime := self.plugin.runtime) is not None:
            log.info(
                "NRI",
                extra={
                    "runtime": f"{runtime.name} {runtime.version}",
                    "version": runtime.nri_version,
                    "pods": self.plugin.pods,
                },
            )

    def _failed(self, why: str) -> None:
        if why != self.status.last_error:
            log.warning("no NRI", extra={"why": why})
        self.status.last_error = why
        self._set_state(State.CONNECTING)

    def _set_state(self, state: State) -> None:
        if state is not self.status.state:
            self.status.state = state
            self.status.since = time.time()
            self._on_change()
