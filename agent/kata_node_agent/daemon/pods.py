"""Keeps what is in use, and what kubelet shows of us, true by kubelet's own word: asks its pod resources API now and then."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from typing import TYPE_CHECKING

from kata_node_agent.backoff import Backoff
from kata_node_agent.daemon.node import Problem
from kata_node_agent.daemon.waiting import wait_for_hint
from kata_node_agent.errors import HostError
from kata_node_agent.kubelet.podresources import allocatable_devices, held_devices
from kata_node_agent.kubelet.takeover import Sight, taken_over

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.history import History
    from kata_node_agent.kubelet.devices import DeviceTable, Holdings
    from kata_node_agent.kubelet.registrar import Registrar

log = logging.getLogger(__name__)

_INTERVAL_SECONDS = 15.0
# Until the first answer of a kubelet: what pods hold may not be known yet, and must not be shown unhealthy for long.
_FIRST_INTERVAL_SECONDS = 0.3
# A device that kubelet does not name is given back after two answers without it.
_ASKED_AFTER_HINT = 2
# Between two looks at what kubelet would allocate: a list that is on its way has arrived by then.
_SECOND_LOOK_SECONDS = 1.0
# Two plugins that want one resource must not take it from each other all the time.
_TAKE_BACK_FIRST_SECONDS = 15.0
_TAKE_BACK_LAST_SECONDS = 60.0


class PodWatch:
    """Corrects the holdings; has us registered again when another plugin has had our resource."""

    def __init__(
        self,
        config: Callable[[], Config],
        table: DeviceTable,
        holdings: Holdings,
        registrar: Registrar,
        history: History,
        on_change: Callable[[], None],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._config = config
        self._table = table
        self._holdings = holdings
        self._registrar = registrar
        self._history = history
        self._on_change = on_change
        self._beat = beat
        self._answered_registration = -1
        self._backoff = Backoff(_TAKE_BACK_FIRST_SECONDS, _TAKE_BACK_LAST_SECONDS)
        self._take_back_after = float("-inf")
        self._hint = asyncio.Event()
        self.problem: Problem | None = None

    async def run(self) -> None:
        """Asks until cancelled; often until a kubelet has answered for the first time."""
        while True:
            self._beat()
            answered = self._answered_registration == self._registrar.status.registrations
            hinted = await wait_for_hint(
                self._hint, _INTERVAL_SECONDS if answered else _FIRST_INTERVAL_SECONDS
            )
            if self._registrar.stream_open:
                for _ in range(_ASKED_AFTER_HINT if hinted else 1):
                    if hinted:
                        await asyncio.sleep(_FIRST_INTERVAL_SECONDS)
                    if await self.ask():
                        self._on_change()
                await self._take_back()

    def ask_soon(self) -> None:
        """A device was allocated, and whose it is is not known yet; or a pod has ended, and gives its device back."""
        self._hint.set()

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

    async def _take_back(self) -> None:
        """Registers again if another plugin has had our resource: kubelet tells nobody, and our stream stays open."""
        first = await self._sight()
        why = ""
        if taken_over(first, first):
            await asyncio.sleep(_SECOND_LOOK_SECONDS)
            why = taken_over(first, await self._sight())
        now = time.monotonic()
        if not why:
            # An answer that we did not get says nothing.
            if first.shown is not None:
                self.problem = None
                if now >= self._take_back_after:
                    self._backoff.reset()
            return
        remedy = (
            "see who else registers it: ls -l in kubelet's device plugin folder; the agent registers again"
        )
        self.problem = Problem("ResourceTaken", why, remedy)
        if now >= self._take_back_after and self._registrar.stream_open:
            self._take_back_after = now + self._backoff.pause()
            self._history.record("takeover", why)
            self._registrar.register_again(why)

    async def _sight(self) -> Sight:
        config, table = self._config(), self._table
        # Ours first: what changes while kubelet answers has another generation at the next sight.
        healthy, listed, generation = table.healthy, table.listed, table.generation
        registration, since = self._registrar.status.registrations, self._registrar.connected_since
        shown: frozenset[str] | None = None
        socket = config.kubelet.pod_resources_socket
        if self._registrar.stream_open and os.path.exists(socket):
            try:
                shown = await allocatable_devices(socket, config.device_plugin.resource)
            except HostError as error:
                log.debug("allocatable devices not read", extra={"why": error.message})
        return Sight(shown, healthy, listed, generation, registration, time.monotonic() - since)
