"""Where a sandbox's processes are: their pod, and the control groups that are charged for them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.host.cgroups import group_in
from kata_node_agent.sandboxes.cost import charge_of
from kata_node_agent.sandboxes.identity import Identity, pod_uid_of, read_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kata_node_agent.host.cgroup_mounts import CgroupMounts
    from kata_node_agent.host.cgroup_reader import Group, GroupReader
    from kata_node_agent.host.process_files import ProcessFiles
    from kata_node_agent.host.root import HostRoot
    from kata_node_agent.sandboxes.model import Charge, Cost

_MAX_TASKS = 64
# How Kata's factory names a VM that it starts before there is a sandbox for it. Container runtimes' ids are no UUIDs.
_FACTORY_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Places:
    """Where groups are read; the same for all VMs of a sweep."""

    root: HostRoot
    mounts: CgroupMounts
    groups: GroupReader
    pod_names: Mapping[str, str]


def identify(
    files: ProcessFiles, places: Places, sandbox_id: str, pids: Sequence[int], known: Identity | None
) -> tuple[str | None, Identity]:
    """The group of a sandbox's VMM, and whose sandbox it is.

    Args:
        files: an open /proc.
        places: where groups are.
        sandbox_id: of the sandbox.
        pids: of its processes, the VMM first.
        known: what was known of it before, which does not change.
    """
    cgroup = _group(files, places, pids[0]) or None
    identity = known or read_bundle(places.root, sandbox_id)
    uid = identity.pod_uid
    if uid is None:
        groups = (_group(files, places, pid) for pid in pids)
        uid = next((found for group in groups if (found := pod_uid_of(group))), None)
    if uid is None and places.mounts.hierarchy != "v2":
        uid = _pod_of_threads(files, pids[0])
    pod = identity.pod or (places.pod_names.get(uid) if uid else None)
    return cgroup, Identity(uid, pod, identity.handler)


def is_waiting(root: HostRoot, sandbox_id: str) -> bool:
    """Whether this is a VM of Kata's factory that no sandbox has taken yet."""
    if _FACTORY_ID.fullmatch(sandbox_id) is None:
        return False
    return not any(root.exists(f"{folder}/{sandbox_id}") for folder in ("/run/vc/sbs", "/run/kata"))


def read_charge(
    files: ProcessFiles, places: Places, sandbox_id: str, cgroup: str, pids: Sequence[int], cost: Cost | None
) -> Charge | None:
    """What groups are charged for a sandbox; ``None`` where its VMM's is not its own.

    Args:
        files: an open /proc.
        places: where groups are.
        sandbox_id: of the sandbox.
        cgroup: of its VMM.
        pids: of its processes.
        cost: what it costs.
    """
    group = _own_group(places, sandbox_id, cgroup)
    if group is None:
        return None
    paths = {_group(files, places, pid) for pid in pids}
    others = [
        found
        for path in sorted(paths - {group.path, ""})
        if not path.startswith(f"{group.path}/")
        and (found := _own_group(places, sandbox_id, path)) is not None
    ]
    return charge_of(cost, group, _limit(places.groups, group), others)


def _group(files: ProcessFiles, places: Places, pid: int) -> str:
    return group_in((files.read(pid, "cgroup") or b"").decode(errors="replace"), places.mounts)


def _pod_of_threads(files: ProcessFiles, pid: int) -> str | None:
    """On v1 Kata may move the vCPUs' threads alone into the pod's group."""
    for task in files.names(pid, "task")[:_MAX_TASKS]:
        text = files.read(pid, f"task/{task}/cgroup") or b""
        for line in text.decode(errors="replace").splitlines():
            if uid := pod_uid_of(line.split(":", 2)[-1]):
                return uid
    return None


def _own_group(places: Places, sandbox_id: str, path: str) -> Group | None:
    """A group in which this sandbox is alone: its pod's, or one that Kata made for it. Others say nothing about it."""
    if pod_uid_of(path) is None and sandbox_id not in path:
        return None
    return places.groups.group(path, whole=True)


def _limit(groups: GroupReader, group: Group) -> int | None:
    """The lowest limit from a group up to its pod's: what its processes are killed at."""
    limits = [group.limit_bytes]
    parts = group.path.split("/")
    for end in range(len(parts) - 1, 1, -1):
        path = "/".join(parts[:end])
        if pod_uid_of(path) is None:
            break
        above = groups.group(path, whole=True)
        limits.append(above.limit_bytes if above is not None else None)
    return min((limit for limit in limits if limit is not None), default=None)
