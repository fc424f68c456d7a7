"""The places shown to kubelet, kept in step with the node, the account and what pods hold."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from kata_node_agent.capacity.devices import device_id
from kata_node_agent.daemon.node import plan
from kata_node_agent.kubelet.devices import DeviceTable, Holdings

if TYPE_CHECKING:
    from collections.abc import Callable

    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.account import AccountKeeper
    from kata_node_agent.daemon.alive import NodeWatch
    from kata_node_agent.daemon.history import History

log = logging.getLogger(__name__)

# Changes come in bursts, and kubelet need not hear of each.
_PAUSE_SECONDS = 0.05


class Slots:
    """Owns the table that kubelet sees.

    Attributes:
        table: what is shown.
        holdings: which devices pods hold.
    """

    def __init__(self, config: Callable[[], Config], node: NodeWatch, history: History) -> None:
        """Shows nothing yet.

        Args:
            config: gives the configuration in force.
            node: the node's view.
            history: takes the changes.
        """
        self._config = config
        self._node = node
        self._history = history
        self._soon: asyncio.TimerHandle | None = None
        self.table = DeviceTable()
        self.holdings = Holdings()
        self._holders: dict[int, str] = {}
        self.keeper: AccountKeeper | None = None
        self.on_plan: Callable[[], None] = lambda: None

    def restore(self, keeper: AccountKeeper) -> None:
        """The account is open: what pods hold by its record is held."""
        self.keeper = keeper
        for device in keeper.account.book.devices.values():
            self.holdings.restore(device.index, device.since, device.pod)
        # Told by the agent before this one.
        self._holders = self.holdings.pods

    def holdings_changed(self) -> None:
        """Kubelet has said what pods hold."""
        self._tell_of_holders()
        if self.keeper is not None:
            self.keeper.account.hold_devices(self.holdings.pods)
        self.replan()

    def _tell_of_holders(self) -> None:
        """Who has got a device, and who has given one back. Here, as Allocate is not told of the pod, and should not wait."""
        before, self._holders = self._holders, self.holdings.pods
        for index in sorted(before.keys() | self._holders.keys()):
            had, has = before.get(index, ""), self._holders.get(index, "")
            if had and had != has:
                log.info("device given back", extra={"device": device_id(index), "pod": had})
            if has and had != has:
                log.info("device held", extra={"device": device_id(index), "pod": has})

    def replan_soon(self) -> None:
        """After an allocation, say: the next pod shall not wait for our sums."""
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self.replan)

    def replan(self) -> None:
        """Shows what follows from all that is known now."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self.keeper is None:
            return
        account = self.keeper.account
        new = plan(
            self._node.view,
            self._config(),
            account.book,
            account.room,
            account.cost_of_one,
            self.keeper.closed(),
        )
        if self.table.update(new):
            healthy, total = len(self.table.healthy), len(self.table.listed)
            log.info(
                "devices",
                extra={
                    "healthy": healthy,
                    "total": total,
                    "in_use": new.used,
                    "limited_by": new.limit.name,
                    "why": new.limit.message,
                },
            )
            self._history.record("devices", f"{healthy} healthy of {total}: {new.limit.message}")
        self.on_plan()
