"""Kernel events (uevents) that may change what a node can do: KVM, its modules, CPUs, blocks of memory.

An event is only a reason to look. KVM itself sends an event whenever a VM is made or ends (action ``change``): those must not
count, or every pod, and every look of ours, would be a reason to look again.
"""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

from kata_node_agent.dataclass import dataclass
from kata_node_agent.packages import bare_package

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

# The kernel's own group; the other is udev's, where programs speak.
_KERNEL_GROUP = 1
_DEVICES = frozenset({"kvm", "vhost-net", "vhost-vsock"})


@dataclass(frozen=True, slots=True)
class KernelEvent:
    """One event: what happened to what."""

    action: str
    subsystem: str
    name: str

    @property
    def concerns_us(self) -> bool:
        """Whether eligibility or capacity may be another after it."""
        match self.subsystem:
            case "misc":
                return self.name in _DEVICES and self.action in {"add", "remove"}
            case "module":
                return self.name.startswith(("kvm", "vhost")) and self.action in {"add", "remove"}
            case "cpu" | "memory":
                return self.action in {"add", "remove", "online", "offline"}
            case _:
                return False


def parse_event(fields: Mapping[str, Any]) -> KernelEvent | None:
    """An event from the fields of the kernel's message; ``None`` where it lacks what every event has."""
    action, subsystem, path = (fields.get(key) for key in ("ACTION", "SUBSYSTEM", "DEVPATH"))
    if not (isinstance(action, str) and isinstance(subsystem, str) and isinstance(path, str)):
        return None
    return KernelEvent(action, subsystem, path.rpartition("/")[2])


async def kernel_events() -> AsyncIterator[KernelEvent]:
    """All events from now on.

    Raises:
        OSError: the kernel gives no such socket: in some containers, or under a strict filter.
    """
    library = await asyncio.to_thread(_load)
    socket = library.AsyncUeventSocket()
    try:
        await socket.bind(groups=_KERNEL_GROUP)
        while True:
            # One call gives what has come in, and ends.
            async for message in socket.get():
                if (event := parse_event(message)) is not None:
                    yield event
    finally:
        socket.close()


def _load() -> Any:
    """The one module of pyroute2 that we need: 2 MiB and 30 ms, when it is wanted, and not on the event loop.

    Importing the package would load all of it: 11 MiB and 100 ms more on every node.
    """
    bare_package("pyroute2")
    return importlib.import_module("pyroute2.netlink.uevent")
