"""The device plugin of the tests: a real endpoint and a real registrar over a table that the test sets."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from kata_node_agent.capacity.devices import DevicePlan, Limit
from kata_node_agent.config.schema import Mode
from kata_node_agent.devkubelet.kubelet import DevKubelet
from kata_node_agent.kubelet.devices import DeviceTable, Holdings
from kata_node_agent.kubelet.registrar import Registrar
from kata_node_agent.kubelet.service import DevicePluginService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

RESOURCE = "katacontainers.io/sandbox"
WHY = "not eligible: kvm.device: /dev/kvm does not exist"


class Plugin:
    """A plugin with `total` devices, all free and healthy at first."""

    def __init__(self, directory: Path, total: int = 4) -> None:
        self.mode = Mode.ENFORCE
        self.total = total
        self.table = DeviceTable()
        self.holdings = Holdings()
        self.registrar = Registrar(directory, RESOURCE, self.service)
        self.show(total)

    def service(self) -> DevicePluginService:
        return DevicePluginService(self.table, self.holdings, lambda: self.mode, lambda: None)

    def show(self, free: int) -> None:
        """Puts a plan with so many free places in force; those in use stay."""
        in_use = self.holdings.indices
        self.table.update(
            DevicePlan(total=self.total, in_use=in_use, free=free, limit=Limit("eligibility", WHY))
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Plugin]:
        task = asyncio.create_task(self.registrar.run())
        try:
            yield self
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@contextlib.asynccontextmanager
async def plugin_and_kubelet(folder: Path, total: int = 4) -> AsyncIterator[tuple[Plugin, DevKubelet]]:
    """Both, registered, with all devices healthy at kubelet."""
    async with DevKubelet(folder / "dp") as kubelet, Plugin(folder / "dp", total).running() as plugin:
        await kubelet.wait_for_devices(total)
        yield plugin, kubelet


async def until(condition: object, timeout: float = 5.0) -> None:
    """Waits for a callable to become true."""
    assert callable(condition)
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)
