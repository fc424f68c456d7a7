"""The node's sandboxes, each with what it becomes and what threatens it."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kata_node_agent.capacity.risks import NodeFacts, find_risks
from kata_node_agent.capacity.usual import usual_overhead_bytes
from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import AgentError
from kata_node_agent.host.allocations import read_allocations
from kata_node_agent.host.cgroup_mounts import find_cgroup_mounts
from kata_node_agent.host.facts import is_live
from kata_node_agent.host.machine import KUBELET_ROOT
from kata_node_agent.host.shm import free_shared_memory, read_shared_memory
from kata_node_agent.nodeconfig.kata import read_kata_settings
from kata_node_agent.nodeconfig.memory import read_budget
from kata_node_agent.nodeconfig.vm_settings import settings_by_handler
from kata_node_agent.report.bundle import Bundle, read_bundle
from kata_node_agent.report.risk_facts import handler_of, pod_facts, sandbox_facts
from kata_node_agent.sandboxes.document import as_document
from kata_node_agent.sandboxes.identity import pod_uid_of
from kata_node_agent.sandboxes.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kata_node_agent.capacity.hotplug import VmSettings
    from kata_node_agent.capacity.risks import Risk, SandboxFacts
    from kata_node_agent.config.schema import Config
    from kata_node_agent.host.cgroup_mounts import CgroupMounts
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.kata import KataSettings
    from kata_node_agent.nodeconfig.kubelet import KubeletSettings
    from kata_node_agent.report.risk_facts import PodFacts
    from kata_node_agent.sandboxes.model import Sandbox, Unbelieved

# The node's settings change rarely, and cost more to read than its sandboxes.
_SETTINGS_SECONDS = 30.0
# Names of vCPU threads: QEMU's, Cloud Hypervisor's, Dragonball's.
VCPU_THREAD = re.compile(r"CPU [0-9]+/KVM|vcpu[0-9]+|db_vcpu[0-9]+")
_MAX_THREADS = 2048


@dataclass(frozen=True, slots=True)
class SandboxView:
    """A sandbox with what is known of it.

    Attributes:
        sandbox: as it was seen.
        known: what is known of its pod.
        final_bytes: the VM's size as forecast; ``None`` where handler or limits are not known.
        commitment_bytes: what is to be kept for it: the VM now or as forecast, and the host's processes.
        risks: what threatens it, the gravest first.
    """

    sandbox: Sandbox
    known: PodFacts
    final_bytes: int | None
    commitment_bytes: int
    risks: tuple[Risk, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """All sandboxes at one moment.

    Attributes:
        views: one for each sandbox, by id.
        unbelieved: processes that claim to be of a sandbox, without evidence.
        node: what they share.
        handlers: Kata's settings.
        problems: what could not be read.
        blind: of these, what kept us from seeing all VMs.
    """

    views: tuple[SandboxView, ...]
    unbelieved: tuple[Unbelieved, ...]
    node: NodeFacts
    handlers: tuple[KataSettings, ...]
    problems: tuple[str, ...]
    blind: tuple[AgentError, ...] = ()

    def document(self) -> dict[str, Any]:
        """What `sandboxes --format json` prints."""
        document = as_document(
            [view.sandbox for view in self.views],
            self.unbelieved,
            host_overhead_bytes=self.node.host_overhead_bytes,
            commitments={view.sandbox.id: view.commitment_bytes for view in self.views},
            risks={view.sandbox.id: view.risks for view in self.views},
        )
        return document | {"problems": list(self.problems)}


@dataclass(frozen=True, slots=True)
class _Settings:
    """What of the node changes rarely."""

    node: NodeFacts
    live: bool
    handlers: tuple[KataSettings, ...]
    by_handler: Mapping[str, VmSettings]
    kubelet_root: str
    mounts: CgroupMounts
    problems: tuple[str, ...]


class SandboxObserver:
    """Looks at the sandboxes below one root, again and again. Blocking, and not for several threads at once."""

    def __init__(self, root: HostRoot, config: Config, known: KubeletSettings | None = None) -> None:
        """Reads nothing yet.

        Args:
            root: the host.
            config: ours.
            known: kubelet's settings, where they were read before.
        """
        self._root = root
        self._config = config
        self._known = known
        self._watcher = Watcher(root)
        self._settings: _Settings | None = None
        self._settings_at = 0.0
        self._bundles: dict[tuple[str, int], Bundle] = {}
        self._cpus: dict[str, tuple[Sandbox, int | None, int | None]] = {}

    def look(self) -> Overview:
        """All sandboxes now.

        Raises:
            HostError: /proc cannot be read.
        """
        return self.view(self._watcher.sweep(), self._watcher.unbelieved, self._watcher.blind)

    def view(
        self,
        sandboxes: tuple[Sandbox, ...],
        unbelieved: tuple[Unbelieved, ...] = (),
        blind: tuple[AgentError, ...] = (),
    ) -> Overview:
        """What there is to say of sandboxes that somebody has seen."""
        settings = self._current()
        allocations = read_allocations(self._root, settings.kubelet_root) or {}
        self._forget(sandboxes)
        known = [pod_facts(s, self._bundle(s), allocations.get(s.pod_uid or "")) for s in sandboxes]
        by_handler = settings.by_handler
        of = [by_handler.get(handler_of(sandbox, by_handler) or "") for sandbox in sandboxes]
        facts = [
            sandbox_facts(s, k, o, vcpus=vcpus, cpu_quota_millicores=quota)
            for s, k, o, (vcpus, quota) in zip(
                sandboxes, known, of, map(self._cpus_of, sandboxes), strict=True
            )
        ]
        in_shm = sum(fact.vm_bytes for fact in facts if fact.memory_in == "shm")
        # In a recorded tree the folder lies on the disk of whoever looks at it.
        free = free_shared_memory(self._root) if settings.live else None
        node = replace(settings.node, shm_vm_bytes=in_shm, shm_free_bytes=free)
        views = tuple(_view(*each, node) for each in zip(sandboxes, known, facts, strict=True))
        problems = (*map(str, blind), *settings.problems)
        return Overview(views, unbelieved, node, settings.handlers, problems, blind)

    def _forget(self, sandboxes: tuple[Sandbox, ...]) -> None:
        here = {(sandbox.id, sandbox.started) for sandbox in sandboxes}
        self._bundles = {key: bundle for key, bundle in self._bundles.items() if key in here}
        ids = {sandbox.id for sandbox in sandboxes}
        self._cpus = {key: found for key, found in self._cpus.items() if key in ids}

    def _bundle(self, sandbox: Sandbox) -> Bundle:
        key = (sandbox.id, sandbox.started)
        bundle = self._bundles.get(key) or read_bundle(self._root, sandbox.id)
        if bundle != Bundle():
            self._bundles[key] = bundle
        return bundle

    def _cpus_of(self, sandbox: Sandbox) -> tuple[int | None, int | None]:
        """(vCPUs, what the pod's cgroup may use); read again when the sandbox has changed."""
        before = self._cpus.get(sandbox.id)
        if before is None or before[0] is not sandbox:
            mounts = self._settings.mounts if self._settings is not None else find_cgroup_mounts(self._root)
            before = (
                sandbox,
                count_vcpus(self._root, sandbox.pid),
                pod_quota_millicores(self._root, mounts, sandbox.cgroup),
            )
            self._cpus[sandbox.id] = before
        return before[1], before[2]

    def _current(self) -> _Settings:
        now = time.monotonic()
        if self._settings is None or now - self._settings_at >= _SETTINGS_SECONDS:
            self._settings, self._settings_at = self._read_settings(), now
        return self._settings

    def _read_settings(self) -> _Settings:
        root, problems = self._root, []
        node = NodeFacts(host_overhead_bytes=usual_overhead_bytes(self._config.sandbox.host_overhead, {}))
        kubelet_root, capacity = KUBELET_ROOT, None
        try:
            budget, kubelet = read_budget(root, self._config.kubelet, self._known)
            kubelet_root = kubelet.text("rootDir") or KUBELET_ROOT
            capacity = budget.capacity_bytes
            node = replace(node, allocatable_bytes=budget.allocatable_bytes)
            if kubelet.problem:
                problems.append(kubelet.problem)
        except AgentError as error:
            problems.append(str(error))
        live = is_live(root)
        shm = read_shared_memory(root, live=live, memory_bytes=capacity)
        node = replace(node, shm_bytes=shm.total_bytes if shm is not None else None)
        handlers = read_kata_settings(root)
        problems += [f"handler {kata.handler}: {kata.problem}" for kata in handlers if kata.problem]
        by_handler = settings_by_handler(root, handlers, capacity, live=live)
        return _Settings(
            node, live, handlers, by_handler, kubelet_root, find_cgroup_mounts(root), tuple(problems)
        )


def _view(sandbox: Sandbox, known: PodFacts, facts: SandboxFacts, node: NodeFacts) -> SandboxView:
    beside = facts.host_overhead_bytes
    if beside is None:
        beside = node.host_overhead_bytes
    return SandboxView(sandbox, known, facts.final_bytes, facts.size_bytes + beside, find_risks(facts, node))


def count_vcpus(root: HostRoot, pid: int) -> int | None:
    """CPUs of a VM, by the names of its VMM's threads; ``None`` where they do not say."""
    threads = root.list_names(f"/proc/{pid}/task")[:_MAX_THREADS]
    names = [root.try_read_text(f"/proc/{pid}/task/{thread}/comm", 64) or "" for thread in threads]
    return sum(1 for name in names if VCPU_THREAD.fullmatch(name.strip())) or None


def pod_quota_millicores(root: HostRoot, mounts: CgroupMounts, cgroup: str | None) -> int | None:
    """What the pod's cgroup may use of CPU; ``None`` for no limit, or where it is not known."""
    group = pod_group(cgroup or "")
    if not group or not mounts.cpu:
        return None
    folder = f"{mounts.cpu}{group}"
    if mounts.hierarchy == "v2":
        words = (root.try_read_text(f"{folder}/cpu.max", 64) or "").split()
    else:
        words = [
            (root.try_read_text(f"{folder}/cpu.cfs_{name}_us", 64) or "").strip()
            for name in ("quota", "period")
        ]
    # "max" and -1 are no limit.
    if len(words) != 2 or not all(re.fullmatch(r"[0-9]{1,18}", word) for word in words) or not int(words[1]):
        return None
    return int(words[0]) * 1000 // int(words[1])


def pod_group(cgroup: str) -> str:
    """The pod's group among those that a group is in; empty where it is in none."""
    parts = cgroup.split("/")
    for end in range(1, len(parts) + 1):
        if pod_uid_of("/".join(parts[:end])) is not None:
            return "/".join(parts[:end])
    return ""
