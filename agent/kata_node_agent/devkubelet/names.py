"""Names and paths: which resource names kubelet takes, what lies where, how long a path may be.

Pure, and free of gRPC: the command line uses it before anything is started.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from kata_node_agent.dataclass import dataclass
from kata_node_agent.errors import SocketError, describe_os_error
from kata_node_agent.sockets import check_socket_path

if TYPE_CHECKING:
    from pathlib import Path

API_VERSION = "v1beta1"
SANDBOX_RESOURCE = "katacontainers.io/sandbox"
KUBELET_SOCKET = "kubelet.sock"

# Room for a plugin's own socket name, which is fresh for each listener.
PLUGIN_SOCKET_NAME_BYTES = 40

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})*")
_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_MAX_DOMAIN, _MAX_NAME = 253, 63


def is_extended_resource(name: str) -> bool:
    """Whether kubelet takes a name for an extended resource: ``vendor-domain/name``, not Kubernetes' own."""
    domain, slash, rest = name.partition("/")
    if not slash or "kubernetes.io/" in name or name.startswith("requests."):
        return False
    # Quota counts it as "requests.<name>", and that must be a valid name too.
    if len("requests." + domain) > _MAX_DOMAIN or len(rest) > _MAX_NAME:
        return False
    return bool(_DOMAIN.fullmatch(domain)) and bool(_NAME.fullmatch(rest))


@dataclass(frozen=True)
class Folder:
    """Where a development kubelet keeps its things, under the folder that people give with ``--dir``."""

    root: Path

    @property
    def device_plugins(self) -> Path:
        """What /var/lib/kubelet/device-plugins is on a node."""
        return self.root / "device-plugins"

    @property
    def kubelet_socket(self) -> Path:
        """Where plugins register."""
        return self.device_plugins / KUBELET_SOCKET

    @property
    def pod_resources_socket(self) -> Path:
        """What /var/lib/kubelet/pod-resources/kubelet.sock is on a node."""
        return self.root / "pod-resources" / KUBELET_SOCKET

    @property
    def control_socket(self) -> Path:
        """Where the development kubelet takes commands."""
        return self.root / "devkubelet.sock"

    @property
    def lock(self) -> Path:
        """Held by the development kubelet that runs here; has its pid."""
        return self.root / "devkubelet.lock"

    def check(self) -> None:
        """Refuses a folder whose sockets' paths would be too long (:class:`SocketError`)."""
        check_socket_path(self.device_plugins, room_bytes=1 + PLUGIN_SOCKET_NAME_BYTES)
        check_socket_path(self.pod_resources_socket)
        check_socket_path(self.control_socket)

    def make(self) -> None:
        """Makes the folder if it is not there (:class:`SocketError`)."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SocketError(
                f"{self.root}: {describe_os_error(error)}",
                hint="give a folder that you may write, with --dir",
            ) from error
