"""Device nodes: /dev/kvm and those that a VM's network and agent connection use. Looked at, not opened."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass

if TYPE_CHECKING:
    from kata_node_agent.host.root import HostRoot

KVM = "/dev/kvm"
# Names as the facts use them -> where the node lies.
OTHERS = {"vhost-net": "/dev/vhost-net", "vhost-vsock": "/dev/vhost-vsock", "tun": "/dev/net/tun"}


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """What lies at a device's path.

    ``kind``: ``char``, ``other`` (something that is no character device), ``absent``, or ``unknown`` (the
    tree has no /dev, or the folder may not be searched; ``problem`` says which).
    """

    path: str
    kind: str
    major: int | None = None
    minor: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    problem: str = ""


def read_device(root: HostRoot, host_path: str) -> DeviceNode:
    """What lies at a host path; links are followed, as whoever opens it does."""
    try:
        status = root.resolve(host_path).stat()
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            return DeviceNode(host_path, "unknown", problem=error.strerror or "")
        if not root.exists("/dev"):
            return DeviceNode(host_path, "unknown", problem="the tree has no /dev")
        return DeviceNode(host_path, "absent")
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISCHR(status.st_mode):
        return DeviceNode(host_path, "other", mode=mode, uid=status.st_uid, gid=status.st_gid)
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return DeviceNode(host_path, "char", major, minor, mode, status.st_uid, status.st_gid)


def read_devices(root: HostRoot) -> dict[str, DeviceNode]:
    """The nodes beside /dev/kvm, by the names of :data:`OTHERS`."""
    return {name: read_device(root, path) for name, path in OTHERS.items()}
