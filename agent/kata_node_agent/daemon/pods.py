"""Keeps what is in use true by kubelet's own word: asks its pod resources API now and then."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING

from kata_node_agent.errors import HostError
from kata_node_agent.kubelet.podresources import held_devices

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.schema import Config
    from kata_node_agent.kubelet.devices import Holdings
    from kata_node_agent.kubelet.registrar import Registrar

log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 15.0
# Until the first answer of a kubelet: what pods hold may not be known yet, and must not be shown unhealthy for long.
_FIRST_INTERVAL_SECONDS = 0.3


class PodWatch:
    """Corrects the holdings."""

    def __init__(
        self,
        config: Callable[[], Config],
        holdings: Holdings,
        registrar: Registrar,
        on_change: Callable[[], None],
    ) -> None:
        self._config = config
        self._holdings = holdings
        self._registrar = registrar
        self._on_change = on_change
        self._answered_registration = -1

    async def run(self) -> None:
        """Asks until cancelled; often until a kubelet has answered for the first time."""
        while True:
            answered = self._answered_registration == self._registrar.status.registrations
            await asyncio.sleep(_INTERVAL_SECONDS if answered else _FIRST_INTERVAL_SECONDS)
            if self._registrar.stream_open and await self.ask():
                self._on_change()

    async def ask(self, *, timeout_seconds: float = 2.0) -> bool:
        """Asks once; returns whether what is in use changed."""
        socket = self._config().kubelet.pod_resources_socket
        if not os.path.exists(socket):
            # Some kubelets have no such API: there is nothing to wait for.
            self._answered_registration = self._registrar.status.registrations
            return False
        try:
            resource = self._config().device_plugin.resource
            held = await held_devices(socket, resource, timeout_seconds=timeout_seconds)
        except HostError as error:
            log.debug("pod resources not read", extra={"why": error.message})
            return False
        self._answered_registration = self._registrar.status.registrations
        return self._holdings.reconcile(held, time.monotonic(), self._registrar.connected_since)
