"""What handlers' sandboxes cost beside their containers' limits, over time: the history that podFixed is advised from."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from kata_node_agent.advice.pod_overhead import HandlerUse
from kata_node_agent.capacity.annotations import MEMORY_OVERHEAD
from kata_node_agent.report.risk_facts import handler_of
from kata_node_agent.report.sandboxes import VCPU_THREAD
from kata_node_agent.series import read_observed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.nodeconfig.kata import KataSettings
    from kata_node_agent.report.sandboxes import Overview, SandboxView
    from kata_node_agent.sandboxes.model import Sandbox
    from kata_node_agent.series import Observed

# Of each, the largest of all sandboxes of a handler.
HOST_OVERHEAD, BEYOND_LIMITS, HOST_MILLICORES = "host_overhead", "beyond_limits", "host_millicores"
FIGURES = (HOST_OVERHEAD, BEYOND_LIMITS, HOST_MILLICORES)
# A file each, a quarter of a MiB: a node has one or two.
MAX_HANDLERS = 16
# What a RuntimeClass may have for a handler, and no path.
_HANDLER = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_MIB = 1 << 20
_MAX_THREADS = 4096


def history_name(handler: str) -> str | None:
    """The file of a handler's history in ``state_dir``; ``None`` for a name that is none."""
    return f"overhead-{handler}.series" if _HANDLER.fullmatch(handler) and ".." not in handler else None


class OverheadSampler:
    """Makes the figures of one moment; CPU is that of the time since the sample before."""

    def __init__(self, root: HostRoot) -> None:
        self._root = root
        self._ticks: dict[tuple[str, int], tuple[float, int]] = {}

    def sample(self, overview: Overview, now: float) -> dict[str, dict[str, int | None]]:
        """Handler → figure → value, in bytes and millicores.

        Args:
            overview: of the sandboxes.
            now: monotonic seconds.
        """
        figures: dict[str, dict[str, int | None]] = {}
        ticks: dict[tuple[str, int], tuple[float, int]] = {}
        handlers = [kata.handler for kata in overview.handlers]
        for view in overview.views:
            sandbox = view.sandbox
            key = (sandbox.id, sandbox.started)
            millicores = None
            if (used := host_ticks(self._root, sandbox)) is not None:
                ticks[key] = (now, used)
                millicores = _millicores(self._ticks.get(key), ticks[key])
            name = handler_of(sandbox, handlers)
            if name is None or history_name(name) is None:
                continue
            mine = figures.setdefault(name, dict.fromkeys(FIGURES))
            _raise(
                mine, HOST_OVERHEAD, sandbox.cost.host_overhead_bytes if sandbox.cost is not None else None
            )
            _raise(mine, BEYOND_LIMITS, _beyond(view) if view.known.limits_bytes is not None else None)
            _raise(mine, HOST_MILLICORES, millicores)
        self._ticks = ticks
        return dict(sorted(figures.items())[:MAX_HANDLERS])


def host_ticks(root: HostRoot, sandbox: Sandbox) -> int | None:
    """CPU time of a sandbox's processes in clock ticks, its vCPUs left out; ``None`` where it cannot be read."""
    total = 0
    for process in sandbox.processes:
        used = _ticks(root, f"/proc/{process.pid}")
        if used is None:
            return None
        total += used
    guest = (
        _ticks(root, f"/proc/{sandbox.pid}/task/{thread}")
        for thread in root.list_names(f"/proc/{sandbox.pid}/task")[:_MAX_THREADS]
        if VCPU_THREAD.fullmatch(
            (root.try_read_text(f"/proc/{sandbox.pid}/task/{thread}/comm", 64) or "").strip()
        )
    )
    return max(0, total - sum(ticks or 0 for ticks in guest))


def handler_uses(
    overview: Overview,
    observed: Mapping[str, tuple[Observed, ...]],
    default_overhead_bytes: int,
    *,
    openshift: bool,
) -> tuple[HandlerUse, ...]:
    """What is known of each handler of the node, for advice.

    Args:
        overview: of the sandboxes.
        observed: each handler's history.
        default_overhead_bytes: host overhead of a sandbox, where there is no history.
        openshift: whether the node is OpenShift's.
    """
    uses = []
    handlers = [kata.handler for kata in overview.handlers]
    for kata in overview.handlers:
        mine = [view for view in overview.views if handler_of(view.sandbox, handlers) == kata.handler]
        seen = {each.name: each for each in observed.get(kata.handler, ())}
        # A RuntimeClass is changed in place: the newest pod has what is in force.
        newest = max(
            (view for view in mine if view.known.overhead_bytes is not None),
            key=lambda view: view.sandbox.started,
            default=None,
        )
        setting = "overhead_memory" if _sized_without_default(kata) else "default_memory"
        beyond = kata.number(setting) * _MIB
        if mine and all(_has_memory_overhead(view) for view in mine):
            # OpenShift's annotation makes the first hotplug smaller by default_memory: what is seen counts.
            setting, beyond = "annotation memory_overhead", max(map(_beyond, mine))
        huge = _in_huge_pages(kata, mine)
        if huge:
            setting, beyond = "enable_hugepages", 0
        uses.append(
            HandlerUse(
                name=kata.handler,
                runs_here=kata.runs_here,
                beyond_bytes=beyond,
                beyond_setting=setting,
                running=tuple(v.known.overhead_bytes for v in mine if v.known.overhead_bytes is not None),
                pod_fixed_bytes=newest.known.overhead_bytes if newest is not None else None,
                pod_fixed_millicores=newest.known.overhead_millicores if newest is not None else None,
                host_overhead=seen.get(HOST_OVERHEAD),
                # What was seen may be of VMs from before the setting.
                beyond=None if huge else seen.get(BEYOND_LIMITS),
                host_millicores=seen.get(HOST_MILLICORES),
                default_overhead_bytes=default_overhead_bytes,
                openshift=openshift,
            )
        )
    return tuple(uses)


def read_histories(state_dir: Path, handlers: Iterable[str], now: float) -> dict[str, tuple[Observed, ...]]:
    """The history of each of these handlers.

    Raises:
        HostError: there is one that may not be read.
    """
    names = {handler: history_name(handler) for handler in handlers}
    return {
        handler: read_observed(state_dir / name, now) for handler, name in names.items() if name is not None
    }


def _sized_without_default(kata: KataSettings) -> bool:
    return kata.kind == "runtime-rs" and kata.values["static_sandbox_resource_mgmt"].value is True


def _in_huge_pages(kata: KataSettings, views: list[SandboxView]) -> bool:
    """Whether no VM of the handler has ordinary memory: podFixed's memory is none of what they have."""
    if views:
        return all(view.sandbox.memory_location == "hugepages" for view in views)
    return kata.values["enable_hugepages"].value is True


def _has_memory_overhead(view: SandboxView) -> bool:
    return view.known.pod is not None and MEMORY_OVERHEAD in view.known.pod.annotations


def _beyond(view: SandboxView) -> int:
    """What its VM has of ordinary memory beyond its containers' limits; all of it where those are not known."""
    if view.sandbox.memory_location == "hugepages":
        return 0
    return max(0, view.sandbox.vm_memory_bytes - (view.known.limits_bytes or 0))


def _millicores(before: tuple[float, int] | None, now: tuple[float, int]) -> int | None:
    if before is None or now[0] <= before[0] or now[1] < before[1]:
        return None
    return round((now[1] - before[1]) * 1000 / os.sysconf("SC_CLK_TCK") / (now[0] - before[0]))


def _raise(figures: dict[str, int | None], name: str, value: int | None) -> None:
    if value is not None:
        figures[name] = max(value, figures[name] or 0)


def _ticks(root: HostRoot, folder: str) -> int | None:
    """User and system time of a process or thread: fields 14 and 15 of its stat, counted after its name."""
    text = root.try_read_text(f"{folder}/stat", 4096)
    if text is None:
        return None
    fields = text.rpartition(")")[2].split()
    if len(fields) < 13 or not (fields[11].isdigit() and fields[12].isdigit()):
        return None
    return int(fields[11]) + int(fields[12])
