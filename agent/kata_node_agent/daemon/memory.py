"""The node's memory as the account needs it, read every few seconds. Blocking; called on a thread."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import Backing, NodeMemory
from kata_node_agent.capacity.pressure_stop import Pressure
from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import HostError
from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.facts import is_live
from kata_node_agent.host.kernel import read_arch
from kata_node_agent.host.machine import online_cpus
from kata_node_agent.host.meminfo import read_meminfo
from kata_node_agent.host.pressure import parse_pressure
from kata_node_agent.host.shm import free_shared_memory
from kata_node_agent.nodeconfig.kata import read_kata_settings
from kata_node_agent.nodeconfig.vm_settings import vm_settings
from kata_node_agent.report.others import read_other_pods

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from kata_node_agent.capacity.free import OtherPod
    from kata_node_agent.capacity.hotplug import VmSettings
    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.node import NodeView
    from kata_node_agent.host.cgroup_mounts import CgroupMounts
    from kata_node_agent.host.root import HostRoot

# Hundreds of pods have hundreds of files; what they hold changes less in this time than the margin.
OTHERS_SECONDS = 10.0
SETTINGS_SECONDS = 60.0
_PRESSURE = "/proc/pressure/memory"

_BACKINGS = {"shm": Backing.SHARED, "hugepages": Backing.HUGE}


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading: the account's facts, the signs of pressure, and Kata's settings for each handler whose VMs run here."""

    node: NodeMemory
    pressure: Pressure
    handlers: Mapping[str, VmSettings]


class MemoryReader:
    """Reads below one root; remembers what is dear to read. Not for several threads at once."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        self._live: bool | None = None
        self._mounts: CgroupMounts | None = None
        self._others: Mapping[str, OtherPod] = {}
        self._others_at = float("-inf")
        self._handlers: Mapping[str, VmSettings] = {}
        self._settings_at = float("-inf")

    def read(self, view: NodeView | None, config: Config, kata_uids: Collection[str]) -> Reading:
        """What there is now; amounts that cannot be read are ``None``.

        Args:
            view: the last look at the node.
            config: ours.
            kata_uids: pods with a VM.
        """
        now = time.monotonic()
        if self._live is None:
            self._live = is_live(self._root)
        if now - self._settings_at >= SETTINGS_SECONDS or self._mounts is None:
            self._mounts = find_cgroup_mounts(self._root)
            self._handlers = self._read_handlers(view)
            self._settings_at = now
        if view is not None and view.kubelet is not None and now - self._others_at >= OTHERS_SECONDS:
            self._others = read_other_pods(self._root, view.kubelet, self._mounts, kata_uids)
            self._others_at = now
        budget = view.budget if view is not None else None
        eviction = budget.eviction_hard_bytes if budget is not None else 0
        available, huge_free = self._meminfo()
        node = NodeMemory(
            allocatable_bytes=budget.allocatable_bytes if budget is not None else None,
            available_bytes=available,
            eviction_bytes=eviction,
            shared_free_bytes=free_shared_memory(self._root) if self._live else None,
            huge_free_bytes=huge_free,
            others=self._others,
        )
        waits = parse_pressure(self._root.try_read_text(_PRESSURE, 4096) or "")
        pressure = Pressure(
            waiting_percent=waits.some_avg10 if waits is not None else None,
            waiting_percent_minute=waits.some_avg60 if waits is not None else None,
            left_bytes=available - eviction if available is not None else None,
            margin_bytes=config.accounting.margin,
        )
        return Reading(node, pressure, self._handlers)

    def _meminfo(self) -> tuple[int | None, int | None]:
        try:
            memory = read_meminfo(self._root)
        except HostError:
            return None, None
        pages, size = memory.hugepages_free, memory.hugepage_size_bytes
        return memory.available_bytes, pages * size if pages is not None and size is not None else None

    def _read_handlers(self, view: NodeView | None) -> Mapping[str, VmSettings]:
        arch = read_arch(self._root) or (os.uname().machine if self._live else "")
        cpus = online_cpus(self._root)
        budget = view.budget if view is not None else None
        # Without the host's memory no maximum is known: any VM fits.
        capacity = budget.capacity_bytes if budget is not None else 1 << 50
        return {
            kata.handler: vm_settings(kata, capacity, cpus, arch) for kata in read_kata_settings(self._root)
        }


def backing_of(memory_in: str) -> Backing:
    """Where a VM's memory lives, as the account has it: a memfd is no file in /dev/shm."""
    return _BACKINGS.get(memory_in, Backing.ANONYMOUS)
