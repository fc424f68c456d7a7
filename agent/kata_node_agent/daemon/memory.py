"""The node's memory as the account needs it, read every few seconds. Blocking; called on a thread."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from kata_node_agent.capacity.free import Backing, NodeMemory
from kata_node_agent.capacity.hotplug import VmSettings
from kata_node_agent.capacity.pressure_stop import Pressure
from kata_node_agent.capacity.usual import usual_vm_bytes
from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import HostError
from kata_node_agent.host.allocations import signature
from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.facts import is_live
from kata_node_agent.host.kata import read_default_handlers
from kata_node_agent.host.machine import KUBELET_ROOT
from kata_node_agent.host.meminfo import read_meminfo
from kata_node_agent.host.pressure import parse_pressure
from kata_node_agent.host.shm import free_shared_memory
from kata_node_agent.nodeconfig.kata import read_kata_settings
from kata_node_agent.nodeconfig.vm_settings import settings_by_handler
from kata_node_agent.report.others import read_other_pods

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    from kata_node_agent.capacity.free import OtherPod
    from kata_node_agent.config.schema import Config
    from kata_node_agent.daemon.node import NodeView
    from kata_node_agent.host.cgroup_mounts import CgroupMounts
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.report.forecasts import Expected, Forecaster
    from kata_node_agent.sandboxes.model import Sandbox

# Hundreds of pods have hundreds of files; what they hold changes less in this time than the margin.
OTHERS_SECONDS = 10.0
SETTINGS_SECONDS = 60.0
_PRESSURE = "/proc/pressure/memory"

_BACKINGS = {"shm": Backing.SHARED, "hugepages": Backing.HUGE}


@dataclass(frozen=True, slots=True)
class Reading:
    """One reading.

    Attributes:
        node: the account's facts.
        pressure: its signs.
        handlers: Kata's settings for each handler.
        default_handler: that of a pod which names none; empty where that is not Kata's.
        overheads: by handler, the p99 of what its sandboxes cost beside their guests' memory, in bytes.
        expected: by sandbox, what its VM becomes.
    """

    node: NodeMemory
    pressure: Pressure
    handlers: Mapping[str, VmSettings]
    default_handler: str
    overheads: Mapping[str, int]
    expected: Mapping[str, Expected]


class MemoryReader:
    """Reads below one root; remembers what is dear to read."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        # A reading whose caller gave up goes on by itself; the next one waits for its end.
        self._one_at_a_time = threading.Lock()
        self._live: bool | None = None
        self._mounts: CgroupMounts | None = None
        self._others: Mapping[str, OtherPod] = {}
        self._others_at = float("-inf")
        self._allocated: tuple[int, ...] | None = None
        self._handlers: Mapping[str, VmSettings] = {}
        self._default_handler = ""
        self._overheads: Mapping[str, int] = {}
        self._forecaster: Forecaster | None = None
        self._settings_at = float("-inf")

    def read(
        self,
        view: NodeView | None,
        config: Config,
        kata_uids: Collection[str],
        sandboxes: Collection[Sandbox] = (),
    ) -> Reading:
        """What there is now; amounts that cannot be read are ``None``.

        Args:
            view: the last look at the node.
            config: ours.
            kata_uids: pods with a VM.
            sandboxes: VMs that run.
        """
        with self._one_at_a_time:
            return self._read(view, config, kata_uids, sandboxes)

    def _read(
        self,
        view: NodeView | None,
        config: Config,
        kata_uids: Collection[str],
        sandboxes: Collection[Sandbox],
    ) -> Reading:
        now = time.monotonic()
        if self._live is None:
            self._live = is_live(self._root)
        if now - self._settings_at >= SETTINGS_SECONDS or self._mounts is None:
            self._mounts = find_cgroup_mounts(self._root)
            self._handlers = self._read_handlers(view)
            self._overheads = self._read_overheads(config.state_dir)
            self._settings_at = now
        if view is not None and view.kubelet is not None:
            allocated = signature(self._root, _kubelet_root(view))
            # A pod that kubelet has just admitted counts at once.
            if now - self._others_at >= OTHERS_SECONDS or allocated != self._allocated:
                self._others = read_other_pods(self._root, view.kubelet, self._mounts, kata_uids)
                self._others_at, self._allocated = now, allocated
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
        return Reading(
            node,
            pressure,
            self._handlers,
            self._default_handler,
            self._overheads,
            self._expect(view, config, sandboxes),
        )

    def _expect(
        self, view: NodeView | None, config: Config, sandboxes: Collection[Sandbox]
    ) -> Mapping[str, Expected]:
        """What becomes of VMs that run; without any nothing is loaded for it."""
        if not sandboxes:
            return {}
        if self._forecaster is None:
            from kata_node_agent.report.forecasts import Forecaster

            self._forecaster = Forecaster(self._root)
        usual = VmSettings(default_memory_bytes=usual_vm_bytes(config.sandbox.vm_memory, {}))
        return self._forecaster.look(sandboxes, self._handlers, _kubelet_root(view), usual)

    def _read_overheads(self, folder: Path) -> Mapping[str, int]:
        """Of the handlers that have a history. It is this machine's: a recorded tree has none."""
        if not self._live or not self._handlers:
            return {}
        from kata_node_agent.report.overhead import HOST_OVERHEAD, read_histories

        try:
            histories = read_histories(folder, self._handlers, time.time())
        except HostError:
            return {}
        return {
            handler: each.p99
            for handler, observed in histories.items()
            for each in observed
            if each.name == HOST_OVERHEAD and each.p99 > 0
        }

    def _meminfo(self) -> tuple[int | None, int | None]:
        try:
            memory = read_meminfo(self._root)
        except HostError:
            return None, None
        pages, size = memory.hugepages_free, memory.hugepage_size_bytes
        return memory.available_bytes, pages * size if pages is not None and size is not None else None

    def _read_handlers(self, view: NodeView | None) -> Mapping[str, VmSettings]:
        budget = view.budget if view is not None else None
        capacity = budget.capacity_bytes if budget is not None else None
        katas = read_kata_settings(self._root)
        defaults = read_default_handlers(self._root)
        self._default_handler = next(
            (kata.handler for kata in katas if defaults.get(kata.runtime) == kata.handler), ""
        )
        return settings_by_handler(self._root, katas, capacity, live=bool(self._live))


def _kubelet_root(view: NodeView | None) -> str:
    """Kubelet's folder."""
    kubelet = view.kubelet if view is not None else None
    return (kubelet.text("rootDir") if kubelet is not None else "") or KUBELET_ROOT


def backing_of(memory_in: str) -> Backing:
    """Where a VM's memory lives, as the account has it: a memfd is no file in /dev/shm."""
    return _BACKINGS.get(memory_in, Backing.ANONYMOUS)
