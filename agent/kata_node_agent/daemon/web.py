"""The HTTP listeners of a running agent: opens what is configured, again and again, and says what keeps it from it.

Nothing here ends the agent: the VMs of a node do not depend on whether somebody can scrape it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from kata_node_agent.daemon.node import Problem
from kata_node_agent.daemon.threads import in_thread
from kata_node_agent.daemon.waiting import wait_for_hint
from kata_node_agent.errors import AgentError
from kata_node_agent.publish.listener import Connection, Listener, listen_on_tcp, listen_on_unix
from kata_node_agent.sockets import FileIdentity, identity_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from kata_node_agent.config.schema import Config
    from kata_node_agent.publish.http import Route
    from kata_node_agent.publish.tls import Tls

log = logging.getLogger(__name__)

SOCKET_NAME = "metrics.sock"
_LOOK_EVERY_SECONDS = 7.0


class Web:
    """Serves a table of routes on the Unix socket and on TCP, as far as each is wanted."""

    def __init__(self, config: Callable[[], Config], routes: Callable[[], Mapping[str, Route]]) -> None:
        """Opens nothing yet.

        Args:
            config: gives the configuration in force.
            routes: who answers which path, as it is now; asked on a connection's thread.
        """
        self._config = config
        self._routes = routes
        self._look_now = asyncio.Event()
        self._said: dict[str, AgentError | None] = {}
        self._unix: Listener | None = None
        self._identity: FileIdentity | None = None
        self._tcp: Listener | None = None
        self._tcp_made_of: tuple[object, ...] = ()
        self._tls: Tls | None = None

    @property
    def problems(self) -> list[Problem]:
        """What a person should do something about."""
        found = [error for error in self._said.values() if error is not None]
        if self._tls is not None and (error := self._tls.problem) is not None:
            found.append(error)
        return [Problem(error.reason, f"metrics: {error.message}", error.hint) for error in found]

    async def run(self) -> None:
        """Keeps open what is wanted until cancelled."""
        while True:
            await self.look()
            await wait_for_hint(self._look_now, _LOOK_EVERY_SECONDS)

    def look_soon(self) -> None:
        """The configuration may be another one."""
        self._look_now.set()

    async def look(self) -> None:
        """Opens and closes once. What cannot be had is a problem, and is tried again."""
        await self._try("unix", self._look_at_unix)
        await self._try("tcp", self._look_at_tcp)

    async def stop(self) -> None:
        """Closes all."""
        await self._close_unix()
        await self._close_tcp()

    async def _try(self, name: str, look: Callable[[], Awaitable[None]]) -> None:
        error: AgentError | None = None
        try:
            await look()
        except AgentError as caught:
            error = caught
            if str(caught) != str(self._said.get(name)):
                log.error("cannot serve metrics", extra={"why": str(caught)})
        self._said[name] = error

    async def _look_at_unix(self) -> None:
        config = self._config()
        path = config.run_dir / SOCKET_NAME
        if self._unix is not None and (not config.metrics.socket or identity_of(path) != self._identity):
            await self._close_unix()
        if config.metrics.socket and self._unix is None:
            listening = listen_on_unix(path)
            self._identity = identity_of(path)
            self._unix = Listener(listening, self._serve, "metrics-unix")

    async def _look_at_tcp(self) -> None:
        wanted = self._config().metrics
        made_of = (wanted.tcp_address, wanted.tls_cert, wanted.tls_key, wanted.tls_client_ca)
        if self._tcp is not None and made_of == self._tcp_made_of:
            if self._tls is not None:
                self._tls.renew()
            return
        tls = None
        if wanted.tcp_address and wanted.tls_cert is not None and wanted.tls_key is not None:
            from kata_node_agent.publish.tls import Tls

            # Before the present listener is closed: files that cannot be used leave it in force.
            tls = await in_thread(Tls, wanted.tls_cert, wanted.tls_key, wanted.tls_client_ca)
        await self._close_tcp()
        if not wanted.tcp_address:
            return
        hint = "choose a free address in metrics.tcp_address"
        listening = await in_thread(listen_on_tcp, wanted.tcp_address, hint=hint)
        self._tls, self._tcp_made_of = tls, made_of
        self._tcp = Listener(listening, self._serve if tls is None else self._serve_tls, "metrics-tcp")
        log.info("serving metrics", extra={"address": wanted.tcp_address, "tls": tls is not None})

    async def _close_unix(self) -> None:
        listener, self._unix = self._unix, None
        if listener is not None:
            await in_thread(listener.stop)
            path = self._config().run_dir / SOCKET_NAME
            if identity_of(path) == self._identity:
                path.unlink(missing_ok=True)

    async def _close_tcp(self) -> None:
        listener, self._tcp, self._tls = self._tcp, None, None
        if listener is not None:
            await in_thread(listener.stop)

    def _serve(self, connection: Connection) -> None:
        from kata_node_agent.publish.http import serve

        serve(connection, self._routes())

    def _serve_tls(self, connection: Connection) -> None:
        if (tls := self._tls) is None:
            return
        tls.accept(connection)
        self._serve(connection)
